//! The start of the servers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Stack;
use crate::ports::listens;
use crate::secrets;
use crate::servers::{Programs, consul, kafka, redis, zipkin};
use crate::supervisor::Child;

impl Stack {
    /// Starts all servers side by side and waits until each is ready.
    pub(crate) fn start_servers(self: &Arc<Self>, programs: &Programs) -> Result<()> {
        std::thread::scope(|scope| {
            let threads = [
                scope.spawn(|| self.start_redis(programs)),
                scope.spawn(|| self.start_sql(programs)),
                scope.spawn(|| self.start_kafka(programs)),
                scope.spawn(|| {
                    let step = self.progress.step("consul");
                    let spec = consul::spec(&programs.consul, &self.folder, &self.ports)?;
                    let child = self.supervisor.start(spec);
                    self.ready(&[child])?;
                    step.done(&format!("127.0.0.1:{}", self.port("consul")));
                    Ok(())
                }),
                scope.spawn(|| {
                    let (Some(jar), Some(&port)) = (&programs.zipkin, self.ports.get("zipkin")) else {
                        return Ok(());
                    };
                    let step = self.progress.step("zipkin");
                    let child = self.supervisor.start(zipkin::spec(&programs.java, jar, &self.folder, port)?);
                    self.ready(&[child])?;
                    step.done(&format!("127.0.0.1:{port}"));
                    Ok(())
                }),
            ];
            let results =
                threads.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            results.into_iter().collect::<Result<Vec<()>>>()
        })?;
        self.write_test_servers()
    }

    pub(super) fn ready(&self, children: &[Arc<Child>]) -> Result<()> {
        self.supervisor.wait_ready(children, &self.interrupt)
    }

    fn start_redis(&self, programs: &Programs) -> Result<()> {
        let step = self.progress.step("redis");
        let cluster = redis::Cluster {
            program: programs.redis.clone(),
            folder: self.folder.clone(),
            ports: self.ports.clone(),
            password: secrets::read(&self.folder, secrets::REDIS)?,
        };
        let master = cluster.configure()?;
        step.say("starting the nodes");
        // A replica that finds no master asks again only after a second.
        let first = self.supervisor.start(cluster.node(master));
        self.ready(&[first])?;
        let others = redis::NODES.iter().filter(|name| **name != master);
        let replicas: Vec<_> = others.map(|name| self.supervisor.start(cluster.node(name))).collect();
        self.ready(&replicas)?;
        step.say("starting the Sentinels");
        let sentinels: Vec<_> =
            redis::SENTINELS.map(|name| self.supervisor.start(cluster.sentinel(name))).to_vec();
        let answering = || redis::SENTINELS.iter().all(|name| redis::answers(listens(&self.ports, name)));
        let begun = Instant::now();
        self.interrupt
            .wait_until(|| (answering() || begun.elapsed() > Duration::from_secs(5)).then_some(()))?;
        cluster.hurry_sentinels()?;
        self.ready(&sentinels)?;
        step.done(&format!("master {master}, 2 replicas, 3 Sentinels"));
        Ok(())
    }

    fn start_kafka(&self, programs: &Programs) -> Result<()> {
        let step = self.progress.step("kafka");
        let cluster = kafka::Cluster {
            java: programs.java.clone(),
            jars: programs.kafka.clone(),
            folder: self.folder.clone(),
            ports: self.ports.clone(),
        };
        step.say("formatting its storage");
        cluster.prepare(&self.interrupt)?;
        step.say("starting");
        let brokers: Vec<_> = cluster.specs().into_iter().map(|spec| self.supervisor.start(spec)).collect();
        self.ready(&brokers)?;
        step.done(&kafka::bootstrap_servers(&self.ports));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interrupt::Interrupt;
    use crate::progress::Progress;
    use crate::servers::kafka::{BROKERS, metadata};
    use crate::servers::sql::Engine;
    use crate::stack::Options;
    use crate::state::Folder;
    use crate::up;

    /// Set by `cargo xtask test`: then all programs are on this machine, and nothing is downloaded.
    const SERVERS: &str = "FIRSTCOME_TEST_SERVERS";

    #[test]
    fn two_of_three_brokers_go_on_and_the_third_comes_back() {
        assert!(std::env::var_os(SERVERS).is_some(), "{SERVERS} is not set: run this by `cargo xtask test`");
        let temporary = tempfile::tempdir().unwrap();
        let options = Options {
            proxied: true,
            replicated: true,
            ..Options::plain(Folder::new(temporary.path()).unwrap(), Engine::MariaDb)
        };
        let stack = Stack::prepare(options, Interrupt::default(), Progress::new()).unwrap();
        let programs = up::obtain(&stack, false).unwrap();
        stack.start_kafka(&programs).unwrap();
        let known = |broker: &str| metadata::ask(listens(&stack.ports, broker)).unwrap();
        let until = |brokers: usize| {
            let begun = Instant::now();
            while known(BROKERS[1]).brokers.len() != brokers || known(BROKERS[1]).controller < 0 {
                assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", known(BROKERS[1]));
                std::thread::sleep(Duration::from_millis(50));
            }
        };
        until(3);
        let first = stack.supervisor.find(BROKERS[0]).unwrap().remove(0);
        let killed = stack.supervisor.kill_and_hold(&first).unwrap();
        until(2);
        drop(killed);
        until(3);
        stack.ready(&[first]).unwrap();
        stack.stop();
    }
}
