//! Room aliases of this server.
//!
//! An alias lives in a lane of its own, by its name; a room's list of aliases in the room's lane.
//! The list's row is written first and taken away last, so every alias that leads to a room is in
//! its list; a row whose alias leads elsewhere means nothing, and listing looks.
//!
//! A room that is being made holds its alias before the room is there. Should the room never come
//! to be, the alias leads nowhere: after [`HELD`] it counts as free.

use comity_protocol::{
    auth::Membership,
    id::{OwnedRoomAliasId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, UserId},
};
use comity_storage::{CommitError, Expect, Home, Range, RoomKey, Row};
use serde::Deserialize;
use serde_json::{Map, Value, value::RawValue};

use crate::{
    change::{Change, Intent},
    error::RoomError,
    live::parse_room_id,
    rooms::Rooms,
    tables::{Alias, Aliases, InRoom, Infos, Named, RoomAliases, RoomText},
};

/// How long an alias waits for its room, in milliseconds.
const HELD: u64 = 60_000;
/// Aliases that one user may add to one room.
const MAX_ALIASES: usize = 1_000;
/// Other servers of a room that are named with its alias.
const MAX_SERVERS: usize = 20;
const CANONICAL: &str = "m.room.canonical_alias";
const TAKEN: RoomError = RoomError::Taken("the alias is taken");

/// Where an alias leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Servers that know the room.
    pub servers: Vec<OwnedServerName>,
}

/// `m.room.canonical_alias`
#[derive(Debug, Default, Deserialize)]
struct Canonical {
    #[serde(default)]
    alias: Option<String>,
    #[serde(default)]
    alt_aliases: Option<Vec<String>>,
}

impl Canonical {
    fn names(&self) -> impl Iterator<Item = &String> {
        self.alias.iter().chain(self.alt_aliases.iter().flatten())
    }
}

fn canonical(content: &RawValue) -> Result<Canonical, RoomError> {
    serde_json::from_str(content.get())
        .map_err(|_| RoomError::Invalid("alias or alt_aliases have the wrong type"))
}

fn parse(name: &str) -> Result<OwnedRoomAliasId, RoomError> {
    RoomAliasId::parse(name).map_err(|_| RoomError::Invalid("not a room alias"))
}

/// What a room may begin to call itself: by the one alias that it takes, for no other can lead to it yet.
pub(crate) fn check_first(
    content: &RawValue,
    own: Option<&OwnedRoomAliasId>,
) -> Result<(), RoomError> {
    for name in canonical(content)?.names().filter(|name| !name.is_empty()) {
        if Some(&parse(name)?) != own {
            return Err(RoomError::BadAlias);
        }
    }
    Ok(())
}

impl Rooms {
    /// The alias with this localpart on this server.
    ///
    /// # Errors
    /// [`RoomError::Invalid`] where there can't be one.
    pub fn alias_of(&self, localpart: &str) -> Result<OwnedRoomAliasId, RoomError> {
        let alias = format!("#{localpart}:{}", self.server_name());
        let refused = localpart.is_empty()
            || localpart.contains(|c: char| c == ':' || c.is_whitespace() || c.is_control());
        RoomAliasId::parse(alias)
            .ok()
            .filter(|_| !refused)
            .ok_or(RoomError::Invalid("the alias is not a valid room alias"))
    }

    /// Where an alias leads; one of another server is asked for there.
    ///
    /// # Errors
    /// [`RoomError::UnknownAlias`], [`RoomError::OtherServer`].
    pub async fn resolve_alias(&self, alias: &RoomAliasId) -> Result<Resolved, RoomError> {
        if alias.server_name() != self.server_name() {
            let elsewhere = self.elsewhere("aliases of other servers are not known here")?;
            return elsewhere.resolve_alias(alias).await;
        }
        self.resolve_own_alias(alias).await
    }

    /// Where an alias of this server leads.
    ///
    /// # Errors
    /// [`RoomError::UnknownAlias`].
    pub async fn resolve_own_alias(&self, alias: &RoomAliasId) -> Result<Resolved, RoomError> {
        let row = self.alias(alias).await?.ok_or(RoomError::UnknownAlias)?;
        if !self.leads(&row.value).await? {
            return Err(RoomError::UnknownAlias);
        }
        let room_id = parse_room_id(&row.value.room_id)?;
        let mut servers = vec![self.server_name().to_owned()];
        match self.servers_in(&room_id).await {
            Ok(others) => {
                let others = others.into_iter().filter(|name| name != self.server_name());
                servers.extend(others.take(MAX_SERVERS));
            }
            // The room is still being made.
            Err(RoomError::UnknownRoom) => {}
            Err(error) => return Err(error),
        }
        Ok(Resolved { room_id, servers })
    }

