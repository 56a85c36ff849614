//! One run: its folder, servers and services, in the order of their start and stop.
//!
//! The folder's lock is held for the whole life of a [`Stack`], so two supervisors never work on one folder.

mod database;
mod servers;
mod stop;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

pub(crate) use self::database::DATABASE;
use self::database::SECOND_DATABASE;
use crate::build::{Binaries, workspace};
use crate::config_repository::{self, ADMIN_EMAIL};
use crate::control::{self, Request};
use crate::interrupt::Interrupt;
use crate::ports::{self, listens};
use crate::process::{self, Record};
use crate::progress::Progress;
use crate::proxy::{Owners, Place, Proxies, connected_to, owners};
use crate::secrets;
use crate::servers::sql::{self, Engine};
use crate::servers::{kafka, redis};
use crate::services::{self, CONFIG_SERVER, GATEWAY, SECOND_GATEWAY, Service};
use crate::state::{
    Admin, Folder, Jwt, Kafka, Lock, Mysql, Phase, Ports, ProcessState, Redis, ServerState, ServiceState,
    State, write_atomically,
};
use crate::supervisor::{Child, Kind, Supervisor};

/// Longer than the 9.5 s after which a service ends itself: nobody waits for a whole system here.
const RESTART_GRACE: Duration = Duration::from_secs(10);

pub(crate) struct Options {
    pub(crate) folder: Folder,
    pub(crate) engine: Engine,
    pub(crate) ports: Ports,
    /// Prefer ports that are easy to remember.
    pub(crate) well_known_ports: bool,
    /// Run the trace UI, and let the services send their spans to it.
    pub(crate) trace_ui: bool,
    /// Put a proxy in front of each server.
    pub(crate) proxied: bool,
    /// Three brokers, and a second database that follows the first, for which there must be proxies.
    pub(crate) replicated: bool,
    /// Two instances of each service that can have them, and two gateways side by side.
    pub(crate) doubled: bool,
}

impl Options {
    /// The smallest stack there is, with ports of its own.
    pub(crate) fn plain(folder: Folder, engine: Engine) -> Self {
        Self {
            folder,
            engine,
            ports: Ports::new(),
            well_known_ports: false,
            trace_ui: false,
            proxied: false,
            replicated: false,
            doubled: false,
        }
    }
}

pub(crate) struct Stack {
    pub(crate) folder: Folder,
    pub(crate) ports: Ports,
    pub(crate) interrupt: Interrupt,
    pub(crate) progress: Progress,
    pub(crate) supervisor: Arc<Supervisor>,
    /// Empty where none were wanted.
    pub(crate) proxies: Proxies,
    engine: Engine,
    /// Of the databases that follow each other.
    database_ids: Mutex<[u32; 2]>,
    /// Known when the database was started.
    sql: OnceLock<sql::Installed>,
    phase: Mutex<Phase>,
    binaries: Mutex<Option<Binaries>>,
    own: Record,
    _lock: Lock,
}

