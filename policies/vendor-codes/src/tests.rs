//! The table at work, natively.

use backstop_sdk::test::{Tested, attempt, configured, refused, response, silence};

use super::*;

fn table(rules: Value) -> Tested<VendorCodes> {
    configured(json!({ "rules": rules }))
}

/// The verdict of a table of one rule that retries what it matches, and drops the rest.
fn matches(look_at: Value, outcome: impl Into<Outcome>) -> bool {
    let mut rule = look_at;
    rule["verdict"] = json!("retry");
    let policy = configured::<VendorCodes>(json!({ "rules": [rule], "otherwise": "drop" }));
    policy.judge(attempt(1), outcome).verdict == retry("").verdict
}

fn wrong(rule: Value) -> String {
    refused::<VendorCodes>(json!({ "rules": [rule] }))
}

/// The request that users of such systems make most clearly.
fn the_clearest_request() -> Tested<VendorCodes> {
    table(json!([
        { "status": "5xx", "verdict": "retry", "after": "2s" },
        { "status": 429, "verdict": "retry", "after": "1m" },
        { "status": 400, "body_contains": "maintenance", "verdict": "retry", "after": "10m", "reason": "maintenance" },
        { "status": "4xx", "verdict": "dead_letter" },
    ]))
}

#[test]
fn maintenance_waits_ten_minutes_overload_one_and_failure_two_seconds() {
    let policy = the_clearest_request();
    let maintenance = response(400).body("planned maintenance until 5 o'clock");
    assert_eq!(policy.judge(attempt(1), maintenance), retry_after(minutes(10), "maintenance"));
    assert_eq!(policy.judge(attempt(1), response(429)), retry_after(minutes(1), "status 429"));
    assert_eq!(policy.judge(attempt(1), response(502)), retry_after(seconds(2), "status 5xx"));
}

#[test]
fn any_other_four_hundred_is_never_tried_again() {
    let policy = the_clearest_request();
    let others = (400..500).filter(|&status| status != 429);
    for status in others {
        assert_eq!(policy.judge(attempt(1), response(status).body("no")), dead_letter("status 4xx"), "{status}");
    }
}

#[test]
fn what_no_rule_matches_is_standard_unless_said_otherwise() {
    let policy = the_clearest_request();
    assert_eq!(policy.judge(attempt(1), response(201)), accept("success"));
    assert_eq!(policy.judge(attempt(1), silence(Fault::Reset)), retry("no answer"));

    let strict = configured::<VendorCodes>(
        json!({ "rules": [{ "status": 503, "verdict": "retry" }], "otherwise": "fall_back" }),
    );
    assert_eq!(strict.judge(attempt(1), silence(Fault::Reset)), give_up("no rule matches"));
    assert_eq!(strict.judge(attempt(1), response(204)), accept("success"));
}

#[test]
fn the_first_rule_that_matches_decides() {
    let rules =
        json!([{ "status": "404", "verdict": "drop" }, { "status": ["400", "404-499"], "verdict": "reauthenticate" }]);
    let verdict = |status| table(rules.clone()).judge(attempt(1), response(status)).verdict;
    assert_eq!(verdict(404), drop_message("").verdict);
    assert_eq!(verdict(405), reauthenticate("").verdict);
    assert_eq!(verdict(400), reauthenticate("").verdict);
    assert_eq!(verdict(403), dead_letter("").verdict);
}

#[test]
fn silence_matches_any_fault_or_those_listed_and_no_answer() {
    assert!(matches(json!({ "silence": true }), silence(Fault::Tls)));
    assert!(matches(json!({ "silence": ["timeout", "reset"] }), silence(Fault::Reset)));
    assert!(!matches(json!({ "silence": ["timeout", "reset"] }), silence(Fault::Tls)));
    assert!(!matches(json!({ "silence": true }), response(500)));
}

