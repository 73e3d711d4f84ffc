use std::sync::Arc;

use super::*;
use crate::message::Response;

fn answer(status: u16, fields: &[(&str, &str)]) -> Result<Answer, String> {
    let headers = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    answer_from(wit::Answer { status, headers, body: b"{}".to_vec() })
}

#[test]
fn a_fallback_that_is_no_answer_is_nonsense_in_words() {
    assert!(answer(200, &[("content-type", "application/json")]).is_ok());
    for (refused, words) in [
        (answer(199, &[]), "the fallback's status is 199, not 200 to 599"),
        (answer(700, &[]), "the fallback's status is 700, not 200 to 599"),
        (answer(200, &[("x y", "1")]), "a header field called \"x y\""),
        (answer(200, &[("x", "a\r\nset-cookie: b")]), "has a character that no header field may have"),
        (answer(200, &[("Content-Length", "9")]), "sets `content-length`, which is the host's to set"),
        (answer(200, &[("x", "1"); 65]), "65 header fields, at most 64"),
    ] {
        let text = refused.expect_err("it must be refused");
        assert!(text.contains(words), "{text:?} does not say {words:?}");
    }
}

#[test]
fn a_delay_in_the_wrong_unit_is_noticed() {
    let retry =
        |millis| verdict_from(wit::Verdict::Retry(wit::Retry { after: Some(millis), scope: wit::Scope::Standard }));
    assert!(retry(24 * 60 * 60 * 1000).is_ok());
    assert!(retry(u64::MAX).expect_err("longer than a year").contains("delays are in milliseconds"));
}

#[test]
fn an_interest_is_bounded_and_names_real_fields() {
    let interest =
        |names: Vec<String>| interest_from(wit::Interest { headers: names, body_limit: 1, request_limit: 0 });
    assert_eq!(interest(vec!["Retry-After".to_owned()]).expect("a real name").headers, ["retry-after"]);
    assert!(interest(vec!["retry after".to_owned()]).is_err());
    assert!(interest(vec!["x".to_owned(); 65]).is_err());
}

#[test]
fn only_what_is_wanted_is_lent() {
    let mut headers = HeaderMap::new();
    headers.append("set-cookie", HeaderValue::from_static("secret"));
    headers.append("x-code", HeaderValue::from_static("1"));
    headers.append("x-code", HeaderValue::from_bytes(b"gr\xfcn").expect("obsolete text is allowed"));
    headers.append("x-code", HeaderValue::from_static("3"));
    let outcome = Outcome::Response(Response {
        status: StatusCode::OK,
        headers,
        body: Bytes::from_static(b"0123456789"),
        truncated: false,
    });
    let interest = Interest { headers: vec![HeaderName::from_static("x-code")], body_limit: 4, request_limit: 0 };
    lend(&outcome, &interest, |lent| {
        let wit::Outcome::Response(lent) = lent else { panic!("it was a response") };
        assert_eq!(lent.headers, Some("x-code: 1\nx-code: gr\u{fffd}n\nx-code: 3\n"));
        assert_eq!((lent.body, lent.truncated), (Some(&b"0123"[..]), true));
    });
    lend(&outcome, &Interest::default(), |lent| {
        let wit::Outcome::Response(lent) = lent else { panic!("it was a response") };
        assert!(lent.headers.is_none() && lent.body.is_none() && lent.truncated);
    });
}

#[test]
fn the_callers_credentials_are_no_attribute() {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("Bearer secret"));
    headers.insert("cookie", HeaderValue::from_static("secret"));
    headers.insert("x-tenant", HeaderValue::from_static("t1"));
    let mut host = Host::new(super::super::sandbox::Growth::up_to(0));
    assert_eq!(host.attribute("route"), None, "there is no message yet");
    host.about = Some(super::super::tests::message_with(Arc::new(crate::message::Request {
        method: http::Method::POST,
        path: String::new(),
        headers,
        body: Bytes::new(),
    })));
    assert_eq!(host.attribute("header:X-Tenant").as_deref(), Some("t1"));
    assert_eq!(host.attribute("path").as_deref(), Some("/"));
    assert_eq!(host.attribute("method").as_deref(), Some("POST"));
    for hidden in ["header:authorization", "header:Cookie", "header:proxy-authorization", "header:", "clock"] {
        assert_eq!(host.attribute(hidden), None, "{hidden}");
    }
}
