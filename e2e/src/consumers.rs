//! Which consumer writes a coupon's rows, by the consumers' own logs.

use serde::Deserialize;

use crate::stack::Stack;

/// `kafka.partitions` of config-repo/application.yml.
const PARTITIONS: u64 = 8;

/// Who began to write a partition, and when, in RFC 3339.
#[derive(Clone, Debug)]
pub struct Writer {
    pub instance: String,
    pub since: String,
}

#[derive(Deserialize)]
struct Line {
    timestamp: String,
    message: String,
    #[serde(rename = "log.partition")]
    partition: u64,
}

/// Where all records of a coupon are: FNV-1a-64 of the id's eight bytes, big-endian, modulo the partitions.
pub fn partition_of(coupon: u64) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    coupon.to_be_bytes().into_iter().fold(0xcbf2_9ce4_8422_2325, step) % PARTITIONS
}

/// The consumer that writes a partition. One that was killed says nothing, and its successor began later.
///
/// # Panics
/// When nobody writes it.
pub fn writer_of(stack: &Stack, partition: u64) -> Writer {
    let consumers = stack.instances("issue-consumer").into_iter();
    let began = consumers.filter_map(|consumer| {
        let log = stack.log(&consumer.instance);
        let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let last = lines.rfind(|line| {
            line.partition == partition
                && matches!(&*line.message, "writing a partition" | "left a partition")
        })?;
        let writes = last.message == "writing a partition";
        writes.then(|| Writer { instance: consumer.instance.clone(), since: last.timestamp })
    });
    began
        .max_by(|one, other| one.since.cmp(&other.since))
        .unwrap_or_else(|| panic!("nobody writes partition {partition}"))
}

#[cfg(test)]
mod tests {
    use super::partition_of;

    #[test]
    fn partitions_are_frozen() {
        assert_eq!((1..=8).map(partition_of).collect::<Vec<_>>(), [2, 7, 4, 1, 6, 3, 0, 5]);
        assert_eq!(partition_of(244_130_414_592_001), 1);
    }
}
