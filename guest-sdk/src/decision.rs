//! Making a decision: one function for each verdict, each with its reason.
//!
//! A reason is for people and for search: short, stable, without secrets. The host keeps at most 256 bytes of it.

use std::time::Duration;

use serde::Serialize;

use crate::delay::whole_millis;
use crate::standard::{Class, classify, reason};
use crate::{Answer, Attempt, Decision, Fallback, Outcome, Retry, Scope, Verdict};

/// The destination did what was asked.
pub fn accept(reason: impl Into<String>) -> Decision {
    decide(Verdict::Accept, reason)
}

/// It did not, and may later: try again when the route's backoff says.
pub fn retry(reason: impl Into<String>) -> Decision {
    decide(Verdict::Retry(Retry { after: None, scope: Scope::Standard }), reason)
}

/// It did not, and may later: try again after `delay`, rounded up to a millisecond. The route's envelope has the last
/// word, and a `Retry-After` of the destination's is never undercut.
pub fn retry_after(delay: Duration, reason: impl Into<String>) -> Decision {
    decide(Verdict::Retry(Retry { after: Some(whole_millis(delay)), scope: Scope::Standard }), reason)
}

/// The destination refused our credentials: fetch fresh ones, once, and try again at once.
pub fn reauthenticate(reason: impl Into<String>) -> Decision {
    decide(Verdict::Reauthenticate, reason)
}

/// It never will: put the message aside for a person.
pub fn dead_letter(reason: impl Into<String>) -> Decision {
    decide(Verdict::DeadLetter, reason)
}

/// The message is worthless: forget it.
pub fn drop_message(reason: impl Into<String>) -> Decision {
    decide(Verdict::Drop, reason)
}

/// Stop trying, and go on as if the attempts were exhausted: with the policy's own [`FallBack`](crate::FallBack), else
/// the route's fallback, else a dead letter.
pub fn give_up(reason: impl Into<String>) -> Decision {
    decide(Verdict::FallBack(None), reason)
}

/// Stop trying, and give this answer in the destination's stead.
pub fn answer(answer: Answer, reason: impl Into<String>) -> Decision {
    decide(Verdict::FallBack(Some(Fallback::Answer(answer))), reason)
}

/// Stop trying here, and send the message on another route: a second vendor. The number of hops is bounded.
pub fn fall_back_to_route(route: impl Into<String>, reason: impl Into<String>) -> Decision {
    decide(Verdict::FallBack(Some(Fallback::Route(route.into()))), reason)
}

/// What the [standard rule](mod@crate::standard) says.
pub fn standard(_attempt: &Attempt, outcome: &Outcome) -> Decision {
    let status = outcome.status();
    match classify(status) {
        Class::Success => accept(reason(status)),
        Class::Transient => retry(reason(status)),
        Class::Persistent => dead_letter(reason(status)),
    }
}

fn decide(verdict: Verdict, reason: impl Into<String>) -> Decision {
    Decision { verdict, reason: reason.into() }
}

impl Decision {
    /// A retry holds every message to the destination, not this one alone. No other verdict is changed.
    #[must_use]
    pub fn for_destination(self) -> Self {
        self.scoped(Scope::Destination)
    }

    /// A retry concerns this message alone, even where a `Retry-After` would speak for the destination. No other
    /// verdict is changed.
    #[must_use]
    pub fn for_this_message(self) -> Self {
        self.scoped(Scope::Message)
    }

    fn scoped(mut self, scope: Scope) -> Self {
        if let Verdict::Retry(retry) = &mut self.verdict {
            retry.scope = scope;
        }
        self
    }
}

impl Answer {
    /// An answer with this HTTP status, 200 to 599, and no body.
    pub fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    /// An answer in JSON. A value that has no JSON form (a map whose keys are not text) becomes `null`.
    pub fn json(status: u16, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).unwrap_or_else(|_| b"null".to_vec());
        Self::new(status).header("content-type", "application/json").body(body)
    }

    /// And this header field.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        let mut name = name.into();
        name.make_ascii_lowercase();
        self.headers.push((name, value.into()));
        self
    }

    /// And this body.
    #[must_use]
    pub fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::{attempt, response, silence};
    use crate::{Fault, seconds};

    #[test]
    fn a_scope_is_a_matter_of_retries_only() {
        let Verdict::Retry(held) = retry_after(seconds(1), "busy").for_destination().verdict else { panic!("a retry") };
        assert_eq!(held, Retry { after: Some(1000), scope: Scope::Destination });
        assert_eq!(dead_letter("no").for_destination(), dead_letter("no"));
    }

    #[test]
    fn the_standard_rule_decides_as_it_classifies() {
        assert_eq!(standard(&attempt(1), &response(200).into()), accept("success"));
        assert_eq!(standard(&attempt(1), &response(429).into()), retry("too many requests"));
        assert_eq!(standard(&attempt(1), &response(410).into()), dead_letter("gone"));
        assert_eq!(standard(&attempt(1), &silence(Fault::Tls)), retry("no answer"));
    }

    #[test]
    fn a_json_answer_says_that_it_is_json() {
        let answer = Answer::json(200, &serde_json::json!({ "result": "pass" }));
        assert_eq!(answer.headers, [("content-type".to_owned(), "application/json".to_owned())]);
        assert_eq!(answer.body, br#"{"result":"pass"}"#);
    }
}