    /// Lets an alias lead to a room; any member of the room may.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3directoryroomroomalias>
    ///
    /// # Errors
    /// [`RoomError::Taken`]; [`RoomError::Rejected`] for someone who isn't in the room.
    pub async fn create_alias(
        &self,
        user: &UserId,
        alias: &RoomAliasId,
        room_id: &RoomId,
    ) -> Result<(), RoomError> {
        self.own_alias(alias)?;
        let mut change = self.change(room_id).await?;
        change.must_be_joined(user).await?;
        if self.listed_aliases(room_id).await?.len() >= MAX_ALIASES {
            return Err(RoomError::Forbidden("the room has too many aliases"));
        }
        change.list_alias(alias)?;
        change.commit().await?;
        self.reserve_alias(user, alias, room_id).await
    }

    /// Takes an alias away: its creator may, and whoever may set the room's canonical alias.
    /// Where it was the canonical one, the state stops saying so if the user may change it.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3directoryroomroomalias>
    ///
    /// # Errors
    /// [`RoomError::UnknownAlias`], [`RoomError::Forbidden`].
    pub async fn delete_alias(&self, user: &UserId, alias: &RoomAliasId) -> Result<(), RoomError> {
        let row = self.alias(alias).await?.ok_or(RoomError::UnknownAlias)?;
        let room_id = parse_room_id(&row.value.room_id)?;
        let change = match self.change(&room_id).await {
            Ok(mut change) => {
                let may = change.powers().await?.may_set(user, CANONICAL)
                    && change.membership(user).await? == Membership::Join;
                Some((change, may))
            }
            Err(RoomError::UnknownRoom) => None,
            Err(error) => return Err(error),
        };
        let may_set = change.as_ref().is_some_and(|(_, may)| *may);
        if row.value.creator != user.as_str() && !may_set {
            return Err(RoomError::Forbidden(
                "only its creator and moderators of the room may delete an alias",
            ));
        }
        let writer = self.tenant().lane(Home::Name(alias.as_str())).clone();
        let key = named(alias);
        let mut batch = writer.batch();
        batch
            .expect::<Aliases>(&key, Expect::At(row.pos))
            .delete::<Aliases>(&key);
        writer.commit(batch).await.map_err(|error| match error {
            CommitError::Conflict(_) => RoomError::UnknownAlias,
            error => error.into(),
        })?;
        if let Some((mut change, may_set)) = change {
            change.unlist_alias(alias)?;
            if may_set {
                change.uncanonical(user, alias).await?;
            }
            change.commit().await?;
        }
        Ok(())
    }

