//! Everything about one coupon: gathered, compared, and put into a report.

use anyhow::{Result, bail};
use serde::Serialize;

use super::checks::{self, by_user};
use super::history::History;
use super::live::Live;
use super::promises::Promises;
use super::record::Record;
use super::{Args, Sources, again, api};
use crate::compare;
use crate::index::{Coupon, Row};
use crate::load::target::Target;
use crate::state::State;
use crate::terminal::grouped;
use crate::verdict::{Check, Verdict};

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) coupon: u64,
    pub(crate) ok: bool,
    pub(crate) stock: Option<u64>,
    pub(crate) rows: u64,
    /// Users who hold a receipt, by the record of answers.
    pub(crate) told_issued: u64,
    /// Of these, without a row.
    pub(crate) lost: u64,
    /// Rows beyond the first of a user.
    pub(crate) duplicates: u64,
    pub(crate) over_issued: u64,
    /// Rows of users who were not told so and have nothing open.
    pub(crate) unexplained: u64,
    /// Rows of users whose claim was pending or unanswered to the end; no fault.
    pub(crate) unheard: u64,
    pub(crate) attempts: u64,
    pub(crate) pending: u64,
    pub(crate) unknown: u64,
    pub(crate) checks: Vec<Check>,
}

/// What is known of a coupon before anybody else is asked.
pub(crate) struct Subject<'a> {
    pub(crate) id: u64,
    pub(crate) coupon: Option<&'a Coupon>,
    pub(crate) rows: Vec<Row>,
    /// What users were told, where that is known.
    pub(crate) record: Option<&'a Record>,
    /// What the log says, or why it says nothing; `None` without a replay.
    pub(crate) log: Option<Result<&'a History, String>>,
    /// How many winners ask again.
    pub(crate) sample: usize,
}

impl Subject<'_> {
    pub(crate) async fn audit(
        &self,
        args: &Args,
        state: &State,
        sources: &Sources,
        live: &mut Live<'_>,
    ) -> Result<Report> {
        if !self.is_known(sources.api.as_ref()).await {
            let id = self.id;
            bail!(
                "--coupon {id}: nobody knows it, neither the tables nor log, record or API, as far as given"
            );
        }
        let (users, rows): (Vec<u64>, _) =
            (by_user(&self.rows).map(|rows| rows[0].user).collect(), self.rows.len() as u64);
        let shown = match &sources.api {
            Some(target) => Some(live.shown(target, self.id, rows).await?),
            None => None,
        };
        let set = match &sources.redis {
            Some(redis) => Some(live.set(redis, self.id, &users, rows).await?),
            None => None,
        };
        let history = self.log.as_ref().and_then(|log| log.as_ref().ok().copied());
        let nothing = Record::default();
        let promises = Promises {
            record: self.record.unwrap_or(&nothing),
            rows: &self.rows,
            definition: self.coupon.map(|coupon| &coupon.definition),
            history,
            tolerance: crate::clock::whole_ms(args.clock_tolerance),
        };
        let mut list = Vec::new();
        if self.record.is_some() {
            list.extend([promises.told_have_rows(), promises.receipts_are_right()]);
        }
        let highest = history.map(|history| history.highest_stock);
        list.push(checks::within_stock(&self.rows, self.coupon, highest));
        list.push(checks::once_each(&self.rows));
        list.push(checks::places_in_line(&self.rows));
        list.push(checks::counts_agree(&self.rows, self.coupon, shown.as_ref()));
        list.push(checks::doorman_agrees(&self.rows, set.as_ref(), args.redis_may_differ));
        list.push(promises.no_slot_leaked(args.stock_changed));
        if self.record.is_some() {
            list.push(promises.sold_out_means_gone(args.stock_changed));
            list.push(promises.noes_were_true());
            list.push(promises.rows_are_explained(args.partial));
            list.push(promises.receipts_are_the_same());
            list.push(promises.no_winner_refused());
        }
        let winners = winners(users, &promises);
        list.push(again::ask(sources, state, self.id, &winners, &self.rows, self.sample).await?);
        list.push(self.rows_are_the_logs());
        Ok(self.report(&promises, list))
    }

    /// I8: replaying the log from its start gives exactly the rows.
    fn rows_are_the_logs(&self) -> Check {
        const WHAT: &str = "rows are the winners of the log";
        match &self.log {
            None => Check::not_judged("I8", WHAT, "the log was not read (--replay)"),
            Some(Err(why)) => Check::new("I8", WHAT, why.clone(), false),
            Some(Ok(history)) => {
                let (won, rows) = (history.winners.len() as u64, self.rows.len() as u64);
                let compared = format!("{} winners, {} rows", grouped(won), grouped(rows));
                Check::of("I8", WHAT, compared, compare::rows(&history.winners, &self.rows))
            }
        }
    }

    fn report(&self, promises: &Promises<'_>, checks: Vec<Check>) -> Report {
        let unexplained = checks.iter().find(|check| check.id == "A");
        let rows = self.rows.len() as u64;
        let users = by_user(&self.rows).count() as u64;
        let stock = self.coupon.map(|coupon| coupon.definition.stock);
        let record = promises.record;
        let told: Vec<u64> = record.winners().collect();
        let lost = told.iter().filter(|user| crate::index::of_user(&self.rows, **user).is_empty());
        Report {
            coupon: self.id,
            ok: checks.iter().all(|check| check.verdict != Verdict::Failed),
            stock,
            rows,
            told_issued: told.len() as u64,
            lost: lost.count() as u64,
            duplicates: rows - users,
            over_issued: rows.saturating_sub(stock.unwrap_or(0)),
            unexplained: unexplained.map_or(0, |check| check.offenders.len() as u64),
            unheard: promises.unheard(),
            attempts: record.attempts,
            pending: record.pending,
            unknown: record.unknown,
            checks,
        }
    }

    /// Whether anybody has heard of such a coupon.
    async fn is_known(&self, target: Option<&Target>) -> bool {
        let by_log = self.log.as_ref().is_some_and(|log| log.as_ref().map_or(true, |log| log.is_defined()));
        if by_log || self.coupon.is_some() || !self.rows.is_empty() || self.record.is_some() {
            return true;
        }
        match target {
            Some(target) => api::issued(target, self.id).await.is_ok(),
            None => false,
        }
    }
}

/// Those with a row or with a receipt.
fn winners(mut winners: Vec<u64>, promises: &Promises<'_>) -> Vec<u64> {
    winners.extend(promises.record.winners());
    winners.sort_unstable();
    winners.dedup();
    winners
}
