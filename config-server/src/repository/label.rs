//! Labels. Invariant: a label is a name, never an expression: `HEAD~1`, `main^`, `main@{yesterday}` and `main:file`
//! mean nothing here.

/// Shorter ids aren't looked for: git's own minimum.
const MIN_ID: usize = 4;
/// A full SHA-256 id.
const MAX_ID: usize = 64;
/// Far above any real name.
const MAX_LENGTH: usize = 255;

/// What the label may mean to git, in the order in which it is tried; for a comma list, part by part.
pub(super) fn candidates(label: &str) -> Vec<String> {
    label.split(',').filter(|part| is_name(part)).flat_map(candidates_of).collect()
}

fn candidates_of(name: &str) -> Vec<String> {
    if name.starts_with("refs/") {
        return vec![name.to_owned()];
    }
    let mut candidates = vec![format!("refs/heads/{name}"), format!("refs/tags/{name}")];
    if (MIN_ID..=MAX_ID).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        candidates.push(name.to_owned());
    }
    candidates
}

/// The rules of `git check-ref-format`, without what a shell or a log would stumble over.
fn is_name(name: &str) -> bool {
    let allowed =
        |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '+' | '#' | '=' | '%' | '@');
    let part = |part: &str| {
        !part.is_empty() && !part.starts_with('.') && !part.ends_with('.') && !part.ends_with(".lock")
    };
    name.len() <= MAX_LENGTH
        && name.chars().all(allowed)
        && !name.starts_with('-')
        && !name.contains("..")
        && name.split('/').all(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_tried_as_branch_tag_and_id() {
        assert_eq!(candidates("main"), ["refs/heads/main", "refs/tags/main"]);
        assert_eq!(candidates("feature/x"), ["refs/heads/feature/x", "refs/tags/feature/x"]);
        assert_eq!(candidates("refs/heads/x"), ["refs/heads/x"]);
        assert_eq!(candidates("beef"), ["refs/heads/beef", "refs/tags/beef", "beef"]);
        assert_eq!(candidates("a,b").len(), 4);
    }

    #[test]
    fn expressions_and_paths_are_nothing() {
        for label in [
            "",
            "HEAD~1",
            "main^",
            "main^{tree}",
            "main@{1}",
            "main:application.yml",
            "../x",
            "a/../b",
            "/a",
            "a//b",
            "a/",
            "-x",
            "a b",
            "a\nb",
            "a\0b",
            ".git",
            "x.lock",
            "a?b",
            "a*b",
            "[a]",
            "a\\b",
        ] {
            assert_eq!(candidates(label), Vec::<String>::new(), "{label:?}");
        }
    }
}
