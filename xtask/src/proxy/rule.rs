//! What is done to which links: pure.

use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// What is sent arrives this much later.
    Delay(Duration),
    /// Nothing arrives and nobody is told. What was sent arrives when it is over, as TCP would send it again. A new
    /// link is taken and then silent.
    BlackHole,
    /// Reset, in both directions, and so is every new one.
    Cut,
}

/// As seen from whoever opened the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    FromServer,
    Both,
}

/// Whose links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Everybody,
    /// The processes of these names.
    These(Vec<String>),
}

#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) id: u64,
    pub(super) from: Source,
    pub(super) way: Way,
    pub(super) effect: Effect,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Rules(Vec<Rule>);

impl AsMut<Vec<Rule>> for Rules {
    fn as_mut(&mut self) -> &mut Vec<Rule> {
        &mut self.0
    }
}

impl Rules {
    /// The latest that concerns this direction of a link from `peer`.
    pub(super) fn effect(&self, peer: Option<&str>, way: Way) -> Option<Effect> {
        let concerns = |rule: &&Rule| {
            let from = match &rule.from {
                Source::Everybody => true,
                Source::These(names) => peer.is_some_and(|peer| names.iter().any(|name| name == peer)),
            };
            from && (rule.effect == Effect::Cut || rule.way == Way::Both || rule.way == way)
        };
        self.0.iter().rev().find(concerns).map(|rule| rule.effect)
    }

    /// Whether any rule needs to know who is at the other end.
    pub(super) fn by_name(&self) -> bool {
        self.0.iter().any(|rule| matches!(rule.from, Source::These(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_rule_that_concerns_a_link_counts() {
        let these = || Source::These(vec!["redis-2".to_owned()]);
        let rule = |id, from, way, effect| Rule { id, from, way, effect };
        let mut rules = Rules(vec![rule(1, Source::Everybody, Way::FromServer, Effect::BlackHole)]);
        assert!(!rules.by_name());
        rules.0.push(rule(2, these(), Way::Both, Effect::Delay(Duration::from_secs(1))));
        assert!(rules.by_name());
        let late = Some(Effect::Delay(Duration::from_secs(1)));
        assert_eq!(rules.effect(Some("redis-2"), Way::FromServer), late);
        assert_eq!(rules.effect(Some("redis-2"), Way::ToServer), late);
        assert_eq!(rules.effect(Some("redis-3"), Way::FromServer), Some(Effect::BlackHole));
        assert_eq!(rules.effect(None, Way::FromServer), Some(Effect::BlackHole));
        assert_eq!(rules.effect(Some("redis-3"), Way::ToServer), None);
        // A link can't be cut in one direction only.
        rules.0.push(rule(3, Source::Everybody, Way::ToServer, Effect::Cut));
        assert_eq!(rules.effect(None, Way::FromServer), Some(Effect::Cut));
    }
}
