//! Rows in ordered maps, with a disk's habits: what was applied and not synced is lost in a crash.
//!
//! Clones share the "disk". [`Memory::crash`] ends the machine: what was not synced is gone, the old
//! handles write no more, and the one it returns is what the next start opens a store on.
//! [`Memory::set_faults`] makes it fail as real disks and networks do, [`Memory::set_distance`] puts it as
//! far away as a database server.

use std::{collections::BTreeMap, fmt, ops::Bound, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::{Fence, Op, RowKey, Scan, Write};
use crate::{
    error::{CommitError, ReadError},
    key::Slot,
    table::Family,
};

/// With each value its slot: elsewhere a row is found in its slot only, so here too.
type Held = (Slot, Bytes);
type Rows = BTreeMap<(Family, Bytes), Held>;

/// Changes that a crash may undo at the most: where nothing is synced, the oldest reach the disk
/// by themselves, as they do from an operating system's cache.
const UNSYNCED: usize = 1 << 16;

/// What happens to one apply or sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// All is well.
    None,
    /// Refused, nothing written.
    NotApplied,
    /// Written, and the answer lost.
    UnknownApplied,
    /// Not written, and the answer lost.
    UnknownLost,
    /// Written (`true`) or not, the answer lost, and every call fails from then on, until
    /// [`Memory::reconnect`].
    CutOff(bool),
    /// It takes this many milliseconds of the runtime's time.
    Stall(u64),
}

/// Decides what happens to the next apply (`true`) or sync (`false`).
pub type Faults = Box<dyn FnMut(bool) -> Fault + Send>;

/// The memory engine. Clones share its rows.
#[derive(Clone, Default)]
pub struct Memory {
    disk: Arc<Mutex<Disk>>,
    /// The run of the machine that this handle belongs to.
    run: u64,
}

#[derive(Default)]
struct Disk {
    rows: Rows,
    /// What each row touched since the last sync held before, oldest first.
    undo: Vec<((Family, Bytes), Option<Held>)>,
    faults: Option<Faults>,
    distance: Duration,
    unreachable: bool,
    run: u64,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Memory({} rows)", self.disk.lock().rows.len())
    }
}

impl Memory {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// The machine lost power: what was not synced is gone, and so are the old handles.
    #[must_use]
    pub fn crash(&self) -> Self {
        let mut disk = self.disk.lock();
        while let Some((at, before)) = disk.undo.pop() {
            match before {
                Some(value) => disk.rows.insert(at, value),
                None => disk.rows.remove(&at),
            };
        }
        disk.run += 1;
        Self {
            disk: self.disk.clone(),
            run: disk.run,
        }
    }

    /// A backup taken now: a disk of its own with what is durable on this one.
    #[must_use]
    pub fn backup(&self) -> Self {
        let disk = self.disk.lock();
        let mut rows = disk.rows.clone();
        for (at, before) in disk.undo.iter().rev() {
            match before {
                Some(value) => rows.insert(at.clone(), value.clone()),
                None => rows.remove(at),
            };
        }
        let disk = Disk {
            rows,
            ..Disk::default()
        };
        Self {
            disk: Arc::new(Mutex::new(disk)),
            run: 0,
        }
    }

