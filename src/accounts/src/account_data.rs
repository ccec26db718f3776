//! Account data, tags and push rules: what a user's clients keep on the server.
//!
//! Global data is in the user's lane; a room's data, tags included, is in the room's lane but keyed under the user, so that one
//! scan of the user's rows finds it for all rooms. Push rules are the global type `m.push_rules`, stored as what the user made
//! of them and shown whole.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#client-config>

use std::collections::BTreeSet;

use comity_protocol::push::{RuleError, UserRules};
use comity_storage::{
    Attempts, Batch, CommitError, Expect, Home, Pos, Range, Reader, RoomKey, Row,
};
use serde_json::{Map, Value, json};

use crate::{
    AccountError, Accounts, Change,
    tables::{
        AccountData, Json, RoomAccountData, RoomData, UserPart, UserRoomPart, is_part, of_user,
    },
};

/// Largest content of one type, in bytes.
const MAX_CONTENT_BYTES: usize = 256 * 1024;
const MAX_TAG_BYTES: usize = 255;
/// Most tags a room may have for a user.
const MAX_TAGS: usize = 100;
/// The type that holds push rules.
pub const PUSH_RULES: &str = "m.push_rules";
/// The type that holds a room's tags.
pub const TAGS: &str = "m.tag";
/// What is stored of data that was deleted, for syncs to tell. A client that writes it deletes, too (MSC3391, a draft).
pub(crate) const DELETED: &str = "{}";
/// The type that holds a room's fully read marker.
const FULLY_READ: &str = "m.fully_read";
/// The type that lists ignored users.
pub const IGNORED_USERS: &str = "m.ignored_user_list";

/// One type of account data, as sync shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct DataEvent {
    /// The room it is about; `None`: global.
    pub room_id: Option<String>,
    /// Its type.
    pub kind: String,
    /// Its content.
    pub content: Value,
    /// The position that wrote it, in the user's lane or the room's.
    pub pos: Pos,
}

impl DataEvent {
    /// Whether it was deleted: only who may know it from before need be told.
    pub fn is_deleted(&self) -> bool {
        self.content.as_object().is_some_and(Map::is_empty)
    }
}

impl Accounts {
    /// The content of a type of global account data; push rules are shown whole.
    ///
    /// # Errors
    /// The store's.
    pub async fn account_data(
        &self,
        user_id: &str,
        kind: &str,
    ) -> Result<Option<Value>, AccountError> {
        let row = self
            .get::<AccountData>(&UserPart::new(user_id, kind))
            .await?;
        match row {
            Some(row) if row.value.0 == DELETED => Ok(None),
            Some(row) => shown(user_id, kind, &row.value).map(Some),
            None if kind == PUSH_RULES => Ok(Some(whole(&UserRules::default(), user_id))),
            None => Ok(None),
        }
    }

    /// All global account data of a user, by type, the default push rules and what was deleted included. Not bounded: a sync leaves
    /// out rows newer than it may show.
    ///
    /// # Errors
    /// The store's.
    pub async fn all_account_data(&self, user_id: &str) -> Result<Vec<DataEvent>, AccountError> {
        let range = Range::of(Home::User(user_id), of_user(user_id));
        let rows = self.0.tenant.reader().scan::<AccountData>(range).await?;
        let event = |(key, row): (UserPart, Row<Json>)| {
            let content = shown(user_id, &key.part, &row.value)?;
            Ok(DataEvent {
                room_id: None,
                kind: key.part,
                content,
                pos: row.pos,
            })
        };
        let mut events = rows
            .into_iter()
            .map(event)
            .collect::<Result<Vec<_>, AccountError>>()?;
        if !events.iter().any(|event| event.kind == PUSH_RULES) {
            events.push(DataEvent {
                room_id: None,
                kind: PUSH_RULES.to_owned(),
                content: whole(&UserRules::default(), user_id),
                pos: 0,
            });
        }
        Ok(events)
    }

    /// Sets a type of global account data. `m.push_rules` has an API of its own and is refused.
    ///
    /// # Errors
    /// [`AccountError::Forbidden`], [`AccountError::TooLarge`]; the store's.
    pub async fn set_account_data(
        &self,
        user_id: &str,
        kind: &str,
        content: &Map<String, Value>,
    ) -> Result<(), AccountError> {
        let content = checked(kind, content)?;
        let lane = self.0.tenant.lane(Home::User(user_id));
        let mut batch = lane.batch();
        batch.put::<AccountData>(&UserPart::new(user_id, kind), &Json(content));
        batch.log(
            Change::AccountData {
                kind: kind.to_owned(),
            }
            .record(user_id),
        );
        lane.commit(batch).await?;
        Ok(())
    }

