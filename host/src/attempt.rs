//! One attempt of a message, from the question before it to the transition after it: send, ask, advance, write down.
//!
//! Both those who wait (a synchronous caller) and those who do not (the queue) go through here, so that an attempt
//! means the same to both. It changes nothing in the store; it answers what is to be changed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::alarm::Alarms;
use crate::clock::{Clock, Timestamp};
use crate::config::Route;
use crate::dispatch::{Delivery, Read, Transport};
use crate::message::{
    self, Admission, AttemptRecord, Decision, Envelope, Exhaustion, Message, Outcome, OutcomeSummary, Progress,
    Provenance, RouteName, State, Step, Transition, Verdict, VerdictKind,
};
use crate::policy::{AttemptView, Catalog, Judge};
use crate::queue::Holds;
use crate::store::{Hold, Then};
use crate::watch::Watch;

/// Makes attempts.
pub struct Attempts {
    routes: BTreeMap<RouteName, Arc<Route>>,
    catalog: Arc<Catalog>,
    transport: Arc<dyn Transport>,
    holds: Arc<Holds>,
    alarms: Arc<Alarms>,
    watch: Arc<Watch>,
    clock: Arc<dyn Clock>,
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
}

impl Terms {
    /// Nobody waits.
    pub const QUEUED: Self = Self { deadline: None, ends_at_deadline: false, wants_answer: false };
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
    /// What happened; none when the message was not even attempted.
    pub outcome: Option<Outcome>,
    /// Whether the answer had a `Retry-After` that could not be read.
    pub malformed_retry_after: bool,
}

