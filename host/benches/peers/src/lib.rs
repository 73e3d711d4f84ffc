//! What a user might choose instead of a WebAssembly policy, each deciding the question of the `decide` benchmark in
//! its own best form: compiled once, its state reused, the body given as it takes JSON best, and its own limits on.
//!
//! Every contestant is a struct that is made once and asked often, in a file of its own.

use anyhow::bail;
use backstop::message::Outcome;

pub mod cel;
pub mod extism;
pub mod javascript;
pub mod lua;
pub mod rego;
pub mod rhai;

#[cfg(test)]
mod tests;

/// The response header fields that the policy wants to see.
const WANTED: [&str; 2] = ["retry-after", "x-vendor-state"];

/// Where the error code lies in the body, as a JSON Pointer.
pub const CODE: &str = "/Response/Error/Code";

/// The limits that contestants have on, as far as each can be limited: those that Backstop's own policies have by
/// default.
pub mod limits {
    /// Bytes of memory.
    pub const MEMORY: usize = 16 << 20;
    /// Instructions, or whatever the contestant counts.
    pub const OPERATIONS: u32 = 10_000_000;
    /// Wall-clock time in milliseconds.
    pub const MILLIS: u64 = 100;
}

/// A peer that has compiled the policy.
pub trait Peer {
    /// Decides. The body is new each time, so that making it something the peer can read is part of the work.
    ///
    /// # Errors
    /// When the peer fails, or says what is no decision.
    fn judge(&mut self, question: &Question<'_>) -> anyhow::Result<Decision>;
}

/// How a policy reads the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Body {
    /// The whole body becomes a value of the peer's.
    Whole,
    /// The policy asks a function of the host's for the one value it wants, by its JSON Pointer: native code reads the
    /// body, outside of the peer and its limits.
    Pointer,
}

/// An answer as a policy is shown it.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The HTTP status.
    pub status: u16,
    /// The wanted header fields, in the order of their names.
    fields: [Option<&'a str>; WANTED.len()],
    /// The body's bytes.
    pub body: &'a [u8],
}

impl<'a> Question<'a> {
    /// What the policy wants to see of this outcome.
    ///
    /// # Errors
    /// When there was no answer: no contestant is asked about that.
    pub fn of(outcome: &'a Outcome) -> anyhow::Result<Self> {
        let Outcome::Response(response) = outcome else { bail!("no answer to judge") };
        let fields = WANTED.map(|name| response.headers.get(name)?.to_str().ok());
        Ok(Self { status: response.status.as_u16(), fields, body: &response.body })
    }

    /// The wanted header fields that were sent.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, &'a str)> {
        WANTED.into_iter().zip(self.fields).filter_map(|(name, value)| Some((name, value?)))
    }

    /// The body, unless it is empty: reading nothing as JSON would cost the peers an error to be thrown away.
    fn content(&self) -> Option<&'a [u8]> {
        Some(self.body).filter(|body| !body.is_empty())
    }

    /// The body as text, empty if it is none.
    fn text(&self) -> &'a str {
        std::str::from_utf8(self.body).unwrap_or_default()
    }
}

/// What a contestant decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decision {
    /// What is to be done.
    pub verdict: Verdict,
    /// Why, for people.
    pub reason: String,
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// The destination did what was asked.
    Accept,
    /// Try again.
    Retry {
        /// After so many seconds, or when the route's backoff says.
        after: Option<u64>,
        /// Whether every message to the destination is held until then.
        everyone: bool,
    },
    /// Trying again is no use.
    DeadLetter,
}

impl Decision {
    /// Takes what every peer answers: the verdict's name, the seconds after which to retry, the reason.
    ///
    /// # Errors
    /// When there is no such verdict.
    pub fn new(verdict: &str, after: Option<u64>, reason: impl Into<String>) -> anyhow::Result<Self> {
        let verdict = match verdict {
            "accept" => Verdict::Accept,
            "retry" => Verdict::Retry { after, everyone: false },
            "retry-destination" => Verdict::Retry { after, everyone: true },
            "dead-letter" => Verdict::DeadLetter,
            other => bail!("there is no verdict {other:?}"),
        };
        Ok(Self { verdict, reason: reason.into() })
    }
}

/// The text at this JSON Pointer: what the host offers contestants that read the body with [`Body::Pointer`].
fn text_at(body: &[u8], pointer: &str) -> Option<String> {
    backstop_sdk::json_text(body, pointer).map(std::borrow::Cow::into_owned)
}
