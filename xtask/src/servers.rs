//! The real servers: each module knows how to find or get one server, how to start it, and how to ask whether it is
//! ready, in its own protocol.

pub(crate) mod consul;
pub(crate) mod debian;
pub(crate) mod fetch;
pub(crate) mod java;
pub(crate) mod kafka;
pub(crate) mod nginx;
pub(crate) mod redis;
pub(crate) mod resp;
pub(crate) mod sql;
pub(crate) mod zipkin;

use std::path::PathBuf;

use anyhow::Result;

use self::fetch::Fetch;

/// A program with what it needs in its environment.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// Arguments that come before all others (a loader and its library path).
    pub(crate) leading: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
}

impl Program {
    pub(crate) fn found(path: PathBuf) -> Self {
        Self { path, leading: Vec::new(), environment: Vec::new() }
    }

    pub(crate) fn command(&self) -> std::process::Command {
        let mut command = std::process::Command::new(&self.path);
        command.args(&self.leading).envs(self.environment.iter().cloned());
        command
    }

    pub(crate) fn arguments(&self, arguments: Vec<String>) -> Vec<String> {
        self.leading.iter().cloned().chain(arguments).collect()
    }
}

/// Everything that a run needs, found or gotten.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    pub(crate) redis: Program,
    pub(crate) sql: sql::Installed,
    pub(crate) java: Program,
    pub(crate) kafka: PathBuf,
    pub(crate) consul: Program,
    /// Absent where no trace UI is wanted.
    pub(crate) zipkin: Option<PathBuf>,
}

/// Finds or gets all of them, side by side.
pub(crate) fn obtain(fetch: &Fetch, engine: sql::Engine, trace_ui: bool) -> Result<Programs> {
    std::thread::scope(|scope| {
        let redis = scope.spawn(|| redis::obtain(fetch));
        let sql = scope.spawn(|| sql::obtain(fetch, engine));
        let consul = scope.spawn(|| consul::obtain(fetch));
        let java = scope.spawn(|| {
            let tools = java::obtain(fetch)?;
            let kafka = kafka::obtain(fetch, &tools)?;
            let zipkin = if trace_ui { Some(zipkin::obtain(fetch, &tools)?) } else { None };
            Ok::<_, anyhow::Error>((tools.java, kafka, zipkin))
        });
        let (redis, sql, consul) = (join(redis), join(sql), join(consul));
        let (java, kafka, zipkin) = join(java)?;
        Ok(Programs { redis: redis?, sql: sql?, java, kafka, consul: consul?, zipkin })
    })
}

fn join<T>(thread: std::thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
