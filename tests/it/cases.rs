//! The author's tools: a new crate, its cases, and what is said of a policy that does not keep to them.

use std::path::Path;
use std::process::Output;

use backstop_tests::Setup;
use backstop_tests::artefacts::{binary, guest, stock_policy, workspace};
use backstop_tests::setup::Place;

const STOCK: [&str; 6] =
    ["standard", "risk-control", "token-refresh", "scan-platform", "vendor-codes", "reliable-message"];

/// A case file for `standard`, the second of whose cases is wrong.
const WRONG: &str = "\
policy: standard
cases:
  - name: overload is tried again
    outcome: { status: 429 }
    expect: { verdict: retry }
  - name: a missing order is <tried> again
    outcome: { status: 404 }
    expect: { verdict: retry, after: 1s..2s, reason: not there yet }
";

/// A folder to work in.
fn desk() -> Place {
    Setup::routes("").place()
}

fn says(output: &Output) -> String {
    String::from_utf8_lossy(&[&*output.stdout, &*output.stderr].concat()).into_owned()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Runs a program to its end in `folder`, offline, with the dependencies that the workspace has and its lock file knows.
/// What cargo tells the tests of themselves is taken out of its environment, or build scripts would be run anew.
async fn offline(program: &Path, folder: &Path, target: &Path, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::new(program);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CARGO_")) {
        let name = name.to_string_lossy().into_owned();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|own| name.starts_with(own)) {
            command.env_remove(name);
        }
    }
    command.env("CARGO_NET_OFFLINE", "true").env("CARGO_TARGET_DIR", target);
    command.current_dir(folder).args(arguments).output().await.expect("the program runs")
}

#[tokio::test]
async fn cases_of_the_stock_policies_pass() {
    for name in STOCK {
        let cases = workspace().join("policies").join(name).join("cases.yaml");
        let output = desk().run(&["policy", "test", &shown(&stock_policy(name)), &shown(&cases)]).await;
        let said = says(&output);
        assert!(output.status.success(), "{said}");
        assert!(said.contains(name) && said.contains(" cases passed, each asked three times"), "{said}");
    }
}

#[tokio::test]
async fn cases_that_fail_are_shown_with_their_line_and_what_differs() {
    let place = desk();
    place.write("cases.yaml", WRONG);
    let output = place.run(&["policy", "test", &shown(&stock_policy("standard")), "cases.yaml"]).await;
    let said = says(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    for line in [
        "  ok    overload is tried again",
        "  FAIL  a missing order is <tried> again",
        "        cases.yaml:6",
        "          verdict  expected  retry",
        "                   got       dead_letter, \"not found\"",
        "          reason   expected  \"not there yet\"",
        "1 of 2 cases failed, 1 passed",
    ] {
        assert!(said.lines().any(|said| said == line), "no {line:?} in\n{said}");
    }
    assert!(said.contains("mend the policy and run `backstop policy build`"), "{said}");
}

#[tokio::test]
async fn cases_are_reported_to_ci_as_junit_xml() {
    let place = desk();
    place.write("cases.yaml", WRONG);
    let policy = shown(&stock_policy("standard"));
    let output = place.run(&["policy", "test", &policy, "cases.yaml", "--junit", "target/cases.xml"]).await;
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let xml = std::fs::read_to_string(place.path("target/cases.xml")).expect("the report");
    assert!(
        xml.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"standard\" tests=\"2\""),
        "{xml}"
    );
    assert!(xml.contains("<testcase name=\"overload is tried again\" classname=\"standard\" time="), "{xml}");
    assert!(xml.contains("<testcase name=\"a missing order is &lt;tried&gt; again\" "), "{xml}");
    assert!(
        xml.contains("<failure message=\"verdict: expected retry, got dead_letter, &quot;not found&quot;\" "),
        "{xml}"
    );
    // Whatever is opened is closed.
    for element in ["testsuites", "testsuite", "failure"] {
        let count = |text: &str| xml.matches(text).count();
        let opened = count(&format!("<{element} "));
        assert!(opened > 0 && opened == count(&format!("</{element}>")), "{element}: {xml}");
    }
}