impl Stack {
    /// Takes the folder, ends what a dead run left there, and chooses ports and secrets.
    pub(crate) fn prepare(options: Options, interrupt: Interrupt, progress: Progress) -> Result<Arc<Self>> {
        let Options {
            folder,
            engine,
            ports: given,
            well_known_ports,
            trace_ui,
            proxied,
            replicated,
            doubled,
        } = options;
        folder.create()?;
        let Some(lock) = Lock::take(&folder)? else {
            bail!(
                "a stack runs in {} already: see `cargo xtask status`, end it by `cargo xtask down`",
                folder.root().display()
            );
        };
        clean(&folder, &progress)?;
        let engine = Engine::of_folder(&folder, engine)?;
        let brokers = &kafka::BROKERS[..if replicated { kafka::BROKERS.len() } else { 1 }];
        // Those that have a proxy in front of them where one is wanted.
        let single = [DATABASE, "consul"].iter().chain(brokers);
        let servers: Vec<&str> = single.chain(&redis::NODES).chain(&redis::SENTINELS).copied().collect();
        let others = [GATEWAY, CONFIG_SERVER, "consul-rpc", "consul-serf"];
        let mut names: Vec<String> = others.iter().chain(&servers).map(|name| (*name).to_owned()).collect();
        names.extend(brokers.iter().map(|broker| kafka::controller(broker)));
        if replicated {
            // Services reach it through the first one's proxy, when that leads to it.
            names.push(ports::behind(SECOND_DATABASE));
        }
        if trace_ui {
            names.push("zipkin".to_owned());
        }
        if doubled {
            names.push(SECOND_GATEWAY.to_owned());
        }
        if proxied {
            names.extend(servers.iter().map(|name| ports::behind(name)));
        }
        let ports = ports::choose(&folder, &names, &given, well_known_ports, |text| progress.note(text))?;
        secrets::create(&folder)?;
        rotate_logs(&folder)?;
        let supervisor = {
            let progress = progress.clone();
            Supervisor::new(folder.clone(), move |text| progress.note(text))
        };
        let places = servers.iter().filter(|_| proxied).map(|name| Place {
            name: (*name).to_owned(),
            port: ports[*name],
            behind: listens(&ports, name),
        });
        let proxies = Proxies::start(&places.collect::<Vec<_>>(), &owners_by(&supervisor))?;
        let stack = Arc::new(Self {
            folder,
            ports,
            interrupt,
            progress,
            supervisor,
            proxies,
            engine,
            database_ids: Mutex::new([1, 2]),
            sql: OnceLock::new(),
            phase: Mutex::new(Phase::Starting),
            binaries: Mutex::new(None),
            own: Record::of(nix::unistd::getpid().as_raw()).context("own start time")?,
            _lock: lock,
        });
        let weak = Arc::downgrade(&stack);
        stack.supervisor.on_change(move || {
            if let Some(stack) = weak.upgrade() {
                stack.publish();
            }
        });
        let supervisor = stack.supervisor.clone();
        stack.interrupt.on_hard(move || supervisor.kill_all());
        stack.publish();
        let handler = Arc::downgrade(&stack);
        control::serve(&stack.folder, move |request, say| match handler.upgrade() {
            Some(stack) => stack.handle(request, say),
            None => bail!("the stack ends"),
        })?;
        Ok(stack)
    }

    fn port(&self, name: &str) -> u16 {
        self.ports.get(name).copied().unwrap_or_default()
    }

    /// Imports the configuration and starts our services, wave after wave.
    pub(crate) fn start_services(self: &Arc<Self>, binaries: Binaries) -> Result<()> {
        let source = workspace().join("config-repo");
        let commit = config_repository::import(&source, &self.folder, &self.ports, &self.interrupt)
            .context("make the configuration repository")?;
        self.progress.note(&format!("configuration: commit {}", &commit[..commit.len().min(8)]));
        secrets::create_key_store(&self.folder, &binaries, &self.interrupt)?;
        *self.binaries.lock().unwrap_or_else(PoisonError::into_inner) = Some(binaries);
        for wave in services::WAVES {
            let mut children = Vec::new();
            let mut steps = Vec::new();
            for service in wave {
                for name in service.names(self.ports.contains_key(SECOND_GATEWAY)) {
                    steps.push(self.progress.step(&name));
                    children.push(self.start_service(service, &name)?);
                }
            }
            for (child, step) in children.iter().zip(steps) {
                let result = self.ready(std::slice::from_ref(child));
                if result.is_err() {
                    step.clear();
                }
                result?;
                let url = child.status().endpoint.map(|endpoint| endpoint.url).unwrap_or_default();
                step.done(&url);
            }
        }
        Ok(())
    }

    fn start_service(&self, service: &Service, name: &str) -> Result<Arc<Child>> {
        let binaries = self.binaries.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let binaries = binaries.context("the services have not been started yet")?;
        Ok(self.supervisor.start(service.spec(name, &self.folder, &self.ports, &binaries)?))
    }

    /// Fails where a process reaches a server past its proxy, at which faults would pass it by.
    pub(crate) fn check_proxied(&self) -> Result<()> {
        let behind = |name: &String| name.ends_with("-behind");
        let ports: Vec<u16> =
            self.ports.iter().filter(|(name, _)| behind(name)).map(|(_, port)| *port).collect();
        match connected_to(&self.supervisor.processes(), &ports).first() {
            Some((name, port)) => bail!("{name} is connected to port {port}, past the proxy"),
            None => Ok(()),
        }
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = phase;
        self.publish();
    }

