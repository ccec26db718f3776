//! Erasure: what an account wrote that was deactivated with `erase`.
//!
//! A row a room the user was ever in says at which place they were erased. Nothing of their events is
//! taken away; whoever had the chance to read one before keeps it, everybody else gets it in the form
//! that redaction would leave. The row is written once, so the place never moves.
//!
//! State events apart from memberships are the room's and stay as they are.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate>

use std::{borrow::Cow, collections::BTreeMap};

use comity_protocol::{
    auth::Membership,
    id::{RoomId, UserId},
};
use comity_storage::{Home, Range, Reader, RoomKey};

use crate::{
    error::RoomError,
    rooms::Rooms,
    state::AnyRoot,
    tables::{Erased, Erasures, RoomText},
    view::{Found, RoomView, Standing, membership_in},
};

impl Rooms {
    /// From here on the user's events in the room are shown to those alone who could see them before.
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`]; the store's.
    pub async fn erase(&self, user: &UserId, room_id: &RoomId) -> Result<(), RoomError> {
        let mut change = self.change(room_id).await?;
        let live = change.live()?;
        let (room, name) = (live.room, user.to_string());
        let key = RoomText { room, name };
        if live.reader().get::<Erasures>(&key).await?.is_some() {
            return Ok(());
        }
        let seq = live.head.seq;
        change.batch().put::<Erasures>(&key, &Erased { seq });
        change.commit().await?;
        Ok(())
    }
}

/// Where users were erased in a room.
pub(crate) async fn erased_in(
    reader: &Reader,
    room: RoomKey,
) -> Result<BTreeMap<String, i64>, RoomError> {
    let range = Range::of(Home::Room(room), |key| {
        key.room(room);
    });
    let rows = reader.scan::<Erasures>(range).await?;
    Ok(rows
        .into_iter()
        .map(|(key, row)| (key.name, row.value.seq))
        .collect())
}

impl RoomView {
    /// The events as a user may read them: redacted where their sender was erased before the user
    /// could see them.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn veiled<'a>(
        &self,
        found: Cow<'a, [Found]>,
        user: &UserId,
    ) -> Result<Cow<'a, [Found]>, RoomError> {
        if !found.iter().any(|one| self.erased_at(one).is_some()) {
            return Ok(found);
        }
        let standing = self.standing(user).await?;
        let mut there: BTreeMap<i64, bool> = BTreeMap::new();
        let mut veiled = found.into_owned();
        for one in &mut veiled {
            let Some(seq) = self.erased_at(one) else {
                continue;
            };
            let was_there = match there.get(&seq) {
                Some(known) => *known,
                None => self.was_there(user, standing, seq).await?,
            };
            there.insert(seq, was_there);
            if !was_there && !self.saw(user, one).await? {
                one.event = one.event.redact();
            }
        }
        Ok(veiled.into())
    }

    /// Where the sender of an event was erased, if the event is theirs rather than the room's.
    pub(crate) fn erased_at(&self, one: &Found) -> Option<i64> {
        let seq = *self.erased.get(one.event.sender().as_str())?;
        let own = one.event.state_key().is_none() || one.event.event_type() == "m.room.member";
        own.then_some(seq)
    }

    /// Whether the user was in the room at that place, or had left it for good before.
    async fn was_there(
        &self,
        user: &UserId,
        standing: Standing,
        seq: i64,
    ) -> Result<bool, RoomError> {
        if standing.joined_until.is_some_and(|until| until < seq) {
            return Ok(true);
        }
        match self.at(seq).await? {
            Some(last) => self.is_joined(user, self.root_after(&last).await?).await,
            None => Ok(false),
        }
    }

    /// Whether the user was in the room when the event came.
    async fn saw(&self, user: &UserId, one: &Found) -> Result<bool, RoomError> {
        match one.root_before()? {
            None => Ok(false),
            Some(before) => self.is_joined(user, before).await,
        }
    }

    async fn is_joined(&self, user: &UserId, root: AnyRoot) -> Result<bool, RoomError> {
        let member = self.state_in(root, "m.room.member", user.as_str()).await?;
        Ok(member.is_some_and(|member| membership_in(&member) == Membership::Join))
    }
}
