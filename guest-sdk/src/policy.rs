//! The traits an author implements.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{Admission, Attempt, Decision, Fallback, Interest, Message, Outcome, Settlement};

/// A policy: what an outcome means. `judge` is the one question that every policy answers.
///
/// The other questions have an answer already, and a policy that wants to give its own implements [`Admit`],
/// [`FallBack`] or [`Settle`] beside this. They are traits of their own, rather than methods with defaults, because
/// the host is told which questions a policy answers and does not ask the others: from a trait, [`export_policy!`]
/// can tell by itself, while a list would be one more thing to forget.
///
/// [`export_policy!`]: crate::export_policy
pub trait Policy: 'static {
    /// What the policy wants to see, under the configuration it was made with. Asked once; the host passes no more.
    ///
    /// Unless it says otherwise a policy sees no header field, and the first 4 KiB of a body.
    fn interest(&self) -> Interest {
        Interest::default()
    }

    /// Says what an outcome means. Asked after every attempt.
    fn judge(&self, attempt: &Attempt, outcome: &Outcome) -> Decision;
}

/// A policy made from the route's `policy_config`.
///
/// A policy without configuration need not implement this: `export_policy!(Type)` does it for a unit struct.
pub trait Configured: Policy + Sized {
    /// The configuration. Its JSON Schema, with the doc comments as descriptions, is what operators are shown and what
    /// `backstop check` holds a route to; put `#[serde(deny_unknown_fields)]` on it, so that a misspelt key is refused
    /// rather than ignored. A route without `policy_config` is read as `{}`.
    type Config: DeserializeOwned + JsonSchema;

    /// Makes the policy. Called once for an instance, before any question.
    ///
    /// # Errors
    /// What the schema could not say is wrong with the configuration, and what to write instead: shown to the operator.
    fn new(config: Self::Config) -> Result<Self, String>;
}

/// A policy that answers *admit*: should this message be sent at all? Otherwise every message is.
pub trait Admit: Policy {
    /// Asked before a message's first attempt. The body is shown as far as [`Interest::request`] says.
    fn admit(&self, message: &Message) -> Admission;
}

/// A policy that answers *fall back*: what to answer when no further attempt is allowed? Otherwise the route decides.
pub trait FallBack: Policy {
    /// Asked when attempts are exhausted, with the `last` outcome. `None`: the route's fallback, if it has one.
    fn fall_back(&self, attempt: &Attempt, last: &Outcome) -> Option<Fallback>;
}

/// A policy that answers *settle*: what does a sender say became of the operation behind a prepared message?
/// Otherwise the host reads its answer.
pub trait Settle: Policy {
    /// Asked of the sender's answer to a check-back. Only [`Settlement::Committed`] delivers the message.
    fn settle(&self, outcome: &Outcome) -> Settlement;
}

/// The configuration of a policy that takes none: any key is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}
