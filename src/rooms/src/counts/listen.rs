//! Whose rules are listened to in a room: those of its local members, kept with the room and told of
//! changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use comity_protocol::{
    auth::Membership,
    id::{OwnedUserId, UserId},
    push::{CompiledRules, EventFacts, Recipient, RoomRules, UserRules, Verdict},
};
use comity_storage::{Home, Range};

use super::{Tastes, rulesets::Rulesets};
use crate::{
    change::Change,
    error::RoomError,
    num::StateKeyNum,
    state::Half,
    tables::{InRoom, Place, RoomNum, RoomRulesets, RoomTurn, StateKeys, Turns},
};

/// For whom the default rules are compiled: an id that no rule and no event has.
const NOBODY: &str = "@:invalid";
/// Members looked at in one round trip.
const PAGE: usize = 256;

/// The rules of a room's local members, as they work in the room.
pub(crate) struct Listeners {
    seen: u64,
    common: RoomRules,
    rulesets: Rulesets,
    /// Joined members with tastes of their own.
    own: BTreeMap<String, Listener>,
}

struct Listener {
    rules: RoomRules,
    ignored: Arc<BTreeSet<OwnedUserId>>,
    /// Their verdict may differ from that of their ruleset whoever is named.
    apart: bool,
}

impl Listeners {
    /// Takes in a member's tastes; the place they turn to, if they do.
    fn put(&mut self, room_id: &str, user: &UserId, tastes: Option<Tastes>) -> Option<u8> {
        let place = match tastes {
            None => {
                self.own.remove(user.as_str());
                0
            }
            Some(tastes) => {
                let rules = tastes.rules.in_room(room_id);
                // Their own place may be free for what they turn to.
                let before = self.rulesets.place_of(user.as_str());
                self.rulesets.turn(user.as_str(), 0);
                let place = self.rulesets.find(rules.shared());
                self.rulesets.turn(user.as_str(), before);
                let watches = rules.watches_every_event() || !tastes.ignored.is_empty();
                let listener = Listener {
                    rules,
                    ignored: tastes.ignored,
                    apart: place.is_none() || watches,
                };
                self.own.insert(user.to_string(), listener);
                place.unwrap_or_default()
            }
        };
        let turned = self.rulesets.turn(user.as_str(), place);
        turned.then_some(place)
    }

    /// Whether a member is known to have tastes, or to have had.
    fn knows(&self, user: &str) -> bool {
        self.own.contains_key(user) || self.rulesets.place_of(user) != 0
    }

    /// The rulesets that the room counts by.
    pub fn rulesets(&self) -> &Rulesets {
        &self.rulesets
    }

    /// Members whose verdict may differ from that of their ruleset whoever is named.
    pub fn apart(&self) -> impl Iterator<Item = &str> {
        let apart = self.own.iter().filter(|(_, own)| own.apart);
        apart.map(|(user, _)| user.as_str())
    }

    /// What an event is to a member.
    pub fn verdict(&self, event: &EventFacts<'_>, user: &str) -> Verdict {
        let me = Recipient {
            user_id: user,
            display_name: None,
        };
        match self.own.get(user) {
            Some(own) if own.ignored.iter().any(|ignored| *ignored == event.sender) => {
                Verdict::default()
            }
            Some(own) => own.rules.verdict(event, &me),
            None => self.common.verdict(event, &me),
        }
    }
}

impl Change {
    /// Makes sure that the members' rules are at hand and no older than their last change.
    pub(crate) async fn listen(&mut self) -> Result<(), RoomError> {
        let source = self.rooms().push_rules().cloned();
        let seen = self.live()?.listeners.as_ref().map(|known| known.seen);
        let changed = match (&source, seen) {
            (Some(source), Some(seen)) => {
                let (now, changed) = source.changed_since(seen);
                if now == seen {
                    return Ok(());
                }
                changed.map(|changed| (now, changed))
            }
            (None, Some(_)) => return Ok(()),
            (_, None) => None,
        };
        let room_id = self.room_id()?.to_owned();
        let Some((now, changed)) = changed else {
            let seen = source
                .as_ref()
                .map_or(0, |source| source.changed_since(0).0);
            let common =
                CompiledRules::new(&UserRules::default(), NOBODY).in_room(room_id.as_str());
            let listeners = Listeners {
                seen,
                rulesets: self.rulesets(&common).await?,
                common,
                own: BTreeMap::new(),
            };
            self.live_mut()?.listeners = Some(listeners);
            if source.is_some() {
                let mut from = StateKeyNum::member(0);
                while let Some((next, users)) = self.local_users(from).await? {
                    from = next;
                    self.hear(&users).await?;
                }
            }
            return Ok(());
        };
        self.hear(&changed).await?;
        if let Some(listeners) = &mut self.live_mut()?.listeners {
            listeners.seen = now;
        }
        Ok(())
    }

