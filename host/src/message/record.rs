//! What is written down of an attempt, so that any decision can be explained later.

use std::fmt;
use std::sync::Arc;

use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{Fault, Outcome, RouteName, Verdict};
use crate::clock::Timestamp;

/// One line of a message's journal. Serialised as JSON in the store and in the API.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct AttemptRecord {
    /// Which attempt in the message's whole life, from 1. 0 stands for the question asked before the first attempt.
    pub number: u32,
    /// The route it was made on.
    pub route: String,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, in milliseconds.
    pub latency_ms: u64,
    /// What happened.
    pub outcome: OutcomeSummary,
    /// What was proposed.
    pub verdict: VerdictKind,
    /// Why.
    pub reason: String,
    /// How long until the next attempt, in milliseconds; none when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// What was then done, as [`super::Transition::name`].
    pub transition: String,
    /// Where the envelope overruled the policy, in words. Empty when it did not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub clamped: Vec<String>,
    /// Why it was made later than it was due, if the host made it wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withheld: Option<Withheld>,
    /// Who decided.
    pub provenance: Provenance,
}

/// Why the host made a retry wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Withheld {
    /// The route's retry budget had no room for it.
    RetryBudget,
}

impl AttemptRecord {
    /// That nothing was attempted: a message was put aside, or given up, for this reason. What is then done is what the
    /// verdict is called.
    pub fn unattempted(route: &RouteName, verdict: VerdictKind, reason: &str, at: Timestamp) -> Self {
        Self {
            number: 0,
            route: route.as_str().to_owned(),
            started_at: at,
            latency_ms: 0,
            outcome: OutcomeSummary::default(),
            verdict,
            reason: reason.to_owned(),
            delay_ms: None,
            transition: verdict.as_str().to_owned(),
            clamped: Vec::new(),
            withheld: None,
            provenance: Provenance::default(),
        }
    }

    /// An attempt that may have reached its destination and of which nothing more is known: the host that made it
    /// stopped, by `noticed_at`, before it wrote down what became of it. It does not count against the route's limits.
    pub fn interrupted(number: u32, route: &str, noticed_at: Timestamp) -> Self {
        Self {
            number,
            route: route.to_owned(),
            started_at: noticed_at,
            latency_ms: 0,
            outcome: OutcomeSummary::default(),
            verdict: VerdictKind::Retry,
            reason: "interrupted: the host stopped before the outcome was written down".to_owned(),
            delay_ms: None,
            transition: "retry".to_owned(),
            clamped: Vec::new(),
            withheld: None,
            provenance: Provenance::default(),
        }
    }
}

/// What is kept of an outcome.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct OutcomeSummary {
    /// The status, when there was an answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The kind of fault, when there was none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// What exactly the fault was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The beginning of the body of an answer that was not accepted, for analysis: at most
    /// [`OutcomeSummary::EXCERPT`] bytes, and no more than the policy asked to see.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub excerpt: String,
}

impl OutcomeSummary {
    /// How many bytes of a body are kept.
    pub const EXCERPT: usize = 2048;

    /// Summarises `outcome`, with an excerpt of its body unless the verdict accepted it.
    pub fn of(outcome: &Outcome, accepted: bool) -> Self {
        match outcome {
            Outcome::Response(response) => Self {
                status: Some(response.status.as_u16()),
                excerpt: if accepted {
                    String::new()
                } else {
                    let kept = response.body.len().min(Self::EXCERPT);
                    String::from_utf8_lossy(&response.body[..kept]).into_owned()
                },
                ..Self::default()
            },
            Outcome::Silence(silence) => {
                Self { fault: Some(silence.fault), detail: silence.detail.clone(), ..Self::default() }
            }
        }
    }
}

impl fmt::Display for OutcomeSummary {
    /// `503 Service Unavailable`, `timeout`, or `-` when nothing was attempted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match (self.status, self.fault) {
            (Some(status), _) => {
                StatusCode::from_u16(status).map_or_else(|_| status.to_string(), |known| known.to_string())
            }
            (None, Some(fault)) => fault.to_string(),
            (None, None) => "-".to_owned(),
        };
        f.pad(&text)
    }
}

/// A verdict's kind, without its arguments.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// See [`Verdict::Accept`].
    Accept,
    /// See [`Verdict::Retry`].
    Retry,
    /// See [`Verdict::Reauthenticate`].
    Reauthenticate,
    /// See [`Verdict::DeadLetter`].
    DeadLetter,
    /// See [`Verdict::Drop`].
    Drop,
    /// See [`Verdict::FallBack`].
    FallBack,
}

impl VerdictKind {
    /// Its name in JSON and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Retry => "retry",
            Self::Reauthenticate => "reauthenticate",
            Self::DeadLetter => "dead_letter",
            Self::Drop => "drop",
            Self::FallBack => "fall_back",
        }
    }
}

impl fmt::Display for VerdictKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Verdict {
    /// Its kind.
    pub const fn kind(&self) -> VerdictKind {
        match self {
            Self::Accept => VerdictKind::Accept,
            Self::Retry { .. } => VerdictKind::Retry,
            Self::Reauthenticate => VerdictKind::Reauthenticate,
            Self::DeadLetter => VerdictKind::DeadLetter,
            Self::Drop => VerdictKind::Drop,
            Self::FallBack(_) => VerdictKind::FallBack,
        }
    }
}

/// Who decided, and what it cost.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct Provenance {
    /// The policy that was asked; none when the built-in standard rule decided on its own. One for all its decisions.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "shared")]
    pub policy: Option<Arc<PolicyRef>>,
    /// Fuel used, in wasmtime's units (about one per instruction).
    pub fuel: u64,
    /// Time the question took, in nanoseconds.
    pub took_ns: u64,
    /// What the policy logged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<LogLine>,
    /// Why the policy gave no usable answer, when it gave none; the route's `on_policy_failure` then decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Which policy, exactly.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct PolicyRef {
    /// Its name, as in `policies/NAME.wasm`.
    pub name: String,
    /// The author's version.
    pub version: String,
    /// SHA-256 of the file, in hexadecimal.
    pub digest: String,
}

/// A shared value reads and writes like one of its own.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<T: Serialize, S: Serializer>(
        value: &Option<Arc<T>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_deref().serialize(serializer)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Arc<T>>, D::Error> {
        Option::<T>::deserialize(deserializer).map(|value| value.map(Arc::new))
    }
}

/// One captured log line.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct LogLine {
    /// How loud.
    pub level: LogLevel,
    /// What it says.
    pub text: String,
}

/// How loud a captured log line is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// For the author.
    Debug,
    /// Worth noting.
    Info,
    /// Worth a look.
    Warn,
    /// Something is wrong; a panic's message arrives as this.
    Error,
}

impl LogLevel {
    /// Its name in JSON and for people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}
