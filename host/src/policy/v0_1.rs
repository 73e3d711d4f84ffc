//! The adapter for `backstop:policy@0.1`: the contract's types on one side, the domain's on the other.
//!
//! What a guest answers is input like any other. It is checked here, field by field, and nonsense is a failure of the
//! policy's with a clear text. One adapter per version of the contract; nothing outside it sees a version's types.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Engine, Store, StoreContextMut};

use super::failure::Unusable;
use super::host::{Host, charge, one_line, path};
use super::{AttemptView, Hooks, Interest};
use crate::message::{
    Admission, Answer, Decision, Fallback, Fault, LogLevel, Message, Outcome, RouteName, Scope, Verdict,
};
use crate::transaction::Settlement;

mod bindings {
    wasmtime::component::bindgen!({
        path: "../wit",
        world: "policy",
        // Answers of destinations are lent to a guest, not copied twice.
        ownership: Borrowing { duplicate_if_necessary: true },
        include_component_type: true,
    });
}

use bindings::backstop::policy::types as wit;

/// The contract itself, as the SDK writes it into a guest.
#[cfg(test)]
pub(super) const CONTRACT: &[u8] = bindings::COMPONENT_TYPE;

/// The version of the contract that this adapter speaks.
pub(super) const VERSION: &str = "0.1.0";

/// Header fields that a policy may name, in its interest or in an answer.
const MAX_FIELDS: usize = 64;

/// Bytes kept of a reason.
const REASON: usize = 256;

/// The longest delay that is not taken for a mistake. The route's envelope then lowers it to its own limit.
const MAX_DELAY: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Fields that frame an HTTP message: the host's to set.
const FRAMING: [HeaderName; 6] = [CONNECTION, CONTENT_LENGTH, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];

/// What a policy says of itself.
pub(super) struct Manifest {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) config_schema: String,
    pub(super) hooks: Hooks,
}

/// A compiled policy, tied to the host's two functions and checked against the world: ready to be instantiated.
pub(super) struct Contract(bindings::PolicyPre<Host>);

impl Contract {
    /// Ties `component` in.
    ///
    /// # Errors
    /// When it wants an import that the world has not, or lacks an export, or either has another type.
    pub(super) fn new(engine: &Engine, component: &Component) -> wasmtime::Result<Self> {
        let mut linker = Linker::new(engine);
        wit::add_to_linker::<Host, HasSelf<Host>>(&mut linker, |host| host)?;
        linker.root().func_wrap(
            "log",
            |mut store: StoreContextMut<'_, Host>, (level, text): (wit::Level, String)| {
                charge(&mut store, text.len())?;
                let level = match level {
                    wit::Level::Debug => LogLevel::Debug,
                    wit::Level::Info => LogLevel::Info,
                    wit::Level::Warn => LogLevel::Warn,
                    wit::Level::Error => LogLevel::Error,
                };
                store.data_mut().log(level, text);
                Ok(())
            },
        )?;
        linker.root().func_wrap("attribute", |mut store: StoreContextMut<'_, Host>, (key,): (String,)| {
            let value = store.data().attribute(&key);
            charge(&mut store, key.len() + value.as_ref().map_or(0, String::len))?;
            Ok((value,))
        })?;
        bindings::PolicyPre::new(linker.instantiate_pre(component)?).map(Self)
    }

    /// Makes an instance in `store`.
    pub(super) fn instantiate(&self, store: &mut Store<Host>) -> wasmtime::Result<Instance> {
        self.0.instantiate(store).map(Instance)
    }
}

impl wit::Host for Host {}

/// An instance to be asked.
pub(super) struct Instance(bindings::Policy);

impl Instance {
    pub(super) fn describe(&self, store: &mut Store<Host>) -> Result<Manifest, Unusable> {
        let manifest = self.0.call_describe(store)?;
        let version = one_line(manifest.version, 64);
        let hooks = Hooks {
            admit: manifest.hooks.contains(wit::Hooks::ADMIT),
            judge: manifest.hooks.contains(wit::Hooks::JUDGE),
            fall_back: manifest.hooks.contains(wit::Hooks::FALL_BACK),
            settle: manifest.hooks.contains(wit::Hooks::SETTLE),
        };
        Ok(Manifest { name: one_line(manifest.name, 256), version, config_schema: manifest.config_schema, hooks })
    }

