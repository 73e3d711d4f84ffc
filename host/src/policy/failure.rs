//! Why a policy gave no usable answer, in one line for the attempt's record.

use std::time::Duration;

use wasmtime::Trap;

use super::host::{Host, one_line};
use super::sandbox::bytes;
use crate::config::PolicyLimits;
use crate::message::{LogLevel, LogLine};

/// Bytes kept of a failure's text.
const TEXT: usize = 1024;

/// Why a policy gave no usable answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Failure {
    /// It used more instructions than one question may.
    #[error("out of fuel: it used the {0} units that one question may cost")]
    OutOfFuel(u64),
    /// It took longer than one question may.
    #[error("out of time: it was cut off after {0:?}")]
    OutOfTime(Duration),
    /// It wanted more memory than it may have, and gave up.
    #[error("out of memory: it {0}")]
    OutOfMemory(String),
    /// It called itself too deeply.
    #[error("out of stack: it called too deeply")]
    OutOfStack,
    /// It panicked; the text is its own, and begins with that word.
    #[error("{0}")]
    Panicked(String),
    /// It trapped otherwise.
    #[error("trapped: {0}")]
    Trapped(String),
    /// What it answered is none of the answers there are.
    #[error("answered nonsense: {0}")]
    Nonsense(String),
    /// It refused a configuration that it had accepted before.
    #[error("refused its configuration: {0}")]
    Refused(String),
    /// Every slot for an instance is taken.
    #[error("no room for another instance of it")]
    NoRoom,
    /// It was not asked: it failed too often in a row before.
    #[error("quarantined: not asked, since it failed {failures} times in a row; the last time it was {why}")]
    Quarantined {
        /// How often in a row.
        failures: u32,
        /// Its last failure.
        why: String,
    },
}

/// What stands in the place of a policy's own words about a configuration that must not be quoted.
const WITHHELD: &str = "its words are withheld because `policy_config` holds values from variables or files";

impl Failure {
    /// The key in `policy_limits` of the limit that it ran into, if it is one of these.
    pub(super) const fn limit(&self) -> Option<&'static str> {
        match self {
            Self::OutOfFuel(_) => Some("fuel"),
            Self::OutOfTime(_) => Some("time"),
            Self::OutOfMemory(_) => Some("memory"),
            Self::OutOfStack
            | Self::Panicked(_)
            | Self::Trapped(_)
            | Self::Nonsense(_)
            | Self::Refused(_)
            | Self::Quarantined { .. }
            | Self::NoRoom => None,
        }
    }

    /// The same failure without the policy's own words. What the host says of it stays.
    pub(super) fn without_words(self) -> Self {
        match self {
            Self::Refused(_) => Self::Refused(WITHHELD.to_owned()),
            Self::Panicked(_) => Self::Panicked(format!("panicked; {WITHHELD}")),
            // It may name what the policy answered, such as a header field.
            Self::Nonsense(_) => Self::Nonsense(WITHHELD.to_owned()),
            told_by_the_host @ (Self::OutOfFuel(_)
            | Self::OutOfTime(_)
            | Self::OutOfMemory(_)
            | Self::OutOfStack
            | Self::Trapped(_)
            // What it says was said without the policy's words already.
            | Self::Quarantined { .. }
            | Self::NoRoom) => told_by_the_host,
        }
    }

    /// Whether it is the policy's doing, and not that of the host's own limits.
    pub(super) const fn is_of_the_policy(&self) -> bool {
        !matches!(self, Self::NoRoom | Self::Quarantined { .. })
    }
}

/// What can go wrong between asking and having an answer in the host's own types.
pub(super) enum Unusable {
    /// The call did not return.
    Trap(wasmtime::Error),
    /// It returned what makes no sense.
    Nonsense(String),
}

impl From<wasmtime::Error> for Unusable {
    fn from(error: wasmtime::Error) -> Self {
        Self::Trap(error)
    }
}

impl Unusable {
    /// Names the failure, with what the instance's host knows of it: memory it was refused, a panic it logged.
    pub(super) fn explain(self, host: &Host, log: &[LogLine], limits: &PolicyLimits) -> Failure {
        let error = match self {
            Self::Nonsense(text) => return Failure::Nonsense(one_line(text, TEXT)),
            Self::Trap(error) => error,
        };
        match error.downcast_ref::<Trap>() {
            Some(Trap::OutOfFuel) => Failure::OutOfFuel(limits.fuel),
            Some(Trap::Interrupt) => Failure::OutOfTime(limits.time),
            Some(Trap::StackOverflow) => Failure::OutOfStack,
            Some(trap) => {
                // The SDK logs a panic's message before the panic becomes a trap.
                let panic = |line: &&LogLine| line.level == LogLevel::Error && line.text.starts_with("panicked");
                let last_words = log.iter().rev().find(panic);
                match (host.growth.refusal(), last_words) {
                    (Some(refusal), _) => Failure::OutOfMemory(refusal),
                    (None, Some(line)) => Failure::Panicked(one_line(line.text.clone(), TEXT)),
                    (None, None) => Failure::Trapped(trap.to_string()),
                }
            }
            None if format!("{error:#}").contains("fuel allocated for hostcalls") => {
                Failure::Nonsense(format!("its answer is longer than {}", bytes(limits.output)))
            }
            // It did not even come to be: its memory begins with more than it may have.
            None => match host.growth.refusal() {
                Some(refusal) => Failure::OutOfMemory(refusal),
                None => Failure::Trapped(one_line(format!("{error:#}"), TEXT)),
            },
        }
    }
}
