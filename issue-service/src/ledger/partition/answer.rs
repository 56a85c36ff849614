//! What a partition says of users and claims.

use tokio::sync::oneshot;

use super::Turn;
use crate::ledger::{Decision, Winner};

/// How a claim in flight ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// This user has won, and this request is the first here to learn it.
    Issued(Winner),
    /// This user had won already.
    Already(Winner),
    /// The record lost, at the offset that its acknowledgement named.
    Lost(Decision),
    /// The claim has lost, and that refuses nobody who hears this: it was sent before this request, which joined it, had
    /// arrived, or the coupon is retired, which is said of winners, too.
    JoinedALoser,
    /// Not acknowledged: it may or may not be in the log.
    Unknown,
    /// It could not be handed to the producer, so it isn't in the log.
    NotSent,
}

/// What the ledger says of a user and a coupon at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Winner(Winner),
    NoDefinition,
    /// A claim appended now would be refused so.
    Refused {
        version: u64,
        decision: Decision,
    },
    Open {
        stock: u32,
    },
    /// The coupon was retired at this offset and its winners have left memory: only the database knows whether the user
    /// is one of them.
    Evicted {
        retired_at: u64,
    },
    /// The partition has stopped, and the user is not known as a winner.
    Stopped,
}

/// By what right a claim asks to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// The doorman has let it in, or it repeats one that he let in.
    Doorman,
    /// It has waited at the own door and was called.
    Turn,
    None,
}

/// What came of the wish to send a claim.
#[derive(Debug)]
pub enum Entrance<'a> {
    /// Send it: nobody else has one in flight. `attempt` goes with it.
    Send {
        attempt: u64,
        answer: oneshot::Receiver<Answer>,
    },
    /// Another request of this user has one in flight.
    Joined(oneshot::Receiver<Answer>),
    /// As many are in flight as could still win: wait, then look again.
    Wait(Turn<'a>),
    /// The log has not acknowledged anything for a while.
    Stalled,
    Stopped,
}