    /// Hands over the route's configuration. The inner error is the policy's own, for the operator.
    pub(super) fn configure(
        &self,
        store: &mut Store<Host>,
        config: &str,
    ) -> Result<Result<Interest, String>, Unusable> {
        match self.0.call_configure(store, config)? {
            Ok(interest) => interest_from(interest).map(Ok).map_err(Unusable::Nonsense),
            Err(text) => Ok(Err(one_line(text, 1024))),
        }
    }

    pub(super) fn admit(
        &self,
        store: &mut Store<Host>,
        message: &Message,
        interest: &Interest,
    ) -> Result<Admission, Unusable> {
        let (body, truncated) = prefix(&message.request.body, interest.request_limit, false);
        let asked = wit::Message { method: message.request.method.as_str(), path: path(message), body, truncated };
        Ok(match self.0.call_admit(store, asked)? {
            wit::Admission::Accept => Admission::Accept,
            wit::Admission::Drop(reason) => Admission::Drop(one_line(reason, REASON)),
            wit::Admission::DeadLetter(reason) => Admission::DeadLetter(one_line(reason, REASON)),
        })
    }

    pub(super) fn judge(
        &self,
        store: &mut Store<Host>,
        attempt: AttemptView,
        outcome: &Outcome,
        interest: &Interest,
    ) -> Result<Decision, Unusable> {
        let decision = lend(outcome, interest, |outcome| self.0.call_judge(store, attempt_to(attempt), outcome))?;
        let verdict = verdict_from(decision.verdict).map_err(Unusable::Nonsense)?;
        Ok(Decision { verdict, reason: one_line(decision.reason, REASON) })
    }

    pub(super) fn fall_back(
        &self,
        store: &mut Store<Host>,
        attempt: AttemptView,
        last: &Outcome,
        interest: &Interest,
    ) -> Result<Option<Fallback>, Unusable> {
        let fallback = lend(last, interest, |last| self.0.call_fall_back(store, attempt_to(attempt), last))?;
        fallback.map(fallback_from).transpose().map_err(Unusable::Nonsense)
    }

    pub(super) fn settle(
        &self,
        store: &mut Store<Host>,
        answer: &Outcome,
        interest: &Interest,
    ) -> Result<Settlement, Unusable> {
        Ok(match lend(answer, interest, |answer| self.0.call_settle(store, answer))? {
            wit::Settlement::Committed => Settlement::Committed,
            wit::Settlement::RolledBack => Settlement::RolledBack,
            wit::Settlement::Unknown => Settlement::Unknown,
        })
    }
}

fn attempt_to(attempt: AttemptView) -> wit::Attempt {
    let millis = |length: Duration| u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    wit::Attempt {
        number: attempt.number,
        of: attempt.of,
        elapsed: millis(attempt.elapsed),
        latency: millis(attempt.latency),
        now: attempt.now.as_millis(),
        reauthenticated: attempt.reauthenticated,
    }
}

