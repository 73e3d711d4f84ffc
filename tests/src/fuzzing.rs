//! What the fuzzers try, as plain functions: each takes any bytes, and panics only if the host breaks a promise.
//!
//! `cargo fuzz` runs them in `host/fuzz`; the scenarios run them over the corpus that is kept there, and over what a
//! fixed number of random changes makes of it.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use backstop::clock::Timestamp;
use backstop::config::{Isolation, PolicyLimits};
use backstop::message::{Message, MessageId, Origin, Outcome, Progress, Request, Response, RouteName};
use backstop::policy::{Asked, AttemptView, Judge, LoadError, Workbench};
use http::{HeaderMap, Method, StatusCode};
use serde_json::Value;

use crate::hand_made::HandMade;

static WORKBENCH: LazyLock<Workbench> = LazyLock::new(|| Workbench::new().expect("a sandbox"));

/// Little of everything, so that nothing a fuzzer finds takes long.
const LIMITS: PolicyLimits = PolicyLimits {
    fuel: 1_000_000,
    memory: 4 << 20,
    time: Duration::from_secs(1),
    output: 64 << 10,
    failures: u32::MAX,
};

/// Any file is a policy, which then answers or fails, or is refused in one line.
///
/// # Panics
/// When a refusal is none that an operator could read.
pub fn load(file: &[u8]) {
    match WORKBENCH.load(file) {
        Ok(candidate) => {
            if let Ok(judge) = candidate.judge(&Value::Null, LIMITS, Isolation::Reuse) {
                is_sound(&judge.judge(&message(b""), attempt(), &answered(503, b"")));
            }
        }
        Err(refused) => is_one_line(&said(&refused)),
    }
}

/// Whether a file is a policy by today's contract.
pub fn is_policy(file: &[u8]) -> bool {
    WORKBENCH.load(file).is_ok()
}

/// A guest that answers *judge* and *fall back* with these bytes, at the place where the host looks for its answer.
///
/// # Panics
/// When the host takes them for something that the contract does not allow.
pub fn answer(bytes: &[u8]) {
    static PARROT: LazyLock<Judge> = LazyLock::new(|| {
        let file = HandMade::named("parrot").items(PARROT_TEXT).file();
        let candidate = WORKBENCH.load(&file).unwrap_or_else(|refused| panic!("{}", said(&refused)));
        candidate.judge(&Value::Null, LIMITS, Isolation::Fresh).unwrap_or_else(|unfit| panic!("{unfit}"))
    });
    let (message, outcome) = (message(b""), answered(418, bytes));
    is_sound(&PARROT.judge(&message, attempt(), &outcome));
    let Asked { provenance, .. } = PARROT.fall_back(&message, attempt(), &outcome);
    is_accounted_for(provenance.failure.as_deref(), provenance.fuel);
}

/// A guest whose manifest, or whose interest, is these bytes.
///
/// # Panics
/// When a refusal is none that an operator could read.
pub fn manifest(bytes: &[u8]) {
    let escaped: String = bytes.iter().take(8 << 10).map(|byte| format!("\\{byte:02x}")).collect();
    for answering in ["describe", "configure"] {
        let text = format!(
            "(data (i32.const 16384) \"{escaped}\")
             (func ${answering} (type ${answering}) (i32.const 16384))"
        );
        load(&HandMade::named("parrot").items(&text).file());
    }
}

/// It hands the body of the answer it is asked about back as its own answer, whatever that body is.
const PARROT_TEXT: &str = "
(global $hooks i32 (i32.const 6))

(func $configure (type $configure)
    (i32.store (i32.const 652) (i32.const 16384))
    (i32.const 640))

(func $judge (type $judge)
    (if (result i32) (i32.eq (local.get 7) (i32.const 418)) (then (local.get 12)) (else (i32.const 4096))))

(func $fall-back (type $fall-back) (local.get 12))
";

/// An answer keeps to the contract's bounds, whoever gave it.
fn is_sound(asked: &Asked<backstop::message::Decision>) {
    let Asked { answer, provenance } = asked;
    assert!(answer.reason.len() <= 256 && !answer.reason.contains(char::is_control), "{:?}", answer.reason);
    is_accounted_for(provenance.failure.as_deref(), provenance.fuel);
    for line in &provenance.log {
        assert!(line.text.len() <= 512, "a line of {} bytes", line.text.len());
    }
}

fn is_accounted_for(failure: Option<&str>, fuel: u64) {
    failure.into_iter().for_each(is_one_line);
    assert!(fuel <= LIMITS.fuel, "{fuel} units");
}

fn is_one_line(text: &str) {
    assert!(!text.is_empty() && text.len() <= 8 << 10, "{} bytes", text.len());
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// A refusal and its causes, as the command line says it.
fn said(refused: &LoadError) -> String {
    let mut text = refused.to_string();
    let mut cause = std::error::Error::source(refused);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn message(body: &'static [u8]) -> Message {
    Message {
        id: MessageId::from_bytes([7; 16]),
        route: RouteName::new("orders").expect("a route's name"),
        request: Arc::new(Request {
            method: Method::POST,
            path: "/".to_owned(),
            headers: HeaderMap::new(),
            body: body.into(),
        }),
        idempotency_key: None,
        accepted_at: Timestamp::from_millis(0),
        progress: Progress::default(),
        origin: Origin::default(),
    }
}

fn attempt() -> AttemptView {
    AttemptView {
        number: 2,
        of: 5,
        elapsed: Duration::ZERO,
        latency: Duration::ZERO,
        now: Timestamp::from_millis(1),
        reauthenticated: false,
    }
}

fn answered(status: u16, body: &[u8]) -> Outcome {
    Outcome::Response(Response {
        status: StatusCode::from_u16(status).expect("a status"),
        headers: HeaderMap::new(),
        body: body.to_owned().into(),
        truncated: false,
    })
}
