//! What the log says against what the tables hold: pure, so that each difference can be shown to be found.

use std::cmp::Ordering;

use crate::index::{self, Row, Watermark};
use crate::replay::Replayed;
use crate::replay::rules::{self, Digest};
use crate::verdict::Offender;

/// The winners of a coupon; both sides sorted by user.
pub(crate) fn rows(log: &[Row], tables: &[Row]) -> Vec<Offender> {
    let mut differences = Vec::new();
    let (mut log, mut tables) = (log.iter().peekable(), tables.iter().peekable());
    loop {
        let order = match (log.peek(), tables.peek()) {
            (Some(won), Some(row)) => won.user.cmp(&row.user),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return differences,
        };
        let won = if order == Ordering::Greater { None } else { log.next() };
        let row = if order == Ordering::Less { None } else { tables.next() };
        let problem = match (won, row) {
            (Some(won), None) => {
                Some(format!("won place {} at offset {} of the log, and has no row", won.place, won.offset))
            }
            (None, Some(row)) => Some(format!("has a row more, at place {}, than the log gives", row.place)),
            (Some(won), Some(row)) => differing([
                ("place", row.place, won.place),
                ("offset", row.offset, won.offset),
                ("issued_at", row.issued_at, won.issued_at),
            ]),
            (None, None) => None,
        };
        let user = won.or(row).map(|row| row.user);
        differences.extend(problem.map(|problem| Offender { user, problem }));
    }
}

/// Partition, definition in force, retirement and count of a coupon.
pub(crate) fn coupon(
    id: u64,
    partition: u32,
    log: Option<&rules::Coupon>,
    tables: Option<&index::Coupon>,
) -> Option<String> {
    let problem = match (log, tables) {
        (None, None) => None,
        (Some(_), None) => Some("defined in the log and not in the tables".to_owned()),
        (None, Some(_)) => Some("defined in the tables and not in the log".to_owned()),
        (Some(log), Some(tables)) => {
            let (is, must) = (tables.definition, log.definition);
            let retired = |offset: Option<u64>| offset.map_or(0, |offset| offset + 1);
            differing([
                ("log_partition", tables.partition, u64::from(partition)),
                ("version", is.version, must.version),
                ("stock", is.stock, must.stock),
                ("starts_at", is.starts_at, must.starts_at),
                ("ends_at", is.ends_at, must.ends_at),
                ("closed", u64::from(is.closed), u64::from(must.closed)),
                ("the offset after the retirement", retired(tables.retired_at), retired(log.retired_at)),
                ("count", tables.count, log.count()),
            ])
        }
    };
    problem.map(|problem| format!("coupon {id}: {problem}"))
}

fn differing<const N: usize>(fields: [(&str, u64, u64); N]) -> Option<String> {
    let differ = fields.into_iter().filter(|(_, is, must)| is != must);
    let differ: Vec<String> =
        differ.map(|(name, is, must)| format!("{name} is {is}, by the log {must}")).collect();
    (!differ.is_empty()).then(|| differ.join(", "))
}

/// The number of partitions, which is part of the data.
pub(crate) fn partitions(log: u32, recorded: Option<u64>, watermarks: &[Watermark]) -> Vec<String> {
    let mut problems = Vec::new();
    match recorded {
        Some(recorded) if recorded != u64::from(log) => {
            problems.push(format!("the log has {log} partitions, and the tables were begun with {recorded}"));
        }
        None if !watermarks.is_empty() => problems.push("ledger_meta names no log".to_owned()),
        _ => {}
    }
    for watermark in watermarks.iter().filter(|watermark| watermark.partition >= u64::from(log)) {
        problems.push(format!(
            "there is a watermark of partition {}, which the log has not",
            watermark.partition
        ));
    }
    problems
}

