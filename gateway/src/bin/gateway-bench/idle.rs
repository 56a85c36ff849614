//! What connections weigh on which nothing happens.

use std::net::TcpStream;
use std::time::Duration;

use platform::lifecycle::BoxError;
use serde_json::{Value, json};

use crate::client::ask;
use crate::ground::{Ground, WITH_TOKEN};
use crate::report::{Check, Part, Progress, Section};

const CONNECTIONS: usize = 10_000;
const MOST_MIB: f64 = 40.0;
/// Freed memory goes back to the system every 5 s.
const REST: Duration = Duration::from_secs(11);
pub(crate) const STEPS: usize = 2;

pub(crate) fn measure(ground: &mut Ground, progress: &mut Progress) -> Result<Part, BoxError> {
    ground.restart_gateway(&json!({"max-connections": 2 * CONNECTIONS}))?;
    let request = ground.post(1)?;
    let (mut rows, mut figures, mut checks) = (Vec::new(), Vec::<Value>::new(), Vec::new());
    for (name, server) in [("gateway", &ground.gateway), ("nginx", &ground.nginx)] {
        progress.step(&format!("{CONNECTIONS} idle connections: {name}"));
        let before = mib(server.resident()?);
        let open = (0..CONNECTIONS).map(|_| ask(server.address, &request)).collect::<Result<Vec<_>, _>>()?;
        let at_once = mib(server.resident()?);
        std::thread::sleep(REST);
        let after = mib(server.resident()?);
        // Who was cut holds nothing.
        let alive = open.iter().filter(|stream| is_open(stream)).count();
        if alive < CONNECTIONS {
            return Err(format!("{name} has closed {} idle connections", CONNECTIONS - alive).into());
        }
        let each = (after - before) * 1024.0 / CONNECTIONS as f64;
        rows.push(vec![
            name.to_owned(),
            format!("{before:.1}"),
            format!("{at_once:.1}"),
            format!("{after:.1}"),
            format!("{each:.1}"),
        ]);
        figures
            .push(json!({"who": name, "connections": CONNECTIONS, "mibBefore": before, "mibAtOnce": at_once,
            "mibAfter": after}));
        if name == "gateway" {
            checks.push(Check {
                what: format!("memory with {CONNECTIONS} idle connections"),
                is: format!("{after:.1} MiB"),
                must: format!("below {MOST_MIB} MiB"),
                ok: after < MOST_MIB,
            });
        }
    }
    let section = Section {
        heading: "Idle connections",
        about: format!(
            "A fresh gateway; {CONNECTIONS} connections are opened, each has one request to `{WITH_TOKEN}` answered, and \
             stays. Resident memory before, right after the last answer, and {} s later; of nginx, whose processes share \
             some of it, the sum.",
            REST.as_secs()
        ),
        columns: vec!["who", "before, MiB", "at once, MiB", "at rest, MiB", "a connection, KiB"],
        rows,
    };
    Ok(Part { section, checks, figures: Value::Array(figures) })
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn is_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    let looked = stream.set_nonblocking(true).and_then(|()| stream.peek(&mut byte));
    matches!(looked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}
