//! When the configuration is read again: on request at once; on a change of its files, once they have held still.
//!
//! Editors write in pieces, empty a file before they fill it, or put another in its place. So what holds still for a
//! moment and is good is taken; what has a mistake is given a while longer to become good before it is refused.

use std::path::Path;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{Files, Reading, Reload};
use crate::follow::{Notices, RESCAN};

/// Looks in which a changed file must be the same before it is refused: a second, or somewhat more.
const SURE: u32 = 10;

/// Files that are not as they were, and how many looks found them the same.
struct Change {
    files: Files,
    looks: u32,
}

impl Reload {
    /// Follows the configuration at `path`, which was read from `known`, until `stop` is cancelled. Runs once.
    pub async fn follow(&self, path: &Path, mut known: Files, stop: CancellationToken) {
        let mut notices = Notices::new(Arc::clone(&self.parts.clock));
        let mut change: Option<Change> = None;
        if !notices.only_of(known.paths()) {
            tracing::warn!(file = %path.display(), "no notices of a changed configuration: looking every {RESCAN:?}");
        }
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.asked.notified() => {
                    if let Some(reading) = aside(path, Reading::of).await {
                        (known, change) = (self.take(reading).await, None);
                        notices.only_of(known.paths());
                    }
                    continue;
                }
                () = notices.next(change.is_some()) => {}
            }
            let before = known.clone();
            let Some(now) = aside(path, move |_| before.now()).await else { continue };
            if now == known {
                change = None;
                continue;
            }
            let looks = match &mut change {
                Some(change) if change.files == now => {
                    change.looks += 1;
                    change.looks
                }
                _ => {
                    change = Some(Change { files: now, looks: 0 });
                    continue;
                }
            };
            // Good, it is taken at the first look that finds it unchanged; bad, it is left alone until the last.
            if looks != 1 && looks < SURE {
                continue;
            }
            let Some(reading) = aside(path, Reading::of).await else { continue };
            if reading.config.is_err() && looks < SURE {
                continue;
            }
            (known, change) = (self.take(reading).await, None);
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
        match self.apply(&config).await {
            Ok(_) => files,
            Err(problems) => {
                self.refuse(problems);
                // What the policies refuse, another file of theirs may mend.
                let policies = config.bindings().filter_map(|(_, binding)| binding);
                let policies: std::collections::BTreeSet<_> =
                    policies.map(|binding| self.parts.catalog.path(&binding.name)).collect();
                let with_policies = files.clone();
                aside(Path::new(""), move |_| with_policies.and(policies)).await.unwrap_or(files)
            }
        }
    }
}

/// Runs what reads files off the async threads; none when the runtime goes away meanwhile.
async fn aside<T: Send + 'static>(path: &Path, work: impl FnOnce(&Path) -> T + Send + 'static) -> Option<T> {
    let path = path.to_path_buf();
    tokio::task::spawn_blocking(move || work(&path)).await.ok()
}
