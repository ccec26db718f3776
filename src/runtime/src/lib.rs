//! Time, randomness, threads and tasks, passed in so that a simulation can be the real server.
//!
//! Everything that makes two runs of a program differ comes through a [`Runtime`]: what time it is, what the
//! dice say, on which thread a closure runs, when a task starts. [`Runtime::system`] asks the operating system;
//! [`Runtime::simulated`] derives all of it from a seed and tokio's paused clock, on one thread. Clippy refuses
//! the direct ways (`clippy.toml` says which and why). `tokio::time` is free to use: the simulation pauses it.
//!
//! Two habits keep a simulated run repeatable: `tokio::select!` is written with `biased;` (its fairness is
//! random otherwise), and no order of effects comes out of a `HashMap`.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod clock;
mod life;
mod pool;
mod random;
pub mod watch;

use std::{
    future::{Future, poll_fn},
    io,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use tokio::task::JoinHandle;
use tracing::Instrument;

use life::Life;

pub use clock::Clock;
pub use pool::{Pool, PoolError};
pub use random::Random;

/// Where turns are by chance, a task is sent to the end of the queue one time in so many.
const LATER: u64 = 3;

/// The outside world as the server sees it. Cloning is one reference count.
#[derive(Clone, Debug)]
pub struct Runtime(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    random: Random,
    /// Of a simulated process.
    life: Option<Life>,
    /// Of a simulated process whose tasks take their turns by chance.
    turns: Option<Random>,
}

impl Runtime {
    /// The operating system's clock, randomness and threads.
    pub fn system() -> Self {
        Self(Arc::new(Inner {
            clock: Clock::system(),
            random: Random::system(),
            life: None,
            turns: None,
        }))
    }

    /// A world derived from `seed`.
    ///
    /// Call it inside a current-thread tokio runtime with a paused clock (`#[tokio::test(start_paused = true)]`,
    /// or `Builder::start_paused`): wall clock and monotonic clock then advance with tokio's alone. Without a
    /// paused clock it works too, in real time.
    pub fn simulated(seed: u64) -> Self {
        Self::simulated_ahead(seed, Duration::ZERO)
    }

    /// A world derived from `seed` in which the wall clock is `ahead` of where [`simulated`](Self::simulated) starts it: for a
    /// process that begins later than others, or whose clock is wrong.
    pub fn simulated_ahead(seed: u64, ahead: Duration) -> Self {
        Self::simulated_with(seed, ahead, None)
    }

    /// [`simulated_ahead`](Self::simulated_ahead), and the seed also decides whose turn it is: a task that could go on may have to
    /// let others go first, again and again. Tokio's own order is always the same, so it shows one interleaving of the many
    /// that several threads can bring about.
    pub fn shuffled_ahead(seed: u64, ahead: Duration) -> Self {
        // A stream of its own: whoever draws keys isn't disturbed by how often a task is looked at.
        Self::simulated_with(seed, ahead, Some(Random::seeded(!seed)))
    }

    fn simulated_with(seed: u64, ahead: Duration, turns: Option<Random>) -> Self {
        Self(Arc::new(Inner {
            clock: Clock::simulated(ahead),
            random: Random::seeded(seed),
            life: Some(Life::default()),
            turns,
        }))
    }

    /// Ends a simulated process as `kill -9` does: its tasks go no step further, and none begins any more. It does nothing to the
    /// operating system's process.
    pub fn kill(&self) {
        if let Some(life) = &self.0.life {
            life.end();
        }
    }

    /// What a future of this process comes to; `None` when the process is [killed](Self::kill) before. For what is done in it by
    /// somebody else's task, as a request that another process makes.
    pub async fn within<F: Future>(&self, future: F) -> Option<F::Output> {
        match &self.0.life {
            Some(life) => life.within(future).await,
            None => Some(future.await),
        }
    }

    /// Whether this world comes from a seed.
    pub fn is_simulated(&self) -> bool {
        self.0.life.is_some()
    }

    /// The wall clock and the monotonic clock.
    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }

    /// The source of random bytes, fit for keys and tokens.
    pub fn random(&self) -> &Random {
        &self.0.random
    }

    /// A new pool for blocking or CPU-heavy closures: at most `workers` run at once and at most `waiting` wait.
    /// In a simulation closures run inline, on the one thread.
    pub fn pool(&self, name: &'static str, workers: usize, waiting: usize) -> Pool {
        Pool::new(name, workers, waiting, self.is_simulated())
    }

    /// Starts a task. Its log lines carry `name`, and none of the fields of whoever started it: a room's actor
    /// outlives the request that woke it. The caller that waits for nothing may drop the handle.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.task(
            tracing::error_span!(parent: None, "task", task = name),
            future,
        )
    }

    /// Starts a task that finishes what its caller began, also when the caller is gone. Its log lines carry `name` beside
    /// the caller's fields.
    pub fn carry_on<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.task(tracing::error_span!("task", task = name), future)
    }

    fn task<F>(&self, span: tracing::Span, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let future = future.instrument(span);
        if !self.is_simulated() {
            return tokio::spawn(future);
        }
        let process = self.clone();
        tokio::spawn(async move {
            let future = process.in_turn(future);
            match process.within(future).await {
                Some(outcome) => outcome,
                // Who waits for it died as well.
                None => std::future::pending().await,
            }
        })
    }

    /// The future, which gets its turn by chance where this world says so.
    fn in_turn<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        let turns = self.0.turns.clone();
        let mut future = Box::pin(future);
        poll_fn(move |context| {
            if turns.as_ref().is_some_and(|turns| turns.below(LATER) == 0) {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            future.as_mut().poll(context)
        })
    }

    /// Starts an operating system thread, for a loop that blocks for good (a log's sync thread).
    ///
    /// # Errors
    /// What the operating system says; [`io::ErrorKind::Unsupported`] in a simulation, which has one thread.
    pub fn thread<F>(&self, name: &'static str, body: F) -> io::Result<std::thread::JoinHandle<()>>
    where
        F: FnOnce() + Send + 'static,
    {
        if self.is_simulated() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "a simulation has no threads",
            ));
        }
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(body)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Law 7: two runs of a seed are one run.
    #[test]
    fn a_seed_decides_time_and_randomness() {
        let run = |seed| {
            tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap()
                .block_on(async {
                    let runtime = Runtime::simulated(seed);
                    let mut trace = Vec::new();
                    for _ in 0..20 {
                        let wait = runtime.random().below(5_000);
                        tokio::time::sleep(Duration::from_millis(wait)).await;
                        trace.push((runtime.clock().now_ms(), runtime.clock().monotonic(), wait));
                    }
                    trace
                })
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[tokio::test(start_paused = true)]
    async fn a_killed_process_does_nothing_more_and_others_go_on() {
        let (one, other) = (Runtime::simulated(1), Runtime::simulated(1));
        let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
        for (name, process) in [("one", &one), ("other", &other)] {
            let told = told.clone();
            drop(process.spawn("count", async move {
                for second in 1..=3 {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    told.send((name, second)).unwrap();
                }
            }));
        }
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        one.kill();
        drop(one.spawn("late", async move { told.send(("late", 0)).unwrap() }));
        assert_eq!(one.within(async { 1 }).await, None);
        assert_eq!(other.within(async { 1 }).await, Some(1));
        let mut all = Vec::new();
        // The channel closes: what was held by the dead is let go.
        while let Some(one) = heard.recv().await {
            all.push(one);
        }
        let expected = [("one", 1), ("other", 1), ("other", 2), ("other", 3)];
        assert_eq!(all, expected);
    }

    /// Law 7: a seed also decides whose turn it is, and two seeds differ in it.
    #[test]
    fn a_seed_decides_whose_turn_it_is() {
        let run = |seed| {
            let world = tokio::runtime::Builder::new_current_thread();
            let world = { world }.enable_time().start_paused(true).build().unwrap();
            world.block_on(async {
                let process = Runtime::shuffled_ahead(seed, Duration::ZERO);
                let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
                for task in 0..8 {
                    let told = told.clone();
                    drop(process.spawn("turn", async move { told.send(task).unwrap() }));
                }
                drop(told);
                let mut all = Vec::new();
                while let Some(task) = heard.recv().await {
                    all.push(task);
                }
                all
            })
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        let mut all = run(1);
        all.sort_unstable();
        assert_eq!(all, (0..8).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_simulation_has_no_threads() {
        let error = Runtime::simulated(1).thread("sync", || {}).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
    }

    #[tokio::test]
    async fn a_task_answers_through_its_handle() {
        let runtime = Runtime::system();
        assert_eq!(runtime.spawn("answer", async { 42 }).await.unwrap(), 42);
    }

    /// R10.6: what goes on for a request logs with the request's id; what only was woken by it doesn't.
    #[tokio::test]
    async fn lines_carry_the_fields_of_whom_they_serve() {
        #[derive(Clone, Default)]
        struct Lines(Arc<parking_lot::Mutex<Vec<u8>>>);
        impl io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let lines = Lines::default();
        let written = lines.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || written.clone());
        let _guard = tracing::subscriber::set_default(subscriber.finish());
        let runtime = Runtime::simulated(1);
        let request = async {
            let woken = runtime.spawn("actor", async { tracing::info!("woken") });
            let finished = runtime.carry_on("upload", async { tracing::info!("finished") });
            woken.await.unwrap();
            finished.await.unwrap();
            let pool = runtime.pool("hashes", 1, 1);
            pool.run(|| tracing::info!("hashed")).await.unwrap();
        };
        let span = tracing::info_span!("request", id = "r1");
        request.instrument(span).await;
        let lines = String::from_utf8(lines.0.lock().clone()).unwrap();
        let line = |said: &str| lines.lines().find(|line| line.ends_with(said)).unwrap();
        assert!(!line("woken").contains("r1"));
        assert!(line("finished").contains("r1") && line("finished").contains("upload"));
        assert!(line("hashed").contains("r1"));
    }
}
