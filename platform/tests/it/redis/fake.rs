//! A Sentinel that says what a test has it say. It speaks just enough of the protocol to be asked and listened to.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::server::MASTER;

#[derive(Default)]
struct State {
    /// Address and config-epoch of the master; none is known at first.
    says: Mutex<Option<(String, u64)>>,
    /// Reads and answers nothing.
    mute: AtomicBool,
    slow: AtomicBool,
    asked: AtomicUsize,
    connections: AtomicUsize,
    subscribers: Mutex<Vec<TcpStream>>,
}

pub(super) struct FakeSentinel {
    pub(super) address: String,
    state: Arc<State>,
}

impl FakeSentinel {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State::default());
        let served = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let served = served.clone();
                served.connections.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || served.serve(stream.unwrap()));
            }
        });
        Self { address, state }
    }

    pub(super) fn naming(address: &str, config_epoch: u64) -> Self {
        let sentinel = Self::start();
        sentinel.say(address, config_epoch);
        sentinel
    }

    pub(super) fn say(&self, address: &str, config_epoch: u64) {
        *self.state.says.lock().unwrap() = Some((address.to_owned(), config_epoch));
    }

    /// Tells everybody who listens that a master was switched, which need not be so.
    pub(super) fn announce(&self, master: &str) {
        let message = format!("{master} 127.0.0.1 1 127.0.0.1 2");
        let push = format!(">3\r\n+message\r\n+{CHANNEL}\r\n${}\r\n{message}\r\n", message.len());
        for mut subscriber in self.state.subscribers.lock().unwrap().iter() {
            // Who has gone is not told.
            let _ = subscriber.write_all(push.as_bytes());
        }
    }

    pub(super) fn fall_silent(&self) {
        self.state.mute.store(true, Ordering::SeqCst);
    }

    pub(super) fn answer_slowly(&self) {
        self.state.slow.store(true, Ordering::SeqCst);
    }

    pub(super) fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }

    pub(super) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

const CHANNEL: &str = "+switch-master";

impl State {
    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Some(command) = read_command(&mut reader) {
            if self.mute.load(Ordering::SeqCst) {
                continue;
            }
            if self.slow.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(20));
            }
            let words: Vec<&str> = command.iter().map(String::as_str).collect();
            let answer = match words.as_slice() {
                ["HELLO", ..] => "%1\r\n+server\r\n+redis\r\n".to_owned(),
                ["CLIENT", ..] => "+OK\r\n".to_owned(),
                ["SUBSCRIBE", CHANNEL] => format!(">3\r\n+subscribe\r\n+{CHANNEL}\r\n:1\r\n"),
                ["SENTINEL", "MASTER", name] => self.describe(name),
                ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", name] => self.address(name),
                _ => "-ERR not known here\r\n".to_owned(),
            };
            // Messages are written by another thread.
            let mut subscribers = self.subscribers.lock().unwrap();
            if words[0] == "SUBSCRIBE" {
                subscribers.push(stream.try_clone().unwrap());
            }
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    fn describe(&self, name: &str) -> String {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match &*self.says.lock().unwrap() {
            Some((_, epoch)) if name == MASTER => {
                format!("%2\r\n+name\r\n+{MASTER}\r\n+config-epoch\r\n+{epoch}\r\n")
            }
            _ => "-ERR No such master with that name\r\n".to_owned(),
        }
    }

    fn address(&self, name: &str) -> String {
        match &*self.says.lock().unwrap() {
            Some((address, _)) if name == MASTER => {
                let (host, port) = address.rsplit_once(':').unwrap();
                format!("*2\r\n+{host}\r\n+{port}\r\n")
            }
            _ => "_\r\n".to_owned(),
        }
    }
}

/// None at the end of the connection.
fn read_command(reader: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let words = read_number(reader, '*')?;
    (0..words).map(|_| read_word(reader)).collect()
}

fn read_word(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut word = vec![0; read_number(reader, '$')? + 2];
    reader.read_exact(&mut word).ok()?;
    word.truncate(word.len() - 2);
    String::from_utf8(word).ok()
}

fn read_number(reader: &mut BufReader<TcpStream>, sign: char) -> Option<usize> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    line.trim_end().strip_prefix(sign)?.parse().ok()
}
