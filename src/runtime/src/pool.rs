//! Closures that would hold up the reactor (password hashes, disk reads) run here, a bounded number at a time.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use tokio::sync::Semaphore;

/// A bounded place to run blocking or CPU-heavy closures. Clones share the bounds.
#[derive(Clone, Debug)]
pub struct Pool {
    name: &'static str,
    /// Those running and those waiting.
    places: Arc<Semaphore>,
    /// Those running.
    workers: Arc<Semaphore>,
    inline: bool,
}

/// Why a closure gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// As many as may wait are waiting; the closure did not run. Shed the load: try later.
    #[error("the {0} pool has no place left to wait")]
    Busy(&'static str),
    /// The closure panicked.
    #[error("work in the {0} pool panicked")]
    Panicked(&'static str),
    /// The process is shutting down; the closure did not run.
    #[error("the {0} pool has stopped")]
    Stopped(&'static str),
}

impl Pool {
    pub(crate) fn new(name: &'static str, workers: usize, waiting: usize, inline: bool) -> Self {
        let workers = workers.max(1);
        Self {
            name,
            places: Arc::new(Semaphore::new(workers.saturating_add(waiting))),
            workers: Arc::new(Semaphore::new(workers)),
            inline,
        }
    }

    /// Runs `work` and waits for its answer. When the caller stops waiting before the work began, it never runs;
    /// once begun it is finished, and its place stays taken until then. Its log lines carry the caller's fields.
    ///
    /// # Errors
    /// [`PoolError`] says which of them.
    pub async fn run<T, F>(&self, work: F) -> Result<T, PoolError>
    where
        T: Send + 'static,
        F: FnOnce() -> T + Send + 'static,
    {
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| PoolError::Busy(self.name))?;
        let worker = Arc::clone(&self.workers)
            .acquire_owned()
            .await
            .map_err(|_| PoolError::Stopped(self.name))?;
        let span = tracing::Span::current();
        let work = move || {
            let work = || span.in_scope(work);
            // Caught here so that both kinds of pool say the same, and the permits go when the work is done.
            let answer = catch_unwind(AssertUnwindSafe(work));
            drop((worker, place));
            answer
        };
        let answer = if self.inline {
            // As on a real pool, the caller's other half runs first.
            tokio::task::yield_now().await;
            work()
        } else {
            #[expect(clippy::disallowed_methods, reason = "bounded by the permits above")]
            let running = tokio::task::spawn_blocking(work);
            running.await.map_err(|_| PoolError::Stopped(self.name))?
        };
        answer.map_err(|_| PoolError::Panicked(self.name))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Law 11: a pool runs and queues no more than it was told.
    #[tokio::test]
    async fn work_beyond_the_bounds_is_refused() {
        let pool = Pool::new("test", 1, 1, false);
        let (started, is_started) = tokio::sync::oneshot::channel();
        let (release, released) = mpsc::channel::<()>();
        let running = tokio::spawn({
            let pool = pool.clone();
            async move {
                pool.run(move || {
                    started.send(()).unwrap();
                    released.recv().unwrap();
                    1
                })
                .await
            }
        });
        is_started.await.unwrap();
        let mut waiting = Box::pin(pool.run(|| 2));
        assert!(futures_now(waiting.as_mut()).await.is_none());
        assert_eq!(pool.run(|| 3).await, Err(PoolError::Busy("test")));
        release.send(()).unwrap();
        assert_eq!(running.await.unwrap(), Ok(1));
        assert_eq!(waiting.await, Ok(2));
        assert_eq!(pool.run(|| 4).await, Ok(4));
    }

    #[tokio::test]
    async fn a_panic_is_an_error_and_frees_its_place() {
        for inline in [false, true] {
            let pool = Pool::new("test", 1, 0, inline);
            let failed: Result<(), _> = pool.run(|| panic!("on purpose")).await;
            assert_eq!(failed, Err(PoolError::Panicked("test")));
            assert_eq!(pool.run(|| 1).await, Ok(1));
        }
    }

    #[tokio::test]
    async fn a_simulation_runs_work_on_its_own_thread() {
        let here = std::thread::current().id();
        let pool = Pool::new("test", 1, 0, true);
        assert_eq!(pool.run(|| std::thread::current().id()).await, Ok(here));
    }

    /// Polls once.
    async fn futures_now<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(context) {
                std::task::Poll::Ready(value) => Some(value),
                std::task::Poll::Pending => None,
            })
        })
        .await
    }
}
