//! `keys`: the key store that access tokens are signed from. It is made, shown and rotated here; the user service reads it
//! and takes up what changed.

mod rotation;
mod store;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use comfy_table::{Table, presets};
use serde_json::{Value, json};

use self::rotation::Obstacle;
pub(crate) use self::store::{Key, Status, Store, kid};
use crate::clock;
use crate::state::StateArgs;
use crate::terminal;

const EXAMPLES: &str = "\
Examples:
  couponctl keys new --store /etc/firstcome/token-keys.json
  couponctl keys show
  couponctl keys rotate";
const NEW_EXAMPLES: &str = "\
Examples:
  # the first store of an installation: one key that signs, and the next one, which is published already
  couponctl keys new --store /etc/firstcome/token-keys.json";
const SHOW_EXAMPLES: &str = "\
Examples:
  couponctl keys show
  couponctl keys show --store /etc/firstcome/token-keys.json --json";
const ROTATE_EXAMPLES: &str = "\
Examples:
  # the running stack's store
  couponctl keys rotate
  # where access tokens live longer than 15 minutes (token.access-ttl of the user service)
  couponctl keys rotate --store /etc/firstcome/token-keys.json --access-ttl 1h
  # a key has leaked: it stops signing by the first rotation, and its tokens stop counting by the second
  couponctl keys rotate --force
  couponctl keys rotate --force";

/// Make, show and rotate the keys that sign access tokens
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    New(NewArgs),
    Show(ShowArgs),
    Rotate(RotateArgs),
}

/// Where the store is.
#[derive(Debug, clap::Args)]
struct Place {
    #[command(flatten)]
    state: StateArgs,
    /// The key store, instead of the running stack's own
    #[arg(long, value_name = "PATH")]
    store: Option<PathBuf>,
}

/// Make a first store, with a key that signs and the next one; a store that is there is left alone
#[derive(Debug, clap::Args)]
#[command(after_help = NEW_EXAMPLES)]
struct NewArgs {
    #[command(flatten)]
    place: Place,
}

/// Show which keys there are, what each is for and since when; nothing private
#[derive(Debug, clap::Args)]
#[command(after_help = SHOW_EXAMPLES)]
struct ShowArgs {
    #[command(flatten)]
    place: Place,
}

/// Let the next key sign, keep the former one published, and make a new next one
#[derive(Debug, clap::Args)]
#[command(after_help = ROTATE_EXAMPLES)]
struct RotateArgs {
    #[command(flatten)]
    place: Place,
    /// How long access tokens live: token.access-ttl of the user service
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = clock::duration)]
    access_ttl: Duration,
    /// Also if tokens that are in use are refused after it
    #[arg(long)]
    force: bool,
}

impl Place {
    fn path(&self) -> Result<PathBuf> {
        if let Some(store) = &self.store {
            return Ok(store.clone());
        }
        let state = self.state.find()?;
        state.key_store.context("no key store: give --store, or --state with a running stack's folder")
    }
}

pub(crate) fn run(args: &Args, json: bool) -> Result<ExitCode> {
    match &args.command {
        Command::New(args) => new(&args.place.path()?, json),
        Command::Show(args) => {
            let path = args.place.path()?;
            report(&path, &Store::open(&path)?, json)
        }
        Command::Rotate(args) => rotate(args, json),
    }
}

fn new(path: &Path, json: bool) -> Result<ExitCode> {
    let now = clock::now_ms();
    let keys = vec![Key::make(Status::Signing, now)?, Key::make(Status::Next, now)?];
    let store = Store { keys };
    store.create(path)?;
    report(path, &store, json)
}

fn rotate(args: &RotateArgs, json: bool) -> Result<ExitCode> {
    let path = args.place.path()?;
    let store = Store::open(&path)?;
    let now = clock::now_ms();
    let obstacles = rotation::obstacles(&store, args.access_ttl, now)?;
    if !args.force && !obstacles.is_empty() {
        let said: Vec<String> = obstacles.iter().map(Obstacle::to_string).collect();
        bail!("not rotated: {}. --force rotates all the same", said.join("; and "));
    }
    for obstacle in &obstacles {
        eprintln!("{} {obstacle}", console::style("couponctl:").yellow().bold().for_stderr());
    }
    let store = rotation::rotate(&store, now)?;
    store.replace(&path)?;
    report(&path, &store, json)
}

/// In the order of the store; nothing private.
fn report(path: &Path, store: &Store, json: bool) -> Result<ExitCode> {
    if json {
        let keys: Vec<Value> = store
            .keys
            .iter()
            .map(|key| json!({"kid": key.kid, "status": key.status, "since": key.since}))
            .collect();
        println!("{}", json!({"store": path, "keys": keys}));
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED).set_header(["kid", "status", "since"]);
    for key in &store.keys {
        let since = clock::parse(&key.since).map_or_else(|| key.since.clone(), terminal::time);
        table.add_row([key.kid.clone(), key.status.as_str().to_owned(), since]);
    }
    println!("{table}");
    Ok(ExitCode::SUCCESS)
}
