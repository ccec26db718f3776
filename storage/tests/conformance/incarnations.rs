//! Starts after which something may be missing: law 12.

use comity_storage::{Home, TenantId};

use crate::bed::{ALICE, Bed, lane, put, read};

conformance! {
    with_fsync_an_unclean_start_loses_nothing
    without_fsync_an_unclean_start_begins_an_incarnation
    a_restore_begins_an_incarnation
    restores_of_one_backup_differ
}

const JUMP: u64 = 1 << 32;
const ALICES: TenantId = TenantId(1);

async fn with_fsync_an_unclean_start_loses_nothing(mut bed: Bed) {
    let tenant = bed.tenant().await;
    put(&tenant, 1, "kept").await;
    bed.crash().await;
    let tenant = bed.tenant().await;
    assert_eq!(tenant.birth().incarnation, 1);
    assert!(read(&tenant, 1).await.is_some());
}

/// Heads jump by 2^32 and never repeat, whether lanes were written in between or not; the old
/// heads are recorded.
async fn without_fsync_an_unclean_start_begins_an_incarnation(mut bed: Bed) {
    bed.sync = false;
    let tenant = bed.tenant().await;
    let pos = put(&tenant, 1, "perhaps").await;
    assert!(pos < JUMP);
    bed.crash().await;

    let tenant = bed.tenant().await;
    assert_eq!(tenant.birth().incarnation, 2);
    let recorded = tenant.birth().recorded.clone();
    let mut heads = tenant.heads();
    for (lane, recorded) in tenant.lanes().all().zip(&recorded) {
        assert!(*recorded < JUMP && heads.get(lane) >= recorded + JUMP);
    }
    bed.crash().await;

    // Nothing was written in most lanes: they must not stand where they stood.
    let tenant = bed.tenant().await;
    assert_eq!(tenant.birth().incarnation, 3);
    for lane in tenant.lanes().all() {
        assert!(tenant.heads().get(lane) >= heads.get(lane) + JUMP);
    }
    heads = tenant.heads();
    tenant.close().await.unwrap();
    drop(tenant);

    // A start after a close doubts nothing, and goes on where the lanes stood.
    bed.crash().await;
    let tenant = bed.tenant().await;
    assert_eq!(tenant.birth().incarnation, 3);
    assert!(tenant.heads().reached(&heads));
    let pos = put(&tenant, 2, "on").await;
    assert!(pos > heads.get(lane(&tenant).lane()));
    let before = heads;
    bed.crash().await;

    // What counts is how the last run wrote, not how this one will.
    bed.sync = true;
    let tenant = bed.tenant().await;
    assert_eq!(tenant.birth().incarnation, 4);
    let me = tenant.lanes().of(Home::User(ALICE).slot());
    assert!(tenant.heads().get(me) >= before.get(me) + JUMP);
    // The log says so too: what comes next is found from the old head on.
    let pos = put(&tenant, 3, "next").await;
    let mut follower = tenant.follow(before);
    let mut seen = 0;
    while seen < pos {
        let found = follower.next().await.unwrap();
        seen = found
            .iter()
            .filter(|l| l.lane == me)
            .map(|l| l.pos)
            .max()
            .unwrap_or(seen);
    }
    assert_eq!(seen, pos);
}

/// Whatever the last run said of its end: lanes begin beyond all that could have been given out since the backup, in an incarnation of
/// a later time than any that went on from it before; the next start goes on in it.
async fn a_restore_begins_an_incarnation(mut bed: Bed) {
    let tenant = bed.tenant().await;
    put(&tenant, 1, "kept").await;
    let heads = tenant.heads();
    tenant.close().await.unwrap();
    drop(tenant);
    bed.crash().await;

    let tenant = bed.store().restored(ALICES).await.unwrap();
    let birth = tenant.birth().clone();
    // More than one later: of what went on without this word, only one loss is recorded.
    assert!(birth.incarnation > 2, "{birth:?}");
    for (lane, recorded) in tenant.lanes().all().zip(&birth.recorded) {
        assert!(*recorded >= heads.get(lane) && tenant.heads().get(lane) >= recorded + JUMP);
        // Another restore of the same backup, in another incarnation, has none of these positions.
        assert!(tenant.heads().get(lane) >= u64::from(birth.incarnation - 1) << 23);
    }
    tenant.close().await.unwrap();
    drop(tenant);
    bed.crash().await;

    let tenant = bed.tenant().await;
    assert_eq!(tenant.birth().incarnation, birth.incarnation);
    assert!(read(&tenant, 1).await.is_some());
    tenant.close().await.unwrap();
    drop(tenant);

    // The same again: no later than the first, and another.
    let tenant = bed.store().restored(ALICES).await.unwrap();
    assert!(tenant.birth().incarnation > birth.incarnation);
}

/// The same backup put back again, however soon: no incarnation of the one is one of the other, nor has a lane a position of both.
/// Tenants with the same rows stand for the copies.
async fn restores_of_one_backup_differ(mut bed: Bed) {
    let copies = [1, 2, 3].map(TenantId);
    for copy in copies {
        let tenant = bed.store().tenant(copy).await.unwrap();
        put(&tenant, 1, "kept").await;
        tenant.close().await.unwrap();
    }
    bed.crash().await;
    let mut last: Option<(u32, u64)> = None;
    for copy in copies {
        let tenant = bed.store().restored(copy).await.unwrap();
        let first = put(&tenant, 2, "new").await;
        let birth = tenant.birth();
        if let Some((incarnation, pos)) = last {
            assert!(birth.incarnation > incarnation && first > pos, "{birth:?}");
        }
        last = Some((birth.incarnation, put(&tenant, 3, "newer").await));
        tenant.close().await.unwrap();
    }
}
