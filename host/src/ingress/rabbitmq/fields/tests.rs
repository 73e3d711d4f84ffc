//! What becomes of properties and headers, well meant and otherwise.

use lapin::types::{DecimalValue, FieldArray};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn short(text: &str) -> ShortString {
    ShortString::try_new(text).unwrap()
}

fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn table(entries: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(short(name), value.clone());
    }
    table
}

fn brought_with(properties: &BasicProperties) -> Brought {
    let arrived = Arrived { queue: "pages", exchange: "scans", routing_key: "a.b", redelivered: false, properties };
    brought(&arrived, Bytes::from_static(b"body"), Some(3))
}

fn brought_of(entries: &[(&str, AMQPValue)]) -> Brought {
    brought_with(&BasicProperties::default().with_headers(table(entries)))
}

fn field(brought: &Brought, name: &str) -> String {
    let values: Vec<_> = brought.headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect();
    values.join("|")
}

#[test]
fn properties_become_the_fields_of_the_table() {
    let properties = BasicProperties::default()
        .with_content_type(short("application/json"))
        .with_content_encoding(short("gzip"))
        .with_correlation_id(short("c-1"))
        .with_message_id(short("m-1"))
        .with_reply_to(short("answers"))
        .with_app_id(short("shop"))
        .with_user_id(short("bob"))
        .with_type(short("created"))
        .with_timestamp(1_700_000_000)
        .with_priority(4)
        .with_expiration(short("60000"));
    let brought = brought_with(&properties);
    for (name, value) in [
        ("broker-kind", "rabbitmq"),
        ("broker-origin", "pages"),
        ("broker-exchange", "scans"),
        ("broker-subject", "a.b"),
        ("broker-redelivered", "false"),
        ("broker-delivery-count", "0"),
        ("content-type", "application/json"),
        ("content-encoding", "gzip"),
        ("correlation-id", "c-1"),
        ("message-id", "m-1"),
        ("reply-to", "answers"),
        ("app-id", "shop"),
        ("user-id", "bob"),
        ("message-type", "created"),
        ("message-timestamp", "1700000000"),
        ("message-priority", "4"),
        ("message-expiration", "60000"),
        ("broker-headers-dropped", ""),
    ] {
        assert_eq!(field(&brought, name), value, "{name}");
    }
    assert_eq!((brought.key.as_deref(), &*brought.body), (Some("m-1"), &b"body"[..]));
}

#[test]
fn earlier_deliveries_are_counted_by_the_queue_or_else_guessed_from_the_flag() {
    let counted = |count: AMQPValue| {
        let properties = BasicProperties::default().with_headers(table(&[("x-delivery-count", count)]));
        let again = Arrived { queue: "q", exchange: "", routing_key: "q", redelivered: true, properties: &properties };
        brought(&again, Bytes::new(), Some(3))
    };
    let third = counted(AMQPValue::LongLongInt(3));
    assert_eq!((third.delivered_before, third.last_delivery), (3, true));
    let second = counted(AMQPValue::LongInt(2));
    assert_eq!((second.delivered_before, second.last_delivery), (2, false));
    for nonsense in [AMQPValue::LongInt(-1), long("many"), AMQPValue::Void, AMQPValue::LongLongInt(i64::MAX)] {
        assert!((1..=3).contains(&counted(nonsense).delivered_before));
    }
    let publishers_own = brought_of(&[("x-delivery-count", AMQPValue::LongLongInt(7))]);
    assert_eq!((publishers_own.delivered_before, publishers_own.last_delivery), (0, false));
    let properties = BasicProperties::default();
    let again = Arrived { queue: "q", exchange: "", routing_key: "q", redelivered: true, properties: &properties };
    assert_eq!(brought(&again, Bytes::new(), None).delivered_before, 1);
    assert!(!brought(&again, Bytes::new(), None).last_delivery);
}

#[test]
fn a_queue_that_does_not_count_is_known_by_its_second_delivery() {
    let is_counted = |redelivered, header: Option<&str>| {
        let headers = header.map(|name| table(&[(name, AMQPValue::LongLongInt(1))])).unwrap_or_default();
        let properties = BasicProperties::default().with_headers(headers);
        is_counted(&Arrived { queue: "q", exchange: "", routing_key: "q", redelivered, properties: &properties })
    };
    assert!(is_counted(false, None), "a first delivery tells nothing");
    assert!(is_counted(true, Some("x-delivery-count")));
    assert!(is_counted(true, Some("x-acquired-count")), "RabbitMQ 4.3, of what was given back and did not fail");
    assert!(!is_counted(true, None) && !is_counted(true, Some("x-death")));
}

