//! Holds: a destination that asked for quiet gets it from every message at once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::clock::Timestamp;
use crate::store::Hold;

/// Until when each destination is held. A destination not named here is not. Bounded by the number of destinations
/// that the configuration names.
#[derive(Default, Debug)]
pub struct Holds(Mutex<HashMap<String, Timestamp>>);

impl Holds {
    /// The holds that the store remembers.
    pub fn new(holds: Vec<Hold>) -> Self {
        Self(Mutex::new(holds.into_iter().map(|hold| (hold.destination, hold.until)).collect()))
    }

    /// Holds `destination` until `until`; false when it is held for as long already.
    pub fn hold(&self, destination: &str, until: Timestamp) -> bool {
        let mut holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match holds.get_mut(destination) {
            Some(held) if *held >= until => return false,
            Some(held) => *held = until,
            None => _ = holds.insert(destination.to_owned(), until),
        }
        true
    }

    /// Until when `destination` is held, if it still is at `now`.
    pub fn held_until(&self, destination: &str, now: Timestamp) -> Option<Timestamp> {
        let holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        holds.get(destination).copied().filter(|until| *until > now)
    }

    /// Every hold that has not run out by `now`.
    pub fn current(&self, now: Timestamp) -> Vec<Hold> {
        let mut holds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        holds.retain(|_, until| *until > now);
        let mut current: Vec<Hold> =
            holds.iter().map(|(destination, until)| Hold { destination: destination.clone(), until: *until }).collect();
        current.sort_by(|a, b| a.destination.cmp(&b.destination));
        current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_hold_is_never_shortened_and_runs_out() {
        let holds = Holds::default();
        holds.hold("http://a", at(100));
        holds.hold("http://a", at(50));
        assert_eq!(holds.held_until("http://a", at(99)), Some(at(100)));
        assert_eq!(holds.held_until("http://a", at(100)), None, "the moment it runs out, it is over");
        assert_eq!(holds.held_until("http://b", at(0)), None, "other destinations are not concerned");
        assert!(holds.current(at(100)).is_empty());
    }
}
