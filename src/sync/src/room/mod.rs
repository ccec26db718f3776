//! One room's part of an answer: its timeline ([`timeline`]), the state beside that ([`state`]), and
//! the rest.

mod state;
mod timeline;

pub(crate) use timeline::Stretch;

use std::collections::BTreeMap;

use comity_protocol::{
    auth::{MemberContent, Membership},
    client_event::{ClientFormat, stripped_state},
    id::OwnedRoomId,
};
use comity_rooms::{
    Found, RoomView, Standing, Viewer,
    state::AnyRoot,
    tables::{Mode, OutOfBand, Tally},
};
use comity_storage::{Heads, Home, RoomKey};
use futures_util::try_join;
use serde_json::value::RawValue;

use crate::{
    Sync, SyncError,
    answer::{Counts, Events, Invited, Joined, Knocked, Left, Timeline},
    build::{Build, between},
    fields::Fields,
    filter::EventFormat,
};

/// By which a room has a name.
const NAMES: [&str; 2] = ["m.room.name", "m.room.canonical_alias"];

/// How a user stood and stands to a room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stood {
    pub now: Membership,
    pub then: Membership,
    /// The membership was set since the last answer.
    pub is_news: bool,
}

/// How a user went from a room.
pub(crate) struct Departure {
    pub standing: Standing,
    /// The event that says that they are out.
    pub member: Found,
    /// Where they left.
    place: Option<(i64, i64)>,
    /// The state then.
    pub last: AnyRoot,
}

impl Departure {
    /// Whether they were in it until then.
    pub fn was_inside(&self) -> bool {
        self.standing.joined_until == Some(self.standing.since)
    }

    /// What they may know who were never in it: that they aren't.
    pub fn stripped(&self) -> Vec<Box<RawValue>> {
        let member = RawValue::from_string(stripped_state(&self.member.event));
        member.into_iter().collect()
    }
}

/// One room of one answer.
pub(crate) struct RoomSync<'a> {
    pub sync: &'a Sync,
    pub build: &'a Build<'a>,
    pub room: RoomKey,
    pub room_id: OwnedRoomId,
    pub stood: Stood,
}

