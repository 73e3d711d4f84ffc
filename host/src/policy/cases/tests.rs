//! Case files by hand-written guests, and what is said of files that are wrong.

use std::path::Path;

use serde_json::Value;

use super::super::Workbench;
use super::super::tests::module;
use super::{CaseFile, Report, run};

/// What a guest's `judge` does on a second attempt: it becomes a dead letter.
const STRICT: &str = "(i32.store8 (i32.const 6144) (i32.const 3))";

/// It remembers that it was asked, and is strict from the second time on.
const FORGETFUL: &str = "
    (if (global.get $asked) (then (i32.store8 (i32.const 6144) (i32.const 3))))
    (global.set $asked (i32.const 1))";

fn parse(text: &str) -> Result<CaseFile, String> {
    CaseFile::parse(text, Path::new("cases.yaml")).map_err(|problems| problems.to_string())
}

fn report(judge: &str, cases: &str) -> Report {
    let items = "(global $asked (mut i32) (i32.const 0))";
    let candidate = Workbench::new().expect("a sandbox").load(&module(judge, items, "")).expect("a policy");
    run(&candidate, &[parse(cases).unwrap_or_else(|problems| panic!("{problems}"))])
}

#[test]
fn a_case_passes_when_all_it_expects_is_so() {
    let report = report(
        STRICT,
        "
policy: rough
cases:
  - { name: first, outcome: { status: 404 }, expect: { verdict: accept } }
  - { name: second, attempt: { number: 2 }, outcome: { silence: tls }, expect: { verdict: dead_letter, reason: '' } }",
    );
    assert!(report.passed(), "{report}");
    assert_eq!((report.cases(), report.failed()), (2, 0));
    let text = report.to_string();
    assert!(text.contains("\n  ok    second\n") && text.ends_with("2 cases passed, each asked three times"), "{text}");
}

#[test]
fn a_difference_is_shown_with_its_key_and_the_line_of_its_case() {
    let report = report(
        STRICT,
        "
cases:
  - name: patience
    attempt: { number: 2 }
    outcome: { status: 404 }
    expect: { verdict: retry, after: 1s, reason_contains: later }",
    );
    let text = report.to_string();
    assert_eq!(report.failed(), 1, "{text}");
    for said in [
        "  FAIL  patience\n        cases.yaml:3\n",
        "verdict          expected  retry\n",
        "                 got       dead_letter\n",
        "reason_contains  expected  …\"later\"…\n",
        "1 of 1 case failed, 0 passed",
        "`backstop policy build`",
    ] {
        assert!(text.contains(said), "no {said:?} in\n{text}");
    }
    assert!(!text.contains("after"), "what belongs to another verdict is not compared:\n{text}");
}

#[test]
fn a_policy_that_remembers_is_impure_even_where_the_expected_answer_is_among_its_own() {
    let report = report(
        FORGETFUL,
        "
cases:
  - { name: once, attempt: { number: 2 }, outcome: { status: 404 }, expect: { verdict: accept } }",
    );
    let text = report.to_string();
    assert!(!report.passed() && text.contains("the policy is impure"), "{text}");
    for run in
        ["in an instance in use   accept", "once more, in the same  dead_letter", "in a fresh instance     accept"]
    {
        assert!(text.contains(run), "no {run:?} in\n{text}");
    }
}

#[test]
fn what_one_case_left_behind_is_found_in_the_next() {
    let report = report(
        // It remembers the first question only, so that its two answers to each are alike.
        "(if (i32.eq (global.get $asked) (i32.const 4)) (then (i32.store8 (i32.const 6144) (i32.const 3))))
         (if (i32.eq (global.get $asked) (i32.const 0)) (then (global.set $asked (i32.const 1))))
         (if (i32.eq (local.get $number) (i32.const 3)) (then (global.set $asked (i32.const 4))))",
        "
cases:
  - { name: sets it, attempt: { number: 3 }, outcome: { status: 404 }, expect: { verdict: accept } }
  - { name: finds it, attempt: { number: 2 }, outcome: { status: 404 }, expect: { verdict: accept } }",
    );
    let impure: Vec<bool> = report.files[0].cases.iter().map(|case| !case.passed()).collect();
    assert_eq!(impure, [true, true], "{report}");
}