#[test]
fn deaths_are_shown_as_json_newest_first_and_not_without_end() {
    let death = |count: i64, reason: &str| {
        AMQPValue::FieldTable(table(&[
            ("count", AMQPValue::LongLongInt(count)),
            ("reason", long(reason)),
            ("queue", long("pages")),
            ("time", AMQPValue::Timestamp(1_700_000_000)),
            ("routing-keys", AMQPValue::FieldArray(FieldArray::from(vec![long("a.b")]))),
        ]))
    };
    let deaths = AMQPValue::FieldArray(FieldArray::from(vec![death(2, "delivery_limit"), death(1, "rejected")]));
    let brought = brought_of(&[("x-death", deaths), ("x-first-death-queue", long("pages"))]);
    let shown: serde_json::Value = serde_json::from_str(&field(&brought, "x-death")).unwrap();
    let entry = |count: i64, reason: &str| json!({"count": count, "reason": reason, "queue": "pages", "time": 1_700_000_000, "routing-keys": ["a.b"]});
    assert_eq!(shown, json!([entry(2, "delivery_limit"), entry(1, "rejected")]));
    assert_eq!(field(&brought, "x-first-death-queue"), "pages");

    let many = AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Boolean(true); 100]));
    let shown: serde_json::Value = serde_json::from_str(&field(&brought_of(&[("x-death", many)]), "x-death")).unwrap();
    assert_eq!(shown.as_array().map(Vec::len), Some(MOST_DEATHS));
}

#[test]
fn headers_keep_their_names_and_read_as_text() {
    let brought = brought_of(&[
        ("X-Tenant", long("blue")),
        ("x-number", AMQPValue::LongLongInt(-7)),
        ("x-bool", AMQPValue::Boolean(true)),
        ("x-price", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 5 })),
        ("x-none", AMQPValue::Void),
        ("x-list", AMQPValue::FieldArray(FieldArray::from(vec![long("a\nb"), AMQPValue::LongInt(1)]))),
    ]);
    for (name, value) in [
        ("x-tenant", "blue"),
        ("x-number", "-7"),
        ("x-bool", "true"),
        ("x-price", "0.05"),
        ("x-none", ""),
        ("x-list", r#"["a\nb",1]"#),
        ("broker-headers-dropped", ""),
    ] {
        assert_eq!(field(&brought, name), value, "{name}");
    }
}

#[test]
fn what_must_not_become_a_field_is_left_out_and_counted() {
    let bad = [
        ("connection", long("close")),
        ("Host", long("evil.test")),
        ("content-length", long("0")),
        ("transfer-encoding", long("chunked")),
        ("idempotency-key", long("mine")),
        ("backstop-message-id", long("mine")),
        ("broker-delivery-count", long("99")),
        ("content-type", long("text/evil")),
        ("message-id", long("mine")),
        ("no name", long("x")),
        ("", long("x")),
        ("x-lines", long("a\r\nb: c")),
        ("x-big", long(&"x".repeat(LARGEST_FIELD + 1))),
    ];
    let brought = brought_of(&bad);
    assert_eq!(field(&brought, "broker-headers-dropped"), bad.len().to_string());
    assert_eq!(field(&brought, "broker-delivery-count"), "0");
    assert_eq!((brought.key, brought.headers.len()), (None, 7));
}

#[test]
fn more_than_there_is_room_for_is_left_out_and_counted() {
    let names: Vec<String> = (0..MOST_FIELDS + 9).map(|number| format!("x-{number:03}")).collect();
    let entries: Vec<(&str, AMQPValue)> = names.iter().map(|name| (name.as_str(), long("v"))).collect();
    assert_eq!(field(&brought_of(&entries), "broker-headers-dropped"), "9");
    let big: Vec<(&str, AMQPValue)> =
        names.iter().take(5).map(|name| (name.as_str(), long(&"v".repeat(8000)))).collect();
    assert_eq!(field(&brought_of(&big), "broker-headers-dropped"), "1");
}

fn value() -> impl Strategy<Value = AMQPValue> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        any::<f64>().prop_map(AMQPValue::Double),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        (any::<u8>(), any::<u32>()).prop_map(|(scale, value)| AMQPValue::DecimalValue(DecimalValue { scale, value })),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| AMQPValue::LongString(bytes.into())),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| AMQPValue::ByteArray(bytes.into())),
        Just(AMQPValue::Void),
    ];
    leaf.prop_recursive(12, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| AMQPValue::FieldArray(values.into())),
            prop::collection::vec((".{0,20}", inner), 0..4).prop_map(|entries| {
                let mut table = FieldTable::default();
                for (name, value) in entries {
                    table.insert(short(&name), value);
                }
                AMQPValue::FieldTable(table)
            }),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![".{0,30}", "[a-zA-Z-]{0,12}", Just("x-death".to_owned()), Just("x-delivery-count".to_owned())]
}

proptest! {
    #[test]
    fn nothing_is_lost_uncounted_and_nothing_panics(entries in prop::collection::btree_map(name(), value(), 0..90)) {
        let entries: Vec<(&str, AMQPValue)> = entries.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let brought = brought_of(&entries);
        let dropped: usize = field(&brought, "broker-headers-dropped").parse().unwrap_or(0);
        let counts = entries.iter().filter(|(name, _)| *name == "x-delivery-count").count();
        // Six fields are the broker's, and one may count what was left out.
        let own = brought.headers.len() - 6 - usize::from(dropped > 0);
        prop_assert_eq!(own + dropped + counts, entries.len());
        prop_assert!(brought.headers.values().all(|value| value.len() <= LARGEST_FIELD));
    }
}
