//! The filter SecureHeaders: headers that tell a browser to be careful, with Spring's values.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::routes::arguments::Arguments;
use crate::routes::suggestion::suggest;

pub(super) const FIELDS: &[&str] = &[
    "disable",
    "enable",
    "permissionsPolicy",
    "xssProtectionHeaderValue",
    "strictTransportSecurityHeaderValue",
    "frameOptionsHeaderValue",
    "contentTypeOptionsHeaderValue",
    "referrerPolicyHeaderValue",
    "contentSecurityPolicyHeaderValue",
    "downloadOptionsHeaderValue",
    "permittedCrossDomainPoliciesHeaderValue",
];

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
/// Everything off that a page could ask a browser for. Not sent unless enabled.
const NO_PERMISSIONS: &str = "accelerometer=(), ambient-light-sensor=(), autoplay=(), battery=(), camera=(), \
    cross-origin-isolated=(), display-capture=(), document-domain=(), encrypted-media=(), \
    execution-while-not-rendered=(), execution-while-out-of-viewport=(), fullscreen=(), geolocation=(), gyroscope=(), \
    keyboard-map=(), magnetometer=(), microphone=(), midi=(), navigation-override=(), payment=(), \
    picture-in-picture=(), publickey-credentials-get=(), screen-wake-lock=(), sync-xhr=(), usb=(), web-share=(), \
    xr-spatial-tracking=()";
/// In the order of the fields that set other values.
const DEFAULTS: [(HeaderName, &str); 8] = [
    (header::X_XSS_PROTECTION, "1 ; mode=block"),
    (header::STRICT_TRANSPORT_SECURITY, "max-age=631138519"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'self' https:; font-src 'self' https: data:; img-src 'self' https: data:; object-src 'none'; \
         script-src https:; style-src 'self' https: 'unsafe-inline'",
    ),
    (HeaderName::from_static("x-download-options"), "noopen"),
    (HeaderName::from_static("x-permitted-cross-domain-policies"), "none"),
];

/// What an answer gets unless its service has set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecureHeaders(Vec<(HeaderName, HeaderValue)>);

impl SecureHeaders {
    pub(super) fn compile(mut arguments: Arguments) -> Result<Self, Vec<String>> {
        let mut value = |field: &'static str, default: &str| {
            let text = arguments.text(field);
            let value = HeaderValue::from_str(text.as_deref().unwrap_or(default)).ok();
            if value.is_none() {
                arguments.complain(format_args!("`{field}` has characters that no header may have"));
            }
            value
        };
        let policy = value(FIELDS[2], NO_PERMISSIONS);
        let values: Vec<_> = FIELDS[3..]
            .iter()
            .zip(DEFAULTS)
            .map(|(field, (name, default))| (name, value(field, default)))
            .collect();
        let (enabled, disabled) = (arguments.list("enable"), arguments.list("disable"));
        let known: Vec<HeaderName> =
            DEFAULTS.into_iter().map(|(name, _)| name).chain([PERMISSIONS_POLICY]).collect();
        for name in enabled.iter().chain(&disabled) {
            if !known.iter().any(|known| known.as_str().eq_ignore_ascii_case(name)) {
                let hint = suggest(name, known.iter().map(HeaderName::as_str));
                arguments.complain(format_args!("knows no header `{name}`{hint}"));
            }
        }
        let has = |list: &[String], name: &HeaderName| {
            list.iter().any(|other| other.eq_ignore_ascii_case(name.as_str()))
        };
        let mut headers: Vec<_> = values
            .into_iter()
            .filter(|(name, _)| !has(&disabled, name))
            .filter_map(|(name, value)| Some((name, value?)))
            .collect();
        if has(&enabled, &PERMISSIONS_POLICY) && !has(&disabled, &PERMISSIONS_POLICY) {
            headers.extend(policy.map(|policy| (PERMISSIONS_POLICY, policy)));
        }
        arguments.finish(Some(Self(headers)))
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for (name, value) in &self.0 {
            headers.entry(name).or_insert_with(|| value.clone());
        }
    }
}
