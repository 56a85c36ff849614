//! The loopback ports of a run: kept from the folder's last run, given by the user, well known, or any free one.
//!
//! A port that was given and is taken by somebody else is an error that names it; a kept one moves, and it is said.

use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Context as _, Result, bail};

use crate::state::{Folder, Ports, write_atomically};

/// Below the range from which the kernel takes ports of outgoing connections, so that none of those can sit on a
/// port that a stopped server wants back.
const CHOSEN: std::ops::Range<u16> = 20_000..32_000;

/// Ports that are nice to remember, used when they are free and the run is the user's own.
const WELL_KNOWN: [(&str, u16); 3] = [("gateway", 8080), ("consul", 8500), ("zipkin", 9411)];

/// The name of the port at which a server listens behind its proxy.
pub(crate) fn behind(server: &str) -> String {
    format!("{server}-behind")
}

/// Where a server itself listens. Others may be told a proxy's port, which has the server's name.
pub(crate) fn listens(ports: &Ports, server: &str) -> u16 {
    ports.get(&behind(server)).or_else(|| ports.get(server)).copied().unwrap_or_default()
}

/// Decides a port for each name and writes the choice into the folder.
pub(crate) fn choose(
    folder: &Folder,
    names: &[impl AsRef<str>],
    given: &Ports,
    well_known: bool,
    note: impl Fn(&str),
) -> Result<Ports> {
    let kept: Ports = std::fs::read(folder.ports_file())
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    let names: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    if let Some(unknown) = given.keys().find(|name| !names.contains(&name.as_str())) {
        bail!("--port {unknown}=...: no such port; known are {}", names.join(", "));
    }
    // Listeners stay open until all are chosen, so that no port is chosen twice.
    let mut held = Vec::new();
    let mut ports = Ports::new();
    for name in names {
        let (port, listener) = match (given.get(name), kept.get(name)) {
            (Some(&port), _) => (port, listen(port).with_context(|| taken(name, port))?),
            (None, Some(&port)) => match listen(port) {
                Ok(listener) => (port, listener),
                Err(_) => {
                    let (other, listener) = free(None)?;
                    note(&format!("port {port} of {name} is taken by another program now: {other} instead"));
                    (other, listener)
                }
            },
            (None, None) => free(well_known.then(|| known(name)).flatten())?,
        };
        held.push(listener);
        ports.insert(name.to_owned(), port);
    }
    // What this run does not start keeps its port for the next one.
    let all: Ports = kept.into_iter().chain(ports.clone()).collect();
    write_atomically(&folder.ports_file(), &serde_json::to_vec_pretty(&all)?)?;
    Ok(ports)
}

fn known(name: &str) -> Option<u16> {
    WELL_KNOWN.iter().find(|(known, _)| *known == name).map(|(_, port)| *port)
}

fn taken(name: &str, port: u16) -> String {
    format!(
        "port {port} of {name} is taken by another program: free it, or choose another by --port {name}=PORT"
    )
}

fn listen(port: u16) -> Result<TcpListener> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, port))?)
}

pub(crate) fn free(preferred: Option<u16>) -> Result<(u16, TcpListener)> {
    if let Some(port) = preferred
        && let Ok(listener) = listen(port)
    {
        return Ok((port, listener));
    }
    for _ in 0..1_000 {
        let [high, low] = crate::secrets::random::<2>()?;
        let port = CHOSEN.start + u16::from_be_bytes([high, low]) % (CHOSEN.end - CHOSEN.start);
        if let Ok(listener) = listen(port) {
            return Ok((port, listener));
        }
    }
    bail!("no free port between {} and {}", CHOSEN.start, CHOSEN.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let temporary = tempfile::tempdir().unwrap();
        let folder = Folder::new(temporary.path()).unwrap();
        (temporary, folder)
    }

    #[test]
    fn chosen_once_and_kept() {
        let (_keep, folder) = folder();
        let again = |names: &[&str]| choose(&folder, names, &Ports::new(), false, |_| {}).unwrap();
        // Another program may take one of them in between, and then it moves.
        let kept = (0..10).any(|_| {
            let first = again(&["a", "b"]);
            assert_ne!(first["a"], first["b"]);
            again(&["a"]) == Ports::from([("a".to_owned(), first["a"])]) && again(&["a", "b"]) == first
        });
        assert!(kept);
    }

    #[test]
    fn a_taken_port_is_named() {
        let (_keep, folder) = folder();
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let given = Ports::from([("a".to_owned(), port)]);
        let error = choose(&folder, &["a"], &given, false, |_| {}).unwrap_err().to_string();
        assert!(error.contains(&format!("port {port} of a is taken")), "{error}");
    }

    #[test]
    fn a_kept_port_that_is_taken_moves_and_is_told() {
        // Another program may be quicker to take it.
        let mut tries = (0..10).filter_map(|_| {
            let (keep, folder) = folder();
            let kept = choose(&folder, &["a"], &Ports::new(), false, |_| {}).unwrap();
            let other = TcpListener::bind(("127.0.0.1", kept["a"])).ok()?;
            Some((keep, folder, kept, other))
        });
        let (_keep, folder, kept, _other) = tries.next().unwrap();
        let told = std::cell::RefCell::new(String::new());
        let moved =
            choose(&folder, &["a"], &Ports::new(), false, |text| told.borrow_mut().push_str(text)).unwrap();
        assert_ne!(moved, kept);
        assert!(told.borrow().contains(&format!("port {} of a is taken", kept["a"])));
    }

    #[test]
    fn a_server_behind_a_proxy_listens_elsewhere() {
        let mut ports = Ports::from([("kafka".to_owned(), 1)]);
        assert_eq!(listens(&ports, "kafka"), 1);
        ports.insert(behind("kafka"), 2);
        assert_eq!(listens(&ports, "kafka"), 2);
    }

    #[test]
    fn an_unknown_name_is_refused() {
        let (_keep, folder) = folder();
        let given = Ports::from([("x".to_owned(), 1)]);
        assert!(
            choose(&folder, &["a"], &given, false, |_| {}).unwrap_err().to_string().contains("no such port")
        );
    }
}
