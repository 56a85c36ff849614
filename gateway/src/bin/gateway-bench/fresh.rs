//! Tokens that the gateway has never seen: every request pays for a verification.

use std::time::Duration;

use platform::lifecycle::BoxError;
use serde_json::{Value, json};

use crate::client::Requests;
use crate::figures::{median, whole};
use crate::ground::{Ground, WITH_TOKEN, post};
use crate::proxied::{Slice, cpu_micros};
use crate::report::{Part, Progress, Section};
use crate::tokens::{Bare, Kind};

const ROUNDS: usize = 3;
const SLICE: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 64;
/// Tokens of a slice; it ends earlier where the machine is faster.
const TOKENS: usize = 60_000;
/// Bare verifications.
const TIMES: usize = 20_000;
const KINDS: [Kind; 2] = [Kind::Ed25519, Kind::Hs256];
pub(crate) const STEPS: usize = ROUNDS * (1 + 2 * KINDS.len()) + KINDS.len();

pub(crate) fn measure(ground: &Ground, share: u32, progress: &mut Progress) -> Result<Part, BoxError> {
    let repeated = ground.requests("POST", WITH_TOKEN, CONNECTIONS)?;
    let (tokens, times) = (TOKENS / share as usize, TIMES / share as usize);
    let mut bare = Vec::new();
    for kind in KINDS {
        progress.step("bare verifications");
        bare.push(ground.issuer.bare(kind, times)?);
    }
    let (mut known, mut fresh): (Vec<Slice>, [Vec<Slice>; 2]) = Default::default();
    // No user of the first table, so that no token is the same.
    let mut users = 1_000_000;
    for round in 1..=ROUNDS {
        progress.step(&format!("repeated tokens, round {round} of {ROUNDS}"));
        known.push(Slice::take(&ground.gateway, CONNECTIONS, SLICE / share, &repeated)?);
        for (kind, slices) in KINDS.into_iter().zip(&mut fresh) {
            progress.step("signing tokens");
            let requests = (users..users + tokens)
                .map(|user| Ok(post(WITH_TOKEN, Some(&ground.issuer.token(kind, user)?))))
                .collect::<Result<Vec<_>, BoxError>>()?;
            users += tokens;
            progress.step(&format!("never-seen tokens by {}, round {round} of {ROUNDS}", kind.name()));
            slices.push(Slice::take(
                ground.gateway(kind),
                CONNECTIONS,
                SLICE / share,
                &Requests::once(requests),
            )?);
        }
    }
    Ok(part(&known, &fresh, &bare))
}

fn part(known: &[Slice], fresh: &[Vec<Slice>; 2], bare: &[Bare]) -> Part {
    let base = cpu_micros(known);
    let (mut rows, mut figures) = (Vec::new(), Vec::<Value>::new());
    let kinds = std::iter::once(("repeated".to_owned(), known, None)).chain(
        KINDS.into_iter().zip(fresh).zip(bare).map(|((kind, slices), bare)| {
            (format!("never seen, {}", kind.name()), slices.as_slice(), Some(bare))
        }),
    );
    for (kind, slices, bare) in kinds {
        let of = |of: fn(&Slice) -> f64| median(slices.iter().map(of));
        let (rate, p50, p99, cpu) =
            (of(|slice| slice.rate), of(|slice| slice.p50), of(|slice| slice.p99), cpu_micros(slices));
        let micros = |micros: Option<f64>| micros.map_or("-".to_owned(), |micros| format!("{micros:.1}"));
        rows.push(vec![
            kind.clone(),
            whole(rate),
            format!("{p50:.2}"),
            format!("{p99:.2}"),
            format!("{cpu:.1}"),
            micros(bare.map(|_| cpu - base)),
            micros(bare.map(|bare| bare.token)),
            micros(bare.map(|bare| bare.signature)),
        ]);
        figures.push(json!({"tokens": kind, "requestsPerSecond": rate, "p50Ms": p50, "p99Ms": p99, "cpuMicros": cpu,
            "bareTokenMicros": bare.map(|bare| bare.token), "bareSignatureMicros": bare.map(|bare| bare.signature)}));
    }
    let section = Section {
        heading: "Tokens that nobody has seen",
        about: format!(
            "POST on {CONNECTIONS} connections, {ROUNDS} rounds of {} s of each, in turn; every token is sent once. Beside \
             it the bare verification of one token on one core, {TIMES} times: by the gateway's rules (header and claims \
             read, signature, issuer, audience), and of it the signature alone. Above that a new token costs its place \
             among the remembered ones and a new signed identity for the service.",
            SLICE.as_secs()
        ),
        columns: vec![
            "tokens",
            "requests/s",
            "p50 ms",
            "p99 ms",
            "CPU µs a request",
            "more than repeated, µs",
            "bare verification, µs",
            "bare signature, µs",
        ],
        rows,
    };
    Part { section, checks: Vec::new(), figures: Value::Array(figures) }
}
