//! Expressions over events.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::event::read;

/// An event of a shop, with extensions of every type.
fn order() -> Event {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", HeaderValue::from_static("application/cloudevents+json"));
    let body = r#"{
        "specversion": "1.0", "id": "1", "source": "/eu/orders", "type": "com.example.order.created",
        "time": "2024-05-01T14:30:00+02:00", "partitionkey": "a", "priority": 7, "flag": true, "text7": "7", "in": "x"
    }"#;
    read(&headers, &Bytes::from_static(body.as_bytes())).unwrap().remove(0)
}

fn answer(text: &str) -> Result<bool, MatchError> {
    Match::compile(text).unwrap_or_else(|bad| panic!("{text}: {bad}")).matches(&order())
}

fn refused(text: &str) -> String {
    Match::compile(text).map_or_else(|bad| bad.to_string(), |_| panic!("{text} must be refused"))
}

#[test]
fn attributes_are_variables_and_fields_of_the_event() {
    for text in [
        "true",
        "type == 'com.example.order.created' && source.startsWith('/eu/')",
        "event.type == type && event['id'] == id && specversion == '1.0'",
        "type in ['a', 'com.example.order.created']",
        "type.matches('^com[.]example[.](order|bill)[.]') && !matches(source, 'us')",
        "time < timestamp('2024-05-01T12:30:01Z') && time == timestamp('2024-05-01T12:30:00Z')",
        "time.getHours() == 12 && time.getMonth() == 4 && time.getDayOfWeek() == 3 && time.getDate() == 1",
        "string(time) == '2024-05-01T12:30:00Z'",
        "flag && priority > 5 && priority % 2 == 1 && -priority == 0 - 7",
        "string(flag) == 'true' && string(priority) == '7' && int(text7) == 7 && int(priority) == 7",
        "event['in'] == 'x'",
        "size(id) + 1 == 2 && id + 'x' == '1x'",
        "flag ? id == '1' : false",
    ] {
        assert_eq!(answer(text), Ok(true), "{text}");
    }
    assert_eq!(answer("false"), Ok(false));
}

#[test]
fn an_event_that_lacks_what_the_answer_depends_on_does_not_match() {
    for text in [
        "region == 'a'",
        "region != 'a'",
        "!(event.region == 'a')",
        "has(event.region)",
        "event['region'] == 'a'",
        "region",
        "subject == 'a'",
        "region == 'a' && true",
    ] {
        assert_eq!(answer(text), Ok(false), "{text}");
    }
    for text in ["id == '1' || region == 'a'", "region == 'a' || id == '1'", "!has(event.region)", "has(event.flag)"] {
        assert_eq!(answer(text), Ok(true), "{text}");
    }
}

#[test]
fn what_is_known_to_be_wrong_is_refused_with_its_place() {
    for (text, said) in [
        ("type", "line 1, column 1: comes to text: write what is true or false"),
        ("size(id)", "line 1, column 1: comes to a number"),
        ("true &&\n  Type == 'a'", "line 2, column 3: no attribute is called `Type`"),
        ("id == 'id' && id.foo() == 1", "line 1, column 18: there is no function `foo` here"),
        ("id == '1' && time == '2024'", "line 1, column 19: `==` cannot go between a timestamp and text: write the"),
        ("id && true", "line 1, column 4: `&&` cannot go between text and true or false"),
        ("[1].all(x, x > 0)", "line 1, column 5: `all` goes over a list"),
        ("{'a': 1} == {}", "line 1, column 1: maps are of no use here"),
        ("data.amount > 5", "line 1, column 1: the data is no attribute"),
        ("event.subject.x == 'a'", "line 1, column 15: attributes have no parts"),
        ("event == 1", "line 1, column 1: `event` is all attributes"),
        ("int == 1", "line 1, column 1: `int` is a type of CEL's: write `event.int`"),
        ("type.matches(id)", "line 1, column 6: `matches` cannot be used so"),
        ("type.matches('(')", "line 1, column 6: no pattern: unclosed group"),
        ("type.matches('((x{999}){999}){999}')", "line 1, column 6: no pattern: "),
        ("time > timestamp('yesterday')", "line 1, column 8: `timestamp` cannot be used so"),
        ("type == ", "line 1, column 9: "),
        ("", "line 1, column 1: "),
        ("has(partitionkey)", "line 1, column "),
    ] {
        assert!(refused(text).starts_with(said), "{text}: {}", refused(text));
    }
}

