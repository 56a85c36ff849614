//! The filter RequestRateLimiter, read.

use http::{HeaderName, StatusCode};

use super::parse_status;
use crate::limits::rate::{KeyBy, RateSettings};
use crate::routes::arguments::Arguments;

/// The first three are the shortcut's, which Spring does not have.
pub(super) const FIELDS: &[&str] = &[
    "redis-rate-limiter.replenishRate",
    "redis-rate-limiter.burstCapacity",
    "redis-rate-limiter.requestedTokens",
    "key-resolver",
    "rate-limiter",
    "deny-empty-key",
    "empty-key-status",
    "status-code",
];
pub(super) const SHORTCUT: usize = 3;

pub(super) fn rate_limiter(mut arguments: Arguments) -> Result<RateSettings, Vec<String>> {
    const NUMBER: &str = "a whole number";
    let rate = arguments.parsed(FIELDS[0], NUMBER);
    match rate {
        None => arguments.missing(FIELDS[0]),
        Some(0) => arguments.complain(format_args!("`{}` must be at least 1", FIELDS[0])),
        Some(_) => {}
    }
    let rate: u32 = rate.unwrap_or(1);
    let capacity: u32 = arguments.parsed(FIELDS[1], NUMBER).unwrap_or(1);
    // 0 is Spring's way to close a route.
    if capacity != 0 && capacity < rate {
        arguments.complain(format_args!("`{}` must be 0, or not below `{}`", FIELDS[1], FIELDS[0]));
    }
    let requested: u32 = arguments.parsed(FIELDS[2], NUMBER).unwrap_or(1);
    if requested == 0 {
        arguments.complain(format_args!("`{}` must be at least 1", FIELDS[2]));
    }
    let key = key(&mut arguments);
    if let Some(bean) =
        arguments.text("rate-limiter").filter(|bean| !bean.to_ascii_lowercase().contains("redisratelimiter"))
    {
        arguments
            .complain(format_args!("`rate-limiter`: `{bean}` is a bean of Java; there is the one on Redis"));
    }
    let mut status = |field: &'static str, default: StatusCode| {
        let text = arguments.text(field)?;
        let status =
            parse_status(&text).filter(|status| status.is_client_error() || status.is_server_error());
        if status.is_none() {
            arguments
                .complain(format_args!("`{field}` must be a status of an error, such as 429, is `{text}`"));
        }
        status.or(Some(default))
    };
    let refusal =
        status("status-code", StatusCode::TOO_MANY_REQUESTS).unwrap_or(StatusCode::TOO_MANY_REQUESTS);
    let empty_key_status = status("empty-key-status", StatusCode::FORBIDDEN).unwrap_or(StatusCode::FORBIDDEN);
    let deny_empty_key = arguments.flag("deny-empty-key").unwrap_or(true);
    let settings =
        RateSettings { rate, capacity, requested, key, deny_empty_key, empty_key_status, status: refusal };
    arguments.finish(Some(settings))
}

/// `principal`, `address`, `path` or `header:NAME`; Spring's own bean is the first.
fn key(arguments: &mut Arguments) -> KeyBy {
    let Some(text) = arguments.text("key-resolver") else { return KeyBy::Principal };
    let plain = text.trim_start_matches("#{@").trim_end_matches('}');
    match plain {
        "principal" | "principalNameKeyResolver" => return KeyBy::Principal,
        "address" => return KeyBy::Address,
        "path" => return KeyBy::Path,
        _ => {}
    }
    match plain.strip_prefix("header:").map(|name| HeaderName::from_bytes(name.trim().as_bytes())) {
        Some(Ok(name)) => KeyBy::Header(name),
        _ => {
            arguments.complain(format_args!(
                "`key-resolver`: `{text}` is a bean of Java or nothing that is known here; say principal, address, path or \
                 header:NAME"
            ));
            KeyBy::Principal
        }
    }
}
