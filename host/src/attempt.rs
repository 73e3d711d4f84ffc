//! One attempt of a message, from the question before it to the transition after it: send, ask, advance, write down.
//!
//! Both those who wait (a synchronous caller) and those who do not (the queue) go through here, so that an attempt
//! means the same to both. It changes nothing in the store; it answers what is to be changed.

use std::sync::Arc;
use std::time::Duration;

use crate::alarm::Alarms;
use crate::clock::{Clock, Timestamp};
use crate::config::Route;
use crate::dispatch::{Delivery, Read, Transport};
use crate::message::{
    self, Admission, AttemptRecord, Decision, Envelope, Exhaustion, Fallback, Message, Outcome, OutcomeSummary,
    Progress, Provenance, RouteName, State, Step, Transition, Verdict, VerdictKind, Withheld,
};
use crate::policy::{AttemptView, Catalog, Judge};
use crate::queue::Holds;
use crate::routes::Routes;
use crate::store::{Hold, Then};
use crate::watch::Watch;

/// Logs an attempt. A level belongs to a line of code, so that it cannot be an argument of a function.
macro_rules! log {
    ($level:ident, $message:ident, $route:ident, $record:ident) => {
        tracing::event!(
            target: "backstop::attempt",
            tracing::Level::$level,
            route = %$route.name,
            message_id = %$message.id,
            attempt = $record.number,
            outcome = %$record.outcome,
            fault = (!$record.outcome.detail.is_empty()).then_some($record.outcome.detail.as_str()),
            verdict = $record.verdict.as_str(),
            reason = $record.reason,
            transition = $record.transition,
            delay_ms = $record.delay_ms,
            clamped = (!$record.clamped.is_empty()).then(|| $record.clamped.join("; ")),
            latency_ms = $record.latency_ms,
            "attempt"
        )
    };
}

/// How the reason of a decision begins that a policy failed to make.
const POLICY_FAILED: &str = "policy failed";

/// Makes attempts, with all that takes.
pub struct Attempts {
    /// The routes by name: those that a fallback may lead to.
    pub routes: Arc<Routes>,
    /// Who judges.
    pub catalog: Arc<Catalog>,
    /// How an attempt reaches its destination.
    pub transport: Arc<dyn Transport>,
    /// Which destinations asked for quiet.
    pub holds: Arc<Holds>,
    /// Who counts failures.
    pub alarms: Arc<Alarms>,
    /// Who is told.
    pub watch: Arc<Watch>,
    /// The time, and chance.
    pub clock: Arc<dyn Clock>,
}

/// How an attempt is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// Until when it must be over, when somebody waits for it.
    pub deadline: Option<Timestamp>,
    /// Whether a retry that the deadline leaves no time for ends the message, or may be left to the queue.
    pub ends_at_deadline: bool,
    /// Whether the caller wants the destination's answer itself.
    pub wants_answer: bool,
    /// Whether it is a retry that the retry budget made wait.
    pub withheld: bool,
    /// Whether the policy is asked for admission even if the message was attempted before: a broker that keeps it does
    /// not say whether it was.
    pub admits_again: bool,
}

impl Terms {
    /// Nobody waits.
    pub const QUEUED: Self =
        Self { deadline: None, ends_at_deadline: false, wants_answer: false, withheld: false, admits_again: false };
}

/// An attempt that was made, and what follows from it. Nothing of it is stored yet.
#[derive(Clone, Debug)]
pub struct Made {
    /// For the journal.
    pub record: AttemptRecord,
    /// What is done.
    pub transition: Transition,
    /// How far the message has come.
    pub progress: Progress,
    /// A hold to be written down.
    pub hold: Option<Hold>,
    /// What was done with the message.
    pub course: Course,
    /// Whether the answer had a `Retry-After` that could not be read.
    pub malformed_retry_after: bool,
}

/// What was done with the message.
#[derive(Clone, Debug)]
pub enum Course {
    /// It was sent, and this is what happened.
    Attempted(Outcome),
    /// Its policy refused it before its first attempt.
    Refused,
    /// Its caller's time was over before it could be sent (again).
    GivenUp,
}

