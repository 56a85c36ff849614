//! I7: winners ask again, and must get the same receipt.

use std::time::Duration;

use anyhow::Result;
use rand::seq::{IteratorRandom as _, SliceRandom as _};

use super::{Sources, api};
use crate::csv::Tokens;
use crate::index::{Row, of_user};
use crate::load::client::Connection;
use crate::state::State;
use crate::tokens;
use crate::verdict::{Check, Offender};

const WHAT: &str = "winners who ask again get it";
/// Long enough for the questions of one audit.
const TOKEN_TTL: Duration = Duration::from_secs(300);

/// Asks for a random sample of those with a row or with a receipt, `count` of them at most.
pub(crate) async fn ask(
    sources: &Sources,
    state: &State,
    coupon: u64,
    winners: &[u64],
    rows: &[Row],
    count: usize,
) -> Result<Check> {
    let Some(target) = &sources.api else { return Ok(Check::not_judged("I7", WHAT, "no gateway given")) };
    let Some(sample) = sample(sources.tokens.as_ref(), state, winners, count)? else {
        return Ok(Check::not_judged("I7", WHAT, "no tokens and no signing key given"));
    };
    if sample.is_empty() {
        return Ok(Check::not_judged("I7", WHAT, "there is no winner to ask for"));
    }
    let mut connection = Connection::default();
    let mut offenders = Vec::new();
    for (user, token) in &sample {
        let row = of_user(rows, *user).first();
        if let Some(problem) = api::ask_again(&mut connection, target, coupon, *user, row, token).await {
            offenders.push(Offender::user(*user, problem));
        }
    }
    Ok(Check::of(
        "I7",
        WHAT,
        format!("{} of {} winners, status and claim", sample.len(), winners.len()),
        offenders,
    ))
}

/// A user with a token.
type Asker = (u64, Vec<u8>);

/// Who asks; `None` without any means to have tokens.
fn sample(
    tokens: Option<&Tokens>,
    state: &State,
    winners: &[u64],
    count: usize,
) -> Result<Option<Vec<Asker>>> {
    let mut random = rand::rng();
    if let Some(tokens) = tokens {
        let known = tokens.iter().filter(|(user, _)| winners.binary_search(user).is_ok());
        let chosen = known.choose_multiple(&mut random, count);
        return Ok(Some(chosen.into_iter().map(|(user, token)| (user, token.to_vec())).collect()));
    }
    let Some(signer) = tokens::stack_signer(state, TOKEN_TTL)? else { return Ok(None) };
    let mut chosen = winners.to_vec();
    chosen.shuffle(&mut random);
    chosen.truncate(count);
    let signed = chosen.into_iter().map(|user| {
        let mut token = Vec::new();
        signer.token(user, &mut random, &mut token);
        (user, token)
    });
    Ok(Some(signed.collect()))
}
