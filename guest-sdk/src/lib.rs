//! Write a Backstop policy: the rule that decides, for one destination, what counts as a failure, when to try again
//! and what to answer instead.
//!
//! A policy is a pure function of what it is given. It has no clock, no randomness, no network and no memory that may
//! change an answer; in return the host can replay, simulate and explain every decision. The smallest one:
//!
//! ```
//! use backstop_sdk::prelude::*;
//!
//! struct Maintenance;
//!
//! impl Policy for Maintenance {
//!     fn judge(&self, attempt: &Attempt, outcome: &Outcome) -> Decision {
//!         match outcome.status() {
//!             Some(400) if outcome.body_text().contains("maintenance") => retry_after(minutes(10), "vendor in maintenance"),
//!             _ => standard(attempt, outcome),
//!         }
//!     }
//! }
//!
//! export_policy!(Maintenance);
//!
//! // Its logic is plain Rust, tested with `cargo test`:
//! use backstop_sdk::test::{attempt, policy, response};
//! let asked = policy(Maintenance).judge(attempt(1), response(400).body("down for maintenance"));
//! assert_eq!(asked, retry_after(minutes(10), "vendor in maintenance"));
//! ```
//!
//! One that takes its words from the route's `policy_config`, and declares what it wants to see:
//!
//! ```
//! use backstop_sdk::prelude::*;
//!
//! /// What the operator may write under `policy_config`.
//! #[derive(Deserialize, JsonSchema)]
//! #[serde(deny_unknown_fields)]
//! struct Config {
//!     /// The word in a 400's body that means maintenance.
//!     word: String,
//!     /// How long the vendor's maintenance lasts.
//!     #[serde(default = "ten_minutes")]
//!     pause: Delay,
//! }
//!
//! fn ten_minutes() -> Delay {
//!     minutes(10).into()
//! }
//!
//! struct Maintenance {
//!     word: String,
//!     pause: Delay,
//! }
//!
//! impl Configured for Maintenance {
//!     type Config = Config;
//!
//!     fn new(config: Config) -> Result<Self, String> {
//!         if config.word.is_empty() {
//!             return Err("`word` is empty: every body would match".into());
//!         }
//!         Ok(Self { word: config.word, pause: config.pause })
//!     }
//! }
//!
//! impl Policy for Maintenance {
//!     fn interest(&self) -> Interest {
//!         Interest::none().body(1024)
//!     }
//!
//!     fn judge(&self, attempt: &Attempt, outcome: &Outcome) -> Decision {
//!         match outcome.status() {
//!             Some(400) if outcome.body_text().contains(&self.word) => retry_after(*self.pause, "vendor in maintenance"),
//!             _ => standard(attempt, outcome),
//!         }
//!     }
//! }
//!
//! export_policy!(Maintenance, config = Config);
//!
//! use backstop_sdk::test::{attempt, configured, refused, response};
//! let policy = configured::<Maintenance>(json!({ "word": "Wartung", "pause": "5m" }));
//! let asked = policy.judge(attempt(1), response(400).body("Wir sind in Wartung"));
//! assert_eq!(asked, retry_after(minutes(5), "vendor in maintenance"));
//! assert_eq!(refused::<Maintenance>(json!({ "word": "" })), "`word` is empty: every body would match");
//! ```
//!
//! The crate of a policy is a `cdylib` that depends on `backstop-sdk` and, when it takes a configuration, on `serde`
//! and `schemars`, which its derives name. `backstop policy build` compiles it for `wasm32-unknown-unknown`.
//!
//! # Which questions a policy answers
//!
//! Every policy answers *judge*. The others have an answer already, the host's own, and a policy takes one over by
//! implementing its trait: [`Admit`], [`FallBack`], [`Settle`]. [`export_policy!`] sees which are implemented and
//! says so to the host, which asks nothing else: there is no list to keep in step with the code, and none to forget.
//!
//! # What a policy sees
//!
//! Only what its [`Interest`] names: no header field unless asked for, and at most the first 4 KiB of a body unless
//! it says otherwise. Reading a field that was not asked for finds nothing; so that this does not go unseen, it
//! writes a warning into the decision's record, and fails the test in which it happens.
//!
//! # What a question may cost
//!
//! A route lets a question take 10,000,000 units of fuel (about one an instruction) and 16 MiB of memory unless it says
//! otherwise. The standard rule takes 900 units. What counts is reading a body, for whoever sends it chooses its worst:
//! searching it as text takes about 10 units a byte, reading it as JSON of a known shape or by
//! [`json_pointer`](Outcome::json_pointer) up to 90, and as a tree by [`json_value`](Outcome::json_value) up to 450. So
//! 64 KiB is much for a policy that reads JSON, and 16 KiB for one that makes trees of it.
//!
//! # When a policy fails
//!
//! It may panic: the host drops the instance, records the panic's message on the attempt and lets the route's
//! `on_policy_failure` decide. No message is lost by it.

#[doc(hidden)]
pub mod bindings;
pub mod standard;
mod policy;
mod interest;
mod outcome;
mod message;
mod body;
mod decision;
mod delay;
mod host;
#[doc(hidden)]
pub mod export;
pub mod test;

pub use bindings::backstop::policy::types::{
    Admission, Answer, Attempt, Decision, Fallback, Fault, Hooks, Interest, Level, Manifest, Message, Outcome,
    Response, Retry, Scope, Settlement, Verdict,
};
pub use body::{json_pointer, json_text};
pub use decision::{
    accept, answer, dead_letter, drop_message, fall_back_to_route, give_up, reauthenticate, retry, retry_after,
};
pub use delay::{Delay, hours, millis, minutes, seconds};
pub use host::{attribute, log};
pub use policy::{Admit, Configured, FallBack, NoConfig, Policy, Settle};
pub use {schemars, serde, serde_json};

/// Everything a policy's source usually names.
pub mod prelude {
    #[doc(no_inline)]
    pub use crate::decision::{
        accept, answer, dead_letter, drop_message, fall_back_to_route, give_up, reauthenticate, retry, retry_after,
        standard,
    };
    #[doc(no_inline)]
    pub use crate::{
        Admission, Admit, Answer, Attempt, Configured, Decision, Delay, FallBack, Fallback, Fault, Interest, Message,
        Outcome, Policy, Settle, Settlement, attribute, debug, error, export_policy, hours, info, millis, minutes,
        seconds, warn,
    };
    #[doc(no_inline)]
    pub use schemars::JsonSchema;
    #[doc(no_inline)]
    pub use serde::Deserialize;
    #[doc(no_inline)]
    pub use serde_json::{Value, json};
}
