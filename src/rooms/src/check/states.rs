//! The states that rows name, node by node, and the cover of the auth chains.

use comity_storage::ReadError;

use super::{Broken, Room, Walk};
use crate::{
    chains::{Audit, Flaw},
    live::{Pending, RoomNodes},
    num::EventNum,
    state::Closure,
    tables::{Chains, Verdict},
};

/// Nodes read in one go.
const NODES: usize = 256;

impl Walk<'_> {
    /// Every node of every state is there and what its name says, and every entry an event of its key.
    pub(super) async fn states(
        &mut self,
        room: &Room,
        mut closure: Closure,
    ) -> Result<(), ReadError> {
        let nodes = RoomNodes {
            room: room.key,
            reader: self.reader.clone(),
            pending: Pending::default(),
        };
        while let Some(met) = closure.step(&nodes, NODES).await? {
            self.to.walked(NODES);
            for name in met.missing {
                self.say(room, Broken::Node, format_args!("node {name:?}"));
            }
            for name in met.damaged {
                self.say(room, Broken::NodeDamaged, format_args!("node {name:?}"));
            }
            for (key, num) in met.entries {
                let kept = room.events.get(num.0);
                let is_here = match kept.verdict {
                    None | Some(Verdict::Named) => false,
                    // What came as part of a state may turn out to be forbidden where it stands. And a
                    // partial state stays as it was, whatever the whole one says of its events.
                    Some(Verdict::Rejected) => kept.in_graph || met.is_partial,
                    Some(Verdict::Outlier | Verdict::SoftFailed | Verdict::Accepted) => true,
                };
                if !is_here {
                    self.say_of(room, Broken::EntryVerdict, num);
                } else if kept.key != Some(key) {
                    self.say_of(room, Broken::Entry, num);
                }
            }
        }
        Ok(())
    }

    /// The auth chains cover what the state events rest on, and nothing else.
    pub(super) async fn cover(&mut self, room: &Room) -> Result<(), ReadError> {
        let mut audit = Audit::default();
        let mut flaws = Vec::new();
        let mut rows = room.pages::<Chains>();
        while let Some(page) = self.page(&mut rows).await? {
            for (key, row) in page {
                let auth = |num| room.events.auth(num);
                audit.row(key.key, &row.value, auth, &mut flaws);
            }
        }
        audit.end(&mut flaws);
        for flaw in flaws {
            match flaw {
                Flaw::Damaged(key) | Flaw::Gap(key) => {
                    self.say(room, Broken::Chain, format_args!("{key:?}"));
                }
                Flaw::Place(num) => self.say_of(room, Broken::ChainPlace, num),
                Flaw::Edge(num) => self.say_of(room, Broken::ChainEdge, num),
                Flaw::Uncovered(num) => self.say_of(room, Broken::Uncovered, num),
                Flaw::Citations => self.say(room, Broken::Citations, "the auth chains"),
            }
        }
        for (num, kept) in room.events.iter() {
            let judged = matches!(
                kept.verdict,
                Some(Verdict::Outlier | Verdict::SoftFailed | Verdict::Accepted)
            );
            if let Some(key) = kept.key
                && judged
                && audit.key_of(num) != Some(key)
            {
                self.say_of(room, Broken::NoPlace, num);
            }
        }
        let is_known = |num: &EventNum| room.events.get(num.0).key == audit.key_of(*num);
        for num in audit.events().filter(|num| !is_known(num)) {
            self.say_of(room, Broken::ChainPlace, num);
        }
        Ok(())
    }
}
