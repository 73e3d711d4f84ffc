//! Policies: loaded from a folder by name, sandboxed, asked. Only this module knows wasmtime.
//!
//! A policy cannot hurt the host: its fuel, memory, time and output are bounded, it imports nothing but the world's
//! two functions, and a failure of its is an answer like any other (the route's `on_policy_failure`), written on the
//! attempt.
//!
//! The way of a policy: [`load`](inspect) makes a file into a compiled component that keeps to the contract (`v0_1`)
//! inside the `sandbox`; a [`Judge`] binds it to a route's configuration and asks it, on instances that it keeps at
//! hand; the [`Catalog`] holds the judge of every route and follows the files as they change. A [`Candidate`]
//! is a policy that serves no route, for the author's tools. [`build`] makes such files from guest crates.

mod state_dir;
mod compiled;
mod last_good;
mod sandbox;
mod host;
mod failure;
mod v0_1;
pub(crate) mod schema;
mod effort;
mod load;
mod guest;
mod standard;
mod settling;
mod health;
mod judge;
mod problem;
mod catalog;
mod rebind;
mod watch;
mod quarantine;
mod candidate;
pub mod cases;
pub mod build;
pub mod laws;

#[cfg(test)]
mod tests;

use std::time::Duration;

use serde::Serialize;

use crate::clock::Timestamp;
use crate::message::Provenance;

pub use candidate::{Candidate, TRIAL_TIME, Unfit, Workbench};
pub use catalog::{Catalog, PolicyStatus, Quarantine, Refusal};
pub use effort::TooDear;
pub use failure::Failure;
pub use judge::Judge;
pub(crate) use load::read as read_policy;
pub use load::{Description, LoadError, inspect};
pub use problem::{PolicyProblem, PolicyProblems};
pub use rebind::{Moved, Rebinding};
pub use sandbox::{MAX_INSTANCES, MAX_MEMORY, SandboxError};
pub use schema::Violation;
pub use settling::ANSWER_LIMIT;
pub use state_dir::{StateDir, StateDirError};

/// What a policy wants to see.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Interest {
    /// Response header fields, names in lower case.
    pub headers: Vec<http::HeaderName>,
    /// Bytes of a response's body.
    pub body_limit: usize,
    /// Bytes of the request's body shown to `admit`.
    pub request_limit: usize,
}

/// What is asked about: an attempt's circumstances.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AttemptView {
    /// Which attempt on this route, from 1.
    pub number: u32,
    /// How many the route allows; `u32::MAX` means no limit.
    pub of: u32,
    /// Since the first attempt began.
    pub elapsed: Duration,
    /// This attempt's own time.
    pub latency: Duration,
    /// The host's clock.
    pub now: Timestamp,
    /// Whether fresh credentials were fetched already.
    pub reauthenticated: bool,
}

/// An answer, always: where the policy gave none, the route's `on_policy_failure` decided, and `provenance.failure`
/// says so.
#[derive(Clone, Debug)]
pub struct Asked<T> {
    /// The answer.
    pub answer: T,
    /// Who gave it, and at what cost.
    pub provenance: Provenance,
}

/// The questions a policy answers itself. The others are answered by the host's own rule, at no cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Hooks {
    /// Should this message be sent at all?
    pub admit: bool,
    /// What does this outcome mean?
    pub judge: bool,
    /// What to answer when attempts are exhausted?
    pub fall_back: bool,
    /// What does a check-back answer say?
    pub settle: bool,
}
