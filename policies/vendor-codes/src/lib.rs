//! A policy without code: a table in the route's YAML says what each answer of a vendor means. The first rule that
//! matches decides.
//!
//! ```yaml
//! policy: vendor-codes
//! policy_config:
//!   rules:
//!     - { status: 5xx, verdict: retry, after: 2s }
//!     - { status: 429, verdict: retry, after: 1m }
//!     - { status: 400, body_contains: maintenance, verdict: retry, after: 10m, reason: vendor in maintenance }
//!     - { status: 4xx, verdict: dead_letter }
//!   otherwise: standard
//! ```
//!
//! A rule looks at one thing or several, and matches when all of them do:
//!
//! | Key | Matches |
//! |---|---|
//! | `status` | `429`, `5xx`, `404-499`, or a list of these |
//! | `silence` | `true`: there was no answer; or a list of faults: `[timeout, connect]` |
//! | `header` | `{ name: x-code, equals: busy }`, or `contains: …`, or `present: true` or `false` |
//! | `body_contains` | this text in the body |
//! | `json` | `{ pointer: /error/code, equals: 17 }`, or `in: [17, 18]`, or `exists: true` or `false` |
//!
//! With `ignore_case: true` the texts of `header` and `body_contains` are compared without regard to case. A body is
//! read no further than `body_limit`; one that is cut short there is no JSON.
//!
//! A rule's `verdict` is `accept`, `retry` (with `after` and `scope`, or the route's backoff), `reauthenticate`,
//! `dead_letter`, `drop` or `fall_back` (to `route`, or to what the route answers when attempts are exhausted).
//!
//! What no rule matches is accepted if its status is 2xx; any other outcome is treated as `otherwise` says.

use std::collections::BTreeSet;

use backstop_sdk::prelude::*;

mod config;
mod matcher;
mod rule;

pub use config::Config;
use config::Otherwise;
use matcher::Seen;
use rule::Rule;

/// The most rules a table may have: each question may read them all.
const MAX_RULES: usize = 256;
/// The most header fields a policy may ask for.
const MAX_HEADERS: usize = 64;
/// The most of a body a table may ask for: of JSON no more fits, as a tree of values, into the memory that a question has
/// unless its route says more.
const MAX_BODY: u32 = 128 * 1024;

/// The table.
pub struct VendorCodes {
    rules: Vec<Rule>,
    otherwise: Otherwise,
    body_limit: u32,
}

impl Configured for VendorCodes {
    type Config = Config;

    fn new(config: Config) -> Result<Self, String> {
        let mut problems = Vec::new();
        if config.rules.is_empty() || config.rules.len() > MAX_RULES {
            problems.push(format!("`rules` holds {} rules, but must hold 1 to {MAX_RULES}", config.rules.len()));
        }
        if !(1..=MAX_BODY).contains(&config.body_limit) {
            problems.push(format!("`body_limit` is {}, but must be 1 to {MAX_BODY}", config.body_limit));
        }
        let mut rules = Vec::new();
        for (index, rule) in config.rules.into_iter().take(MAX_RULES).enumerate() {
            match Rule::new(rule) {
                Ok(rule) => rules.push(rule),
                Err(found) => {
                    problems.extend(found.into_iter().map(|problem| format!("rule {}: {problem}", index + 1)))
                }
            }
        }
        let headers: BTreeSet<&str> = rules.iter().filter_map(Rule::header).collect();
        if headers.len() > MAX_HEADERS {
            problems.push(format!("the rules read {} header fields, but at most {MAX_HEADERS} may be", headers.len()));
        }
        if problems.is_empty() {
            Ok(Self { rules, otherwise: config.otherwise, body_limit: config.body_limit })
        } else {
            Err(problems.join("; "))
        }
    }
}

impl Policy for VendorCodes {
    fn interest(&self) -> Interest {
        let headers = self.rules.iter().filter_map(Rule::header);
        let interest = headers.fold(Interest::none(), |interest, name| interest.header(name));
        if self.rules.iter().any(Rule::reads_body) { interest.body(self.body_limit) } else { interest }
    }

    fn judge(&self, attempt: &Attempt, outcome: &Outcome) -> Decision {
        let seen = Seen::new(outcome);
        match self.rules.iter().find(|rule| rule.matches(&seen)) {
            Some(rule) => rule.decision(),
            None if outcome.is_success() => standard(attempt, outcome),
            None => self.otherwise.decision(attempt, outcome),
        }
    }
}

export_policy!(VendorCodes, config = Config);

#[cfg(test)]
mod tests;
