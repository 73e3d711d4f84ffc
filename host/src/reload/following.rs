//! When the configuration is read again: on request at once; on a change of its files, once they have settled.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::settling::{Next, Settling};
use super::{Files, Reading, Reload};
use crate::follow::{Notices, RESCAN};

impl Reload {
    /// Follows the configuration at `path`, which was read from `known`, until `stop` is cancelled. Runs once.
    pub async fn follow(&self, path: &Path, mut known: Files, stop: CancellationToken) {
        let mut notices = Notices::new(Arc::clone(&self.parts.clock));
        let mut settling = Settling::new();
        if !notices.only_of(known.paths()) {
            tracing::warn!(file = %path.display(), "no notices of a changed configuration: looking every {RESCAN:?}");
        }
        loop {
            let mut sure = tokio::select! {
                () = stop.cancelled() => return,
                () = self.asked.notified() => true,
                () = notices.next(settling.is_waiting()) => false,
            };
            if !sure {
                let before = known.clone();
                let Some(now) = aside(move || before.now()).await else { continue };
                sure = match settling.look(&known, now) {
                    Next::Unchanged | Next::Wait => continue,
                    Next::Read { sure } => sure,
                };
            }
            let file = path.to_path_buf();
            match aside(move || Reading::of(&file)).await {
                Some(reading) if sure || reading.config.is_ok() => known = self.take(reading).await,
                _ => continue,
            }
            settling = Settling::new();
            notices.only_of(known.paths());
        }
    }

    /// Puts what was read into effect, or refuses it. Answers the files whose change is a reason to read again.
    async fn take(&self, reading: Reading) -> Files {
        let Reading { config, files } = reading;
        let config = match config {
            Ok(config) => config,
            Err(problems) => {
                self.refuse(problems);
                return files;
            }
        };
        // What the policies refuse, another file of theirs may mend: one that comes while they are asked, too.
        let policies = config.bindings().filter_map(|(_, binding)| binding);
        let policies: BTreeSet<_> = policies.map(|binding| self.parts.catalog.path(&binding.name)).collect();
        let of_file = files.clone();
        let with_policies = aside(move || of_file.and(policies)).await;
        match self.apply(&config).await {
            Ok(_) => files,
            Err(problems) => {
                self.refuse(problems);
                with_policies.unwrap_or(files)
            }
        }
    }
}

/// Runs what reads files off the async threads; none when the runtime goes away meanwhile.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
