//! Lanes over the memory engine: positions, conditions, what is seen when, what a crash leaves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::sync::Arc;

use comity_runtime::Runtime;
use comity_storage::{
    CommitError, Damaged, Engine, Expect, Family, Heads, Home, Key, KeyReader, KeyWriter, Lanes,
    Options, Range, Record, Store, Table, Tenant, TenantId,
    engine::{Memory, memory::Fault},
    postcard_value,
};

struct Notes;
#[derive(Debug, PartialEq, Eq, Clone)]
struct NoteKey(String, u64);
#[derive(Debug, PartialEq, Eq, Clone, serde::Serialize, serde::Deserialize)]
struct Note(String);
postcard_value!(Note);

impl Key for NoteKey {
    fn home(&self) -> Home<'_> {
        Home::User(&self.0)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.0).u64(self.1);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self(from.str()?, from.u64()?))
    }
}

impl Table for Notes {
    const NAME: &'static str = "notes";
    const FAMILY: Family = Family::Hot;
    const TAG: [u8; 2] = *b"zz";
    type Key = NoteKey;
    type Value = Note;
}

async fn open(disk: &Memory, lanes: u8) -> Tenant {
    let options = Options {
        lanes: Lanes::new(lanes).unwrap(),
        sync: true,
        on_fatal: Arc::new(|_| {}),
        appliers: Vec::new(),
    };
    Store::new(Engine::Memory(disk.clone()), options, Runtime::simulated(1))
        .tenant(TenantId(1))
        .await
        .unwrap()
}

fn key(n: u64) -> NoteKey {
    NoteKey("@alice:localhost".into(), n)
}

#[tokio::test(start_paused = true)]
async fn a_commit_is_seen_conditions_hold_and_a_crash_loses_only_what_was_not_answered() {
    for lanes in [1, 4] {
        let disk = Memory::new();
        let tenant = open(&disk, lanes).await;
        let lane = tenant.lane(Home::User("@alice:localhost"));
        let mut batch = lane.batch();
        batch
            .expect::<Notes>(&key(1), Expect::Absent)
            .put::<Notes>(&key(1), &Note("one".into()));
        batch.log(Record {
            kind: 7,
            subject: "@alice:localhost".into(),
            body: vec![1],
        });
        let before = tenant.heads();
        let pos = lane.commit(batch).await.unwrap();
        assert_eq!(
            tenant
                .reader()
                .get::<Notes>(&key(1))
                .await
                .unwrap()
                .unwrap()
                .pos,
            pos
        );
        assert_eq!(
            tenant
                .follow(before)
                .next()
                .await
                .unwrap()
                .last()
                .unwrap()
                .records[0]
                .kind,
            7
        );

        let mut batch = lane.batch();
        batch
            .expect::<Notes>(&key(1), Expect::Absent)
            .put::<Notes>(&key(1), &Note("two".into()));
        assert!(matches!(
            lane.commit(batch).await,
            Err(CommitError::Conflict("notes"))
        ));

        // Chained on what is appended only; scanned both ways with a limit.
        let mut batch = lane.batch();
        batch
            .expect::<Notes>(&key(1), Expect::At(pos))
            .delete::<Notes>(&key(1))
            .put::<Notes>(&key(2), &Note("x".into()));
        let appended = lane.append(batch).await.unwrap();
        let mut batch = lane.batch();
        batch.put::<Notes>(&key(3), &Note("y".into()));
        lane.append(batch).await.unwrap();
        let range = || {
            Range::of(Home::User("@alice:localhost"), |k| {
                k.str("@alice:localhost");
            })
            .limit(1)
        };
        let reader = lane.reader();
        assert_eq!(reader.scan::<Notes>(range()).await.unwrap()[0].0, key(2));
        assert_eq!(
            reader.scan::<Notes>(range().reverse()).await.unwrap()[0].0,
            key(3)
        );
        appended.durable().await.unwrap();

        let mut batch = lane.batch();
        batch.put::<Notes>(&key(4), &Note("lost".into()));
        disk.set_faults(Some(Box::new(|apply| {
            if apply {
                Fault::None
            } else {
                Fault::Stall(1_000)
            }
        })));
        drop(lane.append(batch).await.unwrap());
        disk.set_faults(None);
        let again = open(&disk.crash(), lanes).await;
        assert!(
            again
                .reader()
                .get::<Notes>(&key(4))
                .await
                .unwrap()
                .is_none()
        );
        assert!(
            again
                .reader()
                .get::<Notes>(&key(2))
                .await
                .unwrap()
                .is_some()
        );
        // The log is read from the rows after a restart.
        let logged = again
            .follow(Heads::zero(again.lanes()))
            .next()
            .await
            .unwrap();
        assert!(logged.iter().any(|l| l.records.iter().any(|r| r.kind == 7)));
        // The first owner is fenced.
        let mut batch = lane.batch();
        batch.put::<Notes>(&key(5), &Note("zombie".into()));
        assert!(matches!(
            lane.commit(batch).await,
            Err(CommitError::Fenced | CommitError::Unknown(_) | CommitError::NotApplied(_))
        ));
        assert!(
            again
                .reader()
                .get::<Notes>(&key(5))
                .await
                .unwrap()
                .is_none()
        );
    }
}
