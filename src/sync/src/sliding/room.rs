//! One room's part of an answer: what the client doesn't know of it yet.

use std::collections::BTreeSet;

use comity_protocol::{auth::Membership, id::RoomId};
use comity_rooms::{Found, RoomError, RoomView, num::EventNum, state::AnyRoot, tables::Head};
use comity_storage::{Heads, Home, Pos, Reader};
use futures_util::try_join;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::OnceCell;

use super::{
    Hero, Required, RoomAnswer, SlidingRequest, SlidingTimeline,
    connection::{At, Look},
    lists::Wanted,
};
use crate::{
    Request, Sync, SyncError,
    answer::Counts,
    build::Build,
    filter::{EventFilter, Filter, RoomFilter},
    room::{RoomSync, Stretch},
    tables::Known,
};

/// What all rooms of an answer are told from.
pub(super) struct Teller<'a> {
    pub sync: &'a Sync,
    pub request: &'a SlidingRequest,
    pub at: &'a At,
    /// Reads up to the answer's heads.
    pub reader: &'a Reader,
    pub ignored: &'a OnceCell<BTreeSet<String>>,
    /// The number of the answer's position.
    pub serial: u64,
}

/// What is told of a room.
pub(super) struct Told {
    pub answer: RoomAnswer,
    /// What the client knows then; its required state isn't numbered yet.
    pub known: Known,
    /// The events of the timeline.
    pub events: BTreeSet<String>,
}

/// A room's part, as it is put together.
struct Part<'a> {
    teller: &'a Teller<'a>,
    wanted: &'a Wanted,
    room: RoomSync<'a>,
    known: Option<Known>,
    had: Option<&'a Required>,
}

/// What the client knew of the room, if it was in it.
struct Then {
    root: AnyRoot,
    bumped: u64,
}

/// State, and what draws the room, between what the client knew and now.
struct Change {
    state: Vec<Box<RawValue>>,
    gone: Vec<(String, String)>,
    name: Option<Option<String>>,
    avatar: Option<Option<String>>,
}

impl Teller<'_> {
    /// What is to be told of a room; `None` if there is nothing.
    pub async fn tell(&self, wanted: &Wanted, is_direct: bool) -> Result<Option<Told>, SyncError> {
        let room = wanted.listed.room;
        let known = self.at.known(room);
        let had = known.and_then(|known| self.at.required(known.required));
        if known.is_some_and(|known| !self.may_tell(wanted, &known, had, is_direct)) {
            return Ok(None);
        }
        let Ok(room_id) = RoomId::parse(&wanted.listed.place.room_id) else {
            return Ok(None);
        };
        let request = self.one_room(wanted);
        let since = known.and_then(|known| self.since(wanted, known.upto));
        let build = Build {
            request: &request,
            reader: self.reader.clone(),
            since: since.as_ref(),
            known: None,
            ignored: self.ignored,
            invites: OnceCell::new(),
        };
        let Some(stood) = self.sync.stood(&build, room, &wanted.listed.place).await? else {
            return Ok(None);
        };
        let part = Part {
            teller: self,
            wanted,
            room: RoomSync {
                sync: self.sync,
                build: &build,
                room,
                room_id,
                stood,
            },
            known,
            had,
        };
        let told = match stood.now {
            Membership::Join => part.joined(is_direct).await?,
            Membership::Invite | Membership::Knock => part.outside(is_direct).await?,
            Membership::Leave | Membership::Ban => part.left(is_direct).await?,
        };
        if let (None, Some(known)) = (&told, known) {
            let before = self.at.looked.at(room, &known, &wanted.config);
            let (data, receipts) = before.map_or((known.data, known.receipts), |look| {
                (look.data, look.receipts)
            });
            let look = Look {
                known,
                config: wanted.config.clone(),
                upto: self.reader.bound(Home::Room(room)),
                data,
                receipts,
            };
            self.at.looked.put(room, look);
        }
        Ok(told)
    }

    /// Whether there may be anything to tell of a room that the client knows: comparisons, no read.
    fn may_tell(
        &self,
        wanted: &Wanted,
        known: &Known,
        had: Option<&Required>,
        is_direct: bool,
    ) -> bool {
        let look = self.at.looked.at(wanted.listed.room, known, &wanted.config);
        let upto = look.as_ref().map_or(known.upto, |look| look.upto);
        let widened = look.is_none()
            && (wanted.config.timeline_limit > known.limit
                || !had.is_some_and(|had| had.covers(&wanted.config.required)));
        widened || known.dm != is_direct || self.has_moved(wanted, upto)
    }

    /// Whether something may have happened to a room after a position of its lane.
    fn has_moved(&self, wanted: &Wanted, after: Pos) -> bool {
        let listed = &wanted.listed;
        let lanes = self.sync.0.rooms.tenant().lanes();
        let start = self
            .sync
            .0
            .index
            .start(lanes.of(Home::Room(listed.room).slot()));
        listed.place.pos > after || (listed.is("join") && (listed.changed > after || after < start))
    }

    /// The heads of the request's position, but with the room's lane where the client knows the room.
    fn since(&self, wanted: &Wanted, upto: Pos) -> Option<Heads> {
        let position = self.at.position.as_ref()?;
        let lanes = self.sync.0.rooms.tenant().lanes();
        let lane = lanes.of(Home::Room(wanted.listed.room).slot());
        Some(Heads::new(position.heads.clone()).with(lane, upto))
    }

    /// The request as `/sync` would have it for this room.
    fn one_room(&self, wanted: &Wanted) -> Request {
        let timeline = EventFilter {
            limit: Some(u64::from(wanted.config.timeline_limit)),
            ..EventFilter::default()
        };
        let room = RoomFilter {
            timeline,
            ..RoomFilter::default()
        };
        Request {
            user: self.request.user.clone(),
            device: self.request.device.clone(),
            to_device: false,
            filter: Filter {
                room,
                ..Filter::default()
            },
            since: None,
            full_state: false,
            use_state_after: true,
            timeout: std::time::Duration::ZERO,
        }
    }
}

