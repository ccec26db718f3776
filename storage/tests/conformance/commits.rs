//! Commits: whole or not at all, on conditions, fenced, in order.

use comity_storage::{At, CommitError, Expect, Home, Range, TenantId};

use crate::bed::{
    ALICE, Bed, Bodies, MarkKey, Marks, NoteKey, Notes, key, lane, note, put, read, stranger,
};

conformance! {
    a_batch_is_whole_or_not_at_all
    conditions_see_what_is_appended
    a_removed_range_is_gone_for_what_comes_after
    only_rows_of_the_lane_are_taken
    an_earlier_owner_is_fenced_and_nobody_else
    racing_writers_lose_no_update
    what_was_answered_outlives_a_crash
    e9_tenants_are_apart
    rows_may_be_large_and_keys_up_to_512_bytes
    keys_do_not_depend_on_the_number_of_lanes
}

/// Law 1: rows of several families, the log record and the position commit together or not at all.
async fn a_batch_is_whole_or_not_at_all(mut bed: Bed) {
    let tenant = bed.tenant().await;
    let lane = lane(&tenant);
    let batch = |n: u64| {
        let mut batch = lane.batch();
        batch
            .put::<Notes>(&key(n), &note(n))
            .put::<Bodies>(&key(n), &vec![7; 1000].into())
            .put::<Marks>(&MarkKey(ALICE.into(), At::Commit), &());
        batch
    };
    let pos = lane.commit(batch(1)).await.unwrap();
    let mut refused = batch(2);
    refused.expect::<Notes>(&key(1), Expect::Absent);
    let outcome = lane.commit(refused).await;
    assert!(
        matches!(outcome, Err(CommitError::Conflict("notes"))),
        "{outcome:?}"
    );
    for crashed in [false, true] {
        if crashed {
            bed.crash().await;
        }
        let tenant = bed.tenant().await;
        let reader = tenant.reader();
        assert_eq!(read(&tenant, 1).await.unwrap().pos, pos);
        assert_eq!(
            reader.get::<Bodies>(&key(1)).await.unwrap().unwrap().value,
            vec![7; 1000]
        );
        assert!(read(&tenant, 2).await.is_none());
        assert!(reader.get::<Bodies>(&key(2)).await.unwrap().is_none());
        let range = Range::of(Home::User(ALICE), |k| {
            k.str(ALICE);
        });
        let marks = reader.scan::<Marks>(range).await.unwrap();
        let marks: Vec<_> = marks.into_iter().map(|(key, _)| key.1).collect();
        assert_eq!(marks, [At::Is(pos)]);
    }
}

/// data-model.md, Commits: asserts are checked one commit at a time against store and overlay.
async fn conditions_see_what_is_appended(bed: Bed) {
    let tenant = bed.tenant().await;
    let lane = lane(&tenant);
    let write = async |n: u64, expect: Expect, text: Option<&str>| {
        let mut batch = lane.batch();
        batch.expect::<Notes>(&key(n), expect);
        match text {
            Some(text) => batch.put::<Notes>(&key(n), &note(text)),
            None => batch.delete::<Notes>(&key(n)),
        };
        lane.append(batch).await
    };
    let first = write(1, Expect::Absent, Some("a")).await.unwrap();
    let second = write(1, Expect::At(first.pos), Some("b")).await.unwrap();
    let stale = write(1, Expect::At(first.pos), Some("c")).await;
    assert!(matches!(stale, Err(CommitError::Conflict("notes"))));
    let third = write(1, Expect::At(second.pos), None).await.unwrap();
    let fourth = write(1, Expect::Absent, Some("d")).await.unwrap();
    // The owner sees it at once; it is one with what is stored.
    let row = lane.reader().get::<Notes>(&key(1)).await.unwrap().unwrap();
    assert_eq!((row.pos, row.value), (fourth.pos, note("d")));
    for appended in [first, second, third, fourth] {
        appended.durable().await.unwrap();
    }
    assert_eq!(read(&tenant, 1).await.unwrap().value, note("d"));
}

