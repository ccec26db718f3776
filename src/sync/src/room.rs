//! One room's part of an answer.

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::{
    auth::{MemberContent, Membership},
    client_event::{ClientFormat, stripped_state},
    id::RoomId,
};
use comity_rooms::{
    Found, RoomError, RoomView, Span, Viewer,
    num::EventNum,
    state::{Half, Root},
    tables::{InRoom, Summaries, Tally},
};
use comity_storage::{Home, RoomKey};
use serde_json::value::RawValue;

use crate::{
    Sync, SyncError,
    answer::{Counts, Events, Invited, Joined, Knocked, Left, State, Summary, Timeline},
    build::{Build, between},
    filter::EventFormat,
    token::PlaceToken,
};

/// Members who name a room without a name.
const HEROES: usize = 5;
/// Events that a sync is mostly behind.
const NEAR: usize = 16;
/// Events read in one go for a timeline.
const PAGE: usize = 32;
/// Events looked at for a timeline at the most; what is not found among them is a gap.
const LOOKED_AT: usize = 2_000;
/// Members looked at to find them.
const HEROES_LOOKED_AT: usize = 64;

/// How a user stood and stands to a room.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stood {
    pub now: Membership,
    pub then: Membership,
    /// The membership was set since the last answer.
    pub is_news: bool,
}

/// One room of one answer.
pub(crate) struct RoomSync<'a> {
    pub sync: &'a Sync,
    pub build: &'a Build<'a>,
    pub room: RoomKey,
    pub stood: Stood,
}

/// A timeline with what it says about the state beside it.
struct Stretch {
    found: Vec<Found>,
    limited: bool,
    /// The place before the first event.
    start: (i64, i64),
    /// The state before the first event.
    root: Root,
}

