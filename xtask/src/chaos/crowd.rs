//! The users of a round: most claim once, some click twice at the same time, some ask again and again; and when it is
//! over all of them ask once more.

use std::fs;
use std::path::{Path, PathBuf};

use super::live::Live;
use crate::couponctl::{Couponctl, text};
use anyhow::{Context as _, Result};

/// Most arrive this many at once: so claims are in flight when a fault strikes, however quick the answers are.
const BURST: u64 = 200;
/// Of the claims, in percent: of users who ask once, of double clicks, of users who keep asking.
const ONCE: u64 = 80;
const DOUBLE: u64 = 10;
const AGAIN: u64 = 10;
/// How often each of those who keep asking does.
const TIMES: u64 = 5;
/// Of all users as many as this percentage can win: the sale goes on for about two thirds of the load.
const STOCK: u64 = 65;
/// For what becomes of a claim that was answered PENDING.
const FOLLOW: &str = "30s";
/// Of those who ask once, and when some ask meanwhile. What waits holds its connection.
const CONNECTIONS: &str = "900";
/// When all ask once more, they do it as quickly as they are answered.
const ONCE_MORE_CONNECTIONS: &str = "32";

/// How many claims, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// Claims a second.
    pub(crate) rate: u64,
    pub(crate) seconds: u64,
}

impl Shape {
    fn claims(self, percent: u64) -> u64 {
        self.rate * self.seconds * percent / 100
    }

    /// Users who ask once, who click twice, and who keep asking.
    fn users(self) -> [u64; 3] {
        [self.claims(ONCE), self.claims(DOUBLE) / 2, (self.claims(AGAIN) / TIMES).max(1)]
    }

    pub(crate) fn stock(self) -> u64 {
        self.users().iter().sum::<u64>() * STOCK / 100
    }
}

/// All users with their tokens, in files.
pub(crate) struct Crowd {
    shape: Shape,
    folder: PathBuf,
}

