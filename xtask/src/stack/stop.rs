//! The end of a run: the gateway, the services, the servers. It takes less than ten seconds, whatever they do: what has
//! not ended when its time is over is killed.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Stack;
use crate::services::{CONFIG_SERVER, GATEWAY};
use crate::state::Phase;
use crate::supervisor::{Child, Kind};

/// The gateway ends first. By then its door is closed (it deregistered, and its `drain-delay` of 0.5 s is over), and
/// what it still has to answer lies with the services, which end their requests in progress as it does.
const HEAD_START: Duration = Duration::from_secs(1);
/// From the begin of the stop, when the services must have ended. Each has 6.5 s at least: `drain-delay` and
/// `drain-timeout` are 6 s together at most, and the rest takes a few tenths where nothing is wrong. That a service
/// gives itself 9.5 s is for a rest that hangs; the ten seconds of Ctrl-C don't hold that and the servers.
const SERVICES_BY: Duration = Duration::from_millis(7_500);
/// The same for the servers, together with which the last kills stay below ten seconds. They usually have what the
/// services left: Kafka and the database take 0.6 s, and the trace UI, which keeps nothing, 2.5 s.
const SERVERS_BY: Duration = Duration::from_millis(9_200);
/// Sentinels have nothing to write down.
const SENTINEL_GRACE: Duration = Duration::from_millis(500);

impl Stack {
    /// Ends everything in order; within ten seconds, by force if need be.
    pub(crate) fn stop(&self) {
        self.set_phase(Phase::Stopping);
        let supervisor = &self.supervisor;
        let children = supervisor.close();
        let of = |test: &dyn Fn(&Child) -> bool| -> Vec<Arc<Child>> {
            children.iter().filter(|child| test(child)).cloned().collect()
        };
        let begun = Instant::now();
        let gateway = of(&|child| child.spec.group == GATEWAY);
        supervisor.tell(&gateway);
        supervisor.wait_ended(&gateway, begun + HEAD_START);
        let services = of(&|child| child.spec.kind == Kind::Service && child.spec.group != CONFIG_SERVER);
        supervisor.stop(&services, begun + SERVICES_BY);
        // Sentinels first, or they would take the stop of the master for a failure.
        let sentinels = of(&|child| child.spec.group == "sentinel");
        supervisor.stop(&sentinels, Instant::now() + SENTINEL_GRACE);
        supervisor.stop(&children, begun + SERVERS_BY);
        self.set_phase(Phase::Stopped);
        let _ = fs::remove_file(self.folder.run().join("control.sock"));
        if !children.is_empty() {
            self.progress.note(&format!("everything stopped in {:.1} s", begun.elapsed().as_secs_f64()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::Interrupt;
    use crate::progress::Progress;
    use crate::servers::sql::Engine;
    use crate::stack::Options;
    use crate::state::Folder;
    use crate::supervisor::Spec;
    use crate::supervisor::tests::shell;

    #[test]
    fn services_have_their_time_and_all_of_it_takes_less_than_ten_seconds() {
        let temporary = tempfile::tempdir().unwrap();
        let options = Options::plain(Folder::new(temporary.path()).unwrap(), Engine::MariaDb);
        let stack = Stack::prepare(options, Interrupt::default(), Progress::new()).unwrap();
        let start = |name: &'static str, kind: Kind, at_the_end: &str| {
            let ready = temporary.path().join(name);
            let script = format!("trap '{at_the_end}' TERM; touch {name}; while :; do sleep 0.05; done");
            let spec = shell(temporary.path(), name, &script, move || ready.exists());
            stack.supervisor.start(Spec { kind, ..spec })
        };
        // The defaults of `drain-delay` and `drain-timeout`, and two that don't end at all.
        let children = [
            start(GATEWAY, Kind::Service, ""),
            start("issue-service", Kind::Service, "sleep 5.5; touch drained; exit 0"),
            start("kafka", Kind::Server, ""),
        ];
        stack.supervisor.wait_ready(&children, &Interrupt::default()).unwrap();

        let begun = Instant::now();
        stack.stop();
        let took = begun.elapsed();

        assert!(took < Duration::from_secs(10), "{took:?}");
        assert!(temporary.path().join("drained").exists());
        assert!(children.iter().all(|child| child.status().pid.is_none()));
    }
}
