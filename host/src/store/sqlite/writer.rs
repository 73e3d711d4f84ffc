//! The one thread that writes, and its group commit.
//!
//! It takes what waits, up to [`Bounds::group`] jobs or [`Bounds::group_bytes`] of bodies, runs it in one transaction,
//! commits once, and only then replies. So many callers share one fsync, and nobody is answered before their change is
//! on disk. A job that fails undoes its own changes alone: jobs hardly ever fail, so they run without savepoints, and
//! when one does fail, the whole group is undone and run again with one for each. When the commit itself fails (a full
//! disk, an I/O error) every job of the group fails, and the thread goes on with the next group.
//!
//! A caller that stops waiting does not stop its job. A claim nobody received lapses with its lease.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::opening::HostLock;
use crate::store::StoreError;

/// How much may wait, and how much shares a commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Jobs waiting; more are refused as saturated.
    pub(super) queue: usize,
    /// Bytes of bodies waiting; a job that brings more is refused as saturated, unless it is the only one.
    pub(super) queue_bytes: usize,
    /// Jobs in one commit.
    pub(super) group: usize,
    /// Bytes of bodies after which no further job joins a commit: the log never holds much more than this at once.
    pub(super) group_bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { queue: 8192, queue_bytes: 256 << 20, group: 512, group_bytes: 16 << 20 }
    }
}

/// The handle of the writing thread.
#[derive(Debug)]
pub(super) struct Writer {
    queue: RwLock<Option<SyncSender<Box<dyn Job>>>>,
    waiting_bytes: Arc<AtomicUsize>,
    bounds: Bounds,
    thread: Mutex<Option<JoinHandle<Result<(), StoreError>>>>,
}

