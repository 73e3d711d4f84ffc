//! The `event-pipeline` profile of `retry:`: the limits that a managed event bus sets on delays and attempts, for those
//! who move from one and want the same schedule, and the same refusals.
//!
//! The first delay is `min_delay`, each further one twice as long, at most `max_delay`; equal ones make a linear
//! schedule. Nothing else can be had: neither a shorter delay than a second, nor another factor.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::backoff::Growth;

/// Its name in `retry: { profile: … }`.
pub const NAME: &str = "event-pipeline";

/// What either delay may be.
pub const DELAYS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);

/// How much longer each delay is than the one before.
pub const FACTOR: f64 = 2.0;

const MIN_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(60);
const MAX_ATTEMPTS: u32 = 5;

/// The keys of `retry:` that the profile speaks of, as they were written; none where the key was not.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Asked {
    /// `max_attempts`.
    pub max_attempts: Option<u64>,
    /// `min_delay`.
    pub min_delay: Option<Duration>,
    /// `max_delay`.
    pub max_delay: Option<Duration>,
    /// `factor`.
    pub factor: Option<f64>,
    /// Whether `backoff: constant` was written.
    pub is_constant: bool,
}

/// The schedule that comes of it.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Schedule {
    /// Attempts in all; 1 means one delivery and no retry. Default 5.
    pub max_attempts: u32,
    /// The first delay. Default 1 s.
    pub min_delay: Duration,
    /// The longest delay. Default 60 s.
    pub max_delay: Duration,
    /// How delays grow from the first to the longest.
    pub growth: Growth,
}

/// What the profile refuses.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{key}: {message}")]
pub struct Refusal {
    /// The key of `retry:` that it is about.
    pub key: &'static str,
    /// Why, and what to write instead.
    pub message: String,
}

/// The schedule that was asked for.
///
/// # Errors
/// Everything that the profile refuses, never nothing.
pub fn schedule(asked: &Asked) -> Result<Schedule, Vec<Refusal>> {
    let mut refused = Vec::new();
    let mut refuse = |key, message: String| refused.push(Refusal { key, message });
    for (key, delay) in [("min_delay", asked.min_delay), ("max_delay", asked.max_delay)] {
        if delay.is_some_and(|delay| !DELAYS.contains(&delay)) {
            refuse(key, format!("profile {NAME} has delays from 1s to 600s: write one of those"));
        }
    }
    let (min_delay, max_delay) = (asked.min_delay.unwrap_or(MIN_DELAY), asked.max_delay.unwrap_or(MAX_DELAY));
    let both_right = DELAYS.contains(&min_delay) && DELAYS.contains(&max_delay);
    if both_right && min_delay > max_delay {
        let message = match asked.max_delay {
            Some(_) => "longer than max_delay: write a shorter one, or a longer max_delay".to_owned(),
            None => {
                format!("longer than max_delay, which is {}s by default: write max_delay, too", MAX_DELAY.as_secs())
            }
        };
        refuse("min_delay", message);
    }
    let max_attempts = asked.max_attempts.map_or(Some(MAX_ATTEMPTS), |count| u32::try_from(count).ok());
    if max_attempts.is_none_or(|count| count < 1) {
        let most = u32::MAX;
        refuse("max_attempts", format!("write a whole number from 1, which is one delivery and no retry, to {most}"));
    }
    if asked.factor.is_some_and(|factor| factor.total_cmp(&FACTOR).is_ne()) {
        refuse("factor", format!("profile {NAME} doubles each delay: remove it, or the profile"));
    }
    let is_linear = min_delay == max_delay;
    if asked.is_constant && both_right && !is_linear {
        let message = format!("profile {NAME} has equal delays where min_delay and max_delay are equal: write them so");
        refuse("backoff", message);
    }
    match max_attempts {
        Some(max_attempts) if refused.is_empty() => {
            let growth = if is_linear { Growth::Constant } else { Growth::Exponential { factor: FACTOR } };
            Ok(Schedule { max_attempts, min_delay, max_delay, growth })
        }
        _ => Err(refused),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn seconds(count: u64) -> Option<Duration> {
        Some(Duration::from_secs(count))
    }

    fn refused(asked: Asked) -> Vec<&'static str> {
        schedule(&asked).map_or_else(|refused| refused.iter().map(|refusal| refusal.key).collect(), |_| Vec::new())
    }

    #[test]
    fn what_is_not_written_is_as_that_system_has_it() {
        let growth = Growth::Exponential { factor: 2.0 };
        let default =
            Schedule { max_attempts: 5, min_delay: Duration::from_secs(1), max_delay: Duration::from_secs(60), growth };
        assert_eq!(schedule(&Asked::default()), Ok(default));
    }

    #[test]
    fn equal_delays_make_a_linear_schedule() {
        let asked = Asked { min_delay: seconds(10), max_delay: seconds(10), ..Asked::default() };
        assert_eq!(schedule(&asked).unwrap().growth, Growth::Constant);
        assert_eq!(schedule(&Asked { is_constant: true, ..asked }).unwrap().growth, Growth::Constant);
        assert_eq!(refused(Asked { is_constant: true, ..Asked::default() }), ["backoff"]);
    }

    #[test]
    fn everything_that_the_system_refuses_is_refused_at_once() {
        let asked = Asked {
            max_attempts: Some(0),
            min_delay: Some(Duration::from_millis(999)),
            max_delay: seconds(601),
            factor: Some(3.0),
            is_constant: true,
        };
        assert_eq!(refused(asked), ["min_delay", "max_delay", "max_attempts", "factor"]);
        assert_eq!(refused(Asked { min_delay: seconds(61), ..Asked::default() }), ["min_delay"]);
        assert_eq!(refused(Asked { max_attempts: Some(1 << 32), ..Asked::default() }), ["max_attempts"]);
        assert_eq!(refused(Asked { factor: Some(f64::NAN), ..Asked::default() }), ["factor"]);
    }

    #[test]
    fn one_attempt_is_one_delivery_and_no_retry() {
        assert_eq!(schedule(&Asked { max_attempts: Some(1), ..Asked::default() }).unwrap().max_attempts, 1);
    }

    proptest! {
        #[test]
        fn delays_are_taken_exactly_when_both_are_in_range_and_in_order(
            min in 0..700_000_u64, max in 0..700_000_u64, attempts in 0..10_u64,
        ) {
            let allowed = 1_000..=600_000;
            let right = allowed.contains(&min) && allowed.contains(&max) && min <= max && attempts >= 1;
            let asked = Asked {
                max_attempts: Some(attempts),
                min_delay: Some(Duration::from_millis(min)),
                max_delay: Some(Duration::from_millis(max)),
                ..Asked::default()
            };
            prop_assert_eq!(schedule(&asked).is_ok(), right);
        }
    }
}
