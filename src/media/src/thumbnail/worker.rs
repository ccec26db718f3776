//! The worker: a process of its own that reads one picture, makes what it is told of it, and ends.
//!
//! Decoders are where hostile files do harm, so they run where there is little to harm: a process that was given no file, no
//! environment and no secret, confined before it reads its first byte, whose death is one picture that can't be read.
//!
//! It is told by its standard input: the task, and then the file to its end; it tells by its standard output.

use std::{
    io::{self, Read, Write},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use async_trait::async_trait;
use comity_runtime::{Pool, Runtime};
use futures_util::StreamExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    process::Command,
    sync::Semaphore,
    time::timeout,
};

use super::{
    confinement::confine,
    render::{Rendered, Task, Unrendered, render},
};
use crate::{Kind, Pieces};

/// Of an answer, in bytes.
const ANSWER: u64 = 16 << 20;
/// From its start to its answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Workers at once, and pictures that wait for one.
const WORKERS: usize = 2;
const WAITING: usize = 64;
/// The longest file that is looked at, in bytes.
const FILE: u64 = 200 << 20;
/// The exit status of a worker that never began: of what [`work`] says is an error.
const NOT_BEGUN: i32 = 1;
/// Bytes of the task before the file.
const TASK: usize = 64;

/// Does tasks somewhere.
#[async_trait]
pub trait Renderer: Send + Sync + 'static {
    /// Does a task with a file of this kind.
    ///
    /// # Errors
    /// [`RenderError`].
    async fn render(&self, task: Task, kind: Kind, file: Pieces) -> Result<Rendered, RenderError>;
}

/// Why there is no picture.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The file won't become one.
    #[error("the file can't be rendered")]
    Unrendered(Unrendered),
    /// Too many are waiting.
    #[error("too many pictures wait to be rendered")]
    Busy,
    /// It says nothing of the file.
    #[error("rendering: {0}")]
    Failed(String),
}

/// Processes of a program that calls [`work`].
pub struct Workers {
    program: PathBuf,
    arguments: Vec<String>,
    places: Semaphore,
    running: Semaphore,
}

/// This very program, as it was started: another version may lie at its path by now, or none.
#[cfg(target_os = "linux")]
const ITSELF: &str = "/proc/self/exe";

impl Workers {
    /// Of the program that runs, told by these arguments that it is to be one.
    ///
    /// # Errors
    /// It can't be found.
    pub fn of_this_program(arguments: impl IntoIterator<Item = String>) -> io::Result<Self> {
        // Read by the child before it becomes a worker, when it is this program still.
        #[cfg(target_os = "linux")]
        if std::fs::symlink_metadata(ITSELF).is_ok() {
            return Ok(Self::new(PathBuf::from(ITSELF), arguments));
        }
        Ok(Self::new(std::env::current_exe()?, arguments))
    }

    /// Nothing is started before it is needed.
    pub fn new(program: PathBuf, arguments: impl IntoIterator<Item = String>) -> Self {
        Self {
            program,
            arguments: arguments.into_iter().collect(),
            places: Semaphore::new(WORKERS + WAITING),
            running: Semaphore::new(WORKERS),
        }
    }

    async fn ask(&self, task: Vec<u8>, mut file: Pieces) -> io::Result<Vec<u8>> {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let (Some(mut input), Some(output)) = (input, output) else {
            return Err(io::Error::other("a worker without pipes"));
        };
        let tell = async move {
            input.write_all(&task).await?;
            while let Some(piece) = file.next().await.transpose()? {
                input.write_all(&piece).await?;
            }
            input.shutdown().await
        };
        let mut answer = Vec::new();
        // One that has more to say than is heard writes to nobody then, and ends by that.
        let hear = async {
            let mut output = output.take(ANSWER);
            output.read_to_end(&mut answer).await
        };
        // One that dies before it has heard everything says what it has to say by its silence.
        // A file that is slow to come says nothing of the picture.
        let tell = async {
            let told = timeout(PATIENCE / 2, tell).await;
            told.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        };
        let (told, heard) = tokio::join!(tell, hear);
        heard?;
        match told {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let ended = child.wait().await?;
        if answer.is_empty() && ended.code() == Some(NOT_BEGUN) {
            return Err(io::Error::other("a worker could not be confined"));
        }
        Ok(answer)
    }
}

#[async_trait]
impl Renderer for Workers {
    async fn render(&self, task: Task, kind: Kind, file: Pieces) -> Result<Rendered, RenderError> {
        let failed = |error: &dyn std::fmt::Display| RenderError::Failed(error.to_string());
        let Ok(_place) = self.places.try_acquire() else {
            return Err(RenderError::Busy);
        };
        let running = self.running.acquire().await;
        let _running = running.map_err(|error| failed(&error))?;
        let mut told = postcard::to_stdvec(&(task, kind)).map_err(|error| failed(&error))?;
        told.resize(TASK, 0);
        match timeout(PATIENCE, self.ask(told, file)).await {
            Ok(Ok(answer)) => {
                let made: Result<Result<Rendered, Unrendered>, _> = postcard::from_bytes(&answer);
                // One that was ended by its bounds has said nothing.
                made.unwrap_or(Err(Unrendered::Unreadable))
                    .map_err(RenderError::Unrendered)
            }
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(RenderError::Unrendered(Unrendered::Unreadable)),
        }
    }
}

/// What a worker does, from its start to its end.
///
/// # Errors
/// It can't be confined, or nobody talks to it.
pub fn work() -> io::Result<()> {
    confine()?;
    let mut input = io::stdin().lock();
    let mut task = [0; TASK];
    input.read_exact(&mut task)?;
    let told: Result<((Task, Kind), _), _> = postcard::take_from_bytes(&task);
    let ((task, kind), _) = told.map_err(io::Error::other)?;
    let mut file = Vec::new();
    (&mut input).take(FILE).read_to_end(&mut file)?;
    let answer = postcard::to_stdvec(&render(task, kind, &file)).map_err(io::Error::other)?;
    io::stdout().lock().write_all(&answer)
}

/// Renders in this process, where there can be no other: in simulations.
pub struct InProcess(Pool);

impl InProcess {
    /// On a pool of its own.
    pub fn new(runtime: &Runtime) -> Self {
        Self(runtime.pool("rendering", WORKERS, WAITING))
    }
}

#[async_trait]
impl Renderer for InProcess {
    async fn render(
        &self,
        task: Task,
        kind: Kind,
        mut file: Pieces,
    ) -> Result<Rendered, RenderError> {
        let mut bytes = Vec::new();
        while let Some(piece) = file.next().await {
            let piece = piece.map_err(|error| RenderError::Failed(error.to_string()))?;
            bytes.extend_from_slice(&piece);
        }
        let rendered = self.0.run(move || render(task, kind, &bytes)).await;
        rendered
            .map_err(|_| RenderError::Busy)?
            .map_err(RenderError::Unrendered)
    }
}
