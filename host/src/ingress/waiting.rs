//! A caller that waits: attempts are made one after the other until there is an answer, or its deadline.
//!
//! On the happy path nothing is stored: a crash breaks the caller's connection, so the caller knows. What ended in a
//! fallback or a failure is stored, to be found and analysed; what may still succeed is stored and left to the queue,
//! where the route allows that.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::response::Response;
use futures_util::FutureExt as _;
use http_body_util::BodyExt;

use super::{ATTEMPTS, Ingress, MESSAGE_ID, STATE, accepted, insert_text, lane_saturated, plain, unavailable};
use crate::attempt::{Course, Made, Terms};
use crate::clock::Timestamp;
use crate::config::Route;
use crate::message::{Answer, AttemptRecord, Fault, Message, Outcome, State, Transition};
use crate::problem::{Kind, Problem};
use crate::queue::{Offered, Permit, RetryRight, Shut};
use crate::store::{Acceptance, Entry, Hold, KeyClaim};

/// The pauses between tries to close an idempotency key, at first and at most.
const CLOSE_AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// One waiting caller.
pub(super) struct Waiting {
    ingress: Arc<Ingress>,
    message: Message,
    route: Arc<Route>,
    key: Option<KeyClaim>,
    deadline: Timestamp,
    /// Attempts made before the message is left to the queue; none where that is not allowed.
    attempts_at_most: Option<u32>,
    journal: Vec<AttemptRecord>,
    hold: Option<Hold>,
    /// What the last attempt on the present route came to.
    last: Option<Outcome>,
    left_to_queue: bool,
    /// Whether the next attempt was made to wait by the retry budget.
    withheld: bool,
    /// What shut the lane when it was last looked at in vain.
    shut: Option<Shut>,
}

/// What is done next.
enum Next {
    Attempt(Permit, Option<RetryRight>),
    LeaveToQueue(Timestamp),
    GiveUp(String),
}

impl Waiting {
    pub(super) fn new(
        ingress: &Arc<Ingress>,
        message: Message,
        route: Arc<Route>,
        key: Option<KeyClaim>,
        deadline: Timestamp,
        attempts_at_most: Option<u32>,
    ) -> Self {
        let ingress = Arc::clone(ingress);
        Self {
            ingress,
            message,
            route,
            key,
            deadline,
            attempts_at_most,
            journal: Vec::new(),
            hold: None,
            last: None,
            left_to_queue: false,
            withheld: false,
            shut: None,
        }
    }

    /// Waits for the end, and answers the caller. A key that was opened for the request is closed whatever happens.
    pub(super) async fn run(mut self) -> Result<Response, Problem> {
        let answered = AssertUnwindSafe(self.answer()).catch_unwind().await.unwrap_or_else(|_| {
            tracing::error!(message_id = %self.message.id, route = %self.route.name, "the host failed in serving a request");
            Err(Problem::new(Kind::Internal, "the host failed; its log says more"))
        });
        let Some(key) = self.key.take() else { return answered };
        // A stored message keeps the key itself; a refusal gives it back; any other answer is given again.
        match answered {
            Ok(response) if self.left_to_queue => Ok(response),
            Ok(response) => {
                let (parts, body) = response.into_parts();
                let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                let answer = Answer { status: parts.status, headers: parts.headers, body };
                self.close(key, Some(answer.clone())).await;
                Ok(plain(answer, &self.message.request.method))
            }
            Err(problem) => {
                self.close(key, None).await;
                Err(problem)
            }
        }
    }

    /// Closes the key. If the store cannot do it now, it is tried again without keeping the caller waiting: a key left
    /// open would refuse every repeat.
    async fn close(&self, key: KeyClaim, answer: Option<Answer>) {
        let (ingress, id) = (Arc::clone(&self.ingress), self.message.id);
        let close = async move || ingress.store.close_key(key.clone(), answer.clone()).await;
        let Err(error) = close().await else { return };
        tracing::error!(message_id = %id, error = &error as &dyn std::error::Error, "could not close an idempotency key; trying again");
        let ingress = Arc::clone(&self.ingress);
        self.ingress.chains.spawn(async move {
            let mut wait = CLOSE_AGAIN.0;
            while ingress.stop.run_until_cancelled(ingress.clock.sleep(wait)).await.is_some() {
                if close().await.is_ok() {
                    return;
                }
                wait = (wait * 2).min(CLOSE_AGAIN.1);
            }
        });
    }

