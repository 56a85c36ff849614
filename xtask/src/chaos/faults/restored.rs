//! The database is restored from a backup. What the log holds comes back: rows, counts, definitions. What only the
//! database held is gone: accounts, and the names of coupons; their ids are nobody else's for all time.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use super::failover::{rows, rows_of, silence, went_back, written_again};
use crate::chaos::site::{Expected, Site};
use crate::first_coupon::{create, login};

/// Between the backup and the loss of everything after it.
pub(crate) const LOST: Duration = Duration::from_secs(60);
/// For a thing that is done in this time, or has to be possible after it.
const PATIENCE: Duration = Duration::from_secs(30);
/// The ledger is asked every 30 s for the definitions in force.
const LEVEL_WITHIN: Duration = Duration::from_secs(60);
const OPEN: Duration = Duration::from_secs(24 * 3600);
const PASSWORD: &str = "correct horse";
/// Of the coupon that is lost: for those who sign up in the lost time, and no more.
const STOCK: u32 = 2;

pub(crate) fn restored(site: &mut Site<'_>) -> Result<()> {
    let stack = site.stage.stack.clone();
    stack.wait_in_step()?;
    let backup = stack.back_up()?;
    let taken = Instant::now();
    let lost = Lost::make(site)?;
    // What else strikes in this sale may be a change of its own.
    let raised = Some(site.stock * 11 / 10).filter(|_| site.alone);
    if let Some(stock) = raised {
        raise(site, stock)?;
    }
    let left = LOST.saturating_sub(taken.elapsed()) + Duration::from_millis(site.random.below(1_000));
    site.rest(left)?;
    let (primary, replica) = (stack.database()?, stack.replica()?);
    let committed = rows(site, &primary)?;
    site.moment()?;
    let silence = silence(site)?;
    // It has what the backup lacks.
    let followed = site.kill_and_hold(&replica)?;
    let killed = site.kill_and_hold(&primary)?;
    stack.restore(&backup, killed)?;
    site.back(&primary)?;
    let there = rows(site, &primary)?;
    drop(silence);
    site.lift()?;
    went_back(site, committed, there)?;
    written_again(site, &primary, committed)?;
    let judged = lost.judge(site).and_then(|()| raised.map_or(Ok(()), |stock| shows(site, stock)));
    // Whatever became of that: the next round takes a replica that follows.
    stack.renew_replica(followed)?;
    site.back(&replica)?;
    stack.wait_in_step()?;
    judged
}

fn shows(site: &mut Site<'_>, stock: u64) -> Result<()> {
    let url = format!("{}/coupons/{}", site.stage.gateway, site.coupon);
    let what = format!("the coupon shows the stock in force, {stock}");
    let shown = site.promise(&what, LEVEL_WITHIN, |site| {
        let shown = site.stage.client.get(&url).ok()?;
        (shown.body["quantity"].as_u64() == Some(stock)).then_some(())
    });
    shown.map(drop)
}

fn raise(site: &mut Site<'_>, stock: u64) -> Result<()> {
    let url = format!("{}/coupons/{}", site.stage.gateway, site.coupon);
    let token = site.stage.admin_token()?;
    site.expected = Expected::Stock(stock);
    site.stage.client.patch(&url, &token, &json!({"quantity": stock}))?.expect(200, "change the coupon")?;
    Ok(())
}

struct User {
    id: u64,
    email: String,
    token: String,
}

/// What came about after the backup.
struct Lost {
    winner: User,
    late: User,
    coupon: u64,
    /// The winner's.
    receipt: String,
}

impl Lost {
    fn make(site: &Site<'_>) -> Result<Self> {
        let user = |name: &str| {
            let email = format!("{name}.{}@firstcome.example", site.coupon);
            site.wait_for("a user signs up", PATIENCE, |site| User::sign_up(site, &email).ok())
        };
        let (winner, late) = (user("winner")?, user("late")?);
        let coupon = new_coupon(site, "Lost")?;
        let receipt =
            site.wait_for("the new coupon is issued", PATIENCE, |site| winner.claim(site, coupon).ok())?;
        Ok(Self { winner, late, coupon, receipt })
    }

