//! A delivery as the header fields of a request.
//!
//! | of the broker or the message | becomes the field |
//! |---|---|
//! | (always) | `broker-kind: rabbitmq` |
//! | queue, exchange, routing key | `broker-origin`, `broker-exchange`, `broker-subject` |
//! | redelivered | `broker-redelivered: true` or `false` |
//! | header `x-delivery-count` | `broker-delivery-count`, also where it is absent |
//! | header `x-death` | `x-death`: JSON, newest first, at most 16 entries |
//! | `content_type`, `content_encoding` | `content-type`, `content-encoding` |
//! | `correlation_id`, `message_id`, `reply_to`, `app_id`, `user_id` | `correlation-id`, `message-id`, `reply-to`, `app-id`, `user-id` |
//! | `type`, `timestamp` (seconds), `priority`, `expiration` (ms) | `message-type`, `message-timestamp`, `message-priority`, `message-expiration` |
//! | any other header, `x-first-death-*` and `x-last-death-*` among them | its own name, in lower case: text as it is, a number or a boolean in digits or letters, a table or an array as JSON |
//! | `delivery_mode`, `cluster_id` | nothing: they mean nothing after the broker |
//!
//! `message_id` is also the idempotency key. Left out, and **counted** in `broker-headers-dropped` (which is there only
//! if it is not zero), is what cannot be a field or must not be one: a name that is no field name, or one of those
//! above, of the connection (`connection`, `host`, `content-length` …) or of the host's own (`backstop-*`,
//! `idempotency-key`); a value with control characters; and whatever exceeds 64 fields, 8 KiB in one or 32 KiB in all.
//! The same name in another case is left out too: the first in the order of bytes stays. Headers that no reader could
//! bear come as the one field `broker-headers-unreadable` ([`crate::amqp`]).

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::death::{DEPTH, deaths, json};
use crate::dispatch::fields as ours;
use crate::ingress::source::{Brought, fields};

/// Header fields made of a message's own headers, at most.
pub const MOST_FIELDS: usize = 64;
/// The longest value of one field, in bytes.
pub const LARGEST_FIELD: usize = 8 * 1024;
/// The longest all names and values of a message's own headers may be, in bytes.
const LARGEST_SUM: usize = 32 * 1024;
/// Entries of `x-death` that are shown, the newest.
pub const MOST_DEATHS: usize = 16;

/// How many headers were left out.
const DROPPED: HeaderName = HeaderName::from_static("broker-headers-dropped");
const MESSAGE_ID: HeaderName = HeaderName::from_static("message-id");

/// Header names of the broker's that have a field of another form.
const DELIVERY_COUNT: &str = "x-delivery-count";
/// How often a message was taken, failed or not: from RabbitMQ 4.3 on, beside the count of failures or without it.
const ACQUIRED_COUNT: &str = "x-acquired-count";

/// What came with a delivery, but for the body.
#[derive(Clone, Copy, Debug)]
pub struct Arrived<'a> {
    /// The queue it came from.
    pub queue: &'a str,
    /// The exchange it was published to; empty for the default one.
    pub exchange: &'a str,
    /// The routing key it was published with.
    pub routing_key: &'a str,
    /// Whether the broker says that it has been delivered before.
    pub redelivered: bool,
    /// Its properties, headers among them.
    pub properties: &'a BasicProperties,
}

/// The most earlier deliveries that are believed in: on a queue that does not count, the number may be anybody's.
const MOST_COUNTED: u32 = 1_000_000;

/// What a delivery brings: the table above. `delivery_limit` is the queue's, if known.
pub fn brought(arrived: &Arrived<'_>, body: Bytes, delivery_limit: Option<u32>) -> Brought {
    let none = FieldTable::default();
    let headers = arrived.properties.headers().as_ref().unwrap_or(&none);
    let counted = headers.inner().get(DELIVERY_COUNT).and_then(text).and_then(|count| count.parse::<u32>().ok());
    // Queues that do not count (classic ones) tell only that there was a delivery before. A count that comes with a
    // first delivery is the publisher's own.
    let most = delivery_limit.unwrap_or(MOST_COUNTED);
    let delivered_before = if arrived.redelivered { counted.unwrap_or(1).clamp(1, most.max(1)) } else { 0 };

    let mut made = Fields::default();
    made.broker(arrived, delivered_before);
    made.properties(arrived.properties);
    made.headers(headers);
    Brought {
        headers: made.finish(),
        body,
        key: named(arrived.properties.message_id()).map(str::to_owned),
        delivered_before,
        // The broker gives up a message that is given back once more than the limit allows.
        last_delivery: delivery_limit.is_some_and(|limit| delivered_before >= limit),
    }
}

/// Whether the queue counts deliveries, as far as this one tells. A quorum queue says how many there were from the second
/// one on; a classic queue, only that there was one before. What was not delivered before tells nothing.
pub(super) fn is_counted(arrived: &Arrived<'_>) -> bool {
    let says =
        |name: &str| arrived.properties.headers().as_ref().is_some_and(|headers| headers.inner().contains_key(name));
    !arrived.redelivered || says(DELIVERY_COUNT) || says(ACQUIRED_COUNT)
}

/// The fields so far.
#[derive(Default)]
struct Fields {
    map: HeaderMap,
    /// Fields of the message's own headers, and the bytes they take.
    own: usize,
    bytes: usize,
    dropped: u32,
}

