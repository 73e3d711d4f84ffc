//! The benchmark's policy as an Extism plugin: the same decisions as `decide/guest`, taken with Extism's kit.

use backstop_sdk::standard::{Class, classify, reason};
use extism_pdk::{FnResult, Msgpack, plugin_fn};
use serde::{Deserialize, Serialize};

/// What the host asks.
#[derive(Deserialize)]
struct Asked<'a> {
    status: u16,
    #[serde(borrow)]
    headers: Vec<(&'a str, &'a str)>,
    #[serde(with = "serde_bytes")]
    body: &'a [u8],
}

/// What is answered: the verdict's name, the seconds after which to retry, the reason.
#[derive(Serialize)]
pub struct Answered {
    verdict: &'static str,
    after: Option<u64>,
    reason: &'static str,
}

/// Decides about one answer.
#[plugin_fn]
pub fn judge(asked: Vec<u8>) -> FnResult<Msgpack<Answered>> {
    Ok(Msgpack(decide(&rmp_serde::from_slice(&asked)?)))
}

fn decide(asked: &Asked<'_>) -> Answered {
    let answer = |verdict, after, reason| Answered { verdict, after, reason };
    if !(200..300).contains(&asked.status) {
        let verdict = match classify(Some(asked.status)) {
            Class::Success => "accept",
            Class::Transient => "retry",
            Class::Persistent => "dead-letter",
        };
        return answer(verdict, None, reason(Some(asked.status)));
    }
    let header = |wanted| asked.headers.iter().find_map(|&(name, value)| (name == wanted).then_some(value));
    if header("x-vendor-state") == Some("maintenance") {
        return answer("retry-destination", Some(600), "vendor in maintenance");
    }
    match backstop_sdk::json_text(asked.body, "/Response/Error/Code").as_deref() {
        None => answer("accept", None, "success"),
        Some("InternalError" | "RequestLimitExceeded") => {
            match header("retry-after").and_then(|after| after.parse().ok()) {
                Some(after) => answer("retry", Some(after), "the vendor's internal error, which names a delay"),
                None => answer("retry", None, "the vendor's internal error"),
            }
        }
        Some(_) => answer("dead-letter", None, "the vendor refuses the request"),
    }
}
