//! The progress display: a line with a spinner for each thing under way on a terminal, plain lines elsewhere.

use std::io::IsTerminal as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use console::style;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How often a plain step that goes on says so.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

#[derive(Clone)]
pub(crate) struct Progress {
    bars: Option<MultiProgress>,
    begun: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let bars = std::io::stderr().is_terminal().then(MultiProgress::new);
        Self { bars, begun: Instant::now() }
    }

    /// A line that stays, above the steps under way.
    pub(crate) fn note(&self, text: &str) {
        match &self.bars {
            Some(bars) => {
                let _ = bars.println(text);
            }
            None => eprintln!("[{:6.1} s] {text}", self.begun.elapsed().as_secs_f64()),
        }
    }

    /// Begins a step; its end is [`Step::done`] or its drop.
    pub(crate) fn step(&self, name: &str) -> Step {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            let template =
                ProgressStyle::with_template("{spinner:.cyan} {prefix:<18} {wide_msg} {elapsed:.dim}");
            if let Ok(template) = template {
                bar.set_style(template);
            }
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        let said = Arc::new(Mutex::new(Instant::now()));
        Step { name: name.to_owned(), progress: self.clone(), bar, said, begun: Instant::now() }
    }

    /// A bar that counts to `total`.
    pub(crate) fn bar(&self, name: &str, total: u64) -> Step {
        let step = self.step(name);
        if let Some(bar) = &step.bar {
            let template = ProgressStyle::with_template(
                "{spinner:.cyan} {prefix:<18} {bar:30.cyan/dim} {pos}/{len} {wide_msg} {elapsed:.dim}",
            );
            if let Ok(template) = template {
                bar.set_style(template);
            }
            bar.set_length(total);
        }
        step
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }
}

#[derive(Clone)]
pub(crate) struct Step {
    name: String,
    progress: Progress,
    bar: Option<ProgressBar>,
    said: Arc<Mutex<Instant>>,
    begun: Instant,
}

impl Step {
    /// What is going on right now.
    pub(crate) fn say(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.elapsed() >= PLAIN_EVERY {
            *said = Instant::now();
            self.progress.note(&format!("{}: {text}", self.name));
        }
    }

    pub(crate) fn position(&self, position: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(position);
        }
    }

    pub(crate) fn done(self, text: &str) {
        self.clear();
        let name = &self.name;
        let took = self.begun.elapsed().as_secs_f64();
        if self.bar.is_some() {
            self.progress.note(&format!(
                "{} {name:<18} {text} {}",
                style("✓").green(),
                style(format!("{took:.1} s")).dim()
            ));
        } else {
            self.progress.note(&format!("{name}: {text} ({took:.1} s)"));
        }
    }

    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
