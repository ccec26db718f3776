//! Replacing a room by one of another version.
//!
//! The old room is held while the new one is made, so what is copied is what the tombstone ends. Before
//! the new room is committed a row of the old one notes what is to be done ([`Upgrade`]); then come the
//! new room, the tombstone, the aliases, and the row goes. What a crash leaves is done at the next start,
//! or when somebody asks for the upgrade again: nothing, where the new room never came to be; otherwise
//! the rest of it. A tombstone never leads nowhere, and one upgrade makes one room.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#server-behaviour-19>

use comity_encryption_policy::{
    ALGORITHM, ENCRYPTION_EVENT, MODE_EVENT, Mode as EncryptionMode, Policy,
};
use comity_protocol::{
    auth::LevelField,
    event::Event,
    id::{OwnedRoomId, RoomAliasId, RoomId, UserId},
    room_version::RoomVersion,
};
use comity_storage::{Home, Range, RoomKey};
use serde_json::{Map, Value, json};

use crate::{
    change::{Change, Intent},
    create::{Visibility, in_new_room},
    error::RoomError,
    live::parse_room_id,
    profile::{Profile, member_content},
    rooms::Rooms,
    tables::{InRoom, Infos, KeyNums, Upgrade, Upgrades},
};

const LEVELS: &str = "m.room.power_levels";
const TOMBSTONE: &str = "m.room.tombstone";
const CANONICAL: &str = "m.room.canonical_alias";
/// The state that goes with a room, as the specification recommends; power levels come last, so that
/// they can't stand in the way of the rest.
const TRANSFERRED: [&str; 7] = [
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
    "m.room.server_acl",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
];
/// Children of a space that go with it.
const MAX_CHILDREN: usize = 1_000;

impl Rooms {
    /// Replaces a room; answers the new one's id. Push rules, tags and the like are the caller's to
    /// carry over.
    ///
    /// # Errors
    /// [`RoomError::UnsupportedVersion`]; [`RoomError::Forbidden`] for someone who may not send a
    /// tombstone; [`RoomError::BadJson`] for creators that are no users.
    pub async fn upgrade(
        &self,
        user: &UserId,
        profile: &Profile,
        room_id: &RoomId,
        new_version: &str,
        additional_creators: &[String],
    ) -> Result<OwnedRoomId, RoomError> {
        let version = RoomVersion::parse(new_version).ok_or(RoomError::UnsupportedVersion)?;
        let mut old = self.change(room_id).await?;
        old.must_be_joined(user).await?;
        if old.upgrade_under_way().await?.is_some() {
            drop(old);
            if let Some(done) = self.finish_upgrade(room_id).await? {
                return Ok(done);
            }
            old = self.change(room_id).await?;
            old.must_be_joined(user).await?;
        }
        if !old.powers().await?.may_set(user, TOMBSTONE) {
            return Err(RoomError::Forbidden("the user may not upgrade the room"));
        }
        let aliases = self.listed_aliases(room_id).await?;
        let published = self.visibility(room_id).await? == Visibility::Public;
        let create = create_content(&mut old, version, user, additional_creators).await?;
        let mut new = self.first_event(version, user, &create).await?;
        let mut join = Map::new();
        member_content(&mut join, "join", Some(profile), None);
        let join = Intent::state(user, "m.room.member", user.as_str(), &join);
        new.add(join, None).await.map_err(in_new_room)?;
        for intent in old.transferred(user, self.encryption()).await? {
            new.add(intent, None).await.map_err(in_new_room)?;
        }
        let privileged = [user.as_str()]
            .into_iter()
            .chain(additional_creators.iter().map(String::as_str));
        let privileged: Vec<&str> = privileged.collect();
        if let Some(levels) = old.levels_for(version, &privileged).await? {
            let levels = Intent::state(user, LEVELS, "", &levels);
            new.add(levels, None).await.map_err(in_new_room)?;
        }
        for alias in &aliases {
            new.list_alias(alias)?;
        }
        if published {
            new.publish(true)?;
        }
        let job = Upgrade {
            room_id: room_id.to_string(),
            replacement: new.room_id()?.to_string(),
            user: user.to_string(),
            aliases: aliases.iter().map(ToString::to_string).collect(),
            published,
        };
        let new_id = new.room_id()?.to_owned();
        // Whether the old room takes its end is known before anything is written.
        old.end(user, &new_id, &job).await?;
        let lane = self
            .tenant()
            .lane(Home::Room(RoomKey::of(room_id.as_str())));
        let mut note = lane.batch();
        note.put::<Upgrades>(&in_room(room_id), &job);
        lane.commit(note).await?;
        new.commit().await?;
        old.commit().await?;
        self.move_aliases(room_id, &job).await?;
        Ok(new_id)
    }

