//! Testing a policy natively, with `cargo test` and no WebAssembly.
//!
//! A [`Tested`] policy is asked as the host would ask it: it is shown what its interest names and no more. A test in
//! which it reads anything else fails, as the policy would find nothing there in earnest.
//!
//! ```
//! use backstop_sdk::prelude::*;
//! use backstop_sdk::test::{attempt, policy, response, silence};
//!
//! struct Patient;
//!
//! impl Policy for Patient {
//!     fn judge(&self, attempt: &Attempt, outcome: &Outcome) -> Decision {
//!         match outcome.fault() {
//!             Some(Fault::Timeout) => retry_after(seconds(30), "vendor is slow"),
//!             _ => standard(attempt, outcome),
//!         }
//!     }
//! }
//!
//! let patient = policy(Patient);
//! assert_eq!(patient.judge(attempt(1), silence(Fault::Timeout)), retry_after(seconds(30), "vendor is slow"));
//! assert_eq!(patient.judge(attempt(1), response(201).json(json!({ "id": 1 }))), accept("success"));
//! ```

use std::cell::RefCell;
use std::collections::HashMap;

use serde_json::Value;

use crate::{
    Admission, Admit, Attempt, Configured, Decision, FallBack, Fallback, Fault, Interest, Level, Message, Outcome,
    Policy, Response, Settle, Settlement, export, interest,
};

thread_local! {
    static LINES: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
    static ATTRIBUTES: RefCell<HashMap<String, String>> = RefCell::new(HashMap::new());
}

/// A policy under test.
pub struct Tested<P> {
    policy: P,
    interest: Interest,
}

/// A policy as it is.
pub fn policy<P: Policy>(policy: P) -> Tested<P> {
    let interest = policy.interest();
    Tested { policy, interest }
}

/// A policy made from this configuration, as the host would make it.
///
/// # Panics
/// When the policy refuses the configuration.
pub fn configured<P: Configured>(config: Value) -> Tested<P> {
    match export::make(&config.to_string()) {
        Ok(made) => policy(made),
        Err(why) => panic!("the policy refuses {config}: {why}"),
    }
}

/// Why a policy refuses this configuration.
///
/// # Panics
/// When it does not.
pub fn refused<P: Configured>(config: Value) -> String {
    match export::make::<P>(&config.to_string()) {
        Ok(_) => panic!("the policy accepts {config}"),
        Err(why) => why,
    }
}

impl<P: Policy> Tested<P> {
    /// What the policy declares that it wants to see.
    pub fn interest(&self) -> &Interest {
        &self.interest
    }

    /// Asks *judge*.
    ///
    /// # Panics
    /// When the policy does, or reads what its interest does not name.
    pub fn judge(&self, attempt: Attempt, outcome: impl Into<Outcome>) -> Decision {
        let shown = self.shown(outcome.into());
        self.watched(|policy| policy.judge(&attempt, &shown))
    }

    /// Asks *admit*.
    ///
    /// # Panics
    /// When the policy does, or reads what its interest does not name.
    pub fn admit(&self, mut message: Message) -> Admission
    where
        P: Admit,
    {
        message.truncated |= cut(&mut message.body, self.interest.request_limit);
        self.watched(|policy| policy.admit(&message))
    }

    /// Asks *fall back*.
    ///
    /// # Panics
    /// When the policy does, or reads what its interest does not name.
    pub fn fall_back(&self, attempt: Attempt, last: impl Into<Outcome>) -> Option<Fallback>
    where
        P: FallBack,
    {
        let shown = self.shown(last.into());
        self.watched(|policy| policy.fall_back(&attempt, &shown))
    }

    /// Asks *settle*.
    ///
    /// # Panics
    /// When the policy does, or reads what its interest does not name.
    pub fn settle(&self, outcome: impl Into<Outcome>) -> Settlement
    where
        P: Settle,
    {
        let shown = self.shown(outcome.into());
        self.watched(|policy| policy.settle(&shown))
    }

