//! A value of which only the latest state counts, and those who wait for it to change.
//!
//! As `tokio::sync::watch`, which wakes who waits in an order drawn by chance; here they are woken in the order in which they began
//! to wait, so that a seed decides it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::{RwLock, RwLockReadGuard};
use tokio::sync::Notify;

/// Whoever changes the value. When it is dropped, nobody waits any longer.
#[derive(Debug)]
pub struct Sender<T>(Arc<Shared<T>>);

/// Somebody who waits for changes.
#[derive(Clone, Debug)]
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// The last state it has seen.
    seen: u64,
}

/// The sender is gone: the value changes no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the value changes no more")]
pub struct Closed;

#[derive(Debug)]
struct Shared<T> {
    value: RwLock<T>,
    /// Counts the changes; odd when there are no more to come.
    serial: AtomicU64,
    changed: Notify,
}

/// Beside the bit that says whether it is over.
const CHANGE: u64 = 2;
const OVER: u64 = 1;

impl<T> Sender<T> {
    /// A value that nobody has changed yet.
    pub fn new(value: T) -> Self {
        Self(Arc::new(Shared {
            value: RwLock::new(value),
            serial: AtomicU64::new(0),
            changed: Notify::new(),
        }))
    }

    /// Somebody who has seen what is there now.
    pub fn subscribe(&self) -> Receiver<T> {
        let shared = Arc::clone(&self.0);
        let seen = shared.serial.load(Ordering::Acquire);
        Receiver { shared, seen }
    }

    /// How many there are who may wait.
    pub fn receiver_count(&self) -> usize {
        Arc::strong_count(&self.0).saturating_sub(1)
    }

    /// The value. Nobody changes it while the guard is held.
    pub fn borrow(&self) -> RwLockReadGuard<'_, T> {
        self.0.value.read()
    }

    /// Another value; the one before.
    pub fn send_replace(&self, value: T) -> T {
        let mut before = value;
        self.send_modify(|now| std::mem::swap(now, &mut before));
        before
    }

    /// Changes the value.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Changes the value if `change` says that it did; whether it did.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let mut value = self.0.value.write();
        let changed = change(&mut value);
        if changed {
            self.0.serial.fetch_add(CHANGE, Ordering::Release);
        }
        drop(value);
        if changed {
            self.0.changed.notify_waiters();
        }
        changed
    }
}

impl<T: Default> Default for Sender<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.serial.fetch_or(OVER, Ordering::Release);
        self.0.changed.notify_waiters();
    }
}

impl<T> Receiver<T> {
    /// The value, seen or not. Nobody changes it while the guard is held.
    pub fn borrow(&self) -> RwLockReadGuard<'_, T> {
        self.shared.value.read()
    }

    /// The value, which is seen thereby. Nobody changes it while the guard is held.
    pub fn borrow_and_update(&mut self) -> RwLockReadGuard<'_, T> {
        let value = self.shared.value.read();
        self.seen = self.shared.serial.load(Ordering::Acquire) & !OVER;
        value
    }

    /// What is there now is seen.
    pub fn mark_unchanged(&mut self) {
        self.seen = self.shared.serial.load(Ordering::Acquire) & !OVER;
    }

    /// Waits for a change since what was seen, which is seen thereby.
    ///
    /// # Errors
    /// [`Closed`], once the last change is seen.
    pub async fn changed(&mut self) -> Result<(), Closed> {
        loop {
            // Before the serial is read: a change is seen by one or the other.
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            let serial = self.shared.serial.load(Ordering::Acquire);
            if serial & !OVER != self.seen & !OVER {
                self.seen = serial & !OVER;
                return Ok(());
            }
            if serial & OVER != 0 {
                return Err(Closed);
            }
            changed.await;
        }
    }

    /// Waits until the value is as wanted.
    ///
    /// # Errors
    /// [`Closed`]: it never will be.
    pub async fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<(), Closed> {
        while !wanted(&self.borrow_and_update()) {
            self.changed().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    /// Law 7: who waits longest is woken first, of any number.
    #[tokio::test]
    async fn they_are_woken_in_their_order() {
        let sender = Sender::new(0);
        let woken = Arc::new(Mutex::new(Vec::new()));
        // As many as tokio runs in one go.
        let waiting: Vec<_> = (0..60)
            .map(|number| {
                let (mut receiver, woken) = (sender.subscribe(), Arc::clone(&woken));
                tokio::spawn(async move {
                    receiver.changed().await.unwrap();
                    woken.lock().push(number);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        sender.send_modify(|value| *value += 1);
        for one in waiting {
            one.await.unwrap();
        }
        assert_eq!(*woken.lock(), (0..60).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_change_is_seen_once_and_the_last_before_the_end() {
        let sender = Sender::new(0);
        let mut receiver = sender.subscribe();
        assert_eq!(sender.send_replace(1), 0);
        sender.send_replace(2);
        assert!(!sender.send_if_modified(|_| false));
        assert_eq!(receiver.changed().await, Ok(()));
        assert_eq!(*receiver.borrow(), 2);
        sender.send_replace(3);
        assert_eq!(*receiver.borrow_and_update(), 3);
        sender.send_replace(4);
        drop(sender);
        assert_eq!(receiver.wait_for(|value| *value == 4).await, Ok(()));
        assert_eq!(receiver.changed().await, Err(Closed));
        assert_eq!(receiver.wait_for(|value| *value == 5).await, Err(Closed));
    }

    #[tokio::test]
    async fn who_waits_hears_of_the_end() {
        let sender = Sender::new(());
        let mut receiver = sender.subscribe();
        let waiting = tokio::spawn(async move { receiver.changed().await });
        tokio::task::yield_now().await;
        drop(sender);
        assert_eq!(waiting.await.unwrap(), Err(Closed));
    }
}
