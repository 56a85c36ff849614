//! Children that are kept alive: each is started, asked until ready, and started again with back-off when it ends
//! without having been told to.
//!
//! One thread per child does all of it. A pid is signalled only under the child's lock, which its reaping takes too,
//! so a signal never meets a pid that has been given to somebody else. The thread that forked a child lives until
//! the child is reaped, as the kernel ties the child's life to that thread.

mod faults;

use std::fs::File;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

pub(crate) use self::faults::{Frozen, Held};
use crate::interrupt::{Interrupt, tail};
use crate::process;
use crate::state::Folder;

/// How often a starting child is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// A child that ran this long starts its back-off anew.
const STEADY: Duration = Duration::from_secs(30);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// From SIGKILL to the end: the kernel needs milliseconds, and what it can't end nobody can wait for.
const KILLED_WITHIN: Duration = Duration::from_millis(200);

/// Where a ready service answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) url: String,
    pub(crate) admin_url: Option<String>,
}

/// Asks the child with this pid whether it is ready; an error says what is missing.
pub(crate) type Ready = Box<dyn Fn(i32) -> Result<Option<Endpoint>> + Send + Sync>;
/// Runs before each start.
pub(crate) type BeforeStart = Box<dyn Fn() -> Result<()> + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Server,
    Service,
}

/// What to run, and how.
pub(crate) struct Spec {
    pub(crate) name: String,
    /// The name that all instances share.
    pub(crate) group: String,
    pub(crate) kind: Kind,
    pub(crate) address: Option<String>,
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) working_folder: PathBuf,
    pub(crate) before_start: Option<BeforeStart>,
    pub(crate) ready: Ready,
    /// Pause before the first restart; doubles up to ten seconds.
    pub(crate) first_pause: Duration,
    /// How long the start may take.
    pub(crate) patience: Duration,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    pub(crate) pid: Option<i32>,
    pub(crate) last_pid: Option<i32>,
    pub(crate) ready: bool,
    pub(crate) endpoint: Option<Endpoint>,
    pub(crate) restarts: u32,
    pub(crate) started_in: Option<Duration>,
    /// What readiness lacks, or how the last process ended.
    pub(crate) note: String,
    wanted: bool,
    comeback: Comeback,
    running: bool,
    /// Ends before it was ready, since it was told to start.
    failed_starts: u32,
    /// Ends that nobody had ordered, and how the last of them was.
    pub(crate) ended_alone: u32,
    pub(crate) last_alone: String,
    /// What runs was told to end, or will be led to it.
    doomed: bool,
    /// Variables besides those of [`Spec`].
    more_environment: Vec<(String, String)>,
}

/// When a child that ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Comeback {
    #[default]
    AfterPause,
    /// Not before it is released.
    Held,
    /// It was released.
    AtOnce,
}

pub(crate) struct Child {
    pub(crate) spec: Spec,
    status: Mutex<Status>,
    changed: Condvar,
}

/// Called after each change of any child.
type OnChange = Box<dyn Fn() + Send + Sync>;
/// Told what a person wants to know of.
type Report = Box<dyn Fn(&str) + Send + Sync>;

pub(crate) struct Supervisor {
    folder: Folder,
    report: Report,
    children: Mutex<Vec<Arc<Child>>>,
    /// Nothing is started any more.
    closed: AtomicBool,
    on_change: Mutex<Option<Arc<OnChange>>>,
}

impl Child {
    pub(crate) fn status(&self) -> Status {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.lock().pid {
            if signal == Signal::SIGKILL {
                process::signal_group(pid, signal);
            } else {
                process::signal_process(pid, signal);
            }
        }
    }

