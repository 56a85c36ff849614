//! Why operations refuse, for their descriptions.

use platform::config::Secret;
use platform::http::description::{Body, NoCaller, Refusals};
use platform::http::problem::Problem;

use crate::email::Email;
use crate::error::{ApiError, FieldError};
use crate::password::rules;

/// Of an address or a password that nobody can have.
#[derive(Debug)]
pub struct Fields;

#[derive(Debug)]
pub struct EmailTaken;

/// Of a login.
#[derive(Debug)]
pub struct BadCredentials;

#[derive(Debug)]
pub struct BadRefreshToken;

/// Of the account's holder: no token that holds, or an account that is gone.
#[derive(Debug)]
pub struct Holder;

/// Of a password that is to be proved once more.
#[derive(Debug)]
pub struct WrongPassword;

#[derive(Debug)]
pub struct LastAdmin;

/// Of an administrator's doings to another account.
#[derive(Debug)]
pub struct Roles;

/// Of a logout with neither token.
#[derive(Debug)]
pub struct NoLogin;

/// Seconds in an example.
const WAIT: u32 = 2160;

fn throttled() -> Problem {
    ApiError::Throttled(WAIT).into()
}

impl Refusals for Fields {
    fn problems() -> Vec<Problem> {
        let mut wrong = Vec::new();
        wrong.extend(Email::parse("kim").err().map(FieldError::Email));
        let weakness = rules::check(&Secret::from("qwertyuiop"), None).err();
        wrong.extend(weakness.map(|weakness| FieldError::Password("password", weakness)));
        [vec![ApiError::Invalid(wrong).into()], Body::problems()].concat()
    }
}

impl Refusals for EmailTaken {
    fn problems() -> Vec<Problem> {
        vec![ApiError::EmailTaken.into()]
    }
}

impl Refusals for BadCredentials {
    fn problems() -> Vec<Problem> {
        vec![ApiError::BadCredentials.into(), throttled()]
    }
}

impl Refusals for BadRefreshToken {
    fn problems() -> Vec<Problem> {
        vec![ApiError::BadRefreshToken.into()]
    }
}

impl Refusals for Holder {
    fn problems() -> Vec<Problem> {
        [NoCaller::problems(), vec![ApiError::NoSuchUser.into()]].concat()
    }
}

impl Refusals for WrongPassword {
    fn problems() -> Vec<Problem> {
        vec![ApiError::WrongPassword.into(), throttled()]
    }
}

impl Refusals for LastAdmin {
    fn problems() -> Vec<Problem> {
        vec![ApiError::LastAdmin.into()]
    }
}

impl Refusals for Roles {
    fn problems() -> Vec<Problem> {
        vec![ApiError::Forbidden.into(), ApiError::UserNotFound.into()]
    }
}

impl Refusals for NoLogin {
    fn problems() -> Vec<Problem> {
        vec![ApiError::NoLogin.into()]
    }
}
