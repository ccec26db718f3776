//! Reads: ranges both ways, many at once, across slots, and never beyond what is published.

use std::time::Duration;

use comity_storage::{Home, Range, engine::memory::Fault};

use crate::bed::{ALICE, Bed, Bodies, Kind, NoteKey, Notes, key, lane, note, put, read};

conformance! {
    ranges_go_both_ways_with_limits
    many_keys_are_read_in_the_order_asked
    a_range_may_span_all_slots
    the_owner_reads_stored_and_appended_rows_as_one
}

fn notes(range: Vec<(NoteKey, comity_storage::Row<crate::bed::Note>)>) -> Vec<u64> {
    range.into_iter().map(|(key, _)| key.1).collect()
}

fn alice() -> Range {
    Range::of(Home::User(ALICE), |k| {
        k.str(ALICE);
    })
}

async fn ranges_go_both_ways_with_limits(mut bed: Bed) {
    let tenant = bed.tenant().await;
    let writer = lane(&tenant);
    let mut batch = writer.batch();
    for n in 0..300 {
        batch.put::<Notes>(&key(n * 2), &note(n));
    }
    writer.commit(batch).await.unwrap();
    // From memory, then from what a start finds on the disk.
    for _ in 0..2 {
        bed.crash().await;
        let tenant = bed.tenant().await;
        let scan = async |range: Range| notes(tenant.reader().scan::<Notes>(range).await.unwrap());
        let all: Vec<u64> = (0..300).map(|n| n * 2).collect();
        assert_eq!(scan(alice()).await, all);
        assert_eq!(
            scan(alice().reverse()).await,
            all.iter().rev().copied().collect::<Vec<_>>()
        );
        assert_eq!(scan(alice().limit(3)).await, [0, 2, 4]);
        assert_eq!(scan(alice().reverse().limit(3)).await, [598, 596, 594]);
        assert!(scan(alice().limit(0)).await.is_empty());
        let part = || {
            alice()
                .from(|k| {
                    k.u64(7);
                })
                .until(|k| {
                    k.u64(14);
                })
        };
        assert_eq!(scan(part()).await, [8, 10, 12]);
        assert_eq!(scan(part().reverse().limit(2)).await, [12, 10]);
        let none = alice()
            .from(|k| {
                k.u64(14);
            })
            .until(|k| {
                k.u64(7);
            });
        assert!(scan(none).await.is_empty());
    }
}

async fn many_keys_are_read_in_the_order_asked(mut bed: Bed) {
    let tenant = bed.tenant().await;
    for n in [3, 5, 250] {
        put(&tenant, n, &n.to_string()).await;
    }
    bed.crash().await;
    let tenant = bed.tenant().await;
    // More than are read where the caller stands; some of them twice, most of them not there.
    let asked: Vec<u64> = (0..400).rev().chain([5, 3, 5]).collect();
    let keys: Vec<NoteKey> = asked.iter().map(|n| key(*n)).collect();
    let found = tenant.reader().get_many::<Notes>(&keys).await.unwrap();
    assert_eq!(found.len(), asked.len());
    for (n, row) in asked.iter().zip(found) {
        let there = [3, 5, 250].contains(n);
        assert_eq!(row.map(|row| row.value), there.then(|| note(n)));
    }
    assert!(
        tenant
            .reader()
            .get_many::<Notes>(&[])
            .await
            .unwrap()
            .is_empty()
    );
}

/// data-model.md, Commits: a room list or a bare event id asks all slots in one `multi_scan`.
async fn a_range_may_span_all_slots(bed: Bed) {
    let tenant = bed.tenant().await;
    let mut users: Vec<String> = (0..40).map(|n| format!("@user{n}:localhost")).collect();
    users.sort();
    for user in &users {
        let writer = tenant.lane(Home::User(user));
        let mut batch = writer.batch();
        batch.put::<Notes>(&NoteKey(user.clone(), 1), &note(user));
        writer.commit(batch).await.unwrap();
    }
    let scan = async |range: Range| -> Vec<String> {
        let rows = tenant.reader().scan::<Notes>(range).await.unwrap();
        rows.into_iter().map(|(key, _)| key.0).collect()
    };
    assert_eq!(scan(Range::everywhere(|_| {})).await, users);
    assert_eq!(scan(Range::everywhere(|_| {}).limit(5)).await, users[..5]);
    let last = scan(Range::everywhere(|_| {}).reverse().limit(2)).await;
    assert_eq!(last, [users[39].clone(), users[38].clone()]);
}

