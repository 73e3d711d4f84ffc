//! One instance of a policy, and the asking of it: every question with its own fuel, time and notebook.

use std::sync::Arc;
use std::time::Duration;

use wasmtime::Store;

use super::Interest;
use super::failure::{Failure, Unusable};
use super::host::Host;
use super::sandbox::{Growth, Sandbox, Slot};
use super::v0_1::{Contract, Instance, Manifest};
use crate::clock::Stopwatch;
use crate::config::PolicyLimits;
use crate::message::{LogLine, Message};

/// One instance. It is thrown away after a failure, since what a trap leaves behind must not be entered again.
pub(super) struct Guest {
    store: Store<Host>,
    /// Behind a pointer, since a guest moves between its bench and those who ask.
    instance: Box<Instance>,
    /// Given back after the store is gone.
    _slot: Slot,
}

/// What became of a question.
pub(super) struct Reply<T> {
    pub(super) result: Result<T, Failure>,
    /// In wasmtime's units.
    pub(super) fuel: u64,
    pub(super) took: Duration,
    pub(super) log: Vec<LogLine>,
}

impl<T> Reply<T> {
    /// The reply of a policy that was not asked.
    pub(super) const fn without_asking(failure: Failure) -> Self {
        Self { result: Err(failure), fuel: 0, took: Duration::ZERO, log: Vec::new() }
    }
}

impl Guest {
    /// Makes an instance and configures it. Says what it then wants to see.
    pub(super) fn configured(
        sandbox: &Arc<Sandbox>,
        contract: &Contract,
        limits: &PolicyLimits,
        config: &str,
    ) -> Result<(Self, Interest), Failure> {
        let mut guest = Self::instantiate(sandbox, contract, limits)?;
        let reply = guest.ask(limits, None, |instance, store| instance.configure(store, config));
        let interest = reply.result?.map_err(Failure::Refused)?;
        Ok((guest, interest))
    }

    /// Asks an instance of its own what the policy is.
    pub(super) fn describe(
        sandbox: &Arc<Sandbox>,
        contract: &Contract,
        limits: &PolicyLimits,
    ) -> Result<Manifest, Failure> {
        let mut guest = Self::instantiate(sandbox, contract, limits)?;
        guest.ask(limits, None, |instance, store| instance.describe(store)).result
    }

    fn instantiate(sandbox: &Arc<Sandbox>, contract: &Contract, limits: &PolicyLimits) -> Result<Self, Failure> {
        let slot = sandbox.slot().ok_or(Failure::NoRoom)?;
        let mut store = Store::new(sandbox.engine(), Host::new(Growth::up_to(limits.memory)));
        store.limiter(|host| &mut host.growth);
        store.set_hostcall_fuel(limits.output);
        // The contract has no resources, so no instance ever holds a handle.
        store.set_max_component_handles(0);
        let instance = replenish(&mut store, limits).and_then(|()| contract.instantiate(&mut store)).map(Box::new);
        let instance = instance.map_err(|error| {
            let log = store.data_mut().take_log();
            Unusable::Trap(error).explain(store.data(), &log, limits)
        })?;
        Ok(Self { store, instance, _slot: slot })
    }

    /// Puts one question to it, about `message` if it is about one.
    pub(super) fn ask<T>(
        &mut self,
        limits: &PolicyLimits,
        message: Option<&Message>,
        question: impl FnOnce(&Instance, &mut Store<Host>) -> Result<T, Unusable>,
    ) -> Reply<T> {
        let watch = Stopwatch::start();
        let host = self.store.data_mut();
        host.growth.begin();
        host.about = message.cloned();
        let answer = match replenish(&mut self.store, limits) {
            Ok(()) => question(&self.instance, &mut self.store),
            Err(error) => Err(Unusable::Trap(error)),
        };
        let fuel = limits.fuel.saturating_sub(self.store.get_fuel().unwrap_or(0));
        let host = self.store.data_mut();
        host.about = None;
        let log = host.take_log();
        let result = answer.map_err(|unusable| unusable.explain(host, &log, limits));
        Reply { result, fuel, took: watch.elapsed(), log }
    }
}

/// Gives an instance what one question may cost.
fn replenish(store: &mut Store<Host>, limits: &PolicyLimits) -> wasmtime::Result<()> {
    store.set_epoch_deadline(Sandbox::deadline(limits.time));
    store.set_fuel(limits.fuel)
}