impl Made {
    /// Whether the message was given up without an attempt and without a policy's word on it.
    pub fn is_unattempted_give_up(&self) -> bool {
        self.outcome.is_none() && self.record.verdict == VerdictKind::Retry
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
    /// Everything an attempt needs.
    pub fn new(
        routes: BTreeMap<RouteName, Arc<Route>>,
        catalog: Arc<Catalog>,
        transport: Arc<dyn Transport>,
        holds: Arc<Holds>,
        alarms: Arc<Alarms>,
        watch: Arc<Watch>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { routes, catalog, transport, holds, alarms, watch, clock }
    }

    /// Makes one attempt of `message` on its route.
    pub async fn make(&self, message: &Message, route: &Arc<Route>, terms: Terms) -> Made {
        let judge = self.catalog.judge(&route.name);
        let made = match self.admit(message, &judge) {
            Some(refused) => refused,
            None => self.attempt(message, route, &judge, terms).await,
        };
        self.note(message, route, &made);
        made
    }

    /// Ends a message that cannot be attempted in the time its caller gives it, for this `reason`.
    pub fn give_up_waiting(&self, message: &Message, route: &Arc<Route>, reason: String) -> Made {
        let step = self.known_route_only(message::conclude(&message.progress, None, route.fallback.as_ref()));
        let made = self.unattempted(message, VerdictKind::Retry, reason, step, Provenance::default());
        self.note(message, route, &made);
        made
    }

    /// Asks, before the first attempt, whether the message should be sent at all. None: it should.
    fn admit(&self, message: &Message, judge: &Judge) -> Option<Made> {
        if message.progress.attempts > 0 {
            return None;
        }
        let asked = judge.admit(message);
        let (transition, verdict, reason) = match asked.answer {
            Admission::Accept => return None,
            Admission::Drop(reason) => (Transition::Dropped, VerdictKind::Drop, reason),
            Admission::DeadLetter(reason) => (Transition::DeadLetter, VerdictKind::DeadLetter, reason),
        };
        let step = Step { transition, progress: message.progress, hold: None, clamped: Vec::new() };
        Some(self.unattempted(message, verdict, reason, step, asked.provenance))
    }

    fn unattempted(
        &self,
        message: &Message,
        verdict: VerdictKind,
        reason: String,
        step: Step,
        provenance: Provenance,
    ) -> Made {
        let record = AttemptRecord {
            number: 0,
            route: message.route.as_str().to_owned(),
            started_at: self.clock.now(),
            latency_ms: 0,
            outcome: OutcomeSummary::default(),
            verdict,
            reason,
            delay_ms: None,
            transition: step.transition.name().to_owned(),
            clamped: step.clamped.iter().map(ToString::to_string).collect(),
            provenance,
        };
        Made {
            record,
            transition: step.transition,
            progress: step.progress,
            hold: None,
            outcome: None,
            malformed_retry_after: false,
        }
    }

    async fn attempt(&self, message: &Message, route: &Arc<Route>, judge: &Judge, terms: Terms) -> Made {
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
        let latency = sent.latency;
        // The clock reads whole milliseconds, rounded down. Delays are counted from the end of the one in which the
        // outcome was known: a retry is never early, not even by a part of a millisecond.
        let now = self.clock.now().after(Duration::from_nanos(1));

        let view = AttemptView {
            number: progress.attempts,
            of: route.envelope.max_attempts,
            elapsed: now.since(first_started_at),
            latency,
            now,
            reauthenticated: progress.reauthenticated,
        };
        let asked = judge.judge(message, view, &sent.outcome);
        let mut provenance = asked.provenance;
        let decision = asked.answer;
        let envelope = envelope_under(&route.envelope, terms, first_started_at);
        let mut step = message::advance(&progress, &sent.outcome, &decision, &envelope, now, self.clock.chance());
        let mut reason = decision.reason.clone();
        if let Transition::Exhausted(exhaustion) = step.transition {
            let concluded = self.exhausted(message, route, judge, view, &sent.outcome, &step, &mut provenance);
            step.clamped.extend(concluded.clamped.iter().copied());
            step = Step { clamped: step.clamped, ..concluded };
            reason = exhausted_reason(exhaustion, reason);
        }
        step = self.known_route_only(step);
        if matches!(step.transition, Transition::Retry { reauthenticate: true, .. }) {
            self.transport.expire_credentials(&route.destination, sent.credentials);
        }
        let hold = step.hold.map(|until| {
            let destination = route.destination.origin();
            self.holds.hold(&destination, until);
            Hold { destination, until }
        });
        let record = AttemptRecord {
            number: progress.journal,
            route: route.name.as_str().to_owned(),
            started_at,
            latency_ms: u64::try_from(latency.as_millis()).unwrap_or(u64::MAX),
            outcome: summary(&sent.outcome, &decision, judge),
            verdict: decision.verdict.kind(),
            reason,
            delay_ms: match &step.transition {
                Transition::Retry { due, .. } => Some(due.as_millis().saturating_sub(now.as_millis())),
                _ => None,
            },
            transition: step.transition.name().to_owned(),
            clamped: step.clamped.iter().map(ToString::to_string).collect(),
            provenance,
        };
        Made {
            record,
            transition: step.transition,
            progress: step.progress,
            hold,
            outcome: Some(sent.outcome),
            malformed_retry_after: step.clamped.contains(&message::Clamp::MalformedRetryAfter),
        }
    }

    /// No further attempt is allowed: asks the policy what to answer instead, then the route's own fallback.
    #[expect(clippy::too_many_arguments, reason = "all of it is this one attempt's circumstances")]
    fn exhausted(
        &self,
        message: &Message,
        route: &Route,
        judge: &Judge,
        view: AttemptView,
        outcome: &Outcome,
        step: &Step,
        provenance: &mut Provenance,
    ) -> Step {
        let asked = judge.fall_back(message, view, outcome);
        provenance.fuel = provenance.fuel.saturating_add(asked.provenance.fuel);
        provenance.took_ns = provenance.took_ns.saturating_add(asked.provenance.took_ns);
        provenance.log.extend(asked.provenance.log);
        provenance.failure = provenance.failure.take().or(asked.provenance.failure);
        message::conclude(&step.progress, asked.answer, route.fallback.as_ref())
    }

    /// A policy may name a route that does not exist; a message must not be moved there.
    fn known_route_only(&self, mut step: Step) -> Step {
        if let Transition::Rerouted(route) = &step.transition
            && !self.routes.contains_key(route)
        {
            step.transition = Transition::DeadLetter;
            step.clamped.push(message::Clamp::UnknownFallbackRoute);
        }
        step
    }

    /// Makes the attempt known: one log line, the alarm's meter, those who watch.
    fn note(&self, message: &Message, route: &Route, made: &Made) {
        let record = &made.record;
        if made.outcome.is_some() {
            self.alarms.record(&route.name, self.clock.now(), record.verdict != VerdictKind::Accept);
        }
        tracing::info!(
            target: "backstop::attempt",
            route = %route.name,
            message_id = %message.id,
            attempt = record.number,
            outcome = %record.outcome,
            verdict = record.verdict.as_str(),
            reason = record.reason,
            transition = record.transition,
            delay_ms = record.delay_ms,
            latency_ms = record.latency_ms,
            "attempt"
        );
        if let Some(failure) = &record.provenance.failure {
            tracing::warn!(target: "backstop::policy", route = %route.name, message_id = %message.id, failure, "policy failed");
        }
        self.watch.attempt(message, made);
    }
}

/// The route's envelope, further limited by the deadline of a caller who waits for the end.
fn envelope_under(envelope: &Envelope, terms: Terms, started_at: Timestamp) -> Envelope {
    match terms.deadline {
        Some(deadline) if terms.ends_at_deadline => {
            Envelope { max_elapsed: envelope.max_elapsed.min(deadline.since(started_at)), ..*envelope }
        }
        _ => *envelope,
    }
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
