//! What is kept for each of many addresses: those used most recently, and no more than so many.
//!
//! Connections are kept under their address and login, which a reload of the configuration may change at any time: what
//! nobody asks for any more is to go in the end, though nobody says so.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

/// Values by key, at most `most` of them; one more, and the one that was asked for longest ago is let go. Whoever still
/// uses that one keeps its own clone.
#[derive(Debug)]
pub(super) struct Recent<K, V> {
    most: usize,
    known: Mutex<Known<K, V>>,
}

#[derive(Debug)]
struct Known<K, V> {
    /// With when each was last asked for.
    by_key: HashMap<K, (u64, V)>,
    asked: u64,
}

impl<K: Eq + Hash + Clone, V: Clone> Recent<K, V> {
    /// Nothing yet, and never more than `most`.
    pub(super) fn new(most: usize) -> Self {
        Self { most, known: Mutex::new(Known { by_key: HashMap::new(), asked: 0 }) }
    }

    /// The value of `key`, made by `new` where there is none.
    pub(super) fn get(&self, key: &K, new: impl FnOnce() -> V) -> V {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.asked += 1;
        let now = known.asked;
        if let Some((asked, value)) = known.by_key.get_mut(key) {
            *asked = now;
            return value.clone();
        }
        if known.by_key.len() >= self.most {
            let oldest = known.by_key.iter().min_by_key(|(_, (asked, _))| *asked).map(|(key, _)| key.clone());
            oldest.and_then(|oldest| known.by_key.remove(&oldest));
        }
        let value = new();
        known.by_key.insert(key.clone(), (now, value.clone()));
        value
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn one_too_many_and_what_was_asked_for_longest_ago_is_let_go() {
        let recent = Recent::new(3);
        let [first, second, third] = [1, 2, 3].map(|key| recent.get(&key, || Arc::new(key)));
        assert!(Arc::ptr_eq(&first, &recent.get(&1, || Arc::new(0))), "it is known, and now the one asked for last");
        drop((recent.get(&4, || Arc::new(4)), recent.get(&5, || Arc::new(5))));
        let is_kept = |value: &Arc<i32>| Arc::strong_count(value) > 1;
        assert_eq!([&first, &second, &third].map(is_kept), [true, false, false]);
        assert_eq!(*recent.get(&2, || Arc::new(20)), 20, "who comes back is new");
    }
}
