//! Every way in which a request can fail, and the one place where that becomes a status, a code and a text. Each
//! violation names the field, the limit and the way out.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use platform::http::problem::Problem;

use crate::coupon::request::{MAX_ID, MAX_NAME, MAX_QUANTITY, Violation};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{} rules broken", .0.len())]
    Invalid(Vec<Violation>),
    #[error("there is no such coupon")]
    NotFound,
    #[error("a page of {0} coupons was asked for")]
    Limit(i64),
    #[error("not a cursor")]
    Cursor,
    #[error("the coupon is over for good")]
    Retired,
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("no unused id found")]
    Ids,
    #[error("the row was changed in spite of its lock")]
    Overtaken,
}

/// Largest page of a list.
pub const MAX_LIMIT: u32 = 100;

impl Violation {
    fn field(&self) -> Option<&'static str> {
        match self {
            Self::NameBlank | Self::NameTooLong(_) => Some("name"),
            Self::Quantity(_) => Some("quantity"),
            Self::EventId(_) => Some("eventId"),
            Self::Time(field, _) | Self::Window(field) => Some(field),
            Self::NothingToChange => None,
        }
    }

    fn english(&self) -> String {
        match self {
            Self::NameBlank => {
                format!("must have 1 to {MAX_NAME} characters and not only blanks; give a name")
            }
            Self::NameTooLong(length) => {
                format!("must have 1 to {MAX_NAME} characters, this one has {length}; shorten it")
            }
            Self::Quantity(given) => {
                format!(
                    "must be a whole number from 1 to {MAX_QUANTITY}, not {given}; choose one in this range"
                )
            }
            Self::EventId(given) => {
                format!(
                    "must be a whole number from 1 to {MAX_ID}, not {given}; leave it out if there is no event"
                )
            }
            Self::Time(_, given) => format!(
                "must be an RFC 3339 time like 2026-12-24T09:00:00Z, not {:?}; give date, time and offset",
                shown(given)
            ),
            Self::Window("startsAt") => {
                "must be before endsAt; move startsAt, or send a later endsAt too".to_owned()
            }
            Self::Window(_) => {
                "must be after startsAt; move endsAt, or send an earlier startsAt too".to_owned()
            }
            Self::NothingToChange => {
                "Nothing to change: send at least one of quantity, startsAt, endsAt, closed.".to_owned()
            }
        }
    }

    fn korean(&self) -> String {
        match self {
            Self::NameBlank => {
                format!(
                    "name: 공백이 아닌 1자 이상 {MAX_NAME}자 이하의 이름이어야 합니다. 이름을 입력하세요."
                )
            }
            Self::NameTooLong(length) => {
                format!("name: 1자 이상 {MAX_NAME}자 이하입니다(입력: {length}자). 이름을 줄이세요.")
            }
            Self::Quantity(given) => {
                format!(
                    "quantity: 1 이상 {MAX_QUANTITY} 이하의 정수입니다(입력: {given}). 범위 안의 값을 입력하세요."
                )
            }
            Self::EventId(given) => {
                format!(
                    "eventId: 1 이상 {MAX_ID} 이하의 정수입니다(입력: {given}). 이벤트가 없으면 생략하세요."
                )
            }
            Self::Time(field, given) => format!(
                "{field}: 2026-12-24T09:00:00Z 같은 RFC 3339 시각이어야 합니다(입력: {:?}). 날짜, 시각, 오프셋을 모두 입력하세요.",
                shown(given)
            ),
            Self::Window("startsAt") => {
                "startsAt: endsAt보다 앞서야 합니다. startsAt을 옮기거나 더 늦은 endsAt을 함께 보내세요."
                    .to_owned()
            }
            Self::Window(_) => {
                "endsAt: startsAt보다 뒤여야 합니다. endsAt을 옮기거나 더 이른 startsAt을 함께 보내세요."
                    .to_owned()
            }
            Self::NothingToChange => {
                "변경할 내용이 없습니다. quantity, startsAt, endsAt, closed 중 하나 이상을 보내세요."
                    .to_owned()
            }
        }
    }
}

/// What a client sent, no longer than a message needs.
fn shown(given: &str) -> String {
    const LONGEST: usize = 40;
    if given.chars().count() <= LONGEST {
        return given.to_owned();
    }
    given.chars().take(LONGEST).chain(std::iter::once('…')).collect()
}

fn invalid(english: String, korean: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "VALIDATION_FAILED", english).korean(korean)
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Invalid(violations) => {
                let english: Vec<_> = violations
                    .iter()
                    .map(|violation| match violation.field() {
                        Some(field) => format!("{field} {}.", violation.english()),
                        None => violation.english(),
                    })
                    .collect();
                let korean: Vec<_> = violations.iter().map(Violation::korean).collect();
                violations.iter().fold(invalid(english.join(" "), korean.join(" ")), |problem, violation| {
                    match violation.field() {
                        Some(field) => problem.field(field, violation.english()),
                        None => problem,
                    }
                })
            }
            ApiError::NotFound => Problem::new(
                StatusCode::NOT_FOUND,
                "COUPON_NOT_FOUND",
                "There is no coupon with this id. Look it up in GET /coupons.",
            )
            .korean("해당 ID의 쿠폰이 없습니다. GET /coupons에서 확인하세요."),
            ApiError::Retired => Problem::new(
                StatusCode::CONFLICT,
                "COUPON_ENDED",
                "This coupon has been over for so long that nothing about it can be changed any more. Make a new one.",
            )
            .korean("종료된 지 오래되어 더 이상 변경할 수 없는 쿠폰입니다. 새 쿠폰을 만드세요."),
            ApiError::Limit(given) => {
                let english = format!(
                    "must be a whole number from 1 to {MAX_LIMIT}, not {given}; ask for smaller pages"
                );
                invalid(
                    format!("limit {english}."),
                    format!("limit: 1 이상 {MAX_LIMIT} 이하의 정수입니다(입력: {given}). 더 작은 페이지를 요청하세요."),
                )
                .field("limit", english)
            }
            ApiError::Cursor => {
                let english = "must be the nextCursor of an earlier page; leave it out for the first page";
                invalid(
                    format!("cursor {english}."),
                    "cursor: 이전 페이지의 nextCursor여야 합니다. 첫 페이지는 생략하세요.".to_owned(),
                )
                .field("cursor", english)
            }
            // A full or broken pool passes, a failed statement does not: only the first is worth a retry.
            ApiError::Database(
                error @ (sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_)),
            ) => Problem::overloaded().source(error),
            ApiError::Database(error) => Problem::internal(error),
            error @ (ApiError::Ids | ApiError::Overtaken) => Problem::internal(error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}