#[test]
fn a_header_field_is_compared_whole_in_part_or_for_being_there() {
    let busy = || response(503).header("X-Code", "Vendor BUSY");
    let header = |test: Value| matches(json!({ "header": test }), busy());
    assert!(header(json!({ "name": "x-code", "equals": "Vendor BUSY" })));
    assert!(!header(json!({ "name": "x-code", "equals": "Vendor busy" })));
    assert!(header(json!({ "name": "X-CODE", "contains": "BUSY" })));
    assert!(header(json!({ "name": "x-code", "present": true })));
    assert!(header(json!({ "name": "x-other", "present": false })));
    assert!(matches(json!({ "header": { "name": "x-code", "equals": "vendor busy" }, "ignore_case": true }), busy()));
    assert!(!matches(json!({ "header": { "name": "x-other", "present": false } }), silence(Fault::Reset)));
}

#[test]
fn a_body_is_searched_with_or_without_regard_to_case() {
    let body = || response(400).body("Übermorgen WARTUNG");
    assert!(matches(json!({ "body_contains": "WARTUNG" }), body()));
    assert!(!matches(json!({ "body_contains": "Wartung" }), body()));
    assert!(matches(json!({ "body_contains": "übermorgen Wartung", "ignore_case": true }), body()));
}

#[test]
fn a_json_value_is_compared_with_one_with_several_or_for_being_there() {
    let answer = || response(200).json(json!({ "error": { "code": 17, "detail": null } }));
    let value = |test: Value| matches(json!({ "json": test }), answer());
    assert!(value(json!({ "pointer": "/error/code", "equals": 17 })));
    assert!(!value(json!({ "pointer": "/error/code", "equals": "17" })));
    assert!(value(json!({ "pointer": "/error/code", "in": [16, 17] })));
    assert!(!value(json!({ "pointer": "/error/code", "in": [] })));
    assert!(value(json!({ "pointer": "/error/detail", "equals": null })));
    assert!(!value(json!({ "pointer": "/error/other", "equals": null })));
    assert!(value(json!({ "pointer": "/error", "exists": true })));
    assert!(value(json!({ "pointer": "/result", "exists": false })));
    assert!(!matches(json!({ "json": { "pointer": "", "exists": true } }), response(200).body("no JSON")));
}

#[test]
fn all_that_a_rule_looks_at_must_match() {
    let both = json!({ "status": "2xx", "json": { "pointer": "/error", "exists": true } });
    assert!(matches(both.clone(), response(200).json(json!({ "error": 1 }))));
    assert!(!matches(both.clone(), response(200).json(json!({}))));
    assert!(!matches(both, response(500).json(json!({ "error": 1 }))));
}

#[test]
fn a_retry_may_hold_the_destination_and_a_fallback_may_lead_to_a_second_vendor() {
    let policy = table(json!([
        { "status": 503, "verdict": "retry", "after": "30s", "scope": "destination" },
        { "status": 429, "verdict": "retry", "scope": "message", "reason": "ours alone" },
        { "status": 410, "verdict": "fall_back", "route": "second-vendor" },
        { "status": 409, "verdict": "fall_back" },
        { "status": 408, "verdict": "accept" },
    ]));
    let judge = |status| policy.judge(attempt(1), response(status));
    assert_eq!(judge(503), retry_after(seconds(30), "status 503").for_destination());
    assert_eq!(judge(429), retry("ours alone").for_this_message());
    assert_eq!(judge(410), fall_back_to_route("second-vendor", "status 410"));
    assert_eq!(judge(409), give_up("status 409"));
    assert_eq!(judge(408), accept("status 408"));
}

#[test]
fn the_sandbox_is_shown_what_the_rules_read_and_nothing_else() {
    let by_status = table(json!([{ "status": 429, "verdict": "retry" }]));
    assert_eq!(by_status.interest(), &Interest::none());

    let rule = json!({ "header": { "name": "X-Code", "present": true }, "body_contains": "busy", "verdict": "retry" });
    let by_more = configured::<VendorCodes>(json!({ "rules": [rule], "body_limit": 100 }));
    assert_eq!(by_more.interest(), &Interest::none().header("x-code").body(100));
}

