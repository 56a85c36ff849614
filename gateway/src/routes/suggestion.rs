//! "Did you mean": the known name that is nearest to one that nobody knows.

/// Below this likeness (Jaro-Winkler, 0 to 1) a suggestion would only puzzle.
const LIKELY: f64 = 0.75;

/// `; did you mean ...?`, or nothing if no name is near. Case, `-` and `_` count for nothing.
#[must_use]
pub fn suggest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let wrong = plain(wrong);
    let likeness = |name: &str| strsim::jaro_winkler(&wrong, &plain(name));
    known
        .into_iter()
        .map(|name| (name, likeness(name)))
        .filter(|(_, likeness)| *likeness >= LIKELY)
        .max_by(|(_, one), (_, other)| one.total_cmp(other))
        .map_or_else(String::new, |(name, _)| format!("; did you mean `{name}`?"))
}

/// Names of arguments are compared like this, as Spring's relaxed binding does.
pub(crate) fn plain(name: &str) -> String {
    name.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_suggested_and_far_ones_are_not() {
        let known = ["StripPrefix", "PrefixPath", "RewritePath", "Retry"];
        assert_eq!(suggest("StripPrefx", known), "; did you mean `StripPrefix`?");
        assert_eq!(suggest("strip-prefix", known), "; did you mean `StripPrefix`?");
        assert_eq!(suggest("Rewritepaths", known), "; did you mean `RewritePath`?");
        assert_eq!(suggest("Xyzzy", known), "");
        assert_eq!(suggest("Path", []), "");
    }
}
