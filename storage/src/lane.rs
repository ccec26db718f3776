//! A lane in the hands of its one owner: what it reads, how it commits.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{mpsc, oneshot};

use crate::{
    batch::Batch,
    claim::Claim,
    committer::Request,
    error::CommitError,
    heads::Pos,
    key::{Home, Lane},
    overlay::Overlay,
    read::Reader,
    store::Shared,
    table::Family,
};

/// What the owner of a lane holds of it.
pub(crate) struct LaneShared {
    pub shared: Arc<Shared>,
    pub lane: Lane,
    pub overlay: Arc<RwLock<Overlay>>,
    pub state: Mutex<State>,
}

pub(crate) struct State {
    /// Our claim to it; a new one after an unknown outcome.
    pub claim: Claim,
    /// The position of the next commit. What is dropped leaves a gap: were its positions given
    /// again, a condition on a dropped row could hold of another.
    pub next: Pos,
    /// The last commit appended.
    pub appended: Pos,
    /// The last commit that the engine has.
    pub written: Pos,
    pub standing: Standing,
    /// How often what was appended was dropped, or appended when nobody waited for it any more.
    pub losses: u64,
}

/// Whether a lane takes commits.
#[derive(Clone)]
pub(crate) enum Standing {
    Open,
    /// What the engine has is not known. To find out, this claim must follow ours first.
    Doubt(Claim),
    /// Never again, for this reason.
    Closed(CommitError),
}

/// The way to write a lane: make a [`Batch`], read through [`LaneWriter::reader`], commit.
#[derive(Clone)]
pub struct LaneWriter {
    pub(crate) lane: Arc<LaneShared>,
    pub(crate) requests: mpsc::Sender<Request>,
}

/// A commit that has its position and is on its way to the disk. The owner may chain on it; nobody
/// else sees it.
#[derive(Debug)]
pub struct Appended {
    /// Its position.
    pub pos: Pos,
    durable: oneshot::Receiver<Result<Pos, CommitError>>,
}

impl Appended {
    /// Waits until the commit is durable and published.
    ///
    /// # Errors
    /// Whatever kept it from being: then all that was chained on it is gone as well.
    pub async fn durable(self) -> Result<Pos, CommitError> {
        self.durable
            .await
            .unwrap_or_else(|_| Err(CommitError::Unknown("the store was closed".into())))
    }
}

impl LaneWriter {
    /// The lane.
    pub fn lane(&self) -> Lane {
        self.lane.lane
    }

    /// Whether a home's rows are in this lane.
    pub fn owns(&self, home: Home<'_>) -> bool {
        self.lane.shared.lanes.of(home.slot()) == self.lane.lane
    }

    /// An empty batch of this lane.
    pub fn batch(&self) -> Batch {
        Batch::new(
            self.lane.shared.tenant,
            self.lane.shared.lanes,
            self.lane.lane,
        )
    }

    /// How often the lane lost what it had appended, or appended it unseen. Who keeps what [`LaneWriter::reader`] found keeps
    /// this from before the read too: once it differs, what is kept may never have been.
    pub fn losses(&self) -> u64 {
        self.lane.state.lock().losses
    }

    /// Reads with what this lane has appended laid over what is stored.
    pub fn reader(&self) -> Reader {
        Reader {
            shared: self.lane.shared.clone(),
            overlay: Some(self.lane.overlay.clone()),
            bound: self.lane.shared.heads(),
        }
    }

    /// Gives the batch its position, its conditions checked against all that was appended before.
    /// It may wait for room in the lane's queue; who stops waiting before it has its position has written nothing.
    ///
    /// # Errors
    /// [`CommitError::Conflict`] names the table whose row was not as expected.
    pub async fn append(&self, batch: Batch) -> Result<Appended, CommitError> {
        self.submit(batch, false).await
    }

    /// Appends and waits until it is durable and published.
    ///
    /// # Errors
    /// As [`LaneWriter::append`] and [`Appended::durable`].
    pub async fn commit(&self, batch: Batch) -> Result<Pos, CommitError> {
        self.append(batch).await?.durable().await
    }

    /// Commits a batch after which the lane takes no more.
    pub(crate) async fn finish(&self, batch: Batch) -> Result<Pos, CommitError> {
        self.submit(batch, true).await?.durable().await
    }

    async fn submit(&self, mut batch: Batch, last: bool) -> Result<Appended, CommitError> {
        if let Some(refusal) = batch.refusal(self.lane.shared.tenant, self.lane.lane) {
            return Err(refusal);
        }
        let (appended, answer) = oneshot::channel();
        let (done, durable) = oneshot::channel();
        let request = Request {
            lane: self.lane.clone(),
            batch,
            last,
            appended,
            durable: done,
        };
        let closed = || CommitError::NotApplied("the store is closed".into());
        self.requests.send(request).await.map_err(|_| closed())?;
        let pos = answer.await.map_err(|_| closed())??;
        Ok(Appended { pos, durable })
    }
}

impl LaneShared {
    /// Forgets what was appended and not written: it will never be.
    pub(crate) fn drop_appended(&self) {
        let mut state = self.state.lock();
        state.appended = state.written;
        state.losses += 1;
        self.overlay.write().clear();
    }

    /// The engine has everything up to here: readers find it there.
    pub(crate) fn wrote(&self, pos: Pos) {
        self.state.lock().written = pos;
        self.overlay.write().forget_up_to(pos);
    }

    /// It takes no more; the first reason stays.
    pub(crate) fn close(&self, why: CommitError) {
        let mut state = self.state.lock();
        if !matches!(state.standing, Standing::Closed(_)) {
            state.standing = Standing::Closed(why);
        }
    }

    /// The value of an appended row, if there is one: `Some(None)` is a deletion.
    pub(crate) fn appended_value(&self, family: Family, key: &Bytes) -> Option<Option<Bytes>> {
        self.overlay.read().value(family, key)
    }

    pub(crate) fn claim(&self) -> Claim {
        self.state.lock().claim.clone()
    }
}
