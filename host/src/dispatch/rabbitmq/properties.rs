//! A request's header fields as a message's properties and headers.
//!
//! | field, or what is known | becomes |
//! |---|---|
//! | the message's id | `message_id` |
//! | (always) | `delivery_mode` 2: persistent |
//! | `content-type`, `content-encoding` | `content_type`, `content_encoding` |
//! | `correlation-id`, `reply-to`, `app-id`, `message-type` | `correlation_id`, `reply_to`, `app_id`, `type` |
//! | `message-timestamp` (seconds), `message-priority` | `timestamp`, `priority` |
//! | the attempt's number, the idempotency key | headers `backstop-attempt` (a number), `idempotency-key` |
//! | any other field | a header of its name, in lower case; a field that came more than once is joined by `, ` |
//!
//! Left out are `message-id`, which is of an earlier message, and what a broker says of a message: `broker-*`,
//! `x-death`, `x-delivery-count`, `x-first-death-*` and `x-last-death-*` (RabbitMQ would take ours for its own). Left
//! out and **counted** in the header `backstop-headers-dropped` is what exceeds 256 headers, or 64 KiB of them (a longer
//! frame of headers would cost the connection), and a name above 255 bytes. A value that its property cannot hold (text
//! above 255 bytes or outside of UTF-8, a priority above 255) goes by as a header.

use http::{HeaderMap, HeaderName};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::Publication;
use crate::ingress::source::fields;

/// Headers of a message that are made of fields, at most.
pub const MOST_HEADERS: usize = 256;
/// The longest all of their names and values may be, in bytes.
pub const LARGEST_HEADERS: usize = 64 * 1024;

/// As AMQP 0-9-1 has it; 1 would not outlive the broker.
const PERSISTENT: u8 = 2;

/// What `publication` carries beside its body.
pub(super) fn properties(publication: &Publication<'_>) -> BasicProperties {
    let mut made = Made {
        properties: BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_message_id(short(&publication.message.to_string()).unwrap_or_default()),
        headers: FieldTable::default(),
        bytes: 0,
        dropped: 0,
    };
    for name in publication.headers.keys() {
        if !is_of_a_broker(name) {
            made.add(name, &joined(publication.headers, name));
        }
    }
    made.finish(publication)
}

/// Whether the field tells of an earlier delivery of a broker's.
fn is_of_a_broker(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("broker-")
        || name.starts_with("x-first-death-")
        || name.starts_with("x-last-death-")
        || matches!(name, fields::DEATHS | "x-delivery-count" | "message-id")
}

/// Every value of the field, joined as RFC 9110 §5.3 joins them.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let mut joined = Vec::new();
    for (index, value) in headers.get_all(name).iter().enumerate() {
        if index > 0 {
            joined.extend_from_slice(b", ");
        }
        joined.extend_from_slice(value.as_bytes());
    }
    joined
}

struct Made {
    properties: BasicProperties,
    headers: FieldTable,
    bytes: usize,
    dropped: u32,
}

impl Made {
    fn add(&mut self, name: &HeaderName, value: &[u8]) {
        let text = std::str::from_utf8(value).ok();
        let property = text.and_then(|text| with_property(self.properties.clone(), name, text));
        match property {
            Some(properties) => self.properties = properties,
            None => self.add_header(name.as_str(), value),
        }
    }

    fn add_header(&mut self, name: &str, value: &[u8]) {
        let size = name.len() + value.len();
        let has_room = self.headers.inner().len() < MOST_HEADERS && self.bytes + size <= LARGEST_HEADERS;
        match short(name).filter(|_| has_room) {
            Some(name) => {
                self.bytes += size;
                self.headers.insert(name, AMQPValue::LongString(value.into()));
            }
            None => self.dropped += 1,
        }
    }

    fn finish(mut self, publication: &Publication<'_>) -> BasicProperties {
        let own = [
            ("backstop-attempt", AMQPValue::LongLongInt(publication.attempt.into())),
            ("idempotency-key", AMQPValue::LongString(publication.idempotency_key.into())),
        ];
        let dropped =
            (self.dropped > 0).then(|| ("backstop-headers-dropped", AMQPValue::LongLongInt(self.dropped.into())));
        for (name, value) in own.into_iter().chain(dropped) {
            self.headers.insert(short(name).unwrap_or_default(), value);
        }
        self.properties.with_headers(self.headers)
    }
}

/// `properties` with the field `name`, if it has a property that can hold `text`.
fn with_property(properties: BasicProperties, name: &HeaderName, text: &str) -> Option<BasicProperties> {
    Some(match name.as_str() {
        "content-type" => properties.with_content_type(short(text)?),
        "content-encoding" => properties.with_content_encoding(short(text)?),
        fields::CORRELATION_ID => properties.with_correlation_id(short(text)?),
        "reply-to" => properties.with_reply_to(short(text)?),
        "app-id" => properties.with_app_id(short(text)?),
        "message-type" => properties.with_type(short(text)?),
        "message-timestamp" => properties.with_timestamp(text.parse().ok()?),
        "message-priority" => properties.with_priority(text.parse().ok()?),
        _ => return None,
    })
}

/// `text`, if it is no longer than AMQP's short strings: the conversion that does not ask panics.
fn short(text: &str) -> Option<ShortString> {
    ShortString::try_new(text).ok()
}
