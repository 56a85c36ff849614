//! nginx, which the gateway is measured beside.

use anyhow::Result;

use super::Program;
use super::debian::{Release, library_path, unpack};
use super::fetch::{Fetch, advice, on_path};

pub(crate) fn obtain(fetch: &Fetch) -> Result<Program> {
    if let Some(path) = on_path("nginx") {
        return Ok(Program::found(path));
    }
    let gotten = fetch.folder("nginx", "nginx", |folder, step| {
        unpack(fetch, Release::Host, &["nginx"], folder, step)?;
        let mut version = unpacked(folder).command();
        fetch.interrupt.run(version.arg("-v")).map(drop)
    });
    Ok(unpacked(&advice(gotten, "nginx", "Debian, Ubuntu: apt install nginx")?))
}

fn unpacked(root: &std::path::Path) -> Program {
    let environment = vec![("LD_LIBRARY_PATH".to_owned(), library_path(root))];
    Program { path: root.join("usr/sbin/nginx"), leading: Vec::new(), environment }
}
