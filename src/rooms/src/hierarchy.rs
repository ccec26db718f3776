//! Spaces: the tree of rooms below one, and what someone outside may see of a room.
//!
//! A page is found by walking the tree anew: depth first, children in their order, each room once, so
//! that cycles end. The token says how many rooms were shown and by which request, and holds no
//! server memory. Rooms that the user may neither read nor enter are left out with all below them.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidhierarchy>

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use comity_protocol::{
    auth::Membership,
    event::Event,
    id::{OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, ServerName, UserId},
};
use comity_storage::{Home, Range, RoomKey};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    error::RoomError,
    num::StateKeyNum,
    rooms::Rooms,
    tables::{InRoom, KeyNums, Members, Summaries, Summary, UserRoom},
    view::RoomView,
};

/// Rooms on a page at the most.
const MAX_PAGE: usize = 50;
/// Rooms that one walk looks at.
const MAX_WALK: usize = 20_000;
/// How deep a walk goes.
const MAX_DEPTH: usize = 100;
/// Rooms for which one walk asks other servers.
const MAX_ASKED: usize = 50;
/// Servers asked for one room.
const MAX_VIA: usize = 5;
const SPACE: &str = "m.space";
const CHILD: &str = "m.space.child";

/// Which part of a tree is asked for.
#[derive(Debug, Clone, Default)]
pub struct Hierarchy {
    /// `suggested_only`
    pub suggested_only: bool,
    /// `limit`; 50 at the most and by default.
    pub limit: Option<usize>,
    /// `max_depth`
    pub max_depth: Option<usize>,
    /// `from`
    pub from: Option<String>,
}

/// A room of a tree.
#[derive(Debug, Clone)]
pub struct HierarchyRoom {
    /// What it looks like.
    pub summary: Summary,
    /// Its children, in their order.
    pub children: Vec<SpaceChild>,
}

/// An `m.space.child` event, as it is shown to those who are not in the room.
#[derive(Debug, Clone)]
pub struct SpaceChild {
    /// The child, as the state key says it.
    pub room_id: String,
    /// Who put it there.
    pub sender: OwnedUserId,
    /// The content.
    pub content: Box<RawValue>,
    /// When, in milliseconds since 1970.
    pub origin_server_ts: i64,
}

impl SpaceChild {
    /// The servers that know the child.
    fn via(&self) -> Vec<OwnedServerName> {
        let content = serde_json::from_str::<ChildContent>(self.content.get());
        let via = content.ok().and_then(|content| content.via);
        let via = via.unwrap_or_default().into_iter().take(MAX_VIA);
        via.filter_map(|server| ServerName::parse(server).ok())
            .collect()
    }

    fn of(event: &Event) -> Self {
        Self {
            room_id: event.state_key().unwrap_or_default().to_owned(),
            sender: event.sender().to_owned(),
            content: event.content().to_owned(),
            origin_server_ts: event.origin_server_ts(),
        }
    }
}

/// A page of a tree.
#[derive(Debug, Clone)]
pub struct HierarchyPage {
    /// The rooms.
    pub rooms: Vec<HierarchyRoom>,
    /// The token of the next page, if there is one.
    pub next: Option<String>,
}

#[derive(Deserialize)]
struct ChildContent {
    via: Option<Vec<String>>,
    order: Option<serde_json::Value>,
    #[serde(default)]
    suggested: Option<serde_json::Value>,
}

/// What other servers told in a walk.
#[derive(Default)]
struct Told {
    /// The children of spaces.
    children: BTreeMap<String, Vec<SpaceChild>>,
    /// Rooms named along with a space.
    rooms: BTreeMap<String, Summary>,
    asked: usize,
}