/// `delete_all` hides rows that only the engine has as well as those that are only appended.
async fn a_removed_range_is_gone_for_what_comes_after(mut bed: Bed) {
    let tenant = bed.tenant().await;
    let lane = lane(&tenant);
    let other = NoteKey("@alice:localhosu".into(), 1);
    let stored = put(&tenant, 1, "stored").await;
    let mut batch = lane.batch();
    batch.put::<Notes>(&key(2), &note("appended"));
    let appended = lane.append(batch).await.unwrap();
    let mut batch = lane.batch();
    batch.delete_all::<Notes>(Home::User(ALICE), |k| {
        k.str(ALICE);
    });
    batch.put::<Notes>(&key(3), &note("in the same batch"));
    lane.append(batch).await.unwrap();
    let whole = || {
        Range::of(Home::User(ALICE), |k| {
            k.str(ALICE);
        })
    };
    let found = lane.reader().scan::<Notes>(whole().limit(1)).await.unwrap();
    assert_eq!(found[0].0, key(3));
    let found = lane
        .reader()
        .scan::<Notes>(whole().reverse().limit(2))
        .await
        .unwrap();
    assert_eq!(found.len(), 1);
    for (n, pos) in [(1, stored), (2, appended.pos)] {
        let mut batch = lane.batch();
        batch.expect::<Notes>(&key(n), Expect::At(pos));
        assert!(matches!(
            lane.append(batch).await,
            Err(CommitError::Conflict(_))
        ));
    }
    let mut batch = lane.batch();
    batch
        .expect::<Notes>(&key(1), Expect::Absent)
        .put::<Notes>(&key(1), &note("again"));
    lane.commit(batch).await.unwrap();
    bed.crash().await;
    let tenant = bed.tenant().await;
    let found = tenant.reader().scan::<Notes>(whole()).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|(key, _)| key.1).collect();
    assert_eq!(found, [1, 3]);
    assert!(
        tenant
            .reader()
            .get::<Notes>(&other)
            .await
            .unwrap()
            .is_none()
    );
}

/// Law 1, threats.md E9: a batch holds rows of its own lane and tenant, and keys that every engine takes.
async fn only_rows_of_the_lane_are_taken(bed: Bed) {
    let store = bed.store();
    let tenant = store.tenant(TenantId(1)).await.unwrap();
    let other = store.tenant(TenantId(2)).await.unwrap();
    let lane = lane(&tenant);
    let mut batch = lane.batch();
    batch.put::<Notes>(&NoteKey(stranger(&tenant), 1), &note("astray"));
    let outcome = lane.commit(batch).await;
    assert_eq!(bed.lanes == 1, outcome.is_ok());
    if let Err(error) = outcome {
        assert!(matches!(error, CommitError::WrongLane { .. }));
    }
    let outcome = lane.commit(crate::bed::lane(&other).batch()).await;
    assert!(matches!(outcome, Err(CommitError::WrongTenant)));
    let mut batch = lane.batch();
    batch.expect::<Marks>(&MarkKey(ALICE.into(), At::Is(1)), Expect::At(1));
    assert!(matches!(
        lane.commit(batch).await,
        Err(CommitError::Unstamped("marks"))
    ));
}

/// Law 3: whoever takes the lane ends the claims before; other tenants' commits in the same group go on.
async fn an_earlier_owner_is_fenced_and_nobody_else(bed: Bed) {
    let first = bed.store();
    let one = first.tenant(TenantId(1)).await.unwrap();
    let two = first.tenant(TenantId(2)).await.unwrap();
    put(&one, 1, "mine").await;
    let taken = bed.tenant().await;
    let late = async {
        let mut batch = lane(&one).batch();
        batch.put::<Notes>(&key(1), &note("late"));
        lane(&one).commit(batch).await
    };
    let (late, theirs, new) = tokio::join!(late, put(&two, 1, "theirs"), put(&taken, 2, "new"));
    assert!(matches!(late, Err(CommitError::Fenced)), "{late:?}");
    assert!(theirs > 0 && new > 0);
    assert_eq!(read(&taken, 1).await.unwrap().value, note("mine"));
    // It stays so.
    let again = lane(&one).commit(lane(&one).batch()).await;
    assert!(matches!(again, Err(CommitError::Fenced)));
}