#[tokio::test]
async fn cases_of_a_file_that_is_wrong_are_not_asked() {
    let place = desk();
    place.write("first.yaml", "cases:\n  - name: a\n    outcom: { status: 200 }\n    expect: { verdict: acept }\n");
    place.write("second.yaml", "policy: other\ncases: []\n");
    let policy = shown(&stock_policy("standard"));
    let output = place.run(&["policy", "test", &policy, "first.yaml", "second.yaml"]).await;
    let said = says(&output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for mistake in [
        "first.yaml:3: cases[0].outcom: unknown key: did you mean `outcome`?",
        "first.yaml:4: cases[0].expect.verdict: `acept`: did you mean `accept`?",
        "second.yaml:2: cases: is empty",
        "nothing was tested",
    ] {
        assert!(said.contains(mistake), "no {mistake:?} in\n{said}");
    }
    let cases = shown(&workspace().join("policies/standard/cases.yaml"));
    let other = place.run(&["policy", "test", "first.yaml", &cases]).await;
    assert_eq!(other.status.code(), Some(2), "{other:?}");
    assert!(says(&other).contains("first.yaml: this is not WebAssembly"), "{other:?}");
}

#[tokio::test]
async fn cases_find_a_policy_that_remembers_what_it_was_asked() {
    let place = desk();
    let cases = "\
cases:
  - name: a 404 may go away
    outcome: { status: 404 }
    expect: { verdict: retry }
  - name: overload is waited out
    outcome: { status: 503 }
    expect: { verdict: retry }
";
    place.write("cases.yaml", cases);
    let output = place.run(&["policy", "test", &shown(&guest("forgetful")), "cases.yaml"]).await;
    let said = says(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("the policy is impure: the same question got different answers"), "{said}");
    for run in [
        "in an instance in use   retry, scope standard, \"it may still come\"",
        "once more, in the same  dead_letter, \"not found\"",
        "in a fresh instance     retry, scope standard, \"it may still come\"",
    ] {
        assert!(said.contains(run), "no {run:?} in\n{said}");
    }
    assert!(said.contains("  ok    overload is waited out"), "what it is pure about passes: {said}");
}

#[tokio::test]
async fn cases_of_a_new_policy_pass_once_it_is_built_as_it_was_made() {
    let place = desk();
    let made = place.run(&["policy", "new", "my-rule"]).await;
    let said = says(&made);
    assert!(made.status.success(), "{said}");
    for next in ["cargo test", "backstop policy build my-rule", "policy test policies/my-rule.wasm my-rule/cases.yaml"]
    {
        assert!(said.contains(next), "no {next:?} in\n{said}");
    }
    let (folder, dir) = (place.path("my-rule"), place.path(""));
    std::fs::copy(workspace().join("Cargo.lock"), folder.join("Cargo.lock")).expect("a lock file");
    let target = binary().ancestors().nth(2).expect("the binary lies in target/debug");

    let tested = offline(Path::new(env!("CARGO")), &folder, target, &["test", "--quiet"]).await;
    assert!(tested.status.success() && says(&tested).contains("1 passed"), "{}", says(&tested));
    let built = offline(binary(), &dir, target, &["policy", "build", "my-rule"]).await;
    assert!(built.status.success(), "{}", says(&built));
    let judged = place.run(&["policy", "test", "policies/my-rule.wasm", "my-rule/cases.yaml"]).await;
    assert!(judged.status.success() && says(&judged).contains("6 cases passed"), "{}", says(&judged));
}

#[tokio::test]
async fn cases_a_new_policy_is_not_made_over_another_or_under_a_name_it_cannot_have() {
    let place = desk();
    place.write("keep", "mine");
    for (name, said) in [("keep", "exists already"), ("match", "`match-policy`"), ("My_Rule", "`my-rule`")] {
        let refused = place.run(&["policy", "new", name]).await;
        assert!(!refused.status.success() && says(&refused).contains(said), "{name}: {}", says(&refused));
    }
    assert_eq!(std::fs::read_to_string(place.path("keep")).ok().as_deref(), Some("mine"));

    let refused = place.run(&["policy", "new", "mine", "--sdk", "nowhere"]).await;
    assert!(says(&refused).contains("give the folder `guest-sdk` of a checkout"), "{}", says(&refused));
    assert!(!place.path("mine").exists(), "nothing half-made stays behind");
}
