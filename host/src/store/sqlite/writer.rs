//! The one thread that writes, and its group commit.
//!
//! It takes what waits, up to [`Bounds::group`] jobs or [`Bounds::group_bytes`] of bodies, runs it in one transaction,
//! commits once, and only then replies. So many callers share one fsync, and nobody is answered before their change is
//! on disk. A job that nobody waits for (an attempt to be written down) does not call for a commit of its own: it lies
//! by for [`Bounds::patience`] while there is nothing else to do, and joins the next commit that somebody does wait for. Under load there are
//! half as many commits then, and far fewer pages are written more than once.
//!
//! A job that fails undoes its own changes alone: jobs hardly ever fail, so they run without savepoints, and when one
//! does fail, the whole group is undone and run again with one for each. When the commit itself fails (a full disk, an
//! I/O error) every job of the group fails, and the thread goes on with the next group.
//!
//! A caller that stops waiting does not stop its job. A claim nobody received lapses with its lease.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::opening::HostLock;
use crate::clock::Stopwatch;
use crate::store::StoreError;

/// Long enough that under load a commit comes along, and short beside the pause before any retry.
const PATIENCE: Duration = Duration::from_millis(2);

/// How much may wait, and how much shares a commit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Jobs waiting, and as many again that lie by; more are refused as saturated.
    pub(super) queue: usize,
    /// Bytes of bodies waiting; a job that brings more is refused as saturated, unless it is the only one.
    pub(super) queue_bytes: usize,
    /// Jobs in one commit, and what lies by besides.
    pub(super) group: usize,
    /// Bytes of bodies after which no further job joins a commit: the log never holds much more than this at once.
    pub(super) group_bytes: usize,
    /// How long a job lies by that nobody waits for, while the thread is idle.
    pub(super) patience: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { queue: 8192, queue_bytes: 256 << 20, group: 512, group_bytes: 16 << 20, patience: PATIENCE }
    }
}

