//! How a policy does on one route: it is set aside, quarantined, once it has failed too often in a row.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::failure::Failure;

/// The count of one policy's failures under one route's configuration. Reading it takes no lock.
#[derive(Debug, Default)]
pub(super) struct Health {
    failures_in_a_row: AtomicU32,
    proved_itself: AtomicBool,
    set_aside: OnceLock<String>,
}

impl Health {
    /// Notes a usable answer.
    pub(super) fn did_well(&self) {
        // Most answers are good ones: they only read.
        if self.failures_in_a_row.load(Ordering::Relaxed) != 0 {
            self.failures_in_a_row.store(0, Ordering::Relaxed);
        }
        if !self.proved_itself.load(Ordering::Relaxed) {
            self.proved_itself.store(true, Ordering::Relaxed);
        }
    }

    /// Notes a failure. Answers whether it is the one that sets the policy aside, of which `most` in a row do.
    pub(super) fn failed(&self, failure: &Failure, most: u32) -> bool {
        if !failure.is_of_the_policy() {
            return false;
        }
        let failures = self.failures_in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        failures >= most && self.set_aside.set(failure.to_string()).is_ok()
    }

    /// The failure that set it aside, if it is.
    pub(super) fn set_aside(&self) -> Option<&str> {
        self.set_aside.get().map(String::as_str)
    }

    /// Whether it answered in service, the last time it was asked.
    pub(super) fn proved_itself(&self) -> bool {
        self.proved_itself.load(Ordering::Relaxed) && self.failures_in_a_row.load(Ordering::Relaxed) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_failures_in_a_row_set_a_policy_aside() {
        let health = Health::default();
        let failed = || health.failed(&Failure::OutOfStack, 3);
        assert!(!failed() && !failed());
        health.did_well();
        assert!(!failed() && !failed());
        assert_eq!(health.set_aside(), None);
        assert!(failed(), "the third in a row");
        assert!(!failed(), "it is said once");
        assert_eq!(health.set_aside(), Some(Failure::OutOfStack.to_string().as_str()));
    }

    #[test]
    fn what_the_host_has_no_room_for_is_no_fault_of_the_policy() {
        let health = Health::default();
        assert!(!health.failed(&Failure::NoRoom, 1));
        assert_eq!((health.set_aside(), health.proved_itself()), (None, false));
    }
}
