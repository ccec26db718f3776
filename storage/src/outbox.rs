//! What one lane owes another, applied there exactly once and in order.
//!
//! The debt is part of the source's log. The target's owner follows the other lanes' logs, lets
//! the capability that knows the debt's kind write what it calls for into a batch, adds its new
//! cursor for that source, and commits the two together. Kinds without an applier are stepped over
//! with the cursor: a build that knows the kind wrote it, and one that doesn't must not stall.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use comity_runtime::Runtime;

use crate::{
    batch::{Batch, Expect},
    error::CommitError,
    heads::{Heads, Pos},
    key::Lane,
    lane::LaneWriter,
    log::Owed,
    read::Reader,
    store::Tenant,
    system::{Applied, Cursors, Route},
};

/// How long to wait after a failure before the same debt is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// Turns a debt into rows of the lane that is owed.
#[async_trait]
pub trait Apply: Send + Sync {
    /// The kind of debt it knows.
    fn kind(&self) -> u16;
    /// Adds what the debt calls for to the batch. `reader` sees what the lane has appended.
    async fn apply(
        &self,
        reader: &Reader,
        owed: &Owed,
        batch: &mut Batch,
    ) -> Result<(), CommitError>;
}

/// Appliers by kind.
pub(crate) struct Appliers(BTreeMap<u16, Arc<dyn Apply>>);

impl Appliers {
    pub(crate) fn new(appliers: &[Arc<dyn Apply>]) -> Self {
        Self(
            appliers
                .iter()
                .map(|applier| (applier.kind(), applier.clone()))
                .collect(),
        )
    }
}

/// Starts an applier for each lane of the tenant, if there is anything that could be owed.
pub(crate) fn start(tenant: &Tenant, appliers: Arc<Appliers>, runtime: &Runtime) {
    if appliers.0.is_empty() {
        return;
    }
    for writer in tenant.writers() {
        drop(runtime.spawn(
            "outbox",
            run(tenant.clone(), writer.clone(), appliers.clone()),
        ));
    }
}

async fn run(tenant: Tenant, writer: LaneWriter, appliers: Arc<Appliers>) {
    loop {
        match follow(&tenant, &writer, &appliers).await {
            Err(CommitError::Fenced) => return,
            Err(error) => {
                tracing::warn!(%error, lane = writer.lane().0, "what is owed to a lane could not be applied yet")
            }
            Ok(()) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Applies from the stored cursors on; ends with the first failure.
async fn follow(
    tenant: &Tenant,
    writer: &LaneWriter,
    appliers: &Appliers,
) -> Result<(), CommitError> {
    let target = writer.lane();
    let routes: Vec<Route> = tenant
        .lanes()
        .all()
        .map(|source| Route { target, source })
        .collect();
    let rows = writer.reader().get_many::<Cursors>(&routes).await?;
    let mut cursors: Vec<Option<Pos>> = rows
        .iter()
        .map(|row| row.as_ref().map(|row| row.pos))
        .collect();
    let from: Vec<Pos> = rows
        .into_iter()
        .map(|row| row.map_or(0, |row| row.value.pos))
        .collect();
    let mut follower = tenant.follow(Heads::new(from));
    loop {
        for logged in follower.next().await? {
            let ours: Vec<&Owed> = logged
                .owed
                .iter()
                .filter(|owed| writer.owns(owed.target.home()))
                .collect();
            if ours.is_empty() {
                continue;
            }
            let mut batch = writer.batch();
            for owed in ours {
                if let Some(applier) = appliers.0.get(&owed.kind) {
                    applier.apply(&writer.reader(), owed, &mut batch).await?;
                }
            }
            let route = Route {
                target,
                source: logged.lane,
            };
            let at = cursor(&mut cursors, logged.lane);
            batch.expect::<Cursors>(&route, at.map_or(Expect::Absent, Expect::At));
            batch.put::<Cursors>(&route, &Applied { pos: logged.pos });
            *at = Some(writer.commit(batch).await?);
        }
    }
}

fn cursor(cursors: &mut [Option<Pos>], lane: Lane) -> &mut Option<Pos> {
    #[expect(
        clippy::indexing_slicing,
        reason = "one cursor a lane, made from `Lanes::all`"
    )]
    &mut cursors[usize::from(lane.0)]
}