impl Rooms {
    /// What a room looks like to someone, and their membership: a member, someone invited, someone
    /// who may join, knock or read. `None` asks for a stranger without an account.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias>
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`], also where they may not know of it.
    pub async fn preview(
        &self,
        user: Option<&UserId>,
        room_id: &RoomId,
    ) -> Result<(Summary, Option<Membership>), RoomError> {
        let summary = self.summary(room_id).await?;
        let Some(user) = user else {
            let open = ["public", "knock", "knock_restricted"].contains(&summary.join_rule());
            return if open || summary.world_readable() {
                Ok((summary, None))
            } else {
                Err(RoomError::UnknownRoom)
            };
        };
        let mut seen = self.accessible(user, vec![summary]).await?;
        match seen.pop() {
            Some((summary, membership)) => Ok((summary, membership)),
            None => Err(RoomError::UnknownRoom),
        }
    }

    /// [`preview`](Self::preview) of a room that may not be here: then one of these servers is asked,
    /// or the one that the room's id names.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`], also where they may not know of it and where nobody tells.
    pub async fn preview_through(
        &self,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
    ) -> Result<(Summary, Option<Membership>), RoomError> {
        match self.preview(Some(user), room_id).await {
            Err(RoomError::UnknownRoom) => {}
            seen => return seen,
        }
        let own = room_id.server_name().map(ToOwned::to_owned);
        let via = via.iter().cloned().chain(own).take(MAX_VIA).collect();
        let asked = [(room_id.to_owned(), via)];
        let (request, mut told) = (Hierarchy::default(), Told::default());
        let found = self.rooms_below(&asked, &request, &mut told).await?;
        let seen = self.accessible(user, found).await?.pop();
        seen.ok_or(RoomError::UnknownRoom)
    }

    /// A page of the tree below a room.
    ///
    /// # Errors
    /// [`RoomError::Forbidden`] where the user may not see the room; [`RoomError::Invalid`] for a
    /// token that isn't one or belongs to another request.
    pub async fn hierarchy(
        &self,
        user: &UserId,
        room_id: &RoomId,
        request: &Hierarchy,
    ) -> Result<HierarchyPage, RoomError> {
        const REFUSED: RoomError = RoomError::Forbidden("the user may not see the room");
        let skip = request.skip()?;
        let limit = request.limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
        let max_depth = request.max_depth.unwrap_or(MAX_DEPTH).min(MAX_DEPTH);
        let mut told = Told::default();
        let root = match self.preview(Some(user), room_id).await {
            Ok((root, _)) => root,
            Err(RoomError::UnknownRoom) => {
                let via: Vec<_> = room_id.server_name().into_iter().collect();
                let via: Vec<_> = via.into_iter().map(ToOwned::to_owned).collect();
                let asked = [(room_id.to_owned(), via)];
                let root = self.rooms_below(&asked, request, &mut told).await?;
                let root = self.accessible(user, root).await?.pop();
                root.ok_or(REFUSED)?.0
            }
            Err(error) => return Err(error),
        };
        let mut met = BTreeSet::from([root.room_id.clone()]);
        let mut stack = vec![(root, 0)];
        let (mut walked, mut rooms) = (0, Vec::new());
        while let Some((summary, depth)) = stack.pop() {
            if rooms.len() == limit {
                let next = Some(request.token(walked));
                return Ok(HierarchyPage { rooms, next });
            }
            let shown = walked >= skip;
            walked += 1;
            let children = match told.children.remove(&summary.room_id) {
                Some(children) => children,
                None => self.children(&summary).await?,
            };
            let children = in_order(children, request.suggested_only);
            if depth < max_depth && met.len() < MAX_WALK {
                let new: Vec<(OwnedRoomId, Vec<OwnedServerName>)> = children
                    .iter()
                    .filter(|child| met.insert(child.room_id.clone()))
                    .filter_map(|child| Some((RoomId::parse(&*child.room_id).ok()?, child.via())))
                    .collect();
                let below = self.rooms_below(&new, request, &mut told).await?;
                let seen = self.accessible(user, below).await?;
                // The first child is on top.
                let below = seen.into_iter().rev();
                stack.extend(below.map(|(child, _)| (child, depth + 1)));
            }
            if shown {
                rooms.push(HierarchyRoom { summary, children });
            }
        }
        Ok(HierarchyPage { rooms, next: None })
    }

    /// Rooms of a tree, in their order: those that are here, and those that another server tells of.
    async fn rooms_below(
        &self,
        rooms: &[(OwnedRoomId, Vec<OwnedServerName>)],
        request: &Hierarchy,
        told: &mut Told,
    ) -> Result<Vec<Summary>, RoomError> {
        let key = |(room_id, _): &(OwnedRoomId, _)| InRoom {
            room: RoomKey::of(room_id.as_str()),
        };
        let keys: Vec<InRoom> = rooms.iter().map(key).collect();
        let rows = self.tenant().reader().get_many::<Summaries>(&keys).await?;
        let mut found = Vec::with_capacity(rooms.len());
        for ((room_id, via), row) in rooms.iter().zip(rows) {
            // Of a room that we have left we know what it was.
            if let Some(row) = row.filter(|row| row.value.ours > 0) {
                found.push(row.value);
                continue;
            }
            let known = told.rooms.remove(room_id.as_str());
            if let Some(known) = known.filter(|known| known.room_type.as_deref() != Some(SPACE)) {
                told.children.insert(room_id.to_string(), Vec::new());
                found.push(known);
                continue;
            }
            let us = self.server_name();
            let via: Vec<OwnedServerName> =
                via.iter().filter(|server| *server != us).cloned().collect();
            if via.is_empty() || told.asked >= MAX_ASKED {
                continue;
            }
            let Ok(elsewhere) = self.elsewhere("") else {
                continue;
            };
            told.asked += 1;
            match elsewhere
                .hierarchy(room_id, &via, request.suggested_only)
                .await
            {
                Ok(remote) if remote.room.summary.room_id == room_id.as_str() => {
                    let children = remote.children.into_iter();
                    told.rooms
                        .extend(children.map(|child| (child.room_id.clone(), child)));
                    told.children
                        .insert(room_id.to_string(), remote.room.children);
                    found.push(remote.room.summary);
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%room_id, %error, "a room of a space is not known"),
            }
        }
        Ok(found)
    }

    /// Those of the rooms that a user may read or enter, with their memberships.
    async fn accessible(
        &self,
        user: &UserId,
        rooms: Vec<Summary>,
    ) -> Result<Vec<(Summary, Option<Membership>)>, RoomError> {
        // A room, then the rooms whose members it lets in.
        let asked: Vec<Vec<&str>> = rooms
            .iter()
            .map(|room| {
                let restricted = ["restricted", "knock_restricted"].contains(&room.join_rule());
                let allowed = room.allowed.iter().filter(|_| restricted);
                [&room.room_id]
                    .into_iter()
                    .chain(allowed)
                    .map(String::as_str)
                    .collect()
            })
            .collect();
        let keys: Vec<UserRoom> = asked
            .iter()
            .flatten()
            .map(|room_id| UserRoom {
                user: user.to_string(),
                room: RoomKey::of(room_id),
            })
            .collect();
        let rows = self.tenant().reader().get_many::<Members>(&keys).await?;
        let mut rows = rows.into_iter();
        let mut answers = Vec::with_capacity(asked.len());
        for asked in &asked {
            let own = rows.next().flatten().map(|row| row.value.membership());
            let mut let_in = false;
            for row in rows.by_ref().take(asked.len() - 1) {
                let_in |= row.is_some_and(|row| row.value.membership() == Membership::Join);
            }
            answers.push((own, let_in));
        }
        Ok(rooms
            .into_iter()
            .zip(answers)
            .filter(|(room, (own, let_in))| match own {
                Some(Membership::Join | Membership::Invite) => true,
                Some(Membership::Ban) => false,
                _ => {
                    let open = ["public", "knock", "knock_restricted"].contains(&room.join_rule());
                    open || *let_in || room.world_readable()
                }
            })
            .map(|(room, (own, _))| (room, own))
            .collect())
    }

    /// The children of a space that is here.
    pub(crate) async fn children(&self, summary: &Summary) -> Result<Vec<SpaceChild>, RoomError> {
        if summary.room_type.as_deref() != Some(SPACE) {
            return Ok(Vec::new());
        }
        let room_id = crate::live::parse_room_id(&summary.room_id)?;
        let view = self.view(&room_id).await?;
        let children = view.space_children().await?;
        Ok(children.iter().map(SpaceChild::of).collect())
    }
}

