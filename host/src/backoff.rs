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
