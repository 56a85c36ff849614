//! A route as it is written, in the notation of Spring Cloud Gateway: predicates and filters as a shortcut
//! (`StripPrefix=1`) or in full (`name: StripPrefix`, `args: {parts: 1}`).
//!
//! Nothing is judged here beyond the form; what a name and its arguments mean is for [`super::predicate`] and
//! [`super::filter`].

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::config::Authentication;

/// One route.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct RouteDefinition {
    pub id: String,
    /// `lb://service`, `http://host:port`, `https://host:port`, or `no://op`.
    pub uri: String,
    /// `Path=/coupons/**`, `Method=GET,HEAD`; all have to hold.
    #[serde(default)]
    pub predicates: Vec<Definition>,
    #[serde(default)]
    pub filters: Vec<Definition>,
    /// Lower is matched earlier; equals as listed.
    #[serde(default)]
    pub order: i32,
    /// `connect-timeout`, `response-timeout` (milliseconds, or text with a unit) and `cors` mean something; the rest
    /// is shown to operators.
    #[serde(default)]
    pub metadata: BTreeMap<String, Value>,
    /// None: as `public-paths` and the default say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
    /// The caller needs one of these; 403 without. Empty: whoever is known may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// The caller's token needs all of these (`scope`, RFC 9068, 2.2.3); 403 without.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// Whether the service is told the client's address, in a signed header: for logins, which are counted by it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub client_address: bool,
    /// Requests of this route at once; 503 `OVERLOADED` beyond, so that one slow service cannot take all places.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<usize>,
    /// False: as if it were not there.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub enabled: bool,
}

fn yes() -> bool {
    true
}

/// One predicate or filter as written.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    pub name: String,
    pub arguments: Written,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Written {
    /// Behind the `=` of a shortcut, cut at commas. `None`: there was no `=`.
    Listed(Option<Vec<String>>),
    /// `args` of the full form.
    Named(BTreeMap<String, Value>),
}

impl Definition {
    /// From a shortcut: the first `=` ends the name, commas part the arguments, white space around them and empty ones
    /// fall away, as in Spring.
    #[must_use]
    pub fn shortcut(text: &str) -> Self {
        let (name, arguments) = match text.split_once('=') {
            Some((name, arguments)) => (name, Some(listed(arguments))),
            None => (text, None),
        };
        Self { name: name.trim().to_owned(), arguments: Written::Listed(arguments) }
    }
}

/// Cut at commas as Spring cuts them.
pub(crate) fn listed(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// As a shortcut, or as near to one as it comes.
impl fmt::Display for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match &self.arguments {
            Written::Listed(None) => Ok(()),
            Written::Listed(Some(arguments)) => write!(f, "={}", arguments.join(", ")),
            Written::Named(arguments) if arguments.is_empty() => Ok(()),
            Written::Named(arguments) => {
                let mut separator = ' ';
                for (key, value) in arguments {
                    match value {
                        Value::String(text) => write!(f, "{separator}{key}={text}")?,
                        other => write!(f, "{separator}{key}={other}")?,
                    }
                    separator = ',';
                }
                Ok(())
            }
        }
    }
}

impl Serialize for Definition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.arguments {
            Written::Listed(_) => serializer.collect_str(self),
            Written::Named(arguments) => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("name", &self.name)?;
                map.serialize_entry("args", arguments)?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Definition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Definition;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`Name=arguments`, or a map of `name` and `args`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Definition, E> {
                Ok(Definition::shortcut(text))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Definition, A::Error> {
                let (mut name, mut arguments) = (None, BTreeMap::new());
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "name" => name = Some(map.next_value::<String>()?),
                        "args" => match map.next_value::<Value>()? {
                            Value::Object(given) => arguments = given.into_iter().collect(),
                            // An empty map is an empty text on its way through a configuration server.
                            Value::Null => {}
                            Value::String(text) if text.is_empty() => {}
                            _ => return Err(de::Error::custom("`args` must be a map of names to values")),
                        },
                        other => {
                            return Err(de::Error::custom(format_args!(
                                "`{other}` is neither `name` nor `args`, which are all that the full form has"
                            )));
                        }
                    }
                }
                let name = name.ok_or_else(|| de::Error::missing_field("name"))?;
                Ok(Definition { name: name.trim().to_owned(), arguments: Written::Named(arguments) })
            }
        }
        deserializer.deserialize_any(Form)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shortcuts_are_cut_as_spring_cuts_them() {
        let arguments = |text| match Definition::shortcut(text) {
            Definition { name, arguments: Written::Listed(arguments) } => (name, arguments),
            other => panic!("{other:?}"),
        };
        let some = |list: &[&str]| Some(list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        assert_eq!(arguments("Path=/a, /b ,"), ("Path".to_owned(), some(&["/a", "/b"])));
        assert_eq!(
            arguments("AddRequestHeader=X-A, k=v"),
            ("AddRequestHeader".to_owned(), some(&["X-A", "k=v"]))
        );
        assert_eq!(arguments("PreserveHostHeader"), ("PreserveHostHeader".to_owned(), None));
        assert_eq!(arguments("Path="), ("Path".to_owned(), some(&[])));
    }

    #[test]
    fn both_forms_are_read_and_shown_again() {
        let written = json!({
            "id": "r", "uri": "lb://s", "order": 0, "metadata": {},
            "predicates": ["Path=/a, /b", {"name": "Method", "args": {"methods": ["GET", "HEAD"]}}],
            "filters": ["PreserveHostHeader", {"name": "RequestSize", "args": {"maxSize": "5MB"}}],
        });
        let route: RouteDefinition = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(serde_json::to_value(&route).unwrap(), written);
        assert_eq!(route.filters[1].to_string(), "RequestSize maxSize=5MB");
    }

    #[test]
    fn what_is_neither_form_is_refused() {
        for (definition, why) in [
            (json!({"args": {}}), "missing field `name`"),
            (json!({"name": "Path", "arguments": {}}), "`arguments` is neither"),
            (json!({"name": "Path", "args": ["/a"]}), "must be a map"),
            (json!(7), "`Name=arguments`"),
        ] {
            let error = serde_json::from_value::<Definition>(definition).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
