//! Who may find whom: users who share a room, and those in a room that is open to everybody. Users of other servers are known by the
//! rooms that they are in alone, and found by those who share one.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-directory>

use std::{collections::BTreeSet, ops::ControlFlow};

use comity_protocol::{
    auth::Membership,
    id::{OwnedUserId, RoomId, UserId},
};
use comity_storage::{RoomKey, Row};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use crate::{
    error::RoomError,
    num::StateKeyNum,
    rooms::Rooms,
    state::Half,
    tables::{Bodies, InRoom, Member, RoomNum, StateKeys, Summaries, Summary},
    view::RoomView,
};

/// Members looked at in one go.
const PAGE: usize = 512;

/// A user of another server, as a room shows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acquaintance {
    /// Their id.
    pub user_id: String,
    /// Their name there.
    pub display_name: Option<String>,
    /// Their avatar there.
    pub avatar_url: Option<String>,
}

impl Rooms {
    /// The first `most` of `others` whom `user` may find, in the order given. Themself they find where everybody does.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn findable(
        &self,
        user: &UserId,
        others: &[OwnedUserId],
        most: usize,
    ) -> Result<Vec<OwnedUserId>, RoomError> {
        let mine: BTreeSet<RoomKey> = self.joined_keys(user).await?.into_iter().collect();
        let mut findable = Vec::new();
        for other in others {
            if findable.len() >= most {
                break;
            }
            let theirs = self.joined_keys(other).await?;
            let is_met = other != user && theirs.iter().any(|room| mine.contains(room));
            if is_met || self.any_open(&theirs).await? {
                findable.push(other.clone());
            }
        }
        Ok(findable)
    }

    /// Lets `meet` know the users of other servers who are in a room with `user`, each by each such room, until it has enough of them
    /// or `most` members were looked at; whether these were all. Where too many ask for that at once, it is none of them.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn acquaintances(
        &self,
        user: &UserId,
        most: usize,
        mut meet: impl FnMut(Acquaintance) -> ControlFlow<()>,
    ) -> Result<bool, RoomError> {
        let joined = self.joined(user).await?;
        let keys: Vec<InRoom> = joined
            .iter()
            .map(|(room, _)| InRoom { room: *room })
            .collect();
        let summaries = self.tenant().reader().get_many::<Summaries>(&keys).await?;
        let has_others = |summary: Option<Row<Summary>>| {
            summary.is_none_or(|summary| summary.value.joined != summary.value.ours)
        };
        let rooms = joined.into_iter().zip(summaries);
        let rooms = rooms.filter_map(|((_, row), summary)| has_others(summary).then_some(row));
        let rooms: Vec<Row<Member>> = rooms.collect();
        if rooms.is_empty() {
            return Ok(true);
        }
        let Some(_walk) = self.0.walks.begin(user).await else {
            return Ok(false);
        };
        let mut left = most;
        for row in rooms {
            let Ok(room_id) = RoomId::parse(&row.value.room_id) else {
                continue;
            };
            match self.view(&room_id).await {
                Ok(view) => {
                    if view.others(&mut left, &mut meet).await?.is_break() {
                        return Ok(false);
                    }
                }
                // Purged since.
                Err(RoomError::UnknownRoom) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(left > 0)
    }

    async fn joined(&self, user: &UserId) -> Result<Vec<(RoomKey, Row<Member>)>, RoomError> {
        let rows = self.memberships(&self.tenant().reader(), user).await?;
        let joined = rows
            .into_iter()
            .filter(|(_, row)| row.value.membership() == Membership::Join);
        Ok(joined.collect())
    }

    async fn joined_keys(&self, user: &UserId) -> Result<Vec<RoomKey>, RoomError> {
        let joined = self.joined(user).await?;
        Ok(joined.into_iter().map(|(room, _)| room).collect())
    }

    /// Whether everybody may join or read one of these rooms.
    async fn any_open(&self, rooms: &[RoomKey]) -> Result<bool, RoomError> {
        let keys: Vec<InRoom> = rooms.iter().map(|room| InRoom { room: *room }).collect();
        let rows = self.tenant().reader().get_many::<Summaries>(&keys).await?;
        let mut summaries = rows.into_iter().flatten().map(|row| row.value);
        Ok(summaries.any(|room| room.join_rule() == "public" || room.world_readable()))
    }
}

impl RoomView {
    /// The joined users of other servers.
    async fn others(
        &self,
        left: &mut usize,
        meet: &mut impl FnMut(Acquaintance) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, RoomError> {
        let first = StateKeyNum::member(0);
        let mut entries = self.trie().entries(self.root(), Some(Half::Members), first);
        while *left > 0 {
            let page = entries.next_page(PAGE.min(*left)).await?;
            if page.is_empty() {
                break;
            }
            *left = left.saturating_sub(page.len());
            let room = self.key();
            let keys = page.iter().map(|(key, _)| RoomNum { room, num: key.0 });
            let keys: Vec<RoomNum> = keys.collect();
            let names = self.reader().get_many::<StateKeys>(&keys).await?;
            let members = page.into_iter().zip(names).filter_map(|((_, num), name)| {
                let user_id = name?.value.state_key;
                let is_ours = self
                    .rooms()
                    .is_local(<&UserId>::try_from(user_id.as_str()).ok()?);
                (!is_ours).then_some((RoomNum { room, num: num.0 }, user_id))
            });
            let (nums, users): (Vec<RoomNum>, Vec<String>) = members.unzip();
            let bodies = self.reader().get_many::<Bodies>(&nums).await?;
            let mut shown = users
                .into_iter()
                .zip(bodies)
                .filter_map(|(user_id, body)| shown(user_id, &body?.value.json));
            if shown.try_for_each(&mut *meet).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Whom a member event shows, if they are joined.
fn shown(user_id: String, event: &str) -> Option<Acquaintance> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        content: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct Content {
        membership: Value,
        displayname: Option<Value>,
        avatar_url: Option<Value>,
    }
    let body: Body<'_> = serde_json::from_str(event).ok()?;
    let content: Content = serde_json::from_str(body.content.get()).ok()?;
    let text = |value: Option<Value>| match value {
        Some(Value::String(text)) if !text.is_empty() => Some(text),
        _ => None,
    };
    (content.membership == Membership::Join.as_str()).then(|| Acquaintance {
        user_id,
        display_name: text(content.displayname),
        // What users set as their avatar need not be one.
        avatar_url: text(content.avatar_url).filter(|url| url.starts_with("mxc://")),
    })
}