impl Fields {
    fn broker(&mut self, arrived: &Arrived<'_>, delivered_before: u32) {
        self.set(HeaderName::from_static(fields::BROKER), "rabbitmq");
        self.set(HeaderName::from_static(fields::ORIGIN), arrived.queue);
        self.set(HeaderName::from_static(fields::EXCHANGE), arrived.exchange);
        self.set(HeaderName::from_static(fields::SUBJECT), arrived.routing_key);
        self.set(HeaderName::from_static(fields::REDELIVERED), if arrived.redelivered { "true" } else { "false" });
        self.set(HeaderName::from_static(fields::DELIVERY_COUNT), &delivered_before.to_string());
    }

    fn properties(&mut self, properties: &BasicProperties) {
        let texts = [
            (header::CONTENT_TYPE, properties.content_type()),
            (header::CONTENT_ENCODING, properties.content_encoding()),
            (HeaderName::from_static(fields::CORRELATION_ID), properties.correlation_id()),
            (MESSAGE_ID, properties.message_id()),
            (HeaderName::from_static("message-type"), properties.kind()),
            (HeaderName::from_static("app-id"), properties.app_id()),
            (HeaderName::from_static("user-id"), properties.user_id()),
            (HeaderName::from_static("reply-to"), properties.reply_to()),
            (HeaderName::from_static("message-expiration"), properties.expiration()),
        ];
        for (name, text) in texts {
            if let Some(text) = named(text) {
                self.set(name, text);
            }
        }
        if let Some(seconds) = properties.timestamp() {
            self.set(HeaderName::from_static("message-timestamp"), &seconds.to_string());
        }
        if let Some(priority) = properties.priority() {
            self.set(HeaderName::from_static("message-priority"), &priority.to_string());
        }
    }

    fn headers(&mut self, headers: &FieldTable) {
        for (name, value) in headers.inner() {
            if name.as_str() == fields::DEATHS {
                // JSON has no characters that a field's value may not hold, but for those outside of ASCII, which may
                // be there as bytes.
                self.set(HeaderName::from_static(fields::DEATHS), &deaths(value).to_string());
            } else if name.as_str() != DELIVERY_COUNT {
                self.own(name.as_str(), value);
            }
        }
    }

    /// A header of the message's own, by its own name.
    fn own(&mut self, name: &str, value: &AMQPValue) {
        let text = text(value).unwrap_or_else(|| json(value, DEPTH).to_string());
        let size = name.len() + text.len();
        let name = HeaderName::from_bytes(name.as_bytes()).ok().filter(|name| !is_taken(name, &self.map));
        let has_room = self.own < MOST_FIELDS && self.bytes + size <= LARGEST_SUM;
        match name.filter(|_| has_room) {
            Some(name) => {
                self.own += 1;
                self.bytes += size;
                self.set(name, &text);
            }
            None => self.dropped += 1,
        }
    }

    fn set(&mut self, name: HeaderName, text: &str) {
        match HeaderValue::from_bytes(text.as_bytes()).ok().filter(|value| value.len() <= LARGEST_FIELD) {
            Some(value) => drop(self.map.insert(name, value)),
            None => self.dropped += 1,
        }
    }

    fn finish(mut self) -> HeaderMap {
        if self.dropped > 0 {
            self.map.insert(DROPPED, self.dropped.into());
        }
        self.map
    }
}

/// Whether a message's header may not become the field of its name.
fn is_taken(name: &HeaderName, map: &HeaderMap) -> bool {
    const KEPT: [&str; 12] = [
        "host",
        "content-length",
        "expect",
        "idempotency-key",
        "content-type",
        "content-encoding",
        "correlation-id",
        "message-id",
        "app-id",
        "user-id",
        "reply-to",
        "x-death",
    ];
    let text = name.as_str();
    let is_kept = KEPT.contains(&text)
        || text.starts_with(ours::OWN_PREFIX)
        || (text.starts_with("broker-") && text != crate::amqp::UNREADABLE)
        || matches!(text, "message-type" | "message-timestamp" | "message-priority" | "message-expiration");
    is_kept || ours::is_hop_by_hop(name) || map.contains_key(name)
}

/// A property that says something.
fn named(property: &Option<ShortString>) -> Option<&str> {
    property.as_ref().map(ShortString::as_str).filter(|text| !text.is_empty())
}

/// A value as text; none for what is nested.
pub(super) fn text(value: &AMQPValue) -> Option<String> {
    Some(match value {
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) => return None,
        AMQPValue::Boolean(value) => value.to_string(),
        AMQPValue::ShortShortInt(value) => value.to_string(),
        AMQPValue::ShortShortUInt(value) => value.to_string(),
        AMQPValue::ShortInt(value) => value.to_string(),
        AMQPValue::ShortUInt(value) => value.to_string(),
        AMQPValue::LongInt(value) => value.to_string(),
        AMQPValue::LongUInt(value) => value.to_string(),
        AMQPValue::LongLongInt(value) => value.to_string(),
        AMQPValue::Timestamp(value) => value.to_string(),
        AMQPValue::Float(value) => value.to_string(),
        AMQPValue::Double(value) => value.to_string(),
        AMQPValue::DecimalValue(value) => decimal(value.scale, value.value),
        AMQPValue::ShortString(value) => value.as_str().to_owned(),
        AMQPValue::LongString(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
        AMQPValue::ByteArray(value) => String::from_utf8_lossy(value.as_slice()).into_owned(),
        AMQPValue::Void => String::new(),
    })
}

/// `value` with its last `scale` digits after the point.
fn decimal(scale: u8, value: u32) -> String {
    let digits = value.to_string();
    let scale = usize::from(scale);
    let digits = format!("{digits:0>width$}", width = scale + 1);
    match digits.split_at_checked(digits.len() - scale) {
        Some((whole, part)) if !part.is_empty() => format!("{whole}.{part}"),
        _ => digits,
    }
}

#[cfg(test)]
mod tests;
