//! Building an answer from the rows up to its heads.

use std::collections::BTreeSet;

use comity_accounts::{DataEvent, Invites};
use comity_protocol::{auth::Membership, id::RoomId};
use comity_rooms::{RoomError, num::EventNum};
use comity_storage::{Heads, Home, Pos, Reader, RoomKey};
use comity_to_device::{Delivery, MOST};
use futures_util::future::try_join_all;
use serde_json::{json, value::RawValue};
use tokio::sync::OnceCell;

use crate::{
    Request, Sync, SyncError,
    answer::{Answer, DeviceLists, Events, Section, Sections},
    ephemeral,
    index::Membership as Place,
    room::{RoomSync, Stood, membership_of},
    token::{Ephemeral, RoomPrefix, SyncToken},
};

/// Rooms built side by side: what a chunk of them waits for the store is as long as for one.
const CHUNK: usize = 32;

/// What one answer is built from.
pub(crate) struct Build<'a> {
    pub request: &'a Request,
    /// Reads up to the answer's heads.
    pub reader: Reader,
    /// Where the last answer ended.
    pub since: Option<&'a Heads>,
    /// How far the client has come in typing and presence of this run.
    pub known: Option<Ephemeral>,
    /// The rooms in which it was shown somebody type by a run that is over.
    pub typed: &'a [RoomPrefix],
    /// Senders whose messages the user does not want to see, once it was asked.
    pub ignored: &'a OnceCell<BTreeSet<String>>,
    /// From whom the user takes invites, once it was asked.
    pub invites: OnceCell<Invites>,
}

/// A room's part of an answer, and whether the user has joined the room since the last.
type Part = (Section, bool);

impl Sync {
    pub(crate) async fn build(
        &self,
        request: &Request,
        since: Option<&SyncToken>,
        mut next: SyncToken,
    ) -> Result<Answer, SyncError> {
        let tenant = self.0.rooms.tenant();
        let reader = tenant.reader().at(next.heads.clone());
        let since_heads = since.map(|token| &token.heads);
        let mut answer = Answer::default();
        let known = self.known(since);
        let typing_in: &[RoomPrefix] = since
            .map(|since| since.typing_in.as_slice())
            .unwrap_or_default();
        // By this run, or by one that is over.
        let (typing_before, typed) = match known {
            Some(_) => (typing_in, Default::default()),
            None => (Default::default(), typing_in),
        };
        let ignored = OnceCell::new();
        let build = Build {
            request,
            reader: reader.clone(),
            since: since_heads,
            known,
            typed,
            ignored: &ignored,
            invites: OnceCell::new(),
        };
        let typing_changed = build.typing_changed(next.ephemeral);
        let rooms = self
            .0
            .index
            .rooms_of(&request.user, |room, place, changed| {
                request.filter.room.wants(&place.room_id)
                    && (request.full_state
                        || self.may_have_changed(room, place, changed, since_heads)
                        || (typing_changed && self.has_typing(&build, room, place)))
            });
        let (new, account_data, messages, left, device_lists) = futures_util::try_join!(
            self.add_rooms(&build, rooms, &mut answer.rooms),
            self.account_data(request, &reader, since_heads),
            self.messages(request, &reader, next.to_device),
            self.keys_left(&request.user, &request.device),
            async {
                match since_heads {
                    Some(from) => self.device_lists(&request.user, from, &reader).await,
                    None => Ok(DeviceLists::default()),
                }
            },
        )?;
        answer.device_lists = device_lists;
        answer.account_data = account_data;
        // Not bounded: whatever is told, it is how many there are.
        let home = Home::User(request.user.as_str());
        let lane = tenant.lanes().of(home.slot());
        answer.keys_left_changed = left.pos > since_heads.map_or(0, |since| since.get(lane));
        answer.device_one_time_keys_count = left.one_time_keys;
        answer.device_unused_fallback_key_types = left.unused_fallback;
        if let Some(messages) = messages {
            answer.to_device.events = messages.events;
            next.to_device = messages.upto;
        }
        next.typing_in = ephemeral::typing_in(typing_before, &answer.rooms);
        answer.next_batch = next.to_string();
        let newcomers: Vec<String> = answer
            .rooms
            .join
            .values()
            .flat_map(|joined| joined.newcomers.iter().cloned())
            .collect();
        answer.presence = self.presence(request, known, &new, &newcomers).await?;
        Ok(answer)
    }

