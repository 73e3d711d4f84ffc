//! Rights: what is held for an attempt from before it is claimed until it is over. Whatever of one was not used is
//! given back when it is dropped, in a panic even.

use std::sync::Arc;

use super::gate::{Gate, Grant};
use super::places::Place;
use crate::clock::Timestamp;

/// The right to make one attempt on a lane: one of its places, and what its gate granted.
#[derive(Debug)]
pub struct Permit {
    gate: Arc<Gate>,
    grant: Grant,
    _place: Place,
}

/// The right to make one retry, as far as the retry budget is concerned. What the attempt itself needs is a
/// [`Permit`]. It is to be held until the attempt has begun: then the budget has counted it.
#[derive(Debug)]
pub struct RetryRight {
    /// Where it was reserved, and in which epoch; none where there is no budget.
    reserved: Option<(Arc<Gate>, u64)>,
}

impl Permit {
    pub(super) fn new(place: Place, gate: &Arc<Gate>, grant: Grant) -> Self {
        Self { gate: Arc::clone(gate), grant, _place: place }
    }

    /// The attempt begins: the rate counts it, and the budget.
    pub fn begin(&mut self, is_retry: bool, now: Timestamp) {
        self.gate.begin(&mut self.grant, is_retry, now);
    }

    /// The attempt is over, and it is known whether the destination failed: the breaker counts it. Its place is taken
    /// until this is dropped.
    pub fn came_to(&mut self, failed: bool, now: Timestamp) {
        self.gate.came_to(&mut self.grant, failed, now);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gate.give_back(&mut self.grant);
    }
}

impl RetryRight {
    pub(super) fn reserved(gate: &Arc<Gate>, epoch: u64) -> Self {
        Self { reserved: Some((Arc::clone(gate), epoch)) }
    }

    pub(super) const fn free() -> Self {
        Self { reserved: None }
    }
}

impl Drop for RetryRight {
    fn drop(&mut self) {
        if let Some((gate, epoch)) = &self.reserved {
            gate.give_retry_back(*epoch);
        }
    }
}
