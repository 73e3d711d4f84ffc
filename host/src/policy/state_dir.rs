//! The host's own folder: what it keeps of policies from one start to the next.
//!
//! Whoever can write there can run native code in the host, since compiled code is loaded from it. So it is refused
//! unless it belongs to the host's own user and nobody else can write to it. Nothing is ever loaded from it that a
//! file in `policies/` did not become on this host first.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compiled::CompiledCode;
use super::last_good::LastGood;

/// The host's own folder, found to be private.
#[derive(Clone, Debug)]
pub struct StateDir {
    pub(super) compiled: CompiledCode,
    pub(super) last_good: LastGood,
    /// Held for as long as the host may use the folder; the system gives it back if the host crashes.
    pub(super) lock: Arc<File>,
}

/// Why a folder cannot be the host's own.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// It cannot be made or written to.
    #[error("failed to write to {path}: name a folder that the host can write to, or write `state: none`", path = .0.display())]
    Write(PathBuf, #[source] io::Error),
    /// Something else is there.
    #[error("{path} is not a folder of its own (a file or a link is there)", path = .0.display())]
    NotAFolder(PathBuf),
    /// Others can write there.
    #[error(
        "others than its owner can write to {path} (mode {mode:o}), and what is there runs as the host: \
         `chmod go-w {path}`", path = .path.display()
    )]
    Shared {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another host uses it.
    #[error("another host uses {path}: name another folder for this one, such as `state: ./.backstop-2`", path = .0.display())]
    InUse(PathBuf),
    /// It is another user's.
    #[error("{path} belongs to another user, and what is there runs as the host: name a folder of the host's own", path = .0.display())]
    Foreign(PathBuf),
}

impl StateDir {
    /// Makes the folder at `path` unless it is there, for this user alone, and checks that nobody else can write to it.
    ///
    /// # Errors
    /// When it cannot be made, or others can write to it.
    pub fn open(path: &Path) -> Result<Self, StateDirError> {
        let (compiled, last_good) = (path.join("compiled"), path.join("last-good"));
        for folder in [path, &compiled, &last_good] {
            make_private(folder)?;
        }
        let failed = |error| StateDirError::Write(path.to_owned(), error);
        let lock = File::create(path.join("lock")).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => StateDirError::InUse(path.to_owned()),
            TryLockError::Error(error) => failed(error),
        })?;
        for folder in [&compiled, &last_good] {
            sweep(folder).map_err(failed)?;
        }
        let lock = Arc::new(lock);
        Ok(Self { lock, compiled: CompiledCode::new(compiled), last_good: LastGood::new(last_good) })
    }
}

fn make_private(folder: &Path) -> Result<(), StateDirError> {
    let failed = |error| StateDirError::Write(folder.to_owned(), error);
    let mut maker = fs::DirBuilder::new();
    maker.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut maker, 0o700);
    maker.create(folder).map_err(|error| match fs::symlink_metadata(folder) {
        Ok(found) if !found.is_dir() => StateDirError::NotAFolder(folder.to_owned()),
        _ => failed(error),
    })?;
    // The link itself is looked at, not what it leads to.
    let metadata = fs::symlink_metadata(folder).map_err(failed)?;
    if !metadata.is_dir() {
        return Err(StateDirError::NotAFolder(folder.to_owned()));
    }
    // Whose files are made here tells who we are, and that we can make them.
    let probe = tempfile::tempfile_in(folder).map_err(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        if probe.metadata().map_err(failed)?.uid() != metadata.uid() {
            return Err(StateDirError::Foreign(folder.to_owned()));
        }
        let mode = metadata.mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(StateDirError::Shared { path: folder.to_owned(), mode });
        }
    }
    drop(probe);
    Ok(())
}

/// Removes what a crash left half-written.
fn sweep(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(HALF_WRITTEN) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// What the names of files begin with that are being written.
const HALF_WRITTEN: &str = ".half-written-";

/// Writes `parts`, one after the other, beside `file` and renames: whoever reads it sees the old bytes or the new ones.
pub(super) fn write_whole(file: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    // Readable by its owner alone, and removed if it is not renamed.
    let mut beside = tempfile::Builder::new().prefix(HALF_WRITTEN).tempfile_in(folder)?;
    for part in parts {
        beside.write_all(part)?;
    }
    // Or a power cut could leave the new name on nothing.
    beside.as_file().sync_all()?;
    beside.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let state = dir.path().join("state");
        StateDir::open(&state).expect("it is made");
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&state), mode(&state.join("compiled"))), (0o700, 0o700));
        fs::write(state.join("compiled/.half-written-x"), "").expect("written");
        StateDir::open(&state).expect("it is used again");
        assert!(!state.join("compiled/.half-written-x").exists(), "what a crash left is gone");
        for (folder, bits) in [(state.clone(), 0o770), (state.join("compiled"), 0o702)] {
            fs::set_permissions(&folder, fs::Permissions::from_mode(bits)).expect("set");
            let refused = StateDir::open(&state).expect_err("others can write there");
            assert!(matches!(&refused, StateDirError::Shared { path, .. } if *path == folder), "{refused}");
            fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).expect("set");
        }
    }

    #[test]
    fn two_hosts_do_not_share_a_folder() {
        let dir = tempfile::tempdir().expect("a folder");
        let first = StateDir::open(dir.path()).expect("it is free");
        let refused = StateDir::open(dir.path()).expect_err("it is in use");
        assert!(matches!(refused, StateDirError::InUse(_)), "{refused}");
        drop(first);
        StateDir::open(dir.path()).expect("it is free again");
    }

    #[test]
    fn a_link_or_a_file_in_its_place_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let (linked, file) = (dir.path().join("linked"), dir.path().join("file"));
        symlink(dir.path(), &linked).expect("linked");
        fs::write(&file, "").expect("written");
        for path in [linked, file] {
            let refused = StateDir::open(&path).expect_err("it is no folder of its own");
            assert!(matches!(refused, StateDirError::NotAFolder(_)), "{refused}");
        }
    }
}
