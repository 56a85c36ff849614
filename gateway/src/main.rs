//! The gateway's process.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use platform::config::Bootstrap;

/// `EX_USAGE` of sysexits.h, as for settings from the config server.
const BAD_SETTINGS: u8 = 64;

const EXAMPLES: &str = "\
Examples:
  # as a part of Firstcome: settings from the config server, instances from Consul
  FIRSTCOME_CONFIG_URL=http://127.0.0.1:8888 gateway
  # on its own, with the routes of a Spring Cloud Gateway; their changes take effect while it runs
  gateway --routes application.yml --port 8080
  gateway --routes application.yml --port 8080 --address 0.0.0.0

Ctrl-C stops it: requests in progress are finished. Exit codes: 0 stopped, 64 settings that can't be used, else 1.";

/// The door of Firstcome: routes, tokens, balancing, limits. Its settings come from the config server, or with --routes
/// from a file alone.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES, max_term_width = 110)]
struct Arguments {
    /// Name of this instance, unique among all; made up if not given
    #[arg(long)]
    instance: Option<String>,
    /// Run on this Spring Cloud Gateway YAML alone, without Consul, config server or tokens where it asks for none; in
    /// our own form, with `routes` at its top, every route asks for a token unless it says otherwise
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,
    /// TCP port, 0 for any free one [default: server.port of the file, else 8080]
    #[arg(long, requires = "routes")]
    port: Option<u16>,
    /// IP address to listen on [default: server.address of the file, else 127.0.0.1]
    #[arg(long, requires = "routes")]
    address: Option<IpAddr>,
}

fn main() -> ExitCode {
    let Arguments { instance, routes, port, address } = Arguments::parse();
    let Some(file) = routes else {
        return platform::lifecycle::run("gateway", Bootstrap::from_env(instance), gateway::app::start);
    };
    match gateway::standalone::settings(&file, address, port) {
        Ok(settings) => {
            platform::lifecycle::run_with_settings("gateway", instance, settings, gateway::app::start)
        }
        Err(unusable) => complain(&unusable.0),
    }
}

#[expect(clippy::print_stderr, reason = "there is no telemetry before there are settings")]
fn complain(problems: &[String]) -> ExitCode {
    for problem in problems {
        eprintln!("gateway: {problem}");
    }
    ExitCode::from(BAD_SETTINGS)
}
