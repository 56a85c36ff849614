//! `bench rolling`: under load every service is started anew, one instance after the other, the signing key is rotated
//! and a route changed; then an instance is slow, and another one fails half of what it is asked.
//!
//! It fails if a request failed while instances came and went, if what was promised in the meantime does not add up, or
//! if an instance that is slow or fails is not soon left alone.

mod faulty;
mod logins;
mod outliers;
mod samples;
mod steps;
mod traffic;
mod verdict;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use console::style;

use self::outliers::Outlier;
use self::steps::Rolled;
use super::outcome::Outcome;
use super::program::load_average;
use super::provenance;
use crate::build::{Profile, workspace};
use crate::chaos::report::between_marks;
use crate::cli::Rolling;
use crate::couponctl::Couponctl;
use crate::first_coupon::{admin_token, create};
use crate::http::Client;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::servers::sql::Engine;
use crate::services::SECOND_GATEWAY;
use crate::stack::{self, Options, Stack};
use crate::state::{Folder, Phase};
use crate::up;

const DOCUMENT: &str = "docs/reliability.md";
/// The marks in the document have this name.
const MARKS: &str = "rolling";
const OPEN: Duration = Duration::from_secs(24 * 3600);
/// For a load, which reads its tokens first.
const BEGUN_WITHIN: Duration = Duration::from_secs(60);
/// Nobody is refused.
const PLENTY: u32 = 10_000_000;

pub(super) fn rolling(arguments: &Rolling) -> Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    let progress = Progress::new();
    let parent = workspace().join("target/rolling");
    stack::sweep(&parent, &progress)?;
    let options = Options {
        doubled: true,
        ..Options::plain(Folder::new(&parent.join(std::process::id().to_string()))?, Engine::MariaDb)
    };
    let load = load_average();
    let stack = Stack::prepare(options, interrupt, progress.clone())?;
    let measured = measure(&stack, arguments);
    stack.stop();
    // The logs and the loads' records say why; the next run removes them.
    progress.note(&format!("logs and records: {}", stack.folder.root().display()));
    let (rolled, outliers) = measured?;

    let commit = stack.state().commit;
    let outcome = verdict::outcome(&rolled, &outliers);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&outcome.json(commit.as_deref(), &load))?);
    } else {
        println!("{}", outcome.tables());
        for (reason, count) in rolled.reasons() {
            println!("{count} times: {reason}");
        }
    }
    if arguments.publish {
        let profile = if arguments.debug { "debug" } else { "release" };
        let about = format!(
            "{}, {profile} build, {} requests a second",
            provenance(commit.as_deref())?,
            arguments.rate
        );
        publish(&outcome, &about)?;
        eprintln!("written to {DOCUMENT}");
    }
    for fault in outcome.faults() {
        eprintln!("{} {fault}", style("NOT KEPT:").red().bold());
    }
    Ok(if outcome.faults().is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn publish(outcome: &Outcome, about: &str) -> Result<()> {
    let path = workspace().join(DOCUMENT);
    let mut new = format!("{about}\n");
    outcome.write_sections(&mut new, "###");
    let text = fs::read_to_string(&path).with_context(|| format!("read {DOCUMENT}"))?;
    let text = between_marks(&text, MARKS, &new).context(DOCUMENT)?;
    fs::write(&path, text).with_context(|| format!("write {DOCUMENT}"))
}

fn measure(stack: &Arc<Stack>, arguments: &Rolling) -> Result<(Rolled, Vec<Outlier>)> {
    let profile = if arguments.debug { Profile::Debug } else { Profile::Release };
    up::start(stack, false, true, profile, false)?;
    stack.set_phase(Phase::Ready);
    let scene = Scene::new(stack, arguments.rate)?;
    let rolled = steps::run(&scene)?;
    let outliers = outliers::run(&scene)?;
    Ok((rolled, outliers))
}

/// What all of it happens on.
struct Scene {
    stack: Arc<Stack>,
    couponctl: Couponctl,
    client: Client,
    gateways: [String; 2],
    /// Requests a second.
    rate: u64,
    coupon: u64,
    /// Where loads write down what they hear.
    records: PathBuf,
}

impl Scene {
    fn new(stack: &Arc<Stack>, rate: u64) -> Result<Self> {
        let state = stack.state();
        let client = Client::new(Duration::from_secs(10));
        let first = state.gateway.clone().context("the stack has no gateway")?;
        let second = stack.ports.get(SECOND_GATEWAY).context("the stack has no second gateway")?;
        let admin = admin_token(&client, &state)?;
        let coupon = create(&client, &first, &admin, "Rolling", PLENTY, OPEN)?;
        let records = stack.folder.root().join("records");
        fs::create_dir_all(&records)?;
        Ok(Self {
            couponctl: Couponctl::new(&state, &stack.folder, &stack.interrupt)?,
            gateways: [first, format!("http://127.0.0.1:{second}")],
            stack: stack.clone(),
            client,
            rate,
            coupon,
            records,
        })
    }

    /// Waits until loads that write these files have read their tokens and begin.
    fn load_begins<'a>(&self, files: impl IntoIterator<Item = &'a PathBuf>) -> Result<()> {
        let deadline = Instant::now() + BEGUN_WITHIN;
        for file in files {
            self.stack.interrupt.wait_until(|| match file.exists() {
                true => Some(Ok(())),
                false => (Instant::now() > deadline).then(|| Err(anyhow!("the load does not begin"))),
            })??;
        }
        Ok(())
    }

    fn rest(&self, duration: Duration) -> Result<()> {
        let until = Instant::now() + duration;
        self.stack.interrupt.wait_until(|| (Instant::now() >= until).then_some(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_has_a_place_for_it() {
        let text = fs::read_to_string(workspace().join(DOCUMENT)).unwrap();
        between_marks(&text, MARKS, "new").unwrap();
    }
}
