//! How long a connection may keep us waiting.
//!
//! hyper's own clock for a request's head starts only once it knows the protocol and says nothing of clients that
//! stop reading. So the stream itself is wrapped: whenever hyper waits for bytes and no request is being answered,
//! a deadline runs; whenever it waits for the client to take bytes, another. The timers exist only while they run.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::{Limits, framing::Framing};

/// What goes on over one connection, and what it may cost in time.
#[derive(Debug)]
pub(super) struct Activity {
    /// Requests taken in and not answered to the last byte.
    under_way: AtomicU32,
    /// Requests taken in since the beginning, wrapping.
    taken: AtomicU32,
    /// For the first head, from the connection's first moment.
    first_head: Instant,
    head: Duration,
    idle: Duration,
    stalled_write: Duration,
    /// The first request, by its number, whose head tells two lengths; 0: none did.
    ambiguous: AtomicU32,
    /// The connection's task while it waits for bytes with no deadline: hyper would not ask again by itself.
    waiting: AtomicWaker,
    /// In HTTP/1 a byte after an answer begins the next request's head; in HTTP/2 it may be any frame.
    bytes_begin_a_head: bool,
}

/// How long a connection may take until its first head is there, TLS included, and each head after it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// When the first head is due.
    pub first_head: Instant,
    head: Duration,
}

impl Patience {
    /// For a connection that begins now.
    pub(super) fn new(limits: &Limits, crowded: bool) -> Self {
        let head = if crowded {
            limits.head_when_crowded
        } else {
            limits.head
        };
        Self {
            first_head: Instant::now() + head,
            head,
        }
    }
}

impl Activity {
    pub(super) fn http1(limits: &Limits, patience: Patience) -> Arc<Self> {
        Arc::new(Self::new(limits, patience, true))
    }

    pub(super) fn http2(limits: &Limits, patience: Patience) -> Arc<Self> {
        Arc::new(Self::new(limits, patience, false))
    }

    fn new(limits: &Limits, patience: Patience, bytes_begin_a_head: bool) -> Self {
        Self {
            under_way: AtomicU32::new(0),
            taken: AtomicU32::new(0),
            ambiguous: AtomicU32::new(0),
            waiting: AtomicWaker::new(),
            first_head: patience.first_head,
            head: patience.head,
            idle: limits.idle,
            stalled_write: limits.stalled_write,
            bytes_begin_a_head,
        }
    }

    /// Says that a request is under way, until the answer's last byte is handed over.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        let number = self.taken.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        self.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay {
            activity: Arc::clone(self),
            number,
        }
    }
}

/// Held while a request is under way.
#[derive(Debug)]
pub(super) struct UnderWay {
    activity: Arc<Activity>,
    number: u32,
}

impl UnderWay {
    /// Whether the request's head tells two lengths, so that nobody can say where it ends.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.activity.ambiguous.load(Ordering::Acquire) == self.number
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if self.activity.under_way.fetch_sub(1, Ordering::AcqRel) == 1 {
            // From now on a deadline runs again.
            self.activity.waiting.wake();
        }
    }
}

/// A stream that gives up on a peer that takes too long.
#[derive(Debug)]
pub(super) struct Patient<S> {
    stream: S,
    activity: Arc<Activity>,
    /// Follows what is read, in HTTP/1, until it finds what must be refused.
    framing: Option<Framing>,
    /// When what is waited for is due.
    due: Instant,
    /// The requests taken in when the present wait began.
    taken: u32,
    /// The next request has sent its first byte.
    head_begun: bool,
    read: Option<Pin<Box<Sleep>>>,
    write: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            framing: activity.bytes_begin_a_head.then(Framing::default),
            due: activity.first_head,
            activity,
            taken: 0,
            head_begun: true, // the first request is due from the first moment
            read: None,
            write: None,
        }
    }

    /// hyper waits for bytes: is it too long?
    fn wait_to_read(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.activity.waiting.register(context.waker());
        if self.activity.under_way.load(Ordering::Acquire) > 0 {
            // The request's body has its own deadline, and its answer takes the time it takes.
            self.read = None;
            return Poll::Pending;
        }
        let taken = self.activity.taken.load(Ordering::Relaxed);
        if taken != self.taken {
            self.taken = taken;
            self.due = Instant::now() + self.activity.idle;
            self.head_begun = false;
            self.read = None;
        }
        let deadline = self.due;
        let timer = self
            .read
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(context).map(|()| Err(timed_out()))
    }

    /// These bytes came.
    fn has_read(&mut self, bytes: &[u8]) {
        if let Some(number) = self.framing.as_mut().and_then(|f| f.follow(bytes)) {
            self.activity.ambiguous.store(number, Ordering::Release);
            self.framing = None; // the connection ends with it
        }
        let idle = self.activity.under_way.load(Ordering::Relaxed) == 0;
        if idle && self.activity.bytes_begin_a_head {
            let taken = self.activity.taken.load(Ordering::Relaxed);
            if taken != self.taken || !self.head_begun {
                self.taken = taken;
                self.due = Instant::now() + self.activity.head;
                self.head_begun = true;
            }
        }
    }

    /// hyper waits until the peer takes bytes: is it too long? Any progress starts anew.
    fn wait_to_write<T>(
        &mut self,
        context: &mut Context<'_>,
        progress: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.write = None;
            return progress;
        }
        let patience = self.activity.stalled_write;
        let timer = self
            .write
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        timer.as_mut().poll(context).map(|()| Err(timed_out()))
    }
}

fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        match Pin::new(&mut this.stream).poll_read(context, buffer) {
            Poll::Ready(result) => {
                this.has_read(buffer.filled().get(before..).unwrap_or_default());
                Poll::Ready(result)
            }
            Poll::Pending => this.wait_to_read(context),
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let progress = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.wait_to_write(context, progress)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let progress = Pin::new(&mut this.stream).poll_write_vectored(context, slices);
        this.wait_to_write(context, progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let progress = Pin::new(&mut this.stream).poll_flush(context);
        this.wait_to_write(context, progress)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let progress = Pin::new(&mut this.stream).poll_shutdown(context);
        this.wait_to_write(context, progress)
    }
}
