//! The filters Retry and CircuitBreaker, read.

use std::collections::BTreeSet;
use std::time::Duration;

use http::Method;

use super::parse_status;
use crate::resilience::retry::Backoff;
use crate::resilience::{BreakerSettings, RetrySettings};
use crate::routes::arguments::Arguments;

/// In the order of the shortcut; `series` and `exceptions` are of the full form alone.
pub(super) const RETRY: &[&str] = &[
    "retries",
    "statuses",
    "methods",
    "backoff.firstBackoff",
    "backoff.maxBackoff",
    "backoff.factor",
    "backoff.basedOnPreviousValue",
    "jitter.randomFactor",
    "timeout",
    "series",
    "exceptions",
];
/// Behind Spring's, those of Resilience4j, which stand elsewhere in a Spring file.
pub(super) const CIRCUIT_BREAKER: &[&str] = &[
    "name",
    "fallbackUri",
    "statusCodes",
    "slidingWindowSize",
    "minimumNumberOfCalls",
    "failureRateThreshold",
    "waitDurationInOpenState",
    "permittedNumberOfCallsInHalfOpenState",
    "timeoutDuration",
];
const SERIES: [&str; 5] = ["INFORMATIONAL", "SUCCESSFUL", "REDIRECTION", "CLIENT_ERROR", "SERVER_ERROR"];
/// Java's exceptions, by what they are here: (name's end, on a broken connection, on a timeout).
const EXCEPTIONS: [(&str, bool, bool); 4] = [
    ("IOException", true, false),
    ("ConnectException", true, false),
    ("TimeoutException", false, true),
    ("Exception", true, true),
];

pub(super) fn retry(mut arguments: Arguments) -> Result<RetrySettings, Vec<String>> {
    let defaults = RetrySettings::default();
    let retries = arguments.parsed("retries", "a whole number above 0").unwrap_or(defaults.retries);
    if retries == 0 {
        arguments.complain("`retries` must be above 0");
    }
    let statuses = statuses(&mut arguments, "statuses");
    let series = if arguments.has("series") { series(&mut arguments) } else { defaults.series };
    let methods = if arguments.has("methods") { methods(&mut arguments) } else { defaults.methods };
    let (on_broken, on_timeout) =
        if arguments.has("exceptions") { exceptions(&mut arguments) } else { (true, true) };
    let backoff = backoff(&mut arguments);
    let timeout = arguments.duration("timeout");
    let nothing = series.is_empty() && statuses.is_empty() && !on_broken && !on_timeout;
    if nothing && arguments.is_sound() {
        arguments.complain("names nothing to try again for: give `series`, `statuses` or `exceptions`");
    }
    let settings =
        RetrySettings { retries, series, statuses, methods, on_broken, on_timeout, backoff, timeout };
    arguments.finish(Some(settings))
}

fn statuses(arguments: &mut Arguments, field: &'static str) -> BTreeSet<u16> {
    let mut statuses = BTreeSet::new();
    for text in arguments.list(field) {
        match parse_status(&text) {
            Some(status) => drop(statuses.insert(status.as_u16())),
            None => arguments
                .complain(format_args!("`{field}`: `{text}` is no status such as 503 or BAD_GATEWAY")),
        }
    }
    statuses
}

fn series(arguments: &mut Arguments) -> BTreeSet<u16> {
    let mut series = BTreeSet::new();
    for text in arguments.list("series") {
        match (1..).zip(SERIES).find(|(_, name)| name.eq_ignore_ascii_case(&text)) {
            Some((digit, _)) => drop(series.insert(digit)),
            None => arguments.complain(format_args!("`series`: `{text}` is none of {}", SERIES.join(", "))),
        }
    }
    series
}

fn methods(arguments: &mut Arguments) -> Vec<Method> {
    let mut methods = Vec::new();
    for text in arguments.list("methods") {
        match Method::from_bytes(text.as_bytes()) {
            Ok(method) if text == text.to_ascii_uppercase() => methods.push(method),
            _ => arguments
                .complain(format_args!("`methods`: `{text}` is no HTTP method; they are in capitals")),
        }
    }
    if methods.is_empty() {
        arguments.missing("methods");
    }
    methods
}