    /// Until it is time to start again.
    fn pause(&self, duration: Duration) {
        let status = self.lock();
        if status.comeback != Comeback::AfterPause {
            let held = |status: &mut Status| status.wanted && status.comeback == Comeback::Held;
            let mut status = self.changed.wait_while(status, held).unwrap_or_else(PoisonError::into_inner);
            status.comeback = Comeback::AfterPause;
            return;
        }
        let _unused = self
            .changed
            .wait_timeout_while(status, duration, |status| status.wanted)
            .unwrap_or_else(PoisonError::into_inner);
    }
}

impl Supervisor {
    pub(crate) fn new(folder: Folder, report: impl Fn(&str) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            folder,
            report: Box::new(report),
            children: Mutex::default(),
            closed: AtomicBool::new(false),
            on_change: Mutex::default(),
        })
    }

    pub(crate) fn on_change(&self, action: impl Fn() + Send + Sync + 'static) {
        *self.on_change.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(Box::new(action)));
    }

    pub(crate) fn changed(&self) {
        let action = self.on_change.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(action) = action {
            action();
        }
    }

    pub(crate) fn children(&self) -> Vec<Arc<Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The child of that name, or all children of that group.
    pub(crate) fn find(&self, name: &str) -> Result<Vec<Arc<Child>>> {
        let children = self.children();
        let by = |test: &dyn Fn(&Child) -> bool| -> Vec<Arc<Child>> {
            children.iter().filter(|child| test(child)).cloned().collect()
        };
        let exact = by(&|child| child.spec.name == name);
        let found = if exact.is_empty() { by(&|child| child.spec.group == name) } else { exact };
        if found.is_empty() {
            let names: Vec<&str> = children.iter().map(|child| child.spec.name.as_str()).collect();
            bail!("nothing is named {name}; there are {}", names.join(", "));
        }
        Ok(found)
    }

    /// Adds a child and starts it; [`Supervisor::wait_ready`] waits for it.
    pub(crate) fn start(self: &Arc<Self>, spec: Spec) -> Arc<Child> {
        let child = Arc::new(Child { spec, status: Mutex::new(Status::default()), changed: Condvar::new() });
        self.children.lock().unwrap_or_else(PoisonError::into_inner).push(child.clone());
        self.start_again(&child);
        child
    }

    fn start_again(self: &Arc<Self>, child: &Arc<Child>) {
        {
            let mut status = child.lock();
            // Under the lock that [`Supervisor::tell`] takes, so that nothing escapes the last stop.
            if self.closed.load(Ordering::SeqCst) {
                return;
            }
            status.wanted = true;
            status.failed_starts = 0;
            if status.running {
                return;
            }
            status.running = true;
        }
        let supervisor = self.clone();
        let child = child.clone();
        std::thread::spawn(move || {
            supervisor.keep(&child);
            let mut status = child.lock();
            status.running = false;
            child.changed.notify_all();
            drop(status);
            supervisor.changed();
        });
    }

    /// Starts the child again and again until it is no longer wanted.
    fn keep(&self, child: &Child) {
        let name = &child.spec.name;
        let mut pause = child.spec.first_pause;
        let mut first = true;
        loop {
            {
                let mut status = child.lock();
                if !status.wanted {
                    return;
                }
                if !first {
                    status.restarts += 1;
                }
            }
            let begun = Instant::now();
            let outcome = self.run_once(child, begun, !first);
            let wanted = {
                let mut status = child.lock();
                if !status.ready {
                    status.failed_starts += 1;
                }
                status.ready = false;
                status.note = match &outcome {
                    Ok(status) => describe(*status),
                    Err(error) => format!("{error:#}"),
                };
                if status.wanted && !std::mem::take(&mut status.doomed) {
                    status.ended_alone += 1;
                    status.last_alone = status.note.clone();
                }
                child.changed.notify_all();
                status.wanted
            };
            self.changed();
            if !wanted {
                return;
            }
            if begun.elapsed() > STEADY {
                pause = child.spec.first_pause;
            }
            let Status { note, comeback, .. } = child.status();
            let when = match comeback {
                Comeback::AfterPause => format!("in {:.1} s", pause.as_secs_f64()),
                Comeback::Held => "when released".to_owned(),
                Comeback::AtOnce => "at once".to_owned(),
            };
            (self.report)(&format!("{name} {note}; starting it again {when}"));
            child.pause(pause);
            pause = (pause * 2).clamp(child.spec.first_pause, LONGEST_PAUSE.max(child.spec.first_pause));
            first = false;
        }
    }

    /// One life of the process, from its start until it was reaped.
    fn run_once(&self, child: &Child, begun: Instant, report: bool) -> Result<WaitStatus> {
        let spec = &child.spec;
        if let Some(before_start) = &spec.before_start {
            before_start()?;
        }
        let log = File::options().create(true).append(true).open(self.folder.log(&spec.name))?;
        let record = self.folder.record(&spec.name);
        let mut command = process::child_command(Some(&record), &spec.program, &spec.arguments);
        // Settings of the caller's shell are not settings of this run.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("FIRSTCOME_"))
        {
            command.env_remove(name);
        }
        command
            .envs(spec.environment.iter().cloned())
            .envs(child.status().more_environment)
            .current_dir(&spec.working_folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let mut process = {
            let mut status = child.lock();
            if !status.wanted {
                bail!("no longer wanted");
            }
            let process = command.spawn().with_context(|| format!("start {}", spec.program.display()))?;
            status.pid = i32::try_from(process.id()).ok();
            status.last_pid = status.pid;
            status.endpoint = None;
            // What was meant for the process before it does not excuse this one's end.
            status.doomed = false;
            process
        };
        let pid = i32::try_from(process.id())?;
        self.changed();
        let mut ended = false;
        while !ended {
            ended = has_ended(pid, WaitPidFlag::WNOHANG)?;
            match (spec.ready)(pid) {
                Ok(endpoint) if !ended => {
                    let mut status = child.lock();
                    status.ready = true;
                    status.endpoint = endpoint;
                    status.started_in = Some(begun.elapsed());
                    child.changed.notify_all();
                    break;
                }
                Ok(_) => {}
                Err(error) => child.lock().note = format!("{error:#}"),
            }
            std::thread::sleep(ASK_EVERY);
        }
        if !ended {
            self.changed();
            if report {
                let took = begun.elapsed().as_secs_f64();
                (self.report)(&format!("{} is back as pid {pid} (ready after {took:.1} s)", spec.name));
            }
            while !has_ended(pid, WaitPidFlag::empty())? {}
        }
        let mut status = child.lock();
        // The group may have outlived its leader; while the leader is a zombie its number is still ours.
        process::signal_group(pid, Signal::SIGKILL);
        let exit = process.wait()?;
        status.pid = None;
        status.endpoint = None;
        drop(status);
        let _ = std::fs::remove_file(&record);
        let pid = Pid::from_raw(pid);
        Ok(match std::os::unix::process::ExitStatusExt::signal(&exit) {
            Some(signal) => WaitStatus::Signaled(pid, Signal::try_from(signal)?, false),
            None => WaitStatus::Exited(pid, exit.code().unwrap_or_default()),
        })
    }

    /// Waits until all are ready; the first one that ended instead, or took too long, is the error.
    pub(crate) fn wait_ready(&self, children: &[Arc<Child>], interrupt: &Interrupt) -> Result<()> {
        let begun = Instant::now();
        interrupt.wait_until(|| {
            let mut all = true;
            for child in children {
                let status = child.status();
                let name = &child.spec.name;
                if status.failed_starts > 0 {
                    let log = self.log_tail(name);
                    return Some(Err(anyhow!("{name} did not start: it {}\n{log}", status.note)));
                }
                if !status.ready && begun.elapsed() > child.spec.patience {
                    let log = self.log_tail(name);
                    let waited = begun.elapsed().as_secs();
                    return Some(Err(anyhow!(
                        "{name} is not ready after {waited} s: {}\n{log}",
                        status.note
                    )));
                }
                all &= status.ready;
            }
            all.then_some(Ok(()))
        })?
    }

    fn log_tail(&self, name: &str) -> String {
        let path = self.folder.log(name);
        let text = std::fs::read(&path).unwrap_or_default();
        format!("{}\nthe whole log: {}", tail(&String::from_utf8_lossy(&text), 12), path.display())
    }

    /// Lets nothing start any more, and returns all that there is to stop.
    pub(crate) fn close(&self) -> Vec<Arc<Child>> {
        self.closed.store(true, Ordering::SeqCst);
        self.children()
    }

    /// Tells all of them to end, each once: a service that is told again ends without order.
    pub(crate) fn tell(&self, children: &[Arc<Child>]) {
        for child in children {
            let first = std::mem::replace(&mut child.lock().wanted, false);
            child.changed.notify_all();
            if first {
                child.signal(Signal::SIGTERM);
                // Who is frozen would not hear it.
                child.signal(Signal::SIGCONT);
            }
        }
    }

    /// Waits until all of them have ended; at most until `by`.
    pub(crate) fn wait_ended(&self, children: &[Arc<Child>], by: Instant) {
        for child in children {
            let left = by.saturating_duration_since(Instant::now());
            let status = child.lock();
            let _unused = child
                .changed
                .wait_timeout_while(status, left, |status| status.running)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Tells all of them to end, and kills what is left at `by`; whatever they do, it takes no longer than that and
    /// [`KILLED_WITHIN`].
    pub(crate) fn stop(&self, children: &[Arc<Child>], by: Instant) {
        self.tell(children);
        self.wait_ended(children, by);
        for child in children.iter().filter(|child| child.lock().running) {
            (self.report)(&format!("{} did not end in time and was killed", child.spec.name));
            child.signal(Signal::SIGKILL);
        }
        self.wait_ended(children, Instant::now() + KILLED_WITHIN);
    }

    /// Stops and forgets.
    pub(crate) fn remove(&self, children: &[Arc<Child>], grace: Duration) {
        self.stop(children, Instant::now() + grace);
        let mut all = self.children.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|child| !children.iter().any(|gone| Arc::ptr_eq(gone, child)));
        drop(all);
        self.changed();
    }

    /// An orderly stop, a new start, and readiness again.
    pub(crate) fn restart(
        self: &Arc<Self>,
        child: &Arc<Child>,
        grace: Duration,
        interrupt: &Interrupt,
    ) -> Result<()> {
        self.stop(std::slice::from_ref(child), Instant::now() + grace);
        self.start_again(child);
        self.wait_ready(std::slice::from_ref(child), interrupt)
    }

    /// SIGKILL to everything, without waiting.
    pub(crate) fn kill_all(&self) {
        for child in self.children() {
            // Not by Child::signal: the hard stop must not wait for a lock.
            if let Ok(mut status) = child.status.try_lock() {
                status.wanted = false;
                if let Some(pid) = status.pid {
                    process::signal_group(pid, Signal::SIGKILL);
                }
            }
        }
    }
}

/// Whether the process has ended; leaves it to be reaped.
fn has_ended(pid: i32, flag: WaitPidFlag) -> Result<bool> {
    match waitid(Id::Pid(Pid::from_raw(pid)), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | flag) {
        Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::EINTR) => Ok(false),
        Ok(_) => Ok(true),
        Err(error) => Err(error).context("waitid"),
    }
}

fn describe(status: WaitStatus) -> String {
    match status {
        WaitStatus::Signaled(pid, signal, _) => format!("(pid {pid}) was ended by {signal}"),
        WaitStatus::Exited(pid, code) => format!("(pid {pid}) ended with exit code {code}"),
        other => format!("ended ({other:?})"),
    }
}

#[cfg(test)]
pub(crate) mod tests;