    async fn answer(&mut self) -> Result<Response, Problem> {
        loop {
            // The next attempt is made under the terms of the day: the configuration may have changed since the last.
            if let Some(route) = self.ingress.routes.served(self.route.name.as_str()) {
                self.route = route;
            }
            let made = match self.next().await {
                Next::LeaveToQueue(due) => return self.leave_to_queue(due).await,
                Next::GiveUp(reason) => {
                    let last = self.last.as_ref();
                    self.ingress.attempts.give_up_waiting(&self.message, &self.route, last, reason)
                }
                Next::Attempt(permit, right) => self.attempt(permit, right).await,
            };
            let Made { record, transition, progress, hold, course, .. } = made;
            let reason = record.reason.clone();
            self.journal.push(record);
            self.message.progress = progress;
            self.hold = hold.or(self.hold.take());
            let refused = matches!(course, Course::Refused);
            if let Course::Attempted(outcome) = course {
                self.last = Some(outcome);
            }
            match transition {
                Transition::Retry { due, .. } => {
                    if let Some(most) = self.attempts_at_most {
                        let enough = self.attempts_made() >= most || due >= self.deadline;
                        if enough || !self.sleep_until(due).await {
                            return self.leave_to_queue(due).await;
                        }
                    } else {
                        self.sleep_until(due).await;
                    }
                }
                Transition::Rerouted(next) => {
                    if let Some(route) = self.ingress.routes.served(next.as_str()) {
                        self.route = route;
                    }
                    self.message.route = next;
                    self.last = None;
                }
                Transition::Delivered => return self.end(State::Delivered, reason, None, refused).await,
                Transition::Answered(answer) => return self.end(State::Answered, reason, Some(answer), refused).await,
                Transition::Dropped => return self.end(State::Dropped, reason, None, refused).await,
                Transition::DeadLetter | Transition::Exhausted(_) => {
                    return self.end(State::Dead, reason, None, refused).await;
                }
            }
        }
    }

    fn attempts_made(&self) -> u32 {
        u32::try_from(self.journal.iter().filter(|record| record.number > 0).count()).unwrap_or(u32::MAX)
    }

    async fn attempt(&mut self, mut permit: Permit, right: Option<RetryRight>) -> Made {
        let terms = Terms {
            deadline: Some(self.deadline),
            ends_at_deadline: self.attempts_at_most.is_none(),
            wants_answer: true,
            withheld: std::mem::take(&mut self.withheld),
            admits_again: false,
        };
        if terms.withheld
            && let Some(lane) = self.ingress.queue.lane(&self.route.name)
        {
            lane.count_withheld();
        }
        permit.begin(self.is_retry(), self.ingress.clock.now());
        // The budget has counted it: what was reserved for it is free.
        drop(right);
        let made = self.ingress.attempts.make(&self.message, &self.route, terms).await;
        if let Some(failed) = made.destination_failed() {
            permit.came_to(failed, self.ingress.clock.now());
        }
        made
    }

    const fn is_retry(&self) -> bool {
        self.message.progress.attempts > 0
    }

    /// Waits for the right to make the next attempt: the end of the destination's hold, room in the retry budget, and
    /// a permit of the lane.
    async fn next(&mut self) -> Next {
        let leaves = self.attempts_at_most.is_some();
        let give_up = |until: Timestamp, reason: String| {
            if leaves { Next::LeaveToQueue(until) } else { Next::GiveUp(reason) }
        };
        let Some(lane) = self.ingress.queue.lane(&self.route.name) else {
            return Next::GiveUp("the route is gone".to_owned());
        };
        if !lane.route.enabled {
            return Next::GiveUp("the route takes nothing in".to_owned());
        }
        loop {
            let changed = lane.changed();
            let now = self.ingress.clock.now();
            if now >= self.deadline {
                return give_up(now, "the caller's deadline has passed".to_owned());
            }
            if let Some(until) = self.ingress.holds.held_until(&lane.destination, now) {
                if until >= self.deadline || !self.sleep_until(until).await {
                    return give_up(until, format!("destination held until {until}, beyond the caller's deadline"));
                }
                continue;
            }
            self.shut = lane.shut(now);
            if let Some(shut @ (Shut::Open(until) | Shut::Rate(until))) = self.shut
                && until >= self.deadline
            {
                // Due at once: the queue keeps to the lane by itself, and to what a reload makes of it meanwhile.
                return give_up(now, format!("{shut}, beyond the caller's deadline"));
            }
            let right = match self.is_retry().then(|| lane.retry(now)) {
                Some(Err(until)) => {
                    self.withheld = true;
                    if until >= self.deadline {
                        return give_up(
                            now,
                            format!("retry withheld by the retry budget until {until}, beyond the caller's deadline"),
                        );
                    }
                    tokio::select! {
                        reached = self.sleep_until(until) => if !reached {
                            return give_up(now, String::new());
                        },
                        () = changed => {}
                    }
                    continue;
                }
                Some(Ok(right)) => Some(right),
                None => None,
            };
            // Nearly always there is one, and nothing is to be waited for.
            if let Some(permit) = lane.try_permit(now) {
                return Next::Attempt(permit, right);
            }
            tokio::select! {
                // Nobody waits on a held destination with a permit in hand: a hold that came while this one waited for
                // its turn is looked for again.
                permit = lane.permit(&*self.ingress.clock) => {
                    let held = self.ingress.holds.held_until(&lane.destination, self.ingress.clock.now());
                    if let (Some(permit), None) = (permit, held) {
                        return Next::Attempt(permit, right);
                    }
                }
                () = changed => {}
                () = self.ingress.clock.sleep_until(self.deadline) => {
                    // Free by now, perhaps: but not for this one, while others were before it.
                    self.shut = lane.shut(self.deadline).or(self.shut);
                    let why = match self.shut {
                        Some(shut) => shut.to_string(),
                        None if lane.route.rate.is_some() => {
                            "others are before it, by the route's rate or its concurrency".to_owned()
                        }
                        None => "the route's concurrency is used up".to_owned(),
                    };
                    return give_up(self.deadline, format!("no attempt could begin: {why}"));
                }
            }
        }
    }

