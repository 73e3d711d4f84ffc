//! What the host makes of an answer: the very functions that decide a message's fate, asked twice, with the lowest and
//! the highest chance, since jitter spreads a delay between the two.

use std::time::Duration;

use serde_json::{Value, json};

use super::millis;
use crate::clock::Chance;
use crate::config::show_duration;
use crate::message::{Admission, Decision, Envelope, Fallback, Progress, Step, Transition, Verdict, advance, conclude};
use crate::policy::Judge;
use crate::policy::laws::Question;
use crate::policy::laws::saying::fallback_in_words;

/// What follows from an answer.
pub(super) struct Consequence {
    /// For people.
    pub(super) in_words: String,
    /// Where the envelope overruled the policy, in words.
    pub(super) clamped: Vec<String>,
    transition: &'static str,
    /// Between these the delay lies, where there is one.
    delay: Option<(Duration, Duration)>,
    /// For how long every message to the destination is held.
    hold: Option<Duration>,
}

impl Consequence {
    fn of(transition: &Transition, in_words: String) -> Self {
        Self { in_words, clamped: Vec::new(), transition: transition.name(), delay: None, hold: None }
    }

    /// As JSON; delays are in milliseconds.
    pub(super) fn as_json(&self) -> Value {
        json!({
            "transition": self.transition,
            "delay_ms": self.delay.map(|(from, to)| json!({ "from": millis(from), "to": millis(to) })),
            "hold_ms": self.hold.map(millis),
            "clamped": self.clamped,
            "in_words": self.in_words,
        })
    }
}

/// What follows from a decision on an outcome, as for an attempt in earnest.
pub(super) fn judged(judge: &Judge, question: &Question, decision: &Decision, envelope: &Envelope) -> Consequence {
    let Question { message, attempt, outcome, .. } = question;
    let step = |chance| advance(&message.progress, outcome, decision, envelope, attempt.now, Chance::new(chance));
    let (soonest, latest) = (step(0.0), step(1.0));
    let clamped = |step: &Step| step.clamped.iter().map(ToString::to_string).collect();
    match (&soonest.transition, &latest.transition) {
        (Transition::Retry { delay: from, reauthenticate, .. }, Transition::Retry { delay: to, .. }) => {
            let hold = soonest.hold.map(|until| until.since(attempt.now));
            let mut in_words = match reauthenticate {
                true => "fresh credentials are fetched, and the next attempt follows ".to_owned(),
                false => "the next attempt follows ".to_owned(),
            };
            in_words.push_str(&between(*from, *to));
            if let Some(hold) = hold {
                in_words.push_str(&format!("; every message to the destination is held for {}", show_duration(hold)));
            }
            let retry = Consequence::of(&soonest.transition, in_words);
            Consequence { clamped: clamped(&soonest), delay: Some((*from, *to)), hold, ..retry }
        }
        (_, Transition::Exhausted(why)) => {
            let own = match &decision.verdict {
                Verdict::FallBack(Some(fallback)) => Some(fallback.clone()),
                _ => judge.fall_back(message, *attempt, outcome).answer,
            };
            let then = fallen_back(&message.progress, own);
            let in_words = format!("{why}: {}", then.in_words);
            Consequence { in_words, clamped: clamped(&latest), ..then }
        }
        (transition, _) => Consequence { clamped: clamped(&soonest), ..Consequence::of(transition, ended(transition)) },
    }
}

/// What follows once no further attempt is allowed, on a route without a fallback of its own.
pub(super) fn fallen_back(progress: &Progress, own: Option<Fallback>) -> Consequence {
    let has_own = own.is_some();
    // Whether there is such a route is not known here, and is said.
    let step = conclude(progress, own, |_| true);
    let mut in_words = ended(&step.transition);
    if !has_own {
        in_words.push_str(", unless the route has a `fallback`");
    }
    Consequence::of(&step.transition, in_words)
}

/// What follows from an admission.
pub(super) fn admitted(admission: &Admission) -> Consequence {
    match admission {
        Admission::Accept => Consequence {
            in_words: "the message is attempted".to_owned(),
            clamped: Vec::new(),
            transition: "attempted",
            delay: None,
            hold: None,
        },
        Admission::Drop(_) => Consequence::of(&Transition::Dropped, ended(&Transition::Dropped)),
        Admission::DeadLetter(_) => Consequence::of(&Transition::DeadLetter, ended(&Transition::DeadLetter)),
    }
}

/// What becomes of the message, where no attempt follows.
fn ended(transition: &Transition) -> String {
    match transition {
        Transition::Delivered => "the message is delivered".to_owned(),
        Transition::DeadLetter => "the message becomes a dead letter".to_owned(),
        Transition::Dropped => "the message is dropped".to_owned(),
        Transition::Answered(answer) => {
            format!("the caller is given {}", fallback_in_words(&Fallback::Answer(answer.clone())))
        }
        Transition::Rerouted(route) => format!("the message goes on to the route `{route}`, if there is one"),
        Transition::Retry { .. } | Transition::Exhausted(_) => transition.name().to_owned(),
    }
}

/// A delay that jitter spreads.
fn between(from: Duration, to: Duration) -> String {
    let round = |delay: Duration| {
        Duration::from_millis(u64::try_from(delay.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX))
    };
    let (from, to) = (round(from), round(to));
    match (from, to) {
        (Duration::ZERO, Duration::ZERO) => "at once".to_owned(),
        (from, to) if from == to => format!("after {}", show_duration(from)),
        (from, to) => format!("after {} to {}, as chance has it", show_duration(from), show_duration(to)),
    }
}