    fn has_typing(&self, build: &Build<'_>, room: RoomKey, place: &Place) -> bool {
        let known = build.known.map_or(0, |known| known.typing);
        let has_changed = || {
            let room_id = <&RoomId>::try_from(&*place.room_id);
            let changed =
                room_id.map(|room_id| self.0.rooms.typing().changed_after(room_id, known));
            changed.is_ok_and(|changed| changed.is_some())
        };
        place.is_joined() && (build.has_typed(room) || has_changed())
    }

    /// Whether a room could have anything to say: a comparison, no read.
    pub(crate) fn may_have_changed(
        &self,
        room: RoomKey,
        place: &Place,
        changed: Pos,
        since: Option<&Heads>,
    ) -> bool {
        let Some(since) = since else { return true };
        let lane = self.0.rooms.tenant().lanes().of(Home::Room(room).slot());
        let since = since.get(lane);
        // What happened before this run isn't known.
        let room_changed = changed > since || since < self.0.index.start(lane);
        place.pos > since || place.data > since || (place.is_joined() && room_changed)
    }

    /// Adds the rooms that have anything to say; those that the user has joined since.
    async fn add_rooms(
        &self,
        build: &Build<'_>,
        rooms: Vec<(RoomKey, Place)>,
        sections: &mut Sections,
    ) -> Result<BTreeSet<RoomKey>, SyncError> {
        let mut new = BTreeSet::new();
        for (at, chunk) in rooms.chunks(CHUNK).enumerate() {
            if at > 0 {
                // A long answer lets others have their turn.
                tokio::task::yield_now().await;
            }
            let parts = chunk
                .iter()
                .map(|(room, place)| self.room(build, *room, place));
            for ((room, place), part) in chunk.iter().zip(try_join_all(parts).await?) {
                if let Some((section, is_new)) = part {
                    sections.put(place.room_id.to_string(), section);
                    new.extend(is_new.then_some(*room));
                }
            }
        }
        Ok(new)
    }

    /// A room's part, if it has any.
    async fn room(
        &self,
        build: &Build<'_>,
        room: RoomKey,
        place: &Place,
    ) -> Result<Option<Part>, SyncError> {
        match self.part(build, room, place).await {
            // What was kept beside the room went with its coming here: that is newer than this answer, and told by the next.
            Err(SyncError::Room(RoomError::UnknownRoom)) => Ok(None),
            part => part,
        }
    }

    async fn part(
        &self,
        build: &Build<'_>,
        room: RoomKey,
        place: &Place,
    ) -> Result<Option<Part>, SyncError> {
        let Some(mut stood) = self.stood(build, room, place).await? else {
            return Ok(None);
        };
        if stood.then == Membership::Join && self.was_left_out(build, room, place).await? {
            stood.then = Membership::Leave;
            stood.is_news = true;
        }
        let Ok(room_id) = RoomId::parse(&*place.room_id) else {
            return Ok(None);
        };
        let sync = RoomSync {
            sync: self,
            build,
            room,
            room_id,
            stood,
        };
        let section = match stood.now {
            Membership::Join => {
                let Some(joined) = sync.joined().await? else {
                    return Ok(None);
                };
                let is_first = build.since.is_none() || !sync.was_in();
                (is_first || !joined.is_empty()).then_some(Section::Join(joined))
            }
            Membership::Invite if stood.is_news => {
                if self.is_unwelcome(build, &sync.room_id).await? {
                    None
                } else {
                    sync.invited().await?.map(Section::Invite)
                }
            }
            Membership::Knock if stood.is_news => sync.knocked().await?.map(Section::Knock),
            Membership::Leave | Membership::Ban => {
                let wanted = build.request.filter.room.include_leave || build.since.is_some();
                // A client that knew the room learns of the leave, also of a room forgotten since.
                let shown = build.since.is_some() || !place.forgotten;
                if stood.is_news && wanted && shown && !self.was_unwelcome(build, &sync).await? {
                    Some(Section::Leave(sync.left().await?))
                } else {
                    None
                }
            }
            Membership::Invite | Membership::Knock => None,
        };
        let is_new = build.since.is_some() && stood.now == Membership::Join && !sync.was_in();
        Ok(section.map(|section| (section, is_new)))
    }

