//! `spring.security`: whose tokens are believed.
//!
//! Invariant: what a file asks for to keep somebody out is done, or the file is refused.

use std::time::Duration;

use serde_json::Value;

use super::tree::{at, list, text, unread};
use crate::config::{JwtAlgorithm, JwtSettings};
use crate::routes::uri::TargetUri;

const PATH: &str = "spring.security.oauth2.resourceserver.jwt";
const JWT: [&str; 5] = ["spring", "security", "oauth2", "resourceserver", "jwt"];
const READ: [&str; 5] = ["audiences", "authority-prefix", "issuer-uri", "jwk-set-uri", "jws-algorithms"];
/// Spring's `JwtTimestampValidator`.
const LEEWAY: Duration = Duration::from_mins(1);
/// Spring's is none: how long a token lives is its issuer's to decide.
const MAX_LIFETIME: Duration = Duration::from_hours(24 * 365 * 100);

pub(super) fn read(
    tree: &Value,
    problems: &mut Vec<String>,
    warnings: &mut Vec<String>,
) -> Option<JwtSettings> {
    let known = READ.map(|name| format!("{PATH}.{name}"));
    for (path, hint) in unread(tree, "spring.security", &known) {
        problems.push(format!(
            "{path}: is not known here, and without it the gateway might let somebody through who is to stay out{hint}"
        ));
    }
    let section = at(tree, &JWT)?;
    // As a rule a placeholder whose variable is missing: nobody wants less to be checked for that.
    let is_empty = |name: &&str| at(section, &[name]).is_some() && list(section, &[name]).is_empty();
    problems.extend(READ.iter().filter(|name| is_empty(name)).map(|name| format!("{PATH}.{name}: is empty")));
    if text(section, &["authority-prefix"]).is_some() {
        warnings.push(format!(
            "{PATH}.authority-prefix means nothing here: `scopes` of a route are as the token has them"
        ));
    }
    let (issuer, jwks_uri) = (text(section, &["issuer-uri"]), text(section, &["jwk-set-uri"]));
    let (name, uri) = match (&jwks_uri, &issuer) {
        (Some(uri), _) => ("jwk-set-uri", uri),
        (None, Some(uri)) => ("issuer-uri", uri),
        (None, None) => {
            problems.push(format!("{PATH}: needs `jwk-set-uri` or `issuer-uri`"));
            return None;
        }
    };
    if !matches!(TargetUri::parse(uri), Ok((TargetUri::Address { .. }, _))) {
        problems.push(format!("{PATH}.{name}: `{uri}` must be https:// or http://"));
    } else if !uri.starts_with("https://") {
        warnings.push(format!("{PATH}.{name}: keys that come by http:// can be changed on their way"));
    }
    Some(JwtSettings {
        issuer: issuer.unwrap_or_default(),
        audience: list(section, &["audiences"]),
        algorithms: algorithms(section, problems),
        jwks_uri: jwks_uri.unwrap_or_default(),
        leeway: LEEWAY,
        max_lifetime: MAX_LIFETIME,
        ..JwtSettings::default()
    })
}

fn algorithms(section: &Value, problems: &mut Vec<String>) -> Vec<JwtAlgorithm> {
    let named = list(section, &["jws-algorithms"]);
    if named.is_empty() {
        return vec![JwtAlgorithm::RS256];
    }
    let mut algorithms = Vec::new();
    for name in named {
        let known =
            JwtAlgorithm::ASYMMETRIC.into_iter().find(|it| format!("{it:?}").eq_ignore_ascii_case(&name));
        match known {
            Some(algorithm) => algorithms.push(algorithm),
            None => problems.push(format!(
                "{PATH}.jws-algorithms: `{name}` is none of {:?}, whose keys are public",
                JwtAlgorithm::ASYMMETRIC
            )),
        }
    }
    algorithms
}
