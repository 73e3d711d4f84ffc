//! Follows the policies' files: what changes on disk is prepared aside and swapped in, without a restart.
//!
//! When to look is [`crate::follow`]'s to say. A file is read once it has held still; a bad one leaves the old one
//! serving and says so, once.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use tokio_util::sync::CancellationToken;

use super::catalog::{COMPILING, Catalog, FileState, Refusal, names_in};
use super::load::{LoadError, digest, read};
use crate::follow::{Notices, RESCAN, Stamp};

/// Files that changed, as they were seen last: they are read when they are seen the same again.
type Unsettled = BTreeMap<String, Option<Stamp>>;

impl Catalog {
    /// Follows the folder, and finds what stands in for policies that are set aside, until `stop` is cancelled. Runs
    /// once.
    pub async fn run(&self, stop: CancellationToken) {
        // Two loops: a file that takes long to compile keeps no good one from standing in.
        tokio::join!(self.follow(stop.clone()), self.watch_over(stop));
    }

    async fn watch_over(&self, stop: CancellationToken) {
        while stop.run_until_cancelled(self.stand_in()).await.is_some() {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.clock.sleep(RESCAN) => {}
                () = self.sandbox.attention().notified() => {}
            }
        }
    }

    async fn follow(&self, stop: CancellationToken) {
        let mut notices = Notices::new(Arc::clone(&self.clock));
        if !notices.only_of([self.dir.clone()]) {
            tracing::warn!(folder = %self.dir.display(), "no notices of changed policies: looking every {RESCAN:?}");
        }
        let mut unsettled = Unsettled::new();
        // The first look is at once, for what changed before there were notices.
        while stop.run_until_cancelled(self.rescan(&mut unsettled)).await.is_some() {
            if stop.run_until_cancelled(notices.next(!unsettled.is_empty())).await.is_none() {
                return;
            }
        }
    }

    /// Looks at the folder once, and deals with the files that changed and have held still since the last look.
    async fn rescan(&self, unsettled: &mut Unsettled) {
        let dir = self.dir.clone();
        let Ok(present) = tokio::task::spawn_blocking(move || names_in(&dir)).await else { return };
        self.note_unused(&present);
        let bindings = self.bindings.load_full();
        unsettled.retain(|name, _| bindings.users.contains_key(name));
        let mut settled = Vec::new();
        for name in bindings.users.keys() {
            let (now, known) = (present.get(name).copied(), self.files().get(name).and_then(|file| file.stamp));
            if now == known {
                unsettled.remove(name);
            } else if unsettled.get(name) != Some(&now) {
                unsettled.insert(name.clone(), now);
            } else if let Some(stamp) = now {
                settled.push((name.clone(), stamp));
            } else {
                unsettled.remove(name);
                self.files().entry(name.clone()).or_default().stamp = None;
                tracing::warn!(policy = %name, "its file is gone; the policy as it was loaded serves on");
            }
        }
        let considered = settled.into_iter().map(|(name, stamp)| self.consider_by_name(name, stamp));
        // As many as may be compiled at once, so that no more files than that are in memory.
        let mut considered = stream::iter(considered).buffer_unordered(COMPILING);
        while let Some((name, held_still)) = considered.next().await {
            if held_still {
                unsettled.remove(&name);
            }
        }
    }

    async fn consider_by_name(&self, name: String, stamp: Stamp) -> (String, bool) {
        let held_still = self.consider(&name, stamp).await;
        (name, held_still)
    }

    /// Keeps the list of files that no route uses.
    fn note_unused(&self, present: &BTreeMap<String, Stamp>) {
        let mut files = self.files();
        let users = &self.bindings.load().users;
        files.retain(|name, _| users.contains_key(name) || present.contains_key(name));
        for (name, stamp) in present.iter().filter(|(name, _)| !users.contains_key(*name)) {
            files.insert(name.clone(), FileState { stamp: Some(*stamp), ..FileState::default() });
        }
    }

    /// Reads a changed file and swaps it in, or refuses it. Returns whether it, and the routes that use it, held still
    /// meanwhile; if not, nothing was done.
    async fn consider(&self, name: &str, stamp: Stamp) -> bool {
        let path = self.path(name);
        let read = tokio::task::spawn_blocking(move || {
            let file = read(&path);
            (Stamp::of(&path), file)
        });
        let file = match read.await {
            Ok((after, _)) if after != Some(stamp) => return false,
            Ok((_, file)) => file,
            Err(panic) => Err(LoadError::Compile(panic.to_string())),
        };
        let file = match file {
            Ok(file) => file,
            Err(error) => {
                self.refuse(name, stamp, vec![self.problem(name, &error).to_string()]);
                return true;
            }
        };
        let digest = digest(&file);
        if self.serves(name, &digest) {
            // Written again as it was, or put back: nothing to do, and nothing wrong any more.
            let mut files = self.files();
            let state = files.entry(name.to_owned()).or_default();
            let was_missed = state.stamp.is_none() || state.refusal.is_some();
            (state.stamp, state.refusal) = (Some(stamp), None);
            if was_missed {
                tracing::info!(policy = %name, %digest, "the policy's file is what serves again");
            }
            return true;
        }
        match self.prepare(name, file).await {
            Ok(prepared) => {
                let version = prepared.policy.reference.version.clone();
                if !self.swap_in(name, Some(stamp), None, prepared) {
                    // A reload changed its routes meanwhile: it is held against the new ones.
                    return false;
                }
                tracing::info!(policy = %name, %version, %digest, "policy reloaded");
            }
            Err(rejection) => {
                let why = rejection.problems().iter().map(ToString::to_string).collect();
                self.refuse(name, stamp, why);
            }
        }
        true
    }

    fn serves(&self, name: &str, digest: &str) -> bool {
        let files = self.files();
        let served = files.get(name).and_then(|file| file.served.as_ref());
        served.is_some_and(|(policy, _)| policy.reference.digest == digest)
    }

    fn refuse(&self, name: &str, stamp: Stamp, why: Vec<String>) {
        tracing::error!(policy = %name, why = %why.join("; "), "changed policy refused; the one before serves on");
        let mut files = self.files();
        let state = files.entry(name.to_owned()).or_default();
        (state.stamp, state.refusal) = (Some(stamp), Some(Refusal { at: self.clock.now(), why }));
    }
}