    /// Takes in the rules of those of these users who are in the room.
    async fn hear(&mut self, users: &[OwnedUserId]) -> Result<(), RoomError> {
        let Some(source) = self.rooms().push_rules().cloned() else {
            return Ok(());
        };
        let room_id = self.room_id()?.to_owned();
        for (user, tastes) in users.iter().zip(source.tastes(users).await?) {
            let known = self
                .live()?
                .listeners
                .as_ref()
                .is_some_and(|listeners| listeners.knows(user.as_str()));
            if !known && tastes.is_none() {
                continue;
            }
            let joined = self.membership(user).await? == Membership::Join;
            let live = self.live_mut()?;
            let (room, seq) = (live.room, live.head.seq);
            let Some(listeners) = &mut live.listeners else {
                continue;
            };
            let before = listeners.rulesets.names();
            let turn = listeners.put(room_id.as_str(), user, tastes.filter(|_| joined));
            let names = listeners.rulesets.names();
            if names != before {
                self.batch().put::<RoomRulesets>(&InRoom { room }, &names);
            }
            if let Some(place) = turn {
                let user = user.to_string();
                self.batch()
                    .put::<Turns>(&RoomTurn { room, user, seq }, &Place(place));
            }
        }
        Ok(())
    }

    /// The rulesets that the room counts by, and who is at which: where their last turn led.
    async fn rulesets(&self, common: &RoomRules) -> Result<Rulesets, RoomError> {
        let live = self.live()?;
        let (room, reader) = (live.room, live.reader());
        let key = InRoom { room };
        let range = Range::of(Home::Room(room), |key| {
            key.room(room);
        });
        let (names, turns) = futures_util::try_join!(
            reader.get::<RoomRulesets>(&key),
            reader.scan::<Turns>(range)
        )?;
        let names = names.map_or_else(Default::default, |row| row.value);
        let mut places: BTreeMap<String, u8> = turns
            .into_iter()
            .map(|(turn, row)| (turn.user, row.value.0))
            .collect();
        places.retain(|_, place| *place != 0);
        Ok(Rulesets::new(common.shared().clone(), names, places))
    }

    /// A page of the users of this server of whose memberships the state speaks, and where the next
    /// begins.
    async fn local_users(
        &self,
        from: StateKeyNum,
    ) -> Result<Option<(StateKeyNum, Vec<OwnedUserId>)>, RoomError> {
        let live = self.live()?;
        let (room, reader) = (live.room, live.reader());
        let trie = self
            .rooms()
            .trie(room, reader.clone(), live.pending.clone());
        let mut entries = trie.entries(live.root, Some(Half::Members), from);
        let page = entries.next_page(PAGE).await?;
        let Some((last, _)) = page.last() else {
            return Ok(None);
        };
        let next = StateKeyNum::member(last.index() + 1);
        let keys: Vec<RoomNum> = page
            .iter()
            .map(|(key, _)| RoomNum { room, num: key.0 })
            .collect();
        let rows = reader.get_many::<StateKeys>(&keys).await?;
        let users = rows
            .into_iter()
            .flatten()
            .filter_map(|row| OwnedUserId::try_from(row.value.state_key).ok())
            .filter(|user| self.rooms().is_local(user))
            .collect();
        Ok(Some((next, users)))
    }

    /// A member came or went.
    pub(crate) async fn heard_of(&mut self, user: &str) -> Result<(), RoomError> {
        match OwnedUserId::try_from(user) {
            Ok(user) if self.rooms().is_local(&user) => self.hear(&[user]).await,
            _ => Ok(()),
        }
    }
}
