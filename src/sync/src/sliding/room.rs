//! One room's part of an answer: what the client doesn't know of it yet.

use std::collections::BTreeSet;

use comity_protocol::{auth::Membership, id::RoomId};
use comity_rooms::{Found, RoomError, RoomView, state::AnyRoot, tables::Head};
use comity_storage::{Heads, Home, Pos, Reader};
use futures_util::try_join;
use tokio::sync::OnceCell;

use super::{
    Required, RoomAnswer, SlidingRequest, SlidingTimeline,
    change::{Change, Then, heroes_of},
    connection::At,
    extensions::Telling,
    lists::Wanted,
    looked::Look,
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
    /// What that makes known; the required state isn't numbered yet.
    pub telling: Telling,
}

/// A room's part, as it is put together.
pub(super) struct Part<'a> {
    pub teller: &'a Teller<'a>,
    pub wanted: &'a Wanted,
    pub room: RoomSync<'a>,
    pub known: Option<Known>,
    pub had: Option<&'a Required>,
}

impl Teller<'_> {
    /// What is to be told of a room; `None` if there is nothing.
    pub async fn tell(&self, wanted: &Wanted, is_direct: bool) -> Result<Option<Told>, SyncError> {
        let room = wanted.listed.room;
        let known = self.at.known(room);
        let had = known.and_then(|known| self.at.required(known.required));
        let Ok(room_id) = RoomId::parse(&*wanted.listed.place.room_id) else {
            return Ok(None);
        };
        let request = self.one_room(wanted);
        let since = known.and_then(|known| self.since(wanted, known.upto));
        let build = Build {
            request: &request,
            reader: self.reader.clone(),
            since: since.as_ref(),
            known: None,
            typed: &[],
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
            Membership::Join => part.joined(is_direct).await,
            Membership::Invite | Membership::Knock => part.outside(is_direct).await,
            Membership::Leave | Membership::Ban => part.left(is_direct).await,
        };
        let told = match told {
            // As in `/v3/sync`: the room came here since, which the next answer tells.
            Err(SyncError::Room(RoomError::UnknownRoom)) => return Ok(None),
            told => told?,
        };
        if let (None, Some(known)) = (&told, known) {
            let before = self.at.looked.at(room, &known, wanted.wants);
            let (data, receipts) = before.map_or((known.data, known.receipts), |look| {
                (look.data, look.receipts)
            });
            let look = Look {
                known,
                wants: wanted.wants,
                upto: self.reader.bound(Home::Room(room)),
                data,
                receipts,
            };
            self.at.looked.put(room, look);
        }
        Ok(told)
    }

    /// Whether there may be anything to tell of a room: comparisons, no read.
    pub fn may_tell(&self, wanted: &Wanted, is_direct: bool) -> bool {
        let Some(known) = self.at.known(wanted.listed.room) else {
            return true;
        };
        let look = self.at.looked.at(wanted.listed.room, &known, wanted.wants);
        let upto = look.as_ref().map_or(known.upto, |look| look.upto);
        let had = self.at.required(known.required);
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
        listed.place.pos > after
            || (listed.place.is_joined() && (listed.changed > after || after < start))
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
                    // Who asks for no alias would have nothing to draw the room by.
                    Some(self.room.summary(&view, &["m.room.name"]).await?)
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
            bump_stamp: is_news.then_some(self.wanted.listed.active),
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
        let bump_stamp = Some(self.wanted.listed.active);
        // That the user is out, and nothing of the room.
        let ended = |stripped_state| {
            let answer = RoomAnswer {
                bump_stamp,
                stripped_state,
                ..self.answer(true)
            };
            self.known.map(|_| self.told(answer, fresh, &[]))
        };
        if let Some(kept) = self.room.out_of_band().await? {
            // An invite or a knock that ended: nobody told us more than the client knows. One that came since is the next answer's.
            let stands = kept.membership == self.room.stood.now.as_str();
            return Ok(ended(stands.then(|| kept.stripped())));
        }
        let view = self.room.view().await?;
        let departure = self.room.departure(&view).await?;
        let was_there =
            |departure: &crate::room::Departure| departure.standing.joined_until.is_some();
        let Some(departure) = departure.filter(|d| self.known.is_some() || was_there(d)) else {
            // Whom forks put out where they met was told that they are in, and there is no event that says otherwise.
            return Ok(ended(None));
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
            stripped_state: (!was_there(&departure)).then(|| departure.stripped()),
            ..self.answer(initial)
        };
        Ok(Some(self.told(answer, fresh, &stretch.found)))
    }

    /// An answer that says nothing yet.
    fn answer(&self, initial: bool) -> RoomAnswer {
        RoomAnswer {
            initial,
            membership: self.room.stood.now,
            lists: BTreeSet::clone(&self.wanted.lists),
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
        let places = || found.iter().filter_map(Found::place);
        let telling = Telling {
            known: Known { upto, ..known },
            events: events.collect(),
            from: places().find(|(_, sub)| *sub == 0).or(places().next()),
        };
        Told { answer, telling }
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