impl RoomSync<'_> {
    pub async fn joined(&self) -> Result<Joined, SyncError> {
        let view = self.view().await?;
        let known = self.known_root(&view).await?;
        let stretch = self.stretch(&view, None).await?;
        let changed = known.is_none_or(|known| known != view.root());
        let newcomers = match known {
            Some(known) if changed => self.newcomers(&view, known).await?,
            _ => Vec::new(),
        };
        let (state, heroes) = self
            .state(&view, &stretch, known, view.root(), changed)
            .await?;
        let (unread, unread_threads) = self.unread(&view).await?;
        Ok(Joined {
            summary: heroes,
            timeline: self.timeline(&view, &stretch).await?,
            state,
            ephemeral: self.ephemeral(&view).await?,
            account_data: self.account_data().await?,
            unread_notifications: Some(unread),
            unread_thread_notifications: unread_threads,
            newcomers,
        })
    }

    /// Counts of the room; of its main timeline and its threads apart, where that is wanted.
    async fn unread(
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
    async fn newcomers(&self, view: &RoomView, known: Root) -> Result<Vec<String>, SyncError> {
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

    /// A room left: what happened up to then.
    pub async fn left(&self) -> Result<Left, SyncError> {
        let view = self.view().await?;
        let standing = view.standing(&self.build.request.user).await?;
        let end = (standing.since + 1, i64::MIN);
        let member = view
            .state("m.room.member", self.build.request.user.as_str())
            .await?;
        let Some(member) = member else {
            return Ok(Left::default());
        };
        let known = self.known_root(&view).await?;
        // The state is the one in which they left; of what came between that and a later ban, or an
        // invite declined, they learn nothing (E3).
        let left = match standing.joined_until {
            Some(until) => view.at(until).await?.unwrap_or(member),
            None => member,
        };
        let last = view.root_after(&left).await?;
        let mut stretch = self.stretch(&view, Some((end, last))).await?;
        if stretch.start > left.place().unwrap_or(stretch.start) {
            stretch.root = last;
        }
        let knows_the_room = self.was_in() || standing.joined_until == Some(standing.since);
        let (state, _) = if knows_the_room {
            self.state(&view, &stretch, known, last, false).await?
        } else {
            (self.state_of(Events::default()), None)
        };
        Ok(Left {
            timeline: self.timeline(&view, &stretch).await?,
            state,
            account_data: self.account_data().await?,
        })
    }

    pub async fn invited(&self) -> Result<Invited, SyncError> {
        Ok(Invited {
            invite_state: self.stripped().await?,
        })
    }

    pub async fn knocked(&self) -> Result<Knocked, SyncError> {
        Ok(Knocked {
            knock_state: self.stripped().await?,
        })
    }

    /// Whether the user was in the room when the last answer ended.
    pub fn was_in(&self) -> bool {
        self.stood.then == Membership::Join
    }

    async fn view(&self) -> Result<RoomView, SyncError> {
        self.view_of(&self.build.reader).await
    }

    async fn view_of(&self, reader: &comity_storage::Reader) -> Result<RoomView, SyncError> {
        let places = self
            .sync
            .0
            .index
            .room_id(&self.build.request.user, self.room);
        let Some(Ok(room_id)) = places.as_deref().map(RoomId::parse) else {
            return Err(RoomError::UnknownRoom.into());
        };
        Ok(self.sync.0.rooms.view_at(reader, &room_id).await?)
    }

    /// The state that the client knows: that at the last answer, if the user was joined then.
    async fn known_root(&self, view: &RoomView) -> Result<Option<Root>, SyncError> {
        if self.stood.then != Membership::Join || self.build.request.full_state {
            return Ok(None);
        }
        let Some(since) = self.build.since else {
            return Ok(None);
        };
        match self
            .sync
            .0
            .rooms
            .view_at(&view.reader().at(since.clone()), view.room_id())
            .await
        {
            Ok(then) => Ok(Some(then.root())),
            Err(RoomError::UnknownRoom) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The latest events that the client has not had, oldest first.
    async fn stretch(
        &self,
        view: &RoomView,
        end: Option<((i64, i64), Root)>,
    ) -> Result<Stretch, SyncError> {
        let filter = &self.build.request.filter.room.timeline;
        let limit = filter.limit();
        let (end, end_root) = end.unwrap_or(((view.seq() + 1, i64::MIN), view.root()));
        let after = match self.build.since {
            Some(since) if self.stood.then == Membership::Join => {
                let pos = since.get(
                    self.sync
                        .0
                        .rooms
                        .tenant()
                        .lanes()
                        .of(Home::Room(self.room).slot()),
                );
                // Mostly a few events back; otherwise it is searched for.
                match view.place_at(pos, NEAR).await? {
                    Some(seq) => Some(seq),
                    None => Some(view.seq_at(pos).await?),
                }
            }
            _ => None,
        };
        let mut span = Span {
            after: after.map(|seq| (seq, 0)),
            before: Some(end),
            backwards: true,
            limit: limit.max(1),
        };
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
            let (page, more) = view.timeline(span).await?;
            let Some(last) = page.last().cloned() else {
                break;
            };
            let visible = view.visible(&page, &self.build.request.user).await?;
            for (one, visible) in page.into_iter().zip(visible) {
                if found.len() == limit {
                    limited = true;
                    break;
                }
                start = one.place().unwrap_or(start);
                first = Some(one.clone());
                let own = one
                    .event
                    .is_state("m.room.member", self.build.request.user.as_str());
                if (visible || own) && filter.wants(&one.event) && !self.is_ignored(&one) {
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
            limited = after.is_none_or(|seq| seq < view.seq());
        }
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

    fn is_ignored(&self, found: &Found) -> bool {
        found.event.state_key().is_none()
            && self.build.ignored.contains(found.event.sender().as_str())
    }

    async fn timeline(&self, view: &RoomView, stretch: &Stretch) -> Result<Timeline, SyncError> {
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

    /// The state beside the timeline, and the summary where it changed.
    async fn state(
        &self,
        view: &RoomView,
        stretch: &Stretch,
        known: Option<Root>,
        last: Root,
        summarise: bool,
    ) -> Result<(State, Option<Summary>), SyncError> {
        let request = self.build.request;
        let filter = &request.filter.room.state;
        let end = if request.use_state_after {
            last
        } else {
            stretch.root
        };
        let summary = if summarise {
            Some(self.summary(view).await?)
        } else {
            None
        };
        let mut nums: BTreeSet<EventNum> = match known {
            Some(known) => view.state_diff(known, end).await?.into_iter().collect(),
            None if filter.lazy_load_members => view
                .state_nums(end, Some(Half::Rest))
                .await?
                .into_iter()
                .collect(),
            None => view.state_nums(end, None).await?.into_iter().collect(),
        };
        if filter.lazy_load_members {
            nums.extend(
                self.lazy_members(view, stretch, known, end, summary.as_ref())
                    .await?,
            );
        }
        let nums: Vec<EventNum> = nums.into_iter().collect();
        let found: Vec<Found> = view
            .load(&nums)
            .await?
            .into_iter()
            .filter(|found| filter.wants(&found.event))
            .collect();
        let found = if filter.wants_room(view.room_id().as_str()) {
            found
        } else {
            Vec::new()
        };
        Ok((
            self.state_of(Events {
                events: self.render(view, &found).await?,
            }),
            summary,
        ))
    }

    fn state_of(&self, events: Events) -> State {
        if self.build.request.use_state_after {
            State::After(events)
        } else {
            State::Before(events)
        }
    }

    /// The members who matter for this answer: the timeline's senders, the heroes, and at first the
    /// user; those whom the device knows already left out unless it wants them again.
    async fn lazy_members(
        &self,
        view: &RoomView,
        stretch: &Stretch,
        known: Option<Root>,
        end: Root,
        summary: Option<&Summary>,
    ) -> Result<Vec<EventNum>, SyncError> {
        let request = self.build.request;
        let (user, device) = (request.user.as_str(), request.device.as_str());
        let mut who: BTreeSet<&str> = stretch
            .found
            .iter()
            .map(|found| found.event.sender().as_str())
            .collect();
        if known.is_none() {
            who.insert(user);
            self.sync.0.sent.forget(user, device, self.room);
        }
        who.extend(
            summary
                .and_then(|summary| summary.heroes.as_ref())
                .into_iter()
                .flatten()
                .map(String::as_str),
        );
        let names: Vec<(&str, &str)> = who
            .into_iter()
            .map(|user| ("m.room.member", user))
            .collect();
        let keys = view.state_keys(&names).await?;
        let members: Vec<EventNum> = view
            .lookup(end, &keys)
            .await?
            .into_iter()
            .flatten()
            .collect();
        let home = Home::Room(self.room);
        let lane = self.sync.0.rooms.tenant().lanes().of(home.slot());
        let since = self.build.since.map(|since| since.get(lane));
        let bound = self.build.reader.bound(home);
        let unsent =
            self.sync
                .0
                .sent
                .unsent(user, device, self.room, members.clone(), (since, bound));
        Ok(if request.filter.room.state.include_redundant_members {
            members
        } else {
            unsent
        })
    }

    /// Who is there, from the room's summary where it is not newer than this answer, and by whom to
    /// name a room without a name.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_roomsummary>
    async fn summary(&self, view: &RoomView) -> Result<Summary, SyncError> {
        let row = view
            .reader()
            .get::<Summaries>(&InRoom { room: self.room })
            .await?;
        let settled = row.filter(|row| row.pos <= view.reader().bound(Home::Room(self.room)));
        let (joined, invited) = match &settled {
            Some(row) => (row.value.joined, row.value.invited),
            None => {
                let members = view.all_state(Some(Half::Members)).await?;
                let count = |wanted| {
                    members
                        .iter()
                        .filter(|found| membership_of(found) == Some(wanted))
                        .count()
                };
                (
                    count(Membership::Join) as u64,
                    count(Membership::Invite) as u64,
                )
            }
        };
        let named = view
            .states(&[("m.room.name", ""), ("m.room.canonical_alias", "")])
            .await?;
        let is_named = named.iter().any(|found| {
            let key = if found.event.event_type() == "m.room.name" {
                "name"
            } else {
                "alias"
            };
            found
                .event
                .content_string(key)
                .is_some_and(|value| !value.is_empty())
        });
        let heroes = if is_named {
            None
        } else {
            Some(self.heroes(view).await?)
        };
        Ok(Summary {
            heroes,
            joined,
            invited,
        })
    }

    /// The first members other than the user; those who left, where nobody else is there.
    async fn heroes(&self, view: &RoomView) -> Result<Vec<String>, SyncError> {
        let mut nums = view.state_nums(view.root(), Some(Half::Members)).await?;
        nums.truncate(HEROES_LOOKED_AT);
        let me = self.build.request.user.as_str();
        let members = view.load(&nums).await?;
        let others = members
            .iter()
            .filter(|found| found.event.state_key() != Some(me));
        let (here, gone): (Vec<&Found>, Vec<&Found>) = others.partition(|found| {
            matches!(
                membership_of(found),
                Some(Membership::Join | Membership::Invite)
            )
        });
        let heroes = if here.is_empty() { gone } else { here };
        let names = heroes
            .into_iter()
            .filter_map(|found| found.event.state_key());
        Ok(names.take(HEROES).map(str::to_owned).collect())
    }

    /// What someone may see of a room who is not in it.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#stripped-state>
    async fn stripped(&self) -> Result<Events, SyncError> {
        let view = self.view().await?;
        let user = self.build.request.user.as_str();
        let member = view.state("m.room.member", user).await?;
        let mut keys = vec![
            ("m.room.create", ""),
            ("m.room.name", ""),
            ("m.room.avatar", ""),
            ("m.room.topic", ""),
            ("m.room.join_rules", ""),
            ("m.room.canonical_alias", ""),
            ("m.room.encryption", ""),
        ];
        let sender = member
            .as_ref()
            .map(|member| member.event.sender().to_string());
        if let Some(sender) = sender.as_deref().filter(|sender| *sender != user) {
            keys.push(("m.room.member", sender));
        }
        let found = view.states(&keys).await?;
        let events = found
            .iter()
            .chain(&member)
            .map(|found| stripped_state(&found.event));
        Ok(Events {
            events: events
                .filter_map(|json| RawValue::from_string(json).ok())
                .collect(),
        })
    }

    async fn account_data(&self) -> Result<Events, SyncError> {
        let request = self.build.request;
        let view_id = self
            .sync
            .0
            .index
            .room_id(&request.user, self.room)
            .unwrap_or_default();
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
            .account_data_of_room(request.user.as_str(), &view_id)
            .await?;
        let wanted = data
            .into_iter()
            .filter(|data| filter.wants_type(&data.kind) && filter.wants_room(&view_id));
        Ok(Events {
            events: between(
                wanted,
                after,
                self.build.reader.bound(Home::Room(self.room)),
            ),
        })
    }

    async fn render(
        &self,
        view: &RoomView,
        found: &[Found],
    ) -> Result<Vec<Box<RawValue>>, SyncError> {
        let request = self.build.request;
        if request.filter.event_format == EventFormat::Federation {
            let raw = found
                .iter()
                .map(|found| RawValue::from_string(found.event.json().to_owned()));
            return Ok(raw.filter_map(Result::ok).collect());
        }
        let viewer = Viewer {
            user: &request.user,
            device: Some(&request.device),
        };
        Ok(view
            .render(found, viewer, ClientFormat::WithoutRoomId)
            .await?)
    }
}

fn membership_of(member: &Found) -> Option<Membership> {
    MemberContent::read(member.event.content().get()).membership
}

/// The state before an event.
fn root_before(found: &Found) -> Result<Root, RoomError> {
    Root::decode(&found.status.root_before).map_err(|error| RoomError::Damaged(error.to_string()))
}
