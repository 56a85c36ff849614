use super::*;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::proxy::{Effect, Source, Way};
use crate::servers::sql::Engine;
use crate::stack::Options;
use crate::state::Folder;
use crate::up;

/// Set by `cargo xtask test`: then all programs are on this machine, and nothing is downloaded.
const SERVERS: &str = "FIRSTCOME_TEST_SERVERS";

/// Two databases, each with what the first one has.
struct Pair {
    stack: Arc<Stack>,
    _folder: tempfile::TempDir,
}

impl Pair {
    fn start() -> Self {
        assert!(std::env::var_os(SERVERS).is_some(), "{SERVERS} is not set: run this by `cargo xtask test`");
        let temporary = tempfile::tempdir().unwrap();
        let options = Options {
            proxied: true,
            replicated: true,
            ..Options::plain(Folder::new(temporary.path()).unwrap(), Engine::MariaDb)
        };
        let stack = Stack::prepare(options, Interrupt::default(), Progress::new()).unwrap();
        let pair = Self { stack, _folder: temporary };
        let programs = up::obtain(&pair.stack, false).unwrap();
        pair.stack.start_sql(&programs).unwrap();
        pair.primary("CREATE DATABASE firstcome_x; CREATE TABLE firstcome_x.t (n INT PRIMARY KEY)");
        pair.insert(1);
        pair.stack.wait_in_step().unwrap();
        pair
    }

    fn primary(&self, question: &str) -> String {
        self.stack.ask_database(&self.stack.database().unwrap(), question).unwrap()
    }

    fn insert(&self, n: u32) {
        self.primary(&format!("INSERT INTO firstcome_x.t VALUES ({n})"));
    }

    fn of(&self, child: &Child) -> String {
        let question = "SELECT GROUP_CONCAT(n ORDER BY n) FROM firstcome_x.t";
        self.stack.ask_database(child, question).unwrap()
    }

    /// What both have, once they are in step.
    fn both(&self) -> String {
        self.stack.ready(&[self.stack.replica().unwrap()]).unwrap();
        self.stack.wait_in_step().unwrap();
        let both = [self.stack.database().unwrap(), self.stack.replica().unwrap()].map(|it| self.of(&it));
        assert_eq!(both[0], both[1]);
        both[0].clone()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.stack.stop();
    }
}

#[test]
fn a_replica_that_is_behind_takes_over_and_the_roles_swap() {
    let pair = Pair::start();
    for round in 1..=3 {
        let (old, new) = (pair.stack.database().unwrap(), pair.stack.replica().unwrap());
        let these = Source::These(vec![new.spec.name.clone()]);
        let hole = pair.stack.proxies.of(DATABASE).unwrap().impose(these, Way::Both, Effect::BlackHole);
        pair.insert(round * 10);
        let killed = pair.stack.supervisor.kill_and_hold(&old).unwrap();
        pair.stack.promote_replica().unwrap();
        drop(hole);
        assert!(Arc::ptr_eq(&pair.stack.database().unwrap(), &new));
        // What was committed in the black hole is lost.
        let before: Vec<String> = (1..=round).map(|it| it.to_string()).collect();
        assert_eq!(pair.of(&new), before.join(","));
        assert_eq!(pair.primary("SELECT @@read_only"), "0");
        pair.insert(round + 1);
        pair.stack.renew_replica(killed).unwrap();
        assert_eq!(pair.both(), format!("{},{}", before.join(","), round + 1));
        assert_eq!(pair.stack.ask_database(&old, "SELECT @@read_only").unwrap(), "1");
    }
    // A role outlives a restart.
    for child in [pair.stack.replica().unwrap(), pair.stack.database().unwrap()] {
        drop(pair.stack.supervisor.kill_and_hold(&child).unwrap());
        pair.stack.ready(&[child]).unwrap();
    }
    pair.insert(9);
    assert_eq!(pair.both(), "1,2,3,4,9");
}

#[test]
fn a_backup_is_put_back_and_the_replica_follows_it() {
    let pair = Pair::start();
    let backup = pair.stack.back_up().unwrap();
    pair.insert(2);
    assert_eq!(pair.both(), "1,2");
    let killed = pair.stack.supervisor.kill_and_hold(&pair.stack.database().unwrap()).unwrap();
    let replica = pair.stack.supervisor.kill_and_hold(&pair.stack.replica().unwrap()).unwrap();
    pair.stack.restore(&backup, killed).unwrap();
    pair.stack.ready(&[pair.stack.database().unwrap()]).unwrap();
    assert_eq!(pair.of(&pair.stack.database().unwrap()), "1");
    pair.stack.renew_replica(replica).unwrap();
    pair.insert(3);
    assert_eq!(pair.both(), "1,3");
}