impl Made {
    /// Whether the attempt speaks against its destination: no answer, or one that is to be retried. An answer that is
    /// final, whatever it says, does not. None when nothing was attempted.
    pub const fn destination_failed(&self) -> Option<bool> {
        match &self.course {
            Course::Attempted(Outcome::Silence(_)) => Some(true),
            Course::Attempted(Outcome::Response(_)) => Some(matches!(self.record.verdict, VerdictKind::Retry)),
            Course::Refused | Course::GivenUp => None,
        }
    }

    /// What the store is to do about it.
    pub fn then(&self, message: &Message, now: Timestamp) -> Then {
        let end = |state| Then::End { state, reason: self.record.reason.clone(), at: now };
        match &self.transition {
            Transition::Delivered => end(State::Delivered),
            Transition::Answered(_) => end(State::Answered),
            Transition::Dropped => end(State::Dropped),
            Transition::DeadLetter | Transition::Exhausted(_) => end(State::Dead),
            Transition::Retry { due, .. } => Then::Queue { due: *due, route: message.route.clone() },
            Transition::Rerouted(route) => Then::Queue { due: now, route: route.clone() },
        }
    }
}

impl Attempts {
    /// Makes one attempt of `message` on its route.
    pub async fn make(&self, message: &Message, route: &Arc<Route>, terms: Terms) -> Made {
        let judge = self.catalog.judge(&route.name);
        if let Some(late) = self.too_late(message, route) {
            self.note(message, route, &late);
            return late;
        }
        let turn = judge.turn().await;
        let admitted = self.admit(message, &judge, terms);
        drop(turn);
        let made = match admitted {
            Ok(admitted) => self.attempt(message, route, &judge, terms, admitted).await,
            Err(refused) => *refused,
        };
        self.note(message, route, &made);
        made
    }

    /// Ends a message that had to wait beyond `max_elapsed` for its next attempt (for a hold, for its turn, for the
    /// host to be up), since none may begin then. What the last attempt came to is not at hand any more, so the policy
    /// is not asked for a fallback. A message that was never attempted always is, once.
    fn too_late(&self, message: &Message, route: &Route) -> Option<Made> {
        let elapsed = self.clock.now().since(message.progress.started_at?);
        if elapsed <= route.envelope.max_elapsed {
            return None;
        }
        let reason = format!("{}: the next attempt would begin {elapsed:?} after the first", Exhaustion::Elapsed);
        let step = self.conclude(&message.progress, None, route);
        Some(self.unattempted(message, Course::GivenUp, VerdictKind::Retry, reason, step, Provenance::default()))
    }

    /// Ends a message that cannot be attempted (again) in the time its caller gives it, for this `reason`. `last` is
    /// what its last attempt on this route came to, if there was one: only then is the policy asked for a fallback.
    pub fn give_up_waiting(
        &self,
        message: &Message,
        route: &Arc<Route>,
        last: Option<&Outcome>,
        reason: String,
    ) -> Made {
        let mut provenance = Provenance::default();
        let policy = last.and_then(|outcome| {
            let now = self.clock.now();
            let view = view_of(&message.progress, route, now, Duration::ZERO);
            let asked = self.catalog.judge(&route.name).fall_back(message, view, outcome);
            add(&mut provenance, asked.provenance);
            asked.answer
        });
        let step = self.conclude(&message.progress, policy, route);
        let made = self.unattempted(message, Course::GivenUp, VerdictKind::Retry, reason, step, provenance);
        self.note(message, route, &made);
        made
    }

    /// Asks, before the first attempt, whether the message should be sent at all; answers what asking came to.
    fn admit(&self, message: &Message, judge: &Judge, terms: Terms) -> Result<Provenance, Box<Made>> {
        if message.progress.attempts > 0 && !terms.admits_again {
            return Ok(Provenance::default());
        }
        let asked = judge.admit(message);
        let (transition, verdict, reason) = match asked.answer {
            Admission::Accept => return Ok(asked.provenance),
            Admission::Drop(reason) => (Transition::Dropped, VerdictKind::Drop, reason),
            Admission::DeadLetter(reason) => (Transition::DeadLetter, VerdictKind::DeadLetter, reason),
        };
        let step = Step { transition, progress: message.progress, hold: None, clamped: Vec::new() };
        Err(Box::new(self.unattempted(message, Course::Refused, verdict, reason, step, asked.provenance)))
    }

