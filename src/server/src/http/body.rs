//! Bodies with bounds: a request's in bytes and time, an answer's so that we know when it has gone out.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body as AnyBody;
use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep};

use super::patience::UnderWay;

/// Why a request's body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// More bytes than allowed.
    TooLarge,
    /// Too slow, in one gap or in all.
    TooSlow,
}

/// What became of a body, told to whoever waits for the answer: endpoints may make anything of a failed read.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdict(Arc<AtomicU8>);

impl Verdict {
    pub(super) fn broken(&self) -> Option<Broken> {
        match self.0.load(Ordering::Relaxed) {
            1 => Some(Broken::TooLarge),
            2 => Some(Broken::TooSlow),
            _ => None,
        }
    }

    fn set(&self, broken: Broken) {
        let code = match broken {
            Broken::TooLarge => 1,
            Broken::TooSlow => 2,
        };
        self.0.store(code, Ordering::Relaxed);
    }
}

/// A request's body within its bounds.
pub(super) struct Bounded {
    body: Incoming,
    left: u64,
    gap: Duration,
    end: Instant,
    timer: Option<Pin<Box<Sleep>>>,
    verdict: Verdict,
}

impl Bounded {
    pub(super) fn new(
        body: Incoming,
        (most, whole): (u64, Duration),
        gap: Duration,
        verdict: Verdict,
    ) -> Self {
        Self {
            body,
            left: most,
            gap,
            end: Instant::now() + whole,
            timer: None,
            verdict,
        }
    }
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                this.timer = None;
                let length = frame.data_ref().map_or(0, |data| data.len() as u64);
                match this.left.checked_sub(length) {
                    Some(left) => {
                        this.left = left;
                        Poll::Ready(Some(Ok(frame)))
                    }
                    None => {
                        this.verdict.set(Broken::TooLarge);
                        Poll::Ready(Some(Err("the request's body is too large".into())))
                    }
                }
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(error.into()))),
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let deadline = (Instant::now() + this.gap).min(this.end);
                let timer = this
                    .timer
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                timer.as_mut().poll(context).map(|()| {
                    this.verdict.set(Broken::TooSlow);
                    Some(Err("the request's body took too long".into()))
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body that keeps its request under way until it has been handed over.
pub(super) struct Answer {
    body: AnyBody,
    _under_way: UnderWay,
}

impl Answer {
    pub(super) fn new(body: AnyBody, under_way: UnderWay) -> Self {
        Self {
            body,
            _under_way: under_way,
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