/// data-model.md, Commits: read, decide, commit on the condition; who loses reads again.
async fn racing_writers_lose_no_update(bed: Bed) {
    let tenant = bed.tenant().await;
    put(&tenant, 1, "0").await;
    let count = async || {
        for _ in 0..10 {
            loop {
                let lane = lane(&tenant);
                let row = tenant
                    .reader()
                    .get::<Notes>(&key(1))
                    .await
                    .unwrap()
                    .unwrap();
                let next = row.value.0.parse::<u32>().unwrap() + 1;
                let mut batch = lane.batch();
                batch.expect::<Notes>(&key(1), Expect::At(row.pos));
                batch.put::<Notes>(&key(1), &note(next));
                match lane.commit(batch).await {
                    Ok(_) => break,
                    Err(CommitError::Conflict("notes")) => tokio::task::yield_now().await,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    };
    tokio::join!(count(), count(), count(), count());
    assert_eq!(read(&tenant, 1).await.unwrap().value, note(40));
}

/// Law 4: what was answered is there after the process is gone, and positions go on from there.
async fn what_was_answered_outlives_a_crash(mut bed: Bed) {
    for round in 0..3u64 {
        let tenant = bed.tenant().await;
        for n in 0..round * 20 {
            assert_eq!(read(&tenant, n).await.unwrap().value, note(n));
        }
        let before = tenant.heads();
        for n in round * 20..(round + 1) * 20 {
            let pos = put(&tenant, n, &n.to_string()).await;
            assert!(pos > before.get(lane(&tenant).lane()));
        }
        // In flight when it ends: may be there or not.
        let mut batch = lane(&tenant).batch();
        batch.put::<Notes>(&key(1000 + round), &note("in flight"));
        drop(lane(&tenant).append(batch).await.unwrap());
        bed.crash().await;
    }
}

/// threats.md E9: the same names under another tenant are other rows.
async fn e9_tenants_are_apart(bed: Bed) {
    let store = bed.store();
    let one = store.tenant(TenantId(1)).await.unwrap();
    let two = store.tenant(TenantId(256)).await.unwrap();
    put(&one, 1, "one").await;
    assert!(read(&two, 1).await.is_none());
    put(&two, 1, "two").await;
    let mut batch = lane(&two).batch();
    batch.delete_all::<Notes>(Home::User(ALICE), |_| {});
    lane(&two).commit(batch).await.unwrap();
    assert!(read(&two, 1).await.is_none());
    assert_eq!(read(&one, 1).await.unwrap().value, note("one"));
    let all = Range::everywhere(|_| {});
    assert_eq!(one.reader().scan::<Notes>(all).await.unwrap().len(), 1);
}

async fn rows_may_be_large_and_keys_up_to_512_bytes(mut bed: Bed) {
    let tenant = bed.tenant().await;
    let large: Vec<u8> = (0..3_000_000u32).map(|n| (n * 31) as u8).collect();
    // Tenant 4, tag 2, end of the name 2, number 8.
    let longest = |n: usize| NoteKey("x".repeat(n - 16), 1);
    let lane = tenant.lane(Home::User(&longest(512).0));
    let mut batch = lane.batch();
    batch.put::<Bodies>(&longest(512), &large.clone().into());
    lane.commit(batch).await.unwrap();
    let mut batch = tenant.lane(Home::User(&longest(513).0)).batch();
    batch.put::<Bodies>(&longest(513), &vec![1].into());
    let outcome = tenant.lane(Home::User(&longest(513).0)).commit(batch).await;
    assert!(matches!(outcome, Err(CommitError::KeyTooLong(513))));
    bed.crash().await;
    let tenant = bed.tenant().await;
    let row = tenant
        .reader()
        .get::<Bodies>(&longest(512))
        .await
        .unwrap()
        .unwrap();
    assert!(row.value == large);
}

/// data-model.md, Lanes: growth doubles N and rewrites no row.
async fn keys_do_not_depend_on_the_number_of_lanes(bed: Bed) {
    use comity_storage::{Family, engine::Scan};
    // As many lanes as there may be.
    let other = Bed::new(crate::bed::Kind::Memory, 64).await.unwrap();
    let mut stored = Vec::new();
    for bed in [&bed, &other] {
        let tenant = bed.tenant().await;
        for user in ["@a:x", "@b:x", "@c:x", "@d:x"] {
            let lane = tenant.lane(Home::User(user));
            let mut batch = lane.batch();
            batch.put::<Notes>(&NoteKey(user.into(), 1), &note(user));
            lane.commit(batch).await.unwrap();
        }
        // Each under its slot: where an engine keeps it doesn't depend on N either.
        let scans: Vec<Scan> = ["@a:x", "@b:x", "@c:x", "@d:x"]
            .iter()
            .map(|user| Scan {
                family: Family::Hot,
                slot: Some(Home::User(user).slot()),
                from: b"\0\0\0\x01zn".as_slice().into(),
                to: b"\0\0\0\x01zo".as_slice().into(),
                reverse: false,
                limit: usize::MAX,
            })
            .collect();
        let rows = bed.engine.scan_many(&scans).await.unwrap();
        let mut keys: Vec<_> = rows.into_iter().flatten().map(|(key, _)| key).collect();
        keys.sort();
        keys.dedup();
        stored.push(keys);
    }
    assert_eq!(stored[0].len(), 4);
    assert_eq!(stored[0], stored[1]);
}