#[test]
fn a_rule_that_cannot_be_meant_is_refused_with_the_mending() {
    assert!(wrong(json!({ "verdict": "retry" })).starts_with("rule 1: looks at nothing"));
    assert!(wrong(json!({ "silence": true, "status": 500, "verdict": "retry" })).contains("make two rules"));
    assert!(wrong(json!({ "status": 500, "verdict": "drop", "after": "2s" })).contains("`after` belongs to"));
    assert!(wrong(json!({ "status": 500, "verdict": "retry", "route": "b" })).contains("`route` belongs to"));
    assert!(wrong(json!({ "header": { "name": "a" }, "verdict": "retry" })).contains("exactly one of"));
    assert!(wrong(json!({ "header": { "name": "a b", "present": true }, "verdict": "drop" })).contains("no header"));
    let pointer = json!({ "json": { "pointer": "code", "exists": true }, "verdict": "drop" });
    assert!(wrong(pointer).ends_with("`code` is no JSON Pointer: write `/code`"));
    assert!(wrong(json!({ "body_contains": "", "verdict": "drop" })).contains("every body"));
}

#[test]
fn every_mistake_is_reported_in_one_go() {
    let rules = json!([
        { "status": 500, "verdict": "drop", "after": "2s", "scope": "message" },
        { "status": 501, "verdict": "drop" },
        { "verdict": "drop" },
    ]);
    let why = refused::<VendorCodes>(json!({ "rules": rules, "body_limit": 0 }));
    assert_eq!(why.matches("rule 1: ").count(), 2, "{why}");
    assert!(why.contains("`body_limit` is 0") && why.contains("rule 3: ") && !why.contains("rule 2: "), "{why}");
}

#[test]
fn a_status_that_is_none_is_refused() {
    for status in
        [json!(99), json!(600), json!("6xx"), json!("xx"), json!("4x"), json!("499-400"), json!("+40"), json!([])]
    {
        assert!(wrong(json!({ "status": status, "verdict": "drop" })).contains("status"), "{status}");
    }
    assert!(
        wrong(json!({ "silence": ["slow"], "verdict": "drop" })).contains("\"slow\" is no fault: resolve, connect")
    );
    assert!(wrong(json!({ "silence": false, "verdict": "drop" })).contains("leave it out"));
    assert!(wrong(json!({ "status": 500, "verdict": "retry", "after": "2 min" })).contains("such as `2s`"));
    assert!(wrong(json!({ "status": 500, "verdict": "retri" })).starts_with("unknown variant `retri`"));
    assert!(refused::<VendorCodes>(json!({ "rules": [] })).contains("1 to 256"));
    assert_eq!(refused::<VendorCodes>(Value::Null), "missing field `rules`");
}

#[test]
fn the_schema_that_operators_are_shown_agrees_with_the_table() {
    let manifest = <VendorCodes as backstop_sdk::export::Guest>::describe();
    let schema: Value = backstop_sdk::serde_json::from_str(&manifest.config_schema).unwrap();
    let holds = |rule: Value| jsonschema::is_valid(&schema, &json!({ "rules": [rule] }));
    for looks_at in [
        json!({ "status": 429 }),
        json!({ "status": "5xx" }),
        json!({ "status": [400, "404-499", "2xx"] }),
        json!({ "silence": true }),
        json!({ "silence": ["timeout", "credentials"] }),
        json!({ "header": { "name": "a", "present": false } }),
        json!({ "json": { "pointer": "/a", "equals": null } }),
        json!({ "json": { "pointer": "/a", "in": [1, "b"] } }),
        json!({ "body_contains": "a", "ignore_case": true }),
    ] {
        let mut rule = looks_at.clone();
        rule["verdict"] = json!("retry");
        rule["after"] = json!("500ms");
        table(json!([rule.clone()]));
        assert!(holds(rule), "{looks_at}");
    }
    for wrong in [
        json!({ "status": 600, "verdict": "drop" }),
        json!({ "status": "6xx", "verdict": "drop" }),
        json!({ "status": [], "verdict": "drop" }),
        json!({ "silence": false, "verdict": "drop" }),
        json!({ "silence": ["slow"], "verdict": "drop" }),
        json!({ "status": 500, "verdict": "retri" }),
        json!({ "status": 500, "verdict": "retry", "after": "2 min" }),
        json!({ "status": 500, "verdict": "retry", "afetr": "2s" }),
        json!({ "status": 500 }),
    ] {
        assert!(!holds(wrong.clone()), "{wrong}");
    }
    assert!(!jsonschema::is_valid(&schema, &json!({ "rules": [] })));
    assert!(!jsonschema::is_valid(&schema, &Value::Null));
}
