//! Batches: many calls share one round trip and one commit.
//!
//! A call waits in a queue of [`WAITING`] at most; one task takes from it. As long as nothing is on its way to the
//! database it sends at once whatever waits; while something is, it gathers, and sends a second or third batch only
//! when that has become worth its own commit. So a lone call never waits for company, and a busy host sends few, large
//! batches. Batches are statements of one round trip each, all or nothing; when one fails for what one of its calls
//! asks, the calls are repeated one by one, so that it fails alone.
//!
//! A caller that stops waiting does not stop its call.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use super::failure::Failure;
use crate::store::StoreError;

/// Calls waiting; more are refused as saturated.
pub(super) const WAITING: usize = 8192;

/// Bytes of bodies waiting; a call that brings more is refused as saturated, unless it is the only one.
const WAITING_BYTES: usize = 256 << 20;

/// Calls in one batch.
const LARGEST: usize = 256;

/// Bytes of bodies after which no further call joins a batch.
const LARGEST_BYTES: usize = 16 << 20;

/// Batches on their way at once.
const AT_ONCE: usize = 3;

/// Calls that are worth a batch of their own while another one is on its way.
const WORTH: usize = 64;

/// What is done with a batch.
pub(super) trait Work: Send + Sync + 'static {
    /// One call.
    type Call: Send + Sync + 'static;
    /// What a call is answered.
    type Answer: Send + 'static;

    /// Bytes of bodies that a call carries.
    fn weight(call: &Self::Call) -> usize;

    /// Does all the calls, which are at least one, and answers each.
    fn run(&self, calls: &[Self::Call]) -> impl Future<Output = Vec<Result<Self::Answer, Failure>>> + Send;
}

/// A queue of calls and the task that serves it.
pub(super) struct Batches<W: Work> {
    queue: Mutex<Option<mpsc::Sender<Job<W>>>>,
    waiting_bytes: Arc<AtomicUsize>,
}

struct Job<W: Work> {
    call: W::Call,
    weight: usize,
    reply: oneshot::Sender<Result<W::Answer, StoreError>>,
}

impl<W: Work> Batches<W> {
    /// Starts the task on `tasks`.
    pub(super) fn start(work: W, tasks: &TaskTracker) -> Self {
        let (queue, calls) = mpsc::channel(WAITING);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        tasks.spawn(serve(work, calls, Arc::clone(&waiting_bytes)));
        Self { queue: Mutex::new(Some(queue)), waiting_bytes }
    }

    /// Has the call done in one of the next batches.
    ///
    /// # Errors
    /// What it failed with; [`StoreError::Saturated`] when too much waits; [`StoreError::Unavailable`] when the store
    /// is closed.
    pub(super) async fn run(&self, call: W::Call) -> Result<W::Answer, StoreError> {
        let weight = W::weight(&call);
        let (reply, answer) = oneshot::channel();
        let before = self.waiting_bytes.fetch_add(weight, Ordering::Relaxed);
        let sent = if weight > 0 && before > 0 && before.saturating_add(weight) > WAITING_BYTES {
            Err(StoreError::Saturated)
        } else {
            self.enqueue(Job { call, weight, reply })
        };
        if let Err(refused) = sent {
            self.waiting_bytes.fetch_sub(weight, Ordering::Relaxed);
            return Err(refused);
        }
        answer.await.unwrap_or_else(|_| Err(Failure::Closed.into()))
    }

    fn enqueue(&self, job: Job<W>) -> Result<(), StoreError> {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.as_ref().ok_or(Failure::Closed)?.try_send(job).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => StoreError::Saturated,
            mpsc::error::TrySendError::Closed(_) => Failure::Closed.into(),
        })
    }

    /// Takes no further call. The task does those that wait, and ends.
    pub(super) fn stop(&self) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// Serves until the queue is closed and nothing waits.
async fn serve<W: Work>(work: W, mut calls: mpsc::Receiver<Job<W>>, waiting_bytes: Arc<AtomicUsize>) {
    let (mut waiting, mut received) = (VecDeque::new(), Vec::new());
    let mut on_their_way = FuturesUnordered::new();
    let mut open = true;
    while open || !waiting.is_empty() || !on_their_way.is_empty() {
        while may_go(on_their_way.len(), waiting.len()) {
            let batch = next_batch(&mut waiting);
            on_their_way.push(send(&work, batch, &waiting_bytes));
        }
        let room = LARGEST.saturating_sub(waiting.len());
        tokio::select! {
            Some(()) = on_their_way.next() => {}
            taken = calls.recv_many(&mut received, room), if open && room > 0 => {
                open = taken > 0;
                waiting.extend(received.drain(..));
            }
        }
    }
}

/// Whether a batch of `waiting` calls goes while so many are on their way.
fn may_go(on_their_way: usize, waiting: usize) -> bool {
    waiting > 0 && (on_their_way == 0 || (on_their_way < AT_ONCE && waiting >= WORTH))
}

fn next_batch<W: Work>(waiting: &mut VecDeque<Job<W>>) -> Vec<Job<W>> {
    let (mut calls, mut bytes) = (0, 0_usize);
    while let Some(job) = waiting.get(calls)
        && bytes < LARGEST_BYTES
        && calls < LARGEST
    {
        bytes = bytes.saturating_add(job.weight);
        calls += 1;
    }
    waiting.drain(..calls).collect()
}

async fn send<W: Work>(work: &W, batch: Vec<Job<W>>, waiting_bytes: &AtomicUsize) {
    let (mut calls, mut replies, mut bytes) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()), 0);
    for Job { call, weight, reply } in batch {
        calls.push(call);
        replies.push(reply);
        bytes += weight;
    }
    let answers = work.run(&calls).await;
    waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
    for (reply, answer) in replies.into_iter().zip(answers) {
        // A caller that is gone needs no reply.
        let _ = reply.send(answer.map_err(StoreError::from));
    }
}

/// Does the calls in one batch with `all`; when it fails for what one of them asks, each with a batch to itself.
pub(super) async fn all_or_each<'c, C, A, F>(calls: &'c [C], all: impl Fn(&'c [C]) -> F) -> Vec<Result<A, Failure>>
where
    F: Future<Output = Result<Vec<A>, Failure>>,
{
    let failure = match all(calls).await {
        Ok(answers) => return answers.into_iter().map(Ok).collect(),
        Err(failure) => failure,
    };
    if calls.len() < 2 || !failure.is_about_a_row() {
        return calls.iter().map(|_| Err(failure.clone())).collect();
    }
    let mut answers = Vec::with_capacity(calls.len());
    for call in calls.chunks(1) {
        answers.push(match all(call).await {
            Ok(mut answer) => answer.pop().ok_or(Failure::Closed),
            Err(failure) => Err(failure),
        });
    }
    answers
}
