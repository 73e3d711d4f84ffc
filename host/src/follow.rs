//! Following files: what tells one state of a file from another, and when to look again.
//!
//! Level-triggered: a notice from the file system only makes one look sooner. The truth is the files themselves, looked
//! at every [`RESCAN`] whether there was a notice or not. A file is read once it has held still for [`SETTLE`], so that
//! one still being written is waited for. What is then done with it is not known here.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

use crate::clock::Clock;

/// How often files are looked at without a notice.
pub const RESCAN: Duration = Duration::from_secs(2);

/// How long a changed file must hold still before it is read.
pub const SETTLE: Duration = Duration::from_millis(100);

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    size: u64,
    modified: Option<SystemTime>,
    inode: u64,
}

impl Stamp {
    /// The state of what lies at `path`; none when nothing does. What is no file (a folder, a link that leads nowhere)
    /// has one too, so that reading it fails, and the operator is told why. Blocks.
    pub fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).or_else(|_| std::fs::symlink_metadata(path)).ok()?;
        Some(Self { size: metadata.len(), modified: metadata.modified().ok(), inode: inode(&metadata) })
    }
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

#[cfg(not(unix))]
const fn inode(_: &Metadata) -> u64 {
    0
}

/// Notices that something changed, as far as the system gives any.
pub struct Notices {
    clock: Arc<dyn Clock>,
    /// One notice waiting is as good as many.
    came: mpsc::Receiver<()>,
    watcher: Option<RecommendedWatcher>,
    watched: Vec<PathBuf>,
}

impl Notices {
    /// Of nothing yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let (notice, came) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is an event too, and we read them ourselves.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = notice.try_send(());
            }
        });
        Self { clock, came, watcher: watcher.ok(), watched: Vec::new() }
    }

    /// Of these files and folders (what lies directly in them) from now on, and of no others. Answers whether the system
    /// gives notices of all of them; what it gives none of is still looked at every [`RESCAN`].
    ///
    /// A file that another one took the place of is not noticed again: say it anew after every change. A folder is; but
    /// one that much is written in, such as the store's, costs a notice for every write.
    pub fn only_of(&mut self, paths: impl IntoIterator<Item = PathBuf>) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        for path in self.watched.drain(..) {
            // It may be gone, and its watch with it.
            let _ = watcher.unwatch(&path);
        }
        let mut all = true;
        for path in paths {
            match watcher.watch(&path, RecursiveMode::NonRecursive) {
                Ok(()) => self.watched.push(path),
                Err(_) => all = false,
            }
        }
        all
    }

    /// Waits until it is time to look again: at the next notice, and no later than after [`RESCAN`]; where a change has
    /// yet to hold still, after [`SETTLE`].
    pub async fn next(&mut self, unsettled: bool) {
        let pause = if unsettled { SETTLE } else { RESCAN };
        tokio::select! {
            () = self.clock.sleep(pause) => {}
            Some(()) = self.came.recv(), if !unsettled => {}
        }
    }
}
