//! Policies: loaded from a folder by name, sandboxed, asked. Only this module knows wasmtime.
//!
//! A policy cannot hurt the host: its fuel, memory, time and output are bounded, it imports nothing but the world's
//! two functions, and a failure of its is an answer like any other (the route's `on_policy_failure`), written on the
//! attempt.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::message::Provenance;

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
