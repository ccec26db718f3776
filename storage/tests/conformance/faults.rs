//! What the memory engine can do that no real one does on demand: refuse, lose the answer, fail.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use comity_runtime::Runtime;
use comity_storage::{
    CommitError, Expect, Home, Lanes, Options, Range, Store, TenantId, engine::memory::Fault,
};

use crate::bed::{ALICE, Bed, Kind, NoteKey, Notes, key, lane, note, put, read, stranger};

/// The next apply meets the fault, and no other.
fn once(bed: &Bed, fault: Fault) {
    let mut next = Some(fault);
    bed.memory()
        .set_faults(Some(Box::new(move |apply| match apply {
            true => next.take().unwrap_or(Fault::None),
            false => Fault::None,
        })));
}

/// data-model.md, Commits: after `Unknown` the lane claims anew, rereads its head and compares.
#[tokio::test]
async fn after_an_unknown_outcome_the_lane_finds_out() {
    for lanes in [1, 4] {
        for (fault, there) in [(Fault::UnknownApplied, true), (Fault::UnknownLost, false)] {
            let mut bed = Bed::new(Kind::Memory, lanes).await.unwrap();
            let tenant = bed.tenant().await;
            let other = NoteKey(stranger(&tenant), 1);
            once(&bed, fault);
            let mut batch = lane(&tenant).batch();
            batch.put::<Notes>(&key(1), &note("which?"));
            let outcome = lane(&tenant).commit(batch).await;
            match outcome {
                Ok(_) => assert!(there),
                Err(CommitError::NotApplied(_)) => assert!(!there),
                other => panic!("{other:?}"),
            }
            assert_eq!(read(&tenant, 1).await.is_some(), there);
            // The lane goes on, and so do the others.
            let writer = tenant.lane(Home::User(&other.0));
            let mut batch = writer.batch();
            batch.put::<Notes>(&other, &note("other"));
            writer.commit(batch).await.unwrap();
            put(&tenant, 2, "next").await;
            bed.crash().await;
            let tenant = bed.tenant().await;
            assert_eq!(read(&tenant, 1).await.is_some(), there);
            assert!(read(&tenant, 2).await.is_some());
        }
    }
}

/// data-model.md, Commits: a lane of which nothing can be learned is in doubt, takes nothing, and
/// finds out with the first request that reaches the store; then what is there is shown.
#[tokio::test(start_paused = true)]
async fn a_lane_in_doubt_finds_out_later() {
    for lanes in [1, 4] {
        for there in [true, false] {
            let mut bed = Bed::new(Kind::Memory, lanes).await.unwrap();
            let tenant = bed.tenant().await;
            let (before, disk) = (tenant.heads(), bed.memory().clone());
            once(&bed, Fault::CutOff(there));
            let mut batch = lane(&tenant).batch();
            batch.put::<Notes>(&key(1), &note("which?"));
            let outcome = lane(&tenant).commit(batch).await;
            assert!(
                matches!(outcome, Err(CommitError::Unknown(_))),
                "{outcome:?}"
            );
            let refused = lane(&tenant).commit(lane(&tenant).batch()).await;
            assert!(
                matches!(refused, Err(CommitError::NotApplied(_))),
                "{refused:?}"
            );
            assert_eq!(tenant.heads(), before);
            disk.reconnect();
            put(&tenant, 2, "on").await;
            assert_eq!(read(&tenant, 1).await.is_some(), there);
            let logged = tenant.follow(before).next().await.unwrap();
            assert_eq!(logged.len(), 1 + usize::from(there));
            bed.crash().await;
            let tenant = bed.tenant().await;
            assert_eq!(read(&tenant, 1).await.is_some(), there);
        }
    }
}

