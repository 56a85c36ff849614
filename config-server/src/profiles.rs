//! Profile expressions: `prod & (eu | !test)`, as Spring's `Profiles.of` reads them.

/// Deeper is nothing that anybody writes.
const MAX_DEPTH: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    Is(String),
    Not(Box<Expression>),
    All(Vec<Expression>),
    Any(Vec<Expression>),
}

impl Expression {
    /// None if the text is no expression; `a & b | c` is none without parentheses.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut rest = text;
        let expression = operation(&mut rest, 0)?;
        rest.is_empty().then_some(expression)
    }

    #[must_use]
    pub fn holds(&self, profiles: &[String]) -> bool {
        match self {
            Self::Is(name) => profiles.contains(name),
            Self::Not(inner) => !inner.holds(profiles),
            Self::All(parts) => parts.iter().all(|part| part.holds(profiles)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(profiles)),
        }
    }
}

fn operation(rest: &mut &str, depth: usize) -> Option<Expression> {
    let mut parts = vec![operand(rest, depth)?];
    let mut operator = None;
    while let Some(next) = rest.chars().next().filter(|next| matches!(next, '&' | '|')) {
        if *operator.get_or_insert(next) != next {
            return None;
        }
        *rest = &rest[1..];
        parts.push(operand(rest, depth)?);
    }
    match operator {
        None => parts.pop(),
        Some('&') => Some(Expression::All(parts)),
        Some(_) => Some(Expression::Any(parts)),
    }
}

/// Leaves `rest` without spaces at its beginning.
fn operand(rest: &mut &str, depth: usize) -> Option<Expression> {
    if depth > MAX_DEPTH {
        return None;
    }
    *rest = rest.trim_start();
    let expression = if let Some(inner) = rest.strip_prefix('!') {
        *rest = inner;
        Expression::Not(Box::new(operand(rest, depth + 1)?))
    } else if let Some(inner) = rest.strip_prefix('(') {
        *rest = inner;
        let inner = operation(rest, depth + 1)?;
        *rest = rest.strip_prefix(')')?;
        inner
    } else {
        let end = rest.find(['(', ')', '&', '|', '!']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        *rest = after;
        let name = name.trim();
        if name.is_empty() {
            return None;
        }
        Expression::Is(name.to_owned())
    };
    *rest = rest.trim_start();
    Some(expression)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(expression: &str, profiles: &[&str]) -> bool {
        let profiles: Vec<String> = profiles.iter().map(|&profile| profile.to_owned()).collect();
        Expression::parse(expression).unwrap().holds(&profiles)
    }

    #[test]
    fn expressions_hold_as_in_spring() {
        assert!(holds("prod", &["dev", "prod"]));
        assert!(!holds("prod", &["dev"]));
        assert!(holds("!prod", &["dev"]));
        assert!(holds("prod & eu", &["eu", "prod"]));
        assert!(!holds("prod & eu", &["prod"]));
        assert!(holds("prod & (eu | !test)", &["prod"]));
        assert!(!holds("!(prod | dev)", &["dev"]));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for wrong in ["", "&", "a &", "a & b | c", "(a", "a)", "!", "()", "a (b)"] {
            assert_eq!(Expression::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Expression::parse(&"!".repeat(10_000)), None);
        assert_eq!(Expression::parse(&"(".repeat(10_000)), None);
    }
}