    fn unattempted(
        &self,
        message: &Message,
        course: Course,
        verdict: VerdictKind,
        reason: String,
        step: Step,
        provenance: Provenance,
    ) -> Made {
        let record = AttemptRecord {
            transition: step.transition.name().to_owned(),
            clamped: step.clamped.iter().map(ToString::to_string).collect(),
            provenance,
            ..AttemptRecord::unattempted(&message.route, verdict, &reason, self.clock.now())
        };
        let malformed_retry_after = false;
        Made { record, transition: step.transition, progress: step.progress, hold: None, course, malformed_retry_after }
    }

    async fn attempt(
        &self,
        message: &Message,
        route: &Arc<Route>,
        judge: &Judge,
        terms: Terms,
        admitted: Provenance,
    ) -> Made {
        let started_at = self.clock.now();
        let mut progress = message.progress;
        progress.attempts = progress.attempts.saturating_add(1);
        progress.journal = progress.journal.saturating_add(1);
        let first_started_at = *progress.started_at.get_or_insert(started_at);

        let allowed = terms.deadline.map_or(Duration::MAX, |deadline| deadline.since(started_at));
        let sent = self
            .transport
            .send(Delivery {
                route: Arc::clone(route),
                request: Arc::clone(&message.request),
                message: message.id,
                attempt: progress.journal,
                idempotency_key: message.idempotency_key.clone().unwrap_or_else(|| message.id.to_string()),
                timeout: route.destination.timeout.min(allowed),
                read: if terms.wants_answer { Read::Whole } else { Read::Prefix(judge.interest().body_limit) },
            })
            .await;
        // The clock reads whole milliseconds, rounded down. Delays are counted from the end of the one in which the
        // outcome was known: a retry is never early, not even by a part of a millisecond.
        let now = self.clock.now().after(Duration::from_nanos(1));

        let view = view_of(&progress, route, now, sent.latency);
        let turn = judge.turn().await;
        let asked = judge.judge(message, view, &sent.outcome);
        let mut provenance = admitted;
        add(&mut provenance, asked.provenance);
        let mut decision = asked.answer;
        if provenance.failure.is_some() && !decision.reason.starts_with(POLICY_FAILED) {
            // So that everything a broken policy did not judge is found by its reason.
            decision.reason = format!("{POLICY_FAILED}; {}", decision.reason);
        }
        let envelope = envelope_under(&route.envelope, terms, first_started_at);
        let mut step = message::advance(&progress, &sent.outcome, &decision, &envelope, now, self.clock.chance());
        let mut reason = decision.reason.clone();
        if let Transition::Exhausted(exhaustion) = step.transition {
            let policy = match &decision.verdict {
                Verdict::FallBack(Some(fallback)) => Some(fallback.clone()),
                _ => {
                    let asked = judge.fall_back(message, view, &sent.outcome);
                    add(&mut provenance, asked.provenance);
                    asked.answer
                }
            };
            let concluded = self.conclude(&step.progress, policy, route);
            step.clamped.extend(concluded.clamped);
            (step.transition, step.progress) = (concluded.transition, concluded.progress);
            reason = exhausted_reason(exhaustion, reason);
        }
        drop(turn);
        let refused_credentials = decision.verdict == Verdict::Reauthenticate && !progress.reauthenticated;
        if refused_credentials && envelope.renewable_credentials {
            // Whatever becomes of this message, the next one is not to be sent with them.
            self.transport.expire_credentials(&route.destination, sent.credentials);
        }
        let hold = step.hold.map(|until| {
            let destination = route.destination.origin();
            if self.holds.hold(&destination, until) {
                let reason = decision.reason.as_str();
                tracing::warn!(target: "backstop::hold", route = %route.name, destination, %until, reason, "destination held");
            }
            Hold { destination, until }
        });
        let record = AttemptRecord {
            number: progress.journal,
            route: route.name.as_str().to_owned(),
            started_at,
            latency_ms: u64::try_from(sent.latency.as_millis()).unwrap_or(u64::MAX),
            outcome: summary(&sent.outcome, &decision, judge),
            verdict: decision.verdict.kind(),
            reason,
            delay_ms: match &step.transition {
                Transition::Retry { due, .. } => Some(due.as_millis().saturating_sub(now.as_millis())),
                _ => None,
            },
            transition: step.transition.name().to_owned(),
            clamped: step.clamped.iter().map(ToString::to_string).collect(),
            withheld: terms.withheld.then_some(Withheld::RetryBudget),
            provenance,
        };
        Made {
            record,
            transition: step.transition,
            progress: step.progress,
            hold,
            course: Course::Attempted(sent.outcome),
            malformed_retry_after: step.clamped.contains(&message::Clamp::MalformedRetryAfter),
        }
    }

