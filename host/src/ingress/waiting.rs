//! A caller that waits: attempts are made one after the other until there is an answer, or its deadline.
//!
//! On the happy path nothing is stored: a crash breaks the caller's connection, so the caller knows. What ended in a
//! fallback or a failure is stored, to be found and analysed; what may still succeed is stored and left to the queue,
//! where the route allows that.

use std::sync::Arc;

use axum::response::Response;
use http_body_util::BodyExt;

use super::{ATTEMPTS, Ingress, MESSAGE_ID, STATE, accepted, insert_text, lane_saturated, plain, unavailable};
use crate::attempt::{Made, Terms};
use crate::clock::Timestamp;
use crate::config::Route;
use crate::message::{Answer, AttemptRecord, Fault, Message, Outcome, State, Transition};
use crate::problem::{Kind, Problem};
use crate::queue::Offered;
use crate::store::{Acceptance, Entry, Hold, KeyClaim, Then};

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
    left_to_queue: bool,
}

/// What is done next.
enum Next {
    Attempt(tokio::sync::OwnedSemaphorePermit),
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
        let (journal, hold) = (Vec::new(), None);
        Self { ingress, message, route, key, deadline, attempts_at_most, journal, hold, left_to_queue: false }
    }

    /// Waits for the end, and answers the caller.
    pub(super) async fn run(mut self) -> Result<Response, Problem> {
        let answered = self.answer().await;
        let Some(key) = self.key.take() else { return answered };
        // A stored message keeps the key itself; a refusal gives it back; any other answer is given again.
        let (answer, response) = match answered {
            Ok(response) if self.left_to_queue => return Ok(response),
            Ok(response) => {
                let (parts, body) = response.into_parts();
                let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                let answer = Answer { status: parts.status, headers: parts.headers, body };
                (Some(answer.clone()), Ok(plain(answer)))
            }
            Err(problem) => (None, Err(problem)),
        };
        if let Err(error) = self.ingress.store.close_key(key.route, key.key, answer).await {
            tracing::error!(message_id = %self.message.id, error = &error as &dyn std::error::Error, "could not write down the answer under its idempotency key");
        }
        response
    }

    async fn answer(&mut self) -> Result<Response, Problem> {
        loop {
            let made = match self.next().await {
                Next::LeaveToQueue(due) => return self.leave_to_queue(due).await,
                Next::GiveUp(reason) => self.ingress.attempts.give_up_waiting(&self.message, &self.route, reason),
                Next::Attempt(permit) => {
                    let terms = Terms {
                        deadline: Some(self.deadline),
                        ends_at_deadline: self.attempts_at_most.is_none(),
                        wants_answer: true,
                    };
                    let made = self.ingress.attempts.make(&self.message, &self.route, terms).await;
                    drop(permit);
                    made
                }
            };
            self.journal.push(made.record.clone());
            self.message.progress = made.progress;
            self.hold = made.hold.clone().or(self.hold.take());
            match &made.transition {
                Transition::Retry { due, .. } => {
                    let enough = self.attempts_at_most.is_some_and(|most| self.attempts_made() >= most);
                    if enough || *due >= self.deadline || !self.sleep_until(*due).await {
                        return self.leave_to_queue(*due).await;
                    }
                }
                Transition::Rerouted(next) => match self.ingress.routes.get(next) {
                    Some(route) => {
                        self.route = Arc::clone(route);
                        self.message.route = next.clone();
                    }
                    None => return self.end(made).await,
                },
                _ => return self.end(made).await,
            }
        }
    }

    fn attempts_made(&self) -> u32 {
        u32::try_from(self.journal.iter().filter(|record| record.number > 0).count()).unwrap_or(u32::MAX)
    }

    /// Waits for the right to make the next attempt: the destination's hold, then a permit of the lane.
    async fn next(&self) -> Next {
        let give_up = |until: Timestamp, reason: String| match self.attempts_at_most {
            Some(_) => Next::LeaveToQueue(until),
            None => Next::GiveUp(reason),
        };
        let Some(lane) = self.ingress.queue.lane(&self.route.name) else {
            return Next::GiveUp("the route is gone".to_owned());
        };
        loop {
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
            tokio::select! {
                permit = lane.permit() => if let Some(permit) = permit { return Next::Attempt(permit) },
                () = self.ingress.clock.sleep_until(self.deadline) => {
                    return give_up(self.deadline, "no attempt could begin: the route's concurrency is used up".to_owned());
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
            Offered::Saturated | Offered::Key(_) => Err(lane_saturated(&self.route.name)),
        }
    }

    /// The message has ended: stores it unless it went well, and answers the caller.
    async fn end(&mut self, made: Made) -> Result<Response, Problem> {
        let now = self.ingress.clock.now();
        let Then::End { state, reason, at } = made.then(&self.message, now) else {
            return Err(Problem::new(Kind::BadGateway, "the message did not end"));
        };
        self.ingress.watch.ended(&self.message, state);
        // A request that was never attempted and is refused with a 503 was not accepted: nothing is to be kept.
        let refused = state == State::Dead && self.attempts_made() == 0 && made.is_unattempted_give_up();
        if state != State::Delivered && !refused {
            let acceptance = Acceptance {
                message: self.message.clone(),
                entry: Entry::Ended { state, reason, at },
                attempts: std::mem::take(&mut self.journal),
                key: None,
                hold: self.hold.take(),
            };
            if let Err(error) = self.ingress.store.accept(acceptance).await {
                tracing::error!(message_id = %self.message.id, route = %self.route.name, %state, error = &error as &dyn std::error::Error, "could not store a failed request for analysis; its caller is answered all the same");
            }
        }
        let mut response = self.caller_answer(made, refused)?;
        let headers = response.headers_mut();
        insert_text(headers, MESSAGE_ID, &self.message.id.to_string());
        insert_text(headers, STATE, state.as_str());
        insert_text(headers, ATTEMPTS, &self.message.progress.journal.to_string());
        Ok(response)
    }

    fn caller_answer(&self, made: Made, refused: bool) -> Result<Response, Problem> {
        if let Transition::Answered(answer) = made.transition {
            return Ok(plain(answer));
        }
        let reason = made.record.reason;
        let problem = match made.outcome {
            Some(Outcome::Response(response)) => {
                return Ok(plain(Answer { status: response.status, headers: response.headers, body: response.body }));
            }
            Some(Outcome::Silence(silence)) if silence.fault == Fault::Timeout => {
                Problem::new(Kind::GatewayTimeout, reason)
            }
            Some(Outcome::Silence(_)) => Problem::new(Kind::BadGateway, reason),
            None if refused => {
                let until = self
                    .ingress
                    .queue
                    .lane(&self.route.name)
                    .and_then(|lane| self.ingress.holds.held_until(&lane.destination, self.ingress.clock.now()));
                let wait = until.map_or(super::COME_AGAIN, |until| until.since(self.ingress.clock.now()));
                let kind = if until.is_some() { Kind::DestinationHeld } else { Kind::Saturated };
                return Err(Problem::new(kind, reason).retry_after(wait));
            }
            None => Problem::new(Kind::Refused, reason),
        };
        Ok(problem.with("message", self.message.id.to_string()).answer(&format!("/r/{}", self.route.name)))
    }
}