/// Law 2: a follower that has one lane at hand and can't read another has stepped over nothing in either.
#[tokio::test(start_paused = true)]
async fn a_follower_that_failed_misses_nothing() {
    // It takes two lanes.
    let mut bed = Bed::new(Kind::Memory, 4).await.unwrap();
    let tenant = bed.tenant().await;
    let mut users = [ALICE.to_owned(), stranger(&tenant)];
    users.sort_by_key(|user| tenant.lane(Home::User(user)).lane().0);
    let [first, last] = users;
    let write = async |tenant: &comity_storage::Tenant, user: &str| {
        let writer = tenant.lane(Home::User(user));
        let mut batch = writer.batch();
        batch.put::<Notes>(&NoteKey(user.to_owned(), 1), &note("news"));
        writer.commit(batch).await
    };
    let before = tenant.heads();
    write(&tenant, &last).await.unwrap();
    bed.crash().await;
    // Of the last lane's news nothing is remembered any more, the first lane's are.
    let tenant = bed.tenant().await;
    let lane = tenant.lane(Home::User(&first)).lane();
    let from = before.with(lane, tenant.heads().get(lane));
    write(&tenant, &first).await.unwrap();
    once(&bed, Fault::CutOff(false));
    write(&tenant, &last).await.unwrap_err();
    let mut follower = tenant.follow(from.clone());
    assert!(follower.ready().await.is_err());
    assert_eq!(*follower.cursor(), from);
    bed.memory().reconnect();
    let told = follower.ready().await.unwrap();
    let told: Vec<u8> = told.iter().map(|logged| logged.lane.0).collect();
    let lanes = [&first, &last].map(|user| tenant.lane(Home::User(user)).lane().0);
    assert_eq!(told, lanes);
}

/// Who stops waiting before the batch has its position has written nothing: others have read without it since, and may build on
/// what they read.
#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_is_not_appended() {
    for lanes in [1, 4] {
        let bed = Bed::new(Kind::Memory, lanes).await.unwrap();
        let tenant = bed.tenant().await;
        once(&bed, Fault::CutOff(false));
        let writer = lane(&tenant);
        let mut batch = writer.batch();
        batch.put::<Notes>(&key(1), &note("left alone"));
        let busy = writer.append(writer.batch()).await.unwrap();
        // The committer looks for the lost write, and takes nothing meanwhile.
        tokio::time::sleep(Duration::from_millis(10)).await;
        let given_up = tokio::time::timeout(Duration::from_millis(10), writer.append(batch)).await;
        assert!(given_up.is_err());
        bed.memory().reconnect();
        busy.durable().await.unwrap_err();
        put(&tenant, 2, "on").await;
        assert_eq!(read(&tenant, 1).await, None);
    }
}

/// Law 2: a follower that could not read one lane has skipped nothing of another that it had read before.
#[tokio::test(start_paused = true)]
async fn a_failed_read_of_one_lane_skips_nothing_of_another() {
    // It takes two lanes.
    let bed = Bed::new(Kind::Memory, 4).await.unwrap();
    let tenant = bed.tenant().await;
    let mut users = [ALICE.to_owned(), stranger(&tenant)];
    users.sort_by_key(|user| tenant.lane(Home::User(user)).lane());
    let [first, last] = users.map(|user| tenant.lane(Home::User(&user)).clone());
    let mut follower = tenant.follow(tenant.heads());
    // The first lane's commits are remembered, so they are read without the store; of the last there are too many.
    let mut on_the_way = vec![first.append(first.batch()).await.unwrap()];
    for _ in 0..1100 {
        on_the_way.push(last.append(last.batch()).await.unwrap());
    }
    for appended in on_the_way {
        appended.durable().await.unwrap();
    }
    once(&bed, Fault::CutOff(false));
    first.commit(first.batch()).await.unwrap_err();
    follower.next().await.unwrap_err();
    bed.memory().reconnect();
    let mut seen = [0, 0];
    while seen != [1, 1100] {
        for logged in follower.next().await.unwrap() {
            seen[usize::from(logged.lane == last.lane())] += 1;
        }
    }
}

