//! Work that goes on to its end, even when the caller it is done for hangs up.
//!
//! It is done in the caller's own task for as long as the caller is there: that spares each request the way to a task
//! of its own and back. What is not done when the caller goes is moved to a task then.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// The work's future. It answers with what the work came to, or with what it panicked with.
pub(super) struct Onward<W>
where
    W: Future<Output: Send> + Send + 'static,
{
    work: Option<Pin<Box<W>>>,
    tasks: TaskTracker,
    /// Counts the work among the tasks, wherever it is done.
    _counted: TaskTrackerToken,
}

impl<W> Onward<W>
where
    W: Future<Output: Send> + Send + 'static,
{
    /// Does `work`; `tasks` waits for it, and has it once its caller is gone.
    pub(super) fn new(tasks: &TaskTracker, work: W) -> Self {
        Self { work: Some(Box::pin(work)), tasks: tasks.clone(), _counted: tasks.token() }
    }
}

impl<W> Future for Onward<W>
where
    W: Future<Output: Send> + Send + 'static,
{
    type Output = Result<W::Output, Box<dyn Any + Send>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = self.work.as_mut() else { return Poll::Pending };
        // What panicked is never polled again.
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        let ended = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(output)) => Ok(output),
            Err(panicked) => Err(panicked),
        };
        self.work = None;
        Poll::Ready(ended)
    }
}

impl<W> Drop for Onward<W>
where
    W: Future<Output: Send> + Send + 'static,
{
    fn drop(&mut self) {
        // Outside of the runtime it is over with everything anyway.
        if let Some(work) = self.work.take()
            && let Ok(runtime) = Handle::try_current()
        {
            self.tasks.spawn_on(work, &runtime);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn it_answers_what_the_work_came_to() {
        let tasks = TaskTracker::new();
        assert_eq!(Onward::new(&tasks, async { 7 }).await.ok(), Some(7));
        assert!(tasks.is_empty());
    }

    #[tokio::test]
    async fn it_goes_on_when_nobody_waits_any_more_and_is_waited_for() {
        let (tasks, go, steps) = (TaskTracker::new(), Arc::new(Notify::new()), Arc::new(AtomicU32::new(0)));
        let work = {
            let (go, steps) = (Arc::clone(&go), Arc::clone(&steps));
            async move {
                steps.fetch_add(1, Ordering::SeqCst);
                go.notified().await;
                steps.fetch_add(1, Ordering::SeqCst);
            }
        };
        let mut caller = Box::pin(Onward::new(&tasks, work));
        tokio::select! {
            biased;
            _ = &mut caller => {}
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(steps.load(Ordering::SeqCst), 1, "begun in the caller's own task");
        drop(caller);
        assert_eq!(tasks.len(), 1);
        go.notify_one();
        tasks.close();
        tasks.wait().await;
        assert_eq!(steps.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn work_that_was_never_begun_is_done_as_well() {
        let (tasks, done) = (TaskTracker::new(), Arc::new(AtomicU32::new(0)));
        let doing = Arc::clone(&done);
        drop(Onward::new(&tasks, async move { doing.fetch_add(1, Ordering::SeqCst) }));
        tasks.close();
        tasks.wait().await;
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_panic_ends_the_work_and_not_the_caller() {
        let tasks = TaskTracker::new();
        let answer = Onward::new(&tasks, async { assert!(tasks_are_calm(), "broken") }).await;
        assert!(answer.is_err() && tasks.is_empty());
    }

    fn tasks_are_calm() -> bool {
        std::hint::black_box(false)
    }
}
