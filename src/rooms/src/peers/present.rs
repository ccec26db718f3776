//! Which servers are in a room, at any point of its graph.
//!
//! The answer follows from the members' half of a state. For the current one it is kept in memory,
//! and told anew from where two states differ: a join costs one member, whatever the room's size, and
//! the state at an older event costs what has changed since. Of a room whose members haven't come, the
//! servers are those that the one who let us in named, and those seen since.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use comity_protocol::{
    auth::{MemberContent, Membership},
    id::{OwnedServerName, ServerName, UserId},
};
use comity_storage::RoomKey;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    error::RoomError,
    live::read_root,
    num::EventNum,
    rooms::Rooms,
    state::{AnyRoot, Root},
    tables::{Bodies, RoomNum},
    view::{Found, RoomView},
};

/// Rooms of which it is kept.
const ROOMS: usize = 1_000;
/// Members read in one round trip.
const PAGE: usize = 512;

/// How many users of a server are in a room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub joined: u32,
    pub invited: u32,
}

impl Tally {
    /// With one user of that membership more, or less.
    pub fn count(&mut self, membership: Membership, more: bool) {
        let counter = match membership {
            Membership::Join => &mut self.joined,
            Membership::Invite => &mut self.invited,
            _ => return,
        };
        *counter = if more {
            counter.saturating_add(1)
        } else {
            counter.saturating_sub(1)
        };
    }
}

/// The servers in a room by some state.
#[derive(Debug, Clone)]
pub(crate) struct Census {
    /// The members' half of that state, as far as it is known.
    root: Root,
    servers: Arc<BTreeMap<OwnedServerName, Tally>>,
}

impl Census {
    pub fn of(&self, server: &ServerName) -> Tally {
        self.servers.get(server).copied().unwrap_or_default()
    }

    pub fn joined(&self) -> impl Iterator<Item = &OwnedServerName> {
        let joined = self.servers.iter().filter(|(_, tally)| tally.joined > 0);
        joined.map(|(server, _)| server)
    }
}

/// The servers in each room's current state.
#[derive(Default)]
pub(crate) struct Present(Mutex<BTreeMap<RoomKey, Census>>);

impl Rooms {
    fn census_of(&self, room: RoomKey) -> Census {
        let kept = self.0.present.0.lock().get(&room).cloned();
        kept.unwrap_or_else(|| Census {
            root: Root::EMPTY,
            servers: Arc::default(),
        })
    }

    fn keep_census(&self, room: RoomKey, census: &Census) {
        let mut kept = self.0.present.0.lock();
        if kept.len() >= ROOMS && !kept.contains_key(&room) {
            kept.clear();
        }
        kept.insert(room, census.clone());
    }
}

impl RoomView {
    /// The servers with joined users, in the order of their names.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn servers(&self) -> Result<Vec<OwnedServerName>, RoomError> {
        let census = self.census().await?;
        let servers: BTreeSet<&OwnedServerName> = census.joined().chain(self.hinted()).collect();
        Ok(servers.into_iter().cloned().collect())
    }

    /// [`Self::servers`] without ours.
    pub(crate) async fn other_servers(&self) -> Result<Vec<OwnedServerName>, RoomError> {
        let mut servers = self.servers().await?;
        servers.retain(|server| server != self.rooms().server_name());
        Ok(servers)
    }

    /// Whether a server has joined users here.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn has_server(&self, server: &ServerName) -> Result<bool, RoomError> {
        let hinted = self.hinted().iter().any(|hinted| hinted == server);
        Ok(hinted || self.census().await?.of(server).joined > 0)
    }

    /// The servers that were in the room before or after an event: those who are to hear of it.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn servers_around(
        &self,
        found: &Found,
    ) -> Result<BTreeSet<OwnedServerName>, RoomError> {
        let after = self.root_after(found).await?;
        let mut census = self.census_at(self.census().await?, after).await?;
        let mut servers: BTreeSet<OwnedServerName> = census.joined().cloned().collect();
        if found.event.event_type() == "m.room.member" {
            let before = read_root(&found.status.root_before)?;
            census = self.census_at(census, before).await?;
            servers.extend(census.joined().cloned());
        }
        servers.extend(self.hinted().iter().cloned());
        Ok(servers)
    }

    /// The servers in the room at this position.
    pub(super) async fn census(&self) -> Result<Census, RoomError> {
        let kept = self.rooms().census_of(self.key());
        if kept.root == self.root().known_members() {
            return Ok(kept);
        }
        let census = self.census_at(kept, self.root()).await?;
        self.rooms().keep_census(self.key(), &census);
        Ok(census)
    }

    /// The servers in the room by some state, told from those by another.
    pub(super) async fn census_at(&self, from: Census, root: AnyRoot) -> Result<Census, RoomError> {
        let root = root.known_members();
        if from.root == root {
            return Ok(from);
        }
        let mut servers = BTreeMap::clone(&from.servers);
        let mut diff = self.trie().diff(from.root, root);
        loop {
            let page = diff.next_page(PAGE).await?;
            if page.is_empty() {
                break;
            }
            let gone = page.iter().filter_map(|change| change.old.present());
            let come = page.iter().filter_map(|change| change.new.present());
            let changes: Vec<(EventNum, bool)> = gone
                .map(|num| (num, false))
                .chain(come.map(|num| (num, true)))
                .collect();
            let members = self.members_of(&changes).await?;
            for ((_, more), (server, membership)) in changes.iter().zip(members) {
                let tally: &mut Tally = servers.entry(server).or_default();
                tally.count(membership, *more);
            }
        }
        servers.retain(|_, tally| *tally != Tally::default());
        Ok(Census {
            root,
            servers: Arc::new(servers),
        })
    }

    /// What member events say, and of whose users.
    async fn members_of(
        &self,
        events: &[(EventNum, bool)],
    ) -> Result<Vec<(OwnedServerName, Membership)>, RoomError> {
        #[derive(Deserialize)]
        struct Member<'a> {
            state_key: String,
            #[serde(borrow)]
            content: &'a RawValue,
        }
        let damaged = || RoomError::Damaged("a member event of the state can't be read".into());
        let keys: Vec<RoomNum> = events
            .iter()
            .map(|(num, _)| RoomNum {
                room: self.key(),
                num: num.0,
            })
            .collect();
        let bodies = self.reader().get_many::<Bodies>(&keys).await?;
        bodies
            .into_iter()
            .map(|body| {
                let body = body.ok_or_else(damaged)?.value;
                let member: Member<'_> = serde_json::from_str(&body.json).map_err(|_| damaged())?;
                let user = <&UserId>::try_from(member.state_key.as_str()).map_err(|_| damaged())?;
                let content = MemberContent::read(member.content.get());
                Ok((
                    user.server_name().to_owned(),
                    content.membership.unwrap_or_default(),
                ))
            })
            .collect()
    }
}