/// The handle of the writing thread.
#[derive(Debug)]
pub(super) struct Writer {
    queue: RwLock<Option<SyncSender<Call>>>,
    /// The thread has it, so that what lies by does not outlast it.
    lying_by: Weak<LyingBy>,
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
        let (queue, calls) = sync_channel(bounds.queue);
        let (lying_by, waiting_bytes) = (Arc::new(LyingBy::default()), Arc::new(AtomicUsize::new(0)));
        let jobs = Jobs { calls, bounds, lying_by: Arc::clone(&lying_by) };
        let lying_by = Arc::downgrade(&lying_by);
        let waiting = Arc::clone(&waiting_bytes);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                serve(&connection, &lock, &jobs, &waiting);
                let ending = finish(connection);
                drop(lock);
                ending
            })
            .map_err(|error| StoreError::Unavailable(error.into()))?;
        let (queue, thread) = (RwLock::new(Some(queue)), Mutex::new(Some(thread)));
        Ok(Self { queue, lying_by, waiting_bytes, bounds, thread })
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

    /// As [`Writer::run`], but for work that nobody waits for: it is done before any that is enqueued after it, in the
    /// commit that those call for, or when it has lain by for [`Bounds::patience`]. It carries no body.
    ///
    /// # Errors
    /// As [`Writer::run`].
    pub(super) async fn run_in_company<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.lay_by(Box::new(Task { weight: 0, work, result: None, reply }))?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    fn lay_by(&self, job: Box<dyn Job>) -> Result<(), StoreError> {
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
        let queue = queue.as_ref().ok_or_else(closed)?;
        let lying_by = self.lying_by.upgrade().ok_or_else(closed)?;
        let mut lying_by = lying_by.locked();
        if lying_by.len() >= self.bounds.queue {
            return Err(StoreError::Saturated);
        }
        // The thread is told of the first one only: not to wake it for each is what this is for. Where the queue is full
        // it is awake.
        if lying_by.is_empty()
            && let Err(TrySendError::Disconnected(_)) = queue.try_send(Call::LookBeside)
        {
            return Err(closed());
        }
        lying_by.push_back(job);
        Ok(())
    }

    fn enqueue(&self, job: Box<dyn Job>) -> Result<(), StoreError> {
        let weight = job.weight();
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
        let queue = queue.as_ref().ok_or_else(closed)?;
        let before = self.waiting_bytes.fetch_add(weight, Ordering::Relaxed);
        let sent = if weight > 0 && before > 0 && before.saturating_add(weight) > self.bounds.queue_bytes {
            Err(StoreError::Saturated)
        } else {
            queue.try_send(Call::Do(job)).map_err(|refused| match refused {
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

/// What the thread is called for.
enum Call {
    Do(Box<dyn Job>),
    /// Something lies by.
    LookBeside,
}

/// Jobs that nobody waits for, in the order they came.
#[derive(Default)]
struct LyingBy(Mutex<VecDeque<Box<dyn Job>>>);

impl fmt::Debug for LyingBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LyingBy").finish_non_exhaustive()
    }
}

impl LyingBy {
    fn locked(&self) -> MutexGuard<'_, VecDeque<Box<dyn Job>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What there is for the thread to do.
struct Jobs {
    calls: Receiver<Call>,
    lying_by: Arc<LyingBy>,
    bounds: Bounds,
}

impl Jobs {
    /// Waits until something is to be done, and takes what shares its commit: what lay by first. None when no caller is
    /// left and nothing waits.
    fn next_group(&self) -> Option<Vec<Box<dyn Job>>> {
        loop {
            let first = self.first_call();
            let is_over = matches!(first, Err(RecvTimeoutError::Disconnected));
            let group = self.group_with(first.ok());
            if is_over || !group.is_empty() {
                return (!group.is_empty()).then_some(group);
            }
        }
    }

    /// Waits for a job that calls for a commit, or until something has lain by for long enough.
    fn first_call(&self) -> Result<Box<dyn Job>, RecvTimeoutError> {
        let mut lying_by = (!self.lying_by.locked().is_empty()).then(Stopwatch::start);
        loop {
            let call = match lying_by {
                None => self.calls.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(since) => self.calls.recv_timeout(self.bounds.patience.saturating_sub(since.elapsed())),
            };
            match call? {
                Call::Do(job) => return Ok(job),
                Call::LookBeside => lying_by = lying_by.or_else(|| Some(Stopwatch::start())),
            }
        }
    }

    /// What shares a commit with `first`.
    fn group_with(&self, first: Option<Box<dyn Job>>) -> Vec<Box<dyn Job>> {
        let mut called = Vec::from_iter(first);
        let mut bytes: usize = called.iter().map(|job| job.weight()).sum();
        while called.len() < self.bounds.group && bytes < self.bounds.group_bytes {
            match self.calls.try_recv() {
                Ok(Call::Do(job)) => {
                    bytes = bytes.saturating_add(job.weight());
                    called.push(job);
                }
                Ok(Call::LookBeside) => {}
                Err(_) => break,
            }
        }
        self.lying_by.locked().drain(..).chain(called).collect()
    }
}

/// Serves until no caller is left and nothing waits.
fn serve(connection: &Connection, lock: &HostLock, jobs: &Jobs, waiting_bytes: &AtomicUsize) {
    while let Some(mut group) = jobs.next_group() {
        let bytes = group.iter().map(|job| job.weight()).sum();
        // Looked at before, so that nothing is written that would be gone; and after, so that nothing is promised.
        let committed = lock.check().and_then(|()| commit(connection, &mut group)).and_then(|()| lock.check());
        let committed = committed.map_err(Arc::new);
        if let Err(error) = &committed {
            tracing::error!(%error, jobs = group.len(), "a commit failed: none of its changes are stored");
        }
        waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        for job in group {
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
