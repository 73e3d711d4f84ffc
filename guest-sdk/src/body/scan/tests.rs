//! What is found on demand is what a whole parse finds, however the JSON is written.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn found(body: &[u8], pointer: &str) -> Option<Value> {
    find(body, pointer).and_then(|value| serde_json::from_slice(value).ok())
}

/// A text with all that could be taken for the end of a string or a container, and long enough to cross blocks.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a~/é\"0]{0,3}",
        "[\\\\\"]{0,9}",
        "([\\\\\"{}\\[\\],: \n\u{1}é🦀]|abcdefghijk){0,40}",
        (0..140_usize, "[\\\\\"{}\\[\\]]{0,4}").prop_map(|(length, end)| "x".repeat(length) + &end),
        (0..140_usize).prop_map(|length| "\\".repeat(length)),
    ]
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|number| json!(f64::from(number) / 16.0)),
        any_text().prop_map(Value::from),
    ];
    let key = prop_oneof![Just("a".to_owned()), Just("0".to_owned()), Just("b\"\\".to_owned()), any_text()];
    leaf.prop_recursive(4, 40, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..5).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

/// Writes JSON as `style`, a source of whims, has it: with blanks anywhere, and any character as an escape.
fn written(value: &Value, style: &mut impl FnMut() -> u8) -> String {
    let blank = |style: &mut dyn FnMut() -> u8| match style() {
        0..=200 => String::new(),
        whim => [" ", "\n", "\t", "\r\n"][usize::from(whim % 4)].repeat(usize::from(whim % 70)),
    };
    let mut out = blank(style);
    match value {
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| written(item, style)).collect();
            out += &format!("[{}{}]", items.join(","), blank(style));
        }
        Value::Object(fields) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|(key, value)| {
                    let (before, key, after) = (blank(style), text_written(key, style), blank(style));
                    format!("{before}{key}{after}:{}", written(value, style))
                })
                .collect();
            let inside = if fields.is_empty() { blank(style) } else { fields.join(",") };
            out += &format!("{{{inside}}}");
        }
        Value::String(text) => out += &text_written(text, style),
        scalar => out += &scalar.to_string(),
    }
    out + &blank(style)
}

fn text_written(text: &str, style: &mut impl FnMut() -> u8) -> String {
    let mut out = String::from("\"");
    for character in text.chars() {
        if style() < 16 {
            let mut units = [0; 2];
            out.extend(character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        } else {
            let quoted = Value::from(character.to_string()).to_string();
            out += &quoted[1..quoted.len() - 1];
        }
    }
    out + "\""
}

/// JSON, one way of writing it, and a pointer that mostly leads somewhere.
fn any_body() -> impl Strategy<Value = (Value, String, String)> {
    (any_json(), prop::collection::vec(any::<u8>(), 1..64), prop::collection::vec(any::<u8>(), 0..5)).prop_map(
        |(value, whims, turns)| {
            let mut whims = whims.into_iter().cycle();
            let body = written(&value, &mut || whims.next().unwrap_or(0));
            let pointer = pointer_into(&value, &turns);
            (value, body, pointer)
        },
    )
}

fn pointer_into(value: &Value, turns: &[u8]) -> String {
    let Some((turn, turns)) = turns.split_first() else { return String::new() };
    let turn = usize::from(*turn);
    match value {
        Value::Array(items) if !items.is_empty() => {
            let index = turn % items.len();
            format!("/{index}{}", pointer_into(&items[index], turns))
        }
        Value::Object(fields) if !fields.is_empty() => {
            let (key, value) = fields.iter().nth(turn % fields.len()).unwrap();
            format!("/{}{}", key.replace('~', "~0").replace('/', "~1"), pointer_into(value, turns))
        }
        _ if turn.is_multiple_of(3) => "/0".to_owned(),
        _ => String::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 2000 } else { 20_000 }))]

    #[test]
    fn a_pointer_finds_what_it_would_find_in_a_tree((value, body, pointer) in any_body()) {
        prop_assert_eq!(serde_json::from_str(&body).ok(), Some(value.clone()), "the test writes JSON");
        let expected = value.pointer(&pointer);
        prop_assert_eq!(found(body.as_bytes(), &pointer), expected.cloned(), "{} in {}", pointer, body);
        let text = find(body.as_bytes(), &pointer).and_then(text);
        prop_assert_eq!(text.as_deref(), expected.and_then(Value::as_str));
    }

    #[test]
    fn of_a_body_cut_short_the_same_is_found_or_nothing((value, body, pointer) in any_body(), cut in any::<prop::sample::Index>()) {
        if pointer.is_empty() {
            return Ok(());
        }
        let start = &body.as_bytes()[..cut.index(body.len())];
        if let Some(found) = find(start, &pointer) {
            prop_assert_eq!(serde_json::from_slice(found).ok(), value.pointer(&pointer).cloned());
        }
    }

    #[test]
    fn whatever_comes_after_the_value_changes_nothing((value, body, pointer) in any_body(), cut in any::<prop::sample::Index>(), noise in prop::collection::vec(any::<u8>(), 0..90)) {
        if pointer.is_empty() {
            return Ok(());
        }
        let whole = find(body.as_bytes(), &pointer);
        let end = whole.map_or(0, |found| found.as_ptr().addr() - body.as_ptr().addr() + found.len() + 1);
        let mut changed = body.clone().into_bytes();
        changed.truncate(end + cut.index(body.len() - end + 1));
        changed.extend(noise);
        if whole.is_some() {
            prop_assert_eq!(find(&changed, &pointer), whole);
            prop_assert!(value.pointer(&pointer).is_some());
        }
    }

    #[test]
    fn no_bytes_do_harm(body in prop::collection::vec(any::<u8>(), 0..300), pointer in "(/[a01]?){0,3}") {
        if let Some(found) = find(&body, &pointer) {
            let _ = text(found);
        }
    }

    #[test]
    fn nothing_that_looks_like_json_does_harm(body in "[\\[\\]{}\",:\\\\a0 ]{0,200}", pointer in "(/[a01]?){0,3}") {
        if let Some(found) = find(body.as_bytes(), &pointer) {
            let _ = text(found);
        }
        if let Ok(value) = serde_json::from_str::<Value>(&body) {
            prop_assert_eq!(found(body.as_bytes(), &pointer).is_some(), value.pointer(&pointer).is_some());
        }
    }
}