/// Those of a space's children that are one, in their order.
pub(crate) fn in_order(children: Vec<SpaceChild>, suggested_only: bool) -> Vec<SpaceChild> {
    let mut ordered = Vec::new();
    for child in children {
        let Ok(content) = serde_json::from_str::<ChildContent>(child.content.get()) else {
            continue;
        };
        let suggested = content.suggested == Some(true.into());
        if content.via.is_some_and(|via| !via.is_empty()) && (suggested || !suggested_only) {
            let order = content.order.as_ref().and_then(|order| order.as_str());
            ordered.push((order.filter(is_order).map(str::to_owned), child));
        }
    }
    ordered.sort_by(|(a, one), (b, other)| {
        let by_order = match (a, b) {
            (Some(a), Some(b)) => a.cmp(b),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        };
        let rest = |child: &SpaceChild| (child.origin_server_ts, child.room_id.clone());
        by_order.then_with(|| rest(one).cmp(&rest(other)))
    });
    ordered.into_iter().map(|(_, child)| child).collect()
}

impl RoomView {
    /// The `m.space.child` events of the current state.
    async fn space_children(&self) -> Result<Vec<Event>, RoomError> {
        let room = self.key();
        let range = Range::of(Home::Room(room), |key| {
            key.room(room).str(CHILD);
        });
        let keys = self.reader().scan::<KeyNums>(range.limit(MAX_WALK)).await?;
        let keys: Vec<Option<StateKeyNum>> = keys
            .into_iter()
            .map(|(_, row)| Some(StateKeyNum(row.value.0)))
            .collect();
        let found = self.lookup(self.root(), &keys).await?;
        let nums: Vec<_> = found.into_iter().flatten().collect();
        let children = self.load(&nums).await?;
        Ok(children.into_iter().map(|found| found.event).collect())
    }
}

impl Hierarchy {
    /// What stays the same from page to page.
    fn kind(&self) -> String {
        let suggested = if self.suggested_only { "s" } else { "a" };
        let depth = self.max_depth.map(|depth| depth.to_string());
        format!("{suggested}{}", depth.unwrap_or_default())
    }

    fn token(&self, walked: usize) -> String {
        format!("{}.{walked}", self.kind())
    }

    fn skip(&self) -> Result<usize, RoomError> {
        let Some(from) = &self.from else {
            return Ok(0);
        };
        let (kind, walked) = from
            .split_once('.')
            .ok_or(RoomError::Invalid("not a token of a hierarchy"))?;
        if kind != self.kind() {
            return Err(RoomError::Invalid(
                "suggested_only and max_depth cannot change on paginated requests",
            ));
        }
        walked
            .parse()
            .map_err(|_| RoomError::Invalid("not a token of a hierarchy"))
    }
}

/// Whether an `order` counts.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#ordering-of-children-within-a-space>
fn is_order(order: &&str) -> bool {
    order.len() <= 50 && order.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
}