    /// No further attempt is allowed on `route`: the policy's fallback, else the route's, else a dead letter.
    fn conclude(&self, progress: &Progress, policy: Option<Fallback>, route: &Route) -> Step {
        let can_take = |other: &RouteName| *other != route.name && self.routes.served(other.as_str()).is_some();
        message::conclude(progress, policy.into_iter().chain(route.fallback.clone()), can_take)
    }

    /// Makes the attempt known: one log line, the alarm's meter, those who watch. Nearly all attempts are first ones
    /// that deliver: their lines would hide the others, and cost more than judging does, so they are for those who debug.
    fn note(&self, message: &Message, route: &Route, made: &Made) {
        let record = &made.record;
        if matches!(made.course, Course::Attempted(_)) {
            // A message that the policy calls worthless says nothing against its destination.
            let failed = !matches!(record.verdict, VerdictKind::Accept | VerdictKind::Drop);
            self.alarms.record(&route.name, self.clock.now(), failed);
        }
        if is_ordinary(made) {
            log!(DEBUG, message, route, record);
        } else {
            log!(INFO, message, route, record);
        }
        if let Some(failure) = &record.provenance.failure {
            let policy = record.provenance.policy.as_deref();
            tracing::warn!(
                target: "backstop::policy",
                route = %route.name,
                message_id = %message.id,
                policy = policy.map(|policy| policy.name.as_str()),
                version = policy.map(|policy| policy.version.as_str()),
                digest = policy.map(|policy| policy.digest.as_str()),
                failure,
                "policy failed"
            );
        }
        self.watch.attempt(message, made);
    }
}

/// Whether there is nothing about the attempt that somebody might look for: it was the first, and it delivered.
fn is_ordinary(made: &Made) -> bool {
    let record = &made.record;
    matches!(made.transition, Transition::Delivered)
        && record.number == 1
        && record.clamped.is_empty()
        && record.provenance.failure.is_none()
}

fn view_of(progress: &Progress, route: &Route, now: Timestamp, latency: Duration) -> AttemptView {
    AttemptView {
        number: progress.attempts,
        of: route.envelope.max_attempts,
        elapsed: progress.started_at.map_or(Duration::ZERO, |started_at| now.since(started_at)),
        latency,
        now,
        reauthenticated: progress.reauthenticated,
    }
}

/// The route's envelope, further limited by the deadline of a caller who waits for the end: an attempt that began at
/// the deadline would be over before it began.
fn envelope_under(envelope: &Envelope, terms: Terms, started_at: Timestamp) -> Envelope {
    match terms.deadline {
        Some(deadline) if terms.ends_at_deadline => {
            let left = deadline.since(started_at).saturating_sub(Duration::from_millis(1));
            Envelope { max_elapsed: envelope.max_elapsed.min(left), ..*envelope }
        }
        _ => *envelope,
    }
}

/// Adds what one more question came to.
fn add(provenance: &mut Provenance, asked: Provenance) {
    provenance.policy = provenance.policy.take().or(asked.policy);
    provenance.fuel = provenance.fuel.saturating_add(asked.fuel);
    provenance.took_ns = provenance.took_ns.saturating_add(asked.took_ns);
    provenance.log.extend(asked.log);
    provenance.failure = provenance.failure.take().or(asked.failure);
}

fn exhausted_reason(exhaustion: Exhaustion, reason: String) -> String {
    match exhaustion {
        Exhaustion::PolicyStopped => reason,
        Exhaustion::Attempts | Exhaustion::Elapsed => format!("{exhaustion}: {reason}"),
    }
}

/// What is kept of the outcome: of a body, no more than the policy asked to see.
fn summary(outcome: &Outcome, decision: &Decision, judge: &Judge) -> OutcomeSummary {
    let accepted = decision.verdict == Verdict::Accept;
    let mut summary = OutcomeSummary::of(outcome, accepted);
    let seen = judge.interest().body_limit;
    if summary.excerpt.len() > seen {
        let end = summary.excerpt.floor_char_boundary(seen);
        summary.excerpt.truncate(end);
    }
    summary
}
