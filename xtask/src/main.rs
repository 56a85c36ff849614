//! `cargo xtask`: starts, watches, tests and measures the whole system on real servers, without Docker.

mod bench;
mod build;
mod chaos;
mod cli;
mod config_repository;
mod control;
mod couponctl;
mod demo;
mod first_coupon;
mod http;
mod interrupt;
mod logs;
mod ports;
mod process;
mod progress;
mod proxy;
mod secrets;
mod servers;
mod services;
mod stack;
mod state;
mod supervisor;
mod table;
mod test;
mod tools;
mod up;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::control::Request;

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{} {error:#}", console::style("error:").red().bold().for_stderr());
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let ask = |place: &cli::Place, request: Request| -> anyhow::Result<ExitCode> {
        control::ask(&up::folder(place)?, &request)?;
        Ok(ExitCode::SUCCESS)
    };
    match command {
        Command::Child { record, parent, command } => {
            process::become_child(record.as_deref(), parent, &command)?;
            Ok(ExitCode::FAILURE)
        }
        Command::Up(arguments) => up::up(&arguments),
        Command::Status { place, json } => up::status(&up::folder(&place)?, json),
        Command::Down { place } => up::down(&up::folder(&place)?),
        Command::Reset { place } => up::reset(&up::folder(&place)?),
        Command::Restart { name, place } => ask(&place, Request::Restart(name)),
        Command::Kill { name, place } => ask(&place, Request::Kill(name)),
        Command::Scale { target: (name, count), place } => ask(&place, Request::Scale(name, count)),
        Command::Logs { name, follow, place } => logs::print(&up::folder(&place)?, name.as_deref(), follow),
        Command::Demo(arguments) => {
            let interrupt = interrupt::Interrupt::install()?;
            demo::demo(&arguments, &interrupt, &progress::Progress::new())
        }
        Command::Test(arguments) => test::test(&arguments),
        Command::Chaos(arguments) => chaos::chaos(&arguments),
        Command::Bench { what } => bench::bench(what),
    }
}
