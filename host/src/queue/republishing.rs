//! Publishing again what the archive holds: a new message like one that has ended, with an id and a `message_uid` of its
//! own and a link to its original, which stays as it is.
//!
//! It takes the way of the original from its beginning, on the route that the original came in on, and an event is held
//! against the route's schema again. Its caller's own `Idempotency-Key` goes with it: for a destination that knows the
//! key it is the same operation, done once.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use sha2::{Digest as _, Sha256};

use super::{Offered, Queue};
use crate::clock::Timestamp;
use crate::config::Route;
use crate::event;
use crate::message::{Message, MessageId, Origin, Progress, Request, RouteName, State};
use crate::store::{KeyClaim, KeyState, StoreError, Stored, Turn};

/// Where an event in binary mode carries its attribute [`crate::event::MESSAGE_UID`].
const UID: HeaderName = HeaderName::from_static("ce-messageuid");

/// What many messages are published again under, so that none is twice: 1 to 64 of `a-z`, `A-Z`, `0-9`, `.`, `-`, `_`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Run(String);

/// A text that no run is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a run's name is 1 to 64 of a-z, A-Z, 0-9, '.', '-' and '_'")]
pub struct BadRun;

/// What became of a message that was to be published again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Republished {
    /// It is on disk, under this id.
    Accepted(MessageId),
    /// It was published again in this run before, under this id; or it is what this run made of another one.
    Before(MessageId),
    /// It is being published again in this run just now.
    Underway,
    /// It has not ended: it is in this state, and may be delivered yet.
    NotEnded(State),
    /// It is a dead letter that holds its order up: a new message would wait behind it.
    HoldsUp,
    /// It is an event that its route would put aside unattempted, for this reason.
    Misfit(String),
    /// `max_queued` messages wait on its route.
    Saturated,
    /// The route that it came in on is gone, or takes nothing in.
    Closed(RouteName),
}

impl Queue {
    /// Publishes `original` again; within a `run` once only, for as long as its route keeps idempotency keys. Goes on to
    /// its end even if the caller does not wait for it.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is then published.
    pub async fn republish(self: &Arc<Self>, original: Stored, run: Option<Run>) -> Result<Republished, StoreError> {
        if !original.summary.state.is_terminal() {
            return Ok(Republished::NotEnded(original.summary.state));
        }
        if original.summary.turn == Some(Turn::Now) {
            return Ok(Republished::HoldsUp);
        }
        let queue = Arc::clone(self);
        self.onward(async move {
            let message = again(&original, queue.clock.now());
            let (id, route) = (message.id, message.route.clone());
            let Some(lane) = queue.lanes.get(&route) else { return Ok(Republished::Closed(route)) };
            if let Some(run) = &run
                && queue.is_made_by(run, &original, &lane.route).await?
            {
                return Ok(Republished::Before(original.message.id));
            }
            if let Some(misfit) = misfit(&lane.route, &message.request).await {
                return Ok(Republished::Misfit(misfit));
            }
            let key = run.map(|run| queue.claim_in(&run, original.message.id, &message, &lane.route));
            Ok(match queue.offer(message, key).await? {
                Offered::Accepted => Republished::Accepted(id),
                Offered::Key(KeyState::Stored(before)) => Republished::Before(before),
                Offered::Key(_) => Republished::Underway,
                Offered::Saturated => Republished::Saturated,
                Offered::Closed => Republished::Closed(route),
            })
        })
        .await
    }

    /// Whether `message` is itself what this run made of another one: it may fit the run's filter as that did.
    async fn is_made_by(&self, run: &Run, message: &Stored, route: &Route) -> Result<bool, StoreError> {
        let Some(original) = message.message.origin.original else { return Ok(false) };
        let now = self.clock.now();
        let asking = Message { id: MessageId::new(now), accepted_at: now, ..message.message.clone() };
        let claim = self.claim_in(run, original, &asking, route);
        match self.store.open_key(claim.clone(), now).await? {
            KeyState::Stored(made) => Ok(made == message.message.id),
            KeyState::Fresh => self.store.close_key(claim, None).await.map(|()| false),
            KeyState::InFlight | KeyState::OtherPayload | KeyState::Answered(_) => Ok(false),
        }
    }

    /// The key under which a message is published once in a run. No request brings one like it: theirs are ASCII.
    fn claim_in(&self, run: &Run, original: MessageId, message: &Message, route: &Route) -> KeyClaim {
        KeyClaim {
            route: route.name.clone(),
            key: format!("republish\u{b7}{run}\u{b7}{original}"),
            fingerprint: Sha256::digest(original.as_bytes()).into(),
            message: message.id,
            owner: self.owner.clone(),
            opened_until: message.accepted_at.after(self.lease_length),
            keep_until: message.accepted_at.after(route.idempotency.keep),
        }
    }
}