    /// Whether the last answer left the room out, since its members weren't known and the client wants
    /// all of them.
    async fn was_left_out(
        &self,
        build: &Build<'_>,
        room: RoomKey,
        place: &Place,
    ) -> Result<bool, SyncError> {
        let Some(since) = build.since.filter(|_| build.wants_all_members()) else {
            return Ok(false);
        };
        let lane = self.0.rooms.tenant().lanes().of(Home::Room(room).slot());
        if since.get(lane) >= self.0.index.start(lane) {
            return Ok(since.get(lane) < self.0.index.completed(room));
        }
        let Ok(room_id) = RoomId::parse(&*place.room_id) else {
            return Ok(false);
        };
        let then = build.reader.at(since.clone());
        match self.0.rooms.view_at(&then, &room_id).await {
            Ok(then) => Ok(then.root().is_partial()),
            Err(RoomError::UnknownRoom) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// From whom the user takes invites.
    async fn invites<'b>(&self, build: &'b Build<'_>) -> Result<&'b Invites, SyncError> {
        let read = || self.0.accounts.invites(build.request.user.as_str());
        Ok(build.invites.get_or_try_init(read).await?)
    }

    /// Whether the invite is from somebody whose invites the user doesn't take.
    async fn is_unwelcome(&self, build: &Build<'_>, room_id: &RoomId) -> Result<bool, SyncError> {
        let invites = self.invites(build).await?;
        if invites.are_open() {
            return Ok(false);
        }
        let user = &build.request.user;
        let kept = self.0.rooms.out_of_band(&build.reader, user, room_id);
        if let Some(kept) = kept.await? {
            return Ok(!invites.shows(&kept.sender));
        }
        let view = self.0.rooms.view_at(&build.reader, room_id).await?;
        let invite = view
            .state("m.room.member", build.request.user.as_str())
            .await?;
        Ok(invite.is_some_and(|invite| !invites.shows(invite.event.sender().as_str())))
    }

    /// Whether what is over was such an invite: nobody who wasn't told of it is told of its end. What one did oneself is told, and the end of
    /// a knock; and whoever wrote what ended it beside the one before, as a ban after a kick, says nothing of an invite.
    async fn was_unwelcome(
        &self,
        build: &Build<'_>,
        room: &RoomSync<'_>,
    ) -> Result<bool, SyncError> {
        if room.was_in() {
            return Ok(false);
        }
        let invites = self.invites(build).await?;
        if invites.are_open() {
            return Ok(false);
        }
        if let Some(kept) = room.out_of_band().await? {
            let ended = kept
                .invited_by
                .filter(|_| kept.sender != build.request.user.as_str());
            return Ok(ended.is_some_and(|by| !invites.shows(&by)));
        }
        let view = room.view().await?;
        let Some(departure) = room.departure(&view).await? else {
            return Ok(false);
        };
        if *departure.member.event.sender() == build.request.user {
            return Ok(false);
        }
        let before = departure.member.root_before()?;
        let Some(before) = before.filter(|_| departure.standing.joined_until.is_none()) else {
            return Ok(false);
        };
        let user = build.request.user.as_str();
        let keys = view.state_keys(&[("m.room.member", user)]).await?;
        let nums = view.lookup(before, &keys).await?.into_iter().flatten();
        let nums: Vec<EventNum> = nums.collect();
        let invite = view.load(&nums).await?.pop();
        Ok(invite.is_some_and(|invite| {
            membership_of(&invite) == Some(Membership::Invite)
                && !invites.shows(invite.event.sender().as_str())
        }))
    }

    /// How the user stood to the room when the last answer ended, and how they stand at this one's
    /// heads; `None` where the room is not theirs to see at either.
    pub(crate) async fn stood(
        &self,
        build: &Build<'_>,
        room: RoomKey,
        place: &Place,
    ) -> Result<Option<Stood>, SyncError> {
        let bound = build.reader.bound(Home::Room(room));
        let known = place.membership;
        let now = if place.pos <= bound {
            known
        } else {
            match self.membership_at(build, &build.reader, place).await? {
                Some(now) => now,
                None => return Ok(None),
            }
        };
        let lane = self.0.rooms.tenant().lanes().of(Home::Room(room).slot());
        let (then, is_news) = match build.since {
            None => (Membership::Leave, true),
            Some(since) if place.pos <= since.get(lane) => (known, build.request.full_state),
            Some(since) => {
                let then = self
                    .membership_at(build, &build.reader.at(since.clone()), place)
                    .await?;
                (then.unwrap_or_default(), true)
            }
        };
        Ok(Some(Stood { now, then, is_news }))
    }

    async fn membership_at(
        &self,
        build: &Build<'_>,
        reader: &Reader,
        place: &Place,
    ) -> Result<Option<Membership>, SyncError> {
        let Ok(room_id) = <&comity_protocol::id::RoomId>::try_from(&*place.room_id) else {
            return Ok(None);
        };
        match self.0.rooms.view_at(reader, room_id).await {
            Ok(view) => Ok(Some(view.membership(&build.request.user).await?)),
            Err(RoomError::UnknownRoom) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    async fn account_data(
        &self,
        request: &Request,
        reader: &Reader,
        since: Option<&Heads>,
    ) -> Result<Events, SyncError> {
        let user = request.user.as_str();
        let lane = self.0.rooms.tenant().lanes().of(Home::User(user).slot());
        if since.is_some_and(|since| {
            !self
                .0
                .index
                .own_changed(&request.user, lane, since.get(lane))
        }) {
            return Ok(Events::default());
        }
        let after = since.map(|since| since.get(lane));
        let data = self.0.accounts.all_account_data(user).await?;
        let filter = &request.filter.account_data;
        let wanted = data
            .into_iter()
            .filter(|data| filter.wants_type(&data.kind));
        Ok(Events {
            events: between(wanted, after, reader.bound(Home::User(user))),
        })
    }
}

impl Sync {
    /// What has come for the device beyond what it has; of what it has, nothing stays.
    async fn messages(
        &self,
        request: &Request,
        reader: &Reader,
        had: Pos,
    ) -> Result<Option<Delivery>, SyncError> {
        if !request.to_device {
            return Ok(None);
        }
        let newest = self.0.index.newest_message(&request.user);
        let (to_device, user) = (&self.0.to_device, &request.user);
        let delivery = to_device.deliver(reader, user, &request.device, had, newest, MOST);
        Ok(Some(delivery.await?))
    }
}

impl Build<'_> {
    /// Whether a room whose members aren't known has to wait: the client doesn't load them lazily.
    pub fn wants_all_members(&self) -> bool {
        !self.request.filter.room.state.lazy_load_members
    }

    /// Senders whose messages the user does not want to see.
    pub async fn ignored(&self, sync: &Sync) -> Result<&BTreeSet<String>, SyncError> {
        let read = || sync.0.accounts.ignored_users(self.request.user.as_str());
        Ok(self.ignored.get_or_try_init(read).await?)
    }
}

/// The account data written after one position and up to another, as events. Who knows none yet isn't told what was deleted.
pub(crate) fn between(
    data: impl Iterator<Item = DataEvent>,
    after: Option<u64>,
    bound: u64,
) -> Vec<Box<RawValue>> {
    let is_told = |data: &DataEvent| match after {
        Some(after) => data.pos > after,
        None => !data.is_deleted(),
    };
    data.filter(|data| is_told(data) && data.pos <= bound)
        .filter_map(|data| raw(&json!({ "type": data.kind, "content": data.content })))
        .collect()
}

/// A value as JSON text; a value always has one.
pub(crate) fn raw(value: &serde_json::Value) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(value).ok()
}