impl RoomSync<'_> {
    /// A room that the user is in; `None` while its members aren't known and the client wants them.
    ///
    /// See [MSC3902](https://github.com/matrix-org/matrix-spec-proposals/pull/3902).
    pub async fn joined(&self) -> Result<Option<Joined>, SyncError> {
        let (view, known, _) = try_join!(
            self.view(),
            self.known_root(),
            self.build.ignored(self.sync)
        )?;
        if view.head().mode == Mode::Partial && self.build.wants_all_members() {
            return Ok(None);
        }
        let changed = known.is_none_or(|known| known != view.root());
        let (
            stretch,
            summary,
            newcomers,
            (unread, unread_threads),
            (ephemeral, typing),
            account_data,
        ) = try_join!(
            self.stretch(&view, None, self.build.since.filter(|_| self.was_in())),
            async {
                Ok(if changed {
                    Some(self.summary(&view, &NAMES).await?)
                } else {
                    None
                })
            },
            async {
                match known {
                    // Those who were there all the time are no newcomers.
                    Some(known) if changed && known.is_partial() == view.root().is_partial() => {
                        self.newcomers(&view, known).await
                    }
                    _ => Ok(Vec::new()),
                }
            },
            self.unread(&view),
            self.ephemeral(&view),
            self.account_data(),
        )?;
        let (timeline, state) = try_join!(
            self.timeline(&view, &stretch),
            self.state(&view, &stretch, known, view.root(), summary.as_ref()),
        )?;
        Ok(Some(Joined {
            summary,
            timeline,
            state,
            ephemeral,
            account_data,
            unread_notifications: Some(unread),
            unread_thread_notifications: unread_threads,
            typing,
            newcomers,
        }))
    }

    /// Counts of the room; of its main timeline and its threads apart, where that is wanted.
    pub(crate) async fn unread(
        &self,
        view: &RoomView,
    ) -> Result<(Counts, Option<BTreeMap<String, Counts>>), SyncError> {
        let unread = view.unread(&self.build.request.user).await?;
        let counts = |tally: Tally| Counts {
            notification_count: tally.notify,
            highlight_count: tally.highlight,
        };
        if !self
            .build
            .request
            .filter
            .room
            .timeline
            .unread_thread_notifications
        {
            return Ok((counts(unread.total), None));
        }
        let threads: BTreeMap<String, Counts> = unread
            .threads
            .into_iter()
            .map(|(root, tally)| (root, counts(tally)))
            .collect();
        Ok((
            counts(unread.main),
            Some(threads).filter(|threads| !threads.is_empty()),
        ))
    }

    /// Those who have come since the client knew the room: it learns of their presence.
    async fn newcomers(&self, view: &RoomView, known: AnyRoot) -> Result<Vec<String>, SyncError> {
        let changed = view
            .load(&view.state_diff(known, view.root()).await?)
            .await?;
        let joined = changed
            .iter()
            .filter(|found| found.event.event_type() == "m.room.member")
            .filter(|found| membership_of(found) == Some(Membership::Join));
        Ok(joined
            .filter_map(|found| found.event.state_key().map(str::to_owned))
            .collect())
    }

    /// What is kept of the user's membership if we aren't in the room.
    pub(crate) async fn out_of_band(&self) -> Result<Option<OutOfBand>, SyncError> {
        let (rooms, user) = (&self.sync.0.rooms, &self.build.request.user);
        Ok(rooms
            .out_of_band(&self.build.reader, user, &self.room_id)
            .await?)
    }

    /// A room left: what happened up to then.
    pub async fn left(&self) -> Result<Left, SyncError> {
        if let Some(kept) = self.out_of_band().await? {
            return Ok(self.left_out_of_band(kept));
        }
        let view = self.view().await?;
        let Some(departure) = self.departure(&view).await? else {
            return Ok(Left::default());
        };
        let known = self.known_root().await?;
        let since = self.had_until(&view, departure.standing).await?;
        let stretch = self.until(&view, &departure, since).await?;
        let state = if self.was_in() || departure.was_inside() {
            self.state(&view, &stretch, known, departure.last, None)
                .await?
        } else {
            self.state_of(Events::default())
        };
        Ok(Left {
            timeline: self.timeline(&view, &stretch).await?,
            state,
            account_data: self.account_data().await?,
        })
    }

    /// How the user went from a room; `None` where that isn't known here.
    pub(crate) async fn departure(&self, view: &RoomView) -> Result<Option<Departure>, SyncError> {
        let standing = view.standing(&self.build.request.user).await?;
        let member = view
            .state("m.room.member", self.build.request.user.as_str())
            .await?;
        let Some(member) = member else {
            return Ok(None);
        };
        // The state is the one in which they left; of what came between that and a later ban, or an
        // invite declined, they learn nothing (E3).
        let left = match standing.joined_until {
            Some(until) => view.at(until).await?.unwrap_or_else(|| member.clone()),
            None => member.clone(),
        };
        // They left before this server came: it knows nothing of what they knew.
        if left.root_before()?.is_none() {
            return Ok(None);
        }
        let last = view.root_after(&left).await?;
        let place = left.place();
        Ok(Some(Departure {
            standing,
            member,
            place,
            last,
        }))
    }

    /// What happened up to then.
    pub(crate) async fn until(
        &self,
        view: &RoomView,
        departure: &Departure,
        since: Option<&Heads>,
    ) -> Result<Stretch, SyncError> {
        let end = (departure.standing.since + 1, i64::MIN);
        let mut stretch = self
            .stretch(view, Some((end, departure.last)), since)
            .await?;
        if stretch.start > departure.place.unwrap_or(stretch.start) {
            stretch.root = departure.last;
        }
        Ok(stretch)
    }

    /// How an invite or a knock ended in a room that we aren't in: all that is known of it.
    fn left_out_of_band(&self, kept: OutOfBand) -> Left {
        let filter = &self.build.request.filter.room.timeline;
        let wanted = filter.limit() > 0
            && filter.wants_room(self.room_id.as_str())
            && filter.wants_type("m.room.member")
            && filter.wants_sender(&kept.sender);
        // Invited again since: that is newer than this answer.
        let ended = ["leave", "ban"].contains(&kept.membership.as_str());
        let event = kept.event.filter(|_| wanted && ended);
        let event = event.and_then(|event| RawValue::from_string(event).ok());
        Left {
            timeline: Timeline {
                events: event.into_iter().collect(),
                ..Timeline::default()
            },
            ..Left::default()
        }
    }

    /// Up to where the client has had what a user may see of a room left: unless they entered it since,
    /// what came before the last answer is not told again, such as a knock taken back.
    pub(crate) async fn had_until(
        &self,
        view: &RoomView,
        standing: Standing,
    ) -> Result<Option<&Heads>, SyncError> {
        let Some(since) = self.build.since else {
            return Ok(None);
        };
        if self.was_in() {
            return Ok(Some(since));
        }
        let lanes = self.sync.0.rooms.tenant().lanes();
        let lane = lanes.of(Home::Room(self.room).slot());
        let known = view.seq_at(since.get(lane)).await?;
        let entered = standing.joined_until.is_some_and(|until| known < until);
        Ok((!entered).then_some(since))
    }

    pub async fn invited(&self) -> Result<Option<Invited>, SyncError> {
        let state = self.stripped().await?;
        Ok(state.map(|invite_state| Invited { invite_state }))
    }

    pub async fn knocked(&self) -> Result<Option<Knocked>, SyncError> {
        let state = self.stripped().await?;
        Ok(state.map(|knock_state| Knocked { knock_state }))
    }

    /// Whether the user was in the room when the last answer ended.
    pub fn was_in(&self) -> bool {
        self.stood.then == Membership::Join
    }

    pub(crate) async fn view(&self) -> Result<RoomView, SyncError> {
        let (rooms, reader) = (&self.sync.0.rooms, &self.build.reader);
        Ok(rooms.view_at(reader, &self.room_id).await?)
    }

    async fn account_data(&self) -> Result<Events, SyncError> {
        let request = self.build.request;
        let room_id = self.room_id.as_str();
        let filter = &request.filter.room.account_data;
        let lane = self
            .sync
            .0
            .rooms
            .tenant()
            .lanes()
            .of(Home::Room(self.room).slot());
        let after = self
            .build
            .since
            .filter(|_| self.stood.then == Membership::Join)
            .map(|since| since.get(lane));
        let data = self
            .sync
            .0
            .accounts
            .account_data_of_room(request.user.as_str(), room_id)
            .await?;
        let wanted = data
            .into_iter()
            .filter(|data| filter.wants_type(&data.kind) && filter.wants_room(room_id));
        Ok(Events {
            events: between(
                wanted,
                after,
                self.build.reader.bound(Home::Room(self.room)),
            ),
        })
    }

    pub(crate) async fn render(
        &self,
        view: &RoomView,
        found: &[Found],
    ) -> Result<Vec<Box<RawValue>>, SyncError> {
        let request = self.build.request;
        let mut events = if request.filter.event_format == EventFormat::Federation {
            let veiled = view.veiled(found.into(), &request.user).await?;
            let raw = veiled
                .iter()
                .map(|found| RawValue::from_string(found.event.json().to_owned()));
            raw.filter_map(Result::ok).collect()
        } else {
            let viewer = Viewer {
                user: &request.user,
                device: Some(&request.device),
            };
            view.render(found, viewer, ClientFormat::WithoutRoomId)
                .await?
        };
        if let Some(paths) = &request.filter.event_fields {
            let fields = Fields::parse(paths);
            events = events
                .into_iter()
                .filter_map(|event| fields.of(&event))
                .collect();
        }
        Ok(events)
    }
}

pub(crate) fn membership_of(member: &Found) -> Option<Membership> {
    MemberContent::read(member.event.content().get()).membership
}
