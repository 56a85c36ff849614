//! The checks that concern the whole log: digests, definitions, dead letters.

use std::collections::HashMap;

use anyhow::Result;
use indicatif::ProgressBar;

use super::history::History;
use crate::dlt::letters::Letter;
use crate::kafka::Topic;
use crate::replay::rules::Decision;
use crate::replay::{self, Replayed};
use crate::terminal::grouped;
use crate::verdict::{Check, Offender};

/// A partition as its records make it.
pub(crate) struct Partition {
    pub(crate) replayed: Replayed,
    /// Of the coupons that were asked for.
    pub(crate) histories: HashMap<u64, History>,
    /// Offsets of records that are none.
    pub(crate) unreadable: Vec<u64>,
}

impl Partition {
    /// A coupon's part, or why it can't be known.
    pub(crate) fn history(&self, coupon: u64) -> Result<&History, String> {
        static NOTHING: History = History::new();
        match &self.replayed.stopped {
            Some(why) => Err(why.clone()),
            None => Ok(self.histories.get(&coupon).unwrap_or(&NOTHING)),
        }
    }
}

/// Decides everything below `end`; `only` one coupon is looked at closely, or all.
pub(crate) fn read(
    topic: &Topic,
    partition: u32,
    end: u64,
    only: Option<u64>,
    bar: &ProgressBar,
) -> Result<Partition> {
    let mut histories: HashMap<u64, History> = HashMap::new();
    let mut unreadable = Vec::new();
    let replayed = replay::replay(topic, partition, end, bar, |entry, decided, ledger| {
        if matches!(decided.decision, Decision::Malformed | Decision::Invalid) {
            unreadable.push(entry.offset);
            return;
        }
        let id = decided.record.ok().and_then(|record| record.coupon());
        let id = id.filter(|id| only.is_none_or(|only| only == *id));
        if let Some((id, coupon)) = id.and_then(|id| Some((id, ledger.coupons.get(&id)?))) {
            histories.entry(id).or_insert_with(History::new).note(entry, decided, coupon);
        }
    })?;
    histories.values_mut().for_each(History::complete);
    Ok(Partition { replayed, histories, unreadable })
}

/// I8: digests, definitions, counts and watermarks are those that the log gives.
pub(crate) fn tables_are_the_logs(records: u64, partitions: usize, problems: Vec<String>) -> Check {
    let compared = format!("{} records decided again, of partitions: {partitions}", grouped(records));
    let offenders = problems.into_iter().map(Offender::from).collect();
    Check::of("I8", "digests, definitions and counts are the log's", compared, offenders)
}

/// I6: nothing waits among the dead letters but what is expected.
pub(crate) fn no_dead_letters(letters: Option<&[Letter]>, expected: u64) -> Check {
    const WHAT: &str = "no dead letter waits";
    let Some(letters) = letters else {
        return Check::not_judged("I6", WHAT, "no Kafka given, or no such topic");
    };
    let waiting: Vec<&Letter> = letters.iter().filter(|letter| letter.waits()).collect();
    let count = waiting.len() as u64;
    let resolved = letters.len() as u64 - count;
    let compared =
        format!("{} wait, {} expected, {} resolved", grouped(count), grouped(expected), grouped(resolved));
    let mut check = Check::new("I6", WHAT, compared, count == expected);
    if count != expected {
        let problem = |letter: &Letter| Offender::from(format!("letter {}: {}", letter.id, letter.reason));
        check.offenders = waiting.into_iter().map(problem).collect();
    }
    check
}

/// I6: a letter for each record that can't be read, and for no other. Letters of partitions that were not read again
/// are not looked at.
pub(crate) fn letters_are_the_logs(letters: &[Letter], partitions: &[(u32, u64, Vec<u64>)]) -> Check {
    let mut offenders = Vec::new();
    let mut unreadable = 0;
    for (partition, end, offsets) in partitions {
        unreadable += offsets.len() as u64;
        let mut set_aside: Vec<u64> = letters
            .iter()
            .filter(|letter| letter.partition == Some(*partition))
            .filter_map(|letter| letter.offset)
            .filter(|offset| offset < end)
            .collect();
        set_aside.sort_unstable();
        let missing = offsets.iter().filter(|offset| set_aside.binary_search(offset).is_err());
        offenders.extend(missing.map(|offset| {
            format!("the record at {partition}/{offset} can't be read, and was not set aside").into()
        }));
        let wrong = set_aside.iter().filter(|offset| offsets.binary_search(offset).is_err());
        offenders.extend(wrong.map(|offset| {
            format!("the record at {partition}/{offset} was set aside, and can be read").into()
        }));
    }
    let compared = format!("{} records that can't be read", grouped(unreadable));
    Check::of("I6", "dead letters are the log's", compared, offenders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dlt::letters::tests::letter;
    use crate::verdict::Verdict;

    #[test]
    fn letters_wait_as_expected_or_fail() {
        let mut letters = [letter(1, 5), letter(1, 9), letter(0, 2)];
        let verdict = |letters: &[Letter], expected| no_dead_letters(Some(letters), expected).verdict;
        assert_eq!(no_dead_letters(None, 0).verdict, Verdict::NotJudged);
        assert_eq!([verdict(&[], 0), verdict(&letters, 3)], [Verdict::Ok; 2]);
        assert_eq!([verdict(&letters, 0), verdict(&letters, 4)], [Verdict::Failed; 2]);
        assert_eq!(no_dead_letters(Some(&letters), 2).offenders.len(), 3);
        letters[1].resolution = Some(crate::dlt::letters::tests::resolution());
        assert_eq!(verdict(&letters, 2), Verdict::Ok);
    }

    #[test]
    fn each_unreadable_record_has_a_letter_and_no_other_has() {
        let letters = [letter(1, 5), letter(1, 9), letter(0, 2), letter(2, 7)];
        let problems = |partitions: &[(u32, u64, Vec<u64>)]| -> Vec<String> {
            letters_are_the_logs(&letters, partitions)
                .offenders
                .into_iter()
                .map(|offender| offender.problem)
                .collect()
        };
        assert_eq!(problems(&[(0, 10, vec![2]), (1, 10, vec![5, 9])]), Vec::<String>::new());
        let missing = "the record at 0/4 can't be read, and was not set aside";
        assert_eq!(problems(&[(0, 10, vec![2, 4])]), [missing]);
        assert_eq!(problems(&[(1, 10, vec![9])]), ["the record at 1/5 was set aside, and can be read"]);
        assert_eq!(problems(&[(1, 9, vec![5])]), Vec::<String>::new(), "above the watermark");
    }
}