#[test]
fn brackets_and_quotes_inside_of_strings_end_nothing() {
    for length in 0..200 {
        let filling = "}]\\\"".repeat(length);
        let body = format!(r#"{{"a":{{"b":["{filling}",{{"c":"}}"}}]}},"d":"it"}}"#);
        assert_eq!(found(body.as_bytes(), "/d"), Some(json!("it")), "{body}");
    }
}

#[test]
fn a_run_of_backslashes_is_followed_across_blocks() {
    for blanks in 0..130 {
        for backslashes in 0..70 {
            let (blanks, pairs) = (" ".repeat(blanks), "\\\\".repeat(backslashes));
            let even = format!(r#"{{"a":[{blanks}"{pairs}","]"],"d":1}}"#);
            let odd = format!(r#"{{"a":[{blanks}"{pairs}\"]"],"d":1}}"#);
            assert_eq!(found(even.as_bytes(), "/d"), Some(json!(1)), "{even}");
            assert_eq!(found(odd.as_bytes(), "/d"), Some(json!(1)), "{odd}");
        }
    }
}

#[test]
fn any_depth_is_passed_over_without_recursion() {
    let deep = "[".repeat(200_000) + &"]".repeat(200_000);
    assert_eq!(found(format!(r#"{{"a":{deep},"d":1}}"#).as_bytes(), "/d"), Some(json!(1)));
    assert_eq!(find(format!(r#"{{"a":{deep}"#).as_bytes(), "/d"), None);
    assert_eq!(find(&b"[".repeat(200_000), "/0/0"), None);
}

#[test]
fn a_key_is_compared_as_it_is_read_not_as_it_is_written() {
    let body = br#"{"a\\b":1,"a\/b":2,"\u0061":3}"#;
    assert_eq!(found(body, r"/a\\b"), None);
    assert_eq!(found(body, r"/a\b"), Some(json!(1)));
    assert_eq!(found(body, "/a~1b"), Some(json!(2)));
    assert_eq!(found(body, "/a"), Some(json!(3)));
}

#[test]
fn of_equal_keys_the_first_counts() {
    assert_eq!(found(br#"{"a":1,"a":2}"#, "/a"), Some(json!(1)));
    assert_eq!(found(br#"{"a":{"b":1},"a":{"c":2}}"#, "/a/c"), None);
}

#[test]
fn a_number_without_an_end_may_be_longer_than_it_looks() {
    assert_eq!(find(br#"{"code":17"#, "/code"), None);
    assert_eq!(find(br#"{"code":17 "#, "/code"), Some(&b"17"[..]));
    assert_eq!(find(b" 17 ", ""), Some(&b"17"[..]));
}

#[test]
fn what_is_gone_through_is_checked() {
    for broken in [
        "",
        "{",
        "{}",
        "[]",
        "<html>",
        r#"{"a""#,
        r#"{"a":"#,
        r#"{"a":}"#,
        r#"{"a":,}"#,
        r#"{"b":1,}"#,
        r#"{"b" 1,"a":1}"#,
        r#"{b:1,"a":1}"#,
        r#"{"b":,"a":1}"#,
        r#"{"b":1 "a":1}"#,
        r#"{"b":1;"a":1}"#,
        r#"["a"]"#,
        r#""a""#,
    ] {
        assert_eq!(find(broken.as_bytes(), "/a").and_then(text), None, "{broken}");
    }
    assert_eq!(text(b"\"a\nb\""), None, "a line break in a string must be escaped");
    assert_eq!(text(b"\"\xff\""), None);
    assert_eq!(text(br#""\ud800""#), None, "half a character");
    assert_eq!(find(b"{\"a\":1}", "a"), None, "no JSON Pointer");
}