    fn judge(&self, site: &mut Site<'_>) -> Result<()> {
        let Self { winner, late, coupon, receipt } = self;
        let url = format!("{}/coupons/{coupon}", site.stage.gateway);
        site.sign("the coupon that was made after the backup is shown no more", |site| {
            site.stage.client.get(&url).is_ok_and(|answer| answer.status == 404)
        })?;
        site.sign("an account that was made after the backup is gone", |site| {
            login(&site.stage.client, &site.stage.gateway, &winner.email, PASSWORD)
                .is_err_and(|error| format!("{error:#}").contains("answered 401"))
        })?;
        let token =
            site.wait_for("the administrator logs in", PATIENCE, |site| site.stage.admin_token().ok())?;
        site.promise("the lost coupon is in no list and can't be changed", PATIENCE, |site| {
            // The newest come first.
            let list = site.stage.client.get(&format!("{}/coupons", site.stage.gateway)).ok()?;
            let listed = list.body["items"].as_array()?;
            let answer = site.stage.client.patch(&url, &token, &json!({"quantity": STOCK + 1})).ok()?;
            let none = listed.iter().all(|listed| listed["couponId"].as_u64() != Some(*coupon));
            (none && answer.status == 404).then_some(())
        })?;
        // The log has the definition and who won.
        site.promise("its winner has the same receipt", PATIENCE, |site| {
            winner.claim(site, *coupon).ok().filter(|again| again == receipt)
        })?;
        site.promise("what is left of it can be had", PATIENCE, |site| late.claim(site, *coupon).ok())?;
        let primary = site.stage.stack.database()?;
        site.promise("its winners have their rows", PATIENCE, |site| {
            rows_of(site, &primary, *coupon).ok().filter(|rows| *rows == u64::from(STOCK))
        })?;
        // The same address is free again, and another user's.
        let new = site
            .promise("a user can sign up again", PATIENCE, |site| User::sign_up(site, &winner.email).ok())?;
        let made =
            site.promise("a coupon can be made", PATIENCE, |site| new_coupon(site, "After the loss").ok())?;
        if let Some(new) = new.filter(|new| [winner.id, late.id].contains(&new.id)) {
            site.broken.push(format!("the lost user id {} was given again", new.id));
        }
        if made == Some(*coupon) {
            site.broken.push(format!("the lost coupon id {coupon} was given again"));
        }
        Ok(())
    }
}

impl User {
    fn sign_up(site: &Site<'_>, email: &str) -> Result<Self> {
        let (client, gateway) = (&site.stage.client, &site.stage.gateway);
        let body = json!({"email": email, "password": PASSWORD});
        let answer = client.post(&format!("{gateway}/users/sign-up"), None, &body)?.expect(201, "sign up")?;
        let id = answer["userId"].as_u64().context("no userId in the answer to a sign-up")?;
        let token = login(client, gateway, email, PASSWORD)?;
        Ok(Self { id, email: email.to_owned(), token })
    }

    /// The whole receipt, be it new or had before. Its id tells nothing but coupon and user; place and time are those of
    /// the claim that won.
    fn claim(&self, site: &Site<'_>, coupon: u64) -> Result<String> {
        let url = format!("{}/coupon-issues", site.stage.gateway);
        let answer = site.stage.client.post(&url, Some(&self.token), &json!({"couponId": coupon}))?;
        let receipt = match answer.status {
            200 => &answer.body,
            409 => &answer.body["receipt"],
            other => bail!("a claim was answered {other}: {}", answer.body),
        };
        let parts = ["issueId", "place", "issuedAt"].map(|part| &receipt[part]);
        if parts.iter().any(|part| part.is_null()) {
            bail!("no receipt: {}", answer.body);
        }
        Ok(parts.map(ToString::to_string).join(" "))
    }
}

fn new_coupon(site: &Site<'_>, name: &str) -> Result<u64> {
    let token = site.stage.admin_token()?;
    create(&site.stage.client, &site.stage.gateway, &token, name, STOCK, OPEN)
}
