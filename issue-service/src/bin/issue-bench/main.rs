//! `issue-bench`: what the issue service's own parts cost on real servers, each beside something to compare it with.
//!
//! `cargo xtask bench` starts it, with the settings of the issue service in its environment. Every figure is taken from
//! production code (`Serving`, `Membership`, the doorman, the log) or stands for what it is compared with. Progress goes
//! to standard error, the outcome into a file.
#![expect(clippy::print_stderr, reason = "progress and errors are for whoever runs it")]

mod backlog;
mod bare;
mod clients;
mod figures;
mod ground;
mod outage;
mod promise;
mod report;
mod retire;
mod sink;
mod start;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use issue_service::config::Settings;
use platform::config::Bootstrap;
use platform::lifecycle::{App, BoxError, Context};

use ground::Ground;
use report::Report;

/// Measures the issue service. Run it by `cargo xtask bench`.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
    /// Where the outcome goes, as JSON
    #[arg(long, global = true, default_value = "issue-bench.json")]
    out: PathBuf,
    /// A tenth of everything, to try it out
    #[arg(long, global = true)]
    quick: bool,
}

#[derive(Debug, Clone, Subcommand)]
enum What {
    /// Rows a second out of a backlog, and an outage of the consumer
    Sink,
    /// Answers at the doorman's word, at the log's acknowledgement, and after reading back
    Promise,
    /// What is left of coupons that end and retire
    Retire,
    /// From the start of a process until it is ready, and an audit of its winners
    Start {
        /// The binary `issue-service`
        #[arg(long)]
        program: PathBuf,
        /// The binary `couponctl`
        #[arg(long)]
        auditor: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let bootstrap = Bootstrap { settings_of: Some("issue-service"), ..Bootstrap::from_env(None) };
    platform::lifecycle::run("issue-bench", bootstrap, |context: Context, settings| async move {
        match measure(&context, settings, &arguments).await {
            Ok(()) => {
                context.lifecycle.shutdown();
                Ok(App::admin_only())
            }
            Err(error) => {
                eprintln!("error: {error}");
                Err(error)
            }
        }
    })
}

async fn measure(context: &Context, settings: Settings, arguments: &Arguments) -> Result<(), BoxError> {
    let ground = Ground::new(settings);
    let share = if arguments.quick { 10 } else { 1 };
    let measuring = async {
        match &arguments.what {
            What::Sink => sink::measure(&ground, share).await,
            What::Promise => promise::measure(&ground, share).await,
            What::Retire => retire::measure(&ground, share).await,
            What::Start { program, auditor } => start::measure(&ground, program, auditor, share).await,
        }
    };
    let outcome: Option<Result<Report, BoxError>> =
        context.lifecycle.stopping().run_until_cancelled(measuring).await;
    ground.clear().await?;
    let report = outcome.ok_or("stopped")??;
    std::fs::write(&arguments.out, serde_json::to_vec(&report)?)?;
    Ok(())
}
