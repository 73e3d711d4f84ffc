//! Reading a caller's request into what will be delivered, faithfully and within bounds.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, Uri, header, request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use sha2::{Digest, Sha256};

use crate::clock::Clock;
use crate::config::Route;
use crate::dispatch::{fields, joined};
use crate::message::Request;
use crate::problem::{Kind, Problem};

/// How long a body may take to arrive.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// The longest idempotency key, in bytes.
const MAX_KEY: usize = 255;

pub(super) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Splits `/r/{route}/{path…}?query` into the route's name and the rest, percent-encoding untouched.
pub(super) fn route_and_rest(uri: &Uri) -> Option<(&str, String)> {
    let below = uri.path().strip_prefix("/r/")?;
    let (name, path) = below.find('/').map_or((below, ""), |slash| below.split_at(slash));
    let mut rest = path.to_owned();
    if let Some(query) = uri.query() {
        rest.push('?');
        rest.push_str(query);
    }
    Some((name, rest))
}

/// Reads the request for `route`: its end-to-end header fields, and its body within the route's `body_limit`.
pub(super) async fn read(
    parts: request::Parts,
    rest: String,
    body: Body,
    route: &Route,
    clock: &dyn Clock,
) -> Result<Request, Problem> {
    joined(&route.destination.url, &rest).map_err(|bad| Problem::new(Kind::BadRequest, bad.to_string()))?;
    let body = self::body(body, route.body_limit, clock).await?;
    let mut headers = fields::end_to_end(parts.headers);
    for hops in [header::HOST, header::CONTENT_LENGTH, header::EXPECT, IDEMPOTENCY_KEY] {
        headers.remove(hops);
    }
    Ok(Request { method: parts.method, path: rest, headers, body })
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn body(body: Body, limit: usize, clock: &dyn Clock) -> Result<Bytes, Problem> {
    if hyper::body::Body::size_hint(&body).lower() > limit as u64 {
        return Err(too_long(limit));
    }
    tokio::select! {
        // The body first: it has nearly always come with its head, and then no timer is needed.
        biased;
        body = whole_body(body, limit) => body,
        () = clock.sleep(BODY_WITHIN) => {
            Err(Problem::new(Kind::RequestTimeout, format!("the body did not arrive within {BODY_WITHIN:?}")))
        }
    }
}

pub(super) fn too_long(limit: usize) -> Problem {
    Problem::new(Kind::BodyTooLong, format!("bodies of at most {limit} bytes are taken"))
}

async fn whole_body(body: Body, limit: usize) -> Result<Bytes, Problem> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => Err(too_long(limit)),
        Err(error) => Err(Problem::new(Kind::BadRequest, format!("the body broke off: {error}"))),
    }
}

/// Reads `Idempotency-Key`: a structured-field string (`"abc"`), or bare (`abc`).
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let bad = |why: &str| {
        Problem::new(
            Kind::BadRequest,
            format!("Idempotency-Key {why}; send one field with a quoted string of 1 to {MAX_KEY} visible characters"),
        )
    };
    let mut values = headers.get_all(&IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad("was sent twice"));
    }
    let text = value.to_str().map_err(|_| bad("has characters outside of ASCII"))?.trim();
    let key = match text.strip_prefix('"') {
        Some(quoted) => unquoted(quoted).ok_or_else(|| bad("is not a well-formed quoted string"))?,
        None if text.contains(|c: char| c == '"' || c == '\\' || c.is_ascii_whitespace()) => {
            return Err(bad("is not a well-formed string"));
        }
        None => text.to_owned(),
    };
    if key.is_empty() || key.len() > MAX_KEY {
        return Err(bad("is empty or too long"));
    }
    Ok(Some(key))
}

/// The inside of an RFC 8941 §3.3.3 string, whose opening quote is already taken.
fn unquoted(quoted: &str) -> Option<String> {
    let mut key = String::with_capacity(quoted.len());
    let mut characters = quoted.chars();
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(key),
            '\\' => key.push(characters.next().filter(|c| matches!(c, '"' | '\\'))?),
            c if c == ' ' || c.is_ascii_graphic() => key.push(c),
            _ => return None,
        }
    }
}

/// What tells a repeated request from another one with the same key: its method, path and body.
pub(super) fn fingerprint(request: &Request) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in [request.method.as_str().as_bytes(), request.path.as_bytes()] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.update(&request.body);
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn key_of(value: &'static str) -> Result<Option<String>, Problem> {
        idempotency_key(&HeaderMap::from_iter([(IDEMPOTENCY_KEY, HeaderValue::from_static(value))]))
    }

    #[test]
    fn an_idempotency_key_may_be_quoted_or_bare() {
        assert_eq!(key_of("\"8e03978e-40d5\"").unwrap().as_deref(), Some("8e03978e-40d5"));
        assert_eq!(key_of("8e03978e-40d5").unwrap().as_deref(), Some("8e03978e-40d5"));
        assert_eq!(key_of(r#""a \"b\" \\c""#).unwrap().as_deref(), Some(r#"a "b" \c"#));
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn a_malformed_idempotency_key_is_refused() {
        for bad in ["", "\"\"", "\"open", "\"a\"b", r#""a\b""#, "a b", "a\"b"] {
            assert!(key_of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_rest_of_the_path_is_carried_as_it_came() {
        let split = |uri: &str| route_and_rest(&uri.parse().unwrap()).map(|(name, rest)| (name.to_owned(), rest));
        assert_eq!(split("/r/orders/a%2Fb//c?x=%20&y"), Some(("orders".into(), "/a%2Fb//c?x=%20&y".into())));
        assert_eq!(split("/r/orders"), Some(("orders".into(), String::new())));
        assert_eq!(split("/r/orders?x=1"), Some(("orders".into(), "?x=1".into())));
        assert_eq!(split("/other"), None);
    }

    #[test]
    fn the_fingerprint_tells_where_the_path_ends_and_the_body_begins() {
        let request = |path: &str, body: &'static str| Request {
            method: http::Method::POST,
            path: path.to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
        };
        assert_ne!(fingerprint(&request("/a", "bc")), fingerprint(&request("/ab", "c")));
        assert_eq!(fingerprint(&request("/a", "bc")), fingerprint(&request("/a", "bc")));
    }
}
