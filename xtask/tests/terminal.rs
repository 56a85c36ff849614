//! Colours are for terminals: standard error has none when only standard output is one.

use std::process::{Command, Stdio};

use nix::pty::openpty;

#[test]
fn an_error_in_a_file_has_no_colours() {
    let folder = tempfile::tempdir().unwrap();
    let terminal = openpty(None, None).unwrap();
    let xtask = |error: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(["status", "--dir"]).arg(folder.path().join("none")).env("TERM", "xterm");
        command.env_remove("NO_COLOR").env_remove("CLICOLOR").env_remove("CLICOLOR_FORCE");
        command.stdout(Stdio::from(terminal.slave.try_clone().unwrap())).stderr(error);
        command.spawn().unwrap().wait_with_output().unwrap()
    };
    let output = xtask(Stdio::piped());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("error: nothing was started in "), "{text:?}");

    // On the terminal the same line has them.
    xtask(Stdio::from(terminal.slave.try_clone().unwrap()));
    let mut shown = String::new();
    while !shown.contains('\n') {
        let mut some = [0; 4096];
        let length = nix::unistd::read(&terminal.master, &mut some).unwrap();
        shown.push_str(&String::from_utf8_lossy(&some[..length]));
    }
    assert!(shown.contains("\u{1b}[") && shown.contains("error:"), "{shown:?}");
}
