//! Why operations refuse, for their descriptions.

use platform::http::description::{NoCaller, Refusals};
use platform::http::problem::Problem;

use crate::error::ApiError;

/// Of everybody but an administrator.
#[derive(Debug)]
pub struct NotAdministrator;

/// Of everybody but another service.
#[derive(Debug)]
pub struct NotService;

#[derive(Debug)]
pub struct NoSuchCoupon;

#[derive(Debug)]
pub struct Retired;

impl Refusals for NotAdministrator {
    fn problems() -> Vec<Problem> {
        [NoCaller::problems(), vec![Problem::forbidden()]].concat()
    }
}

impl Refusals for NotService {
    fn problems() -> Vec<Problem> {
        NotAdministrator::problems()
    }
}

impl Refusals for NoSuchCoupon {
    fn problems() -> Vec<Problem> {
        vec![ApiError::NotFound.into()]
    }
}

impl Refusals for Retired {
    fn problems() -> Vec<Problem> {
        vec![ApiError::Retired.into()]
    }
}
