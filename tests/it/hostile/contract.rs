//! Guests of a contract that is not quite ours, as components made by another host's SDK, or by an older or newer one.

use backstop_tests::hand_made::HandMade;

use super::stage::Stage;

/// A component by a contract in which `from` stands as `to` is refused, in words that contain `why`.
async fn is_refused(name: &str, from: &str, to: &str, items: &str, why: &str) {
    let stage = Stage::before(name).await;
    stage.replace(&HandMade::named(name).version("2").contract_with(from, to).items(items).component());
    let (refusal, ()) = tokio::join!(stage.refusal(), stage.others_do_not_notice());
    assert!(refusal.contains(why), "{refusal:?} does not say {why:?}");
    stage.is_judged_by_version("1").await;
}

#[tokio::test]
async fn hostile_contract_of_a_future_version() {
    let (from, to) = ("package backstop:policy@0.1.0;", "package backstop:policy@0.9.0;");
    is_refused("future", from, to, "", "was built for backstop:policy@0.9.0, and this host speaks").await;
}

#[tokio::test]
async fn hostile_contract_of_another_package() {
    let (from, to) = ("package backstop:policy@0.1.0;", "package elsewhere:policy@0.1.0;");
    is_refused("foreign", from, to, "", "imports `elsewhere:policy/types@0.1.0`").await;
}

#[tokio::test]
async fn hostile_contract_whose_manifest_has_one_more_field() {
    let (from, to) = ("hooks: hooks,", "hooks: hooks,\n        author: string,");
    is_refused("one-more-field", from, to, "", "does not keep to backstop:policy@0.1.0: ").await;
}

#[tokio::test]
async fn hostile_contract_whose_interest_has_one_field_less() {
    let (from, to) = ("request-limit: u32,", "");
    is_refused("one-field-less", from, to, "", "does not keep to backstop:policy@0.1.0: ").await;
}

#[tokio::test]
async fn hostile_contract_whose_verdict_has_one_more_case() {
    let (from, to) = ("        reauthenticate,", "        reauthenticate,\n        postpone,");
    is_refused("one-more-case", from, to, "", "does not keep to backstop:policy@0.1.0: ").await;
}

#[tokio::test]
async fn hostile_contract_whose_field_has_another_name() {
    let (from, to) = ("        latency: millis,", "        duration: millis,");
    is_refused("another-name", from, to, "", "does not keep to backstop:policy@0.1.0: ").await;
}

#[tokio::test]
async fn hostile_contract_that_lacks_a_question() {
    let (from, to) = ("export settle: func(outcome: outcome) -> settlement;", "");
    is_refused("lacks-settle", from, to, "", "does not keep to backstop:policy@0.1.0: no export").await;
}

#[tokio::test]
async fn hostile_contract_with_a_host_function_more() {
    let (from, to) = ("    import attribute:", "    import now: func() -> u64;\n    import attribute:");
    let uses_it = r#"(import "$root" "now" (func $now (result i64)))

        (func $teapot (type $teapot) (drop (call $now)) (i32.const 1024))"#;
    is_refused("wants-a-clock", from, to, uses_it, "imports `now`: a policy may import only `log` and `attribute`")
        .await;
}

#[tokio::test]
async fn hostile_contract_with_another_log() {
    let (from, to) = ("log: func(level: level, text: string);", "log: func(text: string, level: level);");
    is_refused("another-log", from, to, "", "does not keep to backstop:policy@0.1.0: ").await;
}
