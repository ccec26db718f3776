//! What is removed when nobody needs it any more, and what that must not take.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod world;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use comity_protocol::id::{RoomId, UserId};
use comity_rooms::{
    HORIZON, Intent, RoomError, Rooms, Transaction,
    state::Half,
    tables::{Heads, Nodes, RoomHash, Txns},
};
use comity_storage::{
    CommitError, Consumer, Engine, Heads as LogHeads, Home, Range, RoomKey, TenantId, check,
    engine::Memory,
};
use serde_json::json;
use world::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

async fn tend(rooms: &Rooms) {
    rooms.tend(HORIZON).await.unwrap();
}

async fn rename(rooms: &Rooms, room: &RoomId, who: &UserId, name: &str) {
    let name = Intent::state(who, "m.room.name", "", &json!({ "name": name }));
    send(rooms, room, name).await.unwrap();
}

/// R12.1, data-model.md: a transaction id counts for a day, across midnight too; then its row goes.
#[tokio::test(start_paused = true)]
async fn transaction_ids_are_forgotten_after_a_day() {
    for lanes in LANES {
        let rooms = fresh(lanes).await;
        let alice = user("@alice:localhost");
        let room = public_room(&rooms, alice).await;
        let txn = Transaction {
            user: alice.to_owned(),
            device: "PHONE".into(),
            path: "send".into(),
            txn: "1".into(),
        };
        let intent = Intent::message(alice, "m.room.message", &json!({ "body": "x" }));
        let mut change = rooms.change(&room).await.unwrap();
        let sent = change.add(intent, Some(&txn)).await.unwrap();
        change.commit().await.unwrap();
        let known = async || rooms.change(&room).await.unwrap().done(&txn).await.unwrap();
        let rows = async || {
            let all = Range::everywhere(|_| {});
            rooms
                .tenant()
                .reader()
                .scan::<Txns>(all)
                .await
                .unwrap()
                .len()
        };
        for _ in 0..2 {
            tend(&rooms).await;
            assert_eq!(known().await, Some(sent.clone()));
            tokio::time::sleep(DAY / 2 - Duration::from_secs(1)).await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(known().await, None);
        assert_eq!(rows().await, 1);
        tokio::time::sleep(DAY).await;
        tend(&rooms).await;
        assert_eq!(rows().await, 0);
    }
}

/// Follows the logs, and has come so far.
struct Slow(LogHeads);

#[async_trait]
impl Consumer for Slow {
    async fn done(&self) -> Result<LogHeads, CommitError> {
        Ok(self.0.clone())
    }
}

/// data-model.md, Logs' horizon: what a consumer needs stays however old it is; head rows from before it go, but the newest; who reads from there on
/// sees the room as it was, who reads from before sees none.
#[tokio::test(start_paused = true)]
async fn head_rows_end_at_the_horizon() {
    for lanes in LANES {
        let disk = Memory::new();
        let rooms = open(&disk, lanes).await;
        let alice = user("@alice:localhost");
        let room = public_room(&rooms, alice).await;
        let early = rooms.tenant().heads();
        for n in 0..5 {
            rename(&rooms, &room, alice, &n.to_string()).await;
        }
        let late = rooms.tenant().heads();
        let key = RoomKey::of(room.as_str());
        let rows = async || {
            let all = Range::of(Home::Room(key), |to| {
                to.room(key);
            });
            let reader = rooms.tenant().reader();
            reader.scan::<Heads>(all).await.unwrap().len()
        };
        let name_at = async |heads: &LogHeads| {
            let reader = rooms.tenant().reader().at(heads.clone());
            let view = rooms.view_at(&reader, &room).await?;
            let name = view.state("m.room.name", "").await?;
            Ok::<_, RoomError>(
                name.and_then(|name| Some(name.event.content_string("name")?.into_owned())),
            )
        };
        tend(&rooms).await;
        rename(&rooms, &room, alice, "after").await;
        let before = rows().await;
        assert!(before > 5);
        tokio::time::sleep(DAY).await;
        tend(&rooms).await;
        assert_eq!(rows().await, before);
        tokio::time::sleep(13 * DAY).await;
        tend(&rooms).await;
        assert_eq!(rows().await, 2);
        assert_eq!(name_at(&late).await.unwrap().as_deref(), Some("4"));
        assert!(matches!(name_at(&early).await, Err(RoomError::UnknownRoom)));
        assert_eq!(
            content(&rooms, &room, "m.room.name", "").await.unwrap()["name"],
            "after"
        );
        rename(&rooms, &room, alice, "goes on").await;
        let lane = rooms.tenant().lane(Home::Room(key)).lane();
        let slow: Arc<dyn Consumer> = Arc::new(Slow(late.clone()));
        rooms.tenant().keep_logs_for(Arc::downgrade(&slow));
        tokio::time::sleep(15 * DAY).await;
        let horizon = rooms.tenant().prune_logs(HORIZON).await.unwrap();
        assert_eq!(horizon.get(lane), late.get(lane));
        drop(slow);
        tokio::time::sleep(15 * DAY).await;
        let horizon = rooms.tenant().prune_logs(HORIZON).await.unwrap();
        assert!(horizon.get(lane) > late.get(lane));
        let mut findings = Vec::new();
        let mut say = |finding: check::Finding| findings.push(finding.to_string());
        let engine = Engine::Memory(disk.clone());
        let tables = comity_rooms::tables::all();
        check::tenant(&engine, TenantId(1), &tables, &mut say)
            .await
            .unwrap();
        assert_eq!(findings, [] as [String; 0]);
    }
}

/// data-model.md, State: nodes that no state reaches are removed, those that the room makes meanwhile are
/// not; every state before every event can still be read.
#[tokio::test(start_paused = true)]
async fn nodes_that_nothing_reaches_are_collected() {
    for lanes in LANES {
        let rooms = fresh(lanes).await;
        let alice = user("@alice:localhost");
        let room = public_room(&rooms, alice).await;
        for n in 0..100 {
            let member = format!("@m{n}:localhost");
            join(&rooms, user(&member), &room).await.unwrap();
        }
        let key = RoomKey::of(room.as_str());
        let nodes = async || {
            let all = Range::of(Home::Room(key), |to| {
                to.room(key);
            });
            let reader = rooms.tenant().reader();
            reader.scan::<Nodes>(all).await.unwrap().len()
        };
        let before = nodes().await;
        let writer = rooms.tenant().lane(Home::Room(key));
        let mut batch = writer.batch();
        for n in 0..3 {
            let hash = [n; 16];
            batch.put::<Nodes>(
                &RoomHash { room: key, hash },
                &bytes::Bytes::from_static(b"no node"),
            );
        }
        writer.commit(batch).await.unwrap();
        // The room goes on while the nodes wait.
        let (removed, ()) = tokio::join!(rooms.sweep([key]), async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            rename(&rooms, &room, alice, "new").await;
        });
        assert_eq!(removed.unwrap(), 3);
        assert_eq!(rooms.sweep([key]).await.unwrap(), 0);
        assert_eq!(nodes().await, before + 1);
        let view = rooms.view(&room).await.unwrap();
        let span = comity_rooms::Span::latest(1_000);
        for found in view.timeline(span).await.unwrap().0 {
            let root = view.root_after(&found).await.unwrap();
            let members = view.state_nums(root, Some(Half::Members)).await.unwrap();
            assert!(members.len() <= 101);
        }
        join(&rooms, user("@later:localhost"), &room).await.unwrap();
    }
}
