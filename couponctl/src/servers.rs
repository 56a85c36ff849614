//! How MySQL is reached: by an option, or as the running stack's state says.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{ConnectOptions, Connection};

use crate::state::{self, State};

/// A server on this machine or beside it answers at once or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct MysqlArgs {
    /// MySQL, instead of the stack's own: mysql://USER@HOST:PORT (a password better by file)
    #[arg(long, value_name = "URL", env = "COUPONCTL_MYSQL", hide_env_values = true)]
    mysql: Option<String>,
    /// File with the password of --mysql
    #[arg(long, value_name = "FILE")]
    mysql_password_file: Option<PathBuf>,
}

/// The tables of the issue service.
#[derive(Debug, clap::Args)]
pub(crate) struct IssuesArgs {
    #[command(flatten)]
    mysql: MysqlArgs,
    /// Database of the issue service
    #[arg(long, value_name = "NAME", default_value = "firstcome_issues")]
    database: String,
}

impl IssuesArgs {
    pub(crate) async fn connect(&self, state: &State) -> Result<MySqlConnection> {
        self.mysql.resolve(state)?.connect(&self.database).await
    }
}

#[derive(Clone)]
pub(crate) struct Mysql {
    options: MySqlConnectOptions,
    place: String,
}

impl MysqlArgs {
    pub(crate) fn resolve(&self, state: &State) -> Result<Mysql> {
        let (mut options, file) = if let Some(url) = &self.mysql {
            // The cause is left out: it could quote a password.
            let options: MySqlConnectOptions =
                url.parse().map_err(|_| anyhow!("--mysql is not of the form mysql://USER@HOST:PORT"))?;
            (options, None)
        } else {
            let mysql = state
                .mysql
                .as_ref()
                .context("no MySQL: give --mysql, or --state with a running stack's folder")?;
            let options =
                MySqlConnectOptions::new().host(&mysql.host).port(mysql.port).username(&mysql.username);
            (options, mysql.password_file.clone())
        };
        if let Some(file) = self.mysql_password_file.clone().or(file) {
            options = options.password(&state::read_secret(&file)?);
        }
        let place = format!("{}:{}", options.get_host(), options.get_port());
        Ok(Mysql { options, place })
    }
}

impl Mysql {
    /// A connection of its own to one database.
    pub(crate) async fn connect(&self, database: &str) -> Result<MySqlConnection> {
        let options = self.options.clone().database(database).disable_statement_logging();
        tokio::time::timeout(CONNECT_TIMEOUT, MySqlConnection::connect_with(&options))
            .await
            .map_err(|_| anyhow!("no answer"))
            .and_then(|connected| Ok(connected?))
            .with_context(|| format!("cannot open database {database} of MySQL at {}", self.place))
    }
}