impl Crowd {
    pub(crate) fn gather(shape: Shape, folder: &Path, couponctl: &Couponctl) -> Result<Self> {
        let crowd = Self { shape, folder: folder.to_owned() };
        let all = crowd.file("everybody.csv");
        couponctl.tokens(shape.users().iter().sum(), &all)?;
        let tokens = fs::read_to_string(&all).with_context(|| format!("read {}", all.display()))?;
        let (header, mut lines) = tokens.split_once('\n').context("an empty token file")?;
        for (part, users) in PARTS.into_iter().zip(shape.users()) {
            let end = lines.match_indices('\n').nth(usize::try_from(users)?.saturating_sub(1));
            let (these, rest) = lines.split_at(end.map_or(lines.len(), |(at, _)| at + 1));
            lines = rest;
            crate::state::write_atomically(&crowd.tokens(part), format!("{header}\n{these}").as_bytes())?;
        }
        Ok(crowd)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn tokens(&self, part: &str) -> PathBuf {
        self.file(&format!("{part}.csv"))
    }

    /// The records of the sale.
    pub(crate) fn records(&self) -> Vec<PathBuf> {
        PARTS.map(|part| self.file(&format!("{part}.ndjson"))).to_vec()
    }

    /// That of those who asked again while it went on, if anybody did.
    pub(crate) fn meanwhile(&self) -> Option<PathBuf> {
        Some(self.file(&format!("{MEANWHILE}.ndjson"))).filter(|path| path.exists())
    }

    /// All of them claim, while `meanwhile` goes on.
    pub(crate) fn claim<T>(
        &self,
        coupon: u64,
        couponctl: &Couponctl,
        meanwhile: impl FnOnce(&Live) -> Result<T>,
    ) -> Result<T> {
        let live = Live::follow(self.records())?;
        std::thread::scope(|scope| {
            let loads = PARTS.map(|part| {
                scope.spawn(move || {
                    let arguments = self.arguments(part, coupon);
                    couponctl.load(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
                })
            });
            let result = meanwhile(&live);
            for load in loads {
                load.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            result
        })
    }

    fn arguments(&self, part: &str, coupon: u64) -> Vec<String> {
        let Shape { rate, seconds } = self.shape;
        let share = |percent: u64| (rate * percent).div_ceil(100).max(1).to_string();
        let (rate, more) = match part {
            ONCE_EACH => (share(ONCE), vec!["--connections", CONNECTIONS, "--burst"]),
            TWICE => (share(DOUBLE / 2), vec!["--repeat", "2"]),
            _ => (share(AGAIN), vec!["--reuse-tokens"]),
        };
        let more = more.into_iter().map(str::to_owned);
        let burst = (part == ONCE_EACH).then(|| BURST.to_string());
        let mut arguments = self.common(part, &self.tokens(part), coupon);
        arguments.extend(["--rate", &rate, "--duration", &format!("{seconds}s")].map(str::to_owned));
        arguments.extend(["--follow-pending", FOLLOW].map(str::to_owned));
        arguments.extend(more.chain(burst));
        arguments
    }

    /// Some of those who claim once ask again while the sale goes on. `of`: which of them, in percent, in the order in
    /// which they come.
    pub(crate) fn ask_meanwhile(
        &self,
        coupon: u64,
        couponctl: &Couponctl,
        of: std::ops::Range<usize>,
    ) -> Result<()> {
        let tokens = fs::read_to_string(self.tokens(ONCE_EACH))?;
        let path = self.tokens(MEANWHILE);
        crate::state::write_atomically(&path, some_of(&tokens, of).as_bytes())?;
        let mut arguments = self.common(MEANWHILE, &path, coupon);
        arguments.extend(["--connections", CONNECTIONS].map(str::to_owned));
        couponctl.load(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(())
    }

    /// Everybody asks once more, and again if it has to be; the record of it.
    pub(crate) fn ask_again(&self, coupon: u64, couponctl: &Couponctl, pass: u32) -> Result<PathBuf> {
        let name = format!("again-{pass}");
        let mut arguments = self.common(&name, &self.file("everybody.csv"), coupon);
        arguments.extend(["--connections", ONCE_MORE_CONNECTIONS].map(str::to_owned));
        couponctl.load(&arguments.iter().map(String::as_str).collect::<Vec<_>>())?;
        Ok(self.file(&format!("{name}.ndjson")))
    }

    fn common(&self, name: &str, tokens: &Path, coupon: u64) -> Vec<String> {
        let answers = text(&self.file(&format!("{name}.ndjson")));
        let coupon = coupon.to_string();
        ["--coupon", &coupon, "--tokens", &text(tokens), "--answers", &answers, "--quiet"]
            .map(str::to_owned)
            .to_vec()
    }
}

const ONCE_EACH: &str = "once";
const TWICE: &str = "twice";
const MEANWHILE: &str = "meanwhile";
const PARTS: [&str; 3] = [ONCE_EACH, TWICE, "again-and-again"];

/// The header, and the lines from one share to another, in percent.
fn some_of(tokens: &str, of: std::ops::Range<usize>) -> String {
    let lines: Vec<&str> = tokens.lines().collect();
    let Some((header, users)) = lines.split_first() else { return String::new() };
    let at = |percent: usize| users.len() * percent.min(100) / 100;
    let users = users.get(at(of.start)..at(of.end)).unwrap_or_default();
    std::iter::once(header).chain(users).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_users_ask_again() {
        let tokens = "user,token\n1,a\n2,b\n3,c\n4,d\n5,e\n";
        assert_eq!(some_of(tokens, 40..80), "user,token\n3,c\n4,d\n");
        assert_eq!(some_of(tokens, 0..100), tokens);
        assert_eq!(some_of("user,token\n", 0..50), "user,token\n");
    }

    #[test]
    fn a_thousand_claims_a_second() {
        let shape = Shape { rate: 1_000, seconds: 10 };
        assert_eq!(shape.users(), [8_000, 500, 200]);
        assert_eq!(shape.stock(), 5_655);
        let crowd = Crowd { shape, folder: "/f".into() };
        let of = |part: &str| crowd.arguments(part, 7).join(" ");
        assert_eq!(
            of(ONCE_EACH),
            "--coupon 7 --tokens /f/once.csv --answers /f/once.ndjson --quiet --rate 800 --duration 10s \
             --follow-pending 30s --connections 900 --burst 200"
        );
        assert!(of(TWICE).ends_with("--rate 50 --duration 10s --follow-pending 30s --repeat 2"));
        assert!(of(PARTS[2]).ends_with("--rate 100 --duration 10s --follow-pending 30s --reuse-tokens"));
    }
}
