//! Faults (threats, the checker): rows of accounts that contradict one another are found.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use comity_accounts::{
    Accounts,
    check::{self, Broken, Finding},
    tables::*,
};
use comity_storage::{Batch, Engine, Home, RoomKey, TenantId, engine::Memory};
use common::*;

const ALICE: &str = "@alice:example.org";

async fn findings(disk: &Memory) -> Vec<Finding> {
    let engine = Engine::Memory(disk.clone());
    let reader = comity_storage::check::reader(&engine, TenantId(1));
    let reader = reader.await.unwrap().unwrap();
    let mut found = Vec::new();
    let mut note = |finding: Finding| found.push(finding);
    check::tenant(&reader, &mut note).await.unwrap();
    found
}

fn key() -> UserKey {
    UserKey(ALICE.into())
}

fn phone() -> UserPart {
    let (user, part) = (ALICE.into(), "PHONE".into());
    UserPart { user, part }
}

fn data() -> (UserRoomPart, RoomData) {
    let key = UserRoomPart {
        user: ALICE.into(),
        room: RoomKey::of("!room:example.org"),
        part: "m.tag".into(),
    };
    let data = RoomData {
        room_id: "!other:example.org".into(),
        content: "{}".into(),
    };
    (key, data)
}

fn session(incarnation: u32) -> Session {
    Session {
        id: [0; 16],
        incarnation,
        refreshed: false,
        generation: 0,
        used: true,
    }
}

type Damage = fn(&mut Batch);

const DAMAGES: &[(Broken, Damage)] = &[
    (Broken::NoUser, |batch| {
        batch.delete::<Users>(&key());
    }),
    (Broken::Deactivated, |batch| {
        let gone = User {
            deactivated: true,
            ..User::default()
        };
        batch.put::<Users>(&key(), &gone);
    }),
    (Broken::NoDevice, |batch| {
        batch.delete::<Devices>(&phone());
    }),
    (Broken::NotDeactivated, |batch| {
        let job = Deactivation {
            erase: false,
            ts: 1,
        };
        batch.put::<Deactivations>(&key(), &job);
    }),
    (Broken::Incarnation, |batch| {
        batch.put::<Sessions>(&phone(), &session(9));
    }),
];

async fn registered(disk: &Memory, lanes: u8) -> Accounts {
    let accounts = Accounts::open(tenant(disk, lanes).await, config()).unwrap();
    register(&accounts, "alice").await;
    accounts
}

#[tokio::test(start_paused = true)]
async fn what_contradicts_another_row_is_found() {
    for lanes in LANES {
        for (what, damage) in DAMAGES {
            let disk = Memory::new();
            let accounts = registered(&disk, lanes).await;
            assert_eq!(findings(&disk).await, []);
            let writer = accounts.tenant().lane(Home::User(ALICE));
            let mut batch = writer.batch();
            damage(&mut batch);
            writer.commit(batch).await.unwrap();
            let found = findings(&disk).await;
            assert!(
                found.iter().any(|one| one.broken == *what),
                "{what:?}: {found:?}"
            );
        }
        let disk = Memory::new();
        let accounts = registered(&disk, lanes).await;
        let (key, data) = data();
        let writer = accounts.tenant().lane(Home::Room(key.room));
        let mut batch = writer.batch();
        batch.put::<RoomAccountData>(&key, &data);
        writer.commit(batch).await.unwrap();
        let found = findings(&disk).await;
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].broken, Broken::OtherRoom);
    }
}
