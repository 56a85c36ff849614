//! The load: four kinds of requests by the operator's tool, through both gateways, and logins.
//!
//! Arrivals are open: they come at their rate, whatever becomes of those before them. Each connection goes to one
//! gateway and on to the other one when that says goodbye or can't be connected to, as behind a balancer.

use std::path::PathBuf;

use anyhow::{Result, bail};

use super::Scene;
use super::logins::Logins;
use super::samples::{self, Sample};
use crate::couponctl::{Running, text};

/// Longer than all steps; it is stopped before.
const SECONDS: u64 = 300;
/// Of each kind. Few enough that each is used several times within the half second (`drain-delay`) in which a gateway
/// that leaves says so in its answers.
const CONNECTIONS: &str = "64";

struct Kind {
    name: &'static str,
    /// Of all requests.
    percent: u64,
}

/// Each user claims once.
const CLAIMS: Kind = Kind { name: "claims", percent: 30 };
const COUPON: Kind = Kind { name: "coupon", percent: 40 };
const MINE: Kind = Kind { name: "mine", percent: 20 };
const KEY_SET: Kind = Kind { name: "key-set", percent: 10 };

pub(super) struct Traffic {
    loads: Vec<(Running, PathBuf, bool)>,
    claims: PathBuf,
    logins: Logins,
}

/// What it came to.
pub(super) struct Answers {
    pub(super) samples: Vec<Sample>,
    /// Requests for which one gateway had no connection, so that they were sent by way of the other one.
    pub(super) elsewhere: u64,
    /// The record of the claims, for the audit.
    pub(super) claims: PathBuf,
}

impl Traffic {
    pub(super) fn begin(scene: &Scene) -> Result<Self> {
        let file = |name: &str| scene.records.join(name);
        let (tokens, claims) = (file("tokens.csv"), file("claims.ndjson"));
        let rate = |kind: &Kind| (scene.rate * kind.percent / 100).max(1);
        scene.couponctl.tokens(rate(&CLAIMS) * SECONDS, &tokens)?;
        let logins = Logins::begin(scene)?;
        let coupon = scene.coupon.to_string();
        let [tokens, record] = [text(&tokens), text(&claims)];
        let coupon_path = format!("/coupons/{coupon}");
        let reading = |path| vec!["--method", "GET", "--reuse-tokens", "--path", path];
        let mut loads = Vec::new();
        for (kind, what) in [
            (CLAIMS, vec!["--coupon", &coupon, "--answers", &record]),
            (COUPON, reading(&coupon_path)),
            (MINE, reading("/coupon-issues/me")),
            (KEY_SET, reading("/.well-known/jwks.json")),
        ] {
            let out = file(&format!("{}.jtl", kind.name));
            let (rate, seconds, to) = (rate(&kind).to_string(), format!("{SECONDS}s"), text(&out));
            let shape = ["--rate", &rate, "--duration", &seconds, "--connections", CONNECTIONS];
            let [one, other] = &scene.gateways;
            let files = ["--tokens", &tokens, "--out", &to, "--gateway", one, "--gateway", other];
            let arguments = [&shape[..], &files, &what].concat();
            loads.push((scene.couponctl.begin_load(&arguments)?, out, kind.name == CLAIMS.name));
        }
        scene.load_begins(loads.iter().map(|(_, out, _)| out))?;
        Ok(Self { loads, claims, logins })
    }

    /// The key that the last login's token was signed with.
    pub(super) fn signing_key(&self) -> String {
        self.logins.signing_key()
    }

    pub(super) fn end(self) -> Result<Answers> {
        let mut answers = Answers { samples: self.logins.end()?, elsewhere: 0, claims: self.claims };
        for (load, out, post) in self.loads {
            let report = load.stop()?;
            if report["stopped"] != true {
                bail!("the load of {SECONDS} s ended before the last step did");
            }
            answers.elsewhere += report["elsewhere"].as_u64().unwrap_or_default();
            answers.samples.extend(samples::read(&out, post)?);
        }
        Ok(answers)
    }
}
