//! An account at a token endpoint: the token it holds, the fetch under way, the last failure.
//!
//! Pure apart from its lock: it is told the time, and neither fetches nor waits.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::{BoxFuture, Shared};
use http::HeaderValue;

use super::super::CredentialId;
use super::token::{Fetched, Refusal};
use crate::backoff::{Backoff, Growth, Jitter};
use crate::clock::{Chance, Timestamp};
use crate::message::Silence;

/// A token is renewed this long before it expires, or a tenth of its life before if that is less.
const RENEW_BEFORE: Duration = Duration::from_secs(30);

/// After a failed fetch the endpoint is left alone this long …
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// … and twice as long after each further one, up to this. A `Retry-After` of the endpoint's is heeded up to this too.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A token in use.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// `Bearer …`, marked sensitive.
    pub(super) value: HeaderValue,
    /// Its generation.
    pub(super) id: CredentialId,
    renew_at: Timestamp,
    expires_at: Timestamp,
}

/// A fetch that all who need its token wait for.
pub(super) type Fetch = Shared<BoxFuture<'static, Result<Token, Silence>>>;

/// An account, shared by all who use it.
#[derive(Default)]
pub(super) struct Account(Mutex<State>);

impl Account {
    /// Its state. The lock is never held across an `await`.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known of an account.
#[derive(Default)]
pub(super) struct State {
    token: Option<Token>,
    failure: Option<Failure>,
    /// The fetch under way, if there is one.
    pub(super) fetching: Option<Fetch>,
}

/// Failed fetches in a row.
struct Failure {
    count: u32,
    /// Until when the endpoint is left alone.
    until: Timestamp,
    silence: Silence,
}

impl State {
    /// What can be said without asking the endpoint; none when it must be asked, or is being asked.
    pub(super) fn answer(&self, now: Timestamp) -> Option<Result<Token, Silence>> {
        if let Some(token) = self.token.as_ref().filter(|token| now < token.renew_at) {
            return Some(Ok(token.clone()));
        }
        let failure = self.failure.as_ref().filter(|failure| self.fetching.is_none() && now < failure.until)?;
        Some(self.unexpired(now).ok_or_else(|| {
            let mut silence = failure.silence.clone();
            silence.detail.push_str(&format!(" (not asked again for {:?})", failure.until.since(now)));
            silence
        }))
    }

    /// The fetch brought a token.
    pub(super) fn fetched(&mut self, fetched: Fetched, id: CredentialId, now: Timestamp) -> Token {
        let Fetched { value, lifetime } = fetched;
        let token = Token {
            value,
            id,
            renew_at: now.after(lifetime.saturating_sub(RENEW_BEFORE.min(lifetime / 10))),
            expires_at: now.after(lifetime),
        };
        self.failure = None;
        self.token = Some(token.clone());
        token
    }

    /// The fetch failed: the endpoint is left alone for a while. A token that was to be renewed but is still good goes
    /// on being used.
    pub(super) fn failed(&mut self, refusal: Refusal, now: Timestamp) -> Result<Token, Silence> {
        let earlier = self.failure.as_ref().map_or(0, |failure| failure.count);
        let backoff = Backoff { growth: Growth::Exponential { factor: 2.0 }, jitter: Jitter::None };
        let pause = backoff
            .delay(earlier, FIRST_PAUSE, LONGEST_PAUSE, None, Chance::new(0.0))
            .max(refusal.retry_after.min(LONGEST_PAUSE));
        let count = earlier.saturating_add(1);
        self.failure = Some(Failure { count, until: now.after(pause), silence: refusal.silence.clone() });
        self.unexpired(now).ok_or(refusal.silence)
    }

    /// Forgets the token `used`; a newer one stays.
    pub(super) fn expire(&mut self, used: CredentialId) {
        self.token.take_if(|token| token.id == used);
    }

    fn unexpired(&self, now: Timestamp) -> Option<Token> {
        self.token.clone().filter(|token| now < token.expires_at)
    }
}
