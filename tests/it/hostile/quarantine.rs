//! A policy that fails again and again is set aside, and what was good before it judges; so it is at a start.

use std::os::unix::fs::PermissionsExt;

use backstop_tests::eventually;
use backstop_tests::hand_made::HandMade;

use super::stage::{Stage, failure};

/// The policy under suspicion, in this version, which traps at every teapot.
fn failing(version: u32) -> Vec<u8> {
    HandMade::named("fickle").version(version).items("(func $teapot (type $teapot) unreachable)").file()
}

fn good(version: u32) -> Vec<u8> {
    HandMade::named("fickle").version(version).file()
}

/// Sends teapots until the policy is set aside, which is after ten of them.
async fn fail_until_quarantined(stage: &Stage) {
    for _ in 0..10 {
        let failure = failure(&stage.teapot().await);
        assert!(failure.starts_with("trapped"), "{failure}");
    }
    let quarantined = || stage.host.log_lines("policy quarantined on route suspect");
    let lines = eventually("the quarantine", async || Some(quarantined()).filter(|lines| !lines.is_empty())).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("backstop::alarm") && lines[0].contains("trapped"), "{}", lines[0]);
}

#[tokio::test]
async fn hostile_quarantine_the_version_before_judges_until_a_new_file_comes() {
    let stage = Stage::before("fickle").await;
    stage.is_judged_by_version("1").await;
    stage.replace(&failing(2));
    eventually("version 2", async || (stage.status().await["version"] == "2").then_some(())).await;
    fail_until_quarantined(&stage).await;

    let quarantined = || async { stage.status().await["quarantines"][0].clone() };
    let quarantine = eventually("what stands in", async || Some(quarantined().await).filter(|it| it.is_object())).await;
    assert_eq!((&quarantine["route"], quarantine["stands_in"].is_string()), (&"suspect".into(), true), "{quarantine}");
    tokio::join!(stage.is_judged_by_version("1"), stage.others_do_not_notice());

    stage.replace(&good(3));
    stage.serves_in_version("3").await;
    assert_eq!(stage.status().await["quarantines"], serde_json::json!([]));
}

#[tokio::test]
async fn hostile_quarantine_without_a_version_before_it_is_no_longer_asked() {
    let stage = Stage::with_setting("fickle", &failing(1), "on_policy_failure: retry").await;
    for _ in 0..10 {
        stage.teapot().await;
    }
    let refused = eventually("the quarantine", async || {
        let message = stage.teapot().await;
        let said = message["journal"][0]["provenance"]["failure"].as_str()?.to_owned();
        said.starts_with("quarantined: not asked").then_some(message)
    })
    .await;
    assert_eq!(refused["attempts"], 2, "`on_policy_failure` decides: {refused}");
    assert_eq!(refused["journal"][0]["provenance"]["fuel"], 0, "{refused}");
    stage.others_do_not_notice().await;
}

#[tokio::test]
async fn hostile_quarantine_a_start_with_a_broken_file_goes_on_with_the_last_good_one() {
    let mut stage = Stage::before("fickle").await;
    stage.is_judged_by_version("1").await;
    stage.host.place().write("policies/fickle.wasm", "this is not WebAssembly");
    stage.host.kill().await;
    stage.host.restart().await;
    stage.is_judged_by_version("1").await;
    let why = stage.status().await["refusal"]["why"][0].to_string();
    assert!(why.contains("this is not WebAssembly"), "{why}");
    let said = || stage.host.log_lines("its last good one goes on");
    eventually("the operator is told", async || (said().len() == 1).then_some(())).await;
    stage.others_do_not_notice().await;
    stage.replace(&good(2));
    stage.serves_in_version("2").await;
}

#[tokio::test]
async fn hostile_state_that_others_can_write_to_is_refused() {
    let mut stage = Stage::before("fickle").await;
    stage.host.kill().await;
    let state = stage.host.place().path(".backstop");
    let mode = |mode| std::fs::set_permissions(&state, std::fs::Permissions::from_mode(mode)).expect("it is ours");
    assert_eq!(std::fs::metadata(&state).expect("it is there").permissions().mode() & 0o777, 0o700);
    mode(0o777);
    let output = stage.host.place().run(&["serve", "-c", "backstop.yaml"]).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("others than its owner can write to"), "{said}");
    assert!(said.contains("chmod go-w"), "{said}");
}
