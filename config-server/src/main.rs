//! The configuration server's process: arguments here, everything else in the library. It is the one service that
//! can't ask a configuration server for its settings.

use std::process::ExitCode;

use clap::Parser as _;
use config_server::config::{Arguments, BAD_SETTINGS};

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no errors.
            let code = if error.use_stderr() { BAD_SETTINGS } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match arguments.settings() {
        Ok(settings) => platform::lifecycle::run_with_settings(
            config_server::SERVICE,
            arguments.instance,
            settings,
            config_server::start,
        ),
        Err(problem) => complain(&problem),
    }
}

#[expect(clippy::print_stderr, reason = "there is no telemetry before there are settings")]
fn complain(problem: &str) -> ExitCode {
    eprintln!("{}: {problem}", config_server::SERVICE);
    ExitCode::from(BAD_SETTINGS)
}
