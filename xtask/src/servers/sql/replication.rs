//! Asynchronous replication between two servers, and questions to a server by its client program.
//!
//! Whoever follows reads the other's log of changes from its very beginning; so a copy can be made anew at any time.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::{Engine, Installed, unpacked_mariadb, unpacked_mysql};
use crate::interrupt::Interrupt;
use crate::servers::Program;
use crate::servers::fetch::on_path;

const USER: &str = "'replication'@'127.0.0.1'";

/// What a server is to the other one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Primary,
    /// It follows whoever is reached at this port.
    Replica(u16),
}

impl Role {
    /// Run at each start, so that a role outlives a restart. `id` is that of this server's data: a replica passes over
    /// what was written under its own, so data that is begun anew needs a new one.
    pub(crate) fn statements(self, engine: Engine, id: u32, password: &str) -> Vec<String> {
        let first = [
            format!("CREATE USER IF NOT EXISTS {USER} IDENTIFIED BY '{password}';"),
            format!("ALTER USER {USER} IDENTIFIED BY '{password}';"),
            format!("GRANT REPLICATION SLAVE ON *.* TO {USER};"),
            format!("SET GLOBAL server_id = {id};"),
        ];
        let role = match (self, engine) {
            // Its data may be a copy of a replica's.
            (Self::Primary, Engine::MariaDb) => vec!["RESET SLAVE ALL;".to_owned()],
            (Self::Primary, Engine::MySql) => vec!["RESET REPLICA ALL;".to_owned()],
            (Self::Replica(port), Engine::MariaDb) => vec![
                "SET GLOBAL read_only = ON;".to_owned(),
                format!(
                    "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'replication', \
                     MASTER_PASSWORD = '{password}', MASTER_USE_GTID = slave_pos, MASTER_CONNECT_RETRY = 1;"
                ),
                "START SLAVE;".to_owned(),
            ],
            (Self::Replica(port), Engine::MySql) => vec![
                "SET GLOBAL read_only = ON;".to_owned(),
                format!(
                    "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, \
                     SOURCE_USER = 'replication', SOURCE_PASSWORD = '{password}', SOURCE_AUTO_POSITION = 1, \
                     SOURCE_CONNECT_RETRY = 1, SOURCE_RETRY_COUNT = 86400, GET_SOURCE_PUBLIC_KEY = 1;"
                ),
                "START REPLICA;".to_owned(),
            ],
        };
        first.into_iter().chain(role).collect()
    }
}

/// Rows are logged, with global ids; nothing is followed before the role says so.
pub(super) fn arguments(engine: Engine, id: Option<u32>) -> Vec<String> {
    let Some(id) = id else {
        return if engine == Engine::MySql { vec!["--skip-log-bin".to_owned()] } else { Vec::new() };
    };
    let own: &[&str] = match engine {
        Engine::MariaDb => &["--binlog-format=ROW", "--log-slave-updates", "--skip-slave-start"],
        Engine::MySql => &[
            "--gtid-mode=ON",
            "--enforce-gtid-consistency=ON",
            "--log-replica-updates=ON",
            "--skip-replica-start",
            "--binlog-expire-logs-seconds=0",
        ],
    };
    let shared = ["--log-bin=binlog".to_owned(), "--relay-log=relay".to_owned(), format!("--server-id={id}")];
    shared.into_iter().chain(own.iter().map(|it| (*it).to_owned())).collect()
}

impl Engine {
    /// How far its log of changes goes.
    pub(crate) fn position(self) -> &'static str {
        match self {
            Self::MariaDb => "SELECT @@global.gtid_binlog_pos",
            Self::MySql => "SELECT REPLACE(@@global.gtid_executed, '\n', '')",
        }
    }

    /// Answers 0 when a replica has come there.
    pub(crate) fn reached(self, position: &str, seconds: u64) -> String {
        match self {
            Self::MariaDb => format!("SELECT MASTER_GTID_WAIT('{position}', {seconds})"),
            Self::MySql => format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{position}', {seconds})"),
        }
    }

    /// Makes a primary of a replica, as it is.
    pub(crate) fn promotion(self) -> &'static str {
        match self {
            Self::MariaDb => "STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only = OFF",
            Self::MySql => "STOP REPLICA; RESET REPLICA ALL; SET GLOBAL read_only = OFF",
        }
    }
}

impl Installed {
    /// What the server with this data folder answers to root: columns with tabs between them, rows in lines.
    pub(crate) fn ask(
        &self,
        data: &Path,
        password: &str,
        question: &str,
        interrupt: &Interrupt,
    ) -> Result<String> {
        let mut command = self.client()?.command();
        // A path of any depth is too long for a socket, so it is named from its folder.
        command.current_dir(data).env("MYSQL_PWD", password);
        command.args(["--no-defaults", "--protocol=socket", "--socket=mysqld.sock", "--user=root"]);
        command.args(["--batch", "--skip-column-names", "--connect-timeout=10", "--execute", question]);
        Ok(interrupt.run(&command)?.trim().to_owned())
    }

    fn client(&self) -> Result<Program> {
        let (name, found) = match (self.engine, &self.root) {
            (Engine::MariaDb, Some(root)) => return Ok(unpacked_mariadb(root, "usr/bin/mariadb")),
            (Engine::MySql, Some(root)) => return unpacked_mysql(root, "usr/bin/mysql"),
            (Engine::MariaDb, None) => ("mariadb", on_path("mariadb")),
            (Engine::MySql, None) => ("mysql", on_path("mysql")),
        };
        let path = found.with_context(|| format!("no {name} on PATH: install the client of {name}, too"))?;
        Ok(Program::found(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_statement_a_line() {
        for engine in [Engine::MariaDb, Engine::MySql] {
            for role in [Role::Primary, Role::Replica(1)] {
                let statements = role.statements(engine, 1, "pw");
                assert!(
                    statements.iter().all(|it| it.ends_with(';') && !it.contains('\n')),
                    "{statements:?}"
                );
            }
        }
    }
}
