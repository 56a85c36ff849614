//! Why operations refuse, for their descriptions.

use platform::http::description::Refusals;
use platform::http::problem::Problem;

use crate::error;
use crate::http::receipt::{Status, example};

/// Of a claim that wins nothing.
#[derive(Debug)]
pub struct NotIssued;

/// Of what can't be said at the moment.
#[derive(Debug)]
pub struct Unavailable;

impl Refusals for NotIssued {
    fn problems() -> Vec<Problem> {
        vec![
            error::already_issued(&example(Status::Issued)),
            error::sold_out(),
            error::not_started(),
            error::ended(),
            error::not_found(),
        ]
    }
}

impl Refusals for Unavailable {
    fn problems() -> Vec<Problem> {
        vec![error::unavailable()]
    }
}
