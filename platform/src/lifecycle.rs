//! How a process lives and ends. Invariant: the unexpected end of any background task stops the process with a failing
//! exit code, and a stop happens in order: not ready and deregistered, a short delay, HTTP drained, background tasks
//! ended, flushed; all of it within a bounded time.

mod app;
mod run;

use std::fmt;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use app::{App, Context};
pub use run::{run, run_with_settings};

pub use crate::admin::BuildInfo;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The life of one process. Clones share it.
#[derive(Clone)]
pub struct Lifecycle(Arc<Inner>);

struct Inner {
    /// Background tasks run here, whichever runtime they are spawned from.
    runtime: Option<Handle>,
    stopping: CancellationToken,
    background_stop: CancellationToken,
    background: TaskTracker,
    detached: TaskTracker,
    /// Names of the background tasks that still run, to say who did not end in time.
    running: Mutex<Vec<&'static str>>,
    failed: AtomicBool,
}

impl Lifecycle {
    /// Within a runtime, so that background tasks run there.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            runtime: Handle::try_current().ok(),
            stopping: CancellationToken::new(),
            background_stop: CancellationToken::new(),
            background: TaskTracker::new(),
            detached: TaskTracker::new(),
            running: Mutex::default(),
            failed: AtomicBool::new(false),
        }))
    }

    /// A task that lives as long as the process. It ends when [`Lifecycle::background_stop`] fires (or, if it has
    /// nothing to finish, when [`Lifecycle::stopping`] does); any other end, an error or a panic stops the process.
    pub fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), BoxError>> + Send + 'static,
    ) {
        let lifecycle = self.clone();
        lifecycle.0.running.lock().push(name);
        let watched = async move {
            let outcome = AssertUnwindSafe(task).catch_unwind().await;
            let inner = &lifecycle.0;
            {
                let mut running = inner.running.lock();
                if let Some(index) = running.iter().position(|other| *other == name) {
                    running.swap_remove(index);
                }
            }
            match outcome {
                Ok(Ok(())) if inner.stopping.is_cancelled() => {
                    tracing::debug!(task = name, "background task ended");
                }
                Ok(Ok(())) => lifecycle.fail(name, "the task ended by itself".into()),
                Ok(Err(error)) => lifecycle.fail(name, error),
                Err(_) => lifecycle.fail(name, "the task panicked".into()),
            }
        };
        match &self.0.runtime {
            Some(runtime) => self.0.background.spawn_on(watched, runtime),
            None => self.0.background.spawn(watched),
        };
    }

    /// Short work that a request leaves behind. It keeps the trace of who spawned it, and is waited for at drain.
    pub fn spawn_detached(&self, task: impl Future<Output = ()> + Send + 'static) {
        let watch = self.fail_on_panic("detached work");
        let task = crate::http::trace::carry(async move {
            let _watch = watch;
            task.await;
        });
        match (Handle::try_current(), &self.0.runtime) {
            (Err(_), Some(runtime)) => self.0.detached.spawn_on(task, runtime),
            _ => self.0.detached.spawn(task),
        };
    }

    /// Fires when the process begins to stop: readiness is false, Consul is told.
    #[must_use]
    pub fn stopping(&self) -> CancellationToken {
        self.0.stopping.clone()
    }

    /// Fires when no request is left: followers, consumers and jobs end now.
    #[must_use]
    pub fn background_stop(&self) -> CancellationToken {
        self.0.background_stop.clone()
    }

    /// Something without which the process can't go on has failed: it stops in order, with exit code 1.
    #[expect(clippy::needless_pass_by_value, reason = "errors are handed over")]
    pub fn fail(&self, what: &'static str, error: BoxError) {
        let causes = Causes(&*error).to_string();
        tracing::error!(task = what, error = %causes, "failed; the process stops");
        self.0.failed.store(true, Ordering::Release);
        self.shutdown();
    }

    /// For threads, and tasks of which somebody else keeps track: if whoever holds this panics, the process stops.
    #[must_use]
    pub fn fail_on_panic(&self, what: &'static str) -> FailOnPanic {
        FailOnPanic { lifecycle: self.clone(), what }
    }

    /// Begins to stop, in order.
    pub fn shutdown(&self) {
        self.0.stopping.cancel();
    }

    #[must_use]
    pub fn failed(&self) -> bool {
        self.0.failed.load(Ordering::Acquire)
    }

    /// Waits for what requests have left behind.
    pub(crate) async fn settle(&self, limit: Duration) {
        self.0.detached.close();
        if tokio::time::timeout(limit, self.0.detached.wait()).await.is_err() {
            tracing::warn!(tasks = self.0.detached.len(), "detached work did not end in time");
        }
    }

    /// Tells the background tasks to end and waits for them. Also what a test that has spawned some calls at its end.
    pub async fn stop_background(&self, limit: Duration) {
        self.0.stopping.cancel();
        self.0.background_stop.cancel();
        self.0.background.close();
        if tokio::time::timeout(limit, self.0.background.wait()).await.is_err() {
            let late = self.0.running.lock().join(", ");
            tracing::warn!(tasks = %late, "background tasks did not end in time");
            self.0.failed.store(true, Ordering::Release);
        }
    }
}

/// See [`Lifecycle::fail_on_panic`].
#[derive(Debug)]
pub struct FailOnPanic {
    lifecycle: Lifecycle,
    what: &'static str,
}

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.lifecycle.fail(self.what, "it panicked".into());
        }
    }
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifecycle")
            .field("stopping", &self.0.stopping.is_cancelled())
            .field("background_stop", &self.0.background_stop.is_cancelled())
            .field("running", &*self.0.running.lock())
            .field("failed", &self.failed())
            .finish_non_exhaustive()
    }
}

/// An error with all its causes on one line.
#[derive(Debug)]
pub(crate) struct Causes<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl fmt::Display for Causes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut error = self.0.source();
        while let Some(cause) = error {
            let text = cause.to_string();
            // Many errors repeat their cause in their own text.
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said = text;
            }
            error = cause.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_ends_by_itself_stops_the_process() {
        let ends: [fn() -> Result<(), BoxError>; 3] = [|| Ok(()), || Err("broken".into()), || panic!("oh")];
        for end in ends {
            let lifecycle = Lifecycle::new();
            lifecycle.spawn("test", async move { end() });
            tokio::time::timeout(Duration::from_secs(5), lifecycle.stopping().cancelled()).await.unwrap();
            assert!(lifecycle.failed());
            assert!(!lifecycle.background_stop().is_cancelled());
        }
    }

    #[test]
    fn a_thread_that_panics_stops_the_process() {
        for panics in [false, true] {
            let lifecycle = Lifecycle::new();
            let watch = lifecycle.fail_on_panic("test");
            let thread = std::thread::spawn(move || {
                let _watch = watch;
                assert!(!panics, "on purpose");
            });
            assert_eq!(thread.join().is_err(), panics);
            assert_eq!((lifecycle.failed(), lifecycle.stopping().is_cancelled()), (panics, panics));
        }
    }

    #[tokio::test]
    async fn a_task_that_ends_when_told_is_no_failure() {
        let lifecycle = Lifecycle::new();
        let stop = lifecycle.background_stop();
        lifecycle.spawn("test", async move {
            stop.cancelled().await;
            Ok(())
        });
        lifecycle.shutdown();
        lifecycle.stop_background(Duration::from_secs(5)).await;
        assert!(!lifecycle.failed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_end_is_a_failure() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn("test", std::future::pending());
        lifecycle.stop_background(Duration::from_secs(1)).await;
        assert!(lifecycle.failed());
    }
}
