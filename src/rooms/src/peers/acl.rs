//! A room's access control list, read once a list.

use std::{collections::BTreeMap, sync::Arc};

use comity_protocol::{id::ServerName, server_acl::ServerAcl};
use comity_storage::RoomKey;
use parking_lot::Mutex;

use crate::{error::RoomError, num::EventNum, view::RoomView};

/// Rooms whose lists are kept.
const ROOMS: usize = 1_000;

/// The lists of rooms, by the event each was read from.
#[derive(Default)]
pub(crate) struct Acls(Mutex<BTreeMap<RoomKey, (EventNum, Arc<ServerAcl>)>>);

impl RoomView {
    /// Whether the room's access control list lets a server take part.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn lets_in(&self, server: &ServerName) -> Result<bool, RoomError> {
        let keys = self.state_keys(&[("m.room.server_acl", "")]).await?;
        let Some(num) = self.lookup(self.root(), &keys).await?.pop().flatten() else {
            return Ok(true);
        };
        let acls = &self.rooms().0.acls.0;
        let kept = acls.lock().get(&self.key()).cloned();
        if let Some((_, acl)) = kept.filter(|(from, _)| *from == num) {
            return Ok(acl.allows(server));
        }
        let Some(found) = self.load(&[num]).await?.pop() else {
            return Err(RoomError::Damaged(
                "an event of the state is missing".into(),
            ));
        };
        let acl = Arc::new(ServerAcl::read(found.event.content().get()));
        // A redacted list lets nobody in, so what was kept of it must not outlive it.
        if found.status.redacted_by.is_none() {
            let mut acls = acls.lock();
            if acls.len() >= ROOMS {
                acls.clear();
            }
            acls.insert(self.key(), (num, acl.clone()));
        }
        Ok(acl.allows(server))
    }
}
