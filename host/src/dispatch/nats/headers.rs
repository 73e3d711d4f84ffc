//! NATS headers as a request's fields, and back. The table is in the module above.

use async_nats::header::NATS_MESSAGE_ID;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::dispatch::fields;

/// How many fields come in at most. A host that speaks HTTP/1 takes as many.
pub const MAX_FIELDS: usize = 100;
/// How many bytes they may have in all, names and values.
pub const MAX_BYTES: usize = 32 * 1024;
/// The longest message id that becomes an idempotency key, in bytes: as long as the ingress takes over HTTP.
pub const MAX_KEY: usize = 255;

/// What steers the server or tells of it: never carried.
const NATS_PREFIX: &str = "nats-";
/// What a source says of a message: nobody else may.
const BROKER_PREFIX: &str = "broker-";

/// A message's headers, as they come in.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Inbound {
    /// The request's fields.
    pub headers: HeaderMap,
    /// `Nats-Msg-Id`, if its sender gave one of 1 to [`MAX_KEY`] printable ASCII characters.
    pub message_id: Option<String>,
    /// How many values were left out because they are no valid fields, or too many.
    pub left_out: usize,
}

/// Reads the headers of a message that came in.
pub fn inbound(headers: &async_nats::HeaderMap) -> Inbound {
    // Sorted, so that the same message has the same fields each time it comes.
    let mut sorted: Vec<_> = headers.iter().collect();
    sorted.sort_unstable_by(|(one, _), (other, _)| AsRef::<str>::as_ref(*one).cmp(AsRef::<str>::as_ref(*other)));
    let (mut carried, mut left_out, mut bytes) = (HeaderMap::new(), 0, 0);
    for (name, values) in sorted {
        let name: &str = name.as_ref();
        let Ok(field) = HeaderName::from_bytes(name.as_bytes()) else {
            left_out += values.len();
            continue;
        };
        for value in values {
            let Ok(value) = HeaderValue::from_bytes(value.as_str().as_bytes()) else {
                left_out += 1;
                continue;
            };
            let with_it = bytes + field.as_str().len() + value.len();
            if carried.len() >= MAX_FIELDS || with_it > MAX_BYTES {
                left_out += 1;
                continue;
            }
            bytes = with_it;
            carried.append(field.clone(), value);
        }
    }
    let message_id = headers.get(NATS_MESSAGE_ID).map(|id| id.as_str().to_owned()).filter(|id| is_key(id));
    let mut carried = fields::without_own(fields::end_to_end(carried));
    remove_if(&mut carried, |name| stays_here(name) || *name == fields::IDEMPOTENCY_KEY);
    Inbound { headers: carried, message_id, left_out }
}

/// Writes the headers of a message that goes out under the id `message_id`.
///
/// A value that is no UTF-8 is left out: a NATS header is text.
pub fn outbound(headers: &HeaderMap, message_id: &str) -> async_nats::HeaderMap {
    let mut written = async_nats::HeaderMap::new();
    let mut carried = fields::end_to_end(headers.clone());
    remove_if(&mut carried, stays_here);
    for (name, value) in &carried {
        let value = std::str::from_utf8(value.as_bytes()).ok().and_then(|text| text.parse().ok());
        let name = name.as_str().parse::<async_nats::HeaderName>();
        if let (Ok(name), Some(value)) = (name, value) {
            let value: async_nats::HeaderValue = value;
            written.append(name, value);
        }
    }
    // Inserting an unparsed text that has a line break in it panics.
    if let Ok(id) = message_id.parse::<async_nats::HeaderValue>() {
        written.insert(NATS_MESSAGE_ID, id);
    }
    written
}

/// Whether `text` can be an idempotency key, as the ingress takes them.
pub(crate) fn is_key(text: &str) -> bool {
    (1..=MAX_KEY).contains(&text.len()) && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// Whether a field concerns one transport alone.
fn stays_here(name: &HeaderName) -> bool {
    let name_is = |prefix: &str| name.as_str().starts_with(prefix);
    [header::HOST, header::CONTENT_LENGTH, header::EXPECT].contains(name)
        || name_is(NATS_PREFIX)
        || name_is(BROKER_PREFIX)
}

fn remove_if(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    let going: Vec<HeaderName> = headers.keys().filter(|name| goes(name)).cloned().collect();
    for name in going {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nats(fields: &[(&str, &str)]) -> async_nats::HeaderMap {
        let mut headers = async_nats::HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, *value);
        }
        headers
    }

    fn http(fields: &[(&str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_message_comes_in_with_its_fields_and_without_what_steers_servers() {
        let read = inbound(&nats(&[
            ("Content-Type", "application/json"),
            ("Correlation-Id", "c-1"),
            ("Nats-Msg-Id", "order-7"),
            ("Nats-Expected-Stream", "ORDERS"),
            ("Backstop-Attempt", "7"),
            ("Broker-Delivery-Count", "0"),
            ("Idempotency-Key", "mine"),
            ("Connection", "X-Hop"),
            ("X-Hop", "1"),
            ("Host", "elsewhere"),
            ("Content-Length", "3"),
        ]));
        assert_eq!(read.headers, http(&[("content-type", "application/json"), ("correlation-id", "c-1")]));
        assert_eq!(read.message_id.as_deref(), Some("order-7"));
        assert_eq!(read.left_out, 0);
    }

    #[test]
    fn a_message_goes_out_under_its_own_id_and_steers_no_stream() {
        let request = http(&[
            ("content-type", "text/plain"),
            ("nats-msg-id", "forged"),
            ("nats-rollup", "all"),
            ("nats-ttl", "1"),
            ("broker-origin", "forged"),
            ("connection", "close"),
            ("host", "here"),
            ("backstop-attempt", "2"),
        ]);
        let expected = [("content-type", "text/plain"), ("backstop-attempt", "2"), ("Nats-Msg-Id", "id-1")];
        assert_eq!(outbound(&request, "id-1"), nats(&expected));
    }

    #[test]
    fn fields_are_bounded_in_number_and_in_bytes() {
        let mut many = async_nats::HeaderMap::new();
        for number in 0..150 {
            many.insert(format!("x-{number}").as_str(), "v");
        }
        assert_eq!((inbound(&many).headers.len(), inbound(&many).left_out), (MAX_FIELDS, 50));
        let long = nats(&[("x-long", &"v".repeat(MAX_BYTES)), ("x-umlaut", "für"), ("x/no-name", "v")]);
        assert_eq!(inbound(&long).left_out, 2);
        assert_eq!(inbound(&long).headers.get("x-umlaut").unwrap().as_bytes(), "für".as_bytes());
    }

    #[test]
    fn an_id_that_cannot_be_a_key_is_none() {
        for id in ["", "für", &"x".repeat(256)] {
            assert_eq!(inbound(&nats(&[("Nats-Msg-Id", id)])).message_id, None, "{id}");
        }
    }

    proptest! {
        #[test]
        fn what_goes_out_comes_in_again(fields in prop::collection::vec(("x-[a-z]{1,8}", "[!-~]([ -~]{0,20}[!-~])?"), 0..20)) {
            let request: HeaderMap = fields
                .iter()
                .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap()))
                .collect();
            let read = inbound(&outbound(&request, "id"));
            prop_assert_eq!(read.headers, request);
            prop_assert_eq!(read.message_id.as_deref(), Some("id"));
        }
    }
}
