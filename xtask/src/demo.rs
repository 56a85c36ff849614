//! `demo`: real users and many more with signed tokens race for a coupon on the running stack; then everything is
//! compared, and a verdict printed. It ends with success only if every promise was kept.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use console::style;
use serde_json::{Value, json};

use crate::cli::{Demo, Place};
use crate::couponctl::{Couponctl, text};
use crate::first_coupon::{admin_token, create, login};
use crate::http::Client;
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::state::Phase;
use crate::{table, up};

/// Sign-ups at a time: hashing passwords takes the user service's processors, not ours.
const AT_ONCE: usize = 8;
const PASSWORD: &str = "first come, first served";

pub(crate) fn defaults(place: &Place) -> Demo {
    Demo {
        place: place.clone(),
        stock: 1_000,
        signups: 200,
        users: 15_000,
        ramp: "20s".to_owned(),
        json: false,
    }
}

pub(crate) fn demo(arguments: &Demo, interrupt: &Interrupt, progress: &Progress) -> Result<ExitCode> {
    let folder = up::folder(&arguments.place)?;
    let state = folder.read_state()?;
    if state.phase != Phase::Ready {
        bail!("the stack is not ready: see `cargo xtask status`");
    }
    let gateway = state.gateway.clone().context("only servers run here: start all by `cargo xtask up`")?;
    let couponctl = Couponctl::new(&state, &folder, interrupt)?;
    let client = Client::new(Duration::from_secs(30));

    let token = admin_token(&client, &state)?;
    let open = Duration::from_secs(24 * 3600);
    let coupon = create(&client, &gateway, &token, "Demo", arguments.stock, open)?;
    progress.note(&format!("coupon {coupon} with a stock of {}", arguments.stock));
    let place = folder.root().join("demo").join(coupon.to_string());
    fs::create_dir_all(&place)?;

    let real = sign_up(arguments.signups, coupon, &client, &gateway, interrupt, progress)?;
    let signed = place.join("signed.csv");
    let step = progress.step("tokens");
    couponctl.tokens(u64::from(arguments.users), &signed)?;
    step.done(&format!("{} more users hold signed tokens", arguments.users));
    let tokens = place.join("tokens.csv");
    let all = merge(&real, &signed, &tokens)?;
    fs::remove_file(signed)?;

    progress.note(&format!("{all} users claim over {}", arguments.ramp));
    let answers = place.join("claims.ndjson");
    let load = couponctl.load(&[
        "--coupon",
        &coupon.to_string(),
        "--tokens",
        &text(&tokens),
        "--ramp",
        &arguments.ramp,
        "--out",
        &text(&place.join("claims.jtl")),
        "--answers",
        &text(&answers),
        "--follow-pending",
        "30s",
    ])?;
    let step = progress.step("audit");
    step.say("waiting until the consumers are level");
    let audit = couponctl.audit(coupon, &[answers], "60s", &[])?;
    step.done("compared");

    let verdict = Verdict::new(arguments.stock, all, &load, &audit);
    let failure = verdict.failure();
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&verdict.json(coupon, &place))?);
    } else {
        println!("{}", verdict.table());
        println!("kept in {}", place.display());
        match &failure {
            Some(what) => println!("{} {what}", style("IT DOES NOT ADD UP:").red().bold()),
            None => println!("{}", style("it adds up").green().bold()),
        }
    }
    Ok(if failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Real accounts, each signed up and logged in over HTTP: lines of the token file.
fn sign_up(
    count: u32,
    coupon: u64,
    client: &Client,
    gateway: &str,
    interrupt: &Interrupt,
    progress: &Progress,
) -> Result<Vec<String>> {
    let step = progress.bar("sign-up", u64::from(count));
    let next = AtomicU32::new(0);
    let lines = Mutex::new(Vec::new());
    let work = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            interrupt.check()?;
            // The coupon's id makes the addresses of each demo new.
            let email = format!("user-{number}.{coupon}@firstcome.example");
            let body = json!({"email": email, "password": PASSWORD});
            let answer =
                client.post(&format!("{gateway}/users/sign-up"), None, &body)?.expect(201, "sign up")?;
            let user = answer["userId"].as_u64().context("no userId in the answer to a sign-up")?;
            let token = login(client, gateway, &email, PASSWORD)?;
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.push(format!("{user},{token}"));
            step.position(u64::try_from(lines.len())?);
            step.say(&format!("{} of {count}", lines.len()));
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<()>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect::<Result<Vec<()>>>()
    })?;
    step.done(&format!("{count} real users signed up and logged in"));
    Ok(lines.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// The real users evenly among the others, so that some of them come first.
fn merge(real: &[String], signed: &Path, tokens: &Path) -> Result<usize> {
    let mut signed = BufReader::new(File::open(signed)?).lines();
    let header = signed.next().context("an empty token file")??;
    let others = signed.collect::<std::io::Result<Vec<String>>>()?;
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(tokens)?;
    let mut output = BufWriter::new(file);
    writeln!(output, "{header}")?;
    for line in interleave(real, &others) {
        writeln!(output, "{line}")?;
    }
    output.flush()?;
    Ok(real.len() + others.len())
}

fn interleave<'a>(few: &'a [String], many: &'a [String]) -> Vec<&'a String> {
    let every = many.len() / few.len().max(1) + 1;
    let mut few = few.iter();
    let mut all = Vec::new();
    for (index, line) in many.iter().enumerate() {
        if index % every == 0 {
            all.extend(few.next());
        }
        all.push(line);
    }
    all.extend(few);
    all
}

/// What must be equal, and what must be zero.
pub(crate) struct Verdict {
    stock: u64,
    users: u64,
    load: Value,
    audit: Value,
}

impl Verdict {
    pub(crate) fn new(stock: u32, users: usize, load: &Value, audit: &Value) -> Self {
        let users = u64::try_from(users).unwrap_or(u64::MAX);
        Self { stock: u64::from(stock), users, load: load.clone(), audit: audit.clone() }
    }

    fn audited(&self, name: &str) -> u64 {
        // A figure that is missing is not a good one.
        self.audit[name].as_u64().unwrap_or(u64::MAX)
    }

    fn loaded(&self, name: &str) -> u64 {
        self.load[name].as_u64().unwrap_or(u64::MAX)
    }

    /// Name, figure, and what it has to be (`None`: anything).
    pub(crate) fn lines(&self) -> Vec<(&'static str, u64, Option<u64>)> {
        let winners = self.stock.min(self.users);
        vec![
            ("claims", self.loaded("requests"), Some(self.users)),
            ("told ISSUED", self.audited("toldIssued"), Some(winners)),
            ("rows", self.audited("rows"), Some(winners)),
            ("told sold out", self.loaded("soldOut"), None),
            ("answered PENDING first", self.loaded("pending"), None),
            ("lost", self.audited("lost"), Some(0)),
            ("duplicates", self.audited("duplicates"), Some(0)),
            ("over-issued", self.audited("overIssued"), Some(0)),
            ("unexplained rows", self.audited("unexplained"), Some(0)),
            ("not sent", self.loaded("errors"), Some(0)),
            ("without an answer", self.loaded("unknown"), Some(0)),
        ]
    }

    pub(crate) fn failure(&self) -> Option<String> {
        let mut wrong: Vec<String> = self
            .lines()
            .into_iter()
            .filter_map(|(name, is, must)| {
                must.filter(|must| is != *must).map(|must| format!("{name} is {is}, not {must}"))
            })
            .collect();
        for check in self.audit["checks"].as_array().into_iter().flatten() {
            if check["verdict"] == "failed" {
                wrong.push(format!(
                    "{} {}: {}",
                    plain(&check["id"]),
                    plain(&check["what"]),
                    plain(&check["compared"])
                ));
            }
        }
        if self.audit["ok"] != true && wrong.is_empty() {
            wrong.push("the audit failed".to_owned());
        }
        (!wrong.is_empty()).then(|| wrong.join("; "))
    }

    /// For scripts; a figure that is not known is null.
    fn json(&self, coupon: u64, place: &Path) -> Value {
        let (load, audit) = (&self.load, &self.audit);
        json!({
            "ok": self.failure().is_none(),
            "failure": self.failure(),
            "coupon": coupon,
            "stock": self.stock,
            "users": self.users,
            "claims": load["requests"],
            "toldIssued": audit["toldIssued"],
            "rows": audit["rows"],
            "soldOut": load["soldOut"],
            "pending": load["pending"],
            "lost": audit["lost"],
            "duplicates": audit["duplicates"],
            "overIssued": audit["overIssued"],
            "unexplained": audit["unexplained"],
            "errors": load["errors"],
            "unknown": load["unknown"],
            "latencyMs": load["latencyMs"],
            "keptIn": place,
        })
    }

    fn table(&self) -> String {
        let mut table = table::new(&["verdict", "", ""]);
        for (name, is, must) in self.lines() {
            let mark = match must {
                Some(must) if must == is => style("ok").green().to_string(),
                Some(must) => style(format!("must be {must}")).red().to_string(),
                None => String::new(),
            };
            let is = if is == u64::MAX { "unknown".to_owned() } else { is.to_string() };
            table.add_row([name.to_owned(), is, mark]);
        }
        let ms = |name: &str| format!("{:.1} ms", self.load["latencyMs"][name].as_f64().unwrap_or(f64::NAN));
        for (name, key) in
            [("latency p50", "p50"), ("latency p90", "p90"), ("latency p99", "p99"), ("latency max", "max")]
        {
            table.add_row([name.to_owned(), ms(key), String::new()]);
        }
        table.to_string()
    }
}

fn plain(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Verdict {
        let load = json!({"requests": 3, "soldOut": 1, "pending": 0, "errors": 0, "unknown": 0, "latencyMs": {"p50": 1.0}});
        let audit = json!({"ok": true, "toldIssued": 2, "rows": 2, "lost": 0, "duplicates": 0, "overIssued": 0,
            "unexplained": 0, "checks": [{"id": "I1", "verdict": "ok"}]});
        Verdict::new(2, 3, &load, &audit)
    }

    #[test]
    fn all_zeros_where_zeros_belong() {
        assert_eq!(good().failure(), None);
    }

    #[test]
    fn a_verdict_for_scripts() {
        let mut verdict = good();
        let shown = verdict.json(7, Path::new("/run/demo/7"));
        assert_eq!(
            shown,
            json!({"ok": true, "failure": null, "coupon": 7, "stock": 2, "users": 3, "claims": 3, "toldIssued": 2,
                "rows": 2, "soldOut": 1, "pending": 0, "lost": 0, "duplicates": 0, "overIssued": 0, "unexplained": 0,
                "errors": 0, "unknown": 0, "latencyMs": {"p50": 1.0}, "keptIn": "/run/demo/7"})
        );
        verdict.audit["lost"] = json!(1);
        let shown = verdict.json(7, Path::new("/run/demo/7"));
        assert_eq!((&shown["ok"], &shown["failure"]), (&json!(false), &json!("lost is 1, not 0")));
    }

    #[test]
    fn each_fault_is_named() {
        let mut verdict = good();
        verdict.audit["lost"] = json!(1);
        assert_eq!(verdict.failure().unwrap(), "lost is 1, not 0");
        let mut verdict = good();
        verdict.audit["rows"] = Value::Null;
        assert!(verdict.failure().unwrap().starts_with("rows is"));
        let mut verdict = good();
        verdict.audit["checks"][0] =
            json!({"id": "I1", "what": "stock", "compared": "3 > 2", "verdict": "failed"});
        assert_eq!(verdict.failure().unwrap(), "I1 stock: 3 > 2");
        let mut verdict = good();
        verdict.audit["ok"] = json!(false);
        assert_eq!(verdict.failure().unwrap(), "the audit failed");
    }

    #[test]
    fn real_users_are_spread() {
        let few: Vec<String> = ["a", "b"].map(str::to_owned).to_vec();
        let many: Vec<String> = (0..5).map(|number| number.to_string()).collect();
        let all: Vec<&str> = interleave(&few, &many).into_iter().map(String::as_str).collect();
        assert_eq!(all, ["a", "0", "1", "2", "b", "3", "4"]);
        assert_eq!(interleave(&few, &[]).len(), 2);
    }
}
