//! Asks Kafka for a topic's id. rdkafka doesn't wrap this call of librdkafka (DescribeTopics, KIP-516), so it
//! is made here by hand: unsafe code.
#![expect(unsafe_code, reason = "librdkafka's DescribeTopics has no safe wrapper")]

use std::ffi::{CStr, CString};
use std::time::Duration;

use rdkafka::client::{Client, ClientContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka_sys as sys;

/// Blocks until the brokers have answered: the topic's id, if they give one, and its number of partitions.
pub(super) fn describe<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> KafkaResult<(Option<String>, usize)> {
    let name =
        CString::new(topic).map_err(|_| KafkaError::AdminOpCreation("a topic name holds no NUL".into()))?;
    let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    let handle = client.native_ptr();
    // SAFETY: `handle` is a live client for as long as `client` is borrowed. Each object that is made here is
    // used before and destroyed after the call that needs it, once, in reverse order; the names are copied by
    // librdkafka. Everything read from the event is copied out before the event is destroyed.
    unsafe {
        let mut names = [name.as_ptr()];
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let options = sys::rd_kafka_AdminOptions_new(
            handle,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        );
        let mut reason = [0; 256];
        sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout, reason.as_mut_ptr(), reason.len());
        let queue = sys::rd_kafka_queue_new(handle);
        sys::rd_kafka_DescribeTopics(handle, topics, options, queue);
        let event = sys::rd_kafka_queue_poll(queue, timeout);
        let described = if event.is_null() {
            Err(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut))
        } else {
            let described = read(event);
            sys::rd_kafka_event_destroy(event);
            described
        };
        sys::rd_kafka_queue_destroy(queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(topics);
        described
    }
}

/// # Safety
/// `event` is a live event.
unsafe fn read(event: *mut sys::rd_kafka_event_t) -> KafkaResult<(Option<String>, usize)> {
    // SAFETY: every pointer that is read belongs to the event, and is checked where it may be null.
    unsafe {
        check(sys::rd_kafka_event_error(event))?;
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::BadMessage));
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        if topics.is_null() || count != 1 {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::UnknownTopicOrPartition));
        }
        let topic = *topics;
        let error = sys::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() {
            check(sys::rd_kafka_error_code(error))?;
        }
        let mut partitions = 0;
        sys::rd_kafka_TopicDescription_partitions(topic, &raw mut partitions);
        let uuid = sys::rd_kafka_TopicDescription_topic_id(topic);
        if uuid.is_null() {
            return Ok((None, partitions));
        }
        let text = sys::rd_kafka_Uuid_base64str(uuid);
        let id = (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned());
        let none = "AAAAAAAAAAAAAAAAAAAAAA";
        Ok((id.filter(|id| !id.is_empty() && id != none), partitions))
    }
}

fn check(code: sys::rd_kafka_resp_err_t) -> KafkaResult<()> {
    match RDKafkaErrorCode::from(code) {
        RDKafkaErrorCode::NoError => Ok(()),
        code => Err(KafkaError::AdminOp(code)),
    }
}