    /// Deletes a type of global account data; what isn't there is fine.
    ///
    /// # Errors
    /// As [`Accounts::set_account_data`].
    pub async fn delete_account_data(&self, user_id: &str, kind: &str) -> Result<(), AccountError> {
        checked(kind, &Map::new())?;
        let lane = self.0.tenant.lane(Home::User(user_id));
        let mut attempts = Attempts::default();
        loop {
            let mut batch = lane.batch();
            let is_there = delete(&lane.reader(), user_id, kind, &mut batch).await?;
            if !is_there || attempts.commit(lane, batch).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// The content of a type of a room's account data.
    ///
    /// # Errors
    /// The store's.
    pub async fn room_account_data(
        &self,
        user_id: &str,
        room_id: &str,
        kind: &str,
    ) -> Result<Option<Value>, AccountError> {
        let row = self
            .get::<RoomAccountData>(&room_key(user_id, room_id, kind))
            .await?;
        row.filter(|row| row.value.content != DELETED)
            .map(|row| parse(&row.value.content))
            .transpose()
    }

    /// A user's account data of all rooms, in no order of rooms that means anything. Not bounded, as [`Accounts::all_account_data`].
    ///
    /// # Errors
    /// The store's.
    pub async fn all_room_account_data(
        &self,
        user_id: &str,
    ) -> Result<Vec<DataEvent>, AccountError> {
        self.room_data(Range::everywhere(of_user(user_id))).await
    }

    /// A user's account data of one room, what was deleted included.
    ///
    /// # Errors
    /// The store's.
    pub async fn account_data_of_room(
        &self,
        user_id: &str,
        room_id: &str,
    ) -> Result<Vec<DataEvent>, AccountError> {
        let room = RoomKey::of(room_id);
        let range = Range::of(Home::Room(room), |key| {
            key.str(user_id).room(room);
        });
        self.room_data(range).await
    }

    async fn room_data(&self, range: Range) -> Result<Vec<DataEvent>, AccountError> {
        let rows = self
            .0
            .tenant
            .reader()
            .scan::<RoomAccountData>(range)
            .await?;
        let event = |(key, row): (UserRoomPart, Row<RoomData>)| {
            let content = parse(&row.value.content)?;
            Ok(DataEvent {
                room_id: Some(row.value.room_id),
                kind: key.part,
                content,
                pos: row.pos,
            })
        };
        rows.into_iter().map(event).collect()
    }

    /// Removes a user's account data of all rooms, a room at a time.
    pub(crate) async fn forget_room_account_data(&self, user_id: &str) -> Result<(), AccountError> {
        let range = Range::everywhere(of_user(user_id));
        let rows = self
            .0
            .tenant
            .reader()
            .scan::<RoomAccountData>(range)
            .await?;
        let rooms: BTreeSet<_> = rows.iter().map(|(key, _)| key.room).collect();
        for room in rooms {
            let lane = self.0.tenant.lane(Home::Room(room));
            let mut batch = lane.batch();
            batch.delete_all::<RoomAccountData>(Home::Room(room), |key| {
                key.str(user_id).room(room);
            });
            lane.commit(batch).await?;
        }
        Ok(())
    }

    /// Sets a type of a room's account data.
    ///
    /// # Errors
    /// [`AccountError::Forbidden`] for a type that has an API of its own, [`AccountError::TooLarge`]; the store's.
    pub async fn set_room_account_data(
        &self,
        user_id: &str,
        room_id: &str,
        kind: &str,
        content: &Map<String, Value>,
    ) -> Result<(), AccountError> {
        let content = checked(kind, content)?;
        self.change_room_data(user_id, room_id, kind, |_| Ok(Some(content.clone())))
            .await
    }

    /// Deletes a type of a room's account data; what isn't there is fine.
    ///
    /// # Errors
    /// As [`Accounts::set_room_account_data`].
    pub async fn delete_room_account_data(
        &self,
        user_id: &str,
        room_id: &str,
        kind: &str,
    ) -> Result<(), AccountError> {
        checked(kind, &Map::new())?;
        self.change_room_data(user_id, room_id, kind, |old| {
            let is_there = old.is_some_and(|old| old != DELETED);
            Ok(is_there.then(|| DELETED.to_owned()))
        })
        .await
    }

    /// Moves a user's fully read marker in a room; that the event is the room's is the caller's to know.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#fully-read-markers>
    ///
    /// # Errors
    /// The store's.
    pub async fn set_fully_read(
        &self,
        user_id: &str,
        room_id: &str,
        event_id: &str,
    ) -> Result<(), AccountError> {
        let content = json!({ "event_id": event_id }).to_string();
        self.change_room_data(user_id, room_id, FULLY_READ, |_| Ok(Some(content.clone())))
            .await
    }

    /// Tags a room.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#room-tagging>
    ///
    /// # Errors
    /// [`AccountError::InvalidParam`], [`AccountError::TooLarge`]; the store's.
    pub async fn set_tag(
        &self,
        user_id: &str,
        room_id: &str,
        tag: &str,
        content: &Map<String, Value>,
    ) -> Result<(), AccountError> {
        if tag.is_empty() || tag.len() > MAX_TAG_BYTES {
            return Err(AccountError::InvalidParam("The tag is empty or too long."));
        }
        self.change_tags(user_id, room_id, |tags| {
            tags.insert(tag.to_owned(), Value::Object(content.clone()));
            tags.len() <= MAX_TAGS
        })
        .await
    }

    /// Removes a tag; one that isn't there is fine.
    ///
    /// # Errors
    /// The store's.
    pub async fn remove_tag(
        &self,
        user_id: &str,
        room_id: &str,
        tag: &str,
    ) -> Result<(), AccountError> {
        self.change_tags(user_id, room_id, |tags| {
            tags.remove(tag);
            true
        })
        .await
    }

    async fn change_tags(
        &self,
        user_id: &str,
        room_id: &str,
        edit: impl Fn(&mut Map<String, Value>) -> bool,
    ) -> Result<(), AccountError> {
        self.change_room_data(user_id, room_id, TAGS, |old| {
            let old = old.map(parse).transpose()?.unwrap_or_default();
            let before = old
                .get("tags")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default();
            let mut tags = before.clone();
            if !edit(&mut tags) {
                return Err(AccountError::TooLarge("The room has too many tags."));
            }
            if tags == before {
                return Ok(None);
            }
            let content = json!({ "tags": tags }).to_string();
            if content.len() > MAX_CONTENT_BYTES {
                return Err(AccountError::TooLarge("The room's tags are too large."));
            }
            Ok(Some(content))
        })
        .await
    }

    /// Replaces a row of room account data by what `edit` makes of it; `None` leaves it.
    async fn change_room_data(
        &self,
        user_id: &str,
        room_id: &str,
        kind: &str,
        edit: impl Fn(Option<&str>) -> Result<Option<String>, AccountError>,
    ) -> Result<(), AccountError> {
        let key = room_key(user_id, room_id, kind);
        let lane = self.0.tenant.lane(Home::Room(key.room));
        let change = Change::RoomAccountData {
            room_id: room_id.to_owned(),
            kind: kind.to_owned(),
        };
        let mut attempts = Attempts::default();
        loop {
            let row = lane.reader().get::<RoomAccountData>(&key).await?;
            let old = row.as_ref().map(|row| row.value.content.as_str());
            let Some(content) = edit(old)? else {
                return Ok(());
            };
            let mut batch = lane.batch();
            let was = row.map_or(Expect::Absent, |row| Expect::At(row.pos));
            batch.expect::<RoomAccountData>(&key, was);
            let data = RoomData {
                room_id: room_id.to_owned(),
                content,
            };
            batch
                .put::<RoomAccountData>(&key, &data)
                .log(change.record(user_id));
            if attempts.commit(lane, batch).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Whom a user ignores.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#ignoring-users>
    ///
    /// # Errors
    /// The store's.
    pub async fn ignored_users(&self, user_id: &str) -> Result<BTreeSet<String>, AccountError> {
        let content = self.account_data(user_id, IGNORED_USERS).await?;
        let ignored = content
            .as_ref()
            .and_then(|content| content.get("ignored_users")?.as_object());
        Ok(ignored
            .into_iter()
            .flatten()
            .map(|(user, _)| user.clone())
            .collect())
    }

    /// What a user made of their push rules.
    ///
    /// # Errors
    /// The store's.
    pub async fn push_rules(&self, user_id: &str) -> Result<UserRules, AccountError> {
        let row = self
            .get::<AccountData>(&UserPart::new(user_id, PUSH_RULES))
            .await?;
        row.map_or_else(|| Ok(UserRules::default()), |row| stored_rules(&row.value))
    }

    /// Changes a user's push rules; the inner error is the edit's own refusal.
    ///
    /// # Errors
    /// The store's.
    pub async fn edit_push_rules(
        &self,
        user_id: &str,
        edit: impl Fn(&mut UserRules) -> Result<(), RuleError>,
    ) -> Result<Result<(), RuleError>, AccountError> {
        let key = UserPart::new(user_id, PUSH_RULES);
        let lane = self.0.tenant.lane(Home::User(user_id));
        let change = Change::AccountData {
            kind: PUSH_RULES.to_owned(),
        };
        let mut attempts = Attempts::default();
        loop {
            let row = lane.reader().get::<AccountData>(&key).await?;
            let old = row
                .as_ref()
                .map(|row| stored_rules(&row.value))
                .transpose()?
                .unwrap_or_default();
            let mut rules = old.clone();
            if let Err(refused) = edit(&mut rules) {
                return Ok(Err(refused));
            }
            if rules == old {
                return Ok(Ok(()));
            }
            let text = serde_json::to_string(&rules);
            let text = text.map_err(|_| AccountError::Internal("push rules can't be written"))?;
            let mut batch = lane.batch();
            batch
                .expect::<AccountData>(&key, row.map_or(Expect::Absent, |row| Expect::At(row.pos)));
            batch
                .put::<AccountData>(&key, &Json(text))
                .log(change.record(user_id));
            if attempts.commit(lane, batch).await?.is_some() {
                return Ok(Ok(()));
            }
        }
    }
}

/// Adds to a batch that a type of global account data is deleted, if there is such; the batch then rests on its being as it was, and
/// this is true.
pub(crate) async fn delete(
    reader: &Reader,
    user_id: &str,
    kind: &str,
    batch: &mut Batch,
) -> Result<bool, CommitError> {
    let key = UserPart::new(user_id, kind);
    let row = reader.get::<AccountData>(&key).await?;
    let Some(row) = row.filter(|row| row.value.0 != DELETED) else {
        return Ok(false);
    };
    let change = Change::AccountData {
        kind: kind.to_owned(),
    };
    batch.expect::<AccountData>(&key, Expect::At(row.pos));
    batch
        .put::<AccountData>(&key, &Json(DELETED.to_owned()))
        .log(change.record(user_id));
    Ok(true)
}

fn room_key(user_id: &str, room_id: &str, kind: &str) -> UserRoomPart {
    UserRoomPart {
        user: user_id.to_owned(),
        room: RoomKey::of(room_id),
        part: kind.to_owned(),
    }
}

fn checked(kind: &str, content: &Map<String, Value>) -> Result<String, AccountError> {
    if matches!(kind, PUSH_RULES | FULLY_READ) {
        return Err(AccountError::Forbidden(
            "This type of account data has an API of its own.",
        ));
    }
    if kind.is_empty() || !is_part(kind) {
        return Err(AccountError::InvalidParam(
            "The type of account data is empty or too long.",
        ));
    }
    let text = serde_json::to_string(content)
        .map_err(|_| AccountError::InvalidParam("The content can't be stored."))?;
    if text.len() > MAX_CONTENT_BYTES {
        return Err(AccountError::TooLarge("The content is too large."));
    }
    Ok(text)
}

fn parse(text: &str) -> Result<Value, AccountError> {
    serde_json::from_str(text).map_err(|_| AccountError::Internal("stored account data is no JSON"))
}

fn stored_rules(row: &Json) -> Result<UserRules, AccountError> {
    serde_json::from_str(&row.0)
        .map_err(|_| AccountError::Internal("stored push rules can't be read"))
}

fn shown(user_id: &str, kind: &str, row: &Json) -> Result<Value, AccountError> {
    match kind {
        PUSH_RULES => Ok(whole(&stored_rules(row)?, user_id)),
        _ => parse(&row.0),
    }
}

fn whole(rules: &UserRules, user_id: &str) -> Value {
    json!({ "global": rules.ruleset(user_id) })
}
