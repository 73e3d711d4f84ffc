//! How attempts identify themselves: fixed fields, and OAuth2 tokens that are fetched once for all who ask.
//!
//! It holds tokens in memory only, and never says one: a token endpoint's failure is told by its status and its error
//! code.

mod account;
mod token;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::FutureExt;
use http::{HeaderName, HeaderValue, header};
use tokio_util::task::TaskTracker;

use self::account::{Account, Token};
use self::token::TokenEndpoint;
use super::CredentialId;
use super::clients::Clients;
use super::fault::silence;
use crate::clock::Clock;
use crate::config::{Auth, Destination};
use crate::message::{Fault, Silence};

/// Accounts whose tokens are held at once. If a configuration ever has more, all tokens are let go and fetched anew as
/// they are needed.
const MAX_ACCOUNTS: usize = 1024;

/// A header field that identifies an attempt.
#[derive(Clone, Debug)]
pub(super) struct Field {
    /// Its name.
    pub(super) name: HeaderName,
    /// Its value, marked sensitive.
    pub(super) value: HeaderValue,
}

/// The credentials of all destinations. Destinations with the same account share its token.
pub(super) struct Credentials {
    clients: Arc<Clients>,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    /// By a digest of what tells them apart, so that no secret is kept twice.
    accounts: Mutex<HashMap<[u8; 32], Arc<Account>>>,
    /// Generations are counted over all accounts, so that one is never mistaken for another's.
    generation: Arc<AtomicU64>,
}

impl Credentials {
    pub(super) fn new(clients: Arc<Clients>, clock: Arc<dyn Clock>, tasks: TaskTracker) -> Self {
        Self { clients, clock, tasks, accounts: Mutex::default(), generation: Arc::default() }
    }

    /// The field an attempt at `destination` carries, if any, and which credentials it is.
    ///
    /// However many ask at once, a token is fetched once.
    ///
    /// # Errors
    /// When a token cannot be obtained, or could not a moment ago.
    pub(super) async fn field(&self, destination: &Destination) -> Result<(Option<Field>, CredentialId), Silence> {
        let fixed = |name: &HeaderName, mut value: HeaderValue| {
            value.set_sensitive(true);
            Ok((Some(Field { name: name.clone(), value }), CredentialId::default()))
        };
        match &destination.auth {
            None => Ok((None, CredentialId::default())),
            Some(Auth::Header { name, value }) => fixed(name, value.clone()),
            Some(Auth::Basic { username, password }) => match basic(username, password.expose()) {
                Some(value) => fixed(&header::AUTHORIZATION, value),
                None => Err(silence(Fault::Credentials, "the user name and password cannot be written in a field")),
            },
            Some(Auth::ClientCredentials { .. }) => match TokenEndpoint::of(destination) {
                Some(endpoint) => {
                    let token = self.token(endpoint).await?;
                    Ok((Some(Field { name: header::AUTHORIZATION, value: token.value }), token.id))
                }
                None => Ok((None, CredentialId::default())),
            },
        }
    }

    /// Forgets the token `used` of `destination`, unless a newer one has replaced it.
    pub(super) fn expire(&self, destination: &Destination, used: CredentialId) {
        let Some(endpoint) = TokenEndpoint::of(destination) else { return };
        if let Some(account) = self.accounts().get(&endpoint.digest()) {
            account.state().expire(used);
        }
    }

    async fn token(&self, endpoint: TokenEndpoint) -> Result<Token, Silence> {
        let account = self.account(endpoint.digest());
        let fetch = {
            let mut state = account.state();
            if let Some(answer) = state.answer(self.clock.now()) {
                return answer;
            }
            match &state.fetching {
                Some(fetch) => fetch.clone(),
                None => {
                    // A task of its own: whoever gives up waiting leaves the token to be there for the next.
                    let task = self.tasks.spawn(self.fetch(endpoint, Arc::clone(&account)));
                    let fetch = async { task.await.unwrap_or_else(|_| Err(interrupted())) }.boxed().shared();
                    state.fetching = Some(fetch.clone());
                    fetch
                }
            }
        };
        fetch.await
    }

    /// Fetches a token and leaves it, or the failure, with the account.
    fn fetch(
        &self,
        endpoint: TokenEndpoint,
        account: Arc<Account>,
    ) -> impl Future<Output = Result<Token, Silence>> + Send + use<> {
        let (clients, clock) = (Arc::clone(&self.clients), Arc::clone(&self.clock));
        let generation = Arc::clone(&self.generation);
        async move {
            let fetched = token::fetch(&clients, &endpoint, clock.now()).await;
            let now = clock.now();
            let mut state = account.state();
            state.fetching = None;
            match fetched {
                Ok(fetched) => {
                    let id = CredentialId(generation.fetch_add(1, Ordering::Relaxed).saturating_add(1));
                    Ok(state.fetched(fetched, id, now))
                }
                Err(refusal) => state.failed(refusal, now),
            }
        }
    }

    fn account(&self, key: [u8; 32]) -> Arc<Account> {
        let mut accounts = self.accounts();
        if accounts.len() >= MAX_ACCOUNTS && !accounts.contains_key(&key) {
            accounts.clear();
        }
        Arc::clone(accounts.entry(key).or_default())
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<[u8; 32], Arc<Account>>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// The task of a fetch was ended by the runtime's own end.
fn interrupted() -> Silence {
    silence(Fault::Credentials, "the fetch of a token was interrupted")
}

/// RFC 7617, in UTF-8.
fn basic(username: &str, password: &str) -> Option<HeaderValue> {
    let encoded = BASE64_STANDARD.encode(format!("{username}:{password}"));
    let mut value = HeaderValue::try_from(format!("Basic {encoded}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}
