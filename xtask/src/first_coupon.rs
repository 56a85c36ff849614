//! The coupon that the copyable claim line names: made once for a folder, through the API, by the run's admin.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::http::Client;
use crate::state::{Folder, State, write_atomically};

const FILE: &str = "first-coupon";

/// The coupon's id, if it was made.
pub(crate) fn known(folder: &Folder) -> Option<u64> {
    fs::read_to_string(folder.root().join(FILE)).ok()?.trim().parse().ok()
}

pub(crate) fn ensure(folder: &Folder, state: &State) -> Result<u64> {
    let gateway = state.gateway.as_ref().context("no gateway")?;
    let client = Client::new(Duration::from_secs(10));
    if let Some(id) = known(folder)
        && client.get(&format!("{gateway}/coupons/{id}")).is_ok_and(|answer| answer.status == 200)
    {
        return Ok(id);
    }
    let token = admin_token(&client, state)?;
    let id = create(&client, gateway, &token, "Welcome", 1_000, Duration::from_secs(30 * 24 * 3600))?;
    write_atomically(&folder.root().join(FILE), id.to_string().as_bytes())?;
    Ok(id)
}

pub(crate) fn admin_token(client: &Client, state: &State) -> Result<String> {
    let gateway = state.gateway.as_ref().context("no gateway")?;
    let admin = state.admin.as_ref().context("no admin")?;
    login(client, gateway, &admin.email, &admin.password).context("log in as the admin")
}

pub(crate) fn login(client: &Client, gateway: &str, email: &str, password: &str) -> Result<String> {
    let body = json!({"email": email, "password": password});
    let answer = client.post(&format!("{gateway}/users/login"), None, &body)?.expect(200, "login")?;
    let token = answer["token"]["accessToken"].as_str().context("no access token in the answer")?;
    Ok(token.to_owned())
}

/// A coupon that is open from now on.
pub(crate) fn create(
    client: &Client,
    gateway: &str,
    token: &str,
    name: &str,
    quantity: u32,
    open: Duration,
) -> Result<u64> {
    let now = now()?;
    let body = json!({
        "name": name,
        "quantity": quantity,
        // A little back, so that it is open at once however the clocks of requests and brokers differ.
        "startsAt": rfc3339(now.saturating_sub(5)),
        "endsAt": rfc3339(now + open.as_secs()),
    });
    let answer: Value =
        client.post(&format!("{gateway}/coupons"), Some(token), &body)?.expect(201, "create a coupon")?;
    answer["couponId"].as_u64().context("no couponId in the answer")
}

#[expect(
    clippy::disallowed_methods,
    reason = "this tool has no test that sets the time, and no platform crate"
)]
pub(crate) fn unix_ms() -> Result<u64> {
    Ok(u64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis())?)
}

/// Seconds since 1970.
pub(crate) fn now() -> Result<u64> {
    Ok(unix_ms()? / 1_000)
}

/// Seconds since 1970 as RFC 3339 in UTC; civil date by Howard Hinnant's algorithm.
pub(crate) fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_600_800), "2026-11-25T10:00:00Z");
        assert_eq!(rfc3339(4_107_542_399), "2100-02-28T23:59:59Z");
    }
}
