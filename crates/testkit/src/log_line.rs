//! An envelope as a real one looks, for measuring.

use bytes::Bytes;
use loggregator_client::message;
use prost::Message as _;

/// The encoded envelope of a log line of app number `source`, with a text of `payload` bytes and the tags that the platform adds.
/// All of them lie within the same seconds, as neighbours in a stream do.
#[must_use]
pub fn log_line(source: u32, payload: usize) -> Bytes {
    let guid = format!("4f1c0a52-8f2b-4d53-9a0e-{source:012x}");
    // Text that compresses about as logs do.
    let mut line = String::new();
    let mut word = u64::from(source);
    while line.len() < payload {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        line.push_str(&format!("key{}={} ", word % 97, word >> 44));
    }
    line.truncate(payload);
    let at = 1_700_000_000_000_000_000 + i64::from(source) * 1_234_567;
    let log = message::log(line).source(&guid, "0").at_nanos(at);
    let log = [
        ("app_id", guid.as_str()),
        ("app_name", "shop"),
        ("space_name", "prod"),
        ("space_id", "b3a3c1fe-3e39-4e5a-8a9c-1b6e0b3c9d10"),
        ("organization_name", "acme"),
        ("organization_id", "0a9c61fe-93f9-4c5a-8a9c-1b6e0b3c9d11"),
        ("deployment", "cf"),
        ("source_type", "APP/PROC/WEB"),
        ("process_type", "web"),
    ]
    .into_iter()
    .fold(log, |log, (name, value)| log.tag(name, value));
    log.build().encode_to_vec().into()
}
