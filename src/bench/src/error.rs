//! What can go wrong while measuring: always the end of a run, never a number.

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a run stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The base URL is none.
    #[error("`{0}` is no base URL such as https://matrix.example.org")]
    BaseUrl(String),
    /// The socket, a file or a child process failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The connection broke or spoke no HTTP.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The server answered with an error.
    #[error("{method} {path}: {status} {body}")]
    Refused {
        /// The request's method.
        method: String,
        /// The request's path without its query.
        path: String,
        /// The answer's status.
        status: u16,
        /// The start of the answer's body.
        body: String,
    },
    /// An answer or a record isn't the JSON it should be.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A field the specification requires is missing from an answer.
    #[error("the answer to {0} has no `{1}`")]
    Missing(String, &'static str),
    /// A task of ours died.
    #[error("a client task ended early: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// A program we start did not do its part.
    #[error("{0}")]
    Program(String),
}
