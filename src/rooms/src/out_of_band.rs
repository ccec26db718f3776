//! Memberships of our users in rooms that we aren't in: invites, knocks, and how they end.
//!
//! Such a room has no state here to check anything against. What is kept is the user's membership
//! (so that it is found as all others are) and beside it one row, in the room's lane: the event and
//! what they may know of the room. The rows go when the room is entered, whose state then says who
//! is what. An invite can always be declined, whether the server it came from is alive or not.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>

use std::{collections::BTreeSet, time::Duration};

use comity_protocol::{
    auth::{MemberContent, Membership},
    client_event::{ClientFormat, client_event, stripped_state},
    event::{Event, Limits, Signed, WellFormed},
    id::{OwnedServerName, RoomId, ServerName, UserId, create_event_of_room},
    room_version::RoomVersion,
    sign::{CosignError, InviteIntent, KeyRing, SignatureError},
};
use comity_storage::{Home, Range, Reader, RoomKey};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    change::{Change, Intent},
    door::{Arrival, Way},
    error::RoomError,
    live::Live,
    log,
    rooms::Rooms,
    tables::{Member, Members, Mode, OutOfBand, OutOfBands, RoomText, UserRoom},
};

/// Events of the room's state that are kept, and their bytes in all (threat C8).
const MAX_STATE: usize = 64;
const MAX_STATE_BYTES: usize = 256 * 1024;
/// How long another server has for being told that its invite is declined (threat C10).
const PATIENCE: Duration = Duration::from_millis(1_500);

impl Rooms {
    /// Takes another server's invite for a user of ours, and signs it. Whether the user wants to be
    /// asked is for the caller to know.
    ///
    /// `room_state` is what came with it. From room version 12 on it must be events of the room, the
    /// create event among them; before that, what can't be read is left out (threat C7).
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#put_matrixfederationv2inviteroomideventid>
    ///
    /// # Errors
    /// [`RoomError::Invalid`] for what is no such invite: nothing is signed (threat C1);
    /// [`RoomError::Signature`]; [`RoomError::Forbidden`] where the room's own state, if we are in it,
    /// shuts the server out.
    pub async fn receive_invite(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        invite: WellFormed,
        room_state: &[Box<RawValue>],
        keys: &impl KeyRing,
    ) -> Result<Signed, RoomError> {
        const NONE: RoomError = RoomError::Invalid("the event is no invite for a user of ours");
        if !self.lets_in(origin, room_id).await? {
            return Err(RoomError::Forbidden("the room shuts the server out"));
        }
        let event = invite.event().clone();
        let invitee = event
            .state_key()
            .and_then(|user| <&UserId>::try_from(user).ok())
            .filter(|user| self.is_local(user))
            .ok_or(NONE)?;
        let state = introduction(&event, room_state, keys)?;
        let signed = invite.verify(keys)?;
        let intent = InviteIntent {
            room: room_id,
            origin,
            invitee,
        };
        let signed = self
            .0
            .key
            .cosign_invite(self.server_name(), intent, &signed);
        let signed = signed.map_err(|error| match error {
            CosignError::Signature(error) => RoomError::Signature(error),
            CosignError::Differs(_) | CosignError::Form => NONE,
        })?;
        let row = OutOfBand {
            membership: Membership::Invite.as_str().to_owned(),
            sender: event.sender().to_string(),
            event_id: Some(event.event_id().to_string()),
            made: event.origin_server_ts(),
            event: Some(stripped_state(signed.event())),
            state,
            via: vec![origin.to_string()],
            invited_by: None,
        };
        if !self.keep_out_of_band(room_id, invitee, row).await? {
            // We are in the room: the invite is an event as others are. One whose parents we lack
            // comes again with what the room's servers send us.
            let arrival = Arrival {
                event: signed.clone(),
                way: Way::New,
            };
            self.receive(room_id, vec![arrival]).await?;
        }
        Ok(signed)
    }

