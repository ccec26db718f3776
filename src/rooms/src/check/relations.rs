//! Relations by target and scope, threads, and what redactions count off.

use std::collections::BTreeMap;

use comity_storage::ReadError;

use super::{
    Broken, Room, Walk,
    events::{place, relation},
};
use crate::{
    num::EventNum,
    tables::{
        Discounts, Related, Relation, Relations, RoomPlace, RoomRelated, RoomRelation, Scope,
        ThreadOrder, Threads, Timeline,
    },
};

/// The scopes in which a relation is asked for from its target.
fn scopes(relation: &Relation) -> Vec<u64> {
    let mut scopes = vec![Scope::Type(&relation.rel_type).hash()];
    if matches!(relation.rel_type.as_str(), "m.replace" | "m.annotation") {
        let key = relation.key.as_deref();
        let like = Scope::Like {
            rel_type: &relation.rel_type,
            event_type: &relation.event_type,
            sender: &relation.sender,
            key: key.filter(|_| relation.rel_type == "m.annotation"),
        };
        scopes.push(like.hash());
    }
    scopes
}

impl Walk<'_> {
    pub(super) async fn relations(&mut self, room: &mut Room) -> Result<(), ReadError> {
        let mut relations = room.pages::<Relations>();
        while let Some(page) = self.page(&mut relations).await? {
            let rows: Vec<(RoomRelation, Relation)> = page
                .into_iter()
                .map(|(key, row)| (key, row.value))
                .collect();
            self.relating(room, &rows).await?;
        }
        let unmet = room.events.relating.iter().filter(|one| !one.met);
        let unmet: Vec<u32> = unmet.map(|one| one.num).collect();
        for num in unmet {
            self.say_of(room, Broken::Unrelated, EventNum(num));
        }
        let threads = self.scopes(room).await?;
        self.threads(room, threads).await?;
        self.discounts(room).await
    }

    /// Each relation's row names an event that relates so, and is found in its scopes.
    async fn relating(
        &mut self,
        room: &mut Room,
        rows: &[(RoomRelation, Relation)],
    ) -> Result<(), ReadError> {
        let mut asked = Vec::new();
        for (key, row) in rows {
            let kind = (
                row.rel_type.as_str(),
                row.event_type.as_str(),
                row.sender.as_str(),
            );
            let how = relation(room.events.get(key.target).id, kind, row.key.as_deref());
            let is_there = room.events.get(row.num).place == place((key.seq, key.sub));
            let relating = &mut room.events.relating;
            let at = relating.binary_search_by_key(&row.num, |one| one.num).ok();
            let one = at.and_then(|at| relating.get_mut(at));
            match one.filter(|one| one.how == how && !one.met && is_there) {
                Some(one) => one.met = true,
                None => self.say_of(room, Broken::Relation, EventNum(row.num)),
            }
            for scope in scopes(row) {
                let related = RoomRelated {
                    room: key.room,
                    target: key.target,
                    scope,
                    seq: key.seq,
                    sub: key.sub,
                };
                asked.push((row.num, related));
            }
        }
        let keys: Vec<RoomRelated> = asked.iter().map(|(_, key)| key.clone()).collect();
        let found = self.reader.get_many::<Related>(&keys).await?;
        for ((num, _), row) in asked.iter().zip(found) {
            if row.map(|row| row.value.0) != Some(*num) {
                self.say_of(room, Broken::NotRelated, EventNum(*num));
            }
        }
        Ok(())
    }

    /// Whoever is found in a scope is part of it. How many relations make up each thread.
    async fn scopes(&mut self, room: &Room) -> Result<BTreeMap<u32, u32>, ReadError> {
        let (in_thread, below) = (Scope::Thread.hash(), Scope::Below.hash());
        let of_threads = Scope::Type("m.thread").hash();
        let mut threads: BTreeMap<u32, u32> = BTreeMap::new();
        let mut threaded = 0;
        let mut related = room.pages::<Related>();
        while let Some(page) = self.page(&mut related).await? {
            let mut relations = Vec::new();
            let mut entries = Vec::new();
            for (key, row) in page {
                let (seq, sub, num) = (key.seq, key.sub, row.value.0);
                if room.events.get(num).place != place((seq, sub)) {
                    self.say_of(room, Broken::Related, EventNum(num));
                }
                if key.scope == in_thread {
                    threaded += 1;
                    let at = RoomPlace {
                        room: key.room,
                        seq,
                        sub,
                    };
                    entries.push((key.target, num, at));
                } else if key.scope != below {
                    if key.scope == of_threads {
                        *threads.entry(key.target).or_default() += 1;
                    }
                    let relation = RoomRelation {
                        room: key.room,
                        target: key.target,
                        seq,
                        sub,
                    };
                    relations.push((key.scope, num, relation));
                }
            }
            let keys: Vec<RoomRelation> = relations.iter().map(|(.., key)| key.clone()).collect();
            let found = self.reader.get_many::<Relations>(&keys).await?;
            for ((scope, num, _), row) in relations.iter().zip(found) {
                let is_part = |row: &Relation| row.num == *num && scopes(row).contains(scope);
                if !row.is_some_and(|row| is_part(&row.value)) {
                    self.say_of(room, Broken::Related, EventNum(*num));
                }
            }
            let keys: Vec<RoomPlace> = entries.iter().map(|(.., key)| key.clone()).collect();
            let found = self.reader.get_many::<Timeline>(&keys).await?;
            for ((root, num, _), row) in entries.iter().zip(found) {
                if row.and_then(|row| row.value.thread) != Some(*root) {
                    self.say_of(room, Broken::InThread, EventNum(*num));
                }
            }
        }
        if threaded != room.events.threaded {
            let at = format_args!("{threaded} of {}", room.events.threaded);
            self.say(room, Broken::InThread, at);
        }
        Ok(threads)
    }

    /// Threads count what relates to their roots, and are in order of their last live events.
    async fn threads(
        &mut self,
        room: &Room,
        mut counted: BTreeMap<u32, u32>,
    ) -> Result<(), ReadError> {
        let mut places: BTreeMap<u32, i64> = BTreeMap::new();
        let mut order = room.pages::<ThreadOrder>();
        while let Some(page) = self.page(&mut order).await? {
            for (key, row) in page {
                if places.insert(row.value.0, key.seq).is_some() {
                    self.say_of(room, Broken::Thread, EventNum(row.value.0));
                }
            }
        }
        let mut threads = room.pages::<Threads>();
        while let Some(page) = self.page(&mut threads).await? {
            for (key, row) in page {
                let thread = row.value;
                let count = counted.remove(&key.num).unwrap_or_default();
                let live =
                    (thread.count > 0 && thread.latest_seq != 0).then_some(thread.latest_seq);
                let latest = room.events.get(thread.latest);
                let fits = thread.count == count
                    && places.remove(&key.num) == live
                    && live.is_none_or(|seq| latest.place == place((seq, 0)))
                    && room.events.get(key.num).verdict.is_some();
                if !fits {
                    self.say_of(room, Broken::Thread, EventNum(key.num));
                }
            }
        }
        for num in counted.into_keys().chain(places.into_keys()) {
            self.say_of(room, Broken::Thread, EventNum(num));
        }
        Ok(())
    }

    /// What is counted off was redacted.
    async fn discounts(&mut self, room: &Room) -> Result<(), ReadError> {
        let mut discounts = room.pages::<Discounts>();
        while let Some(page) = self.page(&mut discounts).await? {
            let places: Vec<RoomPlace> = page
                .iter()
                .map(|(key, _)| RoomPlace {
                    room: key.room,
                    seq: key.seq,
                    sub: 0,
                })
                .collect();
            let entries = self.reader.get_many::<Timeline>(&places).await?;
            for (place, entry) in places.iter().zip(entries) {
                let redacted = |num| room.events.get(num).redacted;
                if !entry.is_some_and(|entry| redacted(entry.value.num)) {
                    self.say(room, Broken::Discount, format_args!("seq {}", place.seq));
                }
            }
        }
        Ok(())
    }
}
