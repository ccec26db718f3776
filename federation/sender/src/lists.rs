//! Device lists that wait for a server: of each user what changed, or that something did.
//!
//! In good times every change goes, each naming the one before. A server that is behind is owed the user, which is also what its rows
//! say: it is told of the latest change, misses those before, and asks for the list as a whole.

use std::collections::{BTreeMap, BTreeSet};

use comity_keys::{DeviceUpdate, ListChanged};
use comity_protocol::id::OwnedUserId;
use comity_storage::{Lane, Pos};

/// Changes of a user kept for a server; of more only the latest goes.
const IN_ORDER: usize = 16;
/// EDUs of lists in a transaction.
pub(crate) const LIST_EDUS: usize = 40;

/// What a server is to be told of a user's list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DueList {
    /// Devices' changes in their order.
    pub updates: Vec<DeviceUpdate>,
    /// The cross-signing keys as well.
    pub cross_signing: bool,
    /// Where the first records stand that say so.
    held: BTreeMap<Lane, Pos>,
    /// Raised by each change.
    serial: u64,
}

/// What goes into a transaction of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// What changed.
    Changes(DueList),
    /// The latest change, of those there were: so many are owed.
    Latest(u64),
}

/// What goes into a transaction, by user.
pub(crate) type DueLists = Vec<(OwnedUserId, Due)>;

#[derive(Debug, Default)]
pub(crate) struct Lists {
    waiting: BTreeMap<OwnedUserId, DueList>,
    /// How often they were owed since they were told of.
    owed: BTreeMap<OwnedUserId, u64>,
    /// Users whose row says something else than `owed`.
    changed: BTreeSet<OwnedUserId>,
}

impl Lists {
    /// A list changed; its record stands there.
    pub fn put(&mut self, user: OwnedUserId, changed: &ListChanged, (lane, pos): (Lane, Pos)) {
        let due = self.waiting.entry(user).or_default();
        due.serial += 1;
        due.cross_signing |= changed.cross_signing;
        due.held.entry(lane).or_insert(pos);
        for update in &changed.devices {
            // One that is there already is told again: somebody has come into another room.
            due.updates.retain(|there| there.id != update.id);
            due.updates.push(update.clone());
        }
        let surplus = due.updates.len().saturating_sub(IN_ORDER);
        if surplus > 0 {
            due.updates.drain(..due.updates.len() - 1);
        }
    }

    /// From now on it is only owed that they changed.
    pub fn fall_behind(&mut self) {
        for user in std::mem::take(&mut self.waiting).into_keys() {
            self.owe(user);
        }
    }

    fn owe(&mut self, user: OwnedUserId) {
        let times = self.owed.entry(user.clone()).or_default();
        *times += 1;
        if *times == 1 {
            self.changed.insert(user);
        }
    }

    /// A row of an earlier run.
    pub fn recall(&mut self, user: OwnedUserId) {
        self.owed.insert(user, 1);
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.owed.is_empty()
    }

    /// What goes next, of few enough users for a transaction.
    pub fn next(&self) -> DueLists {
        let mut edus = 0;
        let owed = self.owed.iter();
        let owed = owed.map(|(user, times)| (user.clone(), Due::Latest(*times)));
        let waiting = self.waiting.iter();
        let waiting = waiting.map(|(user, due)| (user.clone(), Due::Changes(due.clone())));
        owed.chain(waiting)
            .take_while(|(_, due)| {
                edus += match due {
                    Due::Latest(_) => 2,
                    Due::Changes(due) => due.updates.len() + 1,
                };
                edus <= LIST_EDUS
            })
            .collect()
    }