    /// Keeps the knock of a user of ours that a server of the room has accepted, with what it says of
    /// the room.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn keep_knock(
        &self,
        knock: &Signed,
        room_state: &[Box<RawValue>],
        via: &[OwnedServerName],
    ) -> Result<(), RoomError> {
        let event = knock.event();
        let room_state = room_state.iter().take(MAX_STATE);
        let state = bounded(room_state.filter_map(|entry| strip(event.version(), entry)));
        let row = OutOfBand {
            membership: Membership::Knock.as_str().to_owned(),
            sender: event.sender().to_string(),
            event_id: Some(event.event_id().to_string()),
            made: event.origin_server_ts(),
            event: Some(stripped_state(event)),
            state,
            via: via.iter().map(ToString::to_string).collect(),
            invited_by: None,
        };
        self.keep_out_of_band(event.room_id(), event.sender(), row)
            .await
            .map(drop)
    }

    /// What is kept of a user's membership in a room that we aren't in.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn out_of_band(
        &self,
        reader: &Reader,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<Option<OutOfBand>, RoomError> {
        let row = reader.get::<OutOfBands>(&key(user, room_id)).await?;
        Ok(row.map(|row| row.value))
    }

    /// The invite or knock of a user in a room that our last member has left since.
    pub(crate) async fn left_behind(
        &self,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<OutOfBand, RoomError> {
        let member = self.member(user, room_id).await?;
        let member = member.ok_or(RoomError::UnknownRoom)?.value;
        let view = self.view(room_id).await?;
        let via = view.other_servers().await?;
        let create = view.state("m.room.create", "").await?;
        Ok(OutOfBand {
            membership: member.membership,
            sender: user.to_string(),
            event_id: None,
            made: 0,
            event: None,
            state: create
                .iter()
                .map(|create| stripped_state(&create.event))
                .collect(),
            via: via.iter().map(ToString::to_string).collect(),
            invited_by: None,
        })
    }

    /// Ends an invite or a knock by its user's wish. The servers it came by are told if they can be. Leaving
    /// what one has left is done: who asks again may have lost the first answer.
    pub(crate) async fn leave_out_of_band(
        &self,
        user: &UserId,
        room_id: &RoomId,
        row: &OutOfBand,
        content: Map<String, Value>,
    ) -> Result<(), RoomError> {
        match row.membership.as_str() {
            "invite" | "knock" => {}
            "leave" => return Ok(()),
            _ => return Err(RoomError::Forbidden("the user is not in the room")),
        }
        let mut leave = None;
        if let Ok(elsewhere) = self.elsewhere("nobody can be told") {
            let via = row.servers();
            let told = elsewhere.leave(user, room_id, &via, content.clone());
            match tokio::time::timeout(PATIENCE, told).await {
                Ok(Ok(told)) => leave = Some(told.into_event()),
                Ok(Err(error)) => tracing::debug!(%error, "a room was not told of a leave"),
                Err(_) => tracing::debug!("a room was not told of a leave in time"),
            }
        }
        let leave = match leave {
            Some(leave) => leave,
            None => self.unheard(user, room_id, row, &content)?,
        };
        let ended = self.end(user, &leave, Membership::Leave, row).await;
        ended.map(drop)
    }

    /// A leave that nobody else has heard of, for its user to see. It isn't signed, and never leaves
    /// this server.
    fn unheard(
        &self,
        user: &UserId,
        room_id: &RoomId,
        row: &OutOfBand,
        content: &Map<String, Value>,
    ) -> Result<Event, RoomError> {
        // Of a room that has not said its version any does: it is ours alone.
        let version = row.version().unwrap_or(RoomVersion::V11);
        let intent = Intent::state(user, "m.room.member", user.as_str(), content);
        let (room_id, now) = (Some(room_id.to_owned()), self.now());
        let leave = self.build(version, room_id, &intent, Vec::new(), Vec::new(), 1, now)?;
        Ok(leave.event().clone())
    }

    /// Keeps how a membership ended.
    async fn end(
        &self,
        user: &UserId,
        event: &Event,
        membership: Membership,
        before: &OutOfBand,
    ) -> Result<bool, RoomError> {
        let invited = before.membership == Membership::Invite.as_str();
        let row = OutOfBand {
            membership: membership.as_str().to_owned(),
            sender: event.sender().to_string(),
            event_id: Some(event.event_id().to_string()),
            made: event.origin_server_ts(),
            event: Some(client_event(event, ClientFormat::WithoutRoomId, None)),
            state: Vec::new(),
            via: Vec::new(),
            invited_by: invited.then(|| before.sender.clone()),
        };
        self.keep_out_of_band(event.room_id(), user, row).await
    }

    /// An event of a room that we aren't in: it may end an invite or a knock of a user of ours, which
    /// it then names among those that authorise it. Whether it did.
    ///
    /// Whether its sender has the power can't be known here. An invite is taken back by whoever gave it,
    /// and by nobody else: any server that has heard of it could write such an event.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn rescind(&self, event: &Signed) -> Result<bool, RoomError> {
        let event = event.event();
        let content = MemberContent::read(event.content().get());
        let ended = matches!(
            content.membership,
            Some(Membership::Leave | Membership::Ban)
        );
        let user = event
            .state_key()
            .and_then(|key| <&UserId>::try_from(key).ok());
        let Some(user) = user.filter(|user| self.is_local(user)) else {
            return Ok(false);
        };
        if !ended || event.event_type() != "m.room.member" || event.sender() == user {
            return Ok(false);
        }
        let reader = self.tenant().reader();
        let Some(row) = self.out_of_band(&reader, user, event.room_id()).await? else {
            return Ok(false);
        };
        let named = event.auth_events().iter();
        let mut named = named.map(|id| id.as_str());
        if row.event_id.is_none() || !named.any(|id| Some(id) == row.event_id.as_deref()) {
            return Ok(false);
        }
        let invited = row.membership == Membership::Invite.as_str();
        if invited && row.sender != event.sender().as_str() {
            return Ok(false);
        }
        let membership = content.membership.unwrap_or_default();
        self.end(user, event, membership, &row).await
    }

    /// Forgets a room that the user was only ever invited to.
    pub(crate) async fn forget_out_of_band(
        &self,
        user: &UserId,
        room_id: &RoomId,
    ) -> Result<(), RoomError> {
        let member = self.member(user, room_id).await?;
        let member = member.ok_or(RoomError::UnknownRoom)?.value;
        if !matches!(member.membership(), Membership::Leave | Membership::Ban) {
            return Err(RoomError::NotLeft);
        }
        let room = RoomKey::of(room_id.as_str());
        let writer = self.tenant().lane(Home::Room(room)).clone();
        let _held = self.cell(room).lock_owned().await;
        let mut batch = writer.batch();
        let forgot = log::Forgot {
            user: user.to_string(),
        };
        let forgotten = Member {
            forgotten: true,
            ..member
        };
        batch
            .put::<Members>(&in_room(user, room), &forgotten)
            .log(log::record(log::kind::FORGOT, room_id.as_str(), &forgot)?);
        writer.commit(batch).await?;
        Ok(())
    }

    /// Keeps a membership of a room that we aren't in; nothing where we are.
    async fn keep_out_of_band(
        &self,
        room_id: &RoomId,
        user: &UserId,
        row: OutOfBand,
    ) -> Result<bool, RoomError> {
        let room = RoomKey::of(room_id.as_str());
        let writer = self.tenant().lane(Home::Room(room)).clone();
        let mut held = self.cell(room).lock_owned().await;
        if held.as_ref().is_none_or(Live::is_lost) {
            *held = Live::load(room, writer.clone()).await?;
        }
        let (mode, seq) = match held.as_ref() {
            Some(live) => (live.head.mode, live.head.seq),
            None => (Mode::Stub, 0),
        };
        if mode.takes_part() {
            return Ok(false);
        }
        let member = Member {
            room_id: room_id.to_string(),
            membership: row.membership.clone(),
            num: 0,
            seq,
            forgotten: false,
            since: self.stamp(0),
            was_in: false,
        };
        let changed = log::Resolved {
            seq,
            members: vec![(user.to_string(), row.membership.clone())],
        };
        let mut batch = writer.batch();
        batch
            .put::<Members>(&in_room(user, room), &member)
            .put::<OutOfBands>(&key(user, room_id), &row)
            .log(log::record(
                log::kind::RESOLVED,
                room_id.as_str(),
                &changed,
            )?);
        let appended = writer.append(batch).await?;
        drop(held);
        appended.durable().await?;
        Ok(true)
    }
}