#[test]
fn a_failure_is_told_unless_it_is_expected() {
    let cases = "
cases:
  - { name: told, attempt: { number: 2 }, outcome: { status: 200 }, expect: { verdict: accept } }
  - { name: expected, attempt: { number: 2 }, outcome: { status: 200 }, expect: { failure_contains: trapped } }
  - { name: another, attempt: { number: 2 }, outcome: { status: 200 }, expect: { failure_contains: out of fuel } }
  - { name: none, outcome: { status: 200 }, expect: { failure_contains: trapped } }";
    let report = report("(unreachable)", cases);
    let passed: Vec<bool> = report.files[0].cases.iter().map(|case| case.passed()).collect();
    assert_eq!(passed, [false, true, false, false], "{report}");
    assert!(report.to_string().contains("the policy failed: trapped"), "{report}");
}

#[test]
fn a_question_that_the_policy_leaves_to_the_host_is_told_so() {
    let report = report("", "cases: [{ name: sent, ask: admit, expect: { admission: accept } }]");
    assert!(report.to_string().contains("does not answer `admit`, so every message is sent"), "{report}");
    let settles = "cases: [{ name: asked, ask: settle, outcome: { status: 200 }, expect: { settlement: committed } }]";
    let report = self::report("", settles);
    assert!(report.to_string().contains("so the host reads the sender's answer: implement `Settle`"), "{report}");
}

#[test]
fn the_report_for_ci_counts_and_names_what_failed() {
    let cases = "
cases:
  - { name: 'a <good> one', outcome: { status: 404 }, expect: { verdict: accept } }
  - { name: a bad one, attempt: { number: 2 }, outcome: { status: 404 }, expect: { verdict: accept } }";
    let xml = report(STRICT, cases).junit();
    for said in [
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"rough\" tests=\"2\" failures=\"1\" ",
        "<testsuite name=\"cases.yaml\" tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"0\" ",
        "<testcase name=\"a &lt;good&gt; one\" classname=\"rough\" ",
        "<failure message=\"verdict: expected accept, got dead_letter\" type=\"case\">cases.yaml:4\n",
    ] {
        assert!(xml.contains(said), "no {said:?} in\n{xml}");
    }
}

#[test]
fn every_mistake_is_told_in_one_go_with_its_line_and_the_mending() {
    let wrong = r#"polcy: x
cases:
  - name: a
    outcome: { status: 700, headers: { retry-after: 30 }, body: x, json: 1 }
    expect: { verdict: retri, after: 5 }
  - name: a
    outcome: { silence: timeout, status: 503 }
    expect: { admission: drop }
  - outcome: { status: 200, body_file: nowhere.txt }
    expect: { verdict: accept, after: 2s..1s, reason: a, reason_contains: b }
  - { name: c, message: { method: post, path: x, body_base64: "!" }, attempt: { number: 0, now: today } }
  - { name: d, outcome: { status: 200 }, expect: { config_refused: x, verdict: retry } }
  - { name: e, outcome: {}, expect: {} }
  - { name: f, outcome: { status: 200, repeat: 2 }, expect: { verdict: fall_back, fallback: { status: 200, route: b } } }
  - { name: h, ask: settle, attempt: { number: 2 }, outcome: { status: 200 }, expect: { settlement: commited } }
  - { name: i, ask: settle, expect: { verdict: accept, reason: x } }
  - { name: g, outcome: { status: 200, body: x, repeat: 5000000 }, expect: { verdict: fall_back, fallback: nothing } }
"#;
    let said = parse(wrong).expect_err("it is wrong");
    for (line, mistake) in [
        (1, "polcy: unknown key: did you mean `policy`?"),
        (4, "cases[0].outcome.status: `700`: write a whole number from 100 to 599"),
        (4, "cases[0].outcome.headers.retry-after: `30`: write it in quotes"),
        (4, "cases[0].outcome.json: a body is written once: remove this, or `body`"),
        (5, "cases[0].expect.verdict: `retri`: did you mean `retry`?"),
        (5, "cases[0].expect.after: `5`: a delay needs its unit: write 5s"),
        (6, "cases[1].name: `a`: the case on line 3 is called so"),
        (7, "cases[1].outcome: write either `silence` or an answer"),
        (8, "cases[1].expect.admission: means nothing for `ask: judge`"),
        (9, "cases[2]: a case needs its `name`"),
        (9, "cases[2].outcome.body_file: `nowhere.txt`: "),
        (10, "cases[2].expect.after: `2s..1s`: the range is empty: write 1s..2s"),
        (10, "cases[2].expect.after: belongs to `verdict: retry`"),
        (10, "cases[2].expect.reason_contains: write either"),
        (11, "cases[3]: a case needs to expect something: write `expect: { verdict: retry }`"),
        (11, "cases[3]: a case needs its `outcome`"),
        (11, "cases[3].message.method: `post`: write a method in upper case"),
        (11, "cases[3].message.path: `x`: write the path below the route"),
        (11, "cases[3].message.body_base64: is no base64"),
        (11, "cases[3].attempt.number: `0`: write a whole number from 1"),
        (11, "cases[3].attempt.now: `today`: write a moment since 1970 such as 2026-01-01T00:00:00Z"),
        (12, "cases[4].outcome: a policy that refuses its configuration is asked nothing"),
        (12, "cases[4].expect.verdict: there is no answer beside `config_refused`"),
        (13, "cases[5].outcome: an answer needs its `status`"),
        (13, "cases[5].expect: says too little: write at least `verdict`"),
        (14, "cases[6].outcome.repeat: there is no body to repeat"),
        (14, "cases[6].expect.fallback: write either `route: NAME` or an answer"),
        (15, "cases[7].attempt: `ask: settle` is about a sender's answer"),
        (15, "cases[7].expect.settlement: `commited`: did you mean `committed`?"),
        (16, "cases[8]: a case needs its `outcome`"),
        (16, "cases[8].expect.verdict: means nothing for `ask: settle`"),
        (16, "cases[8].expect.reason: means nothing for `ask: settle`"),
        (
            16,
            "cases[8].expect: says too little: write at least `settlement`, such as `expect: { settlement: committed }`",
        ),
        (17, "cases[9].outcome.repeat: `5000000`: write a whole number from 1 to 4194304"),
        (17, "cases[9].expect.fallback: `nothing`: write none, an answer such as"),
    ] {
        let mistake = format!("cases.yaml:{line}: {mistake}");
        assert!(said.contains(&mistake), "no {mistake:?} in\n{said}");
    }
}