    fn handle(self: &Arc<Self>, request: Request, say: &mut dyn FnMut(&str)) -> Result<()> {
        match request {
            Request::Down => {
                self.interrupt.request();
                Ok(())
            }
            Request::Kill(name) => {
                for child in self.supervisor.find(&name)? {
                    let pid = self.supervisor.kill(&child)?;
                    let note = format!("{} (pid {pid}) killed by request", child.spec.name);
                    self.progress.note(&note);
                    say(&note);
                }
                Ok(())
            }
            Request::Restart(name) => {
                for child in self.supervisor.find(&name)? {
                    self.restart(&child)?;
                    let pid = child.status().pid.unwrap_or_default();
                    let note = format!("{} restarted as pid {pid}", child.spec.name);
                    self.progress.note(&note);
                    say(&note);
                }
                Ok(())
            }
            Request::Scale(group, count) => self.scale(&group, count, say),
        }
    }

    /// Stops in order, starts again and waits until it is ready.
    pub(crate) fn restart(&self, child: &Arc<Child>) -> Result<()> {
        self.supervisor.restart(child, RESTART_GRACE, &self.interrupt)
    }

    fn scale(&self, group: &str, count: usize, say: &mut dyn FnMut(&str)) -> Result<()> {
        let service = services::named(group).filter(|service| service.scales).with_context(|| {
            let names: Vec<&str> = services::WAVES
                .iter()
                .flat_map(|wave| wave.iter().filter(|service| service.scales).map(|service| service.group))
                .collect();
            format!("{group} can't be scaled; these can: {}", names.join(", "))
        })?;
        let running = self.supervisor.children();
        let running: Vec<_> = running.into_iter().filter(|child| child.spec.group == group).collect();
        let names: Vec<&str> = running.iter().map(|child| child.spec.name.as_str()).collect();
        let (missing, surplus) = service.scaling(&names, count);
        let surplus: Vec<_> =
            running.iter().filter(|child| surplus.contains(&child.spec.name)).cloned().collect();
        self.supervisor.remove(&surplus, RESTART_GRACE);
        let mut started = Vec::new();
        for name in &missing {
            started.push(self.start_service(&service, name)?);
        }
        self.ready(&started)?;
        let note =
            format!("{group}: {count} instances ({} started, {} stopped)", started.len(), surplus.len());
        self.progress.note(&note);
        say(&note);
        Ok(())
    }

    pub(crate) fn state(&self) -> State {
        let children = self.supervisor.children();
        let loopback = |name: &str| format!("127.0.0.1:{}", self.port(name));
        let has_services = children.iter().any(|child| child.spec.kind == Kind::Service);
        let process = |child: &Child| {
            let status = child.status();
            ProcessState {
                pid: status.pid.or(status.last_pid),
                log: self.folder.log(&child.spec.name),
                running: status.pid.is_some(),
                ready: status.ready,
                restarts: status.restarts,
                started_in_ms: status.started_in.and_then(|it| u64::try_from(it.as_millis()).ok()),
            }
        };
        let service = |child: &Arc<Child>| {
            let endpoint = child.status().endpoint;
            ServiceState {
                name: child.spec.group.clone(),
                instance: child.spec.name.clone(),
                url: endpoint.as_ref().map(|it| it.url.clone()),
                admin_url: endpoint.and_then(|it| it.admin_url),
                process: process(child),
            }
        };
        let server = |child: &Arc<Child>| ServerState {
            name: child.spec.name.clone(),
            address: child.spec.address.clone().unwrap_or_default(),
            process: process(child),
        };
        let of = |kind: Kind| {
            let mut some: Vec<_> = children.iter().filter(|child| child.spec.kind == kind).collect();
            if kind == Kind::Server {
                // They start side by side, in no order.
                some.sort_by(|one, other| one.spec.name.cmp(&other.spec.name));
            }
            some.into_iter()
        };
        let admin = secrets::read(&self.folder, secrets::ADMIN_PASSWORD).ok();
        let binaries = self.binaries.lock().unwrap_or_else(PoisonError::into_inner).clone();
        State {
            phase: *self.phase.lock().unwrap_or_else(PoisonError::into_inner),
            supervisor: self.own.clone(),
            gateway: has_services.then(|| format!("http://{}", loopback(GATEWAY))),
            admin: admin.map(|password| Admin { email: ADMIN_EMAIL.to_owned(), password }),
            services: of(Kind::Service).map(service).collect(),
            servers: of(Kind::Server).map(server).collect(),
            trace_ui: self.ports.get("zipkin").map(|port| format!("http://127.0.0.1:{port}/zipkin/")),
            consul_ui: Some(format!("http://{}/ui/", loopback("consul"))),
            config_server: has_services.then(|| format!("http://{}", loopback(CONFIG_SERVER))),
            commit: binaries.as_ref().and_then(|it| it.commit().map(str::to_owned)),
            couponctl: binaries.and_then(|it| it.path("couponctl").ok().map(Path::to_path_buf)),
            config_repository: has_services.then(|| self.folder.config_git().display().to_string()),
            mysql: Mysql {
                engine: self.engine.name().to_owned(),
                host: "127.0.0.1".to_owned(),
                port: self.port(DATABASE),
                username: sql::USER.to_owned(),
                password_file: self.folder.secret(secrets::MYSQL),
            },
            redis: Redis {
                sentinels: redis::SENTINELS.map(loopback).to_vec(),
                master: redis::MASTER.to_owned(),
                password_file: self.folder.secret(secrets::REDIS),
            },
            kafka: Kafka {
                bootstrap_servers: kafka::bootstrap_servers(&self.ports),
                topic: "coupon.issued".to_owned(),
            },
            key_store: self.folder.secret(secrets::KEY_STORE),
            jwt: Jwt { issuer: "firstcome".to_owned(), audience: "firstcome".to_owned() },
        }
    }

