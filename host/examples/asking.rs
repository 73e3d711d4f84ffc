//! What it costs to ask a policy, on this machine.
//!
//! ```text
//! cargo run -p backstop --example asking
//! ```
//!
//! It builds the stock policies into a temporary folder and asks each some hundred thousand times. The development
//! profile gives fair figures: it optimises every dependency, and policies are compiled by wasmtime either way.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use backstop::clock::{Stopwatch, SystemClock, Timestamp};
use backstop::config::{Isolation, OnPolicyFailure, PolicyBinding, PolicyLimits};
use backstop::message::{Message, MessageId, Origin, Outcome, Progress, Request, Response, RouteName};
use backstop::policy::build::{build, find_crates};
use backstop::policy::{AttemptView, Catalog, Judge};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::json;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let dir = std::env::temp_dir().join(format!("backstop-asking-{}", std::process::id()));
    build(&find_crates(&repository)?, &dir, &mut |line| eprintln!("{line}"))?;
    let table = json!({ "rules": [
        { "status": "503", "header": { "name": "x-code", "equals": "other" }, "verdict": "drop" },
        { "status": "503", "header": { "name": "x-kind", "equals": "busy" }, "verdict": "retry", "after": "2s" },
    ]});
    let body = json!({ "rules": [
        { "status": "503", "header": { "name": "x-code", "equals": "other" }, "verdict": "drop" },
        { "status": "503", "header": { "name": "x-kind", "contains": "idle" }, "verdict": "drop" },
        { "status": "503", "body_contains": "maintenance", "verdict": "retry", "after": "10m" },
    ]});
    let cases = [
        ("no policy", None),
        ("standard: status only", Some(("standard", json!(null), Isolation::Reuse))),
        ("vendor-codes: two headers", Some(("vendor-codes", table, Isolation::Reuse))),
        ("vendor-codes: two headers, 1 KiB body searched", Some(("vendor-codes", body, Isolation::Reuse))),
        ("risk-control: 1 KiB body parsed as JSON", Some(("risk-control", json!({}), Isolation::Reuse))),
        ("standard, a fresh instance each time", Some(("standard", json!(null), Isolation::Fresh))),
        ("risk-control, a fresh instance each time", Some(("risk-control", json!({}), Isolation::Fresh))),
    ];
    let routes = cases.iter().enumerate().map(|(n, (_, policy))| {
        let binding = policy.clone().map(|(name, config, isolation)| PolicyBinding {
            name: name.to_owned(),
            config,
            holds_secret: false,
            on_failure: OnPolicyFailure::Standard,
            limits: PolicyLimits::default(),
            isolation,
        });
        Ok((RouteName::new(&format!("case-{n}"))?, binding))
    });
    let routes = routes.collect::<anyhow::Result<Vec<_>>>()?;
    let watch = Stopwatch::start();
    let catalog = Catalog::open(&dir, None, routes.clone(), Arc::new(SystemClock)).await?;
    println!("{:>10.1?}  to load and compile four policies", watch.elapsed());
    for ((name, policy), (route, _)) in cases.iter().zip(&routes) {
        let outcome = outcome(policy.as_ref().is_some_and(|(name, ..)| *name == "risk-control"));
        let (took, fuel) = measure(&catalog.judge(route), &outcome)?;
        println!("{took:>10.2?}  {fuel:>6} units  {name}");
    }
    std::fs::remove_dir_all(&dir).context("failed to remove the temporary folder")
}

/// The time and fuel of one question: the best of many rounds, since a neighbour can only make one slower.
fn measure(judge: &Judge, outcome: &Outcome) -> anyhow::Result<(Duration, u64)> {
    let message = message()?;
    let attempt = AttemptView {
        number: 1,
        of: 5,
        elapsed: Duration::ZERO,
        latency: Duration::from_millis(20),
        now: Timestamp::from_millis(1_750_000_000_000),
        reauthenticated: false,
    };
    let (mut best, mut fuel) = (Duration::MAX, 0);
    for _ in 0..50 {
        const ROUND: u32 = 2000;
        let watch = Stopwatch::start();
        for _ in 0..ROUND {
            let asked = std::hint::black_box(judge.judge(&message, attempt, outcome));
            anyhow::ensure!(asked.provenance.failure.is_none(), "the policy failed: {:?}", asked.provenance.failure);
            fuel = asked.provenance.fuel;
        }
        best = best.min(watch.elapsed() / ROUND);
    }
    Ok((best, fuel))
}

fn message() -> anyhow::Result<Message> {
    Ok(Message {
        id: MessageId::from_bytes([1; 16]),
        route: RouteName::new("orders")?,
        request: Arc::new(Request {
            method: Method::POST,
            path: "/orders".to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::from_static(b"{}"),
        }),
        idempotency_key: None,
        accepted_at: Timestamp::from_millis(1_750_000_000_000),
        progress: Progress::default(),
        origin: Origin::default(),
    })
}

/// An answer as vendors give it: a dozen header fields and 1 KiB of body.
fn outcome(json: bool) -> Outcome {
    let mut headers = HeaderMap::new();
    for name in FILLER {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static("some value or other"));
    }
    headers.insert("x-code", HeaderValue::from_static("E1017"));
    headers.insert("x-kind", HeaderValue::from_static("busy"));
    let body = if json {
        let error = json!({ "Code": "InternalError", "Message": "m".repeat(900) });
        json!({ "Response": { "Error": error, "RequestId": "3c140219-cfe9-470e-b241-907877d6fb03" } }).to_string()
    } else {
        "x".repeat(1024)
    };
    let status = if json { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    Outcome::Response(Response { status, headers, body: body.into(), truncated: false })
}

const FILLER: [&str; 10] = [
    "date",
    "server",
    "content-type",
    "cache-control",
    "vary",
    "x-request-id",
    "via",
    "etag",
    "age",
    "x-frame-options",
];
