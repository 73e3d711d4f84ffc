//! The raw twin of a case file: what it says, key by key. Its JSON Schema is made from these types, so their docs are
//! what an editor shows.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::units::{After, FieldLines, Instant, NoFallback};
use crate::config::{Count, Field, Named, RawPolicyLimits, Shorthand, Written};

/// Cases of one policy, for `backstop policy test`.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Cases", extend("required" = ["cases"]))]
pub(super) struct RawFile {
    /// The policy that the cases are for: another one is refused.
    pub(super) policy: Field<String>,
    /// The `policy_config` of every case that has none of its own.
    pub(super) config: Field<Value>,
    /// What one question may cost, as a route's `policy_limits`.
    pub(super) limits: Field<RawPolicyLimits>,
    /// The cases.
    pub(super) cases: Field<Vec<Field<RawCase>>>,
}

/// One question, and the answer that is expected.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Case", extend("required" = ["name", "expect"]))]
pub(super) struct RawCase {
    /// What it is about, in a few words. No two cases of a file have the same.
    pub(super) name: Field<String>,
    /// The question. Default judge.
    pub(super) ask: Field<RawAsk>,
    /// The `policy_config`, in place of the file's.
    pub(super) config: Field<Value>,
    /// What one question may cost, in place of the file's.
    pub(super) limits: Field<RawPolicyLimits>,
    /// The message. Default: a POST of an empty body to `/`, on the route `test`.
    pub(super) message: Field<RawMessage>,
    /// The attempt. Default: the first of five, which took no time.
    pub(super) attempt: Field<RawAttempt>,
    /// What happened to the attempt: an answer, or silence. With `ask: settle`: what the sender answered to a check-back.
    pub(super) outcome: Field<RawOutcome>,
    /// What the policy must say.
    pub(super) expect: Field<RawExpect>,
}

/// The question.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema, Debug, Default)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Ask", inline)]
pub(super) enum RawAsk {
    #[default]
    Judge,
    Admit,
    FallBack,
    Settle,
}

/// The message. A body is written as one of `body`, `json`, `body_base64` and `body_file`.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Message")]
pub(super) struct RawMessage {
    /// Its id, a UUID. Default 00000000-0000-0000-0000-000000000001.
    pub(super) id: Field<String>,
    /// The route it is on. Default test.
    pub(super) route: Field<String>,
    /// Its method. Default POST.
    pub(super) method: Field<String>,
    /// The path below the route, with its query. Default /.
    pub(super) path: Field<String>,
    /// Header fields: text, or a list of texts for a field sent several times.
    pub(super) headers: Field<Named<FieldLines>>,
    /// The caller's Idempotency-Key.
    pub(super) idempotency_key: Field<String>,
    /// The body as text.
    pub(super) body: Field<String>,
    /// The body as JSON.
    pub(super) json: Field<Value>,
    /// The body in base64.
    pub(super) body_base64: Field<String>,
    /// A file that holds the body, relative to the case file's folder.
    pub(super) body_file: Field<String>,
    /// How many times over the body is sent: for bodies longer than a policy reads. Default 1.
    pub(super) repeat: Field<Count>,
}

/// The attempt.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Attempt")]
pub(super) struct RawAttempt {
    /// Which attempt on this route, from 1. Default 1.
    pub(super) number: Field<Count>,
    /// How many the route allows; 4294967295 means no limit. Default 5, or the number if that is more.
    pub(super) of: Field<Count>,
    /// Time since the first attempt began. Default 0s.
    pub(super) elapsed: Field<Written<Duration>>,
    /// The attempt's own time. Default 0s.
    pub(super) latency: Field<Written<Duration>>,
    /// The host's clock when the outcome was known. Default 2026-01-01T00:00:00Z.
    pub(super) now: Field<Written<Instant>>,
    /// Whether fresh credentials were fetched already. Default false.
    pub(super) reauthenticated: Field<bool>,
}

