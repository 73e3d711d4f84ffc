//! What keeps a lane within its destination's means: from raw twin to resolved.

use super::{DAY, HOUR, MILLISECOND, Resolver, SECOND};
use crate::config::defaults;
use crate::config::limits::OrderKey;
use crate::config::limits::{Breaker, OnFailure, Order, PerSecond, Rate, RetryBudget};
use crate::config::problem::Place;
use crate::config::raw::{RawBreaker, RawOnFailure, RawOrderBy, RawRate, RawRetryBudget};
use crate::config::reader::{Field, Shorthand};
use crate::config::resolved::Mode;
use crate::config::units::{Share, Written};

impl Resolver<'_> {
    pub(super) fn rate(&self, place: &Place<'_>, raw: Field<Shorthand<Written<PerSecond>, RawRate>>) -> Option<Rate> {
        let (per_second, burst) = match raw.given()? {
            Shorthand::Short(Written(PerSecond(per_second))) => (per_second, Field::Absent),
            Shorthand::Full(raw) => {
                let per_second = self.required(&place.key("per_second"), raw.per_second, "`per_second: 50`");
                let Some(Written(PerSecond(per_second))) = per_second else {
                    self.count(&place.key("burst"), raw.burst, 1..=1_000_000, 1_u32);
                    return None;
                };
                (per_second, raw.burst)
            }
        };
        // Whole and at least one, whatever the rate.
        let default = (per_second / 10.0).floor().max(1.0) as u32;
        Some(Rate { per_second, burst: self.count(&place.key("burst"), burst, 1..=1_000_000, default) })
    }

    pub(super) fn breaker(&self, place: &Place<'_>, raw: Field<RawBreaker>) -> Option<Breaker> {
        let raw = raw.given()?;
        Some(Breaker {
            failures: raw.failures.given().map_or(defaults::BREAKER_FAILURES, |Written(Share(share))| share),
            window: self.duration(&place.key("window"), raw.window, SECOND..=HOUR, defaults::BREAKER_WINDOW),
            min_attempts: self.count(
                &place.key("min_attempts"),
                raw.min_attempts,
                1..=1_000_000,
                defaults::BREAKER_MIN_ATTEMPTS,
            ),
            open_for: self.duration(
                &place.key("open_for"),
                raw.open_for,
                MILLISECOND * 100..=DAY,
                defaults::BREAKER_OPEN_FOR,
            ),
            probes: self.count(&place.key("probes"), raw.probes, 1..=1000, defaults::BREAKER_PROBES),
        })
    }

    pub(super) fn retry_budget(
        &self,
        place: &Place<'_>,
        raw: Field<Shorthand<Written<Share>, RawRetryBudget>>,
    ) -> Option<RetryBudget> {
        let raw = match raw.given()? {
            Shorthand::Short(share) => RawRetryBudget { share: Field::Given(share), ..RawRetryBudget::default() },
            Shorthand::Full(raw) => raw,
        };
        Some(RetryBudget {
            share: raw.share.given().map_or(defaults::BUDGET_SHARE, |Written(Share(share))| share),
            reserve: self.count(&place.key("reserve"), raw.reserve, 1..=1_000_000, defaults::BUDGET_RESERVE),
            window: self.duration(&place.key("window"), raw.window, SECOND..=SECOND * 600, defaults::BUDGET_WINDOW),
        })
    }

    pub(super) fn order(
        &self,
        place: &Place<'_>,
        raw: Field<Shorthand<Written<OrderKey>, RawOrderBy>>,
        mode: Mode,
    ) -> Option<Order> {
        if raw.is_present() && mode != Mode::Async {
            let message = format!(
                "only for `mode: async`: in mode {} a caller waits, and would wait for all those before it; remove \
                 it, or write `mode: async`",
                mode.as_str()
            );
            self.complain(place, message);
        }
        let (key, on_failure) = match raw.given()? {
            Shorthand::Short(Written(key)) => (key, OnFailure::default()),
            Shorthand::Full(raw) => {
                let Written(key) = self.required(&place.key("key"), raw.key, "`key: header:x-key`")?;
                let on_failure = match raw.on_failure.given() {
                    Some(RawOnFailure::Block) | None => OnFailure::Block,
                    Some(RawOnFailure::Skip) => OnFailure::Skip,
                };
                (key, on_failure)
            }
        };
        Some(Order { key, on_failure })
    }
}
