//! `admin`: makes somebody an administrator, or takes the role away, through the public API: every rule of the service
//! holds (only an administrator may, the last one stays one), and its log says who did it.

mod api;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::json;

use self::api::{Api, Roles};
use crate::load::target::Target;
use crate::servers::MysqlArgs;
use crate::state::{self, State, StateArgs};

const EXAMPLES: &str = "\
Examples:
  couponctl admin grant --email kim@example.com
  couponctl admin take --user 249347072000123";
const GRANT_EXAMPLES: &str = "\
Examples:
  # on the running stack, as its first administrator
  couponctl admin grant --user 249347072000123
  couponctl admin grant --email kim@example.com --json
  # anywhere, as another administrator
  couponctl admin grant --user 249347072000123 --gateway http://127.0.0.1:8080 \\
      --as admin@example.com --password-file /run/secrets/admin-password";
const TAKE_EXAMPLES: &str = "\
Examples:
  # all logins of the account end with it, so that it is in force at once
  couponctl admin take --user 249347072000123
  couponctl admin take --email kim@example.com --json";

/// Make somebody an administrator, or take the role away
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make an account's holder an administrator, from the next refresh or login on
    #[command(after_help = GRANT_EXAMPLES)]
    Grant(Box<Change>),
    /// Take the role away at once; the last administrator stays one
    #[command(after_help = TAKE_EXAMPLES)]
    Take(Box<Change>),
}

#[derive(Debug, clap::Args)]
struct Change {
    /// Whose: the account's id
    #[arg(long, value_name = "ID", required_unless_present = "email", conflicts_with = "email")]
    user: Option<u64>,
    /// Whose: the account's e-mail address, looked up in MySQL
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    #[command(flatten)]
    state: StateArgs,
    /// The gateway, http://HOST:PORT [default: the running stack's]
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
    /// Permit a gateway that is not on this machine
    #[arg(long)]
    allow_remote: bool,
    /// The administrator who asks, in place of the running stack's first one
    #[arg(long = "as", value_name = "ADDRESS", requires = "password_file")]
    admin: Option<String>,
    /// File with the password of --as
    #[arg(long, value_name = "FILE", requires = "admin")]
    password_file: Option<PathBuf>,
    #[command(flatten)]
    mysql: MysqlArgs,
    /// Database of the user service, for --email
    #[arg(long, value_name = "NAME", default_value = "firstcome_users")]
    database: String,
}

pub(crate) fn run(args: &Args, json: bool) -> Result<ExitCode> {
    let (change, action) = match &args.command {
        Command::Grant(change) => (change, "GRANT"),
        Command::Take(change) => (change, "TAKE"),
    };
    let state = change.state.find()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let Roles { user_id, roles } = runtime.block_on(change.run(&state, action))?;
    if json {
        println!("{}", json!({"userId": user_id, "roles": roles}));
    } else {
        println!("{user_id} has the roles {}", roles.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

impl Change {
    async fn run(&self, state: &State, action: &str) -> Result<Roles> {
        let gateway = self.gateway.as_ref().or(state.gateway.as_ref());
        let gateway =
            gateway.context("no gateway: give --gateway, or --state with a running stack's folder")?;
        let target = Target::parse(gateway, self.allow_remote)?;
        let (email, password) = self.admin(state)?;
        let user = self.user(state).await?;
        let mut api = Api::log_in(&target, &email, &password).await?;
        let changed = api.change_role(user, action).await;
        // A tool leaves no login behind; one that was ended by its own request is over already.
        api.log_out().await;
        changed
    }

    fn admin(&self, state: &State) -> Result<(String, String)> {
        if let (Some(email), Some(file)) = (&self.admin, &self.password_file) {
            return Ok((email.clone(), state::read_secret(file)?));
        }
        let admin = state.admin.as_ref();
        let admin = admin.context("no administrator: give --as, or --state with a running stack's folder")?;
        Ok((admin.email.clone(), admin.password.clone()))
    }

    async fn user(&self, state: &State) -> Result<u64> {
        let Some(email) = &self.email else { return self.user.context("no account: give --user or --email") };
        let mut connection = self.mysql.resolve(state)?.connect(&self.database).await?;
        // As the user service keeps it.
        let email = email.trim().to_lowercase();
        let found: Option<u64> =
            sqlx::query_scalar("SELECT CAST(user_id AS UNSIGNED) FROM users WHERE email = ?")
                .bind(&email)
                .fetch_optional(&mut connection)
                .await
                .context("cannot read the users from MySQL")?;
        match found {
            Some(user) => Ok(user),
            None => bail!("nobody has signed up as {email}"),
        }
    }
}
