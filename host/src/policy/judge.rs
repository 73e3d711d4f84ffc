//! The judge of one route: a policy bound to the route's configuration, or the standard rule where there is none.
//!
//! It always answers. What a broken policy would have said is then said by the route's `on_policy_failure`, and the
//! answer's provenance says why.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::failure::{Failure, Unusable};
use super::guest::{Guest, Reply};
use super::health::Health;
use super::host::Host;
use super::load::Policy;
use super::sandbox::Sandbox;
use super::settling::standard_settlement;
use super::standard::standard_rule;
use super::v0_1::Instance;
use super::{Asked, AttemptView, Interest};
use crate::clock::Timestamp;
use crate::config::{Isolation, OnPolicyFailure, PolicyBinding, PolicyLimits};
use crate::message::{
    Admission, Decision, Fallback, Fault, Message, Outcome, PolicyRef, Provenance, Response, Scope, Silence, Verdict,
};
use crate::transaction::Settlement;

/// What a question may take, lately and on average, before questions of its policy take turns.
const SLOW: Duration = Duration::from_millis(1);

/// Asks on behalf of one route. Questions are answered on the calling thread: a decision takes a microsecond, and at
/// most the time the route allows its policy. Where a policy was seen to take long, or may take longer than the default,
/// the other tasks of a multi-threaded runtime are moved off the thread first; and those seen to take long wait for their
/// [`turn`](Judge::turn), so that no route but their own pays for it.
pub struct Judge {
    interest: Interest,
    bench: Option<Arc<Bench>>,
}

impl std::fmt::Debug for Judge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Judge").field("policy", &self.policy()).finish_non_exhaustive()
    }
}

/// A policy under one route's configuration, and the instances that wait to be asked.
struct Bench {
    sandbox: Arc<Sandbox>,
    policy: Arc<Policy>,
    /// Which policy that is, as every decision's record says.
    reference: Arc<PolicyRef>,
    /// Whether it can ask about the message; one that cannot is not given it.
    reads_attributes: bool,
    binding: PolicyBinding,
    /// The configuration as the text that instances are given.
    config: String,
    idle: Mutex<Vec<Guest>>,
    most_idle: usize,
    health: Health,
    /// Whether a question may take longer than an async thread can be kept.
    may_be_slow: bool,
    /// What questions took lately, in nanoseconds: a moving average over some eight of them.
    lately: AtomicU64,
    /// One at a time, before it stands in line with other routes' policies.
    turns: Semaphore,
}

/// The right to ask a policy that takes long; given back when dropped.
#[derive(Debug)]
pub struct Turn<'j> {
    _on_the_route: SemaphorePermit<'j>,
    _on_the_host: SemaphorePermit<'j>,
}

impl Judge {
    /// The judge of a route without a policy: the standard rule, which looks at nothing but the status.
    pub fn standard() -> Self {
        Self { interest: Interest::default(), bench: None }
    }

    /// Binds `policy` to a route's configuration, once it has shown that it accepts it and answers. The caller has held
    /// the configuration against the policy's schema.
    ///
    /// # Errors
    /// Why the policy cannot serve under this configuration; without its own words where the configuration holds
    /// values that must not be shown.
    pub(super) fn bind(sandbox: &Arc<Sandbox>, policy: &Arc<Policy>, binding: &PolicyBinding) -> Result<Self, Failure> {
        let config = binding.config.to_string();
        let (guest, interest) =
            rehearsed(sandbox, policy, binding, &config).map_err(|failure| sayable(failure, binding))?;
        // One question runs on each core; some more instances bridge the moments in which threads outnumber cores.
        let most_idle = 2 * std::thread::available_parallelism().map_or(1, usize::from);
        let bench = Bench {
            sandbox: Arc::clone(sandbox),
            policy: Arc::clone(policy),
            reference: Arc::new(policy.reference.clone()),
            reads_attributes: policy.reads_attributes(),
            binding: binding.clone(),
            config,
            idle: Mutex::new(Vec::new()),
            most_idle,
            health: Health::default(),
            may_be_slow: may_be_slow(&binding.limits),
            // Until it has shown otherwise.
            lately: AtomicU64::new(if may_be_slow(&binding.limits) { 2 * nanoseconds(SLOW) } else { 0 }),
            turns: Semaphore::new(1),
        };
        bench.keep(guest);
        Ok(Self { interest, bench: Some(Arc::new(bench)) })
    }