fn exceptions(arguments: &mut Arguments) -> (bool, bool) {
    let (mut on_broken, mut on_timeout) = (false, false);
    for text in arguments.list("exceptions") {
        let name = text.rsplit('.').next().unwrap_or_default();
        match EXCEPTIONS.iter().find(|(known, ..)| *known == name) {
            Some((_, broken, timeout)) => {
                (on_broken, on_timeout) = (on_broken || *broken, on_timeout || *timeout);
            }
            None => arguments.complain(format_args!(
                "`exceptions`: `{text}` is none that can come here; known are java.io.IOException, \
                 java.net.ConnectException, java.util.concurrent.TimeoutException and java.lang.Exception"
            )),
        }
    }
    (on_broken, on_timeout)
}

fn backoff(arguments: &mut Arguments) -> Option<Backoff> {
    let given = RETRY[3..8].iter().any(|field| arguments.has(field));
    let defaults = Backoff::default();
    let backoff = Backoff {
        first: arguments.duration("backoff.firstBackoff").unwrap_or(defaults.first),
        most: arguments.duration("backoff.maxBackoff"),
        factor: arguments.parsed("backoff.factor", "a number of at least 1").unwrap_or(defaults.factor),
        based_on_previous: arguments
            .flag("backoff.basedOnPreviousValue")
            .unwrap_or(defaults.based_on_previous),
        jitter: arguments.parsed("jitter.randomFactor", "a number from 0 to 1").unwrap_or(defaults.jitter),
    };
    if !(1.0..=100.0).contains(&backoff.factor) {
        arguments.complain("`backoff.factor` must be from 1 to 100");
    }
    if !(0.0..=1.0).contains(&backoff.jitter) {
        arguments.complain("`jitter.randomFactor` must be from 0 to 1");
    }
    if backoff.first.is_zero() || backoff.most.is_some_and(|most| most <= backoff.first) {
        arguments.complain("`backoff.firstBackoff` must be above 0 and below `backoff.maxBackoff`");
    }
    given.then_some(backoff)
}

pub(super) fn circuit_breaker(mut arguments: Arguments) -> Result<BreakerSettings, Vec<String>> {
    let defaults = BreakerSettings::default();
    let mut count = |field: &'static str, default: usize| {
        let count = arguments.parsed(field, "a whole number above 0").unwrap_or(default);
        if count == 0 {
            arguments.complain(format_args!("`{field}` must be above 0"));
        }
        count
    };
    let window = count("slidingWindowSize", defaults.window);
    let minimum = count("minimumNumberOfCalls", defaults.minimum);
    let trials = count("permittedNumberOfCallsInHalfOpenState", defaults.trials);
    let failure_rate = arguments.parsed("failureRateThreshold", "percent").unwrap_or(defaults.failure_rate);
    if !(failure_rate > 0.0 && failure_rate <= 100.0) {
        arguments.complain("`failureRateThreshold` must be percent, above 0 and at most 100");
    }
    let mut duration = |field: &'static str, default: Duration| {
        let duration = arguments.duration(field).unwrap_or(default);
        if duration.is_zero() {
            arguments.complain(format_args!("`{field}` must be more than 0"));
        }
        duration
    };
    let open_for = duration("waitDurationInOpenState", defaults.open_for);
    let time_limit = duration("timeoutDuration", defaults.time_limit);
    let fallback = arguments.text("fallbackUri").filter(|uri| !uri.is_empty());
    let fallback = fallback.and_then(|uri| match uri.strip_prefix("forward:") {
        Some(path) if path.starts_with('/') && !path.contains('{') => {
            Some(path.split('?').next().unwrap_or_default().to_owned())
        }
        _ => {
            arguments.complain(format_args!(
                "`fallbackUri` must be of the form forward:/path, without names in braces, is `{uri}`"
            ));
            None
        }
    });
    let settings = BreakerSettings {
        name: arguments.text("name").unwrap_or_default(),
        fallback,
        statuses: statuses(&mut arguments, "statusCodes"),
        window,
        minimum,
        failure_rate,
        open_for,
        trials,
        time_limit,
    };
    arguments.finish(Some(settings))
}
