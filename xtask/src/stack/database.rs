//! The database of a run, and the replica that some runs have beside it.
//!
//! Invariant: the primary is whoever the proxy leads to, for services and for the replica alike; so roles change in one
//! step.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, PoisonError};

use anyhow::{Context as _, Result, bail};

use super::Stack;
use crate::ports::{behind, listens};
use crate::secrets;
use crate::servers::Programs;
use crate::servers::sql::replication::Role;
use crate::servers::sql::{self, Server};
use crate::supervisor::{Child, Held};

/// The name of the port at which services find the database.
pub(crate) const DATABASE: &str = "mysql";
pub(super) const SECOND_DATABASE: &str = "mysql-2";
/// For a replica to come where its primary is; it may have to read everything from the begin.
const IN_STEP_WITHIN: u64 = 120;

impl Stack {
    pub(super) fn start_sql(&self, programs: &Programs) -> Result<()> {
        let installed = self.sql.get_or_init(|| programs.sql.clone());
        let step = self.progress.step(installed.engine().name());
        step.say("making the data folder");
        let servers = self.databases();
        for server in &servers {
            installed.prepare(&self.folder, &server.name, &self.interrupt)?;
            self.assign_role(server, &[])?;
        }
        step.say("starting");
        let start = |server| self.supervisor.start(installed.spec(&self.folder, server));
        let children: Vec<_> = servers.iter().map(start).collect();
        self.ready(&children)?;
        let replica = if servers.len() > 1 { ", 1 replica" } else { "" };
        step.done(&format!("127.0.0.1:{}{replica}", self.port(DATABASE)));
        Ok(())
    }

    /// The first one, and the second where there is one.
    fn databases(&self) -> Vec<Server> {
        let name = self.engine.name().to_owned();
        let told = self.port(DATABASE);
        let ids = *self.database_ids.lock().unwrap_or_else(PoisonError::into_inner);
        let second = self.ports.get(&behind(SECOND_DATABASE)).copied();
        let first = Server {
            name: name.clone(),
            port: listens(&self.ports, DATABASE),
            told,
            replicated: second.map(|_| ids[0]),
        };
        let replicated = Some(ids[1]);
        let second = second.map(|port| Server { name: format!("{name}-2"), port, told: port, replicated });
        std::iter::once(first).chain(second).collect()
    }

    /// Whether there is a replica.
    pub(crate) fn is_replicated(&self) -> bool {
        self.ports.contains_key(&behind(SECOND_DATABASE))
    }

    fn is_primary(&self, server: &Server) -> bool {
        self.proxies.of(DATABASE).map_or(true, |proxy| proxy.behind() == server.port)
    }

    fn the(&self, primary: bool) -> Result<Server> {
        let found = self.databases().into_iter().find(|server| self.is_primary(server) == primary);
        found.context("the database has no replica")
    }

    fn child(&self, server: &Server) -> Result<Arc<Child>> {
        let found = self.supervisor.find(&server.name)?;
        found.into_iter().next().with_context(|| format!("{} does not run", server.name))
    }

    /// The one that the services work with.
    pub(crate) fn database(&self) -> Result<Arc<Child>> {
        self.child(&self.the(true)?)
    }

    /// The one that follows it.
    pub(crate) fn replica(&self) -> Result<Arc<Child>> {
        self.child(&self.the(false)?)
    }

    /// Has it do at each start what its role takes, and these statements.
    fn assign_role(&self, server: &Server, statements: &[String]) -> Result<()> {
        let password = secrets::read(&self.folder, secrets::MYSQL)?;
        let role = if self.is_primary(server) { Role::Primary } else { Role::Replica(self.port(DATABASE)) };
        let role = server.replicated.map(|id| role.statements(self.engine, id, &password));
        let all: Vec<String> = role.into_iter().flatten().chain(statements.iter().cloned()).collect();
        sql::at_start(&self.folder, &server.name, &password, &all)
    }

    /// Has the database execute these, too, at each start from now on.
    pub(crate) fn at_database_start(&self, statements: &[String]) -> Result<()> {
        self.assign_role(&self.the(true)?, statements)
    }

    /// What one of the two answers, past the proxy.
    pub(crate) fn ask_database(&self, child: &Child, question: &str) -> Result<String> {
        let installed = self.sql.get().context("no database was started")?;
        let password = secrets::read(&self.folder, secrets::MYSQL)?;
        let answer = installed.ask(&child.spec.working_folder, &password, question, &self.interrupt);
        answer.with_context(|| format!("ask {}", child.spec.name))
    }

    /// Waits until the replica has everything that the primary has right now.
    pub(crate) fn wait_in_step(&self) -> Result<()> {
        let position = self.ask_database(&*self.database()?, self.engine.position())?;
        let reached = self.engine.reached(&position, IN_STEP_WITHIN);
        let answer = self.ask_database(&*self.replica()?, &reached)?;
        if answer != "0" {
            bail!("the replica did not come to {position} within {IN_STEP_WITHIN} s");
        }
        Ok(())
    }

    /// Makes the replica the primary, with what it has, and leads everybody to it.
    pub(crate) fn promote_replica(&self) -> Result<()> {
        let replica = self.the(false)?;
        self.ask_database(&*self.child(&replica)?, self.engine.promotion())?;
        self.proxies.of(DATABASE)?.lead_to(replica.port);
        self.assign_role(&replica, &[])
    }

    /// Throws the data of a replica away that was stopped, and lets it begin again as a copy of the primary.
    pub(crate) fn renew_replica(&self, stopped: Held) -> Result<()> {
        {
            let old = self.the(false)?.replicated;
            let mut ids = self.database_ids.lock().unwrap_or_else(PoisonError::into_inner);
            let new = ids[0].max(ids[1]) + 1;
            ids.iter_mut().filter(|id| Some(**id) == old).for_each(|id| *id = new);
        }
        let replica = self.the(false)?;
        let installed = self.sql.get().context("no database was started")?;
        fs::remove_dir_all(self.folder.data().join(&replica.name))?;
        installed.prepare(&self.folder, &replica.name, &self.interrupt)?;
        self.assign_role(&replica, &[])?;
        drop(stopped);
        Ok(())
    }

    /// A backup of everything: the data of the replica, which is stopped in order for it.
    pub(crate) fn back_up(&self) -> Result<PathBuf> {
        let replica = self.replica()?;
        let backup = self.folder.root().join("backup");
        let stopped = self.supervisor.stop_and_hold(&replica)?;
        self.replace(&replica.spec.working_folder, &backup)?;
        drop(stopped);
        self.ready(&[replica])?;
        Ok(backup)
    }

    /// Puts a backup in the place of the data of a primary that was stopped, and lets it come back.
    pub(crate) fn restore(&self, backup: &Path, stopped: Held) -> Result<()> {
        let data = self.database()?.spec.working_folder.clone();
        self.replace(backup, &data)?;
        // What MySQL tells servers apart by: the backup is another one's.
        let identity = data.join("auto.cnf");
        if identity.exists() {
            fs::remove_file(identity)?;
        }
        drop(stopped);
        Ok(())
    }

    fn replace(&self, from: &Path, to: &Path) -> Result<()> {
        if to.exists() {
            fs::remove_dir_all(to)?;
        }
        self.interrupt.run(Command::new("cp").arg("--archive").arg(from).arg(to))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
