//! What became of a write that failed, lane by lane.
//!
//! After an unknown outcome the write may still be on its way. A new claim of ours ends that: it
//! waits for writes that hold the old claim, and later ones find it gone. Then the head row tells:
//! only we could have written that position under the old claim.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use comity_runtime::Runtime;

use crate::{
    claim::{self, Claim},
    engine::Engine,
    error::CommitError,
    group::LaneId,
    heads::Pos,
    lane::{LaneShared, Standing},
};

/// How long to wait before each further look at a lane that gave no answer.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_millis(1000),
];

/// What becomes of a lane's part of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is there.
    Applied,
    /// It isn't and won't be.
    Lost,
    /// It isn't, and nothing stands in its way: send it again.
    Again,
    /// The lane has another owner.
    Fenced,
    /// Nothing could be learned.
    Unknown,
}

/// The lanes of a group with the positions they end at.
pub(crate) type Lanes = BTreeMap<LaneId, (Arc<LaneShared>, Pos)>;

/// After a refusal for want of a claim: whose was it?
pub(crate) async fn fenced(engine: &Engine, lanes: &Lanes) -> BTreeMap<LaneId, Fate> {
    let mut fates = BTreeMap::new();
    for (id, (lane, _)) in lanes {
        let fate = match lane.claim().stands(engine).await {
            Ok(true) => Fate::Again,
            Ok(false) => Fate::Fenced,
            Err(_) => Fate::Lost,
        };
        fates.insert(*id, fate);
    }
    if !fates.values().any(|fate| *fate == Fate::Fenced) {
        // Then sending it again would only be refused again.
        fates.values_mut().for_each(|fate| *fate = Fate::Lost);
    }
    fates
}

/// After an unknown outcome: is it there? A lane of which nothing can be learned is left in doubt.
pub(crate) async fn settle(
    engine: &Engine,
    runtime: &Runtime,
    lanes: &Lanes,
) -> BTreeMap<LaneId, Fate> {
    let mut fates = BTreeMap::new();
    for (id, (lane, last)) in lanes {
        let old = lane.claim();
        let next = old.next(runtime);
        let mut pauses = PAUSES.iter();
        let fate = loop {
            match look(engine, lane, &old, &next, *last).await {
                Ok(fate) => break fate,
                Err(CommitError::Fenced) => break Fate::Fenced,
                Err(_) => match pauses.next() {
                    Some(pause) => tokio::time::sleep(*pause).await,
                    None => {
                        let mut state = lane.state.lock();
                        if matches!(state.standing, Standing::Open) {
                            state.standing = Standing::Doubt(next);
                        }
                        break Fate::Unknown;
                    }
                },
            }
        };
        fates.insert(*id, fate);
    }
    fates
}

async fn look(
    engine: &Engine,
    lane: &LaneShared,
    old: &Claim,
    next: &Claim,
    last: Pos,
) -> Result<Fate, CommitError> {
    old.renew(engine, next).await?;
    let head = claim::head(engine, lane.shared.tenant, lane.lane).await?;
    lane.state.lock().claim = next.clone();
    Ok(match head {
        Some(head) if head.pos == last && head.epoch == old.epoch => Fate::Applied,
        _ => Fate::Lost,
    })
}

/// Opens a lane in doubt where the engine has it. What was answered as unknown is published if it
/// is there; its followers read it from the rows.
pub(crate) async fn reopen(engine: &Engine, lane: &LaneShared) -> Result<(), CommitError> {
    let (old, standing) = {
        let state = lane.state.lock();
        (state.claim.clone(), state.standing.clone())
    };
    let Standing::Doubt(next) = standing else {
        return Ok(());
    };
    match old.renew(engine, &next).await {
        Err(CommitError::Fenced) => {
            lane.close(CommitError::Fenced);
            return Err(CommitError::Fenced);
        }
        outcome => outcome?,
    }
    let head = claim::head(engine, lane.shared.tenant, lane.lane).await?;
    engine.sync().await?;
    let pos = head.map_or(0, |head| head.pos);
    let moved = {
        let mut state = lane.state.lock();
        let moved = pos > state.written;
        state.claim = next;
        state.appended = pos;
        state.written = pos;
        state.next = state.next.max(pos + 1);
        state.standing = Standing::Open;
        moved
    };
    if moved {
        lane.shared.forget_before(lane.lane, pos);
        lane.shared.publish([(lane.lane, pos)]);
    }
    Ok(())
}
