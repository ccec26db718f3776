//! Numbers, ids, and what each event has: a header and a body that say the same, and a status that its verdict allows.

use std::collections::{BTreeMap, HashMap};

use comity_protocol::{
    auth::{MemberContent, Membership},
    event::{Event, Limits, WellFormed},
    id::OwnedEventId,
};
use comity_storage::{Home, Range, ReadError, RoomKey, Table};

use super::{Broken, Room, Walk, hash, names::IdSum};
use crate::{
    change::relates_to,
    num::{EventNum, StateKeyNum},
    state::{AnyRoot, Closure},
    tables::{
        Bodies, Body, EarlyRedactions, EventNums, Followed, Generation, Header, Headers, Heads,
        KeyNums, Provisionals, RoomNum, StateKeys, Status, Statuses, Verdict,
    },
};

/// What is kept of an event while its room is walked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Kept {
    /// Its id, hashed; 0 as long as it has none.
    pub id: u64,
    /// Its place, hashed; 0 if it has none.
    pub place: u64,
    /// Of a state event that has its number, the state key's.
    pub key: Option<StateKeyNum>,
    /// What its status says.
    pub verdict: Option<Verdict>,
    /// Of a member event, what it says.
    pub membership: Option<Membership>,
    /// It has a state before it.
    pub in_graph: bool,
    /// Its content was taken.
    pub redacted: bool,
    /// An entry of the order names it.
    pub entered: bool,
}

/// A placed event that relates to another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Relating {
    pub num: u32,
    /// How and to which event, hashed ([`relation`]).
    pub how: u64,
    /// Its row has been met.
    pub met: bool,
}

/// What is kept of a room's events.
#[derive(Debug)]
pub(super) struct Events {
    next: u32,
    list: Vec<Kept>,
    /// State keys by their hashed names.
    keys: HashMap<u64, StateKeyNum>,
    /// State events with where their auth events begin in the list after.
    auth: Vec<(u32, usize)>,
    auth_events: Vec<u32>,
    pub relating: Vec<Relating>,
    /// Entries of the order that are part of a thread.
    pub threaded: usize,
    pub ids: IdSum,
}

/// What tells one relation from others.
pub(super) fn relation(
    target: u64,
    (rel_type, event_type, sender): (&str, &str, &str),
    key: Option<&str>,
) -> u64 {
    hash(&(target, rel_type, event_type, sender, key))
}

/// A place of the order, hashed; never 0.
pub(super) fn place(place: (i64, i64)) -> u64 {
    hash(&place) | 1
}

/// An event's id, hashed; never 0.
fn id(text: &str) -> u64 {
    hash(&text) | 1
}

impl Events {
    pub fn new(next: u32) -> Self {
        Self {
            next,
            list: Vec::new(),
            keys: HashMap::new(),
            auth: Vec::new(),
            auth_events: Vec::new(),
            relating: Vec::new(),
            threaded: 0,
            ids: IdSum::default(),
        }
    }

    /// What is known of a number.
    pub fn get(&self, num: u32) -> Kept {
        self.list.get(num as usize).copied().unwrap_or_default()
    }

    /// Likewise, to note something; `None` beyond the numbers that were given out.
    pub fn get_mut(&mut self, num: u32) -> Option<&mut Kept> {
        if num >= self.next {
            return None;
        }
        let at = num as usize;
        if self.list.len() <= at {
            self.list.resize(at + 1, Kept::default());
        }
        self.list.get_mut(at)
    }

    pub fn iter(&self) -> impl Iterator<Item = (EventNum, &Kept)> {
        (0..).map(EventNum).zip(&self.list)
    }

    /// The auth events of a state event.
    pub fn auth(&self, num: u32) -> &[u32] {
        let Ok(at) = self.auth.binary_search_by_key(&num, |(num, _)| *num) else {
            return &[];
        };
        let start = |at: usize| self.auth.get(at).map(|(_, start)| *start);
        let end = start(at + 1).unwrap_or(self.auth_events.len());
        let start = start(at).unwrap_or(end);
        self.auth_events.get(start..end).unwrap_or_default()
    }

    /// Whether a number is that of an event with this id.
    fn is(&self, num: u32, event_id: &OwnedEventId) -> bool {
        self.get(num).id == id(event_id.as_str())
    }