/// data-model.md, Commits: what was chained on a lost commit is dropped with it, its position is
/// not given again, and a condition on it never holds of another row.
#[tokio::test(start_paused = true)]
async fn what_was_chained_on_a_lost_commit_is_lost() {
    for lanes in [1, 4] {
        let bed = Bed::new(Kind::Memory, lanes).await.unwrap();
        let tenant = bed.tenant().await;
        let writer = lane(&tenant);
        // The disk is busy with one commit while two others are chained behind it, and refuses those.
        let mut applies = 0;
        bed.memory().set_faults(Some(Box::new(move |apply| {
            applies += u32::from(apply);
            match applies {
                1 if apply => Fault::Stall(1000),
                2 if apply => Fault::NotApplied,
                _ => Fault::None,
            }
        })));
        let holds = writer.append(writer.batch()).await.unwrap();
        let mut first = writer.batch();
        first
            .expect::<Notes>(&key(1), Expect::Absent)
            .put::<Notes>(&key(1), &note("a"));
        let first = writer.append(first).await.unwrap();
        let mut second = writer.batch();
        second
            .expect::<Notes>(&key(1), Expect::At(first.pos))
            .put::<Notes>(&key(1), &note("b"));
        let second = writer.append(second).await.unwrap();
        let (lost, positions) = (first.pos, [first.pos, second.pos]);
        holds.durable().await.unwrap();
        for appended in [first, second] {
            assert!(matches!(
                appended.durable().await,
                Err(CommitError::NotApplied(_))
            ));
        }
        bed.memory().set_faults(None);
        assert!(
            writer
                .reader()
                .get::<Notes>(&key(1))
                .await
                .unwrap()
                .is_none()
        );
        let mut again = writer.batch();
        again.put::<Notes>(&key(1), &note("another"));
        let pos = writer.commit(again).await.unwrap();
        assert!(!positions.contains(&pos));
        let mut stale = writer.batch();
        stale
            .expect::<Notes>(&key(1), Expect::At(lost))
            .put::<Notes>(&key(1), &note("stale"));
        assert!(matches!(
            writer.commit(stale).await,
            Err(CommitError::Conflict("notes"))
        ));
        assert_eq!(tenant.heads().get(writer.lane()), pos);
    }
}

/// data-model.md, Commits: a sync that fails ends it: nothing is answered or shown afterwards.
#[tokio::test]
async fn a_failed_sync_is_the_end() {
    for lanes in [1, 4] {
        let bed = Bed::new(Kind::Memory, lanes).await.unwrap();
        let told = Arc::new(AtomicU32::new(0));
        let tell = told.clone();
        let options = Options {
            lanes: Lanes::new(lanes).unwrap(),
            sync: true,
            on_fatal: Arc::new(move |_| {
                tell.fetch_add(1, Ordering::Relaxed);
            }),
            appliers: Vec::new(),
        };
        let store = Store::new(bed.engine.clone(), options, Runtime::system());
        let tenant = store.tenant(TenantId(1)).await.unwrap();
        let before = tenant.heads();
        let mut failed = false;
        bed.memory().set_faults(Some(Box::new(move |apply| {
            if apply || std::mem::replace(&mut failed, true) {
                Fault::None
            } else {
                Fault::UnknownLost
            }
        })));
        let append = async |n| {
            let mut batch = lane(&tenant).batch();
            batch.put::<Notes>(&key(n), &note("never"));
            lane(&tenant).append(batch).await
        };
        let (one, two) = (append(1).await.unwrap(), append(2).await);
        assert!(matches!(one.durable().await, Err(CommitError::Unknown(_))));
        if let Ok(two) = two {
            assert!(two.durable().await.is_err());
        }
        assert!(append(3).await.is_err());
        assert_eq!(told.load(Ordering::Relaxed), 1);
        assert_eq!(tenant.heads(), before);
    }
}