    /// Waits until `moment`; false when the host shuts down meanwhile and the message can be left to the queue.
    async fn sleep_until(&self, moment: Timestamp) -> bool {
        tokio::select! {
            () = self.ingress.clock.sleep_until(moment) => true,
            () = self.ingress.stop.cancelled(), if self.attempts_at_most.is_some() => false,
        }
    }

    /// Stores the message with the attempts made, for the queue to go on with. 202 once that is on disk.
    async fn leave_to_queue(&mut self, due: Timestamp) -> Result<Response, Problem> {
        let journal = std::mem::take(&mut self.journal);
        let offered = self
            .ingress
            .queue
            .take_over(self.message.clone(), due, journal, self.hold.take(), self.key.clone())
            .await
            .map_err(unavailable)?;
        match offered {
            Offered::Accepted => {
                self.left_to_queue = true;
                Ok(accepted(self.message.id))
            }
            Offered::Closed => Err(self.ingress.closed(&self.route.name)),
            Offered::Saturated | Offered::Key(_) => Err(lane_saturated(&self.route.name)),
        }
    }

    /// The message has ended: stores it unless it went well, and answers the caller with the fallback, or with what
    /// its last attempt came to. `refused` says that its policy refused it before its first.
    async fn end(
        &mut self,
        state: State,
        reason: String,
        fallback: Option<Answer>,
        refused: bool,
    ) -> Result<Response, Problem> {
        if state == State::Dead && !refused && self.last.is_none() {
            // A request that was never attempted and is answered 503 was not accepted: nothing is to be kept of it.
            if self.attempts_made() > 0 {
                self.store_for_analysis(state, &reason).await;
            }
            return Err(self.not_attempted(reason));
        }
        self.ingress.watch.ended(&self.message, state);
        if state != State::Delivered {
            self.store_for_analysis(state, &reason).await;
        }
        let method = &self.message.request.method;
        let mut response = match (fallback, self.last.take()) {
            (Some(answer), _) => plain(answer, method),
            (None, Some(Outcome::Response(answer))) => {
                plain(Answer { status: answer.status, headers: answer.headers, body: answer.body }, method)
            }
            (None, Some(Outcome::Silence(silence))) if silence.fault == Fault::Timeout => {
                self.problem(Kind::GatewayTimeout, reason)
            }
            (None, Some(Outcome::Silence(_))) => self.problem(Kind::BadGateway, reason),
            (None, None) => self.problem(Kind::Refused, reason),
        };
        let headers = response.headers_mut();
        insert_text(headers, MESSAGE_ID, &self.message.id.to_string());
        insert_text(headers, STATE, state.as_str());
        insert_text(headers, ATTEMPTS, &self.message.progress.journal.to_string());
        Ok(response)
    }

    fn problem(&self, kind: Kind, reason: String) -> Response {
        let instance = format!("/r/{}", self.route.name);
        Problem::new(kind, reason).with("message", self.message.id.to_string()).answer(&instance)
    }

    fn not_attempted(&self, reason: String) -> Problem {
        let now = self.ingress.clock.now();
        let lane = self.ingress.queue.lane(&self.route.name);
        let held_until = lane.as_ref().and_then(|lane| self.ingress.holds.held_until(&lane.destination, now));
        match (held_until, lane.and_then(|lane| lane.shut(now)).or(self.shut)) {
            (Some(until), _) => Problem::new(Kind::DestinationHeld, reason).retry_after(until.since(now)),
            (None, Some(Shut::Open(until))) => Problem::new(Kind::BreakerOpen, reason).retry_after(until.since(now)),
            (None, Some(Shut::Probing)) => Problem::new(Kind::BreakerOpen, reason).retry_after(super::COME_AGAIN),
            (None, Some(Shut::Rate(until))) => {
                Problem::new(Kind::RateUsedUp, reason).retry_after(until.since(now).max(super::COME_AGAIN))
            }
            (None, None) => Problem::new(Kind::Saturated, reason).retry_after(super::COME_AGAIN),
        }
    }

    async fn store_for_analysis(&mut self, state: State, reason: &str) {
        let acceptance = Acceptance {
            message: self.message.clone(),
            entry: Entry::Ended { state, reason: reason.to_owned(), at: self.ingress.clock.now() },
            attempts: std::mem::take(&mut self.journal),
            key: None,
            hold: self.hold.take(),
            order: None,
        };
        if let Err(error) = self.ingress.store.accept(acceptance).await {
            tracing::error!(
                message_id = %self.message.id,
                route = %self.route.name,
                %state,
                error = &error as &dyn std::error::Error,
                "could not store a failed request for analysis; its caller is answered all the same"
            );
        }
    }
}
