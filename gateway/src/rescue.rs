//! What a client is told when a request could not be brought to its service and back.
//!
//! One exhaustive match from the cause to the answer; the cause itself goes to the log, never to the client.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use http::StatusCode;
use platform::http::problem::Problem;

use crate::proxy::body::BodyError;

/// Long enough for a new instance to register, short enough to be worth waiting for.
const RETRY_AFTER_SECONDS: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("no instance of {service} is known")]
    NoInstance { service: String },
    #[error("no connection to {service}")]
    Unreachable {
        service: String,
        #[source]
        error: io::Error,
    },
    #[error("{service} broke off before its answer")]
    Broken {
        service: String,
        #[source]
        error: hyper::Error,
    },
    #[error("{service} did not answer in time")]
    Silent { service: String },
    #[error("the circuit breaker {name} is open")]
    Open { name: String, left: Duration },
    #[error("{service} answered {status}, which its circuit breaker counts as a failure")]
    Refused { service: String, status: StatusCode },
    #[error("the request's time was over before it could be sent")]
    Unsent,
    #[error("the request body is larger than the limit")]
    BodyTooLarge,
    #[error("the client did not send its body in time")]
    ClientSlow,
    #[error("the client broke off")]
    ClientGone,
}

impl Failure {
    /// Tells a body that failed on its way in from a service that failed.
    pub fn of_connection(service: &str, error: hyper::Error) -> Self {
        match error.source().and_then(|source| source.downcast_ref::<BodyError>()) {
            Some(BodyError::TooLarge) => Self::BodyTooLarge,
            Some(BodyError::ClientSlow) => Self::ClientSlow,
            Some(BodyError::Client(_)) => Self::ClientGone,
            Some(BodyError::Service(_) | BodyError::ServiceSlow) | None => {
                Self::Broken { service: service.to_owned(), error }
            }
        }
    }
}

impl Failure {
    /// Whether the service is to blame, and not the client or the time that is over.
    #[must_use]
    pub fn is_of_service(&self) -> bool {
        match self {
            Self::NoInstance { .. }
            | Self::Unreachable { .. }
            | Self::Broken { .. }
            | Self::Silent { .. }
            | Self::Open { .. }
            | Self::Refused { .. } => true,
            Self::Unsent | Self::BodyTooLarge | Self::ClientSlow | Self::ClientGone => false,
        }
    }
}

/// A request body that no service was waiting for.
impl From<BodyError> for Failure {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge => Self::BodyTooLarge,
            BodyError::ClientSlow => Self::ClientSlow,
            BodyError::Client(_) | BodyError::Service(_) | BodyError::ServiceSlow => Self::ClientGone,
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::NoInstance { .. } | Failure::Unreachable { .. } => {
                Self::upstream_unavailable().retry_after(RETRY_AFTER_SECONDS).source(failure)
            }
            Failure::Open { left, .. } => {
                let seconds = u32::try_from(left.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX);
                Self::upstream_unavailable().retry_after(seconds.max(1)).source(failure)
            }
            Failure::Broken { .. } | Failure::Refused { .. } => Self::upstream_error().source(failure),
            // RFC 9110, 15.6.5: it may have been carried out.
            Failure::Silent { .. } => Self::upstream_timeout().source(failure),
            Failure::Unsent => Self::overloaded().source(failure),
            Failure::BodyTooLarge => Self::payload_too_large(),
            Failure::ClientSlow => Self::new(
                StatusCode::REQUEST_TIMEOUT,
                "REQUEST_TIMEOUT",
                "The request body did not arrive in time.",
            )
            .korean("요청 본문이 제때 도착하지 않았습니다."),
            // Nobody is left to read it.
            Failure::ClientGone => Self::malformed_json("The request body broke off."),
        }
    }
}
