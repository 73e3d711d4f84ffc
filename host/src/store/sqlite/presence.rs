//! Whether the files that are open are still those that have the store's name.
//!
//! A file that is removed or replaced stays as it was for whoever has it open. A host that wrote on would promise what
//! is gone with its process, so it stops accepting instead, and goes on once the files are back.

use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ffi;

/// The main file and its log, as they were when they were opened.
#[derive(Debug)]
pub(super) struct Presence(Vec<(PathBuf, Identity)>);

/// What tells a file from any other: its device and its number there.
type Identity = (u64, u64);

impl Presence {
    /// Remembers the database at `path` and the `log` beside it.
    ///
    /// # Errors
    /// When one of them is not there.
    pub(super) fn of(path: &Path, log: &Path) -> io::Result<Self> {
        let remembered = [path, log].map(|path| Ok((path.to_owned(), identity(path)?)));
        remembered.into_iter().collect::<io::Result<_>>().map(Self)
    }

    /// Checks that they are there. It asks the file system twice, which takes some microseconds.
    ///
    /// # Errors
    /// When one of them is not.
    pub(super) fn check(&self) -> rusqlite::Result<()> {
        match self.0.iter().find(|(path, known)| identity(path).ok() != Some(*known)) {
            None => Ok(()),
            Some((path, _)) => Err(rusqlite::Error::SqliteFailure(
                ffi::Error::new(ffi::SQLITE_READONLY_DBMOVED),
                Some(format!("{} was removed or replaced while in use: put it back", path.display())),
            )),
        }
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> io::Result<Identity> {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Elsewhere a file that is open cannot be removed.
#[cfg(not(unix))]
fn identity(path: &Path) -> io::Result<Identity> {
    std::fs::metadata(path).map(|_| (0, 0))
}
