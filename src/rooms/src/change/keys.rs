//! The numbers of state keys.

use super::Change;
use crate::{
    error::RoomError,
    num::StateKeyNum,
    tables::{self, KeyNum, RoomNum, RoomStateKey, StateKey},
};

impl Change {
    /// The number of a state key that the room has used.
    pub(crate) async fn key(
        &mut self,
        event_type: &str,
        state_key: &str,
    ) -> Result<Option<StateKeyNum>, RoomError> {
        let name = (event_type.to_owned(), state_key.to_owned());
        let live = self.live_mut()?;
        if let Some(num) = live.keys.get(&name) {
            return Ok(Some(*num));
        }
        let key = RoomStateKey::new(live.room, event_type, state_key);
        let Some(row) = live.reader().get::<tables::KeyNums>(&key).await? else {
            return Ok(None);
        };
        let num = StateKeyNum(row.value.0);
        self.live_mut()?.keys.insert(name, num);
        Ok(Some(num))
    }

    /// The number of a state key, given now if the room has not used it.
    pub(crate) async fn intern(
        &mut self,
        event_type: &str,
        state_key: &str,
    ) -> Result<StateKeyNum, RoomError> {
        if let Some(num) = self.key(event_type, state_key).await? {
            return Ok(num);
        }
        let live = self.live_mut()?;
        let next = if event_type == "m.room.member" {
            &mut live.head.next_member
        } else {
            &mut live.head.next_other
        };
        let index = *next;
        *next += 1;
        let num = if event_type == "m.room.member" {
            StateKeyNum::member(index)
        } else {
            StateKeyNum::other(index)
        };
        live.keys
            .insert((event_type.to_owned(), state_key.to_owned()), num);
        let room = live.room;
        let key = RoomStateKey::new(room, event_type, state_key);
        self.batch.put::<tables::KeyNums>(&key, &KeyNum(num.0));
        let name = StateKey {
            event_type: key.event_type,
            state_key: key.state_key,
        };
        let key = RoomNum { room, num: num.0 };
        self.batch.put::<tables::StateKeys>(&key, &name);
        Ok(num)
    }
}
