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

    /// A line of another process's plain progress, which has that one's stamp.
    pub(crate) fn pass_on(&self, line: &str) {
        match &self.bars {
            Some(_) => self.note(line),
            None => self.note(line.split_once("] ").map_or(line, |(_, text)| text)),
        }
    }

    /// A text with the time that something took, unless its line will have a stamp: one time on a line is enough.
    pub(crate) fn timed(&self, text: &str, took: Duration) -> String {
        match &self.bars {
            Some(_) => format!("{text} {}", style(format!("{:.1} s", took.as_secs_f64())).dim().for_stderr()),
            None => text.to_owned(),
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
        let text = match &self.bar {
            Some(_) => format!("{} {name:<18} {text}", style("✓").green().for_stderr()),
            None => format!("{name}: {text}"),
        };
        self.progress.note(&self.progress.timed(&text, self.begun.elapsed()));
    }

    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_has_no_time_but_its_stamp() {
        let (plain, took) = (Progress { bars: None, begun: Instant::now() }, Duration::from_millis(1_234));
        assert_eq!(plain.timed("redis: ready", took), "redis: ready");
        let terminal = Progress { bars: Some(MultiProgress::new()), ..plain };
        assert_eq!(console::strip_ansi_codes(&terminal.timed("redis ready", took)), "redis ready 1.2 s");
    }
}
