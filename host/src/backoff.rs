//! Delays: backoff, jitter and `Retry-After`. Pure arithmetic, saturating everywhere.

use std::time::Duration;

use http::{HeaderMap, header};

use crate::clock::{Chance, Timestamp};

/// How delays grow when a policy names none. The base is the envelope's `min_delay`, the cap its `max_delay`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Backoff {
    /// Growth from one retry to the next.
    pub growth: Growth,
    /// How chance spreads them.
    pub jitter: Jitter,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { growth: Growth::Exponential { factor: 2.0 }, jitter: Jitter::Full }
    }
}

/// Growth from one retry to the next.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Growth {
    /// `base · factor^n`, n = 0 for the first retry; the factor is at least 1.
    Exponential {
        /// The factor.
        factor: f64,
    },
    /// Always the base.
    Constant,
}

/// How chance spreads delays, so that those who failed together do not return together. With `e` the grown delay:
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Jitter {
    /// `e`
    None,
    /// `U(0, e)`
    Full,
    /// `e/2 + U(0, e/2)`
    Equal,
    /// `min(cap, U(base, 3·previous))`, the first previous being the base; growth plays no part.
    Decorrelated,
}

impl Backoff {
    /// The delay before retry `n` (0 for the first), with `base`, `cap` and the `previous` delay if there was one.
    ///
    /// Never longer than `cap`; no overflow for any `n`.
    pub fn delay(&self, n: u32, base: Duration, cap: Duration, previous: Option<Duration>, chance: Chance) -> Duration {
        let grown = || match self.growth {
            Growth::Constant => base.min(cap),
            Growth::Exponential { factor } => {
                let seconds = base.as_secs_f64() * factor.max(1.0).powf(f64::from(n));
                // `powf` may have reached infinity; anything the cap does not exceed is the cap.
                if seconds < cap.as_secs_f64() { Duration::from_secs_f64(seconds) } else { cap }
            }
        };
        match self.jitter {
            Jitter::None => grown(),
            Jitter::Full => chance.between(Duration::ZERO, grown()),
            Jitter::Equal => {
                let grown = grown();
                chance.between(grown / 2, grown)
            }
            Jitter::Decorrelated => {
                let upper = previous.unwrap_or(base).max(base).saturating_mul(3);
                chance.between(base, upper).min(cap)
            }
        }
    }

    /// Spreads a delay that the destination demanded: later only, by up to a tenth and at most a second.
    pub fn spread_later(&self, demanded: Duration, chance: Chance) -> Duration {
        match self.jitter {
            Jitter::None => demanded,
            _ => demanded.saturating_add(chance.between(Duration::ZERO, (demanded / 10).min(Duration::from_secs(1)))),
        }
    }
}

/// What a response says with `Retry-After` (RFC 9110 §10.2.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RetryAfter {
    /// Nothing.
    Absent,
    /// To wait that long.
    After(Duration),
    /// Something that is neither `delay-seconds` nor an HTTP-date: it is ignored, and counted.
    Malformed,
}