#[test]
fn what_is_wrong_for_one_event_is_an_error_that_holds_no_value() {
    for text in [
        "partitionkey > 5",
        "partitionkey",
        "int(partitionkey) > 1",
        "priority / (priority - 7) == 1",
        "flag + flag == 2",
    ] {
        let said = answer(text).expect_err(text).to_string();
        assert!(said.starts_with("the match gave no answer: "), "{said}");
        assert!(!said.contains("\"a\"") && !said.contains("'a'"), "{said}");
    }
}

#[test]
fn length_and_nesting_are_bounded() {
    let nested = |depth: usize| format!("{}id == '1'{}", "!(".repeat(depth), ")".repeat(depth));
    assert_eq!(answer(&nested(20)), Ok(true));
    let summed = format!("{} == 'a'", vec!["id"; 200].join("+"));
    for deep in [nested(40), "[".repeat(1000), "-(".repeat(1000), summed] {
        assert!(refused(&deep).contains("nested deeper than 32"), "{}", refused(&deep));
    }
    assert!(refused(&format!("id == '{}'", "x".repeat(MAX_LENGTH))).contains("longer than 2048 bytes"));
    // A long chain is no deep one.
    assert_eq!(answer(&vec!["id == '2'"; 150].join(" || ")), Ok(false));
}

/// Texts that look enough like CEL to come past its parser.
fn fragments() -> impl Strategy<Value = String> {
    let fragment = prop::sample::select(vec![
        "type",
        "id",
        "time",
        "event",
        "event.x",
        "has(event.x)",
        "x",
        "==",
        "!=",
        "<",
        ">=",
        "&&",
        "||",
        "!",
        "-",
        "+",
        "*",
        "/",
        "%",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "?",
        ".",
        "in",
        "'a'",
        "\"",
        "'''",
        "1",
        "-1",
        "1.5",
        "9223372036854775807",
        "-9223372036854775808",
        "0",
        "1u",
        "0x",
        "1e999",
        "true",
        "null",
        "b'a'",
        "r'\\",
        "'\\u",
        "'\\000'",
        "size(",
        "int(",
        "string(",
        "double(",
        "timestamp('2024-01-01T00:00:00Z')",
        ".matches('a')",
        ".getHours()",
        ".startsWith(",
        ".all(x,",
        "//",
        "\n",
        " ",
        "\u{e9}",
        "`a`",
        "\u{0}",
        "[?",
        ".?",
        "@in",
        "_",
    ]);
    prop::collection::vec(fragment, 0..24).prop_map(|parts| parts.join(" "))
}

/// Expressions that are CEL, most of them of types that go together.
fn expressions() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec![
        "type",
        "id",
        "time",
        "event.x",
        "has(event.flag)",
        "priority",
        "flag",
        "partitionkey",
        "text7",
        "event['in']",
        "'a'",
        "'\u{e9}'",
        "0",
        "-1",
        "9223372036854775807",
        "-9223372036854775808",
        "1.5",
        "0u",
        "18446744073709551615u",
        "timestamp('9999-12-30T23:59:59Z')",
        "timestamp(text7)",
        "time.getHours()",
        "true",
        "[]",
        "['a', 1, flag]",
    ]);
    leaf.prop_map(str::to_owned).prop_recursive(4, 24, 3, |inner| {
        let operators = vec!["==", "!=", "<", ">=", "&&", "||", "+", "-", "*", "/", "%", "in"];
        let functions = vec!["size", "string", "int", "double", "timestamp", "!", "-"];
        let members = vec!["startsWith", "contains", "endsWith"];
        prop_oneof![
            (inner.clone(), prop::sample::select(operators), inner.clone())
                .prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (prop::sample::select(functions), inner.clone()).prop_map(|(function, a)| format!("{function}({a})")),
            (inner.clone(), prop::sample::select(members), inner.clone())
                .prop_map(|(a, f, b)| format!("({a}).{f}({b})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_ends_the_host(text in prop_oneof![fragments(), any::<String>(), "[ -~]{0,80}"]) {
        let compiled = catch_unwind(|| Match::compile(&text).map(|compiled| compiled.matches(&order())));
        prop_assert!(compiled.is_ok(), "{}", text);
    }

    #[test]
    fn no_expression_ends_the_host(text in expressions()) {
        let asked = catch_unwind(|| Match::compile(&text).map(|compiled| compiled.matches(&order())));
        prop_assert!(asked.is_ok(), "{}", text);
    }

    #[test]
    fn the_parser_itself_does_not_panic(text in prop_oneof![fragments(), any::<String>(), "[ -~]{0,80}"]) {
        let said = parse(&text).err().map(|bad| bad.detail).unwrap_or_default();
        prop_assert!(!said.contains("gave up"), "{}", text);
    }
}