/// What happened to the attempt: an answer with a `status`, or `silence`. A body is written as one of `body`, `json`,
/// `body_base64` and `body_file`.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Outcome")]
pub(super) struct RawOutcome {
    /// There was no answer, for this reason. Nothing else beside it.
    pub(super) silence: Field<RawFault>,
    /// The answer's status, 100 to 599.
    pub(super) status: Field<Count>,
    /// Header fields: text, or a list of texts for a field sent several times. The policy sees those it asked for.
    pub(super) headers: Field<Named<FieldLines>>,
    /// The body as text.
    pub(super) body: Field<String>,
    /// The body as JSON, with its Content-Type.
    pub(super) json: Field<Value>,
    /// The body in base64.
    pub(super) body_base64: Field<String>,
    /// A file that holds the body, relative to the case file's folder.
    pub(super) body_file: Field<String>,
    /// How many times over the body is sent: for bodies longer than a policy reads. Default 1.
    pub(super) repeat: Field<Count>,
    /// Whether the answer was longer than this body. Default false; the policy's own limit cuts it in any case.
    pub(super) truncated: Field<bool>,
}

/// Why there was no answer.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Fault", inline)]
pub(super) enum RawFault {
    Resolve,
    Connect,
    Tls,
    Timeout,
    Reset,
    Protocol,
    Credentials,
}

/// What the policy must say. Only what is written here is compared.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Expect", extend("minProperties" = 1))]
pub(super) struct RawExpect {
    /// judge: the verdict.
    pub(super) verdict: Field<RawVerdict>,
    /// judge, `verdict: retry`: when. A duration, a range such as 1s..2s, 1s.. or ..2s, or `none`: the route's backoff
    /// decides.
    pub(super) after: Field<Written<After>>,
    /// judge, `verdict: retry`: whom the delay concerns.
    pub(super) scope: Field<RawScope>,
    /// judge with `verdict: fall_back`, and fall_back: the answer, the route, or `none`: what the route has.
    pub(super) fallback: Field<Shorthand<Written<NoFallback>, RawFallback>>,
    /// admit: whether the message is sent.
    pub(super) admission: Field<RawAdmission>,
    /// settle: what became of the operation behind the half message, by its sender's answer.
    pub(super) settlement: Field<RawSettlement>,
    /// The whole reason.
    pub(super) reason: Field<String>,
    /// A part of the reason.
    pub(super) reason_contains: Field<String>,
    /// A part of a line that the policy logs.
    pub(super) log_contains: Field<String>,
    /// The most fuel the question may take.
    pub(super) max_fuel: Field<Count>,
    /// That the policy fails (a panic, too much fuel, nonsense), and a part of how. No other answer beside it.
    pub(super) failure_contains: Field<String>,
    /// That the policy refuses the configuration, and a part of its words. Nothing else beside it, and no question.
    pub(super) config_refused: Field<String>,
}

/// A verdict's kind.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Verdict", inline)]
pub(super) enum RawVerdict {
    Accept,
    Retry,
    Reauthenticate,
    DeadLetter,
    Drop,
    FallBack,
}

/// Whom a retry's delay concerns.
#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Scope", inline)]
pub(super) enum RawScope {
    Standard,
    Message,
    Destination,
}

/// What is done with a message before its first attempt.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Admission", inline)]
pub(super) enum RawAdmission {
    Accept,
    Drop,
    DeadLetter,
}

/// What became of the operation behind a half message.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Settlement", inline)]
pub(super) enum RawSettlement {
    Committed,
    RolledBack,
    Unknown,
}

/// An answer in the destination's stead, or another route. Only what is written here is compared.
#[derive(Deserialize, JsonSchema, Default)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "Fallback", extend("minProperties" = 1))]
pub(super) struct RawFallback {
    /// The route that takes the message over; nothing else beside it.
    pub(super) route: Field<String>,
    /// The answer's status.
    pub(super) status: Field<Count>,
    /// Header fields that the answer has, among others.
    pub(super) headers: Field<Named<FieldLines>>,
    /// The answer's body, as JSON.
    pub(super) json: Field<Value>,
    /// The answer's body, as text.
    pub(super) body: Field<String>,
}
