//! What must be known before the settings: from arguments and a few environment variables, read once.

use rand::Rng as _;

use super::secret::MASK;

/// What every variable of ours begins with.
pub(super) const PREFIX: &str = "FIRSTCOME_";
const DEFAULT_URL: &str = "http://127.0.0.1:8888";
const DEFAULT_PROFILE: &str = "default";

/// Where a process finds its settings, and its name.
#[derive(Clone)]
pub struct Bootstrap {
    /// `http://...` of a configuration server, or `file:FOLDER`; with `optional:` before it, its absence is no error.
    pub config_url: String,
    /// Comma list; the last one wins.
    pub profile: String,
    /// Branch, tag or commit of the configuration; the server's own default when None.
    pub label: Option<String>,
    /// Given by `--instance`, otherwise made up from the service's name when the process starts.
    pub instance: Option<String>,
    /// Whose settings it takes, if not those of the service's own name.
    pub settings_of: Option<&'static str>,
    /// Every `FIRSTCOME_` variable with `__` in it: settings that win over all sources.
    pub overrides: Vec<(String, String)>,
}

impl Bootstrap {
    /// Reads the environment.
    #[must_use]
    pub fn from_env(instance: Option<String>) -> Self {
        Self::from_variables(
            instance,
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
        )
    }

    /// The same from given variables, for tests and for those who start a service in their own process.
    pub fn from_variables(
        instance: Option<String>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let mut bootstrap = Self {
            config_url: DEFAULT_URL.to_owned(),
            profile: DEFAULT_PROFILE.to_owned(),
            label: None,
            instance,
            settings_of: None,
            overrides: Vec::new(),
        };
        for (name, value) in variables {
            match name.strip_prefix(PREFIX) {
                Some("CONFIG_URL") if !value.is_empty() => bootstrap.config_url = value,
                Some("PROFILE") if !value.is_empty() => bootstrap.profile = value,
                Some("CONFIG_LABEL") if !value.is_empty() => bootstrap.label = Some(value),
                Some(path) if path.contains("__") => bootstrap.overrides.push((name, value)),
                _ => {}
            }
        }
        bootstrap.overrides.sort();
        bootstrap
    }

    /// The instance's name: the given one, or `{service}-{8 hex digits}`.
    #[must_use]
    pub fn instance_of(&self, service: &str) -> String {
        self.instance.clone().unwrap_or_else(|| format!("{service}-{:08x}", rand::rng().random::<u32>()))
    }

    /// The profiles, weakest first.
    pub(super) fn profiles(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.profile.split(',').map(str::trim).filter(|profile| !profile.is_empty())
    }
}

impl std::fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let overrides: Vec<_> = self.overrides.iter().map(|(name, _)| (name, MASK)).collect();
        f.debug_struct("Bootstrap")
            .field("config_url", &self.config_url)
            .field("profile", &self.profile)
            .field("label", &self.label)
            .field("instance", &self.instance)
            .field("overrides", &overrides)
            .finish()
    }
}
