//! Law 4, as seen by those who look on: what a store has shown, it still has after a crash.

use std::sync::Arc;

use comity_storage::{Engine, Heads, Home, Logged, Record, Tenant, engine::memory::Fault};

use crate::bed::{ALICE, Bed, NoteKey, Notes, note, stranger};

conformance! {
    what_was_seen_outlives_a_crash
}

/// Commits without end, some of them on their way at any time, until the store takes no more.
async fn write(tenant: Tenant, user: String, first: u64) {
    let lane = tenant.lane(Home::User(&user));
    for n in first.. {
        let mut batch = lane.batch();
        batch
            .put::<Notes>(&NoteKey(user.clone(), n), &note(n))
            .log(Record {
                kind: 0xffff,
                subject: user.clone(),
                body: n.to_be_bytes().to_vec(),
            });
        match lane.append(batch).await {
            Ok(appended) if n % 4 == 0 => drop(appended.durable().await),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

/// Law 4, data-model.md, Commits: a watcher follows the logs while others write, and in the midst of it the process ends.
/// Whoever opens the store next finds the heads where the watcher saw them or further, each commit that it was told of, and the
/// rows of each.
async fn what_was_seen_outlives_a_crash(mut bed: Bed) {
    let mut seen: Vec<Arc<Logged>> = Vec::new();
    for round in 0..4 {
        if let Engine::Memory(memory) = &bed.engine {
            // A disk that takes its time: much is written and not synced when the end comes.
            memory.set_faults(Some(Box::new(|apply| match apply {
                true => Fault::None,
                false => Fault::Stall(2),
            })));
        }
        let tenant = bed.tenant().await;
        let users = [ALICE.to_owned(), stranger(&tenant)];
        let writers =
            users.map(|user| tokio::spawn(write(tenant.clone(), user, round * 1_000_000)));
        let mut watcher = tenant.follow(tenant.heads());
        let before = seen.len();
        while seen.len() < before + 100 {
            seen.extend(watcher.next().await.unwrap());
        }
        let shown = watcher.cursor().clone();
        bed.crash().await;
        for writer in &writers {
            writer.abort();
        }

        let tenant = bed.tenant().await;
        assert!(tenant.heads().reached(&shown), "round {round}");
        let mut log = Vec::new();
        let mut follower = tenant.follow(Heads::zero(tenant.lanes()));
        while !follower.cursor().reached(&tenant.heads()) {
            log.extend(follower.ready().await.unwrap());
        }
        for one in &seen {
            assert!(log.contains(one), "round {round}: {one:?}");
            for record in &one.records {
                let n = u64::from_be_bytes(record.body.as_slice().try_into().unwrap());
                let key = NoteKey(record.subject.clone(), n);
                let row = tenant.reader().get::<Notes>(&key).await.unwrap();
                assert_eq!(row.map(|row| row.pos), Some(one.pos), "round {round}: {n}");
            }
        }
    }
}
