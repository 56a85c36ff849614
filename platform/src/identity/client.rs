//! Where a request came from, as the gateway saw it: an HS256 JWT of 60 s in `X-Firstcome-Client`, signed with the
//! identity's secret. Invariant: an address is believed only if it was signed; a request without the header has none, and
//! a header that does not hold is refused, never ignored.

use std::borrow::Cow;
use std::net::IpAddr;

use axum::extract::{FromRef, FromRequestParts};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::{IdentitySigner, IdentityVerifier, TTL_SECONDS};
use crate::http::problem::Problem;

pub const CLIENT_HEADER: HeaderName = HeaderName::from_static("x-firstcome-client");

/// Of its own, so that an address never passes for an identity, nor the other way round.
const AUDIENCE: &str = "firstcome-client";

#[derive(Serialize, Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    aud: Cow<'a, str>,
    addr: IpAddr,
    exp: u64,
}

impl IdentitySigner {
    /// The value of [`CLIENT_HEADER`], good for 60 s. An IPv4 address in IPv6 clothes is signed as what it is.
    #[must_use]
    pub fn sign_client(&self, address: IpAddr) -> HeaderValue {
        let exp = self.clock.now_ms() / 1000 + TTL_SECONDS;
        self.key.seal(&Claims { aud: Cow::Borrowed(AUDIENCE), addr: address.to_canonical(), exp })
    }
}

impl IdentityVerifier {
    /// The client's address; `None` if nobody says one.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` when the header is twice there, forged, for another audience or too old.
    pub fn verify_client(&self, headers: &HeaderMap) -> Result<Option<IpAddr>, Problem> {
        let mut values = headers.get_all(CLIENT_HEADER).iter();
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some(value), None) => {
                self.verify_address(value.as_bytes()).map(Some).ok_or_else(Problem::unauthenticated)
            }
            (Some(_), Some(_)) => Err(Problem::unauthenticated()),
        }
    }

    fn verify_address(&self, token: &[u8]) -> Option<IpAddr> {
        let payload = self.key.open(token)?;
        let claims: Claims<'_> = serde_json::from_slice(&payload).ok()?;
        (claims.aud == AUDIENCE && self.in_time(claims.exp)).then(|| claims.addr.to_canonical())
    }
}

/// The address of the client behind a request; none if the gateway says none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub Option<IpAddr>);

impl ClientAddress {
    /// The bytes of the [`network`] by which a client is told from others.
    #[must_use]
    pub fn network(self) -> Option<Vec<u8>> {
        self.0.map(|address| match network(address) {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets()[..8].to_vec(),
        })
    }
}

/// What clients are told apart by: of an IPv6 address the /64, which is one subscriber's to change as he likes (RFC 4291,
/// section 2.5.1).
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6([a, b, c, d, 0, 0, 0, 0].into())
        }
    }
}

impl<S> FromRequestParts<S> for ClientAddress
where
    S: Send + Sync,
    IdentityVerifier: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        IdentityVerifier::from_ref(state).verify_client(&parts.headers).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{HEADER, Identity};
    use super::*;
    use crate::clock::Clock;
    use crate::config::{IdentitySettings, Secret};

    fn settings(secret: &str) -> IdentitySettings {
        IdentitySettings { secret: Secret::new(secret) }
    }

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn headers(value: &HeaderValue) -> HeaderMap {
        HeaderMap::from_iter([(CLIENT_HEADER, value.clone())])
    }

    #[test]
    fn a_signed_address_is_believed_for_a_minute() {
        let clock = Clock::manual(1_800_000_000_000);
        let signer = IdentitySigner::new(&settings(SECRET)).with_clock(clock.clone());
        let verifier = IdentityVerifier::new(&settings(SECRET)).with_clock(clock.clone());
        for (given, seen) in
            [("192.0.2.7", "192.0.2.7"), ("2001:db8::7", "2001:db8::7"), ("::ffff:192.0.2.7", "192.0.2.7")]
        {
            let value = signer.sign_client(given.parse().unwrap());
            assert!(value.is_sensitive());
            assert_eq!(verifier.verify_client(&headers(&value)).unwrap(), Some(seen.parse().unwrap()));
        }
        let value = signer.sign_client("192.0.2.7".parse().unwrap());
        clock.advance(Duration::from_secs(65));
        assert_eq!(verifier.verify_client(&headers(&value)).unwrap_err().code(), "UNAUTHENTICATED");
    }

    #[test]
    fn none_is_none_and_a_forged_one_is_refused() {
        let signer = IdentitySigner::new(&settings(SECRET));
        let verifier = IdentityVerifier::new(&settings(SECRET));
        assert_eq!(verifier.verify_client(&HeaderMap::new()).unwrap(), None);
        let good = signer.sign_client("192.0.2.7".parse().unwrap());
        let (signed, _) = good.to_str().unwrap().rsplit_once('.').unwrap();
        let other = IdentitySigner::new(&settings("another secret of thirty-two bytes!"));
        for forged in [
            HeaderValue::from_static(""),
            HeaderValue::from_static("192.0.2.7"),
            HeaderValue::from_str(signed).unwrap(),
            other.sign_client("192.0.2.7".parse().unwrap()),
            // An identity is no address.
            signer.sign(&Identity { user: 1, ..Identity::default() }),
        ] {
            assert!(verifier.verify_client(&headers(&forged)).is_err(), "{forged:?}");
        }
        let mut twice = headers(&good);
        twice.append(CLIENT_HEADER, good.clone());
        assert!(verifier.verify_client(&twice).is_err());
        // And an address is no identity.
        assert!(verifier.verify(&HeaderMap::from_iter([(HEADER, good)])).is_err());
    }

    #[test]
    fn an_ipv6_client_is_its_network() {
        let network = |text: &str| ClientAddress(Some(text.parse().unwrap())).network();
        assert_eq!(network("2001:db8:1:2::7"), network("2001:db8:1:2:ffff::"));
        assert_ne!(network("2001:db8:1:2::7"), network("2001:db8:1:3::7"));
        assert_ne!(network("192.0.2.7"), network("192.0.2.8"));
        assert_eq!(ClientAddress(None).network(), None);
    }
}
