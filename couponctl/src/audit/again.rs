//! I7: winners ask again, and must get the same receipt.

use std::time::Duration;

use anyhow::Result;
use rand::seq::{IteratorRandom as _, SliceRandom as _};

use super::Args;
use super::api;
use super::record::Answers;
use super::rows::Row;
use super::verdict::{Check, Offender};
use crate::csv::Tokens;
use crate::load::client::Connection;
use crate::load::target::Target;
use crate::state::State;
use crate::tokens;

const WHAT: &str = "winners who ask again get it";
/// Long enough for the questions of one audit.
const TOKEN_TTL: Duration = Duration::from_secs(300);

/// Asks for a random sample of those with a row or with a receipt.
pub(crate) async fn ask(
    args: &Args,
    state: &State,
    target: Option<&Target>,
    rows: &[Row],
    answers: &Answers,
) -> Result<Check> {
    let Some(target) = target else { return Ok(Check::not_judged("I7", WHAT, "no gateway given")) };
    let winners = winners(rows, answers);
    let Some(sample) = sample(args, state, &winners)? else {
        return Ok(Check::not_judged("I7", WHAT, "no tokens and no signing key given"));
    };
    if sample.is_empty() {
        return Ok(Check::not_judged("I7", WHAT, "there is no winner to ask for"));
    }
    let mut connection = Connection::default();
    let mut offenders = Vec::new();
    for (user, token) in &sample {
        if let Some(problem) = api::ask_again(&mut connection, target, args.coupon, *user, token).await {
            offenders.push(Offender { user: *user, problem });
        }
    }
    Ok(Check::of(
        "I7",
        WHAT,
        format!("{} of {} winners, claim and status", sample.len(), winners.len()),
        offenders,
    ))
}

fn winners(rows: &[Row], answers: &Answers) -> Vec<u64> {
    let mut winners: Vec<u64> = rows.iter().map(|row| row.user).collect();
    winners.extend(answers.winners().map(|(user, _)| user));
    winners.sort_unstable();
    winners.dedup();
    winners
}

/// A user with a token.
type Asker = (u64, Vec<u8>);

/// Who asks; `None` without any means to have tokens.
fn sample(args: &Args, state: &State, winners: &[u64]) -> Result<Option<Vec<Asker>>> {
    let mut random = rand::rng();
    if let Some(file) = &args.tokens {
        let tokens = Tokens::read(file, None)?;
        let known = tokens.iter().filter(|(user, _)| winners.binary_search(user).is_ok());
        let chosen = known.choose_multiple(&mut random, args.sample);
        return Ok(Some(chosen.into_iter().map(|(user, token)| (user, token.to_vec())).collect()));
    }
    let Some(signer) = tokens::stack_signer(state, TOKEN_TTL)? else { return Ok(None) };
    let mut chosen = winners.to_vec();
    chosen.shuffle(&mut random);
    chosen.truncate(args.sample);
    let signed = chosen.into_iter().map(|user| {
        let mut token = Vec::new();
        signer.token(user, &mut random, &mut token);
        (user, token)
    });
    Ok(Some(signed.collect()))
}