impl Writer {
    /// Starts the thread. It holds `lock` for as long as it lives.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when no thread can be had.
    pub(super) fn start(connection: Connection, lock: HostLock, bounds: Bounds) -> Result<Self, StoreError> {
        let (queue, jobs) = sync_channel(bounds.queue);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let waiting = Arc::clone(&waiting_bytes);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                serve(&connection, &lock, &jobs, &waiting, bounds);
                let ending = finish(connection);
                drop(lock);
                ending
            })
            .map_err(|error| StoreError::Unavailable(error.into()))?;
        Ok(Self { queue: RwLock::new(Some(queue)), waiting_bytes, bounds, thread: Mutex::new(Some(thread)) })
    }

    /// Has `work` done in the next commit, and answers once that is on disk. `weight` is how many bytes of bodies it
    /// carries. It may be done twice, the first time in vain: what it does beside the transaction must bear that.
    ///
    /// # Errors
    /// What `work` failed with; [`StoreError::Saturated`] when too much waits; [`StoreError::Unavailable`] when the
    /// commit failed or the store is closed. Nothing of `work` is then stored.
    pub(super) async fn run<T, F>(&self, weight: usize, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.enqueue(Box::new(Task { weight, work, result: None, reply }))?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    fn enqueue(&self, job: Box<dyn Job>) -> Result<(), StoreError> {
        let weight = job.weight();
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
        let queue = queue.as_ref().ok_or_else(closed)?;
        let before = self.waiting_bytes.fetch_add(weight, Ordering::Relaxed);
        let sent = if weight > 0 && before > 0 && before.saturating_add(weight) > self.bounds.queue_bytes {
            Err(StoreError::Saturated)
        } else {
            queue.try_send(job).map_err(|refused| match refused {
                TrySendError::Full(_) => StoreError::Saturated,
                TrySendError::Disconnected(_) => closed(),
            })
        };
        if sent.is_err() {
            self.waiting_bytes.fetch_sub(weight, Ordering::Relaxed);
        }
        sent
    }

    /// Takes no further job. The thread does those that wait, and ends.
    pub(super) fn stop(&self) -> Ending {
        self.queue.write().unwrap_or_else(PoisonError::into_inner).take();
        Ending(self.thread.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if let Err(error) = self.stop().wait() {
            tracing::warn!(%error, "the store did not close in good order");
        }
    }
}

/// The end of the writing thread, to be waited for off the async threads.
pub(super) struct Ending(Option<JoinHandle<Result<(), StoreError>>>);

impl Ending {
    /// Blocks until the thread has ended.
    ///
    /// # Errors
    /// [`StoreError`] when it did not end in good order.
    pub(super) fn wait(self) -> Result<(), StoreError> {
        match self.0 {
            Some(thread) => thread.join().unwrap_or_else(|_| Err(closed())),
            None => Ok(()),
        }
    }
}

fn closed() -> StoreError {
    StoreError::Unavailable("the store is closed".into())
}

/// Something to be done within a transaction.
trait Job: Send {
    /// Bytes of bodies it carries.
    fn weight(&self) -> usize;
    /// Does it; answers whether its changes are to stay. Keeps the result, in the place of an earlier one.
    fn run(&mut self, connection: &Connection) -> bool;
    /// Answers its caller: with the kept result, or with why the commit failed.
    fn reply(self: Box<Self>, committed: Result<(), Arc<rusqlite::Error>>);
}

struct Task<T, F> {
    weight: usize,
    work: F,
    result: Option<Result<T, StoreError>>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnMut(&Connection) -> Result<T, StoreError> + Send,
{
    fn weight(&self) -> usize {
        self.weight
    }

    fn run(&mut self, connection: &Connection) -> bool {
        self.result.insert((self.work)(connection)).is_ok()
    }

    fn reply(self: Box<Self>, committed: Result<(), Arc<rusqlite::Error>>) {
        let result = match (committed, self.result) {
            // Its own failure says more than the group's.
            (_, Some(Err(error))) => Err(error),
            (Ok(()), Some(Ok(done))) => Ok(done),
            (Ok(()), None) => Err(closed()),
            (Err(error), _) => Err(StoreError::Unavailable(error.into())),
        };
        // A caller that is gone needs no reply.
        let _ = self.reply.send(result);
    }
}

/// Serves until no caller is left and nothing waits.
fn serve(
    connection: &Connection,
    lock: &HostLock,
    jobs: &Receiver<Box<dyn Job>>,
    waiting_bytes: &AtomicUsize,
    bounds: Bounds,
) {
    let mut group: Vec<Box<dyn Job>> = Vec::with_capacity(bounds.group);
    while let Ok(first) = jobs.recv() {
        let mut bytes = first.weight();
        group.push(first);
        while group.len() < bounds.group && bytes < bounds.group_bytes {
            let Ok(next) = jobs.try_recv() else { break };
            bytes = bytes.saturating_add(next.weight());
            group.push(next);
        }
        // Looked at before, so that nothing is written that would be gone; and after, so that nothing is promised.
        let committed = lock.check().and_then(|()| commit(connection, &mut group)).and_then(|()| lock.check());
        let committed = committed.map_err(Arc::new);
        if let Err(error) = &committed {
            tracing::error!(%error, jobs = group.len(), "a commit failed: none of its changes are stored");
        }
        waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        for job in group.drain(..) {
            job.reply(committed.clone());
        }
    }
}

/// Runs the group in one transaction.
///
/// # Errors
/// When nothing of the whole group is stored.
fn commit(connection: &Connection, group: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    step(connection, "BEGIN IMMEDIATE")?;
    let committed = if group.iter_mut().all(|job| job.run(connection)) {
        step(connection, "COMMIT")
    } else {
        one_by_one(connection, group)
    };
    if committed.is_err() && !connection.is_autocommit() {
        // Should even this fail, the next BEGIN says so to the next group.
        let _ = step(connection, "ROLLBACK");
    }
    committed
}

/// Undoes what the group has done, and runs it again so that each job's changes can be undone alone.
fn one_by_one(connection: &Connection, group: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    // After a grave error SQLite has ended the transaction itself.
    if !connection.is_autocommit() {
        step(connection, "ROLLBACK")?;
    }
    step(connection, "BEGIN IMMEDIATE")?;
    for job in group {
        step(connection, "SAVEPOINT job")?;
        if !job.run(connection) {
            // After a grave error this fails, and so does the group.
            step(connection, "ROLLBACK TO job")?;
        }
        step(connection, "RELEASE job")?;
    }
    step(connection, "COMMIT")
}

fn step(connection: &Connection, sql: &str) -> rusqlite::Result<()> {
    connection.prepare_cached(sql)?.execute([]).map(drop)
}

/// Brings the log into the main file and closes it.
fn finish(connection: Connection) -> Result<(), StoreError> {
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    connection.close().map_err(|(_, error)| error.into())
}

#[cfg(test)]
mod tests;
