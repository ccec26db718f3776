//! Rooms drawn by hand: events under names, numbered in any order.

use comity_protocol::room_version::RoomVersion;
use rand::RngExt;
use rand::seq::SliceRandom;
use serde_json::Value;

use crate::event::{Num, TestEvent};
use crate::world::{Draft, State, World};

/// An event: its name, type, state key, sender, content, and the names of its `auth_events`. Of a
/// later line the clock is later.
pub type Line = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    Value,
    Vec<&'static str>,
);

pub struct Drawn {
    pub world: World,
    names: Vec<&'static str>,
}

impl Drawn {
    /// The room of some lines, numbered in a random order, as are the `auth_events` of each.
    ///
    /// The create event is `create`; lines name it where the version wants it among `auth_events`.
    pub fn new(version: RoomVersion, lines: &[Line], dice: &mut impl RngExt) -> Self {
        let mut order: Vec<usize> = (0..lines.len()).collect();
        order.shuffle(dice);
        let names: Vec<_> = order.iter().map(|line| lines[*line].0).collect();
        let mut drawn = Self {
            world: World::new(version),
            names,
        };
        let numbered: Vec<TestEvent> = order
            .iter()
            .map(|line| drawn.event(lines, *line, dice))
            .collect();
        for event in numbered {
            drawn.world.add(event);
        }
        drawn
    }

    fn event(&self, lines: &[Line], line: usize, dice: &mut impl RngExt) -> TestEvent {
        let (name, event_type, state_key, sender, content, auth) = lines[line].clone();
        let mut auth: Vec<_> = auth
            .into_iter()
            .filter(|name| *name != "create" || !self.world.rules().room_id_is_create_hash)
            .collect();
        auth.shuffle(dice);
        let mut event = self.world.make(Draft {
            event_id: Self::id(name),
            event_type,
            state_key: Some(state_key),
            sender,
            content,
            ts: i64::try_from(line).unwrap(),
            prev: Vec::new(),
            auth: Vec::new(),
        });
        event.num = self.num(name);
        event.depth = u64::try_from(line).unwrap() + 1;
        event.room_id = format!("!{:0>43}", "create").try_into().unwrap();
        event.auth = auth.iter().map(|name| self.num(name)).collect();
        event.auth_ids = auth
            .iter()
            .map(|name| Self::id(name).try_into().unwrap())
            .collect();
        event
    }

    fn id(name: &str) -> String {
        format!("${name:0>43}")
    }

    pub fn num(&self, name: &str) -> Num {
        let at = self.names.iter().position(|known| *known == name).unwrap();
        u32::try_from(at).unwrap()
    }

    /// The state of some events.
    pub fn state(&self, names: &[&str]) -> State {
        let event = |name: &&str| self.world.event(self.num(name));
        names
            .iter()
            .map(event)
            .map(|event| (event.key().unwrap(), event.num))
            .collect()
    }
}
