//! What an audit ends with, for people and for scripts.

use comfy_table::{Table, presets};
use serde::Serialize;

use super::coupon::Report;
use crate::terminal::grouped;
use crate::verdict::{self, Check, Verdict};

/// Coupons that people are shown; JSON has all.
const SHOWN: usize = 50;

/// Of every coupon, and of the log.
#[derive(Debug, Serialize)]
pub(crate) struct Findings {
    pub(crate) ok: bool,
    /// Of the whole log.
    pub(crate) checks: Vec<Check>,
    pub(crate) coupons: Vec<Report>,
}

impl Findings {
    pub(crate) fn new(checks: Vec<Check>, coupons: Vec<Report>) -> Self {
        let sound = checks.iter().all(|check| check.verdict != Verdict::Failed);
        Self { ok: sound && coupons.iter().all(|coupon| coupon.ok), checks, coupons }
    }

    /// A single coupon's report with the log's checks among its own.
    pub(crate) fn into_single(mut self) -> Report {
        let mut report = self.coupons.remove(0);
        report.ok = self.ok;
        report.checks.splice(0..0, self.checks);
        report
    }

    pub(crate) fn print(&self) {
        let mut coupons: Vec<&Report> = self.coupons.iter().collect();
        coupons.sort_by_key(|coupon| coupon.ok);
        let mut table = Table::new();
        let header =
            ["coupon", "stock", "rows", "told issued", "lost", "duplicates", "unexplained", "verdict"];
        table.load_style(presets::UTF8_FULL_CONDENSED).set_header(header);
        for coupon in coupons.iter().take(SHOWN) {
            table.add_row([
                coupon.coupon.to_string(),
                coupon.stock.map_or_else(|| "-".to_owned(), grouped),
                grouped(coupon.rows),
                grouped(coupon.told_issued),
                grouped(coupon.lost),
                grouped(coupon.duplicates),
                grouped(coupon.unexplained),
                if coupon.ok { "ok" } else { "FAILED" }.to_owned(),
            ]);
        }
        println!("{table}");
        if coupons.len() > SHOWN {
            println!("and {} more (--json lists all)", grouped((coupons.len() - SHOWN) as u64));
        }
        verdict::print(&self.checks);
        for coupon in coupons.iter().take(SHOWN).filter(|coupon| !coupon.ok) {
            println!();
            coupon.print();
        }
        let rows: u64 = coupons.iter().map(|coupon| coupon.rows).sum();
        println!(
            "\n{} coupons, {} rows: {}",
            grouped(coupons.len() as u64),
            grouped(rows),
            conclusion(self.ok)
        );
    }
}

impl Report {
    pub(crate) fn print(&self) {
        verdict::print(&self.checks);
        println!(
            "\ncoupon {}: told issued {}, rows {}, unheard {}, lost {}, duplicates {}, over-issued {}, unexplained {}: {}",
            self.coupon,
            grouped(self.told_issued),
            grouped(self.rows),
            grouped(self.unheard),
            grouped(self.lost),
            grouped(self.duplicates),
            grouped(self.over_issued),
            grouped(self.unexplained),
            conclusion(self.ok),
        );
        if self.attempts == 0 {
            println!(
                "no answers were compared: `load --answers FILE` records them, `audit --answers FILE` reads them"
            );
        }
    }
}

fn conclusion(ok: bool) -> &'static str {
    if ok { "it adds up" } else { "IT DOES NOT ADD UP" }
}