    /// What is passed to it. The transport need read no more of an answer than this, for the policy's sake.
    pub const fn interest(&self) -> &Interest {
        &self.interest
    }

    /// Which policy it asks; none for the standard rule.
    pub fn policy(&self) -> Option<&PolicyRef> {
        self.bench.as_ref().map(|bench| &*bench.reference)
    }

    /// Why its policy was set aside, if it was: it is not asked any more.
    pub(super) fn quarantined(&self) -> Option<&str> {
        self.bench.as_ref().and_then(|bench| bench.health.set_aside())
    }

    /// Whether its policy answered in service, the last time it was asked.
    pub(super) fn proved_itself(&self) -> bool {
        self.bench.as_ref().is_some_and(|bench| bench.health.proved_itself())
    }

    /// Waits until the policy may be asked, where it was seen to take long: such questions are asked one by one on each
    /// route, and leave a core to everything else. Hold what this returns while asking. None for a policy that is quick.
    pub async fn turn(&self) -> Option<Turn<'_>> {
        let bench = self.bench.as_ref().filter(|bench| bench.is_slow())?;
        // Neither semaphore is ever closed.
        let on_the_route = bench.turns.acquire().await.ok()?;
        let on_the_host = bench.sandbox.turns().acquire().await.ok()?;
        Some(Turn { _on_the_route: on_the_route, _on_the_host: on_the_host })
    }

    /// Should `message` be sent at all? A policy that fails here lets it pass, unless the route puts such messages aside.
    pub fn admit(&self, message: &Message) -> Asked<Admission> {
        let Some(bench) = self.bench.as_ref().filter(|bench| bench.policy.hooks.admit) else {
            return unasked(Admission::Accept);
        };
        let reply = bench.ask(message, |instance, store| instance.admit(store, message, &self.interest));
        bench.settle(reply, |failure| match bench.binding.on_failure {
            OnPolicyFailure::Standard | OnPolicyFailure::Retry => Admission::Accept,
            OnPolicyFailure::DeadLetter => Admission::DeadLetter(reason(failure)),
        })
    }

    /// What does the `outcome` of `attempt` mean?
    pub fn judge(&self, message: &Message, attempt: AttemptView, outcome: &Outcome) -> Asked<Decision> {
        let Some(bench) = self.bench.as_ref().filter(|bench| bench.policy.hooks.judge) else {
            return unasked(standard_rule(outcome));
        };
        let reply = bench.ask(message, |instance, store| instance.judge(store, attempt, outcome, &self.interest));
        bench.settle(reply, |failure| match bench.binding.on_failure {
            OnPolicyFailure::Standard => standard_rule(outcome),
            OnPolicyFailure::Retry => {
                Decision { verdict: Verdict::Retry { after: None, scope: Scope::Standard }, reason: reason(failure) }
            }
            OnPolicyFailure::DeadLetter => Decision { verdict: Verdict::DeadLetter, reason: reason(failure) },
        })
    }

    /// What to answer in the destination's stead, now that no further attempt is allowed? `None` leaves it to the
    /// route's own fallback, as does a policy that fails here.
    pub fn fall_back(&self, message: &Message, attempt: AttemptView, last: &Outcome) -> Asked<Option<Fallback>> {
        let Some(bench) = self.bench.as_ref().filter(|bench| bench.policy.hooks.fall_back) else {
            return unasked(None);
        };
        let reply = bench.ask(message, |instance, store| instance.fall_back(store, attempt, last, &self.interest));
        bench.settle(reply, |_| None)
    }

    /// What does this answer of a sender say of the operation behind its half message? No answer says nothing, whatever
    /// the policy would make of it; neither does a policy that fails here: nothing is delivered unconfirmed.
    pub fn settle(&self, message: &Message, answer: &Outcome) -> Asked<Settlement> {
        let Outcome::Response(response) = answer else { return unasked(Settlement::Unknown) };
        let Some(bench) = self.bench.as_ref().filter(|bench| bench.policy.hooks.settle) else {
            return unasked(standard_settlement(response));
        };
        let reply = bench.ask(message, |instance, store| instance.settle(store, answer, &self.interest));
        bench.settle(reply, |_| Settlement::Unknown)
    }
}

