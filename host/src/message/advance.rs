//! The heart: what is done about an outcome.

use std::fmt;
use std::time::Duration;

use http::StatusCode;

use super::{Answer, Decision, Fallback, Outcome, Progress, RouteName, Scope, Verdict};
use crate::backoff::{Backoff, RetryAfter};
use crate::clock::{Chance, Timestamp};

/// How many routes fallbacks may lead one message through: a bound on circles.
pub const MAX_HOPS: u8 = 4;

/// The host's limits on any verdict. A policy proposes, the envelope disposes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Envelope {
    /// Attempts in all; 1 means one delivery and no retry.
    pub max_attempts: u32,
    /// Time from the first attempt's start after which no attempt begins.
    pub max_elapsed: Duration,
    /// The first delay of the backoff, and the least that a policy may ask for.
    pub min_delay: Duration,
    /// The longest delay of the backoff, and the most that a policy may ask for.
    pub max_delay: Duration,
    /// How delays grow when the policy names none.
    pub backoff: Backoff,
    /// The longest `Retry-After` that is honoured in full. Default 1 h.
    pub retry_after_max: Duration,
    /// Whether the destination's credentials can be renewed at all.
    pub renewable_credentials: bool,
}

/// What is then done.
#[derive(Clone, Debug, PartialEq)]
pub enum Transition {
    /// The message is done.
    Delivered,
    /// Another attempt, at `due` and not before.
    Retry {
        /// When.
        due: Timestamp,
        /// How long that is from now.
        delay: Duration,
        /// Whether the credentials just used are to be forgotten first.
        reauthenticate: bool,
    },
    /// No further attempt is allowed. Not an end: [`conclude`] says what follows.
    Exhausted(Exhaustion),
    /// A fallback answer is given.
    Answered(Answer),
    /// The message moves to another route and starts afresh there.
    Rerouted(RouteName),
    /// Put aside for a person.
    DeadLetter,
    /// Forgotten.
    Dropped,
}

impl Transition {
    /// Its name in the journal and in logs.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Retry { .. } => "retry",
            Self::Exhausted(_) => "exhausted",
            Self::Answered(_) => "answered",
            Self::Rerouted(_) => "rerouted",
            Self::DeadLetter => "dead_letter",
            Self::Dropped => "dropped",
        }
    }
}

/// Why no further attempt is allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exhaustion {
    /// `max_attempts` were made.
    Attempts,
    /// The next would begin after `max_elapsed`, or after a waiting caller's deadline.
    Elapsed,
    /// The policy said to stop.
    PolicyStopped,
}

impl fmt::Display for Exhaustion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attempts => "attempts exhausted",
            Self::Elapsed => "time exhausted",
            Self::PolicyStopped => "stopped by the policy",
        })
    }
}

/// What the envelope overruled or adjusted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Clamp {
    /// The policy asked for a shorter delay than `min_delay`.
    RaisedToMinDelay(Duration),
    /// The policy asked for a longer delay than `max_delay`.
    LoweredToMaxDelay(Duration),
    /// The destination asked, by `Retry-After`, for a longer delay than was proposed.
    RaisedToRetryAfter(Duration),
    /// The destination's `Retry-After` was longer than the route honours.
    LoweredToRetryAfterMax(Duration),
    /// The `Retry-After` could not be read, and was ignored.
    MalformedRetryAfter,
    /// 410 Gone is never retried (RFC 9110 §15.5.11).
    GoneIsFinal,
    /// Fresh credentials were fetched for this message already, or cannot be: an ordinary retry instead.
    NoFreshCredentials,
    /// A retry was proposed after the last attempt.
    OutOfAttempts,
    /// A retry was proposed beyond the time allowed.
    OutOfTime,
    /// A fallback to a further route was refused: [`MAX_HOPS`] were taken.
    TooManyHops,
    /// A fallback to a route that does not exist or is disabled, or to the one the message is on, was refused.
    UnusableFallbackRoute,
}

