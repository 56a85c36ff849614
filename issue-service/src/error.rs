//! What this service answers when the answer is no.

use axum::http::StatusCode;
use platform::http::problem::Problem;

use crate::http::receipt::Receipt;

pub fn already_issued(receipt: &Receipt) -> Problem {
    Problem::new(
        StatusCode::CONFLICT,
        "COUPON_ALREADY_ISSUED",
        "You have this coupon already; the receipt is attached.",
    )
    .korean("이미 발급받은 쿠폰입니다. 발급 내역을 함께 보냅니다.")
    .with("receipt", receipt)
}

pub fn sold_out() -> Problem {
    Problem::new(StatusCode::CONFLICT, "COUPON_SOLD_OUT", "All of these coupons have been issued.")
        .korean("쿠폰이 모두 소진되었습니다.")
}

pub fn not_started() -> Problem {
    Problem::new(StatusCode::CONFLICT, "COUPON_NOT_STARTED", "This coupon can't be claimed yet.")
        .korean("아직 발급이 시작되지 않은 쿠폰입니다.")
}

pub fn ended() -> Problem {
    Problem::new(StatusCode::CONFLICT, "COUPON_ENDED", "This coupon can no longer be claimed.")
        .korean("발급이 종료된 쿠폰입니다.")
}

pub fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "COUPON_NOT_FOUND", "There is no such coupon.")
        .korean("존재하지 않는 쿠폰입니다.")
}

pub fn unavailable() -> Problem {
    Problem::upstream_unavailable().retry_after(1)
}

pub fn overloaded() -> Problem {
    Problem::overloaded().retry_after(1)
}