    /// What the host would pass of an outcome.
    fn shown(&self, mut outcome: Outcome) -> Outcome {
        if let Outcome::Response(response) = &mut outcome {
            let wanted = |line: &&str| line.split_once(": ").is_some_and(|(name, _)| self.interest.names(name));
            let fields = response.headers.take().unwrap_or_default();
            let fields: String = fields.split_inclusive('\n').filter(wanted).collect();
            response.headers = Some(fields).filter(|fields| !fields.is_empty());
            let mut body = response.body.take().unwrap_or_default();
            response.truncated |= cut(&mut body, self.interest.body_limit);
            response.body = Some(body).filter(|body| !body.is_empty());
        }
        outcome
    }

    fn watched<T>(&self, ask: impl FnOnce(&P) -> T) -> T {
        LINES.take();
        interest::declare(&self.interest);
        interest::take_undeclared();
        let answer = ask(&self.policy);
        assert!(!interest::take_undeclared(), "{}: see `Policy::interest`", log().join("; "));
        answer
    }
}

/// Cuts `body` to `limit` bytes; whether it was longer.
fn cut(body: &mut Vec<u8>, limit: u32) -> bool {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let longer = body.len() > limit;
    body.truncate(limit);
    longer
}

/// Attempt `number` of 5, none of which took any time; its fields are open: `Attempt { of: 3, ..attempt(1) }`.
pub fn attempt(number: u32) -> Attempt {
    Attempt { number, of: 5, elapsed: 0, latency: 0, now: 0, reauthenticated: false }
}

/// No answer, for that fault.
pub fn silence(fault: Fault) -> Outcome {
    Outcome::Silence(fault)
}

/// An answer with that HTTP status, to be filled.
pub fn response(status: u16) -> ResponseBuilder {
    ResponseBuilder(Response { status, headers: None, body: None, truncated: false })
}

/// An answer being made.
#[derive(Clone, Debug)]
pub struct ResponseBuilder(Response);

impl ResponseBuilder {
    /// With this header field.
    ///
    /// # Panics
    /// When its name or its value holds a line break, which no header field does.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        let breaks = |text: &str| text.contains(['\r', '\n']);
        assert!(!breaks(name) && !breaks(value), "no header field holds a line break: {name:?}: {value:?}");
        let line = format!("{}: {value}\n", name.to_ascii_lowercase());
        self.0.headers.get_or_insert_default().push_str(&line);
        self
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.0.body = Some(body.into());
        self
    }

    /// With this JSON body.
    #[must_use]
    pub fn json(self, body: Value) -> Self {
        self.header("content-type", "application/json").body(body.to_string())
    }
}

impl From<ResponseBuilder> for Outcome {
    fn from(builder: ResponseBuilder) -> Self {
        Self::Response(builder.0)
    }
}

/// A `POST /` with this body.
pub fn message(body: impl Into<Vec<u8>>) -> Message {
    Message { method: "POST".into(), path: "/".into(), body: body.into(), truncated: false }
}

/// Sets what [`attribute`](crate::attribute) answers in this thread's tests.
pub fn set_attribute(key: &str, value: &str) {
    ATTRIBUTES.with_borrow_mut(|attributes| attributes.insert(key.to_owned(), value.to_owned()));
}

/// The lines that the last question wrote into its decision's record.
pub fn log() -> Vec<String> {
    LINES.with_borrow(|lines| lines.iter().map(|(_, text)| text.clone()).collect())
}

#[cfg_attr(target_family = "wasm", expect(dead_code, reason = "the host's own function serves there"))]
pub(crate) fn record_line(level: Level, text: &str) {
    LINES.with_borrow_mut(|lines| lines.push((level, text.to_owned())));
}

#[cfg_attr(target_family = "wasm", expect(dead_code, reason = "the host's own function serves there"))]
pub(crate) fn recall_attribute(key: &str) -> Option<String> {
    ATTRIBUTES.with_borrow(|attributes| attributes.get(key).cloned())
}
