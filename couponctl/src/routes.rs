//! `routes`: what a gateway would make of a route file.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use gateway::standalone::document::Document;
use serde_json::json;

const EXAMPLES: &str = "\
Examples:
  couponctl routes check application.yml
  couponctl routes check config-repo/gateway.yml
  couponctl routes check application.yml --json";
const CHECK_EXAMPLES: &str = "\
Examples:
  couponctl routes check application.yml
  couponctl routes check config-repo/gateway.yml --json

It ends with 0 if a gateway would take the file, else with 1; what is wrong is named one a line.";

/// Look at the routes of a gateway before it does
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Check(CheckArgs),
}

/// Whether a route file is right, in Spring Cloud Gateway's form or in that of config-repo/gateway.yml
#[derive(Debug, clap::Args)]
#[command(after_help = CHECK_EXAMPLES)]
struct CheckArgs {
    /// YAML file
    file: PathBuf,
}

pub(crate) fn run(args: &Args, json: bool) -> Result<ExitCode> {
    let Command::Check(CheckArgs { file }) = &args.command;
    let document = match Document::read(file) {
        Ok(document) => document,
        Err(unusable) => {
            if json {
                println!("{}", json!({"ok": false, "problems": unusable.0}));
            } else {
                for problem in &unusable.0 {
                    eprintln!("{} {problem}", console::style("couponctl:").red().bold().for_stderr());
                }
            }
            return Ok(ExitCode::FAILURE);
        }
    };
    let Document { routing, warnings, fixed, .. } = document;
    if json {
        let routes = &routing.routes;
        println!("{}", json!({"ok": true, "routes": routes, "warnings": warnings}));
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["route", "to", "predicates", "filters"]);
    let lines = |list: &[gateway::routes::definition::Definition]| {
        list.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    for route in &routing.routes {
        let name = if route.enabled { route.id.clone() } else { format!("{} (off)", route.id) };
        table.add_row([name, route.uri.clone(), lines(&route.predicates), lines(&route.filters)]);
    }
    println!("{table}");
    if let Some(jwt) = fixed.jwt {
        let whose = if jwt.issuer.is_empty() { jwt.jwks_uri } else { jwt.issuer };
        println!(
            "tokens of {whose}, signed with one of {:?}; needed unless a route says otherwise",
            jwt.algorithms
        );
    }
    for warning in warnings {
        println!("{} {warning}", console::style("note:").yellow());
    }
    println!("{} routes, nothing wrong", routing.routes.len());
    Ok(ExitCode::SUCCESS)
}
