//! Asks the issue service what its ledger says. Invariant: no answer is never taken for a word of the ledger.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::time::Duration;

use platform::http::client::{CallError, ServiceClient};
use serde::Deserialize;

use crate::coupon::CouponId;
use crate::coupon::count::LedgerCoupon;

/// The name in Consul.
pub const ISSUE_SERVICE: &str = "issue-service";
/// Coupons in one question: its URL stays far below every limit on the way.
pub const CHUNK: usize = 100;

/// Reaches the issue service through discovery; without discovery it is always away.
#[derive(Clone)]
pub struct LedgerClient {
    client: Option<ServiceClient>,
    service: &'static str,
}

impl std::fmt::Debug for LedgerClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LedgerClient").field("service", &self.service).finish_non_exhaustive()
    }
}

/// What came of a question.
#[derive(Debug, Default)]
pub struct Answers {
    /// Those that the ledger knows.
    pub known: HashMap<CouponId, LedgerCoupon>,
    /// Those that were answered, known or not.
    pub answered: HashSet<CouponId>,
    /// Why not all were.
    pub error: Option<LedgerError>,
}

/// Why the ledger gave no word.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("service discovery is off")]
    NoDiscovery,
    #[error("the issue service gave no answer: {0}")]
    Call(#[from] CallError),
    #[error(
        "the issue service can't speak for part of its ledger, {0} coupons of those that were asked about"
    )]
    Partly(usize),
}

#[derive(Debug, Deserialize)]
struct Counts {
    items: Vec<LedgerCoupon>,
    /// Of these it can't say anything at the moment.
    #[serde(default)]
    unanswered: Vec<CouponId>,
}

impl LedgerError {
    /// Whether nobody answered at all.
    #[must_use]
    pub fn is_away(&self) -> bool {
        !matches!(self, Self::Partly(_))
    }
}

impl LedgerClient {
    #[must_use]
    pub fn new(client: Option<ServiceClient>, service: &'static str) -> Self {
        Self { client, service }
    }

    /// The ledger's word about one coupon; `None` if it does not know it or is not to be reached.
    pub async fn word(&self, coupon: CouponId, patience: Duration) -> Option<LedgerCoupon> {
        let answers = self.words(&[coupon], patience).await;
        if let Some(error) = answers.error {
            tracing::warn!(coupon.id = coupon.0, error = %error, "going on without the ledger's word");
        }
        answers.known.get(&coupon).copied()
    }

    /// The ledger's words about `coupons`, up to the first question without any answer.
    pub async fn words(&self, coupons: &[CouponId], patience: Duration) -> Answers {
        let mut answers = Answers::default();
        for chunk in coupons.chunks(CHUNK) {
            match self.ask(chunk, patience).await {
                Ok(counts) => {
                    answers.known.extend(counts.items.into_iter().map(|item| (item.coupon_id, item)));
                    answers.answered.extend(chunk.iter().filter(|id| !counts.unanswered.contains(id)));
                    if !counts.unanswered.is_empty() {
                        answers.error = Some(LedgerError::Partly(counts.unanswered.len()));
                    }
                }
                Err(error) => {
                    answers.error = Some(error);
                    break;
                }
            }
        }
        answers
    }

    async fn ask(&self, coupons: &[CouponId], patience: Duration) -> Result<Counts, LedgerError> {
        let client = self.client.as_ref().ok_or(LedgerError::NoDiscovery)?;
        let mut path = String::from("/internal/counts?");
        for coupon in coupons {
            // Writing to a String can't fail.
            let _ = write!(path, "coupon={coupon}&");
        }
        path.pop();
        Ok(client.get_json(self.service, &path, patience).await?)
    }
}
