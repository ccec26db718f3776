//! Which rooms the spaces have by which lists are filtered, kept in memory with the state that said so: what doesn't change is read once,
//! whoever asks.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#mspacechild-relationship>

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use comity_protocol::{auth::Membership, id::RoomId};
use comity_rooms::{
    Found, RoomError, RoomView,
    state::{Half, Root},
};
use comity_storage::{Reader, RoomKey};
use parking_lot::Mutex;

use super::SlidingRequest;
use crate::{Sync, SyncError};

/// Rooms in spaces that are kept, and spaces; beyond, all are forgotten and read again.
const KEPT: usize = 200_000;

/// See the module.
#[derive(Default)]
pub(crate) struct Spaces(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    spaces: HashMap<RoomKey, (Root, Arc<BTreeSet<String>>)>,
    size: usize,
}

impl Spaces {
    fn get(&self, space: RoomKey, root: Root) -> Option<Arc<BTreeSet<String>>> {
        let kept = self.0.lock();
        let (at, children) = kept.spaces.get(&space)?;
        (*at == root).then(|| children.clone())
    }

    fn put(&self, space: RoomKey, root: Root, children: Arc<BTreeSet<String>>) {
        let mut kept = self.0.lock();
        if kept.size > KEPT {
            *kept = Kept::default();
        }
        kept.size += children.len() + 1;
        if let Some((_, before)) = kept.spaces.insert(space, (root, children)) {
            kept.size = kept.size.saturating_sub(before.len() + 1);
        }
    }
}

impl Sync {
    /// The rooms in the spaces that lists name, by space; of those alone that the user is in.
    pub(super) async fn spaces(
        &self,
        request: &SlidingRequest,
        reader: &Reader,
    ) -> Result<BTreeMap<String, Arc<BTreeSet<String>>>, SyncError> {
        let lists = request.lists.values();
        let named = lists.filter_map(|list| list.filters.spaces.as_ref());
        let named: BTreeSet<&RoomId> = named.flatten().map(|space| &**space).collect();
        let mut spaces = BTreeMap::new();
        for space in named {
            let view = match self.0.rooms.view_at(reader, space).await {
                Err(RoomError::UnknownRoom) => continue,
                view => view?,
            };
            if view.membership(&request.user).await? == Membership::Join {
                spaces.insert(space.to_string(), self.children(&view).await?);
            }
        }
        Ok(spaces)
    }

    async fn children(&self, view: &RoomView) -> Result<Arc<BTreeSet<String>>, SyncError> {
        // Who comes and goes doesn't matter.
        let root = view.root().known_rest();
        if let Some(children) = self.0.spaces.get(view.key(), root) {
            return Ok(children);
        }
        let state = view.all_state(Some(Half::Rest)).await?;
        let child = |found: &Found| {
            let is_child = found.event.event_type() == "m.space.child"
                && found.event.content_member("via").is_some();
            let room = found.event.state_key().filter(|_| is_child)?;
            Some(room.to_owned())
        };
        let children: Arc<BTreeSet<String>> = Arc::new(state.iter().filter_map(child).collect());
        self.0.spaces.put(view.key(), root, children.clone());
        Ok(children)
    }
}
