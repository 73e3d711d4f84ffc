//! Reading what is to be prepared: `{"route": …, "message": {…}}`.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::clock::Clock;
use crate::config::Route;
use crate::dispatch::{fields, joined};
use crate::ingress::request::{self, too_long};
use crate::message::Request;
use crate::problem::{Kind, Problem};

/// Header fields of a message, at most: what holds them takes no more than 32,768.
const MAX_HEADERS: usize = 1000;

/// A half message, as its sender asks for it.
#[derive(Deserialize, Debug)]
#[serde(deny_unknown_fields)]
pub(super) struct Prepare {
    /// The route that will deliver it.
    pub(super) route: String,
    /// What is to be delivered. A message without any part is an empty one, and has to be meant.
    pub(super) message: Asked,
}

/// What is to be delivered. Of `body`, `json` and `base64` at most one.
#[derive(Deserialize, Debug, Default)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Asked {
    /// The method. Default POST.
    method: Option<String>,
    /// The path below the route, with its query if it has one. Default none.
    path: String,
    /// The header fields: a value, or a list of them.
    headers: std::collections::BTreeMap<String, Values>,
    /// The body as text.
    body: Option<String>,
    /// The body as JSON; with `content-type: application/json`, unless the header fields say otherwise.
    #[serde(deserialize_with = "present")]
    json: Option<Value>,
    /// The body's octets in base64 (RFC 4648 §4).
    base64: Option<String>,
}

#[derive(Deserialize, Debug)]
#[serde(untagged)]
enum Values {
    One(String),
    Many(Vec<String>),
}

/// A value that is given, even if it is null.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(Kind::BadRequest, detail)
}

impl Prepare {
    /// Reads a body of at most `limit` bytes.
    pub(super) async fn read(
        headers: &HeaderMap,
        body: Body,
        limit: usize,
        clock: &dyn Clock,
    ) -> Result<Self, Problem> {
        let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(bad("send what is to be prepared as JSON, with `Content-Type: application/json`"));
        }
        let body = request::body(body, limit, clock).await?;
        serde_json::from_slice(&body).map_err(|error| {
            bad(format!(
                "{error}; send {{\"route\": NAME, \"message\": {{\"method\", \"path\", \"headers\", and one of \"body\", \
                 \"json\" and \"base64\"}}}}"
            ))
        })
    }
}

impl Asked {
    /// The request that will be delivered on `route`, as one that came to `/r/{route}` would be.
    pub(super) fn request(self, route: &Route) -> Result<Request, Problem> {
        let method = match self.method.as_deref() {
            None => Method::POST,
            Some(method) => Method::from_bytes(method.as_bytes())
                .ok()
                .filter(|method| *method != Method::CONNECT)
                .ok_or_else(|| bad(format!("message.method: {method:?} is no method that can be delivered")))?,
        };
        joined(&route.destination.url, &self.path).map_err(|error| bad(format!("message.path: {error}")))?;
        let mut headers = fields_of(self.headers)?;
        let body = match (self.body, self.json, self.base64) {
            (None, None, None) => Bytes::new(),
            (Some(text), None, None) => Bytes::from(text),
            (None, Some(value), None) => {
                headers.entry(header::CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
                Bytes::from(value.to_string())
            }
            (None, None, Some(encoded)) => {
                STANDARD.decode(encoded).map(Bytes::from).map_err(|error| bad(format!("message.base64: {error}")))?
            }
            _ => return Err(bad("message: write one of body, json and base64")),
        };
        if body.len() > route.body_limit {
            return Err(too_long(route.body_limit));
        }
        Ok(Request { method, path: self.path, headers, body })
    }
}

/// The fields that are carried to the destination: those that concern a connection, frame a message or are the host's
/// own to set are left out, as they are on `/r/{route}`.
fn fields_of(given: std::collections::BTreeMap<String, Values>) -> Result<HeaderMap, Problem> {
    let mut headers = HeaderMap::new();
    for (name, values) in given {
        let values = match values {
            Values::One(value) => vec![value],
            Values::Many(values) => values,
        };
        let field = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| bad(format!("message.headers: no header field is called {name:?}")))?;
        for value in values {
            // Its value may be a secret, and is not repeated.
            let value = HeaderValue::from_str(&value)
                .map_err(|_| bad(format!("message.headers: {field} holds a character that no header field can")))?;
            if headers.len() >= MAX_HEADERS {
                return Err(bad(format!("message.headers: send at most {MAX_HEADERS}")));
            }
            headers.append(&field, value);
        }
    }
    let mut headers = fields::end_to_end(headers);
    for hops in [header::HOST, header::CONTENT_LENGTH, header::EXPECT, request::IDEMPOTENCY_KEY] {
        headers.remove(hops);
    }
    Ok(headers)
}

