//! A few logins a second, and what their tokens are worth: a thread, because a login costs a password hash and needs
//! no speed. Each is a connection of its own, by turns to one gateway and the other.

use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::Scene;
use super::samples::Sample;
use crate::first_coupon::unix_ms;
use crate::http::{Answer, Client};

/// Two a second.
const EVERY: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(10);
const EMAIL: &str = "rolling@firstcome.example";
const PASSWORD: &str = "one instance after the other";

pub(super) struct Logins {
    thread: JoinHandle<Result<Vec<Sample>>>,
    stop: Sender<()>,
    signing_key: Arc<Mutex<String>>,
}

impl Logins {
    pub(super) fn begin(scene: &Scene) -> Result<Self> {
        let who = json!({"email": EMAIL, "password": PASSWORD});
        let gateways = scene.gateways.clone();
        let url = format!("{}/users/sign-up", gateways[0]);
        scene.client.post(&url, None, &who)?.expect(201, "sign up")?;
        let (stop, stopped) = mpsc::channel::<()>();
        let signing_key = Arc::<Mutex<String>>::default();
        let last = signing_key.clone();
        let work = move || {
            let mut samples = Vec::new();
            let mut next = Instant::now();
            for turn in 0.. {
                let token = ask(&mut samples, true, &gateways, turn, |client, gateway| {
                    client.post(&format!("{gateway}/users/login"), None, &who)
                })?;
                if let Some(token) = token.as_ref().and_then(|body| body["token"]["accessToken"].as_str()) {
                    *last.lock().unwrap_or_else(PoisonError::into_inner) = key_of(token)?;
                    ask(&mut samples, false, &gateways, turn + 1, |client, gateway| {
                        client.get_as(&format!("{gateway}/users/me"), token)
                    })?;
                }
                next += EVERY;
                let told = stopped.recv_timeout(next.saturating_duration_since(Instant::now()));
                if told != Err(mpsc::RecvTimeoutError::Timeout) {
                    break;
                }
            }
            Ok(samples)
        };
        Ok(Self { thread: std::thread::spawn(work), stop, signing_key })
    }

    /// The key that the last token was signed with.
    pub(super) fn signing_key(&self) -> String {
        self.signing_key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn end(self) -> Result<Vec<Sample>> {
        drop(self.stop);
        self.thread.join().map_err(|_| anyhow!("the logins' thread panicked"))?
    }
}

/// The body of a 200. A gateway that can't be connected to was sent nothing, so the other one is asked.
fn ask(
    samples: &mut Vec<Sample>,
    post: bool,
    gateways: &[String; 2],
    turn: usize,
    send: impl Fn(&Client, &str) -> Result<Answer>,
) -> Result<Option<Value>> {
    let at = unix_ms()?;
    let mut asked = Err(anyhow!("nobody was asked"));
    for turn in [turn, turn + 1] {
        asked = send(&Client::new(TIMEOUT), &gateways[turn % 2]);
        if !asked.as_ref().is_err_and(is_refused) {
            break;
        }
    }
    let method = if post { "POST" } else { "GET" };
    let (fault, body) = match asked {
        Ok(Answer { status: 200, body }) => (None, Some(body)),
        Ok(Answer { status, body }) => (Some(format!("{method} {status} {}", body["code"])), None),
        Err(error) => (Some(format!("{method} {:#}", error.root_cause())), None),
    };
    samples.push(Sample { at, took: unix_ms()?.saturating_sub(at), post, fault });
    Ok(body)
}

fn is_refused(error: &anyhow::Error) -> bool {
    match error.downcast_ref::<ureq::Error>() {
        Some(ureq::Error::Io(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        Some(ureq::Error::ConnectionFailed) => true,
        _ => false,
    }
}

/// Of a JWT's head.
fn key_of(token: &str) -> Result<String> {
    let head = token.split('.').next().unwrap_or_default();
    let head: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(head).context("a token's head")?)?;
    Ok(head["kid"].as_str().context("the token names no key")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_token() {
        let head = URL_SAFE_NO_PAD.encode(br#"{"alg":"EdDSA","kid":"k7"}"#);
        assert_eq!(key_of(&format!("{head}.x.y")).unwrap(), "k7");
        assert!(key_of("x.y").is_err());
    }

    #[test]
    fn who_refuses_a_connection_was_sent_nothing_and_the_other_is_asked() {
        let free = || crate::ports::free(None).unwrap().0;
        let gateways = [0, 1].map(|_| format!("http://127.0.0.1:{}", free()));
        let mut samples = Vec::new();
        let asked = std::cell::RefCell::new(Vec::new());
        let get = |client: &Client, gateway: &str| {
            asked.borrow_mut().push(gateway.to_owned());
            client.get(gateway)
        };
        assert_eq!(ask(&mut samples, false, &gateways, 1, get).unwrap(), None);
        assert_eq!(*asked.borrow(), [gateways[1].clone(), gateways[0].clone()]);
        assert!(samples[0].fault.as_ref().unwrap().starts_with("GET "), "{samples:?}");
    }
}