    fn are(&self, nums: &[u32], ids: &[OwnedEventId]) -> bool {
        let mut pairs = nums.iter().zip(ids);
        nums.len() == ids.len() && pairs.all(|(num, id)| self.is(*num, id))
    }
}

impl Walk<'_> {
    /// The head's rows, and what events wait for a whole state: all roots but those before events.
    pub(super) async fn heads(&mut self, room: &Room) -> Result<Closure, ReadError> {
        let mut closure = Closure::default();
        let mut heads = room.pages::<Heads>();
        while let Some(page) = self.page(&mut heads).await? {
            for (_, row) in page {
                self.root(room, &mut closure, &row.value.root, "a head");
            }
        }
        let mut waiting = room.pages::<Provisionals>();
        while let Some(page) = self.page(&mut waiting).await? {
            for (key, row) in page {
                if room.head.mode != crate::tables::Mode::Partial {
                    self.say_of(room, Broken::Provisional, EventNum(key.num));
                }
                if !row.value.given.is_empty() {
                    self.root(room, &mut closure, &row.value.given, "a waiting event");
                }
            }
        }
        Ok(closure)
    }

    fn root(&mut self, room: &Room, closure: &mut Closure, root: &[u8], of: &str) {
        match AnyRoot::decode(root) {
            Ok(root) => closure.add(root),
            Err(_) => self.say(room, Broken::Root, of),
        }
    }

    /// State keys and their numbers lead to one another, and all that were given out are there.
    pub(super) async fn keys(&mut self, room: &mut Room) -> Result<(), ReadError> {
        let (mut members, mut others) = (0, 0);
        let mut names = room.pages::<StateKeys>();
        while let Some(page) = self.page(&mut names).await? {
            for (key, row) in page {
                let num = StateKeyNum(key.num);
                let is_member = row.value.event_type == "m.room.member";
                let (count, next) = if num.is_member() {
                    (&mut members, room.head.next_member)
                } else {
                    (&mut others, room.head.next_other)
                };
                *count += 1;
                let name = (row.value.event_type.as_str(), row.value.state_key.as_str());
                let before = room.events.keys.insert(hash(&name), num);
                if before.is_some() || num.index() >= next || num.is_member() != is_member {
                    self.say(room, Broken::StateKey, format_args!("key {:08x}", num.0));
                }
            }
        }
        let mut met = 0;
        let mut nums = room.pages::<KeyNums>();
        while let Some(page) = self.page(&mut nums).await? {
            for (key, row) in page {
                met += 1;
                let name = (key.event_type.as_str(), key.state_key.as_str());
                if room.events.keys.get(&hash(&name)) != Some(&StateKeyNum(row.value.0)) {
                    let at = format_args!("key {:08x} by name", row.value.0);
                    self.say(room, Broken::StateKey, at);
                }
            }
        }
        let given = (room.head.next_member, room.head.next_other);
        if met != members + others || (members, others) != given {
            self.say(room, Broken::StateKey, "one is missing");
        }
        Ok(())
    }

    /// Each id has a number of its own, and each number an id.
    pub(super) async fn ids(&mut self, room: &mut Room) -> Result<(), ReadError> {
        let mut ids = room.pages::<EventNums>();
        while let Some(page) = self.page(&mut ids).await? {
            for (key, row) in page {
                let num = row.value.0;
                let broken = match room.events.get_mut(num) {
                    None => Some(Broken::Number),
                    Some(kept) if kept.id != 0 => Some(Broken::NumberTwice),
                    Some(kept) => {
                        kept.id = id(&key.name);
                        None
                    }
                };
                if let Some(broken) = broken {
                    self.say_of(room, broken, EventNum(num));
                }
            }
        }
        Ok(())
    }

    /// Each number has a status, and what that calls for.
    pub(super) async fn events(
        &mut self,
        room: &mut Room,
        closure: &mut Closure,
    ) -> Result<(), ReadError> {
        let mut statuses = room.pages::<Statuses>();
        let mut from = Some(0);
        let mut redactions = Vec::new();
        while let Some(first) = from {
            let page = self.page(&mut statuses).await?.unwrap_or_default();
            let last = page.last().map(|(key, _)| key.num);
            let (headers, bodies) = futures_util::try_join!(
                self.span::<Headers>(room.key, first, last),
                self.span::<Bodies>(room.key, first, last),
            )?;
            self.to.walked(headers.len() + bodies.len());
            let mut headers: BTreeMap<u32, Header> = headers.into_iter().collect();
            let mut bodies: BTreeMap<u32, Body> = bodies.into_iter().collect();
            for (key, row) in page {
                let num = key.num;
                if let Some(by) = row.value.redacted_by {
                    redactions.push((num, by));
                }
                if !row.value.root_before.is_empty() {
                    let of = format!("event {num}");
                    self.root(room, closure, &row.value.root_before, &of);
                }
                let (header, body) = (headers.remove(&num), bodies.remove(&num));
                for broken in event(room, num, &row.value, header, body) {
                    self.say_of(room, broken, EventNum(num));
                }
            }
            for num in headers.into_keys().chain(bodies.into_keys()) {
                self.say_of(room, Broken::Unnumbered, EventNum(num));
            }
            from = last.and_then(|last| last.checked_add(1));
        }
        for num in 0..room.events.next {
            let kept = room.events.get(num);
            if kept.id == 0 || kept.verdict.is_none() {
                self.say_of(room, Broken::Unnumbered, EventNum(num));
                if num as usize >= room.events.list.len() {
                    break;
                }
            }
        }
        for some in redactions.chunks(1_000) {
            let by: Vec<RoomNum> = some.iter().map(|(_, by)| room.num(*by)).collect();
            let headers = self.reader.get_many::<Headers>(&by).await?;
            for ((num, _), header) in some.iter().zip(headers) {
                if header.and_then(|row| row.value.redacts) != Some(*num) {
                    self.say_of(room, Broken::RedactedBy, EventNum(*num));
                }
            }
        }
        self.waiting(room).await
    }

    /// What is noted of events that aren't here yet.
    async fn waiting(&mut self, room: &Room) -> Result<(), ReadError> {
        let mut early = room.pages::<EarlyRedactions>();
        while let Some(page) = self.page(&mut early).await? {
            let by: Vec<RoomNum> = page.iter().map(|(key, _)| room.num(key.other)).collect();
            let headers = self.reader.get_many::<Headers>(&by).await?;
            for ((key, _), header) in page.iter().zip(headers) {
                let names = header.and_then(|row| row.value.redacts) == Some(key.num);
                if !names || room.events.get(key.num).verdict != Some(Verdict::Named) {
                    self.say_of(room, Broken::EarlyRedaction, EventNum(key.num));
                }
            }
        }
        let mut followed = room.pages::<Followed>();
        while let Some(page) = self.page(&mut followed).await? {
            for (key, _) in page {
                if room.events.get(key.num).verdict.is_none() {
                    self.say_of(room, Broken::Number, EventNum(key.num));
                }
            }
        }
        Ok(())
    }

    /// A table's rows by number, from the first up to the last, or to the end.
    async fn span<T: Table<Key = RoomNum>>(
        &self,
        room: RoomKey,
        first: u32,
        last: Option<u32>,
    ) -> Result<Vec<(u32, T::Value)>, ReadError> {
        let range = Range::of(Home::Room(room), |key| {
            key.room(room);
        })
        .from(|key| {
            key.u32(first);
        });
        let range = match last.map(|last| last.checked_add(1)) {
            Some(Some(end)) => range.until(|key| {
                key.u32(end);
            }),
            Some(None) => range,
            // Nothing is to be there.
            None => range.limit(100),
        };
        let rows = self.reader.scan::<T>(range).await?;
        Ok(rows
            .into_iter()
            .map(|(key, row)| (key.num, row.value))
            .collect())
    }
}

