//! Guests that mean harm, or that nobody thought through: whatever they do, the host lives, other routes do not notice,
//! the message goes on as the route's `on_policy_failure` says, and the operator is told why in one line.
//!
//! `serving`: guests that pass the rehearsal and misbehave when they are asked; `refused`: guests that must never
//! serve. Both are files of `tests/guests/hostile`, and one without a test here fails the build (see `tests/build.rs`).
//! `contract`: guests of a contract that is not quite ours. `files`: what is no guest at all. `stage` is where they
//! all perform.

mod quarantine;
mod stage;
mod serving;
mod refused;
mod contract;
mod files;
