//! Asks the configuration server, in the wire format of Spring Cloud Config, or reads a local folder in its place.
//! Retries like Spring's client: six times, 1 s apart, x1.1.

use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::sources::Source;
use super::{Bootstrap, ConfigError};

const ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const GROWTH: f64 = 1.1;
/// The server reads from a local repository; longer means that it hangs.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Characters of a problem's detail that are shown; the server's own are far shorter.
const MAX_DETAIL: usize = 500;
/// Where `optional:` looks when there is no server.
const FALLBACK_FOLDER: &str = "config-repo";

/// What was found, the strongest source first.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) sources: Vec<Source>,
    pub(super) commit: Option<String>,
}

#[derive(Deserialize)]
struct Environment {
    version: Option<String>,
    #[serde(rename = "propertySources")]
    property_sources: Vec<PropertySource>,
}

#[derive(Deserialize)]
struct Problem {
    detail: String,
}

#[derive(Deserialize)]
struct PropertySource {
    name: String,
    source: Map<String, Value>,
}

/// Asks as often as a start may.
pub(super) async fn find(service: &str, bootstrap: &Bootstrap) -> Result<Found, ConfigError> {
    find_within(service, bootstrap, ATTEMPTS).await
}

/// Asks once, for who has a configuration already.
pub(super) async fn find_again(service: &str, bootstrap: &Bootstrap) -> Result<Found, ConfigError> {
    find_within(service, bootstrap, 1).await
}

async fn find_within(service: &str, bootstrap: &Bootstrap, attempts: u32) -> Result<Found, ConfigError> {
    let url = bootstrap.config_url.trim();
    let (optional, url) = match url.strip_prefix("optional:") {
        Some(url) => (true, url),
        None => (false, url),
    };
    let found = match url.strip_prefix("file:") {
        Some(folder) => read_folder(Path::new(folder.trim_start_matches("//")), service, bootstrap),
        None => ask(url, service, bootstrap, if optional { 1 } else { attempts }).await,
    };
    match found {
        Err(error) if optional => {
            tracing::warn!(%error, "going on without it, as it is optional");
            let folder = Path::new(FALLBACK_FOLDER);
            if folder.is_dir() && !url.starts_with("file:") {
                read_folder(folder, service, bootstrap)
            } else {
                Ok(Found { sources: Vec::new(), commit: None })
            }
        }
        found => found,
    }
}

async fn ask(url: &str, service: &str, bootstrap: &Bootstrap, attempts: u32) -> Result<Found, ConfigError> {
    let unavailable = |reason: String| ConfigError::Unavailable { from: without_credentials(url), reason };
    let mut address = reqwest::Url::parse(url).map_err(|error| unavailable(error.to_string()))?;
    {
        let mut path = address.path_segments_mut().map_err(|()| unavailable("is no base URL".to_owned()))?;
        path.pop_if_empty().push(service).push(&bootstrap.profile);
        if let Some(label) = &bootstrap.label {
            // A branch's slashes, as the server wants them.
            path.push(&label.replace('/', "(_)"));
        }
    }
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .no_proxy()
        .build()
        .map_err(|error| unavailable(error.to_string()))?;
    let mut pause = FIRST_PAUSE;
    for attempt in 1.. {
        match ask_once(&client, address.clone()).await {
            Ok(environment) => {
                let sources = environment.property_sources.into_iter();
                let sources = sources.map(|source| Source::from_flat(source.name, &source.source)).collect();
                return Ok(Found {
                    sources,
                    commit: environment.version.filter(|version| !version.is_empty()),
                });
            }
            Err(Refusal { reason, again: false }) => {
                return Err(ConfigError::Refused { from: without_credentials(url), reason });
            }
            Err(Refusal { reason, .. }) if attempt >= attempts => return Err(unavailable(reason)),
            Err(Refusal { reason, .. }) => {
                tracing::warn!(server = %without_credentials(url), %reason, attempt, "no configuration yet");
            }
        }
        tokio::time::sleep(pause).await;
        pause = pause.mul_f64(GROWTH);
    }
    Err(unavailable("was not asked".to_owned()))
}

struct Refusal {
    reason: String,
    /// Whether the next attempt may go better.
    again: bool,
}

async fn ask_once(client: &reqwest::Client, address: reqwest::Url) -> Result<Environment, Refusal> {
    // The URL may hold a password, so that it is in no message.
    let refusal = |error: reqwest::Error| Refusal { reason: deepest(&error.without_url()), again: true };
    let response = client.get(address).send().await.map_err(refusal)?;
    let status = response.status();
    if !status.is_success() {
        let mut reason = format!("the server answered {status}");
        // Its problem (RFC 9457) says more; without one the status has to do.
        let body = response.bytes().await.unwrap_or_default();
        if let Ok(Problem { detail }) = serde_json::from_slice(&body) {
            reason.push_str(": ");
            reason.extend(detail.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_DETAIL));
        }
        return Err(Refusal { reason, again: status.is_server_error() });
    }
    let body = response.bytes().await.map_err(refusal)?;
    serde_json::from_slice(&body)
        .map_err(|error| Refusal { reason: format!("the answer is no configuration: {error}"), again: false })
}

/// The last cause says most: "Connection refused" rather than "error sending request".
fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn without_credentials(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        _ => url.to_owned(),
    }
}

/// `{service}-{profile}`, `application-{profile}` for each profile, the last one first, then `{service}` and
/// `application`.
fn read_folder(folder: &Path, service: &str, bootstrap: &Bootstrap) -> Result<Found, ConfigError> {
    let refused =
        |from: &Path, reason: String| ConfigError::Refused { from: from.display().to_string(), reason };
    if !folder.is_dir() {
        let from = folder.display().to_string();
        return Err(ConfigError::Unavailable { from, reason: "is no folder".to_owned() });
    }
    let mut names = Vec::new();
    for profile in bootstrap.profiles().rev().filter(|profile| *profile != "default") {
        names.push(format!("{service}-{profile}"));
        names.push(format!("application-{profile}"));
    }
    names.push(service.to_owned());
    names.push("application".to_owned());
    let mut sources = Vec::new();
    for name in names {
        for extension in ["yml", "yaml"] {
            let file = folder.join(format!("{name}.{extension}"));
            if !file.is_file() {
                continue;
            }
            let text = std::fs::read_to_string(&file).map_err(|error| refused(&file, error.to_string()))?;
            let tree: Value =
                serde_yaml_ng::from_str(&text).map_err(|error| refused(&file, error.to_string()))?;
            match tree {
                Value::Null => {}
                Value::Object(_) => sources.push(Source { name: file.display().to_string(), tree }),
                _ => return Err(refused(&file, "has no settings at its top".to_owned())),
            }
        }
    }
    Ok(Found { sources, commit: None })
}