impl Bench {
    /// Puts a question to an instance, off the async threads if it may take long.
    fn ask<T>(
        self: &Arc<Self>,
        message: &Message,
        question: impl FnOnce(&Instance, &mut wasmtime::Store<Host>) -> Result<T, Unusable>,
    ) -> Reply<T> {
        if let Some(why) = self.health.set_aside() {
            let failures = self.binding.limits.failures;
            return Reply::without_asking(Failure::Quarantined { failures, why: why.to_owned() });
        }
        if (self.may_be_slow || self.is_slow()) && on_many_threads() {
            tokio::task::block_in_place(|| self.ask_here(message, question))
        } else {
            self.ask_here(message, question)
        }
    }

    fn is_slow(&self) -> bool {
        self.health.set_aside().is_none() && self.lately.load(Ordering::Relaxed) > nanoseconds(SLOW)
    }

    /// Notes what a question took. Two at once may lose one of their notes.
    fn note(&self, took: Duration) {
        let lately = self.lately.load(Ordering::Relaxed);
        self.lately.store(lately - lately / 8 + nanoseconds(took) / 8, Ordering::Relaxed);
    }

    /// Puts a question to an instance, and keeps the instance for the next one if it did well.
    fn ask_here<T>(
        self: &Arc<Self>,
        message: &Message,
        question: impl FnOnce(&Instance, &mut wasmtime::Store<Host>) -> Result<T, Unusable>,
    ) -> Reply<T> {
        let limits = &self.binding.limits;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut guest = match idle {
            Some(guest) => guest,
            None => match Guest::configured(&self.sandbox, &self.policy.contract, limits, &self.config) {
                Ok((guest, _)) => guest,
                Err(failure) => {
                    return Reply::without_asking(sayable(failure, &self.binding));
                }
            },
        };
        let about = self.reads_attributes.then_some(message);
        let reply = guest.ask(limits, about, question);
        self.note(reply.took);
        if reply.result.is_ok() {
            self.keep(guest);
        } else {
            drop(guest);
            self.refill();
        }
        reply
    }

    /// Has an instance made ready in the place of one that was thrown away, so that no question waits for it.
    fn refill(self: &Arc<Self>) {
        if self.binding.isolation == Isolation::Fresh {
            return;
        }
        let bench = Arc::downgrade(self);
        self.sandbox.aside(move || {
            // A policy that was replaced or set aside meanwhile is not asked again.
            let Some(bench) = bench.upgrade().filter(|bench| bench.health.set_aside().is_none()) else { return };
            let made = Guest::configured(&bench.sandbox, &bench.policy.contract, &bench.binding.limits, &bench.config);
            if let Ok((guest, _)) = made {
                bench.keep(guest);
            }
        });
    }

    fn keep(&self, guest: Guest) {
        if self.binding.isolation == Isolation::Fresh || !self.sandbox.has_room_to_idle() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.most_idle {
            idle.push(guest);
        }
    }

    /// Makes a reply an answer, with `instead` where there is none.
    fn settle<T>(&self, reply: Reply<T>, instead: impl FnOnce(&Failure) -> T) -> Asked<T> {
        let (answer, failure) = match reply.result {
            Ok(answer) => {
                self.health.did_well();
                (answer, None)
            }
            Err(failure) => {
                let failure = sayable(failure, &self.binding);
                if self.health.failed(&failure, self.binding.limits.failures) {
                    self.sandbox.attention().notify_one();
                }
                (instead(&failure), Some(failure.to_string()))
            }
        };
        let provenance = Provenance {
            policy: Some(Arc::clone(&self.reference)),
            fuel: reply.fuel,
            took_ns: u64::try_from(reply.took.as_nanos()).unwrap_or(u64::MAX),
            log: reply.log,
            failure,
        };
        Asked { answer, provenance }
    }
}

/// An instance that accepted the binding's configuration and can judge, and what it wants to see.
fn rehearsed(
    sandbox: &Arc<Sandbox>,
    policy: &Policy,
    binding: &PolicyBinding,
    config: &str,
) -> Result<(Guest, Interest), Failure> {
    let (mut guest, interest) = Guest::configured(sandbox, &policy.contract, &binding.limits, config)?;
    if policy.hooks.judge {
        for outcome in rehearsal() {
            let asked = guest.ask(&binding.limits, None, |instance, store| {
                instance.judge(store, AttemptView::first(), &outcome, &interest)
            });
            asked.result?;
        }
    }
    Ok((guest, interest))
}

