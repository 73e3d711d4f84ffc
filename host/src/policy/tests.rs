//! Rough guests, written by hand: each does one thing that no policy should.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};
use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::failure::Failure;
use super::judge::Judge;
use super::load::{LoadError, Policy};
use super::sandbox::Sandbox;
use super::{Asked, AttemptView, v0_1};
use crate::clock::Timestamp;
use crate::config::{Isolation, OnPolicyFailure, PolicyBinding, PolicyLimits};
use crate::message::{
    Decision, Message, MessageId, Origin, Outcome, Progress, Request, Response, RouteName, Scope, Verdict,
};

/// A message on its way, with this request.
pub(super) fn message_with(request: Arc<Request>) -> Message {
    Message {
        id: MessageId::from_bytes([7; 16]),
        route: RouteName::new("orders").expect("a good name"),
        request,
        idempotency_key: None,
        accepted_at: Timestamp::from_millis(0),
        progress: Progress::default(),
        origin: Origin::default(),
    }
}

pub(super) fn message() -> Message {
    let headers = HeaderMap::new();
    message_with(Arc::new(Request { method: Method::POST, path: "/".to_owned(), headers, body: "{}".into() }))
}

pub(super) fn answered(status: u16) -> Outcome {
    let status = StatusCode::from_u16(status).expect("a status");
    Outcome::Response(Response { status, headers: HeaderMap::new(), body: "{}".into(), truncated: false })
}

pub(super) fn attempt(number: u32) -> AttemptView {
    AttemptView {
        number,
        of: 5,
        elapsed: Duration::ZERO,
        latency: Duration::from_millis(3),
        now: Timestamp::from_millis(1),
        reauthenticated: false,
    }
}

/// A guest whose `judge` has this body; it is rehearsed with a first attempt, so what it does only on a later one is
/// done in service. The decision lies at 6144, all zero: accepted.
pub(super) fn guest(judge: &str) -> Vec<u8> {
    module(judge, "", "")
}

/// A plain module as cargo would build it, with the contract written into it: further `items`, and a schema.
pub(super) fn module(judge: &str, items: &str, schema: &str) -> Vec<u8> {
    configuring("", judge, items, schema)
}