/// Takes up an event; what of it is broken.
fn event(
    room: &mut Room,
    num: u32,
    status: &Status,
    header: Option<Header>,
    body: Option<Body>,
) -> Vec<Broken> {
    let last = room.head.seq;
    let Some(kept) = room.events.get_mut(num) else {
        return vec![Broken::Number];
    };
    kept.verdict = Some(status.verdict);
    kept.place = status.place.map_or(0, place);
    kept.in_graph = !status.root_before.is_empty();
    kept.redacted = status.redacted_by.is_some();
    let mut broken = Vec::new();
    if !is_allowed(status, last) {
        broken.push(Broken::Status);
    }
    if status.verdict == Verdict::Named {
        if header.is_some() || body.is_some() {
            broken.push(Broken::NamedOnly);
        }
        return broken;
    }
    let (Some(header), Some(body)) = (&header, &body) else {
        let missing = [
            (header.is_none(), Broken::NoHeader),
            (body.is_none(), Broken::NoBody),
        ];
        broken.extend(missing.iter().filter(|(is, _)| *is).map(|(_, what)| *what));
        return broken;
    };
    room.events.ids.add(&header.event_id);
    let reduced = body.generation == Generation::Redacted;
    if reduced != status.redacted_by.is_some() {
        broken.push(Broken::Generation);
    }
    let read = WellFormed::parse(room.info.version, body.json.as_bytes(), Limits::Past);
    let Ok(read) = read else {
        broken.push(Broken::Body);
        return broken;
    };
    let event = read.event();
    let is_it = event.event_id().as_str() == header.event_id;
    if !is_it || event.room_id().as_str() != room.info.room_id {
        broken.push(Broken::Body);
    }
    let says_the_same = header.event_type == event.event_type()
        && header.state_key.as_deref() == event.state_key()
        && header.sender == event.sender().as_str()
        && (header.depth, header.ts) == (event.depth(), event.origin_server_ts());
    if !says_the_same || room.events.get(num).id != id(&header.event_id) {
        broken.push(Broken::Header);
    }
    let names_target = match (event.redacts(), header.redacts) {
        (Some(target), Some(num)) => room.events.is(num, &target.to_owned()),
        (Some(_), None) => false,
        // What was taken of a redaction may have been its target.
        (None, _) => true,
    };
    let events = &room.events;
    let follows = events.are(&header.prev, event.prev_events());
    if !(names_target && follows && events.are(&header.auth, event.auth_events())) {
        broken.push(Broken::Links);
    }
    take_up(room, num, status, header, event, &mut broken);
    broken
}

