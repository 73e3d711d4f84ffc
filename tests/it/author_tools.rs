//! What the author of a policy has at hand: `policy check` and its laws, `policy inspect`, `policy ask`.

use std::path::Path;
use std::process::{Command, Output};

use backstop_tests::artefacts::{binary, guest, stock_policy, workspace};
use serde_json::{Value, json};

const STOCK: [(&str, &str); 6] = [
    ("standard", "null"),
    ("risk-control", "null"),
    ("token-refresh", "null"),
    ("scan-platform", "null"),
    ("reliable-message", "null"),
    (
        "vendor-codes",
        r#"{"rules": [
            {"status": "5xx", "verdict": "retry", "after": "2s"},
            {"status": 429, "verdict": "retry", "after": "1m"},
            {"status": 400, "body_contains": "maintenance", "verdict": "retry", "after": "10m"},
            {"header": {"name": "x-fault", "contains": "E17"}, "verdict": "drop"},
            {"json": {"pointer": "/error/code", "in": ["QuotaExceeded"]}, "verdict": "fall_back"}
        ]}"#,
    ),
];

/// Every law, as its guest in `tests/guests/lawless` breaks it.
const LAWS: [&str; 9] = [
    "never-retries-410",
    "never-accepts-5xx",
    "never-accepts-silence",
    "never-shortens-retry-after",
    "gives-a-reason",
    "declares-what-it-reads",
    "answers-within-fuel",
    "total",
    "pure",
];

/// Runs `backstop policy …`.
fn policy(arguments: &[&str], file: &Path) -> Output {
    let (command, rest) = arguments.split_first().expect("a command");
    let mut line = Command::new(binary());
    line.args(["policy", command]).arg(file).args(rest).current_dir(workspace());
    line.output().expect("the binary runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", said(output)))
}

fn lawless(law: &str) -> String {
    json!({ "breaks": law }).to_string()
}

#[test]
fn author_tools_check_finds_nothing_in_the_stock_policies() {
    for (name, config) in STOCK {
        let output = policy(&["check", "--config", config], &stock_policy(name));
        assert_eq!(output.status.code(), Some(0), "{name}: {}", said(&output));
        assert!(said(&output).contains("✓ total"), "{}", said(&output));
    }
}

#[test]
fn author_tools_check_catches_every_broken_law_with_a_small_example_that_can_be_asked_again() {
    for law in LAWS {
        let output = policy(&["check", "--json", "--config", &lawless(law)], &guest("lawless"));
        assert_eq!(output.status.code(), Some(1), "{law}: {}", said(&output));
        let checked = json_of(&output);
        let laws = checked["laws"].as_array().expect("laws");
        let broken: Vec<&Value> = laws.iter().filter(|told| told["state"] == "broken").collect();
        assert_eq!(broken.len(), 1, "{law}: {broken:#?}");
        assert_eq!(broken[0]["law"], law);
        let ask = broken[0]["ask"].as_str().expect("a command");
        assert!(ask.len() < 1000 || law == "answers-within-fuel", "{law} by a small example: {ask}");
        if law == "pure" || law == "answers-within-fuel" {
            continue;
        }
        // What the command says is what the law complains of, word for word.
        let (_, arguments) = ask.split_once("backstop ").expect("backstop …");
        let shell = Command::new("sh").arg("-c").arg(format!("\"$0\" {arguments}")).arg(binary()).output();
        let asked = said(&shell.expect("a shell"));
        let how = broken[0]["how"].as_str().expect("words");
        let complaint = how.split([':', ',']).next().expect("a first part");
        assert!(asked.contains(complaint), "{law}: {how:?} in {ask}\n{asked}");
    }
}

