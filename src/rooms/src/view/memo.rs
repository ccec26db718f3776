//! What a view has read and will be asked again: the few events and state keys that everything about one
//! answer turns on, as the viewer's own membership. It is of one moment, as the view is.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use super::Found;
use crate::num::{EventNum, StateKeyNum};

/// More than this at once is a walk through the room, which doesn't come back.
const FEW: usize = 64;
/// Entries kept of each kind.
const KEPT: usize = 1_024;

/// See the module. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Memo(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    events: BTreeMap<EventNum, Found>,
    keys: BTreeMap<(String, String), Option<StateKeyNum>>,
}

impl Memo {
    /// Those of the events that are known.
    pub fn events(&self, nums: &[EventNum]) -> BTreeMap<EventNum, Found> {
        let inside = self.0.lock();
        let known = |num: &EventNum| Some((*num, inside.events.get(num)?.clone()));
        nums.iter().filter_map(known).collect()
    }

    pub fn keep_events(&self, found: &[Found]) {
        let mut inside = self.0.lock();
        if found.len() <= FEW && inside.events.len() < KEPT {
            let events = found.iter().map(|found| (found.num, found.clone()));
            inside.events.extend(events);
        }
    }

    /// Those of the state keys whose numbers are known, or known not to be.
    pub fn keys(&self, keys: &[(&str, &str)]) -> Vec<Option<Option<StateKeyNum>>> {
        let inside = self.0.lock();
        let known = |(event_type, state_key): &(&str, &str)| {
            let key = ((*event_type).to_owned(), (*state_key).to_owned());
            inside.keys.get(&key).copied()
        };
        keys.iter().map(known).collect()
    }

    pub fn keep_keys(&self, keys: Vec<((&str, &str), StateKeyNum)>) {
        if keys.len() <= FEW {
            for (key, num) in keys {
                self.keep_key(key, Some(num));
            }
        }
    }

    pub fn keep_key(&self, (event_type, state_key): (&str, &str), num: Option<StateKeyNum>) {
        let mut inside = self.0.lock();
        if inside.keys.len() < KEPT {
            let key = (event_type.to_owned(), state_key.to_owned());
            inside.keys.insert(key, num);
        }
    }
}
