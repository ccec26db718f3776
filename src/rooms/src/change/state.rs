//! The room's current state, as the operations on rooms ask for it.

use std::sync::Arc;

use comity_protocol::{
    auth::{AuthFact, Create, LevelField, Membership, PowerLevels, PowerLevelsContent},
    event::Event,
    id::{OwnedUserId, UserId},
};

use super::{Change, Placed};
use crate::{
    error::RoomError,
    event::read_id,
    num::{EventNum, StateKeyNum},
    rooms::Rooms,
    state::Half,
    tables::{self, RoomNum},
};

/// Members looked at in one round trip.
const PAGE: usize = 64;

/// Who may do what in the room, as it stands.
pub(crate) struct Powers {
    create: Option<Arc<Create>>,
    content: Option<Arc<PowerLevelsContent>>,
}

impl Powers {
    pub fn levels(&self) -> PowerLevels<'_> {
        PowerLevels::new(self.create.as_deref(), self.content.as_deref())
    }

    /// Whether a user's power suffices for a state event of this type.
    pub fn may_set(&self, user: &UserId, event_type: &str) -> bool {
        let levels = self.levels();
        levels
            .user(user.as_str())
            .reaches(levels.to_send(event_type, true))
    }

    pub fn may_invite(&self, user: &str) -> bool {
        let levels = self.levels();
        levels.user(user).reaches(levels.field(LevelField::Invite))
    }

    /// Those above all levels, from version 12.
    pub fn creators(&self) -> Vec<String> {
        let creators = self.create.iter();
        creators
            .flat_map(|create| create.privileged.iter().cloned())
            .collect()
    }

    /// The content of the power levels, if there are any.
    pub fn content(&self) -> Option<&PowerLevelsContent> {
        self.content.as_deref()
    }

    /// `notifications` of the power levels.
    pub fn notifications(&self) -> impl Iterator<Item = (&String, &i64)> {
        let content = self.content.iter();
        content.flat_map(|content| content.notifications.iter())
    }

    /// Users whom the room's state gives a power of their own.
    fn named(&self) -> Vec<String> {
        let creators = self
            .create
            .iter()
            .flat_map(|create| create.privileged.iter());
        let listed = self.content.iter().flat_map(|content| content.users.keys());
        creators.chain(listed).cloned().collect()
    }
}

impl Change {
    pub(crate) fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    /// The power levels and creators.
    pub(crate) async fn powers(&mut self) -> Result<Powers, RoomError> {
        let create = self.fact("m.room.create", "").await?;
        let levels = self.fact("m.room.power_levels", "").await?;
        let create = create.and_then(|fact| match fact.fact {
            AuthFact::Create(_, create) => Some(create),
            _ => None,
        });
        let content = levels.and_then(|fact| match fact.fact {
            AuthFact::PowerLevels(content) => Some(content),
            _ => None,
        });
        Ok(Powers { create, content })
    }

    /// The event under a key of the state before this change.
    pub(crate) async fn state_event(
        &mut self,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Event>, RoomError> {
        let key = self.key(event_type, state_key).await?;
        match self
            .lookup(self.live()?.root, &[key])
            .await?
            .pop()
            .flatten()
        {
            Some(num) => self.event(num).await.map(Some),
            None => Ok(None),
        }
    }

    /// The event under a key of the current state, as its rows have it: none for one that this change
    /// has placed.
    pub(super) async fn current(
        &mut self,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<(EventNum, tables::Header, tables::Status)>, RoomError> {
        let key = self.key(event_type, state_key).await?;
        let Some(num) = self
            .lookup(self.live()?.root, &[key])
            .await?
            .pop()
            .flatten()
        else {
            return Ok(None);
        };
        let live = self.live()?;
        let at = RoomNum {
            room: live.room,
            num: num.0,
        };
        let reader = live.reader();
        let (header, status) = futures_util::try_join!(
            reader.get::<tables::Headers>(&at),
            reader.get::<tables::Statuses>(&at)
        )?;
        let (Some(header), Some(status)) = (header, status) else {
            return Ok(None);
        };
        Ok(Some((num, header.value, status.value)))
    }

    /// Where the event under a key of the state before this change stands.
    pub(crate) async fn standing(
        &mut self,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<Placed>, RoomError> {
        let Some((_, header, status)) = self.current(event_type, state_key).await? else {
            return Ok(None);
        };
        let event_id = read_id(&header.event_id)?;
        Ok(status.place.map(|(seq, _)| Placed { event_id, seq }))
    }

    /// A joined user of this server who may invite, if there is one: those with a power of their
    /// own first, then, where everybody may invite, whoever comes first.
    pub(crate) async fn local_inviter(&mut self) -> Result<Option<OwnedUserId>, RoomError> {
        let powers = self.powers().await?;
        for user in powers.named() {
            if powers.may_invite(&user)
                && let Some(user) = self.local_joined(&user).await?
            {
                return Ok(Some(user));
            }
        }
        let mut from = StateKeyNum::member(0);
        loop {
            let live = self.live()?;
            let (room, reader) = (live.room, live.reader());
            let trie = self.rooms.trie(room, reader.clone(), live.pending.clone());
            let page = trie
                .entries(live.root, Some(Half::Members), from)
                .next_page(PAGE)
                .await?;
            let Some((last, _)) = page.last() else {
                return Ok(None);
            };
            from = StateKeyNum::member(last.index() + 1);
            let nums: Vec<RoomNum> = page
                .iter()
                .map(|(key, _)| RoomNum { room, num: key.0 })
                .collect();
            for row in reader.get_many::<tables::StateKeys>(&nums).await? {
                let Some(user) = row.map(|row| row.value.state_key) else {
                    continue;
                };
                if powers.may_invite(&user)
                    && let Some(user) = self.local_joined(&user).await?
                {
                    return Ok(Some(user));
                }
            }
        }
    }

    async fn local_joined(&mut self, user: &str) -> Result<Option<OwnedUserId>, RoomError> {
        let Ok(user) = OwnedUserId::try_from(user) else {
            return Ok(None);
        };
        if !self.rooms.is_local(&user) {
            return Ok(None);
        }
        let joined = self.membership(&user).await? == Membership::Join;
        Ok(joined.then_some(user))
    }
}

impl Rooms {
    /// Whether a user is of this server.
    pub(crate) fn is_local(&self, user: &UserId) -> bool {
        user.server_name() == self.server_name()
    }
}
