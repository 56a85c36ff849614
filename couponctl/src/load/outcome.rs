//! What an answer means: sold out and already issued are outcomes, not errors.

use serde::Deserialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Issued,
    AlreadyIssued,
    SoldOut,
    Pending,
    /// A good answer of a route that is no claim.
    Ok,
    /// Any other answer, by its code.
    Refused,
    /// No connection: it cannot have taken effect.
    NotSent,
    /// No answer: it may have taken effect.
    Unknown,
}

impl Outcome {
    /// As the record of answers spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Issued => "ISSUED",
            Self::AlreadyIssued => "ALREADY_ISSUED",
            Self::SoldOut => "SOLD_OUT",
            Self::Pending => "PENDING",
            Self::Ok => "OK",
            Self::Refused => "REFUSED",
            Self::NotSent => "NOT_SENT",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// As the dashboard groups it.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::SoldOut => "claim: sold out",
            Self::AlreadyIssued => "claim: already issued",
            Self::Pending => "claim: pending",
            Self::Ok => "request",
            Self::Issued | Self::Refused | Self::NotSent | Self::Unknown => "claim",
        }
    }

    /// Not an error in the dashboard.
    pub(crate) fn expected(self) -> bool {
        !matches!(self, Self::Refused | Self::NotSent | Self::Unknown)
    }
}

/// An outcome with what the answer said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Judged {
    pub(crate) outcome: Outcome,
    /// Of a refusal: the problem's code, `HTTP_nnn` where it has none.
    pub(crate) code: Option<String>,
    /// Of a yes; else empty.
    pub(crate) receipt: Receipt,
}

impl Judged {
    pub(crate) fn bare(outcome: Outcome) -> Self {
        Self { outcome, code: None, receipt: Receipt::default() }
    }

    pub(crate) fn refused(code: String) -> Self {
        Self { code: Some(code), ..Self::bare(Outcome::Refused) }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Body {
    pub(crate) code: Option<String>,
    pub(crate) status: serde_json::Value, // text in a receipt, a number in a problem
    issue_id: Option<String>,
    place: Option<u64>,
    issued_at: Option<String>,
    /// The first one, when it was issued before.
    receipt: Option<Receipt>,
}

impl Body {
    /// What the body is itself, where it says ISSUED.
    pub(crate) fn into_receipt(self) -> Receipt {
        Receipt { issue_id: self.issue_id, place: self.place, issued_at: self.issued_at }
    }
}

/// What a winner was told, as it was said.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Receipt {
    pub(crate) issue_id: Option<String>,
    pub(crate) place: Option<u64>,
    pub(crate) issued_at: Option<String>,
}

/// The answer to a claim.
pub(crate) fn of_claim(status: u16, body: &[u8]) -> Judged {
    let body: Body = serde_json::from_slice(body).unwrap_or_default();
    let told = |outcome, receipt| Judged { receipt, ..Judged::bare(outcome) };
    match (status, body.status.as_str(), body.code.as_deref()) {
        (200, Some("ISSUED"), _) if body.issue_id.is_some() => told(Outcome::Issued, body.into_receipt()),
        (202, _, _) => Judged::bare(Outcome::Pending),
        (409, _, Some("COUPON_ALREADY_ISSUED")) => {
            told(Outcome::AlreadyIssued, body.receipt.unwrap_or_default())
        }
        (409, _, Some("COUPON_SOLD_OUT")) => Judged::bare(Outcome::SoldOut),
        _ => refused(status, body.code),
    }
}

/// The answer of any other route.
pub(crate) fn of_other(status: u16, body: &[u8]) -> Judged {
    if (200..400).contains(&status) {
        return Judged::bare(Outcome::Ok);
    }
    let body: Body = serde_json::from_slice(body).unwrap_or_default();
    refused(status, body.code)
}

fn refused(status: u16, code: Option<String>) -> Judged {
    let code =
        code.filter(|code| code.len() <= 64 && code.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'));
    Judged::refused(code.unwrap_or_else(|| format!("HTTP_{status}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(status: u16, body: &str) -> (Outcome, Option<String>, Receipt) {
        let judged = of_claim(status, body.as_bytes());
        (judged.outcome, judged.code, judged.receipt)
    }

    #[test]
    fn answers_to_a_claim() {
        let receipt = r#"{"issueId":"x-1","couponId":1,"userId":2,"place":3,"status":"ISSUED","issuedAt":"2026-11-21T10:00:00.007Z"}"#;
        let told = || Receipt {
            issue_id: Some("x-1".into()),
            place: Some(3),
            issued_at: Some("2026-11-21T10:00:00.007Z".into()),
        };
        assert_eq!(claim(200, receipt), (Outcome::Issued, None, told()));
        let again = format!(r#"{{"status":409,"code":"COUPON_ALREADY_ISSUED","receipt":{receipt}}}"#);
        assert_eq!(claim(409, &again), (Outcome::AlreadyIssued, None, told()));
        assert_eq!(claim(202, r#"{"status":"PENDING"}"#).0, Outcome::Pending);
        assert_eq!(claim(409, r#"{"status":409,"code":"COUPON_SOLD_OUT"}"#).0, Outcome::SoldOut);
        let refused = claim(503, r#"{"status":503,"code":"OVERLOADED"}"#);
        assert_eq!(refused, (Outcome::Refused, Some("OVERLOADED".into()), Receipt::default()));
    }

    #[test]
    fn a_promise_without_a_receipt_is_none() {
        assert_eq!(claim(200, "{}"), (Outcome::Refused, Some("HTTP_200".into()), Receipt::default()));
        assert_eq!(claim(200, "not json").0, Outcome::Refused);
        assert_eq!(claim(502, "<html>"), (Outcome::Refused, Some("HTTP_502".into()), Receipt::default()));
        assert_eq!(claim(503, r#"{"code":"a,b\n"}"#).1, Some("HTTP_503".into()));
    }

    #[test]
    fn any_good_answer_of_another_route_is_ok() {
        assert_eq!(of_other(204, b"").outcome, Outcome::Ok);
        assert_eq!(of_other(404, b"").code.as_deref(), Some("HTTP_404"));
    }
}