impl Part<'_> {
    /// A room that the user is in.
    async fn joined(&self, is_direct: bool) -> Result<Option<Told>, SyncError> {
        let config = &self.wanted.config;
        let (view, then) = try_join!(self.room.view(), self.then())?;
        if view.root().is_partial() && config.required.has_all_members() {
            return Ok(None);
        }
        let (initial, root) = (then.is_none(), view.root());
        let known = self.known.unwrap_or_default();
        let expanded = !initial && config.timeline_limit > known.limit;
        let since = self.room.build.since.filter(|_| !initial && !expanded);
        let changed = then.as_ref().is_none_or(|then| then.root != root);
        let (stretch, summary, (unread, _)) = try_join!(
            self.room.stretch(&view, None, since),
            async {
                Ok(if changed {
                    Some(self.room.summary(&view).await?)
                } else {
                    None
                })
            },
            self.room.unread(&view),
        )?;
        let (change, timeline, heroes, bumped) = try_join!(
            self.change(&view, &stretch, then.as_ref(), root),
            self.timeline(&view, &stretch, initial, expanded),
            async {
                let heroes = summary
                    .as_ref()
                    .and_then(|summary| summary.heroes.as_deref());
                match heroes {
                    Some(heroes) => Ok(Some(heroes_of(&view, heroes).await?)),
                    None => Ok(None),
                }
            },
            self.bumped(view.head()),
        )?;
        let bump_stamp = then
            .as_ref()
            .is_none_or(|then| then.bumped != view.head().bumped)
            .then_some(bumped);
        let answer = RoomAnswer {
            bump_stamp,
            name: change.name,
            avatar: change.avatar,
            heroes,
            is_dm: (if initial {
                is_direct
            } else {
                known.dm != is_direct
            })
            .then_some(is_direct),
            required_state: change.state,
            gone_state: change.gone,
            timeline,
            members: summary.map(|summary| (summary.joined, summary.invited)),
            unread,
            ..self.answer(initial)
        };
        let counts = (unread.notification_count, unread.highlight_count);
        if !answer.says_anything() && counts == known.unread {
            return Ok(None);
        }
        let had_all = !initial && !expanded && !stretch.limited;
        let limit = match had_all {
            true => known.limit.max(config.timeline_limit),
            false => config.timeline_limit,
        };
        let fresh = Known {
            limit,
            dm: is_direct,
            unread: counts,
            ..if initial { Known::default() } else { known }
        };
        Ok(Some(self.told(answer, fresh, &stretch.found)))
    }

    /// An invite or a knock: what those may know who aren't in.
    async fn outside(&self, is_direct: bool) -> Result<Option<Told>, SyncError> {
        let is_news = self.known.is_none() || self.room.stood.is_news;
        let stripped = match is_news {
            true => self.room.stripped().await?,
            false => None,
        };
        if is_news && stripped.is_none() {
            return Ok(None);
        }
        let known = self.known.unwrap_or_default();
        let tells_dm = if is_news {
            is_direct
        } else {
            known.dm != is_direct
        };
        let answer = RoomAnswer {
            bump_stamp: is_news.then(|| self.wanted.listed.active()),
            is_dm: tells_dm.then_some(is_direct),
            stripped_state: stripped.map(|state| state.events),
            ..self.answer(is_news)
        };
        if !answer.says_anything() {
            return Ok(None);
        }
        let fresh = Known {
            dm: is_direct,
            ..if is_news { Known::default() } else { known }
        };
        Ok(Some(self.told(answer, fresh, &[])))
    }

    /// A room that the user has left, or was removed from: what happened up to then (threats E3, E4).
    async fn left(&self, is_direct: bool) -> Result<Option<Told>, SyncError> {
        // What there was to tell was told with the leave; whatever more the client wants now, it gets nothing of what is left.
        if self.known.is_some() && !self.room.stood.is_news {
            return Ok(None);
        }
        let known = self.known.unwrap_or_default();
        let fresh = Known {
            limit: self.wanted.config.timeline_limit,
            dm: is_direct,
            ..known
        };
        let bump_stamp = Some(self.wanted.listed.active());
        if self.room.out_of_band().await?.is_some() {
            // An invite or a knock that ended: nobody told us more than the client knows.
            let answer = RoomAnswer {
                bump_stamp,
                ..self.answer(true)
            };
            return Ok(self.known.map(|_| self.told(answer, fresh, &[])));
        }
        let view = self.room.view().await?;
        let departure = self.room.departure(&view).await?;
        let was_there =
            |departure: &crate::room::Departure| departure.standing.joined_until.is_some();
        let Some(departure) = departure.filter(|d| self.known.is_some() || was_there(d)) else {
            return Ok(None);
        };
        let then = self.then().await?;
        let since = match self.known {
            Some(_) => self.room.had_until(&view, departure.standing).await?,
            None => None,
        };
        let stretch = self.room.until(&view, &departure, since).await?;
        let initial = then.is_none();
        let may_see_state = self.room.was_in() || departure.was_inside();
        let (change, timeline) = try_join!(
            async {
                match may_see_state {
                    true => {
                        self.change(&view, &stretch, then.as_ref(), departure.last)
                            .await
                    }
                    false => Ok(Change::nothing()),
                }
            },
            self.timeline(&view, &stretch, initial, false),
        )?;
        let answer = RoomAnswer {
            bump_stamp,
            name: change.name,
            avatar: change.avatar,
            is_dm: (if initial {
                is_direct
            } else {
                known.dm != is_direct
            })
            .then_some(is_direct),
            required_state: change.state,
            gone_state: change.gone,
            timeline,
            ..self.answer(initial)
        };
        Ok(Some(self.told(answer, fresh, &stretch.found)))
    }

    /// An answer that says nothing yet.
    fn answer(&self, initial: bool) -> RoomAnswer {
        RoomAnswer {
            initial,
            membership: self.room.stood.now,
            lists: self.wanted.lists.clone(),
            bump_stamp: None,
            name: None,
            avatar: None,
            heroes: None,
            is_dm: None,
            required_state: Vec::new(),
            gone_state: Vec::new(),
            timeline: None,
            stripped_state: None,
            members: None,
            unread: Counts::default(),
        }
    }

    fn told(&self, answer: RoomAnswer, known: Known, found: &[Found]) -> Told {
        let upto = self
            .teller
            .reader
            .bound(Home::Room(self.wanted.listed.room));
        let events = found.iter().map(|found| found.event.event_id().to_string());
        Told {
            answer,
            known: Known { upto, ..known },
            events: events.collect(),
        }
    }

    /// The room as the client knew it, if the user was in it then and it still can be told.
    async fn then(&self) -> Result<Option<Then>, SyncError> {
        let Some(since) = self.room.build.since.filter(|_| self.room.was_in()) else {
            return Ok(None);
        };
        let reader = self.teller.reader.at(since.clone());
        let rooms = &self.teller.sync.0.rooms;
        let head = rooms.head_at(&reader, self.wanted.listed.room).await?;
        let then = head.map(|head| {
            Ok::<_, RoomError>(Then {
                root: AnyRoot::decode(&head.root)
                    .map_err(|error| RoomError::Damaged(error.to_string()))?,
                bumped: head.bumped,
            })
        });
        Ok(then.transpose()?)
    }

    /// By which the room is sorted: its last event that counts for that, or the user's joining it.
    async fn bumped(&self, head: &Head) -> Result<u64, SyncError> {
        if head.bumped > 0 {
            return Ok(head.bumped);
        }
        let (user, room_id) = (&self.teller.request.user, &self.room.room_id);
        let row = self.teller.sync.0.rooms.member(user, room_id).await?;
        Ok(row.map_or(0, |row| row.value.since))
    }

    /// The state that is wanted, where it isn't what the client knew.
    async fn change(
        &self,
        view: &RoomView,
        stretch: &Stretch,
        then: Option<&Then>,
        root: AnyRoot,
    ) -> Result<Change, SyncError> {
        let required = &self.wanted.config.required;
        let ((nums, gone), (name, avatar)) = try_join!(
            async {
                let (mut nums, gone) = match then {
                    None => (required.select(view, root, None).await?, Vec::new()),
                    Some(then) => self.moved(view, stretch, then.root, root).await?,
                };
                if required.is_lazy() {
                    nums.extend(self.lazy(view, stretch, then.is_none(), root).await?);
                }
                Ok::<_, SyncError>((nums, gone))
            },
            face(view, then.map(|then| then.root), root),
        )?;
        let nums: Vec<EventNum> = nums.into_iter().collect();
        let found = view.load(&nums).await?;
        Ok(Change {
            state: self.room.render(view, &found).await?,
            gone,
            name,
            avatar,
        })
    }

    /// The wanted state that changed, and what is wanted now and wasn't; and what of the state is no more.
    async fn moved(
        &self,
        view: &RoomView,
        stretch: &Stretch,
        then: AnyRoot,
        root: AnyRoot,
    ) -> Result<(BTreeSet<EventNum>, Vec<(String, String)>), SyncError> {
        let required = &self.wanted.config.required;
        let (differs, gone) = if then.is_partial() == root.is_partial() {
            view.state_changes(then, root).await?
        } else {
            // Members who are known now were there before.
            let (then, root) = (then.known_rest(), root.known_rest());
            view.state_changes(then.into(), root.into()).await?
        };
        let lazily = required.is_lazy() && !stretch.limited;
        let wants = |event_type: &str, state_key: &str| {
            required.matches(event_type, state_key) || (lazily && event_type == "m.room.member")
        };
        let found = view.load(&differs).await?;
        let wanted = found.iter().filter(|found| {
            let state_key = found.event.state_key().unwrap_or_default();
            wants(found.event.event_type(), state_key)
        });
        let mut nums: BTreeSet<EventNum> = wanted.map(|found| found.num).collect();
        if !self.had.is_some_and(|had| had.covers(required)) {
            nums.extend(required.select(view, root, self.had).await?);
        }
        let mut gone = view.key_names(&gone).await?;
        gone.retain(|(event_type, state_key)| wants(event_type, state_key));
        Ok((nums, gone))
    }

    /// The members who matter for the timeline and haven't been told.
    async fn lazy(
        &self,
        view: &RoomView,
        stretch: &Stretch,
        initial: bool,
        root: AnyRoot,
    ) -> Result<Vec<EventNum>, SyncError> {
        let senders = stretch
            .found
            .iter()
            .map(|found| found.event.sender().as_str());
        let members = stretch
            .found
            .iter()
            .filter(|found| found.event.event_type() == "m.room.member");
        let targets = members.filter_map(|found| found.event.state_key());
        let who: BTreeSet<&str> = senders.chain(targets).collect();
        let nums = self.room.members_of(view, stretch, &who, root).await?;
        let (sent, user) = (&self.teller.sync.0.sent, self.teller.request.user.as_str());
        let connection = self.teller.request.told_by();
        let room = self.wanted.listed.room;
        if initial {
            sent.forget(user, &connection, room);
        }
        let base = self
            .teller
            .at
            .position
            .as_ref()
            .map(|position| position.serial);
        Ok(sent.unsent(user, &connection, room, nums, (base, self.teller.serial)))
    }

    async fn timeline(
        &self,
        view: &RoomView,
        stretch: &Stretch,
        initial: bool,
        expanded: bool,
    ) -> Result<Option<SlidingTimeline>, SyncError> {
        if self.wanted.config.timeline_limit == 0 {
            return Ok(None);
        }
        let (timeline, live) = try_join!(
            self.room.timeline(view, stretch),
            self.live(view, stretch, initial || expanded)
        )?;
        Ok(Some(SlidingTimeline {
            events: timeline.events,
            limited: timeline.limited,
            expanded,
            prev_batch: timeline.prev_batch,
            live,
        }))
    }

    /// How many events came after the request's position.
    async fn live(
        &self,
        view: &RoomView,
        stretch: &Stretch,
        whole: bool,
    ) -> Result<usize, SyncError> {
        let Some(position) = &self.teller.at.position else {
            return Ok(0);
        };
        let lanes = self.teller.sync.0.rooms.tenant().lanes();
        let lane = lanes.of(Home::Room(self.wanted.listed.room).slot());
        let since = Heads::new(position.heads.clone()).get(lane);
        if !whole && self.known.is_some_and(|known| known.upto >= since) {
            return Ok(stretch.found.len());
        }
        let seq = view.seq_at(since).await?;
        let live = |found: &&Found| found.place().is_some_and(|(at, _)| at > seq);
        Ok(stretch.found.iter().rev().take_while(live).count())
    }
}