    /// The rows, as long as this handle's machine runs.
    fn running(&self) -> Result<MutexGuard<'_, Disk>, CommitError> {
        let disk = self.disk.lock();
        if disk.unreachable {
            Err(CommitError::Unknown("the store is not reachable".into()))
        } else if disk.run == self.run {
            Ok(disk)
        } else {
            Err(CommitError::Unknown("the machine is down".into()))
        }
    }

    /// The rows, to be read by any handle.
    fn reachable(&self) -> Result<MutexGuard<'_, Disk>, ReadError> {
        let disk = self.disk.lock();
        if disk.unreachable {
            Err(ReadError::Engine("the store is not reachable".into()))
        } else {
            Ok(disk)
        }
    }

    /// Ends what [`Fault::CutOff`] began.
    pub fn reconnect(&self) {
        self.disk.lock().unreachable = false;
    }

    /// Asks before each apply and sync what shall happen to it.
    pub fn set_faults(&self, faults: Option<Faults>) {
        self.disk.lock().faults = faults;
    }

    /// Every read and every apply takes so long. Where nothing else takes time, what a request took says how
    /// many of them waited for one another.
    pub fn set_distance(&self, distance: Duration) {
        self.disk.lock().distance = distance;
    }

    async fn travel(&self) {
        let distance = self.disk.lock().distance;
        if !distance.is_zero() {
            tokio::time::sleep(distance).await;
        }
    }

    fn fault(&self, apply: bool) -> Fault {
        match &mut self.disk.lock().faults {
            Some(faults) => faults(apply),
            None => Fault::None,
        }
    }

    pub(super) async fn get_many(&self, keys: &[RowKey]) -> Result<Vec<Option<Bytes>>, ReadError> {
        self.travel().await;
        let disk = self.reachable()?;
        Ok(keys.iter().map(|row| disk.get(row).cloned()).collect())
    }

    pub(super) async fn scan_many(
        &self,
        scans: &[Scan],
    ) -> Result<Vec<Vec<(Bytes, Bytes)>>, ReadError> {
        self.travel().await;
        let disk = self.reachable()?;
        Ok(scans.iter().map(|scan| disk.scan(scan)).collect())
    }

    pub(super) async fn claim(
        &self,
        row: &RowKey,
        expected: Option<&Bytes>,
        epoch: &Bytes,
    ) -> Result<(), CommitError> {
        let mut disk = self.running()?;
        let at = (row.family, row.key.clone());
        if disk.get(row) != expected {
            return Err(CommitError::Fenced);
        }
        // A claim is durable at once: it must outlive the crash of the owner it ends.
        disk.rows.insert(at, (row.slot, epoch.clone()));
        Ok(())
    }

    pub(super) async fn apply(&self, writes: &[Write]) -> Result<(), CommitError> {
        self.travel().await;
        let fault = self.fault(true);
        match fault {
            Fault::Stall(ms) => tokio::time::sleep(std::time::Duration::from_millis(ms)).await,
            Fault::NotApplied => return Err(CommitError::NotApplied("fault".into())),
            Fault::UnknownLost => return Err(CommitError::Unknown("fault".into())),
            Fault::None | Fault::UnknownApplied | Fault::CutOff(_) => {}
        }
        let mut disk = self.running()?;
        if fault != Fault::CutOff(false) {
            disk.apply(writes)?;
        }
        match fault {
            Fault::UnknownApplied => Err(CommitError::Unknown("fault".into())),
            Fault::CutOff(_) => {
                disk.unreachable = true;
                Err(CommitError::Unknown("fault".into()))
            }
            _ => Ok(()),
        }
    }

    pub(super) async fn sync(&self) -> Result<(), CommitError> {
        match self.fault(false) {
            Fault::Stall(ms) => tokio::time::sleep(std::time::Duration::from_millis(ms)).await,
            Fault::NotApplied | Fault::UnknownLost | Fault::UnknownApplied | Fault::CutOff(_) => {
                return Err(CommitError::Unknown("fault".into()));
            }
            Fault::None => {}
        }
        self.running()?.undo.clear();
        Ok(())
    }
}

impl Disk {
    fn scan(&self, scan: &Scan) -> Vec<(Bytes, Bytes)> {
        if scan.from >= scan.to {
            return Vec::new();
        }
        let from = Bound::Included((scan.family, scan.from.clone()));
        let to = Bound::Excluded((scan.family, scan.to.clone()));
        let rows = self
            .rows
            .range((from, to))
            .filter(|(_, (slot, _))| scan.slot.is_none_or(|of| of == *slot))
            .map(|((_, key), (_, value))| (key.clone(), value.clone()));
        if scan.reverse {
            rows.rev().take(scan.limit).collect()
        } else {
            rows.take(scan.limit).collect()
        }
    }

    fn holds(&self, fence: &Fence) -> bool {
        self.get(&fence.row) == Some(&fence.epoch)
    }

    fn get(&self, row: &RowKey) -> Option<&Bytes> {
        let found = self.rows.get(&(row.family, row.key.clone()));
        found
            .filter(|(slot, _)| *slot == row.slot)
            .map(|(_, value)| value)
    }

    fn apply(&mut self, writes: &[Write]) -> Result<(), CommitError> {
        if !writes.iter().all(|write| self.holds(&write.fence)) {
            return Err(CommitError::Fenced);
        }
        for (row, condition) in writes.iter().flat_map(|write| &write.conditions) {
            if !condition.holds(self.get(row).map(Bytes::as_ref)) {
                return Err(CommitError::NotApplied(
                    "a condition does not hold in the engine".into(),
                ));
            }
        }
        for op in writes.iter().flat_map(|write| &write.ops) {
            match op {
                Op::Put(row, value) => {
                    let at = (row.family, row.key.clone());
                    self.set(at, Some((row.slot, value.clone())));
                }
                Op::Delete(row) => self.set((row.family, row.key.clone()), None),
                Op::DeleteRange(from, to) if from.key < *to => {
                    let range = (
                        Bound::Included((from.family, from.key.clone())),
                        Bound::Excluded((from.family, to.clone())),
                    );
                    let rows = self.rows.range(range);
                    let rows = rows.filter(|(_, (slot, _))| *slot == from.slot);
                    let keys: Vec<_> = rows.map(|(at, _)| at.clone()).collect();
                    keys.into_iter().for_each(|at| self.set(at, None));
                }
                Op::DeleteRange(..) => {}
            }
        }
        Ok(())
    }

    fn set(&mut self, at: (Family, Bytes), value: Option<Held>) {
        let before = match value {
            Some(value) => self.rows.insert(at.clone(), value),
            None => self.rows.remove(&at),
        };
        self.undo.push((at, before));
        if self.undo.len() > UNSYNCED {
            self.undo.drain(..UNSYNCED / 2);
        }
    }
}