/// Under a storm of faults the answers stay true: what was answered is there, what was refused is
/// not, positions rise, other writers of the lane see no ghost.
#[tokio::test]
async fn answers_stay_true_under_a_storm_of_faults() {
    for lanes in [1, 4] {
        for seed in 0..20 {
            let mut bed = Bed::new(Kind::Memory, lanes).await.unwrap();
            let random = Runtime::simulated(seed);
            let random = random.random().clone();
            let tenant = bed.tenant().await;
            let dice = random.clone();
            bed.memory()
                .set_faults(Some(Box::new(move |apply| match dice.below(5) {
                    0 if apply => Fault::NotApplied,
                    1 if apply => Fault::UnknownApplied,
                    2 if apply => Fault::UnknownLost,
                    _ => Fault::None,
                })));
            let answered = Mutex::new(std::collections::BTreeMap::new());
            let writer = async |user: &str| {
                for n in 0..30 {
                    let writer = tenant.lane(Home::User(user));
                    let mut batch = writer.batch();
                    let key = NoteKey(user.into(), n);
                    batch
                        .expect::<Notes>(&key, Expect::Absent)
                        .put::<Notes>(&key, &note(n));
                    let outcome = writer.commit(batch).await;
                    answered
                        .lock()
                        .unwrap()
                        .insert((user.to_owned(), n), outcome);
                }
            };
            let other = stranger(&tenant);
            tokio::join!(writer(ALICE), writer(&other));
            bed.memory().set_faults(None);
            bed.crash().await;
            let tenant = bed.tenant().await;
            for ((user, n), outcome) in answered.into_inner().unwrap() {
                let row = tenant
                    .reader()
                    .get::<Notes>(&NoteKey(user, n))
                    .await
                    .unwrap();
                match outcome {
                    Ok(pos) => assert_eq!(row.unwrap().pos, pos, "seed {seed}"),
                    Err(CommitError::NotApplied(_)) => assert!(row.is_none(), "seed {seed}"),
                    Err(error) => panic!("seed {seed}: {error}"),
                }
            }
        }
    }
}

/// data-model.md, Commits: the owner reads, and its conditions see, what is only appended as if it
/// were written, whatever the disk is busy with; limits count what is left.
#[tokio::test(start_paused = true)]
async fn while_the_disk_is_busy_the_owner_is_ahead() {
    for lanes in [1, 4] {
        let bed = Bed::new(Kind::Memory, lanes).await.unwrap();
        let tenant = bed.tenant().await;
        let writer = lane(&tenant);
        for n in 0..20 {
            put(&tenant, n, "stored").await;
        }
        once(&bed, Fault::Stall(1000));
        let holds = writer.append(writer.batch()).await.unwrap();
        let mut points = writer.batch();
        for n in 0..8 {
            points.delete::<Notes>(&key(n));
        }
        points.put::<Notes>(&key(30), &note("appended"));
        let points = writer.append(points).await.unwrap();
        let scan = async |reverse: bool, limit| -> Vec<u64> {
            let range = Range::of(Home::User(ALICE), |k| {
                k.str(ALICE);
            });
            let range = if reverse { range.reverse() } else { range };
            let rows = writer.reader().scan::<Notes>(range.limit(limit)).await;
            rows.unwrap().into_iter().map(|(key, _)| key.1).collect()
        };
        // The first stored rows are all removed: more must be read.
        assert_eq!(scan(false, 2).await, [8, 9]);
        assert_eq!(scan(true, 2).await, [30, 19]);
        assert_eq!(scan(false, 100).await.len(), 13);

        let mut range = writer.batch();
        range.delete_all::<Notes>(Home::User(ALICE), |k| {
            k.str(ALICE);
        });
        range.put::<Notes>(&key(25), &note("after"));
        let range = writer.append(range).await.unwrap();
        assert_eq!(scan(false, 1).await, [25]);
        assert_eq!(scan(true, 9).await, [25]);
        // Of one group with the removal: to be checked against it, not against what is stored.
        let mut again = writer.batch();
        again
            .expect::<Notes>(&key(9), Expect::Absent)
            .expect::<Notes>(&key(25), Expect::At(range.pos))
            .put::<Notes>(&key(9), &note("again"));
        let again = writer.append(again).await.unwrap();
        for appended in [holds, points, range, again] {
            appended.durable().await.unwrap();
        }
        assert_eq!(scan(false, 9).await, [9, 25]);
    }
}
