//! Every way in which a request can fail, and the one place where that becomes a status, a code and a text.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use platform::http::problem::{Challenge, Problem};
use sqlx::mysql::MySqlDatabaseError;

use crate::email::EmailError;
use crate::password::PasswordError;
use crate::password::rules::Weakness;
use crate::token::TokenError;

const DEADLOCK: u16 = 1213;
/// Too many connections, a server that shuts down, one that is read-only after a change of masters (two numbers), a
/// lock that was not granted in time, a deadlock, and a connection that an operator killed.
const PASSING: [u16; 7] = [1040, 1053, 1290, 1836, 1205, DEADLOCK, 1927];

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("{} invalid fields", .0.len())]
    Invalid(Vec<FieldError>),
    #[error("the e-mail address is taken")]
    EmailTaken,
    #[error("unknown account or wrong password")]
    BadCredentials,
    #[error("the password to be proved is wrong")]
    WrongPassword,
    #[error("the caller is no administrator")]
    Forbidden,
    #[error("no such account")]
    UserNotFound,
    #[error("nobody else is an administrator")]
    LastAdmin,
    /// With the seconds after which a failure can be told again.
    #[error("too many wrong passwords; again in {0} s")]
    Throttled(u32),
    #[error("the refresh token can't be used")]
    BadRefreshToken,
    #[error("no login was named")]
    NoLogin,
    #[error("the account is gone")]
    NoSuchUser,
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error("no unused id found")]
    Ids,
}

/// A field that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldError {
    Email(EmailError),
    /// With the field's name.
    Password(&'static str, Weakness),
}

impl FieldError {
    fn field(&self) -> &'static str {
        match self {
            Self::Email(_) => "email",
            Self::Password(field, _) => field,
        }
    }

    fn english(&self) -> String {
        match self {
            Self::Email(error) => error.english(),
            Self::Password(_, weakness) => weakness.english(),
        }
    }

    fn korean(&self) -> String {
        match self {
            Self::Email(error) => error.korean(),
            Self::Password(_, weakness) => weakness.korean(),
        }
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Invalid(fields) => {
                let english: Vec<_> =
                    fields.iter().map(|field| format!("{} {}.", field.field(), field.english())).collect();
                let korean: Vec<_> = fields.iter().map(FieldError::korean).collect();
                let problem = Problem::new(StatusCode::BAD_REQUEST, "VALIDATION_FAILED", english.join(" "))
                    .korean(korean.join(" "));
                fields.iter().fold(problem, |problem, field| problem.field(field.field(), field.english()))
            }
            ApiError::EmailTaken => Problem::new(
                StatusCode::CONFLICT,
                "EMAIL_TAKEN",
                "An account with this e-mail address exists. Log in, or sign up with another address.",
            )
            .korean("이미 가입된 이메일입니다. 로그인하거나 다른 이메일로 가입하세요."),
            ApiError::BadCredentials => Problem::new(
                StatusCode::UNAUTHORIZED,
                "BAD_CREDENTIALS",
                "The e-mail address or the password is wrong.",
            )
            .korean("이메일 또는 비밀번호가 올바르지 않습니다.")
            .challenge(Challenge::Bearer),
            // Not 401: that would say that the token is no good (RFC 9110, 15.5.2), and clients refresh it or log their
            // user out. Who is asking is beyond doubt; he may not do this without the password.
            ApiError::WrongPassword => {
                Problem::new(StatusCode::FORBIDDEN, "BAD_CREDENTIALS", "The password is wrong.")
                    .korean("비밀번호가 올바르지 않습니다.")
            }
            ApiError::Forbidden => Problem::forbidden(),
            ApiError::UserNotFound => Problem::new(
                StatusCode::NOT_FOUND,
                "USER_NOT_FOUND",
                "There is no account of this id.",
            )
            .korean("해당 사용자를 찾을 수 없습니다."),
            ApiError::LastAdmin => Problem::new(
                StatusCode::CONFLICT,
                "LAST_ADMIN",
                "Nobody else is an administrator. Make somebody one first.",
            )
            .korean("마지막 관리자입니다. 먼저 다른 관리자를 지정하세요."),
            ApiError::Throttled(seconds) => Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "RATE_LIMITED",
                format!("Too many wrong passwords. Try again in {seconds} seconds."),
            )
            .korean(format!("비밀번호를 너무 많이 틀렸습니다. {seconds}초 후에 다시 시도하세요."))
            .retry_after(seconds),
            ApiError::BadRefreshToken => Problem::new(
                StatusCode::UNAUTHORIZED,
                "UNAUTHENTICATED",
                "The refresh token is unknown, expired, used or revoked. Log in again.",
            )
            .korean("리프레시 토큰이 유효하지 않거나 만료되었습니다. 다시 로그인하세요.")
            .challenge(Challenge::Bearer),
            ApiError::NoLogin => Problem::new(
                StatusCode::UNAUTHORIZED,
                "UNAUTHENTICATED",
                "Nothing says which login is to end. Send its access token, or its refresh token in the body.",
            )
            .korean("로그아웃할 로그인을 알 수 없습니다. 액세스 토큰이나 본문에 리프레시 토큰을 보내세요.")
            .challenge(Challenge::Bearer),
            ApiError::NoSuchUser => Problem::new(
                StatusCode::NOT_FOUND,
                "NOT_FOUND",
                "The account of this token does not exist. Log in with another account.",
            )
            .korean("이 토큰의 계정이 존재하지 않습니다. 다른 계정으로 로그인하세요."),
            ApiError::Password(PasswordError::Overloaded) => Problem::overloaded(),
            ApiError::Password(error) => Problem::internal(error),
            ApiError::Token(error) => Problem::internal(error),
            ApiError::Database(error) if passes(&error) => Problem::overloaded().source(error),
            ApiError::Database(error) => Problem::internal(error),
            ApiError::Ids => Problem::internal(ApiError::Ids),
        }
    }
}

/// Whether it is the database's state, which a retry may find changed, and no fault of the statement. What was asked may
/// have been done all the same, if the connection broke while the answer to a commit was on its way.
fn passes(error: &sqlx::Error) -> bool {
    use sqlx::Error::{Database, Io, PoolClosed, PoolTimedOut, Protocol};
    match error {
        // A connection that is cut within an answer is a breach of the protocol.
        PoolTimedOut | PoolClosed | Io(_) | Protocol(_) => true,
        Database(error) => {
            let error = error.try_downcast_ref::<MySqlDatabaseError>();
            error.is_some_and(|error| PASSING.contains(&error.number()))
        }
        _ => false,
    }
}

/// Whether another transaction was in the way, and the server has undone this one.
#[must_use]
pub fn is_deadlock(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<MySqlDatabaseError>());
    error.is_some_and(|error| error.number() == DEADLOCK)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        Problem::from(self).into_response()
    }
}
