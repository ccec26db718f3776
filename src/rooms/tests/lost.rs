//! Changes that had their position and were lost: nothing is built upon them (laws 1 and 4, R12.1).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod world;

use std::time::Duration;

use comity_rooms::{CreateRoom, Intent};
use comity_storage::engine::{Memory, memory::Fault};
use serde_json::json;
use tokio::time::{sleep, timeout};
use world::{LANES, create, open, send, user};

const MS: Duration = Duration::from_millis(1);

/// A client sends and hangs up; its event is lost. The next one takes its place, also where someone had
/// begun to build upon it.
#[tokio::test(start_paused = true)]
async fn nothing_follows_an_event_that_was_lost_unseen() {
    for lanes in LANES {
        for begun in [false, true] {
            let disk = Memory::new();
            let rooms = open(&disk, lanes).await;
            let alice = user("@alice:localhost");
            let room = create(&rooms, alice, CreateRoom::default()).await;
            let say = || Intent::message(alice, "m.room.message", &json!({ "body": "hi" }));
            // While the first is written, the second has its position; the disk then drops that.
            let mut faults = [Fault::Stall(100), Fault::UnknownLost].into_iter();
            disk.set_faults(Some(Box::new(move |apply| {
                let fault = if apply { faults.next() } else { None };
                fault.unwrap_or(Fault::None)
            })));
            let first = send(&rooms, &room, say());
            let second = async {
                sleep(10 * MS).await;
                timeout(50 * MS, send(&rooms, &room, say())).await
            };
            let third = async {
                sleep(80 * MS).await;
                let mut change = rooms.change(&room).await.unwrap();
                change.add(say(), None).await.unwrap();
                sleep(50 * MS).await;
                begun.then_some(change)
            };
            let (first, hung_up, third) = tokio::join!(first, second, third);
            assert!(hung_up.is_err());
            if let Some(third) = third {
                assert!(third.commit().await.is_err(), "it follows what was lost");
            }
            let next = send(&rooms, &room, say()).await.unwrap();
            assert_eq!(next.seq, first.unwrap().seq + 1, "{lanes} lanes, {begun}");
        }
    }
}