    /// These were taken, or refused for good.
    pub fn done(&mut self, sent: &DueLists) {
        for (user, due) in sent {
            match due {
                Due::Latest(times) => {
                    // Another change may have become a debt while this one was told.
                    if self.owed.get(user) == Some(times) {
                        self.owed.remove(user);
                        self.changed.insert(user.clone());
                    }
                }
                Due::Changes(sent) => {
                    let Some(due) = self.waiting.get_mut(user) else {
                        continue;
                    };
                    if due.serial == sent.serial {
                        self.waiting.remove(user);
                    } else {
                        due.updates.retain(|update| !sent.updates.contains(update));
                    }
                }
            }
        }
    }

    /// Whether rows are to change.
    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The users whose rows are to change, and whether there is to be one.
    pub fn changes(&mut self) -> Vec<(OwnedUserId, bool)> {
        let changed = std::mem::take(&mut self.changed).into_iter();
        changed
            .map(|user| {
                let owed = self.owed.contains_key(&user);
                (user, owed)
            })
            .collect()
    }

    /// These rows couldn't be written.
    pub fn unchanged(&mut self, user: OwnedUserId) {
        self.changed.insert(user);
    }

    /// The first position of a lane that something waiting comes from.
    pub fn first_of(&self, lane: Lane) -> Option<Pos> {
        let held = self.waiting.values();
        held.filter_map(|due| due.held.get(&lane).copied()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> OwnedUserId {
        OwnedUserId::try_from(format!("@{name}:x")).unwrap()
    }

    fn change(id: u64) -> ListChanged {
        ListChanged {
            devices: vec![DeviceUpdate {
                device: "D".to_owned(),
                id,
                prev: id - 1,
            }],
            ..ListChanged::default()
        }
    }

    fn ids(lists: &DueLists) -> Vec<u64> {
        let updates = lists.iter().flat_map(|(_, due)| match due {
            Due::Changes(due) => due.updates.as_slice(),
            Due::Latest(_) => &[],
        });
        updates.map(|update| update.id).collect()
    }

    #[test]
    fn changes_go_in_order_and_hold_the_cursor() {
        let mut lists = Lists::default();
        lists.put(user("a"), &change(1), (Lane(0), 5));
        let sent = lists.next();
        lists.put(user("a"), &change(2), (Lane(0), 6));
        assert_eq!(lists.first_of(Lane(0)), Some(5));
        lists.done(&sent);
        let sent = lists.next();
        assert_eq!(ids(&sent), [2]);
        lists.done(&sent);
        assert!(lists.is_empty() && lists.changes().is_empty());
        assert_eq!(lists.first_of(Lane(0)), None);
    }

    #[test]
    fn too_many_changes_are_the_latest() {
        let mut lists = Lists::default();
        for id in 1..=17 {
            lists.put(user("a"), &change(id), (Lane(0), id));
        }
        assert_eq!(ids(&lists.next()), [17]);
        for n in 0..100 {
            lists.put(user(&format!("u{n}")), &change(1), (Lane(0), 20));
        }
        assert!(lists.next().len() <= LIST_EDUS);
    }

    #[test]
    fn who_is_behind_is_owed_the_user() {
        let mut lists = Lists::default();
        lists.put(user("a"), &change(1), (Lane(0), 5));
        lists.fall_behind();
        assert_eq!(lists.first_of(Lane(0)), None);
        assert_eq!(lists.changes(), [(user("a"), true)]);
        let sent = lists.next();
        assert_eq!(sent, [(user("a"), Due::Latest(1))]);
        lists.done(&sent);
        assert_eq!(lists.changes(), [(user("a"), false)]);
        assert!(lists.is_empty());
    }

    #[test]
    fn a_change_while_the_latest_is_told_stays_owed() {
        let mut lists = Lists::default();
        lists.put(user("a"), &change(1), (Lane(0), 5));
        lists.fall_behind();
        let sent = lists.next();
        lists.put(user("a"), &change(2), (Lane(0), 6));
        lists.fall_behind();
        lists.done(&sent);
        assert_eq!(lists.changes(), [(user("a"), true)]);
        let sent = lists.next();
        assert_eq!(sent.len(), 1);
        lists.done(&sent);
        assert!(lists.is_empty());
    }
}
