//! The lanes' logs and what lanes owe each other.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use comity_storage::{
    Apply, Batch, CommitError, Expect, Heads, Home, Owed, Reader, Record, Target, Tenant,
};

use crate::bed::{ALICE, Bed, NoteKey, Notes, lane, note, put, stranger};

conformance! {
    a_follower_meets_every_commit_once_in_order
    what_is_owed_is_applied_once_and_in_order
}

fn record(n: u64) -> Record {
    Record {
        kind: 1,
        subject: n.to_string(),
        body: Vec::new(),
    }
}

/// Law 2: one ordered log a lane, the same from memory as from rows, and after a restart.
async fn a_follower_meets_every_commit_once_in_order(mut bed: Bed) {
    let tenant = bed.tenant().await;
    let start = tenant.heads();
    let users = [ALICE.to_owned(), stranger(&tenant)];
    let mut follower = tenant.follow(start.clone());
    let mut live = Vec::new();
    // More than are kept in memory.
    let mut on_the_way = Vec::new();
    for n in 0..1300u64 {
        let writer = tenant.lane(Home::User(&users[n as usize % 2]));
        let mut batch = writer.batch();
        batch.log(record(n));
        on_the_way.push(writer.append(batch).await.unwrap());
    }
    for appended in on_the_way {
        appended.durable().await.unwrap();
    }
    while live.len() < 1300 {
        for logged in follower.next().await.unwrap() {
            live.extend(
                logged
                    .records
                    .iter()
                    .map(|r| (logged.lane, r.subject.clone())),
            );
        }
    }
    let of_lane = |seen: &[(comity_storage::Lane, String)], user: &str| -> Vec<String> {
        let lane = tenant.lanes().of(Home::User(user).slot());
        seen.iter()
            .filter(|(l, _)| *l == lane)
            .map(|(_, s)| s.clone())
            .collect()
    };
    for user in &users {
        let expected = (0..1300).filter(|n| {
            tenant.lanes().of(Home::User(&users[n % 2]).slot())
                == tenant.lanes().of(Home::User(user).slot())
        });
        let expected: Vec<String> = expected.map(|n| n.to_string()).collect();
        assert_eq!(of_lane(&live, user), expected);
    }
    bed.crash().await;
    let again = bed.tenant().await;
    let mut follower = again.follow(start);
    let mut stored = Vec::new();
    loop {
        let found = follower.ready().await.unwrap();
        if found.is_empty() {
            break;
        }
        for logged in found {
            stored.extend(
                logged
                    .records
                    .iter()
                    .map(|r| (logged.lane, r.subject.clone())),
            );
        }
    }
    for user in &users {
        assert_eq!(of_lane(&stored, user), of_lane(&live, user));
    }
    assert_eq!(follower.cursor(), &again.heads());
}

/// Writes the debts it is given under the target, each after the one before.
struct Ledger {
    /// Refuses until told otherwise.
    open: AtomicBool,
}

#[async_trait]
impl Apply for Ledger {
    fn kind(&self) -> u16 {
        9
    }

    async fn apply(
        &self,
        reader: &Reader,
        owed: &[&Owed],
        batch: &mut Batch,
    ) -> Result<(), CommitError> {
        let [owed] = owed else {
            panic!("one debt a commit")
        };
        if !self.open.load(Ordering::Relaxed) {
            return Err(CommitError::NotApplied("closed".into()));
        }
        let Target::User(user) = &owed.target else {
            return Ok(());
        };
        let entry = String::from_utf8(owed.body.clone()).unwrap();
        let sum = NoteKey(user.clone(), 0);
        let so_far = reader.get::<Notes>(&sum).await?;
        let text = so_far
            .as_ref()
            .map_or(String::new(), |row| row.value.0.clone());
        batch.expect::<Notes>(
            &sum,
            so_far.map_or(Expect::Absent, |row| Expect::At(row.pos)),
        );
        batch.put::<Notes>(&sum, &note(format!("{text} {entry}")));
        Ok(())
    }
}

async fn owe(tenant: &Tenant, user: &str, n: u32) -> u64 {
    let mut batch = lane(tenant).batch();
    batch.owe(Owed {
        kind: 9,
        target: Target::User(user.into()),
        body: n.to_string().into_bytes(),
    });
    lane(tenant).commit(batch).await.unwrap()
}

/// data-model.md, Lanes: the target applies source records in order and stores its cursor in the
/// same batch: exactly once, whenever the process ends.
async fn what_is_owed_is_applied_once_and_in_order(mut bed: Bed) {
    let ledger = Arc::new(Ledger {
        open: AtomicBool::new(true),
    });
    bed.appliers = vec![ledger.clone()];
    let mut user = String::new();
    for round in 0..4u32 {
        let tenant = bed.tenant().await;
        user = stranger(&tenant);
        let mut last = 0;
        // Each second round stops while the other lane can't be paid.
        ledger.open.store(round % 2 == 0, Ordering::Relaxed);
        for n in round * 10..(round + 1) * 10 {
            last = owe(&tenant, &user, n).await;
        }
        if round == 0 {
            tenant.paid(Home::User(ALICE), last).await;
        }
        ledger.open.store(false, Ordering::Relaxed);
        bed.crash().await;
    }
    ledger.open.store(true, Ordering::Relaxed);
    let tenant = bed.tenant().await;
    let last = put(&tenant, 1, "the last").await;
    tenant.paid(Home::User(ALICE), last).await;
    let sum = tenant
        .reader()
        .get::<Notes>(&NoteKey(user, 0))
        .await
        .unwrap()
        .unwrap();
    let expected: String = (0..40).map(|n| format!(" {n}")).collect();
    assert_eq!(sum.value.0, expected);
    // The tasks end with the tenant, so that a folder can be opened again.
    tenant.close().await.unwrap();
    assert!(lane(&tenant).commit(lane(&tenant).batch()).await.is_err());
}

/// A long stretch that owes nothing is not read again by the next start.
#[tokio::test]
async fn cursors_move_over_stretches_that_owe_nothing() {
    use comity_storage::system::{Cursors, Route};
    // It takes two lanes.
    let mut bed = Bed::new(crate::bed::Kind::Memory, 4).await.unwrap();
    bed.appliers = vec![Arc::new(Ledger {
        open: AtomicBool::new(true),
    })];
    let tenant = bed.tenant().await;
    let source = lane(&tenant).lane();
    let target = tenant.lanes().all().find(|l| *l != source).unwrap();
    let mut last = None;
    for _ in 0..5000 {
        last = Some(lane(&tenant).append(lane(&tenant).batch()).await.unwrap());
    }
    let last = last.unwrap().durable().await.unwrap();
    tenant.paid(Home::User(ALICE), last).await;
    let route = Route { target, source };
    let cursor = tenant
        .reader()
        .get::<Cursors>(&route)
        .await
        .unwrap()
        .unwrap();
    assert!(cursor.value.pos > 800, "{}", cursor.value.pos);
    assert!(Heads::zero(tenant.lanes()).get(target) < tenant.heads().get(target));
}
