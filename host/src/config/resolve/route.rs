//! One route: its mode, its envelope, its policy, its alarm.

use std::time::Duration;

use super::{DAY, MILLISECOND, Resolver, SECOND, WAIT};
use crate::backoff::{Backoff, Growth, Jitter};
use crate::config::defaults;
use crate::config::problem::Place;
use crate::config::raw::{
    RawAlarm, RawBackoff, RawIsolation, RawJitter, RawMode, RawOnPolicyFailure, RawPolicyLimits, RawProfile, RawRetry,
    RawRoute,
};
use crate::config::reader::Field;
use crate::config::resolved::{
    Alarm, Auth, Idempotency, Isolation, Mode, OnPolicyFailure, PolicyBinding, PolicyLimits, Route,
};
use crate::config::units::{Count, Factor, Share, Times, Written, show_duration};
use crate::message::{Envelope, RouteName};
use crate::policy;

/// A body is held in memory and written to the store as a whole: 256 MiB.
pub(super) const MAX_BODY: u64 = 256 << 20;

/// A hundred years: for ever, as far as a message is concerned.
pub(super) const LONGEST_ELAPSED: Duration = DAY.saturating_mul(36_500);

/// The most memory that the sandbox has for a policy.
const MAX_POLICY_MEMORY: u64 = policy::MAX_MEMORY as u64;