    /// Goes on with the upgrades that were under way when the server last stopped.
    ///
    /// # Errors
    /// The first that could not be finished; call again.
    pub async fn resume_upgrades(&self) -> Result<(), RoomError> {
        let reader = self.tenant().reader();
        let mut first = Ok(());
        for (_, row) in reader.scan::<Upgrades>(Range::everywhere(|_| {})).await? {
            let room_id = parse_room_id(&row.value.room_id)?;
            first = first.and(self.finish_upgrade(&room_id).await.map(drop));
        }
        first
    }

    /// Does what is left of an upgrade; answers the new room, or nothing where it never came to be.
    async fn finish_upgrade(&self, room_id: &RoomId) -> Result<Option<OwnedRoomId>, RoomError> {
        let mut old = self.change(room_id).await?;
        let Some(job) = old.upgrade_under_way().await? else {
            return Ok(None);
        };
        let new_id = parse_room_id(&job.replacement)?;
        let key = in_room(&new_id);
        let reader = self.tenant().lane(Home::Room(key.room)).reader();
        if reader.get::<Infos>(&key).await?.is_none() {
            old.batch().delete::<Upgrades>(&in_room(room_id));
            old.commit().await?;
            return Ok(None);
        }
        let grave = old.state_event(TOMBSTONE, "").await?;
        let grave =
            grave.and_then(|grave| Some(grave.content_string("replacement_room")?.into_owned()));
        if grave.as_deref() != Some(new_id.as_str()) {
            let user = <&UserId>::try_from(job.user.as_str())
                .map_err(|_| RoomError::Damaged("a stored user id does not parse".into()))?;
            match old.end(user, &new_id, &job).await {
                // Who began it has lost the power to: the new room stands by itself.
                Err(RoomError::Rejected(_)) => drop(old),
                ended => {
                    ended?;
                    old.commit().await?;
                }
            }
        } else {
            drop(old);
        }
        self.move_aliases(room_id, &job).await?;
        Ok(Some(new_id))
    }

    /// The last part of an upgrade.
    async fn move_aliases(&self, room_id: &RoomId, job: &Upgrade) -> Result<(), RoomError> {
        let new_id = parse_room_id(&job.replacement)?;
        for alias in &job.aliases {
            if let Ok(alias) = <&RoomAliasId>::try_from(alias.as_str()) {
                self.move_alias(alias, room_id, &new_id).await?;
            }
        }
        let lane = self
            .tenant()
            .lane(Home::Room(RoomKey::of(room_id.as_str())));
        let mut done = lane.batch();
        done.delete::<Upgrades>(&in_room(room_id));
        lane.commit(done).await?;
        Ok(())
    }

