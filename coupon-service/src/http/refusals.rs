//! Why operations refuse, for their descriptions.

use platform::http::description::Refusals;
use platform::http::problem::Problem;

use crate::error::ApiError;

#[derive(Debug)]
pub struct NoSuchCoupon;

#[derive(Debug)]
pub struct Retired;

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