#[test]
fn a_file_without_cases_is_told_what_it_needs() {
    for (text, said) in [
        ("", "it needs at least `cases`"),
        ("policy: x", "cases: missing"),
        ("cases: []", "cases: is empty"),
        ("cases: 7", "cases: is a number: write a list"),
        ("cases: [7]", "cases[0]: is a number: write a section"),
        ("cases: [", "not YAML"),
    ] {
        let refused = parse(text).expect_err(text);
        assert!(refused.contains(said), "{text:?}: {refused}");
    }
}

#[test]
fn nothing_is_looked_up_for_a_case() {
    let text = "cases: [{ name: '${env:HOME}', outcome: { status: 200 }, expect: { verdict: accept } }]";
    assert_eq!(parse(text).map(|file| file.cases[0].name.clone()), Ok("${env:HOME}".to_owned()));
}

#[test]
fn cases_of_another_policy_are_refused() {
    let text = "\npolicy: other\ncases: [{ name: a, outcome: { status: 200 }, expect: { verdict: accept } }]";
    let file = parse(text).expect("it is right");
    assert!(file.check_policy("other").is_ok());
    let refused = file.check_policy("mine").expect_err("it is another").to_string();
    assert!(refused.starts_with("cases.yaml:2: policy: these cases are for the policy `other`"), "{refused}");
}

#[test]
fn the_schema_that_editors_are_shown_knows_what_the_stock_policies_cases_say() {
    let schema = jsonschema::draft202012::new(&CaseFile::json_schema()).expect("a schema");
    for name in ["standard", "risk-control", "token-refresh", "scan-platform", "vendor-codes", "reliable-message"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies").join(name).join("cases.yaml");
        let text = std::fs::read_to_string(&path).expect("a case file");
        let value: Value = serde_yaml::from_str(&text).expect("YAML");
        let wrong: Vec<String> = schema.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(wrong.is_empty(), "{name}: {wrong:?}");
        assert!(CaseFile::load(&path).is_ok_and(|file| file.len() > 20), "{name}");
    }
    for wrong in [
        serde_json::json!({}),
        serde_json::json!({ "cases": [{ "name": "a" }] }),
        serde_json::json!({ "cases": [{ "name": "a", "expect": { "verdict": "retri" } }] }),
        serde_json::json!({ "cases": [{ "name": "a", "expect": { "after": "soon" } }] }),
        serde_json::json!({ "cases": [{ "name": "a", "expect": {}, "outcom": {} }] }),
    ] {
        assert!(!schema.is_valid(&wrong), "{wrong}");
    }
}
