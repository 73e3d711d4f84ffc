//! Backstop runs the retry and dispatch loop for HTTP calls and messages; sandboxed WebAssembly policies decide, per
//! destination, what counts as a failure, when to try again, and what to answer instead.
//!
//! The modules in the order of a message's journey:
//!
//! ```text
//!  ingress ──► store ──► queue ──► dispatch ──► policy ──► verdict ──► transition ──► store
//!   HTTP      accepted   due,      one attempt   asks the   clamped     delivered │ retry at T │
//!             = on disk  claimed   → Outcome     component  by the      dead letter │ dropped │
//!                        under a                            route's     answered by fallback
//!                        lease                              envelope
//! ```

pub mod clock;
pub mod config;
pub mod message;
pub mod event;
pub mod transaction;
pub mod archive;
pub mod backoff;
pub mod window;
pub mod pointer;
pub mod problem;
pub mod routes;
pub mod follow;
pub mod listener;
pub mod amqp;
pub mod ingress;
pub mod store;
pub mod queue;
pub mod attempt;
pub mod dispatch;
pub mod policy;
pub mod check_back;
pub mod alarm;
pub mod watch;
pub mod admin;
pub mod reload;
pub mod engine;
pub mod cli;
