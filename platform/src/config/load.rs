//! The whole way from bootstrap to checked settings.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::bind::{bind, fields};
use super::sources::{Source, layer, leaves, read_files};
use super::{
    Bootstrap, ConfigError, ConsulSettings, IdentitySettings, KafkaSettings, MysqlSettings, Problems,
    RedisSettings, ServerSettings, Settings, TelemetrySettings, remote,
};

/// Settings that passed every check.
#[derive(Debug)]
pub struct Loaded<S> {
    pub settings: S,
    /// The commit of the configuration repository, when a server gave it.
    pub commit: Option<String>,
    /// Where each value came from, by its path; what is not here is a default.
    pub origins: BTreeMap<String, String>,
}

/// Where a running process finds its settings again, as they are now.
#[derive(Clone, Debug)]
pub struct Configuration {
    service: &'static str,
    bootstrap: Bootstrap,
}

impl Configuration {
    pub(crate) fn new(service: &'static str, bootstrap: Bootstrap) -> Self {
        Self { service, bootstrap }
    }

    /// Asks once.
    ///
    /// # Errors
    /// As [`load`].
    pub async fn load<S: Settings>(&self) -> Result<Loaded<S>, ConfigError> {
        let found = remote::find_again(self.service, &self.bootstrap).await?;
        of_found(found, &self.bootstrap)
    }
}

/// # Errors
/// When the configuration can't be had, or with the list of everything that is wrong with it.
pub async fn load<S: Settings>(service: &str, bootstrap: &Bootstrap) -> Result<Loaded<S>, ConfigError> {
    let found = remote::find(service, bootstrap).await?;
    of_found(found, bootstrap)
}

fn of_found<S: Settings>(found: remote::Found, bootstrap: &Bootstrap) -> Result<Loaded<S>, ConfigError> {
    let variables = bootstrap.overrides.iter().map(|(name, value)| Source::from_variable(name, value));
    let sources = variables.chain(found.sources).collect();
    let (settings, origins) = resolve(sources)?;
    Ok(Loaded { settings, commit: found.commit, origins })
}

/// Settings out of sources, the strongest first.
pub(super) fn resolve<S: Settings>(
    sources: Vec<Source>,
) -> Result<(S, BTreeMap<String, String>), ConfigError> {
    let (mut tree, origins) = layer(sources);
    let own = fields::<S>();
    if let (Some(own), Value::Object(map)) = (own, &mut tree) {
        map.retain(|section, _| own.contains(&section.as_str()));
    }
    let mut problems = Problems::default();
    read_files(&mut tree, "", &mut problems);
    let settings: Option<S> = bind(&mut tree.clone(), "", &mut problems);
    if let Some(own) = own {
        check_sections(&tree, own, &mut problems);
    }
    if let Some(settings) = &settings {
        let mut more = Problems::default();
        settings.validate(&mut more);
        add_unless_known(&mut problems, &more);
    }
    match settings {
        Some(settings) if problems.is_empty() => Ok((settings, origins)),
        _ => Err(ConfigError::Invalid(problems)),
    }
}

/// What could not be read stands at its default, so that its check says nothing true.
fn add_unless_known(problems: &mut Problems, more: &Problems) {
    for line in more.iter() {
        let (path, message) = line.split_once(": ").unwrap_or((line, ""));
        let known = problems.iter().any(|known| {
            let at = known.split(": ").next().unwrap_or_default();
            let at = at.strip_suffix("-file").unwrap_or(at);
            path == at || path.strip_prefix(at).is_some_and(|rest| rest.starts_with(['.', '[']))
        });
        if !known {
            problems.add(path, message);
        }
    }
}

/// Checks the platform's own sections, of those that the service has.
fn check_sections(tree: &Value, own: &[&str], problems: &mut Problems) {
    let mut more = Problems::default();
    let empty = Value::Object(Map::new());
    let mut unheard = Problems::default();
    macro_rules! check {
        ($($name:literal $type:ty,)*) => {$(
            if own.contains(&$name) {
                let mut section = tree.get($name).unwrap_or(&empty).clone();
                if let Some(section) = bind::<$type>(&mut section, $name, &mut unheard) {
                    section.validate(&mut more);
                }
            }
        )*};
    }
    check! {
        "server" ServerSettings, "consul" ConsulSettings, "telemetry" TelemetrySettings, "mysql" MysqlSettings,
        "redis" RedisSettings, "kafka" KafkaSettings, "identity" IdentitySettings,
    }
    add_unless_known(problems, &more);
}

/// What `/actuator/env` shows: each effective value, with secrets masked by their type, grouped by where it came from.
pub(crate) fn environment(settings: &Value, origins: &BTreeMap<String, String>, profile: &str) -> Value {
    let mut groups: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    leaves(settings, String::new(), &mut |path, value| {
        let origin = origin_of(&path, origins);
        let name = origin.unwrap_or("defaults").to_owned();
        groups.entry(name.clone()).or_default().insert(path, json!({"value": value, "origin": name}));
    });
    let sources: Vec<Value> = groups
        .into_iter()
        .map(|(name, properties)| json!({"name": name, "properties": properties}))
        .collect();
    let profiles: Vec<&str> = profile.split(',').map(str::trim).collect();
    json!({"activeProfiles": profiles, "propertySources": sources})
}

fn origin_of<'a>(path: &str, origins: &'a BTreeMap<String, String>) -> Option<&'a str> {
    let of = |path: &str| origins.get(path).map(String::as_str);
    of(&format!("{path}-file"))
        .or_else(|| of(path))
        // A list given as one text.
        .or_else(|| path.split_once('[').and_then(|(list, _)| of(list)))
}

#[cfg(test)]
mod tests;