/// Lends `outcome` to `ask`: of an answer, only what the policy wants to see.
fn lend<T>(outcome: &Outcome, interest: &Interest, ask: impl FnOnce(wit::Outcome<'_>) -> T) -> T {
    let response = match outcome {
        Outcome::Response(response) => response,
        Outcome::Silence(silence) => return ask(wit::Outcome::Silence(fault_to(silence.fault))),
    };
    let headers = field_lines(&response.headers, &interest.headers);
    let headers = Some(headers.as_str()).filter(|lines| !lines.is_empty());
    let (body, truncated) = prefix(&response.body, interest.body_limit, response.truncated);
    let body = Some(body).filter(|body| !body.is_empty());
    ask(wit::Outcome::Response(wit::Response { status: response.status.as_u16(), headers, body, truncated }))
}

/// The wanted fields, a line for each.
fn field_lines(headers: &HeaderMap, wanted: &[HeaderName]) -> String {
    let mut lines = String::new();
    if wanted.is_empty() {
        return lines;
    }
    for (name, value) in headers.iter().filter(|(name, _)| wanted.contains(name)) {
        lines.reserve(name.as_str().len() + value.len() + ": \n".len());
        lines.push_str(name.as_str());
        lines.push_str(": ");
        lines.push_str(&String::from_utf8_lossy(value.as_bytes()));
        lines.push('\n');
    }
    lines
}

/// The first `limit` bytes of a body, and whether there are more.
fn prefix(body: &Bytes, limit: usize, truncated: bool) -> (&[u8], bool) {
    match body.get(..limit) {
        Some(start) if start.len() < body.len() => (start, true),
        _ => (body, truncated),
    }
}

const fn fault_to(fault: Fault) -> wit::Fault {
    match fault {
        Fault::Resolve => wit::Fault::Resolve,
        Fault::Connect => wit::Fault::Connect,
        Fault::Tls => wit::Fault::Tls,
        Fault::Timeout => wit::Fault::Timeout,
        Fault::Reset => wit::Fault::Reset,
        Fault::Protocol => wit::Fault::Protocol,
        Fault::Credentials => wit::Fault::Credentials,
    }
}

fn interest_from(interest: wit::Interest) -> Result<Interest, String> {
    if interest.headers.len() > MAX_FIELDS {
        return Err(format!("it wants to see {} header fields, at most {MAX_FIELDS}", interest.headers.len()));
    }
    let headers = interest
        .headers
        .iter()
        .map(|name| HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("no header field is called {name:?}")))
        .collect::<Result<Vec<_>, _>>()?;
    // A limit longer than memory on this machine is as good as none.
    let bytes = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    Ok(Interest { headers, body_limit: bytes(interest.body_limit), request_limit: bytes(interest.request_limit) })
}

fn verdict_from(verdict: wit::Verdict) -> Result<Verdict, String> {
    Ok(match verdict {
        wit::Verdict::Accept => Verdict::Accept,
        wit::Verdict::Retry(retry) => {
            let after = retry.after.map(Duration::from_millis);
            if let Some(after) = after.filter(|after| *after > MAX_DELAY) {
                return Err(format!("it wants to retry after {} days; delays are in milliseconds", days(after)));
            }
            let scope = match retry.scope {
                wit::Scope::Standard => Scope::Standard,
                wit::Scope::Message => Scope::Message,
                wit::Scope::Destination => Scope::Destination,
            };
            Verdict::Retry { after, scope }
        }
        wit::Verdict::Reauthenticate => Verdict::Reauthenticate,
        wit::Verdict::DeadLetter => Verdict::DeadLetter,
        wit::Verdict::Drop => Verdict::Drop,
        wit::Verdict::FallBack(fallback) => Verdict::FallBack(fallback.map(fallback_from).transpose()?),
    })
}

const fn days(length: Duration) -> u64 {
    length.as_secs() / (24 * 60 * 60)
}

fn fallback_from(fallback: wit::Fallback) -> Result<Fallback, String> {
    match fallback {
        wit::Fallback::Answer(answer) => answer_from(answer).map(Fallback::Answer),
        wit::Fallback::Route(name) => {
            RouteName::new(&name).map(Fallback::Route).map_err(|_| format!("no route can be called {name:?}"))
        }
    }
}

fn answer_from(answer: wit::Answer) -> Result<Answer, String> {
    let status = Some(answer.status)
        .filter(|status| (200..=599).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| format!("the fallback's status is {}, not 200 to 599", answer.status))?;
    if answer.headers.len() > MAX_FIELDS {
        return Err(format!("the fallback has {} header fields, at most {MAX_FIELDS}", answer.headers.len()));
    }
    let mut headers = HeaderMap::with_capacity(answer.headers.len());
    for (name, value) in &answer.headers {
        let field = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("the fallback has a header field called {name:?}"))?;
        if FRAMING.contains(&field) {
            return Err(format!("the fallback sets `{field}`, which is the host's to set"));
        }
        let value = HeaderValue::from_str(value)
            .map_err(|_| format!("the fallback's `{field}` has a character that no header field may have"))?;
        headers.append(field, value);
    }
    Ok(Answer { status, headers, body: Bytes::from(answer.body) })
}

#[cfg(test)]
mod tests;