    /// The aliases of this server that lead to a room, for its members and, where it is world
    /// readable, for everybody.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3roomsroomidaliases>
    ///
    /// # Errors
    /// [`RoomError::Forbidden`].
    pub async fn aliases(
        &self,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<Vec<OwnedRoomAliasId>, RoomError> {
        const REFUSED: RoomError = RoomError::Forbidden("the room's aliases are for its members");
        let summary = match self.summary(room_id).await {
            Err(RoomError::UnknownRoom) => return Err(REFUSED),
            summary => summary?,
        };
        let member = self.member(user, room_id).await?;
        let joined = member.is_some_and(|row| row.value.membership() == Membership::Join);
        if !joined && !summary.world_readable() {
            return Err(REFUSED);
        }
        self.listed_aliases(room_id).await
    }

    /// Whether a new `m.room.canonical_alias` names only aliases that lead to its room. What the
    /// room's current one names as well isn't asked again.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey>
    ///
    /// # Errors
    /// [`RoomError::BadAlias`]; [`RoomError::Invalid`] for what is no alias.
    pub async fn check_canonical_alias(
        &self,
        room_id: &RoomId,
        content: &RawValue,
    ) -> Result<(), RoomError> {
        let new = canonical(content)?;
        let current = self
            .change(room_id)
            .await?
            .state_event(CANONICAL, "")
            .await?;
        let current: Canonical = current
            .and_then(|event| event.content_as().ok())
            .unwrap_or_default();
        for name in new.names().filter(|name| !name.is_empty()) {
            let alias = parse(name)?;
            if current.names().any(|known| known == name) {
                continue;
            }
            match self.resolve_alias(&alias).await {
                Ok(resolved) if resolved.room_id == *room_id => {}
                Ok(_) | Err(RoomError::UnknownAlias | RoomError::OtherServer(_)) => {
                    return Err(RoomError::BadAlias);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes a free name for a room, which may be in the making.
    pub(crate) async fn reserve_alias(
        &self,
        user: &UserId,
        alias: &RoomAliasId,
        room_id: &RoomId,
    ) -> Result<(), RoomError> {
        let old = self.alias(alias).await?;
        if let Some(old) = &old
            && (self.leads(&old.value).await? || old.value.since + HELD > self.now())
        {
            return Err(TAKEN);
        }
        self.put_alias(alias, old, user.as_str(), room_id).await
    }

    /// Lets an alias lead to another room.
    pub(crate) async fn move_alias(
        &self,
        alias: &RoomAliasId,
        from: &RoomId,
        to: &RoomId,
    ) -> Result<(), RoomError> {
        match self.alias(alias).await? {
            Some(row) if row.value.room_id == from.as_str() => {
                let creator = row.value.creator.clone();
                self.put_alias(alias, Some(row), &creator, to).await
            }
            _ => Ok(()),
        }
    }

    async fn put_alias(
        &self,
        alias: &RoomAliasId,
        old: Option<Row<Alias>>,
        creator: &str,
        room_id: &RoomId,
    ) -> Result<(), RoomError> {
        let writer = self.tenant().lane(Home::Name(alias.as_str())).clone();
        let new = Alias {
            room_id: room_id.to_string(),
            creator: creator.to_owned(),
            since: self.now(),
        };
        let key = named(alias);
        let mut batch = writer.batch();
        batch
            .expect::<Aliases>(&key, old.map_or(Expect::Absent, |row| Expect::At(row.pos)))
            .put::<Aliases>(&key, &new);
        match writer.commit(batch).await {
            Ok(_) => Ok(()),
            Err(CommitError::Conflict(_)) => Err(TAKEN),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives back a name whose room did not come to be.
    pub(crate) async fn release_alias(&self, alias: &RoomAliasId, room_id: &RoomId) {
        let writer = self.tenant().lane(Home::Name(alias.as_str())).clone();
        let key = named(alias);
        if let Ok(Some(row)) = self.alias(alias).await
            && row.value.room_id == room_id.as_str()
        {
            let mut batch = writer.batch();
            batch
                .expect::<Aliases>(&key, Expect::At(row.pos))
                .delete::<Aliases>(&key);
            // Should this fail, the name is free after a while.
            drop(writer.commit(batch).await);
        }
    }

    /// The aliases that lead to a room now.
    pub(crate) async fn listed_aliases(
        &self,
        room_id: &RoomId,
    ) -> Result<Vec<OwnedRoomAliasId>, RoomError> {
        let room = RoomKey::of(room_id.as_str());
        let reader = self.tenant().reader();
        let range = Range::of(Home::Room(room), |key| {
            key.room(room);
        });
        let keys: Vec<Named> = reader
            .scan::<RoomAliases>(range)
            .await?
            .into_iter()
            .map(|(key, _)| Named { name: key.name })
            .collect();
        let rows = reader.get_many::<Aliases>(&keys).await?;
        Ok(keys
            .into_iter()
            .zip(rows)
            .filter(|(_, row)| {
                row.as_ref()
                    .is_some_and(|row| row.value.room_id == room_id.as_str())
            })
            .filter_map(|(key, _)| RoomAliasId::parse(key.name).ok())
            .collect())
    }

    fn own_alias(&self, alias: &RoomAliasId) -> Result<(), RoomError> {
        let local = alias
            .as_str()
            .strip_prefix('#')
            .and_then(|rest| rest.strip_suffix(self.server_name().as_str()))
            .and_then(|rest| rest.strip_suffix(':'));
        match local {
            Some(local) => self.alias_of(local).map(drop),
            None => Err(RoomError::Invalid("the alias is not of this server")),
        }
    }

    async fn alias(&self, alias: &RoomAliasId) -> Result<Option<Row<Alias>>, RoomError> {
        let writer = self.tenant().lane(Home::Name(alias.as_str()));
        Ok(writer.reader().get::<Aliases>(&named(alias)).await?)
    }

    /// Whether the room that an alias names exists.
    async fn leads(&self, alias: &Alias) -> Result<bool, RoomError> {
        let room = RoomKey::of(&alias.room_id);
        let row = self
            .tenant()
            .reader()
            .get::<Infos>(&InRoom { room })
            .await?;
        Ok(row.is_some_and(|row| row.value.room_id == alias.room_id))
    }
}

impl Change {
    pub(crate) fn list_alias(&mut self, alias: &RoomAliasId) -> Result<(), RoomError> {
        let key = self.alias_key(alias)?;
        self.batch().put::<RoomAliases>(&key, &());
        Ok(())
    }

    pub(crate) fn unlist_alias(&mut self, alias: &RoomAliasId) -> Result<(), RoomError> {
        let key = self.alias_key(alias)?;
        self.batch().delete::<RoomAliases>(&key);
        Ok(())
    }

    fn alias_key(&self, alias: &RoomAliasId) -> Result<RoomText, RoomError> {
        let room = RoomKey::of(self.room_id()?.as_str());
        let name = alias.to_string();
        Ok(RoomText { room, name })
    }

    /// Takes an alias out of `m.room.canonical_alias`, if it is there.
    async fn uncanonical(&mut self, user: &UserId, alias: &RoomAliasId) -> Result<(), RoomError> {
        let Some(event) = self.state_event(CANONICAL, "").await? else {
            return Ok(());
        };
        let Ok(mut content) = event.content_as::<Map<String, Value>>() else {
            return Ok(());
        };
        let before = content.clone();
        let is_it = |value: &Value| value.as_str() == Some(alias.as_str());
        if content.get("alias").is_some_and(is_it) {
            content.remove("alias");
        }
        if let Some(Value::Array(others)) = content.get_mut("alt_aliases") {
            others.retain(|other| !is_it(other));
            if others.is_empty() {
                content.remove("alt_aliases");
            }
        }
        if content != before {
            self.add(Intent::state(user, CANONICAL, "", &content), None)
                .await?;
        }
        Ok(())
    }
}

fn named(alias: &RoomAliasId) -> Named {
    let name = alias.to_string();
    Named { name }
}
