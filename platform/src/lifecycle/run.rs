//! The whole main of a service: settings, telemetry, connect, serve, stop.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::{App, BoxError, Causes, Context, Lifecycle};
use crate::admin::{Admin, BuildInfo};
use crate::config::{Bootstrap, ConfigError, Configuration, ConsulSettings, Loaded, Settings};
use crate::consul::{Consul, Registration};
use crate::health::Health;
use crate::http::server::Server;
use crate::telemetry::{self, Telemetry};

/// `EX_USAGE` of sysexits.h: what was given can't be used.
const BAD_SETTINGS: u8 = 64;
const FAILURE: u8 = 1;
/// For a Consul agent on the same machine; it forgets us by itself if it doesn't answer.
const DEREGISTER_LIMIT: Duration = Duration::from_millis(500);
/// For the last batch of a consumer or the last run of a job.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(2);
/// For what is flushed then.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);
/// For a start that is under way when the signal comes.
const START_LIMIT: Duration = Duration::from_secs(2);
/// Whatever hangs, the process is gone by then: below the 10 s after which most supervisors kill.
const SHUTDOWN_LIMIT: Duration = Duration::from_millis(9_500);

/// Runs a service from its arguments to its end. `start` connects and builds; the exit code is 0 after a clean stop, 64
/// for bad settings (all of them listed), else 1.
pub fn run<S, F, Fut>(service: &'static str, bootstrap: Bootstrap, start: F) -> ExitCode
where
    S: Settings,
    F: FnOnce(Context, S) -> Fut,
    Fut: Future<Output = Result<App, BoxError>>,
{
    let instance = bootstrap.instance_of(service);
    let profile = bootstrap.profile.clone();
    let settings_of = bootstrap.settings_of.unwrap_or(service);
    let configuration = Configuration::new(settings_of, bootstrap.clone());
    let load = async move { crate::config::load::<S>(settings_of, &bootstrap).await };
    launch(service, instance, &profile, Some(configuration), load, start)
}

/// The same with settings that don't come from a configuration server: how the configuration server itself runs.
pub fn run_with_settings<S, F, Fut>(
    service: &'static str,
    instance: Option<String>,
    settings: S,
    start: F,
) -> ExitCode
where
    S: Settings,
    F: FnOnce(Context, S) -> Fut,
    Fut: Future<Output = Result<App, BoxError>>,
{
    let bootstrap = Bootstrap::from_variables(instance, []);
    let loaded = async move {
        let mut problems = crate::config::Problems::default();
        settings.validate(&mut problems);
        if problems.is_empty() {
            Ok(Loaded { settings, commit: None, origins: BTreeMap::new() })
        } else {
            Err(ConfigError::Invalid(problems))
        }
    };
    launch(service, bootstrap.instance_of(service), &bootstrap.profile, None, loaded, start)
}

fn launch<S, F, Fut>(
    service: &'static str,
    instance: String,
    profile: &str,
    configuration: Option<Configuration>,
    load: impl Future<Output = Result<Loaded<S>, ConfigError>>,
    start: F,
) -> ExitCode
where
    S: Settings,
    F: FnOnce(Context, S) -> Fut,
    Fut: Future<Output = Result<App, BoxError>>,
{
    crate::files::raise_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(service, &format!("no runtime: {error}"));
            return ExitCode::from(FAILURE);
        }
    };
    let code = runtime.block_on(async {
        let loaded = {
            let _boot = telemetry::boot(service, &instance);
            load.await
        };
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(ConfigError::Invalid(problems)) => {
                for problem in problems.iter() {
                    complain(service, problem);
                }
                return ExitCode::from(BAD_SETTINGS);
            }
            Err(error) => {
                complain(service, &error.to_string());
                return ExitCode::from(FAILURE);
            }
        };
        let telemetry = match Telemetry::init(loaded.settings.common().telemetry, service, &instance) {
            Ok(telemetry) => telemetry,
            Err(error) => {
                complain(service, &format!("no telemetry: {error}"));
                return ExitCode::from(FAILURE);
            }
        };
        let outcome = live(service, instance, profile, configuration, loaded, &telemetry, start).await;
        let code = match outcome {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(FAILURE),
            Err(error) => {
                tracing::error!(error = %Causes(&*error), "the process could not start");
                ExitCode::from(FAILURE)
            }
        };
        telemetry.flush().await;
        code
    });
    // What still runs has had its time.
    runtime.shutdown_background();
    code
}

#[expect(clippy::print_stderr, reason = "there is no telemetry before there are settings")]
fn complain(service: &str, line: &str) {
    eprintln!("{service}: {line}");
}