/// A message like `original`, which comes `now`.
fn again(original: &Stored, now: Timestamp) -> Message {
    let Message { id: original_id, route, request, idempotency_key, .. } = original.message.clone();
    let id = MessageId::new(now);
    let mut request = Request::clone(&request);
    if let (Some(uid), Ok(new)) = (request.headers.get_mut(UID), HeaderValue::from_str(&id.to_string())) {
        *uid = new;
    }
    let came_in_on = original.attempts.first().and_then(|attempt| RouteName::new(&attempt.route).ok());
    Message {
        id,
        route: came_in_on.unwrap_or(route),
        request: Arc::new(request),
        idempotency_key,
        accepted_at: now,
        progress: Progress::default(),
        origin: Origin { publish: None, original: Some(original_id) },
    }
}

/// Why an event would be put aside unattempted by its route, as one that is published anew would.
async fn misfit(route: &Arc<Route>, request: &Arc<Request>) -> Option<String> {
    route.events.as_ref()?.schema.as_ref()?;
    if !request.headers.contains_key(UID) {
        return None;
    }
    let (route, request) = (Arc::clone(route), Arc::clone(request));
    // A body may be long.
    let held_against = tokio::task::spawn_blocking(move || {
        let said = route.events.as_ref()?;
        event::read(&request.headers, &request.body).ok()?.iter().find_map(|event| said.misfit(event))
    });
    held_against.await.ok().flatten()
}

impl FromStr for Run {
    type Err = BadRun;

    fn from_str(text: &str) -> Result<Self, BadRun> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_one = (1..=64).contains(&text.len()) && text.bytes().all(fits);
        if is_one { Ok(Self(text.to_owned())) } else { Err(BadRun) }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderMap, Method};

    use super::*;
    use crate::event::MESSAGE_UID;
    use crate::message::{AttemptRecord, VerdictKind};
    use crate::store::Summary;

    /// An event that came in on `first`, was led to `second` by a fallback, and ended there.
    fn ended(fields: &[(&'static str, &'static str)]) -> Stored {
        let (id, now) = (MessageId::new(Timestamp::from_millis(1000)), Timestamp::from_millis(1000));
        let (first, second) = (RouteName::new("first").unwrap(), RouteName::new("second").unwrap());
        let headers = fields.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        let request = Request {
            method: Method::POST,
            path: "/a".into(),
            headers: headers.collect::<HeaderMap>(),
            body: Bytes::from_static(b"{}"),
        };
        Stored {
            message: Message {
                id,
                route: second.clone(),
                request: Arc::new(request),
                idempotency_key: Some("the caller's".into()),
                accepted_at: now,
                progress: Progress { attempts: 3, journal: 5, ..Progress::default() },
                origin: Origin { publish: Some(id), original: None },
            },
            summary: Summary {
                id,
                route: second.to_string(),
                state: State::Dead,
                reason: String::new(),
                attempts: 5,
                method: "POST".into(),
                path: "/a".into(),
                accepted_at: now,
                due_at: None,
                ended_at: Some(now),
                order_key: None,
                turn: None,
            },
            attempts: vec![AttemptRecord::unattempted(&first, VerdictKind::FallBack, "", now)],
            blocked_by: None,
        }
    }

    #[test]
    fn it_begins_anew_where_its_original_came_in() {
        let original = ended(&[("ce-messageuid", "the old one"), ("ce-id", "7"), ("content-type", "a/b")]);
        let message = again(&original, Timestamp::from_millis(5000));
        assert!(message.id > original.message.id);
        assert_eq!(message.route.as_str(), "first");
        assert_eq!(message.progress, Progress::default());
        assert_eq!(message.origin, Origin { publish: None, original: Some(original.message.id) });
        assert_eq!(message.idempotency_key.as_deref(), Some("the caller's"));
        assert_eq!(message.request.headers[UID.as_str()], message.uid().to_string());
        assert_eq!(
            (&message.request.headers["ce-id"], &*message.request.body),
            (&HeaderValue::from_static("7"), &b"{}"[..])
        );
        assert_eq!(UID.as_str(), format!("ce-{MESSAGE_UID}"));
    }

    #[test]
    fn what_was_no_event_does_not_become_one() {
        let message = again(&ended(&[("content-type", "a/b")]), Timestamp::from_millis(5000));
        assert_eq!(message.request.headers.len(), 1);
    }

    #[test]
    fn a_run_s_name_fits_a_key() {
        for name in ["a", "2026-11-22.first_try", &"r".repeat(64)] {
            assert_eq!(name.parse::<Run>().unwrap().to_string(), name);
        }
        for name in ["", "a b", "ä", "a/b", &"r".repeat(65)] {
            assert_eq!(name.parse::<Run>(), Err(BadRun), "{name}");
        }
    }
}
