//! Who may be the master, by what the Sentinels say. Invariant: a Sentinel's word is only a hint where to look, and old
//! news never ranks before new ones: Sentinels number their failovers.

use std::cmp::Reverse;

/// What is heard of one Sentinel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Word {
    #[default]
    NotYet,
    /// It is away, or knows nothing of our master.
    Nothing,
    Names(Candidate),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) address: String,
    /// The number of the failover that made it the master, the Sentinels' `config-epoch`.
    pub(super) failover: u64,
    /// How many Sentinels name it.
    pub(super) votes: usize,
}

impl Candidate {
    pub(super) fn new(address: String, failover: u64) -> Self {
        Self { address, failover, votes: 1 }
    }

    fn rank(&self) -> (u64, usize) {
        (self.failover, self.votes)
    }

    /// Those that rank before this one, by what is said now.
    pub(super) fn betters(&self, words: &[Word]) -> Vec<Self> {
        let mut candidates = candidates(words);
        let named = candidates.iter().find(|candidate| candidate.address == self.address);
        let rank = named.map_or((self.failover, 0), Self::rank);
        candidates.retain(|candidate| candidate.rank() > rank);
        candidates
    }
}

/// The best first: of the newest failover; then whom the most Sentinels name.
pub(super) fn candidates(words: &[Word]) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::new();
    for word in words {
        let Word::Names(named) = word else { continue };
        match candidates.iter_mut().find(|candidate| candidate.address == named.address) {
            Some(candidate) => {
                candidate.failover = candidate.failover.max(named.failover);
                candidate.votes += 1;
            }
            None => candidates.push(named.clone()),
        }
    }
    candidates.sort_by_key(|candidate| Reverse(candidate.rank()));
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(address: &str, failover: u64) -> Word {
        Word::Names(Candidate::new(address.to_owned(), failover))
    }

    fn addresses(candidates: &[Candidate]) -> Vec<&str> {
        candidates.iter().map(|candidate| candidate.address.as_str()).collect()
    }

    #[test]
    fn the_newest_failover_counts_and_then_the_votes() {
        let words = [says("old", 4), Word::Nothing, says("old", 4), says("new", 5), Word::NotYet];
        assert_eq!(addresses(&candidates(&words)), ["new", "old"]);
        let words = [says("lie", 0), says("true", 0), says("true", 0)];
        assert_eq!(addresses(&candidates(&words)), ["true", "lie"]);
        // One that has heard of the failover already lends its news to all who name the same.
        let words = [says("old", 4), says("same", 3), says("same", 5)];
        assert_eq!(addresses(&candidates(&words)), ["same", "old"]);
        assert!(candidates(&[Word::Nothing, Word::NotYet]).is_empty());
    }

    #[test]
    fn a_master_is_left_only_for_newer_news() {
        let ours = Candidate::new("ours".to_owned(), 5);
        let betters =
            |words: &[Word]| ours.betters(words).into_iter().map(|it| it.address).collect::<Vec<_>>();
        assert_eq!(betters(&[says("new", 6), says("ours", 5), says("old", 4)]), ["new"]);
        // Who named it is away for a moment: those who name another speak of an older failover.
        assert!(betters(&[Word::Nothing, says("old", 4), says("old", 4)]).is_empty());
        assert!(betters(&[Word::Nothing, Word::Nothing]).is_empty());
        // It has won the same office again.
        assert!(betters(&[says("ours", 7), says("old", 6)]).is_empty());
        // At the same failover, the votes.
        assert_eq!(betters(&[says("ours", 5), says("true", 5), says("true", 5)]), ["true"]);
        assert!(betters(&[says("ours", 5), says("lie", 5)]).is_empty());
    }
}