impl Resolver<'_> {
    /// Resolves a route. `None` when it cannot be; why was reported.
    pub(super) fn route(&self, place: &Place<'_>, name: &RouteName, raw: RawRoute) -> Option<Route> {
        let retry_place = place.key("retry");
        let mut retry = raw.retry.given().unwrap_or_default();
        let retry_budget = self.retry_budget(&retry_place.key("budget"), std::mem::take(&mut retry.budget));
        let mut envelope = match std::mem::take(&mut retry.profile).given() {
            Some(RawProfile::EventPipeline) => self.event_pipeline(&retry_place, retry),
            None => self.envelope(&retry_place, retry),
        };
        let mode = self.mode(place, &raw.mode, raw.deadline, raw.sync_attempts, envelope.max_attempts);
        let policy =
            self.policy(place, raw.policy, raw.policy_config, raw.policy_limits, raw.isolation, raw.on_policy_failure);
        let fallback = raw.fallback.given().and_then(|fallback| self.fallback(&place.key("fallback"), fallback));
        let alarm = raw.alarm.given().and_then(|alarm| self.alarm(&place.key("alarm"), alarm));
        let keep_dead = raw.dead_letter.given().unwrap_or_default().keep;
        let keep_dead =
            self.duration(&place.key("dead_letter").key("keep"), keep_dead, SECOND..=DAY * 3650, defaults::KEEP_DEAD);
        let concurrency = self.count(&place.key("concurrency"), raw.concurrency, 1..=10_000, defaults::CONCURRENCY);
        let rate = self.rate(&place.key("rate"), raw.rate);
        let breaker = self.breaker(&place.key("breaker"), raw.breaker);
        let order = self.order(&place.key("order_by"), raw.order_by, mode);
        let check_back = self.check_back(&place.key("check_back"), raw.check_back, mode);
        let max_queued = self.count(&place.key("max_queued"), raw.max_queued, 1..=10_000_000, defaults::MAX_QUEUED);
        let body_limit = self.size(&place.key("body_limit"), raw.body_limit, 0..=MAX_BODY, defaults::BODY_LIMIT);
        let idempotency_place = place.key("idempotency");
        let idempotency = raw.idempotency.given().unwrap_or_default();
        let idempotency = Idempotency {
            required: idempotency.required.given().unwrap_or(false),
            keep: self.duration(
                &idempotency_place.key("keep"),
                idempotency.keep,
                SECOND..=DAY * 365,
                defaults::KEEP_IDEMPOTENCY,
            ),
        };
        let events = self.events(place, raw.matches, raw.schema, raw.dedupe, mode);
        // Last, because it may be missing, and the rest is to be checked all the same.
        let destination = self.destination(&place.key("destination"), raw.destination)?;
        envelope.renewable_credentials = matches!(destination.auth, Some(Auth::ClientCredentials { .. }));
        Some(Route {
            name: name.clone(),
            enabled: raw.enabled.given().unwrap_or(true),
            destination,
            mode,
            policy,
            envelope,
            fallback,
            alarm,
            keep_dead,
            concurrency,
            rate,
            breaker,
            retry_budget,
            order,
            check_back,
            max_queued,
            body_limit,
            idempotency,
            events,
        })
    }

    fn mode(
        &self,
        place: &Place<'_>,
        mode: &Field<RawMode>,
        deadline: Field<Written<Duration>>,
        attempts: Field<Count>,
        max_attempts: u32,
    ) -> Mode {
        let (deadline_place, attempts_place) = (place.key("deadline"), place.key("sync_attempts"));
        let chosen = mode.as_given().copied().unwrap_or(RawMode::Async);
        // A mode that was misspelt says nothing about what belongs to it.
        let is_known = !matches!(mode, Field::Broken);
        if is_known && chosen == RawMode::Async && deadline.is_present() {
            let message = "nobody waits in mode async: remove it, or write `mode: sync` or `mode: sync_then_async`; \
                           `retry.max_elapsed` bounds the attempts";
            self.complain(&deadline_place, message);
        }
        if is_known && chosen != RawMode::SyncThenAsync && attempts.is_present() {
            self.complain(&attempts_place, "only for `mode: sync_then_async`: remove it, or change the mode");
        }
        let deadline = self.duration(&deadline_place, deadline, WAIT, defaults::DEADLINE);
        let most = u64::from(max_attempts);
        match chosen {
            RawMode::Sync => Mode::Sync { deadline },
            RawMode::Async => Mode::Async,
            RawMode::SyncThenAsync => Mode::SyncThenAsync {
                deadline,
                attempts: self.count(&attempts_place, attempts, 1..=most, defaults::SYNC_ATTEMPTS),
            },
        }
    }

    fn envelope(&self, place: &Place<'_>, raw: RawRetry) -> Envelope {
        let attempts_place = place.key("max_attempts");
        let (max_attempts, max_elapsed) = match raw.max_attempts {
            Field::Given(Times::Of(0)) => {
                self.complain_of(&attempts_place, "1 means one delivery and no retry: write 1 or more");
                (defaults::MAX_ATTEMPTS, defaults::MAX_ELAPSED)
            }
            Field::Given(Times::Of(count)) => {
                let count = Field::Given(Count(count));
                let range = 1..=u64::from(u32::MAX);
                (self.count(&attempts_place, count, range, defaults::MAX_ATTEMPTS), defaults::MAX_ELAPSED)
            }
            Field::Given(Times::Unlimited) => (u32::MAX, LONGEST_ELAPSED),
            Field::Absent | Field::Broken => (defaults::MAX_ATTEMPTS, defaults::MAX_ELAPSED),
        };
        let (min_place, max_place) = (place.key("min_delay"), place.key("max_delay"));
        let both_right = !matches!(raw.min_delay, Field::Broken) && !matches!(raw.max_delay, Field::Broken);
        let (min_given, max_given) = (raw.min_delay.is_present(), raw.max_delay.is_present());
        let min_delay = self.duration(&min_place, raw.min_delay, WAIT, defaults::MIN_DELAY);
        let max_delay = self.duration(&max_place, raw.max_delay, WAIT, defaults::MAX_DELAY);
        if both_right && min_delay > max_delay {
            match (min_given, max_given) {
                (true, false) => {
                    let default = show_duration(max_delay);
                    let message = format!("longer than max_delay, which is {default} by default: write max_delay, too");
                    self.complain_of(&min_place, message);
                }
                (false, true) => {
                    let default = show_duration(min_delay);
                    let message =
                        format!("shorter than min_delay, which is {default} by default: write min_delay, too");
                    self.complain_of(&max_place, message);
                }
                _ => self.complain_of(&min_place, "longer than max_delay: write a shorter one, or a longer max_delay"),
            }
        }
        Envelope {
            max_attempts,
            max_elapsed: self.duration(
                &place.key("max_elapsed"),
                raw.max_elapsed,
                MILLISECOND..=LONGEST_ELAPSED,
                max_elapsed,
            ),
            min_delay,
            max_delay,
            backoff: self.backoff(place, &raw.backoff, raw.factor, raw.jitter),
            retry_after_max: self.duration(
                &place.key("retry_after_max"),
                raw.retry_after_max,
                WAIT,
                defaults::RETRY_AFTER_MAX,
            ),
            renewable_credentials: false,
        }
    }

    fn backoff(
        &self,
        place: &Place<'_>,
        growth: &Field<RawBackoff>,
        factor: Field<Factor>,
        jitter: Field<RawJitter>,
    ) -> Backoff {
        let factor_place = place.key("factor");
        let is_constant = matches!(growth, Field::Given(RawBackoff::Constant));
        if is_constant && factor.is_present() {
            self.complain(&factor_place, "only for `backoff: exponential`: remove it");
        }
        let factor = match factor.given() {
            Some(Factor(factor)) if (1.0..=100.0).contains(&factor) => factor,
            Some(_) => {
                self.complain_of(&factor_place, "write a number from 1 to 100");
                defaults::FACTOR
            }
            None => defaults::FACTOR,
        };
        Backoff {
            growth: if is_constant { Growth::Constant } else { Growth::Exponential { factor } },
            jitter: match jitter.given() {
                Some(RawJitter::None) => Jitter::None,
                Some(RawJitter::Full) | None => Jitter::Full,
                Some(RawJitter::Equal) => Jitter::Equal,
                Some(RawJitter::Decorrelated) => Jitter::Decorrelated,
            },
        }
    }

    fn policy(
        &self,
        place: &Place<'_>,
        name: Field<String>,
        config: Field<serde_json::Value>,
        limits: Field<RawPolicyLimits>,
        isolation: Field<RawIsolation>,
        on_failure: Field<RawOnPolicyFailure>,
    ) -> Option<PolicyBinding> {
        if matches!(name, Field::Absent) {
            for (key, is_present) in [
                ("policy_config", config.is_present()),
                ("policy_limits", limits.is_present()),
                ("isolation", isolation.is_present()),
                ("on_policy_failure", on_failure.is_present()),
            ] {
                if is_present {
                    self.complain(
                        &place.key(key),
                        "means nothing without a policy: write `policy: NAME`, or remove it",
                    );
                }
            }
        }
        let limits = self.policy_limits(&place.key("policy_limits"), limits.given().unwrap_or_default());
        let name = name.given()?;
        if !is_policy_name(&name) {
            let message = match name.strip_suffix(".wasm") {
                Some(stem) if is_policy_name(stem) => "write the name without .wasm".to_owned(),
                _ => "write the file's name in the folder of policies, without .wasm: letters, digits, - and _".into(),
            };
            self.complain_of(&place.key("policy"), message);
            return None;
        }
        let (written, _, found) = self.root.descend(&place.key("policy_config").steps());
        Some(PolicyBinding {
            name,
            config: config.given().unwrap_or_default(),
            holds_secret: found && written.holds_secret(),
            on_failure: match on_failure.given() {
                Some(RawOnPolicyFailure::Standard) | None => OnPolicyFailure::Standard,
                Some(RawOnPolicyFailure::Retry) => OnPolicyFailure::Retry,
                Some(RawOnPolicyFailure::DeadLetter) => OnPolicyFailure::DeadLetter,
            },
            limits,
            isolation: match isolation.given() {
                Some(RawIsolation::Reuse) | None => Isolation::Reuse,
                Some(RawIsolation::Fresh) => Isolation::Fresh,
            },
        })
    }

    pub(in crate::config) fn policy_limits(&self, place: &Place<'_>, raw: RawPolicyLimits) -> PolicyLimits {
        let default = PolicyLimits::default();
        PolicyLimits {
            fuel: self.count(&place.key("fuel"), raw.fuel, 1..=1_000_000_000_000, default.fuel),
            // Less than one page of WebAssembly is none.
            memory: self.size(&place.key("memory"), raw.memory, 64 << 10..=MAX_POLICY_MEMORY, default.memory),
            time: self.duration(&place.key("time"), raw.time, MILLISECOND..=SECOND * 60, default.time),
            output: self.size(&place.key("output"), raw.output, 1..=64 << 20, default.output),
            failures: self.count(&place.key("failures"), raw.failures, 1..=1_000_000, default.failures),
        }
    }

    fn alarm(&self, place: &Place<'_>, raw: RawAlarm) -> Option<Alarm> {
        let window = self.duration(&place.key("window"), raw.window, SECOND..=DAY, defaults::ALARM_WINDOW);
        let min_requests = self.count(
            &place.key("min_requests"),
            raw.min_requests,
            1..=u64::from(u32::MAX),
            defaults::ALARM_MIN_REQUESTS,
        );
        let Written(Share(error_rate)) =
            self.required(&place.key("error_rate"), raw.error_rate, "`error_rate: 20%`")?;
        Some(Alarm { error_rate, window, min_requests, notify: raw.notify.given().map(|Written(url)| url) })
    }
}

/// A name that is one file's stem in the folder of policies, and cannot lead out of it.
fn is_policy_name(name: &str) -> bool {
    let first_fits = name.starts_with(|first: char| first.is_ascii_alphanumeric());
    first_fits && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}