/// Keeps of an event what its rows in other tables will be held against.
fn take_up(
    room: &mut Room,
    num: u32,
    status: &Status,
    header: &Header,
    event: &Event,
    broken: &mut Vec<Broken>,
) {
    let events = &mut room.events;
    if let Some(state_key) = &header.state_key {
        let name = (header.event_type.as_str(), state_key.as_str());
        let key = events.keys.get(&hash(&name)).copied();
        if key.is_none() && status.verdict != Verdict::Rejected {
            broken.push(Broken::NoStateKey);
        }
        events.auth.push((num, events.auth_events.len()));
        events.auth_events.extend(&header.auth);
        let membership = (header.event_type == "m.room.member").then(|| {
            let content = MemberContent::read(event.content().get());
            content.membership.unwrap_or_default()
        });
        if let Some(kept) = events.get_mut(num) {
            kept.key = key;
            kept.membership = membership;
        }
    }
    if status.place.is_none() || status.redacted_by.is_some() {
        return;
    }
    if let Some((rel_type, target, key)) = relates_to(event) {
        let kind = (
            rel_type.as_str(),
            event.event_type(),
            event.sender().as_str(),
        );
        let how = relation(id(&target), kind, key.as_deref());
        let met = false;
        events.relating.push(Relating { num, how, met });
    }
}

/// Whether a status says only what its verdict allows; `last` is the room's last sequence number.
fn is_allowed(status: &Status, last: i64) -> bool {
    let (in_graph, placed) = (!status.root_before.is_empty(), status.place.is_some());
    let fits = match status.verdict {
        Verdict::Named => {
            !in_graph && !placed && status.sent.is_none() && status.redacted_by.is_none()
        }
        Verdict::Outlier => !in_graph && !placed,
        // It keeps the place that it had when it turned out to be forbidden.
        Verdict::Rejected => in_graph || !placed,
        Verdict::SoftFailed => in_graph && !placed,
        Verdict::Accepted => in_graph && placed,
    };
    let in_order = |(seq, sub): (i64, i64)| (1..=last).contains(&seq) && sub <= 0;
    fits && status.place.is_none_or(in_order)
}
