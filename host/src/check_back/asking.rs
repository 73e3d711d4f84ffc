//! One check: the sender is asked, its answer read, and what follows written down.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode};

use super::CheckBacks;
use crate::backoff::RetryAfter;
use crate::clock::Timestamp;
use crate::config::{CheckBack, Route};
use crate::dispatch::{Delivery, Read};
use crate::message::{Fault, Message, Outcome, Request, speaks_for_destination};
use crate::policy::ANSWER_LIMIT;
use crate::queue::Spoken;
use crate::store::{Check, CheckNote, StoreError};
use crate::transaction::{Settlement, Voice, Word, after_check};

impl CheckBacks {
    /// Asks, and writes down what came of it. Answers when the sender is to be asked again, if it is.
    ///
    /// What cannot be written down is not done: it is asked again once the lease has run out.
    pub(super) async fn ask(&self, route: &Arc<Route>, check: Check) -> Option<Timestamp> {
        let back = route.check_back.as_ref()?;
        let outcome = self.send(route, back, &check).await;
        let judge = self.catalog.judge(&route.name);
        let turn = judge.turn().await;
        let asked = judge.settle(&check.message, &outcome);
        drop(turn);
        let (id, number) = (check.message.id, check.checks.saturating_add(1));
        if let Some(failure) = &asked.provenance.failure {
            tracing::warn!(message_id = %id, route = %route.name, failure, "the policy could not read a sender's answer");
        }
        let said = said(&outcome, asked.answer, asked.provenance.failure.is_some());
        tracing::info!(
            target: "backstop::check_back",
            message_id = %id,
            route = %route.name,
            check = number,
            said,
            "asked a sender what became of its operation"
        );
        let done = match asked.answer.word() {
            Some(word) => self.settle(&check.message, word, number).await.map(|()| None),
            None => {
                let quiet = self.quiet(route, back, &outcome);
                self.note(back, &check, was_sent(&outcome), said, quiet).await
            }
        };
        done.unwrap_or_else(|error| {
            tracing::error!(
                message_id = %id,
                error = &error as &dyn std::error::Error,
                "could not write down what a sender answered; it is asked again"
            );
            None
        })
    }

    async fn send(&self, route: &Route, back: &CheckBack, check: &Check) -> Outcome {
        let destination = back.destination(check.message.id);
        let request = Request {
            method: Method::GET,
            path: String::new(),
            headers: HeaderMap::from_iter([(
                http::header::ACCEPT,
                http::HeaderValue::from_static("application/json, */*;q=0.5"),
            )]),
            body: bytes::Bytes::new(),
        };
        let message = &check.message;
        let read = self.catalog.judge(&route.name).interest().body_limit.max(ANSWER_LIMIT);
        let sent = self
            .transport
            .send(Delivery {
                route: Arc::new(Route { destination: destination.clone(), ..route.clone() }),
                request: Arc::new(request),
                message: message.id,
                attempt: check.checks.saturating_add(1),
                idempotency_key: message.idempotency_key.clone().unwrap_or_else(|| message.id.to_string()),
                timeout: back.sender.timeout,
                read: Read::Prefix(read),
            })
            .await;
        if matches!(&sent.outcome, Outcome::Response(response) if response.status == StatusCode::UNAUTHORIZED) {
            // The next check is not to be sent with them.
            self.transport.expire_credentials(&destination, sent.credentials);
        }
        sent.outcome
    }

    /// How long the sender asks to be left alone (RFC 9110 §10.2.3), as far as the route honours it. With a 429 or a 503 it
    /// speaks for its whole origin: nothing is sent there before then.
    fn quiet(&self, route: &Route, back: &CheckBack, outcome: &Outcome) -> Duration {
        let Outcome::Response(response) = outcome else { return Duration::ZERO };
        let now = self.clock.now();
        let RetryAfter::After(asked) = RetryAfter::of(&response.headers, now) else { return Duration::ZERO };
        let asked = asked.min(route.envelope.retry_after_max);
        if speaks_for_destination(outcome) {
            self.holds.hold(&back.sender.origin(), now.after(asked));
        }
        asked
    }

    /// Says the word that the sender's answer amounts to.
    async fn settle(&self, message: &Message, word: Word, number: u32) -> Result<(), StoreError> {
        if let Spoken::Contrary(transaction) = self.queue.say(message.id, word, Voice::Check(number)).await? {
            tracing::warn!(
                message_id = %message.id,
                route = %message.route,
                state = %transaction.state,
                answer = word.as_str(),
                "a sender's answer contradicts an earlier word, which holds"
            );
        }
        Ok(())
    }

    /// Writes down a check that settled nothing; answers when the next one is due, if there is to be one: not before the
    /// sender's `quiet` is over.
    async fn note(
        &self,
        back: &CheckBack,
        check: &Check,
        sent: bool,
        said: String,
        quiet: Duration,
    ) -> Result<Option<Timestamp>, StoreError> {
        let after = after_check(check.checks, check.unreached, sent, back.max_checks);
        let next = (!after.parks).then(|| self.clock.now().after(back.every.max(quiet)));
        let message = &check.message;
        let note = CheckNote {
            id: message.id,
            owner: self.owner.clone(),
            reason: said.clone(),
            checks: after.checks,
            unreached: after.unreached,
            next,
        };
        let noted = self.store.note_check(note).await?;
        if noted && after.parks {
            tracing::warn!(
                message_id = %message.id,
                route = %message.route,
                checks = after.checks,
                unreached = after.unreached,
                said,
                "a half message is parked: its sender was asked in vain; `backstop transactions resume` has it asked again"
            );
        }
        Ok(next.filter(|_| noted))
    }
}

/// Whether the check left this host: the sender may have heard of it.
fn was_sent(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Response(_) => true,
        Outcome::Silence(silence) => match silence.fault {
            Fault::Resolve | Fault::Connect | Fault::Tls | Fault::Credentials => false,
            Fault::Timeout | Fault::Reset | Fault::Protocol => true,
        },
    }
}

/// What a check came to, in words.
fn said(outcome: &Outcome, settlement: Settlement, policy_failed: bool) -> String {
    let settled = match settlement {
        Settlement::Committed => "its sender says that it was committed",
        Settlement::RolledBack => "its sender says that it was rolled back",
        Settlement::Unknown if policy_failed => "the policy could not read its sender's answer",
        Settlement::Unknown => "its sender's answer settles nothing",
    };
    match outcome {
        Outcome::Response(response) => format!("{settled} ({})", response.status),
        Outcome::Silence(silence) if was_sent(outcome) => {
            format!("its sender did not answer ({}: {})", silence.fault, silence.detail)
        }
        Outcome::Silence(silence) => format!("its sender could not be asked ({}: {})", silence.fault, silence.detail),
    }
}