impl fmt::Display for Clamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RaisedToMinDelay(asked) => write!(f, "delay {:?} raised to min_delay", whole_millis(*asked)),
            Self::LoweredToMaxDelay(asked) => write!(f, "delay {:?} lowered to max_delay", whole_millis(*asked)),
            Self::RaisedToRetryAfter(proposed) => {
                write!(f, "delay {:?} raised to the Retry-After", whole_millis(*proposed))
            }
            Self::LoweredToRetryAfterMax(asked) => {
                write!(f, "Retry-After {:?} lowered to retry_after_max", whole_millis(*asked))
            }
            Self::MalformedRetryAfter => f.write_str("malformed Retry-After ignored"),
            Self::GoneIsFinal => f.write_str("410 Gone is never retried"),
            Self::NoFreshCredentials => f.write_str("no fresh credentials to be had: ordinary retry"),
            Self::OutOfAttempts => f.write_str("max_attempts reached"),
            Self::OutOfTime => f.write_str("max_elapsed or deadline reached"),
            Self::TooManyHops => f.write_str("too many fallback routes"),
            Self::UnusableFallbackRoute => {
                f.write_str("the fallback route does not exist, is disabled, or is this one")
            }
        }
    }
}

/// A delay as it is shown: jitter makes fractions of a millisecond, which tell nobody anything.
fn whole_millis(delay: Duration) -> Duration {
    Duration::from_millis(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
}

/// One step of a message's life.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// What is done.
    pub transition: Transition,
    /// How far the message has then come.
    pub progress: Progress,
    /// Until when every message to the destination is held, if it is.
    pub hold: Option<Timestamp>,
    /// What the envelope overruled.
    pub clamped: Vec<Clamp>,
}

/// Says what is done about the `outcome` of an attempt, on which `decision` was proposed.
///
/// `progress` already counts the attempt. `chance` is used for jitter only.
pub fn advance(
    progress: &Progress,
    outcome: &Outcome,
    decision: &Decision,
    envelope: &Envelope,
    now: Timestamp,
    chance: Chance,
) -> Step {
    let mut step = Step { transition: Transition::Delivered, progress: *progress, hold: None, clamped: Vec::new() };
    step.transition = match &decision.verdict {
        Verdict::Accept => Transition::Delivered,
        Verdict::Drop => Transition::Dropped,
        Verdict::DeadLetter => Transition::DeadLetter,
        Verdict::FallBack(_) => Transition::Exhausted(Exhaustion::PolicyStopped),
        Verdict::Retry { .. } | Verdict::Reauthenticate if is_gone(outcome) => {
            step.clamped.push(Clamp::GoneIsFinal);
            Transition::DeadLetter
        }
        Verdict::Retry { after, scope } => retry(*after, *scope, outcome, envelope, now, chance, &mut step),
        Verdict::Reauthenticate if progress.reauthenticated || !envelope.renewable_credentials => {
            step.clamped.push(Clamp::NoFreshCredentials);
            retry(None, Scope::Message, outcome, envelope, now, chance, &mut step)
        }
        Verdict::Reauthenticate => {
            step.progress.reauthenticated = true;
            let delay = demanded_delay(outcome, envelope, now, &mut step).unwrap_or(Duration::ZERO);
            within_limits(now, delay, true, envelope, &mut step)
        }
    };
    step
}

