//! Our own contestants, which the benchmarks `decide` and `peers` share: the policy as native Rust and in the sandbox.

use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use anyhow::Context;
use backstop::clock::Timestamp;
use backstop::config::{Isolation, PolicyLimits};
use backstop::message::{Message, MessageId, Origin, Outcome, Progress, Request, Response, RouteName, VerdictKind};
use backstop::policy::build::build;
use backstop::policy::{AttemptView, Candidate, Judge, Workbench};
use backstop_sdk::Policy as _;
use bytes::Bytes;
use divan::Bencher;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::json;

use crate::{GUEST, guest, question};

/// The policy as native Rust, given what it wants to see.
pub(crate) fn native(bencher: Bencher<'_, '_>, outcome: &Outcome) {
    let outcome = &theirs(outcome);
    let policy = guest::ErrorInside;
    let attempt = backstop_sdk::test::attempt(1);
    let decision = policy.judge(&attempt, outcome);
    assert!(matches!(decision.verdict, backstop_sdk::Verdict::Retry(_)), "{decision:?}");
    bencher.bench_local(|| policy.judge(divan::black_box(&attempt), divan::black_box(outcome)));
}

/// The policy in the sandbox, through everything that stands between the host and a decision.
pub(crate) fn sandboxed(bencher: Bencher<'_, '_>, outcome: &Outcome, isolation: Isolation, expected: VerdictKind) {
    let judge = judge(isolation);
    let (message, attempt) = (message(), attempt());
    let asked = judge.judge(&message, attempt, outcome);
    assert_eq!(asked.provenance.failure, None);
    assert_eq!(asked.answer.verdict.kind(), expected, "{:?}", asked.answer);
    bencher.bench_local(|| judge.judge(divan::black_box(&message), attempt, divan::black_box(outcome)));
}

/// The policy, built and compiled once.
static CANDIDATE: LazyLock<Candidate> =
    LazyLock::new(|| load().unwrap_or_else(|error| panic!("failed to load the policy: {error:#}")));

fn load() -> anyhow::Result<Candidate> {
    let out = tempfile::TempDir::new()?;
    let built = build(&[Path::new(GUEST).to_owned()], out.path(), &mut |line| eprintln!("{line}"))?;
    let file = &built.first().context("nothing was built")?.file;
    Ok(Workbench::new()?.open(file)?)
}

fn judge(isolation: Isolation) -> Judge {
    CANDIDATE
        .judge(&json!(null), PolicyLimits::default(), isolation)
        .unwrap_or_else(|error| panic!("the policy does not serve: {error}"))
}

fn attempt() -> AttemptView {
    AttemptView {
        number: 1,
        of: 5,
        elapsed: Duration::from_millis(20),
        latency: Duration::from_millis(20),
        now: Timestamp::from_millis(1_790_000_000_000),
        reauthenticated: false,
    }
}

fn message() -> Message {
    Message {
        id: MessageId::from_bytes([1; 16]),
        route: RouteName::new("orders").unwrap_or_else(|_| unreachable!("it is a route's name")),
        request: Arc::new(Request {
            method: Method::POST,
            path: "/orders".to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"{}"),
        }),
        idempotency_key: None,
        accepted_at: Timestamp::from_millis(1_790_000_000_000),
        progress: Progress::default(),
        origin: Origin::default(),
    }
}

/// 200, with an error inside that decides.
pub(crate) fn error_inside() -> Outcome {
    let fields = question::HEADERS
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
    let body = Bytes::from_static(question::BODY.as_bytes());
    Outcome::Response(Response { status: StatusCode::OK, headers: fields.collect(), body, truncated: false })
}

/// 503, with nothing that the policy wants to see.
pub(crate) fn bodyless() -> Outcome {
    let mut headers = HeaderMap::new();
    headers.insert("date", HeaderValue::from_static("Tue, 17 Nov 2026 10:21:07 GMT"));
    headers.insert("server", HeaderValue::from_static("vendor-edge/2.4"));
    Outcome::Response(Response {
        status: StatusCode::SERVICE_UNAVAILABLE,
        headers,
        body: Bytes::new(),
        truncated: false,
    })
}

/// The same outcome in the SDK's types, with what the policy wants to see and nothing more.
fn theirs(outcome: &Outcome) -> backstop_sdk::Outcome {
    let Outcome::Response(response) = outcome else { unreachable!("both questions are about answers") };
    let wanted = guest::ErrorInside.interest().headers;
    let shown = backstop_sdk::test::response(response.status.as_u16()).body(&response.body[..]);
    let fields = wanted.iter().filter_map(|name| Some((name, response.headers.get(name)?.to_str().ok()?)));
    fields.fold(shown, |shown, (name, value)| shown.header(name, value)).into()
}