/// A lane's own reader: what is appended lies over what is stored, limits and deletions included.
async fn the_owner_reads_stored_and_appended_rows_as_one(bed: Bed) {
    let tenant = bed.tenant().await;
    let writer = lane(&tenant);
    for n in 0..20 {
        put(&tenant, n, "stored").await;
    }
    let mut batch = writer.batch();
    for n in (0..20).filter(|n| n % 2 == 0) {
        batch.delete::<Notes>(&key(n));
    }
    batch
        .put::<Notes>(&key(1), &note("new"))
        .put::<Notes>(&key(100), &note("new"));
    let appended = writer.append(batch).await.unwrap();
    let reader = writer.reader();
    let odd: Vec<u64> = (0..20).filter(|n| n % 2 == 1).chain([100]).collect();
    assert_eq!(notes(reader.scan::<Notes>(alice()).await.unwrap()), odd);
    assert_eq!(
        notes(reader.scan::<Notes>(alice().limit(4)).await.unwrap()),
        [1, 3, 5, 7]
    );
    assert_eq!(
        notes(
            reader
                .scan::<Notes>(alice().reverse().limit(4))
                .await
                .unwrap()
        ),
        [100, 19, 17, 15]
    );
    let two = reader.get_many::<Notes>(&[key(0), key(1)]).await.unwrap();
    assert!(two[0].is_none() && two[1].as_ref().unwrap().value == note("new"));
    assert_eq!(two[1].as_ref().unwrap().pos, appended.pos);
    appended.durable().await.unwrap();
    assert_eq!(
        notes(tenant.reader().scan::<Notes>(alice()).await.unwrap()),
        odd
    );
    let none = tenant.reader().scan::<Bodies>(alice()).await.unwrap();
    assert!(none.is_empty());
}

/// Law 4: nothing is shown before it is durable. Here the disk takes a second for each sync.
#[tokio::test(start_paused = true)]
async fn heads_and_logs_wait_for_the_sync() {
    for lanes in [1, 4] {
        let bed = Bed::new(Kind::Memory, lanes).await.unwrap();
        let tenant = bed.tenant().await;
        let (before, me) = (tenant.heads(), lane(&tenant).lane());
        bed.memory().set_faults(Some(Box::new(|apply| match apply {
            true => Fault::None,
            false => Fault::Stall(1000),
        })));
        let mut batch = lane(&tenant).batch();
        batch.put::<Notes>(&key(1), &note("later"));
        let appended = lane(&tenant).append(batch).await.unwrap();
        tokio::time::sleep(Duration::from_millis(900)).await;
        // The engine has the row, and its position tells that it is not yet to be shown.
        assert_eq!(read(&tenant, 1).await.unwrap().pos, appended.pos);
        assert!(
            tenant.heads() == before && tenant.reader().bound(Home::User(ALICE)) < appended.pos
        );
        assert!(
            tenant
                .follow(before.clone())
                .ready()
                .await
                .unwrap()
                .is_empty()
        );
        let settled = tenant.settled(Home::User(ALICE), appended.pos);
        let soon = tokio::time::timeout(Duration::from_millis(50), settled).await;
        assert!(soon.is_err());
        let pos = appended.durable().await.unwrap();
        tenant.settled(Home::User(ALICE), pos).await;
        assert_eq!(tenant.heads().get(me), pos);
        assert_eq!(tenant.follow(before).ready().await.unwrap().len(), 1);
    }
}

/// RocksDB says of a row whose block isn't in memory that it may be there, in one case without saying that it doesn't know: as if
/// it were there and empty. After a start, next to each row that is on the disk, no row is made out of that.
#[tokio::test]
async fn what_is_cold_is_read_as_it_is() {
    const ROWS: u64 = 3_000;
    const NEAR: u64 = 100;
    let mut bed = Bed::new(Kind::Rocks, 4).await.unwrap();
    let tenant = bed.tenant().await;
    let writer = lane(&tenant);
    let text = "x".repeat(100);
    for chunk in 0..ROWS / 100 {
        let mut batch = writer.batch();
        for n in 0..100 {
            batch.put::<Notes>(&key((chunk * 100 + n) << 16), &note(&text));
        }
        writer.commit(batch).await.unwrap();
    }
    bed.crash().await;
    let reader = bed.tenant().await.reader();
    for n in 0..ROWS {
        let near: Vec<NoteKey> = (0..NEAR).map(|by| key((n << 16) + by)).collect();
        let found = reader.get_many::<Notes>(&near).await.unwrap();
        let there: Vec<bool> = found.iter().map(Option::is_some).collect();
        assert!(there[0] && !there[1..].contains(&true), "{n}");
    }
}