impl OutOfBand {
    /// The servers by which the room can be reached.
    pub fn servers(&self) -> Vec<OwnedServerName> {
        let via = self.via.iter();
        via.filter_map(|name| ServerName::parse(name.as_str()).ok())
            .collect()
    }

    /// The room's version, if its create event came along.
    pub fn version(&self) -> Option<RoomVersion> {
        #[derive(Deserialize)]
        struct Stripped {
            #[serde(rename = "type")]
            event_type: String,
            content: Content,
        }
        #[derive(Deserialize)]
        struct Content {
            room_version: Option<String>,
        }
        let mut events = (self.state.iter()).filter_map(|event| serde_json::from_str(event).ok());
        let create = events.find(|event: &Stripped| event.event_type == "m.room.create")?;
        RoomVersion::parse(create.content.room_version.as_deref().unwrap_or("1"))
    }

    /// What the user may know of the room, their membership last, as stripped state.
    pub fn stripped(&self) -> Vec<Box<RawValue>> {
        let events = self.state.iter().chain(&self.event);
        events
            .filter_map(|text| RawValue::from_string(text.clone()).ok())
            .collect()
    }
}

impl Change {
    /// The room is being entered: its state says who is what. Users of ours of whom it doesn't speak
    /// are no longer invited.
    pub(crate) async fn end_out_of_band(&mut self) -> Result<(), RoomError> {
        let live = self.live()?;
        let (room, reader) = (live.room, live.reader());
        let range = Range::of(Home::Room(room), |key| {
            key.room(room);
        });
        for (key, row) in reader.scan::<OutOfBands>(range).await? {
            self.batch().delete::<OutOfBands>(&key);
            let Ok(user) = <&UserId>::try_from(key.name.as_str()) else {
                continue;
            };
            let at = in_room(user, room);
            let Some(member) = reader.get::<Members>(&at).await? else {
                continue;
            };
            let member = member.value;
            let entry = [self.key("m.room.member", user.as_str()).await?];
            let entry = self.lookup(self.live()?.root, &entry).await?.pop();
            let waits = ["invite", "knock"].contains(&row.value.membership.as_str());
            let member = match entry.flatten() {
                // What happened out of band isn't news of the room, even where its state is as we left it.
                Some(num) => {
                    let membership = self.membership(user).await?;
                    let gone = matches!(membership, Membership::Leave | Membership::Ban);
                    Member {
                        membership: membership.as_str().to_owned(),
                        num: num.0,
                        seq: self.live()?.head.seq,
                        forgotten: member.forgotten && gone,
                        was_in: member.was_in || membership == Membership::Join,
                        ..member
                    }
                }
                None if waits => Member {
                    membership: Membership::Leave.as_str().to_owned(),
                    ..member
                },
                None => continue,
            };
            self.batch().put::<Members>(&at, &member);
        }
        Ok(())
    }
}