impl Change {
    fn nothing() -> Self {
        Self {
            state: Vec::new(),
            gone: Vec::new(),
            name: None,
            avatar: None,
        }
    }
}

impl RoomAnswer {
    /// Whether it says anything, unread counts aside.
    fn says_anything(&self) -> bool {
        let timeline = self.timeline.as_ref();
        self.initial
            || self.bump_stamp.is_some()
            || self.name.is_some()
            || self.avatar.is_some()
            || self.heroes.is_some()
            || self.is_dm.is_some()
            || !self.required_state.is_empty()
            || !self.gone_state.is_empty()
            || timeline.is_some_and(|timeline| !timeline.events.is_empty() || timeline.limited)
            || self.stripped_state.is_some()
            || self.members.is_some()
    }
}

/// A room's name and avatar, where they aren't what they were: `Some(None)` where it had one before.
async fn face(
    view: &RoomView,
    then: Option<AnyRoot>,
    root: AnyRoot,
) -> Result<(Option<Option<String>>, Option<Option<String>>), SyncError> {
    if then == Some(root) {
        return Ok((None, None));
    }
    let names = [("m.room.name", "", "name"), ("m.room.avatar", "", "url")];
    let keys = view
        .state_keys(&names.map(|(event_type, key, _)| (event_type, key)))
        .await?;
    let now = view.lookup(root, &keys).await?;
    let before = match then {
        Some(then) => view.lookup(then, &keys).await?,
        None => vec![None; now.len()],
    };
    let mut told = Vec::new();
    for ((now, before), (_, _, field)) in now.into_iter().zip(before).zip(names) {
        if now == before {
            told.push(None);
            continue;
        }
        let found = match now {
            Some(now) => view.load(&[now]).await?.pop(),
            None => None,
        };
        let text = found.and_then(|found| {
            found
                .event
                .content_string(field)
                .map(|text| text.into_owned())
        });
        let text = text.filter(|text| !text.is_empty());
        told.push(Some(text).filter(|text| text.is_some() || then.is_some()));
    }
    let avatar = told.pop().flatten();
    Ok((told.pop().flatten(), avatar))
}

/// What draws the members by whom a room is named.
async fn heroes_of(view: &RoomView, heroes: &[String]) -> Result<Vec<Hero>, SyncError> {
    #[derive(Default, Deserialize)]
    struct Profile {
        displayname: Option<String>,
        avatar_url: Option<String>,
    }
    let names: Vec<(&str, &str)> = heroes
        .iter()
        .map(|user| ("m.room.member", user.as_str()))
        .collect();
    let keys = view.state_keys(&names).await?;
    let nums = view.lookup(view.root(), &keys).await?;
    let nums: Vec<EventNum> = nums.into_iter().flatten().collect();
    let members = view.load(&nums).await?.into_iter();
    Ok(members
        .filter_map(|found| {
            let profile: Profile = found.event.content_as().unwrap_or_default();
            Some(Hero {
                user_id: found.event.state_key()?.to_owned(),
                displayname: profile.displayname,
                avatar_url: profile.avatar_url,
            })
        })
        .collect())
}