/// The digests that were stored for a partition, and the hash of its last record. What differs is narrowed to the
/// offsets between two stored digests: a digest covers everything before it, so one that agrees clears all of that.
pub(crate) fn digests(log: &Replayed, watermark: &Watermark, stored: &[(u64, Digest)]) -> Vec<String> {
    let mut problems: Vec<String> = log.stopped.iter().cloned().collect();
    let mut places: Vec<(u64, Digest, Option<Digest>)> = log
        .checkpoints
        .iter()
        .map(|&(next, digest)| {
            let found = stored.iter().find(|(place, _)| *place == next);
            (next, digest, found.map(|(_, digest)| *digest))
        })
        .collect();
    for (next, ..) in places.iter().filter(|(.., stored)| stored.is_none()) {
        problems.push(format!("no digest is stored for offset {next}"));
    }
    for (next, _) in stored {
        if *next > watermark.next || !next.is_multiple_of(rules::DIGEST_EVERY) {
            problems.push(format!("a digest is stored for offset {next}, where none can be"));
        }
    }
    let complete = log.ledger.next == watermark.next;
    if complete {
        places.push((watermark.next, log.ledger.digest, Some(watermark.digest)));
    }
    let agrees = |place: &(u64, Digest, Option<Digest>)| place.2 == Some(place.1);
    let cleared = places.iter().rposition(agrees).map_or(0, |last| last + 1);
    let sound = if cleared == 0 { 0 } else { places[cleared - 1].0 };
    let differs = |place: &&(u64, Digest, Option<Digest>)| place.2.is_some() && !agrees(place);
    for (next, ..) in places[..cleared].iter().filter(differs) {
        problems.push(format!(
            "the digest stored for offset {next} differs, and a later one agrees: it was changed"
        ));
    }
    if let Some((next, ..)) = places[cleared..].iter().find(differs) {
        problems.push(format!(
            "the digests differ from offset {next} on: the first record that differs is at offset {sound} to {}",
            next.saturating_sub(1)
        ));
    }
    if complete && watermark.next > 0 && log.last_record_hash != watermark.last_record_hash {
        problems.push(format!("the hash of the last record, at offset {}, differs", watermark.next - 1));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::record::tests::encode;
    use crate::replay::record::{Definition, Record};
    use crate::replay::rules::{DIGEST_EVERY, Entry, record_hash};

    fn row(user: u64, place: u64) -> Row {
        Row { user, place, offset: place + 10, issued_at: 5 }
    }

    fn found(log: &[Row], tables: &[Row]) -> Vec<(u64, String)> {
        rows(log, tables).into_iter().map(|offender| (offender.user.unwrap(), offender.problem)).collect()
    }

    #[test]
    fn each_row_that_differs_is_named() {
        let log = [row(1, 2), row(4, 1), row(9, 3)];
        assert_eq!(found(&log, &log), []);
        let missing = found(&log, &[log[0], log[2]]);
        assert_eq!(missing, [(4, "won place 1 at offset 11 of the log, and has no row".to_owned())]);
        let extra = "has a row more, at place 7, than the log gives".to_owned();
        assert_eq!(found(&log, &[log[0], log[1], row(5, 7), log[2]]), [(5, extra.clone())]);
        assert_eq!(found(&log, &[log[0], log[1], log[2], row(9, 7)]), [(9, extra.clone())], "twice");
        assert_eq!(found(&log, &[log[0], log[1], row(4, 7), log[2]]), [(4, extra)], "twice");
        let changed = Row { place: 3, offset: 0, issued_at: 6, user: 1 };
        let problem = "place is 3, by the log 2, offset is 0, by the log 12, issued_at is 6, by the log 5";
        assert_eq!(found(&log, &[changed, log[1], log[2]]), [(1, problem.to_owned())]);
        assert_eq!(found(&[], &log).len() + found(&log, &[]).len(), 6);
    }

    #[test]
    fn each_field_of_a_coupon_counts() {
        let definition = Definition { version: 3, stock: 5, starts_at: 1, ends_at: 9, closed: false };
        let log = rules::Coupon { definition, retired_at: Some(0), winners: [1, 2].into() };
        let same = index::Coupon { id: 7, partition: 0, definition, retired_at: Some(0), count: 2 };
        assert_eq!(coupon(7, 0, Some(&log), Some(&same)), None);
        assert!(coupon(7, 1, Some(&log), Some(&same)).is_some());
        let with = |definition: Definition| index::Coupon { definition, ..same };
        for other in [
            with(Definition { version: 4, ..definition }),
            with(Definition { stock: 6, ..definition }),
            with(Definition { starts_at: 0, ..definition }),
            with(Definition { ends_at: 10, ..definition }),
            with(Definition { closed: true, ..definition }),
            index::Coupon { retired_at: None, ..same },
            index::Coupon { count: 3, ..same },
        ] {
            assert!(coupon(7, 0, Some(&log), Some(&other)).is_some(), "{other:?}");
        }
        assert!(coupon(7, 0, None, Some(&same)).is_some() && coupon(7, 0, Some(&log), None).is_some());
        assert_eq!(coupon(7, 0, None, None), None);
    }

    #[test]
    fn another_number_of_partitions_is_told() {
        let watermark = |partition| Watermark { partition, ..Watermark::default() };
        assert_eq!(partitions(8, Some(8), &[watermark(7)]), Vec::<String>::new());
        assert_eq!(partitions(8, None, &[]), Vec::<String>::new());
        assert_eq!(partitions(8, Some(4), &[]).len(), 1);
        assert_eq!(partitions(8, Some(8), &[watermark(8)]).len(), 1);
        assert_eq!(partitions(8, None, &[watermark(0)]).len(), 1);
    }

    /// A partition of noops, as the log and the tables have it.
    fn partition(length: u64) -> (Replayed, Watermark) {
        let mut log = Replayed::new(0, 1);
        let value = encode(&Record::Noop);
        for offset in 0..length {
            let entry = Entry { offset, appended_at: 1, value: &value };
            log.apply(Ok(entry)).unwrap();
            log.last_record_hash = record_hash(entry);
        }
        let watermark = Watermark {
            partition: 0,
            next: length,
            digest: log.ledger.digest,
            last_record_hash: log.last_record_hash,
        };
        (log, watermark)
    }

    #[test]
    fn a_difference_is_narrowed_between_two_digests() {
        let (log, watermark) = partition(3 * DIGEST_EVERY + 5);
        let stored = log.checkpoints.clone();
        assert_eq!(stored.len(), 3);
        assert_eq!(digests(&log, &watermark, &stored), Vec::<String>::new());

        let broken = |from: usize| -> Vec<_> {
            let digest = |(index, &(next, digest)): (usize, &(u64, Digest))| {
                (next, if index < from { digest } else { [9; 32] })
            };
            stored.iter().enumerate().map(digest).collect()
        };
        let wrong = Watermark { digest: [9; 32], ..watermark };
        let problems = digests(&log, &wrong, &broken(1));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].ends_with("at offset 4096 to 8191"), "{problems:?}");
        let problems = digests(&log, &wrong, &stored);
        assert!(problems[0].ends_with("at offset 12288 to 12292"), "{problems:?}");
        let problems = digests(&log, &wrong, &broken(0));
        assert!(problems[0].ends_with("at offset 0 to 4095"), "{problems:?}");

        let problems = digests(&log, &watermark, &broken(2));
        assert_eq!(problems.len(), 1, "the digest at the watermark clears the log: {problems:?}");
        assert!(problems[0].contains("12288 differs, and a later one agrees"), "{problems:?}");
    }

    #[test]
    fn what_is_missing_or_too_much_is_told() {
        let (log, watermark) = partition(DIGEST_EVERY + 1);
        let told = |log: &Replayed, watermark: &Watermark, stored: &[(u64, Digest)]| {
            digests(log, watermark, stored).join("; ")
        };
        assert_eq!(told(&log, &watermark, &[]), "no digest is stored for offset 4096");
        let more = [log.checkpoints[0], (8192, [0; 32]), (5, [0; 32])];
        let both = told(&log, &watermark, &more);
        assert!(both.contains("offset 8192, where none can be") && both.contains("offset 5,"), "{both}");
        let other = Watermark { last_record_hash: [9; 32], ..watermark };
        assert_eq!(
            told(&log, &other, &log.checkpoints),
            "the hash of the last record, at offset 4096, differs"
        );

        // A log that ends early says so, and nothing that only its end could tell.
        let (mut cut, _) = partition(3);
        cut.stopped = Some("the log ends at offset 3".to_owned());
        assert_eq!(told(&cut, &watermark, &log.checkpoints), "the log ends at offset 3");
    }
}
