//! A coupon and its crowd: they claim, they ask once more, and everything is compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::Value;

use super::check::{ALARMS, Evidence, Promises};
use super::crowd::{Crowd, Shape};
use super::live::Live;
use super::metrics::Metrics;
use super::record::{Record, Said};
use super::site::Expected;
use super::stage::Stage;
use super::whole;
use crate::first_coupon::create;

const OPEN: Duration = Duration::from_secs(24 * 3600);
/// How often everybody asks once more until all have a final answer. Between two times the stack has a moment.
const PASSES: u32 = 5;
const BETWEEN_PASSES: Duration = Duration::from_secs(3);

pub(crate) struct Sale<'a> {
    pub(crate) coupon: u64,
    pub(crate) stock: u64,
    /// When it began.
    pub(crate) before: Metrics,
    stage: &'a Stage,
    crowd: Crowd,
    /// Of those who asked once more.
    again: Vec<PathBuf>,
}

/// What was found in the end.
pub(crate) struct Found {
    pub(crate) audit: Value,
    pub(crate) promises: Promises,
    pub(crate) broken: Vec<String>,
}

impl<'a> Sale<'a> {
    /// In a folder of its own, on a stack that is whole.
    pub(crate) fn open(stage: &'a Stage, shape: Shape, folder: &Path, name: &str) -> Result<Self> {
        if folder.exists() {
            fs::remove_dir_all(folder)?;
        }
        fs::create_dir_all(folder)?;
        let crowd = Crowd::gather(shape, folder, &stage.couponctl)?;
        if let Err(missing) = whole::wait(&stage.stack, whole::PATIENCE)? {
            bail!("the stack is not whole: {missing}");
        }
        let stock = shape.stock();
        let quantity = u32::try_from(stock)?;
        let make = || create(&stage.client, &stage.gateway, &stage.admin_token()?, name, quantity, OPEN);
        // Services notice a moment later that their database was away, and are not found for another moment.
        let deadline = Instant::now() + whole::PATIENCE;
        let coupon = stage.stack.interrupt.wait_until(|| match make() {
            Err(_) if Instant::now() < deadline => None,
            made => Some(made),
        })??;
        let before = Metrics::read_all(&stage.stack)?;
        Ok(Self { coupon, stock, before, stage, crowd, again: Vec::new() })
    }

    /// All claim, while `meanwhile` goes on.
    pub(crate) fn claim<T>(&self, meanwhile: impl FnOnce(&Live) -> Result<T>) -> Result<T> {
        let result = self.crowd.claim(self.coupon, &self.stage.couponctl, meanwhile);
        self.stage.stack.interrupt.check()?;
        result
    }

    pub(crate) fn record(&self) -> Result<Record> {
        Record::read(&self.crowd.records())
    }

    /// All files, in the order of their time.
    pub(crate) fn records(&self) -> Vec<PathBuf> {
        let sale = self.crowd.records().into_iter().chain(self.crowd.meanwhile());
        sale.chain(self.again.iter().cloned()).collect()
    }

    /// Some ask again while it goes on.
    pub(crate) fn ask_meanwhile(&self, of: std::ops::Range<usize>) -> Result<()> {
        self.crowd.ask_meanwhile(self.coupon, &self.stage.couponctl, of)
    }

    /// Everybody asks once more, until all have a final answer; the inner error tells that it did not come to that.
    pub(crate) fn ask_again(&mut self) -> Result<Result<(), String>> {
        for pass in 1..=PASSES {
            let file = self.crowd.ask_again(self.coupon, &self.stage.couponctl, pass)?;
            self.again.push(file.clone());
            let asked = Record::read(&[file])?.attempts;
            let unsettled = asked.iter().filter(|attempt| !attempt.heard.is_final()).count();
            if unsettled == 0 {
                break;
            }
            if pass == PASSES {
                return Ok(Err(format!(
                    "{unsettled} users got no final answer, though they asked {PASSES} times"
                )));
            }
            let next = Instant::now() + BETWEEN_PASSES;
            self.stage.stack.interrupt.wait_until(|| (Instant::now() >= next).then_some(()))?;
        }
        Ok(Ok(()))
    }

    /// Compares everything. `more` are records that are judged as well.
    pub(crate) fn judge(
        &self,
        expected: Expected,
        more: &[PathBuf],
        patience: &str,
        flags: &[&str],
    ) -> Result<Found> {
        let records: Vec<PathBuf> = self.records().into_iter().chain(more.iter().cloned()).collect();
        let audit = self.stage.couponctl.audit(self.coupon, &records, patience, flags)?;
        // Whoever is not back by now breaks the round, and leaves the rest of it to be judged.
        let (after, silent) = match Metrics::read_all(&self.stage.stack) {
            Ok(all) => (all, None),
            Err(error) => (Metrics::read(&self.stage.stack), Some(format!("{error:#}"))),
        };
        let risen = |alarm: &str| (alarm.to_owned(), after.grown_anywhere(&self.before, alarm));
        let alarms: BTreeMap<String, u64> = ALARMS.map(risen).into();
        let sale: BTreeMap<u64, Said> = self.record()?.users();
        let again = Record::read(&self.again)?.users();
        let stock = self.stock;
        let evidence =
            Evidence { audit: &audit, sale: &sale, again: &again, stock, expected, alarms: &alarms };
        let (promises, mut broken) = evidence.judge();
        broken.extend(silent);
        broken.extend(self.stage.ended_alone());
        Ok(Found { audit, promises, broken })
    }
}