fn key(user: &UserId, room_id: &RoomId) -> RoomText {
    RoomText {
        room: RoomKey::of(room_id.as_str()),
        name: user.to_string(),
    }
}

fn in_room(user: &UserId, room: RoomKey) -> UserRoom {
    let user = user.to_string();
    UserRoom { user, room }
}

/// What an invite says of its room, as stripped state.
fn introduction(
    invite: &Event,
    room_state: &[Box<RawValue>],
    keys: &impl KeyRing,
) -> Result<Vec<String>, RoomError> {
    const BAD: RoomError = RoomError::Invalid("invite_room_state is not of the room");
    let version = invite.version();
    let room_state = room_state.iter().take(MAX_STATE);
    if !version.rules().room_id_is_create_hash {
        return Ok(bounded(
            room_state.filter_map(|entry| strip(version, entry)),
        ));
    }
    let create = create_event_of_room(invite.room_id()).ok_or(BAD)?;
    let mut state = Vec::new();
    let mut met = BTreeSet::new();
    for entry in room_state {
        let event = WellFormed::parse(version, entry.get().as_bytes(), Limits::Past);
        let event = event.map_err(|_| BAD)?;
        if event.event().room_id() != invite.room_id() || event.event().state_key().is_none() {
            return Err(BAD);
        }
        let event_id = event.event().event_id().to_owned();
        let event = if event_id == create {
            // The room's id vouches for it.
            event.event().clone()
        } else {
            match event.verify(keys) {
                Ok(signed) => signed.into_event(),
                // Its server can't be asked for its key.
                Err(SignatureError::UnknownKey(_)) => continue,
                Err(_) => return Err(BAD),
            }
        };
        met.insert(event_id);
        state.push(stripped_state(&event));
    }
    if met.contains(&create) {
        Ok(bounded(state.into_iter()))
    } else {
        Err(BAD)
    }
}

/// An entry of a state that nobody vouches for, as stripped state.
fn strip(version: RoomVersion, entry: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Stripped {
        #[serde(rename = "type")]
        event_type: String,
        state_key: String,
        sender: String,
        content: Map<String, Value>,
    }
    if let Ok(event) = WellFormed::parse(version, entry.get().as_bytes(), Limits::Past) {
        return event
            .event()
            .state_key()
            .map(|_| stripped_state(event.event()));
    }
    let entry: Stripped = serde_json::from_str(entry.get()).ok()?;
    <&UserId>::try_from(entry.sender.as_str()).ok()?;
    let stripped = json!({
        "content": entry.content,
        "sender": entry.sender,
        "state_key": entry.state_key,
        "type": entry.event_type,
    });
    Some(stripped.to_string())
}

/// As many of them as fit.
fn bounded(state: impl Iterator<Item = String>) -> Vec<String> {
    let mut left = MAX_STATE_BYTES;
    let fits = |text: &String| {
        let fits = text.len() <= left;
        if fits {
            left -= text.len();
        }
        fits
    };
    state.filter(fits).collect()
}