/// Says what follows once no further attempt is allowed: the first of `fallbacks` that can be taken, else a dead
/// letter. They are the policy's and then the route's own; `can_take` says whether a route may be gone on to.
pub fn conclude(
    progress: &Progress,
    fallbacks: impl IntoIterator<Item = Fallback>,
    can_take: impl Fn(&RouteName) -> bool,
) -> Step {
    let mut step = Step { transition: Transition::DeadLetter, progress: *progress, hold: None, clamped: Vec::new() };
    for fallback in fallbacks {
        match fallback {
            Fallback::Answer(answer) => {
                step.transition = Transition::Answered(answer);
                return step;
            }
            Fallback::Route(_) if progress.hops >= MAX_HOPS => step.clamped.push(Clamp::TooManyHops),
            Fallback::Route(route) if !can_take(&route) => step.clamped.push(Clamp::UnusableFallbackRoute),
            Fallback::Route(route) => {
                step.progress = Progress { journal: progress.journal, hops: progress.hops + 1, ..Progress::default() };
                step.transition = Transition::Rerouted(route);
                return step;
            }
        }
    }
    step
}

fn is_gone(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Response(response) if response.status == StatusCode::GONE)
}

fn retry(
    after: Option<Duration>,
    scope: Scope,
    outcome: &Outcome,
    envelope: &Envelope,
    now: Timestamp,
    chance: Chance,
    step: &mut Step,
) -> Transition {
    let proposed = match after {
        Some(asked) if asked < envelope.min_delay => {
            step.clamped.push(Clamp::RaisedToMinDelay(asked));
            envelope.min_delay
        }
        Some(asked) if asked > envelope.max_delay => {
            step.clamped.push(Clamp::LoweredToMaxDelay(asked));
            envelope.max_delay
        }
        Some(asked) => asked,
        None => envelope.backoff.delay(
            step.progress.attempts.saturating_sub(1),
            envelope.min_delay,
            envelope.max_delay,
            step.progress.previous_delay,
            chance,
        ),
    };
    step.progress.previous_delay = Some(proposed);
    let demanded = demanded_delay(outcome, envelope, now, step);
    let delay = match demanded {
        Some(demanded) if demanded > proposed => {
            step.clamped.push(Clamp::RaisedToRetryAfter(proposed));
            envelope.backoff.spread_later(demanded, chance)
        }
        _ => proposed,
    };
    step.hold = match (scope, demanded) {
        (Scope::Destination, _) => Some(now.after(demanded.map_or(proposed, |demanded| demanded.max(proposed)))),
        (Scope::Standard, Some(demanded)) if speaks_for_destination(outcome) => Some(now.after(demanded)),
        _ => None,
    };
    within_limits(now, delay, false, envelope, step)
}

/// The delay that the destination itself demands, as far as the route honours it.
fn demanded_delay(outcome: &Outcome, envelope: &Envelope, now: Timestamp, step: &mut Step) -> Option<Duration> {
    let Outcome::Response(response) = outcome else { return None };
    match RetryAfter::of(&response.headers, now) {
        RetryAfter::Absent => None,
        RetryAfter::Malformed => {
            step.clamped.push(Clamp::MalformedRetryAfter);
            None
        }
        RetryAfter::After(asked) if asked > envelope.retry_after_max => {
            step.clamped.push(Clamp::LoweredToRetryAfterMax(asked));
            Some(envelope.retry_after_max)
        }
        RetryAfter::After(asked) => Some(asked),
    }
}

/// Whether a `Retry-After` on this answer concerns every message to the destination.
pub(crate) fn speaks_for_destination(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Response(response)
        if matches!(response.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE))
}

fn within_limits(
    now: Timestamp,
    delay: Duration,
    reauthenticate: bool,
    envelope: &Envelope,
    step: &mut Step,
) -> Transition {
    let due = now.after(delay);
    let started_at = step.progress.started_at.unwrap_or(now);
    if step.progress.attempts >= envelope.max_attempts {
        step.clamped.push(Clamp::OutOfAttempts);
        Transition::Exhausted(Exhaustion::Attempts)
    } else if due.since(started_at) > envelope.max_elapsed {
        step.clamped.push(Clamp::OutOfTime);
        Transition::Exhausted(Exhaustion::Elapsed)
    } else {
        Transition::Retry { due, delay, reauthenticate }
    }
}