impl RetryAfter {
    /// Reads the field: a non-negative whole number of seconds, or a date in one of the three forms. A date is
    /// counted from the response's own `Date`, so that a difference between the two clocks does not matter; without
    /// one, from `now`. A date gone by means at once.
    pub fn of(headers: &HeaderMap, now: Timestamp) -> Self {
        let mut fields = headers.get_all(header::RETRY_AFTER).iter();
        let Some(field) = fields.next() else { return Self::Absent };
        let Ok(text) = field.to_str().map(str::trim) else { return Self::Malformed };
        if fields.next().is_some() || text.is_empty() {
            return Self::Malformed;
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            // More digits than a u64 holds still mean "very long".
            return Self::After(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
        }
        let Some(until) = http_date(text) else { return Self::Malformed };
        let from = headers.get(header::DATE).and_then(|date| date.to_str().ok()).and_then(http_date).unwrap_or(now);
        Self::After(until.since(from))
    }
}

/// Reads an HTTP-date in any of the three forms of RFC 9110 §5.6.7.
fn http_date(text: &str) -> Option<Timestamp> {
    let since_epoch = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_millis(u64::try_from(since_epoch.as_millis()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    const fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn backoff(jitter: Jitter) -> Backoff {
        Backoff { growth: Growth::Exponential { factor: 2.0 }, jitter }
    }

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn without_jitter_delays_double_up_to_the_cap() {
        let delay = |n| backoff(Jitter::None).delay(n, secs(1), secs(60), None, Chance::new(0.9));
        let delays: Vec<u64> = (0..8).map(|n| delay(n).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(delay(60), secs(60), "a human number of retries is no surprise");
        assert_eq!(delay(u32::MAX), secs(60));
    }

    #[test]
    fn equal_delays_when_the_cap_is_the_base() {
        for n in [0, 1, 7] {
            assert_eq!(backoff(Jitter::None).delay(n, secs(5), secs(5), None, Chance::new(0.5)), secs(5));
        }
    }

    /// One well-known proxy truncates to whole seconds first, and so has no jitter at exactly 1 s and 2 s.
    #[test]
    fn jitter_spreads_at_human_values() {
        for base in [secs(1), secs(2), secs(30)] {
            for jitter in [Jitter::Full, Jitter::Equal, Jitter::Decorrelated] {
                let low = backoff(jitter).delay(0, base, secs(60), None, Chance::new(0.1));
                let high = backoff(jitter).delay(0, base, secs(60), None, Chance::new(0.9));
                assert!(high > low, "{jitter:?} at {base:?}: {low:?} to {high:?}");
            }
        }
    }

    #[test]
    fn decorrelated_jitter_builds_on_the_previous_delay() {
        let delay = |previous| backoff(Jitter::Decorrelated).delay(9, secs(1), secs(60), previous, Chance::new(0.5));
        assert_eq!(delay(None), secs(2), "half way between the base and three times the base");
        assert_eq!(delay(Some(secs(9))), secs(14));
        assert_eq!(delay(Some(secs(60))), secs(60), "capped");
    }

    #[test]
    fn retry_after_takes_seconds_and_all_three_dates() {
        let now = Timestamp::from_millis(784_111_700_000);
        let of = |value| RetryAfter::of(&headers(&[("retry-after", value)]), now);
        assert_eq!(of("120"), RetryAfter::After(secs(120)));
        assert_eq!(of("0"), RetryAfter::After(secs(0)));
        // 1994-11-06T08:49:37Z, which is 77 s after `now`.
        for date in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(of(date), RetryAfter::After(secs(77)), "{date}");
        }
        assert_eq!(of("Sun, 06 Nov 1994 08:00:00 GMT"), RetryAfter::After(secs(0)), "gone by means at once");
        assert_eq!(of("99999999999999999999999"), RetryAfter::After(secs(u64::MAX)), "very long, not malformed");
    }

    #[test]
    fn retry_after_is_counted_from_the_response_s_own_date() {
        let fields =
            headers(&[("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT"), ("date", "Sun, 06 Nov 1994 08:49:37 GMT")]);
        assert_eq!(RetryAfter::of(&fields, Timestamp::from_millis(0)), RetryAfter::After(secs(60)));
    }

    #[test]
    fn a_malformed_retry_after_is_told_from_an_absent_one() {
        let now = Timestamp::from_millis(0);
        assert_eq!(RetryAfter::of(&HeaderMap::new(), now), RetryAfter::Absent);
        for bad in ["", "-1", "1.5", "soon", "+3", "1 2", "3s"] {
            assert_eq!(RetryAfter::of(&headers(&[("retry-after", bad)]), now), RetryAfter::Malformed, "{bad:?}");
        }
        let twice = headers(&[("retry-after", "1"), ("retry-after", "2")]);
        assert_eq!(RetryAfter::of(&twice, now), RetryAfter::Malformed);
    }

    fn any_jitter() -> impl Strategy<Value = Jitter> {
        prop_oneof![Just(Jitter::None), Just(Jitter::Full), Just(Jitter::Equal), Just(Jitter::Decorrelated)]
    }

    /// Delays people write, and delays nobody does.
    fn any_delay() -> impl Strategy<Value = Duration> {
        prop_oneof![
            Just(secs(1)),
            Just(secs(2)),
            Just(secs(30)),
            Just(secs(86_400)),
            (0..100_000_u64).prop_map(Duration::from_millis),
            any::<u64>().prop_map(Duration::from_millis),
            Just(Duration::MAX),
        ]
    }

    proptest! {
        #[test]
        fn a_delay_keeps_to_its_formula(
            n in prop_oneof![0..100_u32, any::<u32>()],
            base in any_delay(),
            cap in any_delay(),
            previous in proptest::option::of(any_delay()),
            factor in prop_oneof![Just(2.0), 1.0..10.0, Just(f64::MAX)],
            jitter in any_jitter(),
            chance in 0.0..1.0,
        ) {
            let backoff = Backoff { growth: Growth::Exponential { factor }, jitter };
            let delay = backoff.delay(n, base, cap, previous, Chance::new(chance));
            let grown = Backoff { jitter: Jitter::None, ..backoff }.delay(n, base, cap, previous, Chance::new(chance));
            prop_assert!(delay <= cap);
            match jitter {
                Jitter::None => prop_assert_eq!(delay, grown),
                Jitter::Full => prop_assert!(delay <= grown),
                Jitter::Equal => prop_assert!(grown / 2 <= delay && delay <= grown),
                Jitter::Decorrelated => prop_assert!(delay >= base.min(cap)),
            }
        }

        #[test]
        fn a_demanded_delay_is_only_ever_spread_later(
            demanded in any_delay(), jitter in any_jitter(), chance in 0.0..1.0,
        ) {
            let spread = backoff(jitter).spread_later(demanded, Chance::new(chance));
            prop_assert!(spread >= demanded);
            prop_assert!(spread - demanded <= secs(1));
        }

        #[test]
        fn any_field_value_is_read_without_surprise(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                let fields = HeaderMap::from_iter([(header::RETRY_AFTER, value)]);
                let _ = RetryAfter::of(&fields, Timestamp::from_millis(0));
            }
        }
    }
}
