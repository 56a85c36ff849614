//! What all connections of a run share, and its clock.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::answers::Record;
use super::jtl::Jtl;
use super::shape::Plan;
use super::tally::Live;
use super::target::{Request, Target};
use crate::clock;
use crate::csv::Tokens;

/// All that a run needs; shared by its threads.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) target: Target,
    pub(crate) request: Request,
    pub(crate) url: String,
    /// Answers are judged as those to a claim.
    pub(crate) claim: bool,
    pub(crate) tokens: Tokens,
    pub(crate) plan: Plan,
    pub(crate) timeout: Duration,
    pub(crate) fresh_connections: bool,
    pub(crate) record: Option<Record>,
    pub(crate) jtl: Option<Jtl>,
    pub(crate) follow: Option<(Duration, Request)>,
    pub(crate) live: Live,
    /// No attempt begins after this.
    pub(crate) stop: CancellationToken,
    pub(crate) started: Instant,
    /// Wall time was read after `before` and before `started`.
    before: Instant,
    wall: Duration,
    failure: Mutex<Option<anyhow::Error>>,
}

/// The parts of a run that have defaults.
#[derive(Debug)]
pub(crate) struct Setup<'a> {
    pub(crate) target: Target,
    pub(crate) request: Request,
    pub(crate) path: &'a str,
    pub(crate) claim: bool,
    pub(crate) tokens: Tokens,
    pub(crate) plan: Plan,
    pub(crate) timeout: Duration,
    pub(crate) fresh_connections: bool,
    pub(crate) answers: Option<(&'a Path, u64)>,
    pub(crate) out: Option<&'a Path>,
    pub(crate) follow: Option<(Duration, Request)>,
}

impl Run {
    pub(crate) fn new(setup: Setup<'_>) -> Result<Self> {
        let record = setup
            .answers
            .map(|(path, coupon)| Record::create(path, coupon, &setup.target.authority, clock::now_ms()))
            .transpose()?;
        let jtl = setup.out.map(Jtl::create).transpose()?;
        let (before, wall, started) = (Instant::now(), clock::now(), Instant::now());
        Ok(Self {
            url: format!("http://{}{}", setup.target.authority, setup.path),
            target: setup.target,
            request: setup.request,
            claim: setup.claim,
            tokens: setup.tokens,
            plan: setup.plan,
            timeout: setup.timeout,
            fresh_connections: setup.fresh_connections,
            record,
            jtl,
            follow: setup.follow,
            live: Live::default(),
            stop: CancellationToken::new(),
            started,
            before,
            wall,
            failure: Mutex::new(None),
        })
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The last unix millisecond that was not after a moment of this run; steps of the system's clock do not reach it.
    pub(crate) fn unix_ms(&self, at: Instant) -> u64 {
        clock::whole_ms(self.wall + at.saturating_duration_since(self.started))
    }

    /// The first that was not before it. With the other one, what came after a recorded moment is provable.
    pub(crate) fn unix_ms_after(&self, at: Instant) -> u64 {
        let since = self.wall + at.saturating_duration_since(self.before);
        clock::whole_ms(since + Duration::from_nanos(999_999))
    }

    /// Ends the run: what was promised to the record can't be kept.
    pub(crate) fn fail(&self, error: anyhow::Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.stop.cancel();
    }

    pub(crate) fn take_failure(&self) -> Option<anyhow::Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
