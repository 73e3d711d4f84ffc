//! Guests that do well until they serve. Each does its worst when the vendor is a teapot.

use backstop_tests::hand_made::HandMade;
use serde_json::Value;

use super::stage::{Stage, failure};

mod every_guest_has_a_test {
    include!(concat!(env!("OUT_DIR"), "/hostile_serving.rs"));
}

async fn stage_for(name: &str) -> Stage {
    Stage::with(name, &HandMade::hostile("serving", name).file()).await
}

/// The guest fails at the teapot, in words that contain `why`; the standard rule judges in its stead, and the other
/// route goes on meanwhile.
async fn fails(name: &str, why: &str) {
    let message = is_recorded(name, why).await;
    let (state, reason) = (&message["state"], message["reason"].as_str().unwrap_or_default());
    assert_eq!(
        (state, reason),
        (&"dead".into(), "policy failed; refused by the destination"),
        "as the standard rule says"
    );
}

/// The guest fails in words that contain `why` (or one of them, where a busy machine may cut it off by time rather than
/// by fuel): once on the record, once in the log, and nowhere else.
async fn is_recorded(name: &str, why: &str) -> Value {
    let stage = stage_for(name).await;
    let (message, ()) = tokio::join!(stage.teapot(), stage.others_do_not_notice());
    let failure = failure(&message);
    assert!(why.split('|').any(|why| failure.contains(why)), "{failure:?} does not say {why:?}");
    let logged = || stage.host.log_lines(r#""message":"policy failed""#);
    let logged = backstop_tests::eventually("the log line", async || Some(logged()).filter(|l| !l.is_empty())).await;
    assert_eq!(logged.len(), 1, "{logged:?}");
    stage.others_do_not_notice().await;
    message
}

#[tokio::test]
async fn hostile_judge_loops() {
    fails("judge-loops", "out of fuel|out of time").await;
}

#[tokio::test]
async fn hostile_judge_recurses() {
    fails("judge-recurses", "out of stack: it called too deeply").await;
}

#[tokio::test]
async fn hostile_judge_grows_memory() {
    fails("judge-grows-memory", "out of memory: it wanted 17 MiB of memory, its limit is 16 MiB").await;
}

#[tokio::test]
async fn hostile_judge_grows_memory_for_ever() {
    fails("judge-grows-memory-for-ever", "out of ").await;
}

#[tokio::test]
async fn hostile_judge_grows_its_table() {
    fails("judge-grows-its-table", "out of ").await;
}

#[tokio::test]
async fn hostile_judge_fills_memory() {
    fails("judge-fills-memory", "out of ").await;
}

#[tokio::test]
async fn hostile_judge_copies_memory() {
    fails("judge-copies-memory", "out of ").await;
}

#[tokio::test]
async fn hostile_judge_traps() {
    fails("judge-traps", "trapped: wasm trap: wasm `unreachable` instruction executed").await;
}

#[tokio::test]
async fn hostile_judge_panics() {
    fails("judge-panics", "panicked: a teapot ERROR was not foreseen").await;
}

#[tokio::test]
async fn hostile_judge_divides_by_zero() {
    fails("judge-divides-by-zero", "trapped: wasm trap: integer divide by zero").await;
}

#[tokio::test]
async fn hostile_judge_calls_nothing() {
    fails("judge-calls-nothing", "trapped: wasm trap: uninitialized element").await;
}

#[tokio::test]
async fn hostile_judge_reads_beyond_memory() {
    fails("judge-reads-beyond-memory", "trapped: wasm trap: out of bounds memory access").await;
}

#[tokio::test]
async fn hostile_decision_beyond_memory() {
    fails("decision-beyond-memory", "out of bounds").await;
}

#[tokio::test]
async fn hostile_decision_misaligned() {
    fails("decision-misaligned", "not aligned").await;
}

#[tokio::test]
async fn hostile_reason_beyond_memory() {
    fails("reason-beyond-memory", "out of bounds").await;
}

#[tokio::test]
async fn hostile_reason_without_end() {
    fails("reason-without-end", "out of bounds").await;
}

#[tokio::test]
async fn hostile_reason_enormous() {
    fails("reason-enormous", "answered nonsense: its answer is longer than 1 MiB").await;
}

#[tokio::test]
async fn hostile_reason_not_utf8() {
    fails("reason-not-utf8", "invalid utf-8").await;
}

#[tokio::test]
async fn hostile_verdict_unknown() {
    fails("verdict-unknown", "discriminant").await;
}

#[tokio::test]
async fn hostile_scope_unknown() {
    fails("scope-unknown", "discriminant").await;
}

#[tokio::test]
async fn hostile_delay_neither_some_nor_none() {
    fails("delay-neither-some-nor-none", "discriminant").await;
}

#[tokio::test]
async fn hostile_fallback_unknown() {
    fails("fallback-unknown", "discriminant").await;
}

#[tokio::test]
async fn hostile_delay_of_ages() {
    fails("delay-of-ages", "answered nonsense: it wants to retry after 11574074074 days; delays are in milliseconds")
        .await;
}

#[tokio::test]
async fn hostile_fallback_status_zero() {
    fails("fallback-status-zero", "answered nonsense: the fallback's status is 0, not 200 to 599").await;
}

#[tokio::test]
async fn hostile_fallback_to_no_name() {
    fails("fallback-to-no-name", "answered nonsense: no route can be called \"../elsewhere\"").await;
}

#[tokio::test]
async fn hostile_field_value_with_newline() {
    fails(
        "field-value-with-newline",
        "answered nonsense: the fallback's `x-code` has a character that no header field may have",
    )
    .await;
}

#[tokio::test]
async fn hostile_field_name_with_newline() {
    fails("field-name-with-newline", "answered nonsense: the fallback has a header field called").await;
}

#[tokio::test]
async fn hostile_field_of_framing() {
    fails("field-of-framing", "answered nonsense: the fallback sets `content-length`, which is the host's to set")
        .await;
}

#[tokio::test]
async fn hostile_fields_too_many() {
    fails("fields-too-many", "answered nonsense: the fallback has 65 header fields, at most 64").await;
}

#[tokio::test]
async fn hostile_fields_without_end() {
    fails("fields-without-end", "out of bounds").await;
}

#[tokio::test]
async fn hostile_fields_amplified() {
    fails("fields-amplified", "answered nonsense: its answer is longer than 1 MiB").await;
}

#[tokio::test]
async fn hostile_fields_of_nothing() {
    fails("fields-of-nothing", "answered nonsense: its answer is longer than 1 MiB").await;
}

#[tokio::test]
async fn hostile_body_enormous() {
    fails("body-enormous", "answered nonsense: its answer is longer than 1 MiB").await;
}

#[tokio::test]
async fn hostile_body_beyond_memory() {
    fails("body-beyond-memory", "out of bounds").await;
}

#[tokio::test]
async fn hostile_logs_for_ever() {
    fails("logs-for-ever", "out of fuel|out of time").await;
}

#[tokio::test]
async fn hostile_logs_empty_lines_for_ever() {
    fails("logs-empty-lines-for-ever", "out of fuel|out of time").await;
}

#[tokio::test]
async fn hostile_logs_an_enormous_line() {
    fails("logs-an-enormous-line", "longer than 1 MiB").await;
}

#[tokio::test]
async fn hostile_logs_beyond_memory() {
    fails("logs-beyond-memory", "out of bounds").await;
}

#[tokio::test]
async fn hostile_logs_no_text() {
    fails("logs-no-text", "invalid utf-8").await;
}

#[tokio::test]
async fn hostile_logs_at_no_level() {
    fails("logs-at-no-level", "discriminant").await;
}

#[tokio::test]
async fn hostile_asks_for_ever() {
    fails("asks-for-ever", "out of fuel|out of time").await;
}

#[tokio::test]
async fn hostile_asks_with_an_enormous_key() {
    fails("asks-with-an-enormous-key", "longer than 1 MiB").await;
}

#[tokio::test]
async fn hostile_asks_beyond_memory() {
    fails("asks-beyond-memory", "out of bounds").await;
}

#[tokio::test]
async fn hostile_room_loops() {
    fails("room-loops", "out of fuel|out of time").await;
}

#[tokio::test]
async fn hostile_room_beyond_memory() {
    fails("room-beyond-memory", "beyond end of memory").await;
}

#[tokio::test]
async fn hostile_room_traps() {
    fails("room-traps", "trapped: wasm trap: wasm `unreachable` instruction executed").await;
}

#[tokio::test]
async fn hostile_room_logs() {
    fails("room-logs", "cannot leave component instance").await;
}

#[tokio::test]
async fn hostile_cleanup_loops() {
    fails("cleanup-loops", "out of fuel|out of time").await;
}

#[tokio::test]
async fn hostile_cleanup_traps() {
    fails("cleanup-traps", "trapped: wasm trap: wasm `unreachable` instruction executed").await;
}

#[tokio::test]
async fn hostile_admit_loops() {
    let message = is_recorded("admit-loops", "out of fuel|out of time").await;
    assert_eq!(message["state"], "delivered", "a message is sent all the same, and judged: {message}");
}

#[tokio::test]
async fn hostile_admit_answers_nonsense() {
    let message = is_recorded("admit-answers-nonsense", "discriminant").await;
    assert_eq!(message["state"], "delivered", "a message is sent all the same, and judged: {message}");
}

#[tokio::test]
async fn hostile_fall_back_loops() {
    let message = is_recorded("fall-back-loops", "out of fuel|out of time").await;
    assert_eq!((&message["state"], &message["attempts"]), (&"dead".into(), &2.into()), "the route has no fallback");
}

#[tokio::test]
async fn hostile_fall_back_answers_nonsense() {
    let message = is_recorded("fall-back-answers-nonsense", "the fallback's status is 0, not 200 to 599").await;
    assert_eq!((&message["state"], &message["attempts"]), (&"dead".into(), &2.into()), "the route has no fallback");
}

/// The guest serves: nobody asks what it has a bad answer to.
async fn is_harmless(name: &str) {
    let stage = stage_for(name).await;
    stage.is_judged_by_version("1").await;
    stage.others_do_not_notice().await;
}

#[tokio::test]
async fn hostile_settle_loops() {
    is_harmless("settle-loops").await;
}

#[tokio::test]
async fn hostile_room_over_its_own() {
    // What it overwrites is its own: it harms nobody, and judges on.
    is_harmless("room-over-its-own").await;
}

#[tokio::test]
async fn hostile_reason_forges_a_log_line() {
    let stage = stage_for("reason-forges-a-log-line").await;
    let message = stage.teapot().await;
    let reason = message["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("fine ") && reason.len() <= 256 && !reason.contains(char::is_control), "{reason:?}");
    assert_eq!(message["journal"][0]["provenance"].get("failure"), None, "{message}");
    let logged = || stage.host.log_lines("policy reloaded");
    let logged = backstop_tests::eventually("its line", async || Some(logged()).filter(|l| !l.is_empty())).await;
    let parsed: Value = serde_json::from_str(&logged[0]).expect("one line of the log is one line");
    assert_eq!((logged.len(), &parsed["message"]), (1, &"attempt".into()));
    stage.others_do_not_notice().await;
}

/// What becomes of a message at a route with this `on_policy_failure`.
async fn under(on_policy_failure: &str, name: &str) -> Value {
    let setting = format!("on_policy_failure: {on_policy_failure}");
    let file = HandMade::hostile("serving", name).file();
    let stage = Stage::with_setting(name, &file, &setting).await;
    let (message, ()) = tokio::join!(stage.teapot(), stage.others_do_not_notice());
    message
}

#[tokio::test]
async fn hostile_guests_are_overruled_by_a_retry_where_the_route_says_so() {
    for name in ["judge-loops", "verdict-unknown"] {
        let message = under("retry", name).await;
        assert_eq!((&message["attempts"], &message["state"]), (&2.into(), &"dead".into()), "{message}");
        assert_eq!(message["journal"][0]["verdict"], "retry", "{message}");
    }
}

#[tokio::test]
async fn hostile_guests_are_overruled_by_a_dead_letter_where_the_route_says_so() {
    for name in ["judge-grows-memory", "admit-loops"] {
        let message = under("dead_letter", name).await;
        assert_eq!(message["state"], "dead", "{message}");
        let reason = failure(&message);
        assert!(message["reason"] == format!("policy failed: {reason}"), "{message}");
    }
}