/// As much of a failure under the binding's configuration as may be shown: it goes to the terminal, the log, the
/// admin API and the attempts' records, and the policy may have quoted what it was given.
fn sayable(failure: Failure, binding: &PolicyBinding) -> Failure {
    if binding.holds_secret { failure.without_words() } else { failure }
}

fn nanoseconds(length: Duration) -> u64 {
    // Half of what there is, so that sums of them stay within it.
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX).min(u64::MAX / 2)
}

/// Whether a route allows its policy more than what no other route notices.
fn may_be_slow(limits: &PolicyLimits) -> bool {
    let default = PolicyLimits::default();
    limits.fuel > default.fuel || limits.time > default.time
}

/// Whether this thread is one of several of a runtime's, so that another one can take its tasks over.
fn on_many_threads() -> bool {
    Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}

/// An answer of the host's own: no policy was asked.
fn unasked<T>(answer: T) -> Asked<T> {
    Asked { answer, provenance: Provenance::default() }
}

/// The reason recorded where the route's `on_policy_failure` decided.
fn reason(failure: &Failure) -> String {
    let mut text = format!("policy failed: {failure}");
    super::host::truncate(&mut text, 256);
    text
}

/// Outcomes that a policy must be able to judge before it serves: the plainest answer, and none.
fn rehearsal() -> [Outcome; 2] {
    [
        Outcome::Response(Response {
            status: StatusCode::SERVICE_UNAVAILABLE,
            headers: HeaderMap::new(),
            body: bytes::Bytes::new(),
            truncated: false,
        }),
        Outcome::Silence(Silence { fault: Fault::Timeout, detail: String::new() }),
    ]
}

impl AttemptView {
    /// A first attempt, as a policy is shown it for rehearsal.
    const fn first() -> Self {
        Self {
            number: 1,
            of: 1,
            elapsed: Duration::ZERO,
            latency: Duration::ZERO,
            now: Timestamp::from_millis(0),
            reauthenticated: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, SystemClock};
    use crate::policy::tests::{answered, attempt, binding, guest, message};

    #[tokio::test]
    async fn a_policy_that_takes_long_is_asked_in_turns_and_a_quick_one_at_once() {
        use futures_util::FutureExt as _;

        let sandbox = Arc::new(Sandbox::new(None).expect("a sandbox"));
        let looping = guest("(loop (br 0))");
        let bind = |binding: &PolicyBinding| {
            let policy = Arc::new(Policy::from_bytes(&sandbox, &looping).expect("it loads"));
            Judge::bind(&sandbox, &policy, binding).expect("it serves")
        };
        let (slow, quick) = (bind(&binding()), bind(&binding()));
        assert!(slow.turn().await.is_none(), "it has not been slow yet");
        // Ten million instructions take some milliseconds, each time.
        for _ in 0..3 {
            assert!(slow.judge(&message(), attempt(2), &answered(503)).provenance.failure.is_some());
        }
        let turn = slow.turn().await;
        assert!(turn.is_some() && slow.turn().now_or_never().is_none(), "the next one waits");
        assert!(quick.turn().now_or_never().is_some_and(|turn| turn.is_none()), "another route does not");
        drop(turn);
        assert!(slow.turn().now_or_never().is_some());
    }

    #[tokio::test]
    async fn an_instance_that_was_thrown_away_is_replaced_before_the_next_question() {
        let sandbox = Arc::new(Sandbox::new(None).expect("a sandbox"));
        let policy = Arc::new(Policy::from_bytes(&sandbox, &guest("unreachable")).expect("it loads"));
        let judge = Judge::bind(&sandbox, &policy, &binding()).expect("it serves");
        let idle = || judge.bench.as_ref().map_or(0, |bench| bench.idle.lock().expect("no panic").len());
        assert_eq!(idle(), 1, "the rehearsed one");
        assert!(judge.judge(&message(), attempt(2), &answered(503)).provenance.failure.is_some());
        let replaced = async {
            while idle() != 1 {
                SystemClock.sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), replaced).await.expect("another one is made ready");
    }
}
