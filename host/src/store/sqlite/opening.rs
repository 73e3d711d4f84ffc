//! Opening the file: the lock that keeps other hosts away, the settings of each connection, the checks before use.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::presence::Presence;
use super::{log, schema};
use crate::store::StoreError;

/// How long a connection waits for another program (a backup, a shell) that has the file locked.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest file that is looked through for damage before use, in bytes: that takes a quarter of a second where the
/// file is in memory. A larger one would delay the start for as long as the disk likes, so its damage is found only
/// when it is read.
const LOOKED_THROUGH: u64 = 256 << 20;

/// How many compiled statements a connection keeps; there are fewer than this.
const STATEMENTS: usize = 64;

/// Proof that this host alone has the file, and that it has it still. Given up when dropped, or when the process ends,
/// however it ends.
#[derive(Debug)]
pub(super) struct HostLock {
    #[expect(dead_code, reason = "held for what its drop does")]
    lock: File,
    files: Presence,
}

impl HostLock {
    /// Checks that what is written goes into the file that has the store's name.
    ///
    /// # Errors
    /// When that was removed or replaced.
    pub(super) fn check(&self) -> rusqlite::Result<()> {
        self.files.check()
    }
}

/// A file ready for writing.
pub(super) struct Opened {
    pub(super) path: PathBuf,
    pub(super) lock: HostLock,
    pub(super) connection: Connection,
}

/// Opens or makes the file at `path`, and takes it for this host.
///
/// # Errors
/// As [`super::SqliteStore::open`].
pub(super) fn open(path: &Path) -> Result<Opened, StoreError> {
    for name in [path.to_owned(), beside(path, "-wal"), beside(path, "-shm")] {
        refuse_what_is_no_file(&name)?;
    }
    refuse_a_log_without_its_file(path)?;
    make_private(path)?;
    // The same file under two names must have one lock.
    let path = path.canonicalize().map_err(|error| StoreError::Unavailable(error.into()))?;
    let lock = lock(&path)?;
    let (log, named) = (beside(&path, "-wal"), |error| match error {
        StoreError::Unusable(reason) => StoreError::Unusable(format!("{}: {reason}", path.display())),
        other => other,
    });
    look_at_log(&log).map_err(named)?;
    let connection = connect_writer(&path).map_err(named)?;
    let files = Presence::of(&path, &log).map_err(|error| StoreError::Unavailable(error.into()))?;
    Ok(Opened { path, lock: HostLock { lock, files }, connection })
}

/// # Errors
/// [`StoreError::Unusable`] when there is something else than a file at `path`, which could not be written (a folder),
/// would be waited for (a pipe) or lost (a device).
fn refuse_what_is_no_file(path: &Path) -> Result<(), StoreError> {
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(StoreError::Unusable(format!("{} is not a regular file", path.display())));
    }
    Ok(())
}

/// Makes an empty file that only its owner can read, unless there is one: requests may carry credentials. SQLite
/// gives its side files the same permissions.
///
/// # Errors
/// As [`refuse_what_is_no_file`].
fn make_private(path: &Path) -> Result<(), StoreError> {
    refuse_what_is_no_file(path)?;
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop).map_err(|error| StoreError::Unavailable(error.into()))
}

/// The file beside `path` whose name goes on with `ending`.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn lock(path: &Path) -> Result<File, StoreError> {
    let name = beside(path, ".lock");
    make_private(&name)?;
    let file = OpenOptions::new().write(true).open(&name).map_err(|error| StoreError::Unavailable(error.into()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Unusable(format!(
            "{} is in use by another host, which holds {}",
            path.display(),
            name.display()
        ))),
        Err(TryLockError::Error(error)) => Err(StoreError::Unavailable(error.into())),
    }
}

