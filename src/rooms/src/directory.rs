//! The directory: rooms that their members let everybody find.
//!
//! A published room has one row, in its own lane; what the list shows is its summary's. The list is
//! ordered by members, then by id, and a page token is a place in that order, so that pages stay
//! right while rooms come and go.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#published-room-directory>

use std::cmp::Reverse;

use comity_protocol::id::{RoomId, ServerName, UserId};
use comity_storage::{Range, RoomKey};

use crate::{
    change::Change,
    create::Visibility,
    error::RoomError,
    rooms::Rooms,
    tables::{Directory, InRoom, Listed, Published, Summaries, Summary},
};

/// Rooms on a page at the most.
const MAX_PAGE: usize = 500;

/// Which rooms of the directory are asked for.
#[derive(Debug, Clone, Default)]
pub struct DirectoryFilter {
    /// What the name, topic or canonical alias must contain, whatever the case.
    pub search_term: Option<String>,
    /// The types of rooms, `None` among them standing for rooms without a type.
    pub room_types: Option<Vec<Option<String>>>,
}

/// A page of the directory.
#[derive(Debug, Clone)]
pub struct DirectoryPage {
    /// The rooms.
    pub rooms: Vec<Summary>,
    /// The token of the page after, if there is one.
    pub next: Option<String>,
    /// The token of the page before, if there is one.
    pub prev: Option<String>,
    /// How many rooms there are in all.
    pub total: usize,
}

/// A place in the list: before a room or after it.
type Place = (Reverse<u64>, String);

impl Rooms {
    /// A page of another server's directory.
    ///
    /// # Errors
    /// [`RoomError::OtherServer`] where it can't be asked.
    pub async fn directory_of(
        &self,
        server: &ServerName,
        filter: &DirectoryFilter,
        limit: usize,
        since: Option<&str>,
    ) -> Result<DirectoryPage, RoomError> {
        let elsewhere = self.elsewhere("the directories of other servers can't be read")?;
        let limit = limit.clamp(1, MAX_PAGE);
        elsewhere.directory(server, filter, limit, since).await
    }

    /// A page of the directory, of `limit` rooms (500 at the most).
    ///
    /// # Errors
    /// [`RoomError::Invalid`] for a token that isn't one.
    pub async fn directory(
        &self,
        filter: &DirectoryFilter,
        limit: usize,
        since: Option<&str>,
    ) -> Result<DirectoryPage, RoomError> {
        let since = since.map(read_token).transpose()?;
        let limit = limit.clamp(1, MAX_PAGE);
        let mut rooms = self.published(filter).await?;
        rooms.sort_by_cached_key(place);
        let total = rooms.len();
        let (start, end) = match since {
            None => (0, limit),
            Some((true, at)) => {
                let start = rooms.partition_point(|room| place(room) <= at);
                (start, start.saturating_add(limit))
            }
            Some((false, at)) => {
                let end = rooms.partition_point(|room| place(room) < at);
                (end.saturating_sub(limit), end)
            }
        };
        let rooms: Vec<Summary> = rooms.into_iter().take(end).skip(start).collect();
        let next = rooms.last().filter(|_| end < total);
        let prev = rooms.first().filter(|_| start > 0);
        Ok(DirectoryPage {
            next: next.map(|room| token('f', room)),
            prev: prev.map(|room| token('b', room)),
            rooms,
            total,
        })
    }

    async fn published(&self, filter: &DirectoryFilter) -> Result<Vec<Summary>, RoomError> {
        let reader = self.tenant().reader();
        let listed = reader.scan::<Directory>(Range::everywhere(|_| {})).await?;
        let keys: Vec<InRoom> = listed
            .into_iter()
            .map(|(key, _)| InRoom { room: key.room })
            .collect();
        let term = filter.search_term.as_ref().map(|term| term.to_lowercase());
        let rows = reader.get_many::<Summaries>(&keys).await?;
        let rooms = rows.into_iter().flatten().map(|row| row.value);
        Ok(rooms
            .filter(|room| {
                let types = filter.room_types.as_ref();
                types.is_none_or(|types| types.contains(&room.room_type))
            })
            .filter(|room| term.as_ref().is_none_or(|term| mentions(room, term)))
            .collect())
    }

    /// Whether a room is in the directory; whether the asker may know of it is the caller's question.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`].
    pub async fn visibility(&self, room_id: &RoomId) -> Result<Visibility, RoomError> {
        self.summary(room_id).await?;
        let room = RoomKey::of(room_id.as_str());
        let row = self
            .tenant()
            .reader()
            .get::<Directory>(&Listed { room })
            .await?;
        Ok(match row {
            Some(_) => Visibility::Public,
            None => Visibility::Private,
        })
    }

    /// Puts a room into the directory or takes it out: for members with the power to set its
    /// canonical alias, and for an administrator of the server (no `member`), whose directory it is.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`], [`RoomError::Rejected`], [`RoomError::Forbidden`].
    pub async fn set_visibility(
        &self,
        member: Option<&UserId>,
        room_id: &RoomId,
        visibility: Visibility,
    ) -> Result<(), RoomError> {
        let mut change = self.change(room_id).await?;
        if let Some(user) = member {
            change.must_be_joined(user).await?;
            let powers = change.powers().await?;
            if !powers.may_set(user, "m.room.canonical_alias") {
                return Err(RoomError::Forbidden(
                    "only moderators of the room may publish it",
                ));
            }
        }
        change.publish(visibility == Visibility::Public)?;
        change.commit().await.map(drop)
    }
}

impl Change {
    /// Puts the room into the directory, or takes it out.
    pub(crate) fn publish(&mut self, public: bool) -> Result<(), RoomError> {
        let room = RoomKey::of(self.room_id()?.as_str());
        let key = Listed { room };
        if public {
            self.batch().put::<Directory>(&key, &Published);
        } else {
            self.batch().delete::<Directory>(&key);
        }
        Ok(())
    }
}

fn place(room: &Summary) -> Place {
    (Reverse(room.joined), room.room_id.clone())
}

fn mentions(room: &Summary, term: &str) -> bool {
    [&room.name, &room.topic, &room.canonical_alias]
        .into_iter()
        .flatten()
        .any(|text| text.to_lowercase().contains(term))
}

fn token(direction: char, room: &Summary) -> String {
    format!("{direction}{}{}", room.joined, room.room_id)
}

/// Whether a token asks for what comes after its place, and the place.
fn read_token(token: &str) -> Result<(bool, Place), RoomError> {
    let read = || {
        let forward = match token.chars().next()? {
            'f' => true,
            'b' => false,
            _ => return None,
        };
        let rest = token.get(1..)?;
        let at = rest.find('!')?;
        let (joined, room_id) = rest.split_at(at);
        Some((forward, (Reverse(joined.parse().ok()?), room_id.to_owned())))
    };
    read().ok_or(RoomError::Invalid("not a token of the room directory"))
}