/// The same, with the body of its `configure`: the configuration's text is its first two locals. The answer lies at
/// 6144, all zero: accepted, and nothing wanted.
pub(super) fn configuring(configure: &str, judge: &str, items: &str, schema: &str) -> Vec<u8> {
    let contract = escaped(v0_1::CONTRACT);
    let schema_text = escaped(schema.as_bytes());
    let schema_len = escaped(&u32::try_from(schema.len()).expect("a short schema").to_le_bytes());
    let text = format!(
        r#"(module
            (import "$root" "log" (func $log (param i32 i32 i32)))
            (import "$root" "attribute" (func $attribute (param i32 i32 i32)))
            (memory (export "memory") 2)
            (global $heap (mut i32) (i32.const 8192))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (global.set $heap (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
                (global.get $heap)
                (global.set $heap (i32.add (global.get $heap) (local.get 3))))
            ;; The manifest: name, version, schema, hooks (judge only).
            (data (i32.const 512) "\00\03\00\00\05\00\00\00\10\03\00\00\01\00\00\00\00\04\00\00{schema_len}\02")
            (data (i32.const 768) "rough")
            (data (i32.const 784) "1")
            (data (i32.const 1024) "{schema_text}")
            (data (i32.const 4096) "panicked: no idea")
            (func (export "describe") (result i32) (i32.const 512))
            (func (export "configure") (param i32 i32) (result i32) {configure} (i32.const 6144))
            (func (export "admit") (param i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)
            (func (export "judge")
                (param $number i32) (param $of i32) (param i64 i64 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)
                (memory.fill (i32.const 6144) (i32.const 0) (i32.const 64))
                (if (i32.eq (local.get $number) (i32.const 1)) (then (return (i32.const 6144))))
                {judge}
                (i32.const 6144))
            (func (export "fall-back")
                (param i32 i32 i64 i64 i64 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)
            (func (export "settle") (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)
            {items}
            (@custom "component-type:rough" "{contract}"))"#
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "\\{byte:02x}");
        text
    })
}

pub(super) fn binding() -> PolicyBinding {
    PolicyBinding {
        name: "rough".to_owned(),
        config: json!(null),
        holds_secret: false,
        on_failure: OnPolicyFailure::Standard,
        limits: PolicyLimits::default(),
        isolation: Isolation::Reuse,
    }
}

fn load(file: &[u8]) -> Result<(Arc<Sandbox>, Arc<Policy>), LoadError> {
    let sandbox = Arc::new(Sandbox::new(None).expect("a sandbox"));
    let policy = Arc::new(Policy::from_bytes(&sandbox, file)?);
    Ok((sandbox, policy))
}

fn serve(file: &[u8], binding: &PolicyBinding) -> Judge {
    let (sandbox, policy) = load(file).unwrap_or_else(|error| panic!("it should load: {error}"));
    Judge::bind(&sandbox, &policy, binding).unwrap_or_else(|error| panic!("it should serve: {error}"))
}

/// Asks a guest whose second judgement is rough, and says what its failure was.
fn failure_of(judge: &str) -> String {
    // Little fuel, so that a busy machine does not cut it off for time before that is used up.
    let limits = PolicyLimits { fuel: 1_000_000, ..PolicyLimits::default() };
    let judge = serve(&guest(judge), &PolicyBinding { limits, ..binding() });
    let asked = judge.judge(&message(), attempt(2), &answered(503));
    let standard = Verdict::Retry { after: None, scope: Scope::Standard };
    assert_eq!(asked.answer.verdict, standard, "the standard rule answers in its stead");
    let after = judge.judge(&message(), attempt(1), &answered(503));
    assert_eq!((after.provenance.failure, after.answer.verdict), (None, Verdict::Accept), "a new instance does well");
    asked.provenance.failure.expect("a failure")
}

#[test]
fn a_guest_that_behaves_is_asked_and_accounted_for() {
    let judge = serve(&guest(""), &binding());
    let Asked { answer, provenance } = judge.judge(&message(), attempt(2), &answered(503));
    assert_eq!(answer, Decision { verdict: Verdict::Accept, reason: String::new() });
    assert_eq!(provenance.failure, None);
    assert!(provenance.fuel > 0 && provenance.fuel < 1000, "{} units", provenance.fuel);
    let policy = provenance.policy.expect("it was asked");
    assert_eq!((policy.name.as_str(), policy.version.as_str(), policy.digest.len()), ("rough", "1", 64));
}

#[test]
fn the_same_question_costs_the_same_fuel_again() {
    let judge = serve(&guest(""), &binding());
    let cost = || judge.judge(&message(), attempt(2), &answered(503)).provenance.fuel;
    let first = cost();
    assert!((0..10).all(|_| cost() == first), "fuel is given anew for every question");
}

#[test]
fn an_endless_loop_is_cut_by_fuel() {
    assert_eq!(failure_of("(loop (br 0))"), "out of fuel: it used the 1000000 units that one question may cost");
}

#[test]
fn time_cuts_what_fuel_does_not() {
    let limits = PolicyLimits { fuel: u64::MAX / 2, time: Duration::from_millis(20), ..PolicyLimits::default() };
    let judge = serve(&guest("(loop (br 0))"), &PolicyBinding { limits, ..binding() });
    let asked = judge.judge(&message(), attempt(2), &answered(503));
    assert_eq!(asked.provenance.failure.as_deref(), Some("out of time: it was cut off after 20ms"));
}

/// A judge whose second judgement runs until its raised limit of time.
fn slow(time: Duration) -> Arc<Judge> {
    let limits = PolicyLimits { fuel: u64::MAX / 2, time, ..PolicyLimits::default() };
    Arc::new(serve(&guest("(loop (br 0))"), &PolicyBinding { limits, ..binding() }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_policy_with_raised_limits_does_not_keep_the_async_threads() {
    let judge = slow(Duration::from_secs(1));
    let (tasks, (begun, begins)) = (TaskTracker::new(), oneshot::channel());
    let over = Arc::new(AtomicBool::new(false));
    let (asking, ends) = (Arc::clone(&judge), Arc::clone(&over));
    let asked = tasks.spawn(async move {
        let _ = begun.send(());
        let asked = asking.judge(&message(), attempt(2), &answered(503));
        ends.store(true, Ordering::SeqCst);
        asked.provenance.failure
    });
    begins.await.expect("it begins");
    let meanwhile = tasks.spawn(async move { over.load(Ordering::SeqCst) });
    assert!(!meanwhile.await.expect("it runs"), "another task ran only when the question was answered");
    let failure = asked.await.expect("it ends").expect("it was cut off");
    assert_eq!(failure, "out of time: it was cut off after 1s");
}

#[tokio::test]
async fn a_runtime_of_one_thread_asks_where_it_is() {
    let asked = slow(Duration::from_millis(200)).judge(&message(), attempt(2), &answered(503));
    assert_eq!(asked.provenance.failure.as_deref(), Some("out of time: it was cut off after 200ms"));
}

#[test]
fn memory_beyond_the_limit_is_refused_and_the_failure_says_so() {
    let greedy = "(if (i32.eq (memory.grow (i32.const 1024)) (i32.const -1)) (then unreachable))";
    assert_eq!(failure_of(greedy), "out of memory: it wanted 65 MiB of memory, its limit is 16 MiB");
}

#[test]
fn memory_refused_at_one_question_is_not_blamed_for_the_next() {
    let grows_then_traps = "(if (i32.eq (local.get $number) (i32.const 3)) (then unreachable))
        (drop (memory.grow (i32.const 1024)))";
    let judge = serve(&guest(grows_then_traps), &binding());
    let failure = |number| judge.judge(&message(), attempt(number), &answered(503)).provenance.failure;
    assert_eq!(failure(2), None, "it can live with the refusal");
    assert_eq!(failure(3).as_deref(), Some("trapped: wasm trap: wasm `unreachable` instruction executed"));
}

#[test]
fn endless_recursion_ends_at_the_stack() {
    let items = "(func $deeper (param i64) (result i64) (i64.add (call $deeper (local.get 0)) (i64.const 1)))";
    let judge = serve(&module("(drop (call $deeper (i64.const 0)))", items, ""), &binding());
    let asked = judge.judge(&message(), attempt(2), &answered(503));
    assert_eq!(asked.provenance.failure.as_deref(), Some("out of stack: it called too deeply"));
}

#[test]
fn last_words_are_the_failure() {
    let text = failure_of("(call $log (i32.const 3) (i32.const 4096) (i32.const 17)) unreachable");
    assert_eq!(text, "panicked: no idea");
}

#[test]
fn a_trap_without_a_word_is_named() {
    assert_eq!(failure_of("unreachable"), "trapped: wasm trap: wasm `unreachable` instruction executed");
}

#[test]
fn a_verdict_that_is_none_is_a_failure() {
    assert!(failure_of("(i32.store8 (i32.const 6144) (i32.const 99))").starts_with("trapped: "));
}

#[test]
fn a_reason_that_lies_outside_its_memory_is_a_failure() {
    let text =
        failure_of("(i32.store (i32.const 6184) (i32.const 131000)) (i32.store (i32.const 6188) (i32.const 9999))");
    assert!(text.starts_with("trapped: "), "{text}");
}

#[test]
fn a_reason_longer_than_any_answer_may_be_is_refused_before_it_is_copied() {
    let limits = PolicyLimits { output: 1024, ..PolicyLimits::default() };
    let long = "(i32.store (i32.const 6184) (i32.const 0)) (i32.store (i32.const 6188) (i32.const 60000))";
    let judge = serve(&guest(long), &PolicyBinding { limits, ..binding() });
    let asked = judge.judge(&message(), attempt(2), &answered(503));
    assert_eq!(asked.provenance.failure.as_deref(), Some("answered nonsense: its answer is longer than 1 KiB"));
}

#[test]
fn a_guest_that_logs_without_end_pays_for_it() {
    let text = failure_of("(loop (call $log (i32.const 1) (i32.const 0) (i32.const 100000)) (br 0))");
    assert!(text.starts_with("out of fuel"), "{text}");
}

#[test]
fn a_host_call_costs_fuel_by_the_byte() {
    let fuel = |text_len: u32| {
        let log = format!("(call $log (i32.const 1) (i32.const 0) (i32.const {text_len}))");
        serve(&guest(&log), &binding()).judge(&message(), attempt(2), &answered(503)).provenance.fuel
    };
    assert_eq!(fuel(5000) - fuel(1000), 4000);
}

#[test]
fn the_route_says_what_a_failure_means() {
    let on = |on_failure| {
        let judge = serve(&guest("unreachable"), &PolicyBinding { on_failure, ..binding() });
        judge.judge(&message(), attempt(2), &answered(200))
    };
    assert_eq!(on(OnPolicyFailure::Standard).answer.verdict, Verdict::Accept);
    assert_eq!(on(OnPolicyFailure::Retry).answer.verdict, Verdict::Retry { after: None, scope: Scope::Standard });
    let dead = on(OnPolicyFailure::DeadLetter).answer;
    assert_eq!(dead.verdict, Verdict::DeadLetter);
    assert!(dead.reason.starts_with("policy failed: trapped"), "{}", dead.reason);
}

#[test]
fn questions_that_a_policy_does_not_answer_itself_are_never_put_to_it() {
    // Its `admit` and `fall-back` would trap.
    let judge = serve(&guest(""), &binding());
    let admitted = judge.admit(&message());
    assert_eq!((admitted.answer, admitted.provenance.failure.clone()), (crate::message::Admission::Accept, None));
    let fallback = judge.fall_back(&message(), attempt(5), &answered(503));
    assert_eq!((fallback.answer, fallback.provenance.failure), (None, None));
    assert_eq!((admitted.provenance.policy, fallback.provenance.policy), (None, None), "nobody was asked");
}

#[test]
fn an_instance_is_used_again_unless_the_route_wants_it_fresh() {
    // It counts its questions in a global, and accepts the first only.
    let items = "(global $asked (mut i32) (i32.const 0))";
    let count = "(i32.store8 (i32.const 6144) (i32.mul (i32.const 3) (global.get $asked)))
        (global.set $asked (i32.const 1))";
    let file = module(count, items, "");
    let twice = |isolation| {
        let judge = serve(&file, &PolicyBinding { isolation, ..binding() });
        [2, 3].map(|number| judge.judge(&message(), attempt(number), &answered(503)).answer.verdict)
    };
    assert_eq!(twice(Isolation::Reuse), [Verdict::Accept, Verdict::DeadLetter]);
    assert_eq!(twice(Isolation::Fresh), [Verdict::Accept, Verdict::Accept]);
}

#[test]
fn instances_beyond_the_bound_are_refused_not_awaited() {
    let sandbox = Sandbox::new(None).expect("a sandbox");
    let slots: Vec<_> = std::iter::from_fn(|| sandbox.slot()).collect();
    assert_eq!(slots.len(), super::MAX_INSTANCES);
    assert!(!sandbox.has_room_to_idle());
    drop(slots);
    assert!(sandbox.slot().is_some() && sandbox.has_room_to_idle());
}

#[test]
fn a_policy_that_fails_its_rehearsal_never_serves() {
    let (sandbox, policy) = load(&module("", "", "")).expect("it loads");
    let starved = PolicyBinding { limits: PolicyLimits { fuel: 10, ..PolicyLimits::default() }, ..binding() };
    let failure = Judge::bind(&sandbox, &policy, &starved).map(|_| ()).expect_err("it cannot even instantiate");
    assert!(matches!(failure, Failure::OutOfFuel(10)), "{failure}");
}

#[test]
fn a_forbidden_import_is_named() {
    for (import, words) in [
        (r#""wasi_snapshot_preview1" "environ_get""#, "imports `wasi_snapshot_preview1/environ_get`"),
        (r#""__wbindgen_placeholder__" "__wbindgen_throw""#, "cargo tree -i wasm-bindgen"),
        (r#""env" "now""#, "look for an `extern` block"),
        (r#""$root" "now""#, "imports `now`: a policy may import only `log` and `attribute`"),
    ] {
        let file = wat::parse_str(format!("(module (import {import} (func)))")).expect("a module");
        let text = load(&file).map(|_| ()).expect_err("it must be refused").to_string();
        assert!(text.contains(words), "{text}");
    }
    let component = r#"(component (import "wasi:cli/environment@0.2.3" (instance)))"#;
    let text = load(&wat::parse_str(component).expect("a component")).map(|_| ()).expect_err("refused").to_string();
    assert!(text.contains("imports `wasi:cli/environment@0.2.3`") && text.contains("backstop policy build"), "{text}");
}

#[test]
fn what_would_take_too_much_memory_to_compile_is_refused_before_it_is() {
    let refused = |file: &[u8]| load(file).map(|_| ()).expect_err("it must be refused");
    let nested = |items: &str| {
        let text = format!("(component (component (core module {items})))");
        wat::parse_str(&text).expect("a component")
    };
    // Two bytes go to its locals and its end.
    let function = |length: usize| format!("(func {})", "nop ".repeat(length - 2));
    let too_long = function((512 << 10) + 1);
    for file in [module("", &too_long, ""), nested(&too_long)] {
        let error = refused(&file);
        assert!(matches!(error, LoadError::FunctionTooLong(_)), "{error}");
        assert!(error.to_string().contains("the longest that is compiled is 512 KiB"), "{error}");
    }
    let error = refused(&nested(&function(512 << 10)));
    assert!(matches!(error, LoadError::OtherWorld(_)), "that long it may be: {error}");

    let locals = |count: usize| format!("(func (local {}))", "i32 i64 ".repeat(count / 2));
    for file in [module("", &locals(1002), ""), nested(&locals(1002))] {
        let error = refused(&file);
        assert!(error.to_string().contains("1002 local variables, and the most that are compiled are 1000"), "{error}");
    }
    let error = refused(&nested(&locals(1000)));
    assert!(matches!(error, LoadError::OtherWorld(_)), "so many it may have: {error}");

    let too_many = "(func)".repeat(100_001);
    for file in [module("", &too_many, ""), nested(&too_many)] {
        let error = refused(&file);
        assert!(error.to_string().contains("more than 100000 functions"), "{error}");
    }
}

#[test]
fn a_policy_of_another_contract_is_told_apart() {
    let other = r#"(component (import "backstop:policy/types@0.2.0" (instance)))"#;
    let text = load(&wat::parse_str(other).expect("a component")).map(|_| ()).expect_err("refused").to_string();
    assert!(text.contains("was built for backstop:policy@0.2.0"), "{text}");
    let nothing = wat::parse_str("(component)").expect("a component");
    let text = load(&nothing).map(|_| ()).expect_err("it exports nothing").to_string();
    assert!(text.starts_with("does not keep to backstop:policy@0.1.0: no export"), "{text}");
}

#[test]
fn what_is_no_policy_is_refused_in_words() {
    let refused = |file: &[u8]| load(file).map(|_| ()).expect_err("it must be refused");
    assert!(matches!(refused(b"#!/bin/sh"), LoadError::NotWasm));
    assert!(matches!(refused(b""), LoadError::NotWasm));
    assert!(matches!(refused(b"\0asm\x01\0\0\0\xff\xff\xff"), LoadError::Invalid(_)));
    assert!(matches!(refused(&vec![0; super::load::MAX_FILE + 1]), LoadError::TooLarge));
    let plain = wat::parse_str("(module)").expect("a module");
    assert!(matches!(refused(&plain), LoadError::NoInterface));
    let mut half = guest("");
    half.truncate(half.len() / 2);
    assert!(matches!(refused(&half), LoadError::Invalid(_)));
    assert!(matches!(refused(&module("", "", "{\"type\": 7}")), LoadError::Schema(_)));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// Whatever is in the file, loading it ends in a policy or an error, never in a panic.
    #[test]
    fn no_file_brings_the_loader_down(at in 0_usize..4000, byte: u8) {
        let mut file = guest("");
        let at = at % file.len();
        file[at] = byte;
        let _ = super::load::make_component(&file);
    }
}