    fn publish(&self) {
        // Serialised by the lock, or an older picture could overwrite a newer one.
        static ONE_WRITER: Mutex<()> = Mutex::new(());
        let _one = ONE_WRITER.lock().unwrap_or_else(PoisonError::into_inner);
        let written = serde_json::to_vec_pretty(&self.state())
            .map_err(anyhow::Error::from)
            .and_then(|text| write_atomically(&self.folder.state_file(), &text));
        if let Err(error) = written {
            self.progress.note(&format!("state.json: {error:#}"));
        }
    }

    /// Where integration tests find the servers.
    fn write_test_servers(&self) -> Result<()> {
        let state = self.state();
        let servers = json!({
            "mysql": {
                "host": state.mysql.host, "port": state.mysql.port, "username": state.mysql.username,
                "password": secrets::read(&self.folder, secrets::MYSQL)?,
            },
            "kafka": { "bootstrapServers": state.kafka.bootstrap_servers },
            "redis": {
                "sentinels": state.redis.sentinels, "master": state.redis.master,
                "password": secrets::read(&self.folder, secrets::REDIS)?,
                "address": format!("127.0.0.1:{}", self.port(redis::NODES[0])),
            },
            "consul": { "url": format!("http://127.0.0.1:{}", self.port("consul")) },
        });
        write_atomically(&self.folder.test_servers_file(), &serde_json::to_vec_pretty(&servers)?)
    }
}

/// Who is at the other end of a link: the children of this supervisor are known.
fn owners_by(supervisor: &Arc<Supervisor>) -> Owners {
    let supervisor = Arc::downgrade(supervisor);
    Arc::new(move |addresses| {
        supervisor.upgrade().map(|it| owners(&it.processes(), addresses)).unwrap_or_default()
    })
}

/// Ends the processes that a run without a supervisor left behind.
pub(crate) fn clean(folder: &Folder, progress: &Progress) -> Result<()> {
    let left = process::clean_stale(&folder.run(), Duration::from_secs(5))?;
    if !left.is_empty() {
        progress.note(&format!("ended what an earlier run left behind: {}", left.join(", ")));
    }
    Ok(())
}

/// Ends and removes what earlier runs left in folders of their own below `parent`, unless they still run.
pub(crate) fn sweep(parent: &Path, progress: &Progress) -> Result<()> {
    let Ok(entries) = fs::read_dir(parent) else { return Ok(()) };
    for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
        let folder = Folder::new(&path)?;
        if Lock::take(&folder)?.is_some() {
            clean(&folder, progress)?;
            fs::remove_dir_all(&path)?;
        }
    }
    Ok(())
}

/// Each run has logs of its own; those of the run before are kept beside.
fn rotate_logs(folder: &Folder) -> Result<()> {
    for entry in fs::read_dir(folder.logs())? {
        let path = entry?.path();
        // The supervisor's own log is being written.
        if path.extension().is_some_and(|it| it == "log") && path.file_stem().is_none_or(|it| it != "xtask") {
            fs::rename(&path, path.with_extension("log.old"))?;
        }
    }
    Ok(())
}
