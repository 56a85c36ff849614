//! The short run: every seed as it is, and changed in ways that do not change from run to run.

use std::path::Path;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

/// Some seconds of a debug build.
const CHANGED: usize = 20_000;
const LONGEST: usize = 4096;

/// What makes the difference in one of the languages, and is seldom found by chance.
const WORDS: [&[u8]; 24] = [
    b"%2e",
    b"%2F",
    b"%25",
    b"/../",
    b"//",
    b";",
    b"\\",
    b"%00",
    b"internal",
    b"actuator",
    b"\n",
    b":",
    b"connection:",
    b"x-user-id:1",
    b"X_Forwarded_For:1",
    b"x-firstcome-identity:x",
    b"\"alg\":\"none\"",
    b"\"exp\":",
    b"{",
    b"}",
    b"  - ",
    b"${a:",
    b"/**",
    b"{*rest}",
];

fn changed(random: &mut StdRng, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut data = seeds.choose(random).cloned().unwrap_or_default();
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=data.len());
        let until = random.random_range(at..=data.len().min(at + 16));
        match random.random_range(0..6) {
            0 => drop(data.drain(at..until)),
            1 => data[at..until].iter_mut().for_each(|byte| *byte ^= 1 << random.random_range(0..8)),
            2 => drop(data.splice(at..at, [random.random()])),
            3 => drop(data.splice(at..until, WORDS.choose(random).copied().unwrap_or_default().to_vec())),
            4 => {
                let again = data[at..until].to_vec();
                drop(data.splice(at..at, again));
            }
            _ => {
                let other = seeds.choose(random).cloned().unwrap_or_default();
                let from = random.random_range(0..=other.len());
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
        }
    }
    data.truncate(LONGEST);
    data
}

fn short_run(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let mut files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let seeds: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    assert!(seeds.len() > 2, "{target} has seeds");
    let mut random = StdRng::seed_from_u64(1);
    let changes = std::iter::repeat_with(|| changed(&mut random, &seeds)).take(CHANGED);
    for data in seeds.iter().cloned().chain(changes) {
        if let Err(panic) = std::panic::catch_unwind(|| run(&data)) {
            eprintln!("{target} fails with {:?}", String::from_utf8_lossy(&data));
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn paths_short_run() {
    short_run("path", super::path::run);
}

#[test]
fn headers_short_run() {
    short_run("headers", super::headers::run);
}

#[test]
fn tokens_short_run() {
    short_run("token", super::token::run);
}

#[test]
fn routes_short_run() {
    short_run("routes", super::routes::run);
}