    /// The room that a room replaces, where both say so.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn replaces(&self, room_id: &RoomId) -> Result<Option<OwnedRoomId>, RoomError> {
        let summary = match self.summary(room_id).await {
            Err(RoomError::UnknownRoom) => return Ok(None),
            summary => summary?,
        };
        let Some(Ok(before)) = summary.predecessor.as_deref().map(parse_room_id) else {
            return Ok(None);
        };
        match self.summary(&before).await {
            Ok(old) if old.replacement.as_deref() == Some(room_id.as_str()) => Ok(Some(before)),
            Ok(_) | Err(RoomError::UnknownRoom) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn in_room(room_id: &RoomId) -> InRoom {
    let room = RoomKey::of(room_id.as_str());
    InRoom { room }
}

/// The same state event once more, by this user.
fn again(user: &UserId, event: &Event) -> Intent {
    Intent {
        sender: user.to_owned(),
        event_type: event.event_type().to_owned(),
        state_key: event.state_key().map(str::to_owned),
        content: event.content().to_owned(),
        redacts: None,
    }
}

/// The content of the new room's `m.room.create`.
async fn create_content(
    old: &mut Change,
    version: RoomVersion,
    user: &UserId,
    additional_creators: &[String],
) -> Result<Map<String, Value>, RoomError> {
    let rules = version.rules();
    let event = old.state_event("m.room.create", "").await?;
    let before: Map<String, Value> = event
        .and_then(|event| event.content_as().ok())
        .unwrap_or_default();
    let mut content = Map::new();
    for key in ["type", "m.federate"] {
        if let Some(value) = before.get(key) {
            content.insert(key.to_owned(), value.clone());
        }
    }
    content.insert("room_version".into(), version.as_str().into());
    let mut predecessor = json!({ "room_id": old.room_id()? });
    if rules.privileged_creators {
        let creators: Vec<&String> = additional_creators
            .iter()
            .filter(|creator| creator.as_str() != user.as_str())
            .collect();
        if !creators.is_empty() {
            content.insert("additional_creators".into(), json!(creators));
        }
    } else if let Some(last) = old.last_event().await? {
        // From version 12 the room's own id stands for its end.
        predecessor = json!({ "room_id": old.room_id()?, "event_id": last });
    }
    if !rules.creator_is_sender {
        content.insert("creator".into(), user.as_str().into());
    }
    content.insert("predecessor".into(), predecessor);
    Ok(content)
}

impl Change {
    /// The upgrade of this room that is not finished.
    async fn upgrade_under_way(&self) -> Result<Option<Upgrade>, RoomError> {
        let live = self.live()?;
        let key = InRoom { room: live.room };
        let row = live.reader().get::<Upgrades>(&key).await?;
        Ok(row.map(|row| row.value))
    }

    /// The state that goes along to a new room.
    async fn transferred(
        &mut self,
        user: &UserId,
        tenant: EncryptionMode,
    ) -> Result<Vec<Intent>, RoomError> {
        let mut keys: Vec<(&str, String)> = TRANSFERRED
            .iter()
            .map(|kind| (*kind, String::new()))
            .collect();
        let live = self.live()?;
        let (room, is_space) = (
            live.room,
            live.summary.room_type.as_deref() == Some("m.space"),
        );
        if is_space {
            let range = Range::of(Home::Room(room), |key| {
                key.room(room).str("m.space.child");
            });
            let children = live
                .reader()
                .scan::<KeyNums>(range.limit(MAX_CHILDREN))
                .await?;
            keys.extend(
                children
                    .into_iter()
                    .map(|(key, _)| ("m.space.child", key.state_key)),
            );
        }
        keys.push((CANONICAL, String::new()));
        let mut intents = self.encryption_for(user, tenant, is_space).await?;
        for (kind, state_key) in keys {
            if let Some(event) = self.state_event(kind, &state_key).await? {
                intents.push(again(user, &event));
            }
        }
        Ok(intents)
    }

    /// The new room's encryption and its mode: what is required in this one is required there, also where somebody elsewhere took it
    /// back here (R20.1).
    async fn encryption_for(
        &mut self,
        user: &UserId,
        tenant: EncryptionMode,
        is_space: bool,
    ) -> Result<Vec<Intent>, RoomError> {
        let summary = &self.live()?.summary;
        let own = summary.encryption_mode;
        let stands = self.state_event(ENCRYPTION_EVENT, "").await?;
        let algorithm = stands
            .as_ref()
            .and_then(|event| event.content_string("algorithm"));
        // A tenant that requires has spaces all the same.
        let must =
            Policy::of(tenant, own).must && (!is_space || own == Some(EncryptionMode::Required));
        let mut intents = Vec::new();
        if must && algorithm.as_deref() != Some(ALGORITHM) {
            let content = json!({ "algorithm": ALGORITHM });
            intents.push(Intent::state(user, ENCRYPTION_EVENT, "", &content));
        } else if let Some(event) = &stands {
            intents.push(again(user, event));
        }
        let stays = match own {
            Some(EncryptionMode::Required) => true,
            Some(EncryptionMode::Forbidden) => !must && algorithm.is_none(),
            // As without one.
            Some(EncryptionMode::Allowed | EncryptionMode::Default) | None => false,
        };
        if let Some(mode) = own.filter(|_| stays) {
            let content = json!({ "mode": mode.as_str() });
            intents.push(Intent::state(user, MODE_EVENT, "", &content));
        }
        Ok(intents)
    }

    /// The power levels as the new room's version has them: of version 12 and later without its
    /// creators, before it with those who had no level because they were creators.
    async fn levels_for(
        &mut self,
        version: RoomVersion,
        creators: &[&str],
    ) -> Result<Option<Map<String, Value>>, RoomError> {
        let powers = self.powers().await?;
        let old_privileged = powers.creators();
        let Some(content) = powers.content() else {
            return Ok(None);
        };
        let mut content = content.clone();
        if version.rules().privileged_creators {
            content
                .users
                .retain(|user, _| !creators.contains(&user.as_str()));
            let state_default = content.field(LevelField::StateDefault);
            let level = content.events.get(TOMBSTONE).copied();
            if old_privileged.is_empty() || level.is_none_or(|level| level <= state_default) {
                let level = state_default.saturating_add(1).max(150);
                content.events.insert(TOMBSTONE.into(), level);
            }
        } else {
            for user in old_privileged {
                content.users.entry(user).or_insert(100);
            }
        }
        let mut levels: Map<String, Value> = content
            .fields
            .iter()
            .map(|(field, level)| (field.as_str().to_owned(), Value::from(*level)))
            .collect();
        levels.insert("events".into(), json!(content.events));
        levels.insert("notifications".into(), json!(content.notifications));
        levels.insert("users".into(), json!(content.users));
        Ok(Some(levels))
    }

    /// Ends the room: its tombstone, and, where the user may, levels that keep it quiet and no
    /// canonical alias; it leaves the directory.
    async fn end(
        &mut self,
        user: &UserId,
        replacement: &RoomId,
        job: &Upgrade,
    ) -> Result<(), RoomError> {
        if job.published {
            self.publish(false)?;
        }
        let canonical = self.state_event(CANONICAL, "").await?;
        let levels = self.state_event(LEVELS, "").await?;
        let quiet = self.powers().await?.content().map(|content| {
            let users = content.field(LevelField::UsersDefault);
            users.saturating_add(1).max(50)
        });
        let tombstone = json!({
            "body": "This room has been replaced",
            "replacement_room": replacement,
        });
        self.add(Intent::state(user, TOMBSTONE, "", &tombstone), None)
            .await?;
        let mut others = Vec::new();
        if !job.aliases.is_empty() && canonical.is_some() {
            others.push(Intent::state(user, CANONICAL, "", &json!({})));
        }
        let levels = levels.and_then(|event| event.content_as::<Map<String, Value>>().ok());
        if let (Some(mut levels), Some(quiet)) = (levels, quiet) {
            for key in ["events_default", "invite"] {
                let level = levels.get(key).and_then(Value::as_i64).unwrap_or(0);
                levels.insert(key.into(), level.max(quiet).into());
            }
            others.push(Intent::state(user, LEVELS, "", &levels));
        }
        for intent in others {
            match self.add(intent, None).await {
                Ok(_) | Err(RoomError::Rejected(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The id of the room's last event.
    async fn last_event(&mut self) -> Result<Option<String>, RoomError> {
        let room = RoomKey::of(self.room_id()?.as_str());
        let live = self.live()?;
        let Some(num) = live.head.extremities.first().copied() else {
            return Ok(None);
        };
        let at = crate::tables::RoomNum { room, num };
        let row = live.reader().get::<crate::tables::Headers>(&at).await?;
        Ok(row.map(|row| row.value.event_id))
    }
}
