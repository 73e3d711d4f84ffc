//! Publishing and delivering, as the CloudEvents specifications have it.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const UID: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0001);

fn fields(fields: &[(&str, &str)]) -> HeaderMap {
    let field = |(name, value): &(&str, &str)| {
        (HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    let mut headers = HeaderMap::new();
    for (name, value) in fields.iter().map(field) {
        headers.append(name, value);
    }
    headers
}

/// An event in binary mode, with these fields beside the required ones.
fn binary(more: &[(&str, &str)], body: &'static str) -> Result<Event, BadEvent> {
    let required = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/orders"), ("ce-type", "order.created")];
    let all: Vec<_> = required.into_iter().filter(|(name, _)| !more.iter().any(|(other, _)| other == name)).collect();
    let headers = fields(&[&all, more].concat());
    read(&headers, &Bytes::from_static(body.as_bytes())).map(|mut events| events.remove(0))
}

fn published(kind: &str, body: &str) -> Result<Vec<Event>, BadEvent> {
    read(&fields(&[("content-type", kind)]), &Bytes::copy_from_slice(body.as_bytes()))
}

/// An event in structured mode, with these members beside the required ones.
fn structured(more: &str) -> Result<Event, BadEvent> {
    let body = format!(r#"{{"specversion":"1.0","id":"1","source":"/orders","type":"order.created"{more}}}"#);
    published("application/cloudevents+json", &body).map(|mut events| events.remove(0))
}

#[test]
fn an_event_comes_in_header_fields_and_a_body() {
    let event = binary(
        &[
            ("content-type", "text/plain"),
            ("ce-subject", "caf%C3%A9%20%22x%22"),
            ("ce-time", "2024-05-01T12:00:00Z"),
            ("ce-traceid", "7"),
            ("x-other", "not an attribute"),
        ],
        "hello",
    )
    .unwrap();
    assert_eq!((event.id(), event.source(), event.kind()), ("1", "/orders", "order.created"));
    assert_eq!(event.other("subject").unwrap().text(), "caf\u{e9} \"x\"");
    assert_eq!(event.other("traceid"), Some(&Value::String("7".to_owned())));
    assert_eq!(event.datacontenttype(), Some("text/plain"));
    assert_eq!(event.data().map(|data| &data[..]), Some(&b"hello"[..]));
    assert_eq!(event.attributes().count(), 8);
}

#[test]
fn an_event_comes_as_a_document_and_its_data_keeps_its_bytes() {
    let event =
        structured(r#", "priority": 7, "flag": true, "subject": null, "data": { "a" : 1.50, "b":[ ] } "#).unwrap();
    assert_eq!(event.data().map(|data| &data[..]), Some(&br#"{ "a" : 1.50, "b":[ ] }"#[..]));
    assert_eq!(event.datacontenttype(), Some("application/json"));
    assert_eq!(event.other("priority"), Some(&Value::Integer(7)));
    assert_eq!(event.other("flag"), Some(&Value::Boolean(true)));
    assert_eq!(event.other("subject"), None);
    let text = structured(r#", "datacontenttype": "text/plain", "data": "line\n\u00e9" "#).unwrap();
    assert_eq!(text.data().map(|data| &data[..]), Some("line\n\u{e9}".as_bytes()));
    let octets = structured(r#", "data_base64": "AAH/" "#).unwrap();
    assert_eq!(octets.data().map(|data| &data[..]), Some(&[0, 1, 255][..]));
    assert_eq!(octets.datacontenttype(), None);
}

#[test]
fn a_batch_is_read_whole_or_not_at_all() {
    let one = |id: &str| format!(r#"{{"specversion":"1.0","id":"{id}","source":"/o","type":"t"}}"#);
    let batch = |events: &[String]| {
        published("application/CloudEvents-Batch+JSON; charset=UTF-8", &format!("[{}]", events.join(",")))
    };
    let ids = |events: Vec<Event>| events.iter().map(|event| event.id().to_owned()).collect::<Vec<_>>();
    assert_eq!(ids(batch(&[one("b"), one("a")]).unwrap()), ["b", "a"]);
    assert_eq!(batch(&[]), Ok(vec![]));
    let bad = batch(&[one("a"), one("b"), one("")]).unwrap_err();
    assert_eq!(bad.to_string(), "/2/id is empty: write something, or leave out what need not be there");
    assert_eq!(batch(&[one("a"), "7".to_owned()]).unwrap_err().place, "/1");
    let many = vec![one("a"); MAX_EVENTS + 1];
    assert!(batch(&many).unwrap_err().detail.contains("more than 1000 events"));
    assert_eq!(batch(&many[1..]).unwrap().len(), MAX_EVENTS);
}

#[test]
fn what_is_no_event_is_refused_with_its_place() {
    for (bad, said) in [
        (published("application/json", "{}"), "this is no CloudEvent"),
        (read(&HeaderMap::new(), &Bytes::new()), "this is no CloudEvent"),
        (
            published("application/cloudevents+xml", ""),
            "content-type names a format that is not spoken here: send `application/cloudevents+json`",
        ),
        (published("application/cloudevents-batch", "[]"), "content-type names a format"),
        (published("application/cloudevents+json; charset=latin1", "{}"), "content-type names another charset"),
        (
            published("application/cloudevents+json", "[]"),
            "the body is not what its Content-Type says: expected an event",
        ),
        (
            published("application/cloudevents+json", "\"hush-hush expected \""),
            "the body is not what its Content-Type says: expected an event",
        ),
        (
            published("application/cloudevents-batch+json", "{}"),
            "the body is not what its Content-Type says: expected a batch",
        ),
        (published("application/cloudevents+json", "{}x"), "the body is not what"),
        (published("application/cloudevents+json", r#"{"id":"1"}"#), "/specversion is missing"),
        (
            published("application/cloudevents+json", r#"{"id":"1","id":"1"}"#),
            "the body is not what its Content-Type says: the member `id` is there twice",
        ),
    ] {
        let bad = bad.expect_err(said).to_string();
        assert!(bad.starts_with(said) && !bad.contains("hush"), "{bad}");
    }
    for (more, said) in [
        (r#","data":1,"data_base64":"AA==""#, "/data_base64 is there beside `data`"),
        (r#","data_base64":"A""#, "/data_base64 is no Base64"),
        (r#","data":{"a":1,"a":2}"#, "/data the member `a` is there twice"),
        (r#","datacontenttype":"text/plain","data":{}"#, "/data must be text"),
        (r#","datacontenttype":"application/cloudevents+json""#, "/datacontenttype says that the data is an event"),
        (r#","Upper":"x""#, "/Upper is no attribute's name"),
        (r#","a/b~\n":"x""#, "/a~1b~0\\n is no attribute's name"),
        (r#","number":1.5"#, "/number is no whole number of 32 bits"),
        (r#","number":2147483648"#, "/number is no whole number of 32 bits"),
        (r#","list":[]"#, "/list is no text, whole number, true or false"),
        (r#","time":5"#, "/time is no text"),
        (r#","time":"yesterday""#, "/time is no date and time of RFC 3339"),
        (r#","subject":"""#, "/subject is empty"),
        (r#","dataschema":"/relative""#, "/dataschema is no absolute URI"),
        (r#","text":"a\u0007""#, "/text holds a control character"),
    ] {
        let bad = structured(more).expect_err(said).to_string();
        assert!(bad.starts_with(said), "{bad}");
    }
    for (more, said) in [
        (("ce-specversion", "0.3"), "ce-specversion is a version that is not spoken here: send `1.0`"),
        (("ce-id", ""), "ce-id is empty"),
        (("ce-source", "two words"), "ce-source is no URI-reference"),
        (("ce-datacontenttype", "text/plain"), "ce-datacontenttype is said by `Content-Type`"),
        (("ce-data", "x"), "ce-data is no attribute"),
        (("ce-subject", "%FF"), "ce-subject is no UTF-8"),
        (("ce-subject", "%0A"), "ce-subject holds a control character"),
        (("ce-a_b", "x"), "ce-a_b is no attribute's name"),
        (("content-type", "nonsense"), "content-type is no media type"),
    ] {
        let bad = binary(&[more], "").expect_err(said).to_string();
        assert!(bad.starts_with(said), "{bad}");
    }
    let twice = binary(&[("ce-x", "1"), ("ce-x", "1")], "").unwrap_err().to_string();
    assert_eq!(twice, "ce-x is there twice: send it once");
    let missing = read(&fields(&[("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-type", "t")]), &Bytes::new());
    assert_eq!(missing.unwrap_err().place, "ce-source");
}

#[test]
fn attributes_are_bounded_in_number_and_size() {
    let many: String = (0..MAX_ATTRIBUTES - 3).map(|n| format!(r#","x{n}":1"#)).collect();
    assert!(structured(&many).unwrap_err().detail.contains("at most 64"));
    assert!(structured(many.rsplit_once(',').unwrap().0).is_ok());
    let long = |name: &str, size: usize| format!(r#","{name}":"{}""#, "x".repeat(size));
    assert!(structured(&long("a", MAX_VALUE)).is_ok());
    assert!(structured(&long("a", MAX_VALUE + 1)).unwrap_err().detail.contains("longer than 8192 bytes"));
    let all = ["a", "b", "c", "d"].map(|name| long(name, MAX_VALUE)).concat();
    assert!(structured(&all).unwrap_err().detail.contains("longer than 32768 bytes in all"));
    assert!(structured(&long(&"n".repeat(MAX_NAME + 1), 1)).is_err());
}

#[test]
fn a_delivery_is_binary_and_says_which_publish_it_is() {
    let event =
        structured(r#","subject":"caf\u00e9 \"100%\"","messageuid":"the caller's","flag":true,"data":{"a": 1}"#);
    let request = event.unwrap().into_request(UID);
    assert_eq!((request.method, request.path.as_str()), (Method::POST, ""));
    assert_eq!(&request.body[..], br#"{"a": 1}"#);
    let expected = fields(&[
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/orders"),
        ("ce-type", "order.created"),
        ("ce-subject", "caf%C3%A9%20%22100%25%22"),
        ("ce-flag", "true"),
        ("ce-messageuid", "01920000-0000-7000-8000-000000000001"),
        ("content-type", "application/json"),
    ]);
    assert_eq!(request.headers, expected);
}

#[test]
fn no_values_are_shown_by_debug() {
    let event = structured(r#","token":"hush","data":"hush""#).unwrap();
    assert!(!format!("{event:?}").contains("hush"));
}

/// Extensions and a subject of whatever text an attribute may hold.
fn texts() -> impl Strategy<Value = BTreeMap<String, String>> {
    let text = any::<String>().prop_map(|text| {
        let legal = |c: &char| {
            !c.is_control() && u32::from(*c) & 0xFFFE != 0xFFFE && !(0xFDD0..=0xFDEF).contains(&u32::from(*c))
        };
        text.chars().filter(legal).collect::<String>()
    });
    prop::collection::btree_map("x[a-z0-9]{1,20}", text, 0..8)
}

proptest! {
    #[test]
    fn what_is_delivered_reads_as_what_was_published(
        texts in texts(), number in any::<i32>(), truth in any::<bool>(), data in any::<Vec<u8>>(), typed in any::<bool>(),
    ) {
        let mut document = serde_json::json!({
            "specversion": "1.0", "id": "\u{20ac} 1", "source": "/a%20b", "type": "t", "time": "2024-05-01T12:00:00.5+02:00",
            "data_base64": base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &data),
            "yn": number, "yt": truth,
        });
        for (name, text) in &texts {
            document[name] = serde_json::json!(text);
        }
        if typed {
            document["datacontenttype"] = serde_json::json!("application/octet-stream");
        }
        let before = published("application/cloudevents+json", &document.to_string()).unwrap().remove(0);
        let request = before.clone().into_request(UID);
        let after = read(&request.headers, &request.body).unwrap().remove(0);
        // Everything is there, as text; the uid is more.
        let expected: Vec<_> = before.attributes().collect();
        let uid = UID.to_string();
        let carried = after.other(MESSAGE_UID).map(Value::text);
        prop_assert_eq!(carried.as_deref(), Some(&*uid));
        prop_assert_eq!(after.attributes().filter(|(name, _)| *name != MESSAGE_UID).collect::<Vec<_>>(), expected);
        prop_assert_eq!(before.data(), after.data());
        // And an event that came in binary mode is delivered as the very same.
        let again = after.clone().into_request(UID);
        prop_assert_eq!(read(&again.headers, &again.body), Ok(vec![after]));
    }

    #[test]
    fn nothing_that_is_sent_ends_the_host(body in any::<Vec<u8>>(), mode in 0..3_usize, value in any::<Vec<u8>>()) {
        let kinds = ["application/cloudevents+json", "application/cloudevents-batch+json", "text/plain"];
        let mut headers = fields(&[("content-type", kinds[mode]), ("ce-specversion", "1.0"), ("ce-id", "1")]);
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            headers.insert("ce-source", value);
        }
        drop(read(&headers, &Bytes::from(body)));
    }
}
