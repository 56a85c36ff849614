//! A git repository behind HTTP and a password: the plain files of a bare repository, which git can fetch from.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

pub(crate) struct Locked {
    pub(crate) address: SocketAddr,
    /// Command lines with the password in them, of any process that ran while a request was answered.
    pub(crate) seen: Arc<Mutex<Vec<String>>>,
    /// Requests with the right password.
    pub(crate) let_in: Arc<AtomicU32>,
}

impl Locked {
    /// Serves the folder as `/config.git` until the test ends.
    pub(crate) fn open(folder: String, user: &'static str, password: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, let_in) = (Arc::<Mutex<Vec<String>>>::default(), Arc::<AtomicU32>::default());
        let key = BASE64_STANDARD.encode(format!("{user}:{password}"));
        let (arguments, count) = (seen.clone(), let_in.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                arguments.lock().unwrap().extend(command_lines(password));
                answer(&stream, &folder, &key, &count);
            }
        });
        Self { address, seen, let_in }
    }
}

fn answer(stream: &TcpStream, folder: &str, key: &str, let_in: &AtomicU32) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let first = lines.next().unwrap_or_default();
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let path =
        first.split([' ', '?']).nth(1).and_then(|it| it.strip_prefix("/config.git/")).unwrap_or_default();
    let (status, body) = if head.iter().all(|line| line.strip_prefix("Authorization: Basic ") != Some(key)) {
        ("401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"git\"", Vec::new())
    } else {
        let_in.fetch_add(1, Ordering::Relaxed);
        match std::fs::read(Path::new(folder).join(path)) {
            Ok(body) => ("200 OK", body),
            Err(_) => ("404 Not Found", Vec::new()),
        }
    };
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let mut stream = stream;
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
}

/// Those that hold the password as it is or percent-encoded; `s3sam` is in both.
fn command_lines(password: &str) -> Vec<String> {
    let plain = password.split(['@', '/', '%']).next().unwrap();
    let of = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).ok();
    let lines = std::fs::read_dir("/proc").unwrap().flatten().filter_map(of);
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(plain))
        .collect()
}