/// Everything between telemetry and its flush. True is a clean stop.
async fn live<S, F, Fut>(
    service: &'static str,
    instance: String,
    profile: &str,
    configuration: Option<Configuration>,
    loaded: Loaded<S>,
    telemetry: &Telemetry,
    start: F,
) -> Result<bool, BoxError>
where
    S: Settings,
    F: FnOnce(Context, S) -> Fut,
    Fut: Future<Output = Result<App, BoxError>>,
{
    let Loaded { settings, commit, origins } = loaded;
    let lifecycle = Lifecycle::new();
    watch_signals(lifecycle.clone())?;
    crate::memory::give_back()?;
    let shown = serde_json::to_value(&settings)?;
    let info = BuildInfo::new(service, &instance, commit);
    tracing::info!(version = info.version, git.commit = info.commit, config.commit = info.config_commit.as_deref(),
        settings = %shown, "starting");
    let health = Health::new();
    let common = settings.common();
    let (server_settings, admin_settings) = (common.server.clone(), common.admin.clone());
    let consul_settings = common.consul.clone();
    let consul = common.consul.enabled.then(|| Consul::new(common.consul));
    let environment = crate::config::environment(&shown, &origins, profile);
    let admin = Admin::start(&admin_settings, health.clone(), info.clone(), environment, telemetry)?;
    let context = Context {
        service,
        instance: instance.clone(),
        lifecycle: lifecycle.clone(),
        health: health.clone(),
        consul: consul.clone(),
        info,
        configuration,
    };
    let stopping = lifecycle.stopping();
    let too_late = async {
        stopping.cancelled().await;
        tokio::time::sleep(START_LIMIT).await;
    };
    let app = tokio::select! {
        app = start(context, settings) => app,
        () = too_late => Err("stopped while starting".into()),
    };
    let app = match app {
        Ok(app) => app,
        Err(error) if stopping.is_cancelled() && !lifecycle.failed() => {
            tracing::info!(reason = %error, "stopped before it had started");
            lifecycle.stop_background(BACKGROUND_LIMIT).await;
            return Ok(true);
        }
        Err(error) => {
            lifecycle.stop_background(BACKGROUND_LIMIT).await;
            return Err(error);
        }
    };
    admin.add(app.admin);
    let server = app
        .routers
        .map(|routers| Server::start_as(&server_settings, app.edge, move |worker| routers(worker)))
        .transpose()?;
    health.started();
    let address = server.as_ref().map_or(admin.address(), Server::address);
    tracing::info!(%address, admin = %admin.address(), "serving");
    if let Some(consul) = &consul {
        let registration = registration(service, &instance, &consul_settings, address, admin.address());
        consul.keep_registered(registration, health.clone(), &lifecycle);
    }

    stopping.cancelled().await;
    start_watchdog();
    tracing::info!("stopping");
    health.stopping();
    if let Some(consul) = &consul {
        match tokio::time::timeout(DEREGISTER_LIMIT, consul.deregister(&instance)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = %Causes(&error), "not deregistered"),
            Err(_) => tracing::warn!("not deregistered in time"),
        }
    }
    if let Some(server) = &server {
        server.leave();
        tokio::time::sleep(server_settings.drain_delay).await;
    }
    let settled = match server {
        Some(server) => server.drain(server_settings.drain_timeout).await,
        None => None,
    };
    lifecycle.settle(BACKGROUND_LIMIT / 2).await;
    lifecycle.stop_background(BACKGROUND_LIMIT).await;
    let flushes = futures_util::future::join_all(app.on_stop);
    if tokio::time::timeout(FLUSH_LIMIT, flushes).await.is_err() {
        tracing::warn!("not everything was flushed in time");
    }
    drop(settled);
    tracing::info!(clean = !lifecycle.failed(), "stopped");
    Ok(!lifecycle.failed())
}

fn registration(
    name: &str,
    instance: &str,
    consul: &ConsulSettings,
    address: SocketAddr,
    admin: SocketAddr,
) -> Registration {
    let meta = [
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("zone", consul.zone.clone()),
        ("weight", consul.weight.to_string()),
        ("admin-port", admin.port().to_string()),
        ("pid", std::process::id().to_string()),
    ];
    Registration {
        id: instance.to_owned(),
        name: name.to_owned(),
        address,
        meta: meta.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
        check_url: format!("http://{admin}/actuator/health/readiness"),
    }
}

/// The first SIGTERM or SIGINT stops in order, the second at once.
fn watch_signals(lifecycle: Lifecycle) -> Result<(), BoxError> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let watch = async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        };
        let name = next().await;
        tracing::info!(signal = name, "told to stop");
        lifecycle.shutdown();
        let name = next().await;
        tracing::warn!(signal = name, "told again: stopping at once");
        telemetry::flush_logs();
        std::process::exit(i32::from(FAILURE));
    };
    tokio::runtime::Handle::current().spawn(watch);
    Ok(())
}

/// A thread, because the runtime may be what hangs.
fn start_watchdog() {
    let watch = || {
        std::thread::sleep(SHUTDOWN_LIMIT);
        tracing::error!("the stop took too long; ending at once");
        telemetry::flush_logs();
        std::process::exit(i32::from(FAILURE));
    };
    if let Err(error) = std::thread::Builder::new().name("watchdog".to_owned()).spawn(watch) {
        tracing::warn!(%error, "no watchdog over the stop");
    }
}