#[test]
fn author_tools_a_code_deep_inside_a_body_is_found_and_nothing_else_is_left_of_it() {
    let output = policy(&["check", "--json", "--config", &lawless("never-accepts-5xx")], &guest("lawless"));
    let checked = json_of(&output);
    let broken = checked["laws"].as_array().expect("laws").iter().find(|told| told["state"] == "broken");
    let ask = broken.expect("a broken law")["ask"].as_str().expect("a command").to_owned();
    assert!(ask.contains(r#"--body '{"Response":{"Error":{"Code":"AlreadyDone"}}}'"#), "{ask}");
}

#[test]
fn author_tools_a_law_is_switched_off_by_name_and_its_reason_is_shown() {
    let without = "never-retries-410=the vendor means: try later";
    let output = policy(&["check", "--without", without, "--config", &lawless("never-retries-410")], &guest("lawless"));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("switched off: the vendor means: try later"), "{}", said(&output));

    let unknown = policy(&["check", "--without", "never-sleeps"], &guest("lawless"));
    assert_eq!(unknown.status.code(), Some(2));
    assert!(LAWS.iter().all(|law| said(&unknown).contains(law)), "{}", said(&unknown));
}

#[test]
fn author_tools_the_same_seed_finds_the_same() {
    let check = |seed: &str| {
        let config = lawless("total");
        said(&policy(&["check", "--seed", seed, "--cases", "1500", "--config", &config], &guest("lawless")))
    };
    assert_eq!(check("7"), check("7"));
}

#[test]
fn author_tools_a_body_too_long_to_be_printed_is_saved() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let save = folder.path().display().to_string();
    let config = lawless("answers-within-fuel");
    let output = policy(&["check", "--config", &config, "--save", &save], &guest("lawless"));
    let text = said(&output);
    let ask = text.lines().find_map(|line| line.trim().strip_prefix("ask it yourself")).expect("a command");
    let body = ask.split_whitespace().find_map(|word| word.strip_prefix('@')).map(std::fs::metadata);
    // The body may have come out short enough to be printed: fuel is what the compiler makes of it.
    if let Some(body) = body {
        assert!(body.expect("the saved body").len() > 1000);
    } else {
        assert!(ask.contains("--body"), "{text}");
    }
}

#[test]
fn author_tools_what_is_no_policy_is_refused_with_what_to_do_next() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let text = folder.path().join("text.wasm");
    std::fs::write(&text, "this is no WebAssembly").expect("a file");
    for command in [&["check"][..], &["inspect"], &["ask", "--status", "200"]] {
        for file in [text.as_path(), Path::new("policies/nowhere.wasm"), Path::new("policies")] {
            let output = policy(command, file);
            assert_eq!(output.status.code(), Some(2), "{command:?} {file:?}: {}", said(&output));
            assert!(said(&output).contains("`backstop policy build"), "{command:?} {file:?}: {}", said(&output));
        }
    }
}

#[test]
fn author_tools_a_policy_without_the_configuration_it_needs_says_how_to_give_one() {
    let output = policy(&["check"], &stock_policy("vendor-codes"));
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("rules") && said(&output).contains("--config"), "{}", said(&output));
    let inspected = policy(&["inspect"], &stock_policy("vendor-codes"));
    assert_eq!(inspected.status.code(), Some(0), "what it is can be said without: {}", said(&inspected));
    assert!(said(&inspected).contains("rules (required)"), "{}", said(&inspected));
}

#[test]
fn author_tools_inspect_says_what_a_file_holds() {
    let inspected = json_of(&policy(&["inspect", "--json"], &stock_policy("token-refresh")));
    assert_eq!(inspected["name"], "token-refresh");
    assert_eq!(inspected["hooks"], json!({ "admit": false, "judge": true, "fall_back": false, "settle": false }));
    assert_eq!(inspected["interest"]["headers"], json!(["www-authenticate", "retry-after"]));
    assert_eq!(inspected["interest"]["body_limit"], 8192);
    assert_eq!(inspected["digest"].as_str().map(str::len), Some(64));
    assert!(inspected["config_schema"]["properties"]["codes"].is_object(), "{inspected:#}");
    let size = std::fs::metadata(stock_policy("token-refresh")).expect("the file").len();
    assert_eq!(inspected["size"], size);
    let imports = inspected["imports"].as_array().expect("imports");
    assert!(imports.iter().all(|import| import == "log" || import == "attribute"), "{imports:?}");
}

