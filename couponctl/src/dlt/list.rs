//! `dlt list` and `dlt show`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use comfy_table::{ContentArrangement, Table, presets};

use super::Place;
use super::letters::Letter;
use super::resolve::{describe, readable};
use crate::terminal::{grouped, time};

const LIST_EXAMPLES: &str = "\
Examples:
  couponctl dlt list
  couponctl dlt list --all --json";

const SHOW_EXAMPLES: &str = "\
Examples:
  couponctl dlt show 3/1742
  couponctl dlt show 3/1742 --json";

/// The letters that wait
#[derive(Debug, clap::Args)]
#[command(after_help = LIST_EXAMPLES)]
pub(super) struct ListArgs {
    /// Those that were resolved, too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    place: Place,
}

/// One letter: where it comes from, its bytes, and what can be done
#[derive(Debug, clap::Args)]
#[command(after_help = SHOW_EXAMPLES)]
pub(super) struct ShowArgs {
    /// As `list` names it: PARTITION/OFFSET of the original record
    #[arg(value_name = "LETTER")]
    id: String,
    #[command(flatten)]
    place: Place,
}

pub(super) fn list(args: &ListArgs, json: bool) -> Result<ExitCode> {
    let (_, letters) = args.place.read(&args.place.kafka()?)?;
    let waiting = letters.iter().filter(|letter| letter.waits()).count();
    let shown: Vec<&Letter> = letters.iter().filter(|letter| args.all || letter.waits()).collect();
    if json {
        println!("{}", serde_json::json!({ "waiting": waiting, "letters": shown }));
        return Ok(ExitCode::SUCCESS);
    }
    if !shown.is_empty() {
        let mut table = Table::new();
        table
            .load_style(presets::UTF8_FULL_CONDENSED)
            .set_content_arrangement(ContentArrangement::Dynamic)
            .set_header(["letter", "appended", "bytes", "repeats", "why", "state"]);
        for letter in &shown {
            table.add_row([
                letter.id.clone(),
                letter.appended_at.map(time).unwrap_or_default(),
                grouped(letter.value.len() as u64),
                grouped(letter.repeats),
                letter.reason.clone(),
                letter.fate(),
            ]);
        }
        println!("{table}");
    }
    println!("{} wait, {} in all", grouped(waiting as u64), grouped(letters.len() as u64));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn show(args: &ShowArgs, json: bool) -> Result<ExitCode> {
    let (name, letters) = args.place.read(&args.place.kafka()?)?;
    let letter = letters.iter().find(|letter| letter.id == args.id);
    let letter =
        letter.with_context(|| format!("there is no letter {} in {name}: see `dlt list --all`", args.id))?;
    if json {
        println!("{}", serde_json::to_string(letter)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("letter {}: {}", letter.id, letter.fate());
    for (name, value) in &letter.headers {
        println!("{name}: {value}");
    }
    println!("{} repeats, {} bytes:", letter.repeats, letter.value.len());
    for (line, bytes) in letter.value.chunks(16).enumerate() {
        let text: String = bytes
            .iter()
            .map(|&byte| if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' })
            .collect();
        println!("{:06x}  {:<32}  {text}", line * 16, hex::encode(bytes));
    }
    match readable(letter) {
        Ok(record) => println!("it is {}: it can be redriven", describe(&record)),
        Err(why) => println!("it can only be discarded: {why}"),
    }
    Ok(ExitCode::SUCCESS)
}

impl Letter {
    /// What became of it, in words.
    fn fate(&self) -> String {
        let Some(it) = &self.resolution else { return "waits".to_owned() };
        let to = it.redriven_to.as_ref().map(|to| format!(" to {to}")).unwrap_or_default();
        let why = if it.reason.is_empty() { String::new() } else { format!(": {}", it.reason) };
        format!("{}{to} by {} at {}{why}", it.action, it.by, it.at)
    }
}
