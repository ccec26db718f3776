//! A room's timeline: the latest events that the client has not had.

use comity_protocol::auth::Membership;
use comity_rooms::{Found, RoomError, RoomView, Span, state::AnyRoot};
use comity_storage::{Heads, Home};
use futures_util::try_join;

use super::RoomSync;
use crate::{SyncError, answer::Timeline, token::PlaceToken};

/// Events that a sync is mostly behind.
const NEAR: usize = 4;
/// Events read in one go for a timeline.
const PAGE: usize = 32;
/// Events looked at for a timeline at the most; what is not found among them is a gap.
const LOOKED_AT: usize = 2_000;

/// A timeline with what it says about the state beside it.
pub(crate) struct Stretch {
    pub found: Vec<Found>,
    pub limited: bool,
    /// The place before the first event.
    pub start: (i64, i64),
    /// The state before the first event.
    pub root: AnyRoot,
}

impl RoomSync<'_> {
    /// The latest events that the client has not had, oldest first: up to `end` if there is one, and
    /// after `since` if there is one.
    pub(crate) async fn stretch(
        &self,
        view: &RoomView,
        end: Option<((i64, i64), AnyRoot)>,
        since: Option<&Heads>,
    ) -> Result<Stretch, SyncError> {
        let filter = &self.build.request.filter.room.timeline;
        let limit = filter.limit();
        let (end, end_root) = end.unwrap_or(((view.seq() + 1, i64::MIN), view.root()));
        let tenant = self.sync.0.rooms.tenant();
        let lane = tenant.lanes().of(Home::Room(self.room).slot());
        // What comes before a hole is history, whenever it is fetched.
        let hole = match (view.last_hole(0, end).await?, since) {
            (Some(hole), Some(since)) if view.seq_at(since.get(lane)).await? >= hole => None,
            (hole, _) => hole,
        };
        let mut span = Span {
            after: hole.map(|seq| (seq, -1)),
            before: Some(end),
            unknown_at: since.map(|since| since.get(lane)),
            backwards: true,
            limit: limit.max(1),
        };
        if since.is_some() {
            span.limit = span.limit.min(NEAR);
        }
        let ignored = self.build.ignored(self.sync).await?;
        let user = &self.build.request.user;
        let mut found: Vec<Found> = Vec::new();
        let mut looked_at = 0;
        let mut limited = false;
        let mut start = end;
        let mut first: Option<Found> = None;
        let wants_room = filter.wants_room(view.room_id().as_str());
        let wanted = wants_room && limit > 0;
        loop {
            if !wanted {
                break;
            }
            let (page, more) = match first {
                None => try_join!(view.timeline(span), view.meet(user))?.0,
                Some(_) => view.timeline(span).await?,
            };
            let Some(last) = page.last().cloned() else {
                break;
            };
            let visible = view.visible(&page, user).await?;
            let passes = filter.passes(view, &page, user).await?;
            for ((one, visible), passes) in page.into_iter().zip(visible).zip(passes) {
                if found.len() == limit {
                    limited = true;
                    break;
                }
                start = one.place().unwrap_or(start);
                first = Some(one.clone());
                let own = one.event.is_state("m.room.member", user.as_str());
                let by_ignored = one.event.state_key().is_none()
                    && ignored.contains(one.event.sender().as_str());
                if (visible || own) && passes && !by_ignored {
                    found.push(one);
                }
            }
            span.before = last.place();
            looked_at += span.limit;
            span.limit = span.limit.max(PAGE);
            if more && looked_at >= LOOKED_AT {
                limited = true;
                break;
            }
            if limited || !more {
                break;
            }
            if found.len() == limit {
                limited = true;
                break;
            }
        }
        if !wanted {
            span.limit = 1;
            limited = !view.entries(span).await?.is_empty();
        }
        limited |= hole.is_some();
        // A room joined since the last answer begins with a gap: what was before is history.
        limited |=
            self.build.since.is_some() && self.stood.now == Membership::Join && !self.was_in();
        found.reverse();
        let root = match &first {
            Some(first) => root_before(first)?,
            None => end_root,
        };
        Ok(Stretch {
            found,
            limited,
            start,
            root,
        })
    }

    pub(crate) async fn timeline(
        &self,
        view: &RoomView,
        stretch: &Stretch,
    ) -> Result<Timeline, SyncError> {
        let prev = PlaceToken {
            heads: self.build.reader.heads().clone(),
            room: self.room,
            place: stretch.start,
        };
        let events = self.render(view, &stretch.found).await?;
        Ok(Timeline {
            events,
            limited: stretch.limited,
            prev_batch: Some(prev.to_string()),
        })
    }
}

/// The state before an event.
fn root_before(found: &Found) -> Result<AnyRoot, RoomError> {
    AnyRoot::decode(&found.status.root_before)
        .map_err(|error| RoomError::Damaged(error.to_string()))
}