#[test]
fn author_tools_ask_shows_the_verdict_and_what_the_envelope_makes_of_it() {
    let table = r#"{"rules": [{"status": 429, "verdict": "retry", "after": "5m", "reason": "busy"}]}"#;
    let ask = ["ask", "--config", table, "--status", "429", "--header", "retry-after: 90", "--attempt", "2"];
    let text = said(&policy(&ask, &stock_policy("vendor-codes")));
    for part in [
        "retry after 5m",
        "busy",
        "after 90s to 91s",
        "held for 90s",
        "delay 300s lowered to max_delay",
        "does not ask to see the field `retry-after`",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
    let last =
        json_of(&policy(&["ask", "--json", "--silence", "timeout", "--attempt", "5"], &stock_policy("standard")));
    assert_eq!(last["answer"]["verdict"], "retry");
    assert_eq!(last["envelope"]["transition"], "dead_letter");
    assert_eq!(last["envelope"]["clamped"], json!(["max_attempts reached"]));
    assert!(last["fuel"].as_u64() > Some(0) && last["failure"].is_null(), "{last:#}");
}

#[test]
fn author_tools_ask_reads_a_body_from_a_file_and_says_what_of_it_is_not_seen() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let body = folder.path().join("body.json");
    let answer = json!({ "Response": { "Error": { "Code": "InternalError" }, "RequestId": "3c14" } });
    std::fs::write(&body, answer.to_string()).expect("a file");
    let from_file = format!("@{}", body.display());
    let asked =
        json_of(&policy(&["ask", "--json", "--status", "200", "--body", &from_file], &stock_policy("risk-control")));
    assert_eq!(asked["answer"]["reason"], "InternalError (request 3c14)");
    assert_eq!(asked["log"][0]["text"], "InternalError:  (request 3c14)");
    let blind = said(&policy(&["ask", "--status", "500", "--body", &from_file], &stock_policy("standard")));
    assert!(blind.contains("does not ask to see the answer's body"), "{blind}");
}

#[test]
fn author_tools_ask_puts_the_other_questions_as_well() {
    let admit = ["ask", "--json", "--hook", "admit", "--request-body", "scan 7"];
    let dropped = json_of(&policy(&admit, &stock_policy("scan-platform")));
    assert_eq!(dropped["answer"], json!({ "admission": "drop", "reason": "not JSON" }));
    assert_eq!(dropped["envelope"]["transition"], "dropped");
    let not_answered = said(&policy(&["ask", "--hook", "fall-back", "--status", "500"], &stock_policy("standard")));
    assert!(not_answered.contains("the policy does not answer `fall-back`"), "{not_answered}");
}

#[test]
fn author_tools_ask_shows_a_failure_and_what_the_host_does_about_it() {
    let config = json!({ "trouble": "panic" }).to_string();
    let output = policy(&["ask", "--status", "418", "--config", &config], &guest("rough"));
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("a teapot was not foreseen") && said(&output).contains("dead letter"));
}

#[test]
fn author_tools_ask_refuses_what_makes_no_sense_with_what_to_write_instead() {
    for (arguments, instead) in [
        (&["ask"][..], "--silence timeout"),
        (&["ask", "--status", "42"], "100..=599"),
        (&["ask", "--status", "500", "--silence", "timeout"], "cannot be used with"),
        (&["ask", "--silence", "timeout", "--body", "x"], "leave its header fields and body out"),
        (&["ask", "--status", "500", "--header", "retry-after"], "NAME: VALUE"),
        (&["ask", "--status", "500", "--attempt", "7"], "--of"),
        (&["ask", "--status", "500", "--elapsed", "3"], "a duration needs its unit"),
        (&["ask", "--status", "500", "--now", "tomorrow"], "2027-01-15T08:00:00Z"),
        (&["ask", "--status", "500", "--config", "{"], "--config is neither JSON nor YAML"),
        (&["ask", "--status", "500", "--body", "@nowhere"], "failed to read nowhere"),
    ] {
        let output = policy(arguments, &stock_policy("standard"));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", said(&output));
        assert!(said(&output).contains(instead), "{arguments:?}: {}", said(&output));
    }
}