/// What tells a repeated preparation from another one with the same key, and from a message that came whole.
pub(super) fn fingerprint(request: &Request) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(b"half message");
    digest.update(request::fingerprint(request));
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dispatch::vendor::route_to;

    fn request(message: Value) -> Result<Request, Problem> {
        let asked: Prepare = serde_json::from_value(json!({ "route": "vendor", "message": message })).unwrap();
        asked.message.request(&Route { body_limit: 64, ..route_to("http://vendor.test/api") })
    }

    #[test]
    fn what_is_to_be_delivered_may_be_written_in_three_ways() {
        let text = request(json!({ "body": "caf\u{e9}", "headers": { "X-A": ["1", "2"], "x-b": "3" } })).unwrap();
        assert_eq!((text.method, text.path.as_str(), &text.body[..]), (Method::POST, "", "caf\u{e9}".as_bytes()));
        assert_eq!(text.headers.get_all("x-a").iter().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!((text.headers.len(), text.headers["x-b"].as_bytes()), (3, &b"3"[..]));

        let json = request(json!({ "method": "PUT", "path": "/orders/7?dry=1", "json": { "order": 7 } })).unwrap();
        assert_eq!(
            (json.method, json.path.as_str(), &json.body[..]),
            (Method::PUT, "/orders/7?dry=1", &b"{\"order\":7}"[..])
        );
        assert_eq!(json.headers["content-type"], "application/json");
        let own = request(json!({ "json": null, "headers": { "content-type": "application/vnd.x+json" } })).unwrap();
        assert_eq!(
            (own.headers["content-type"].as_bytes(), &own.body[..]),
            (&b"application/vnd.x+json"[..], &b"null"[..])
        );

        assert_eq!(&request(json!({ "base64": "AP8=" })).unwrap().body[..], b"\x00\xff");
        assert!(request(json!({})).unwrap().body.is_empty());
    }

    #[test]
    fn what_could_not_be_delivered_is_refused_before_it_is_prepared() {
        for message in [
            json!({ "method": "CONNECT" }),
            json!({ "method": "A B" }),
            json!({ "path": "orders" }),
            json!({ "path": "/../admin" }),
            json!({ "body": "a", "json": 1 }),
            json!({ "base64": "*" }),
            json!({ "headers": { "a b": "1" } }),
            json!({ "headers": { "x-a": "1\r\nx-b: 2" } }),
            json!({ "body": "a".repeat(65) }),
        ] {
            assert!(request(message.clone()).is_err(), "{message}");
        }
    }

    #[test]
    fn fields_that_are_the_hosts_to_set_are_left_out() {
        let headers =
            json!({ "host": "evil.test", "connection": "x-hop", "x-hop": "1", "idempotency-key": "k", "x-a": "1" });
        let request = request(json!({ "headers": headers })).unwrap();
        assert_eq!(request.headers.keys().collect::<Vec<_>>(), ["x-a"]);
    }

    #[test]
    fn a_half_message_is_no_repeat_of_a_whole_one() {
        let request = request(json!({ "body": "a" })).unwrap();
        assert_ne!(fingerprint(&request), request::fingerprint(&request));
    }
}