fn connect_writer(path: &Path) -> Result<Connection, StoreError> {
    let mut connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Looked at before any setting is written, so that another program's file stays as it was. Closing the connection
    // would write what the log holds into a damaged file.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    if std::fs::metadata(path).is_ok_and(|file| file.len() <= LOOKED_THROUGH) {
        look_through(&connection)?;
    }
    schema::version(&connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    // Takes effect only in a file that is still empty; freed pages can then be given back (see `sweep`).
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // In WAL mode FULL means one fsync for each commit: what is answered survives a power cut.
    connection.pragma_update(None, "synchronous", "FULL")?;
    if std::fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0) {
        begin_a_new_log(&connection);
    }
    // The log is reset once its content is in the main file, and cut back to this after a burst: 64 MiB.
    connection.pragma_update(None, "journal_size_limit", 64 << 20)?;
    // It is brought into the main file every 16 MiB (of 4 KiB pages): the pages that every message rewrites, such as
    // the ends of the indexes, are then copied once for many messages, and the main file is synced less often.
    connection.pragma_update(None, "wal_autocheckpoint", 4096)?;
    // Savepoints keep what they may have to restore in memory, not in a temporary file.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    // 16 MiB, in KiB: what messages on their way touch are the ends of the tables.
    connection.pragma_update(None, "cache_size", -(16 << 10))?;
    keep_plans(&connection)?;
    schema::prepare(&mut connection)?;
    Ok(connection)
}

/// Brings what an earlier host left in the log into the main file, and empties the log. What a power cut left of a
/// commit would otherwise stay behind the commits to come; after another power cut it would look like proof of damage
/// ([`log::damage`]).
///
/// Where that cannot be done now (the disk is full, or another program reads the file) the log is gone on with, as
/// SQLite would.
fn begin_a_new_log(connection: &Connection) {
    match connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0)) {
        Ok(0) => {}
        Ok(_) => tracing::warn!("another program has the store's file open: its log is gone on with"),
        Err(error) => tracing::warn!(%error, "could not empty the store's log: it is gone on with"),
    }
}

/// A log whose main file is gone, or empty, would be thrown away by SQLite as a leftover.
///
/// # Errors
/// [`StoreError::Unusable`] when there is one.
fn refuse_a_log_without_its_file(path: &Path) -> Result<(), StoreError> {
    let (log, length) = (beside(path, "-wal"), |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len()));
    if length(path) > 0 || length(&log) == 0 {
        return Ok(());
    }
    Err(StoreError::Unusable(format!(
        "{} is empty or not there, and yet its log {} holds messages: put the file back that belongs to the log, or move \
         the log away to begin anew",
        path.display(),
        log.display()
    )))
}

/// Looks for damage in the log, which SQLite passes over.
///
/// # Errors
/// [`StoreError::Unusable`] when there is any; [`StoreError::Unavailable`] when it cannot be read.
fn look_at_log(log: &Path) -> Result<(), StoreError> {
    if std::fs::metadata(log).is_ok_and(|file| file.len() > LOOKED_THROUGH) {
        return Ok(());
    }
    match log::damage(log).map_err(|error| StoreError::Unavailable(error.into()))? {
        None => Ok(()),
        Some(at) => Err(StoreError::Unusable(format!(
            "its log {log} is damaged and nothing was changed in it: restore a backup, or go on without what was \
             written after the damage with `truncate -s {at} {log}`",
            log = log.display()
        ))),
    }
}

/// Looks for pages that are damaged, and rows that are not where they belong. Changes nothing.
///
/// # Errors
/// [`StoreError::Unusable`] when there are any: a host that started on them would lose messages without a word.
fn look_through(connection: &Connection) -> Result<(), StoreError> {
    let found = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    let damage = match found.map_err(StoreError::from) {
        Ok(found) if found == "ok" => return Ok(()),
        Ok(found) => found.replace(char::is_control, " "),
        Err(StoreError::Unusable(found)) => found,
        Err(other) => return Err(other),
    };
    Err(StoreError::Unusable(format!(
        "its file is damaged and nothing was changed in it ({damage}): restore a backup, or save what can be read with \
         `sqlite3 DAMAGED .recover | sqlite3 NEW` and put the new file in its place"
    )))
}

/// Opens a connection that can only read.
///
/// # Errors
/// [`StoreError`]
pub(super) fn connect_reader(path: &Path) -> Result<Connection, StoreError> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    keep_plans(&connection)?;
    Ok(connection)
}

/// Keeps compiled statements, and their plans whatever values they are run with. Without the latter SQLite compiles a
/// statement that reads a partial index anew for nearly every run.
fn keep_plans(connection: &Connection) -> rusqlite::Result<()> {
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)
}
