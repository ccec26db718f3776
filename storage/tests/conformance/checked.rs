//! `check`: a store as this crate leaves it has nothing to find; what is damaged is found.

use comity_storage::{
    Engine, Family, Home, Registered, Tenant, TenantId,
    check::{self, Finding},
    engine::{Condition, Fence, Op, RowKey, Write},
    table::collisions,
};

use crate::bed::{ALICE, Bed, Bodies, Kind, Marks, Notes, key, lane, note, put, stranger};

conformance! {
    a_store_in_order_has_nothing_to_find
}

fn tables() -> Vec<Registered> {
    vec![
        Registered::of::<Notes>(),
        Registered::of::<Bodies>(),
        Registered::of::<Marks>(),
    ]
}

async fn findings(engine: &Engine) -> Vec<String> {
    let mut found: Vec<Finding> = Vec::new();
    let mut note = |finding| found.push(finding);
    check::tenant(engine, TenantId(1), &tables(), &mut note)
        .await
        .unwrap();
    check::strays(engine, &[TenantId(1)], &mut note)
        .await
        .unwrap();
    found
        .into_iter()
        .map(|finding| finding.to_string())
        .collect()
}

async fn a_store_in_order_has_nothing_to_find(mut bed: Bed) {
    bed.sync = false;
    for round in 0..3 {
        let tenant = bed.tenant().await;
        let user = stranger(&tenant);
        for n in 0..600 {
            put(&tenant, n, "text").await;
        }
        let writer = tenant.lane(Home::User(&user));
        writer.commit(writer.batch()).await.unwrap();
        if round == 1 {
            tenant.close().await.unwrap();
        }
        bed.crash().await;
        assert_eq!(findings(&bed.engine).await, Vec::<String>::new());
    }
}

/// Writes below the tables, where no batch would let it.
async fn damage(bed: &Bed, tenant: &Tenant, ops: Vec<Op>) {
    let me = lane(tenant).lane();
    let hot = |key: Vec<u8>| RowKey {
        family: Family::Hot,
        slot: comity_storage::Slot::new(me.0),
        key: key.into(),
    };
    let row = hot([&[0, 0, 0, 1], b"L0".as_slice(), &[me.0]].concat());
    let epoch = bed
        .engine
        .get_many(std::slice::from_ref(&row))
        .await
        .unwrap();
    let write = Write {
        fence: Fence {
            tenant: TenantId(1),
            lane: me,
            row,
            epoch: epoch[0].clone().unwrap(),
        },
        first: 0,
        last: 0,
        conditions: Vec::<(RowKey, Condition)>::new(),
        ops,
    };
    bed.engine.apply(vec![write].into()).await.unwrap();
}

#[tokio::test]
async fn what_is_damaged_is_found() {
    let slot = Home::User(ALICE).slot();
    let row = |family, key: &[u8]| RowKey {
        family,
        slot,
        key: key.to_vec().into(),
    };
    let mine = |n: u64| {
        [
            &[0, 0, 0, 1],
            b"zn".as_slice(),
            ALICE.as_bytes(),
            &[0, 0],
            &n.to_be_bytes(),
        ]
        .concat()
    };
    let value = |pos: u64| [&[1], pos.to_be_bytes().as_slice(), &[1, b'x']].concat();
    let cases: Vec<(Op, &str)> = vec![
        (
            Op::Put(row(Family::Hot, b"\0\0\0\x01??"), "x".into()),
            "no table has this tag",
        ),
        (
            Op::Put(row(Family::Hot, b"\0\0\0\x02zn"), "x".into()),
            "belongs to no tenant",
        ),
        (
            Op::Put(row(Family::Index, &mine(9)), value(1).into()),
            "belongs to family hot",
        ),
        (
            Op::Put(row(Family::Hot, &mine(9)), value(1 << 40).into()),
            "beyond the lane's head",
        ),
        (
            Op::Put(row(Family::Hot, &mine(9)), "\u{9}".into()),
            "format is not known",
        ),
        (
            Op::Put(
                row(Family::Hot, &mine(9)),
                [value(1), vec![0]].concat().into(),
            ),
            "more than its fields",
        ),
        (
            Op::Put(
                row(Family::Hot, &[mine(9), vec![0]].concat()),
                value(1).into(),
            ),
            "more than its fields",
        ),
    ];
    for lanes in [1, 4] {
        for (op, said) in &cases {
            let bed = Bed::new(Kind::Memory, lanes).await.unwrap();
            let tenant = bed.tenant().await;
            put(&tenant, 1, "text").await;
            damage(&bed, &tenant, vec![op.clone()]).await;
            let found = findings(&bed.engine).await;
            assert!(
                found.len() == 1 && found[0].contains(said),
                "{lanes} lanes, {said}: {found:?}"
            );
        }
        // A log row gone, and the last one.
        for (back, said) in [(1, "commits are missing"), (0, "its log ends at")] {
            let bed = Bed::new(Kind::Memory, lanes).await.unwrap();
            let tenant = bed.tenant().await;
            let mut last = 0;
            for n in 0..3 {
                last = put(&tenant, n, "text").await;
            }
            let me = lane(&tenant).lane();
            let log = [
                &[0, 0, 0, 1],
                b"L.".as_slice(),
                &[me.0],
                &(last - back).to_be_bytes(),
            ]
            .concat();
            let gone = RowKey {
                family: Family::Log,
                slot: comity_storage::Slot::new(me.0),
                key: log.into(),
            };
            damage(&bed, &tenant, vec![Op::Delete(gone)]).await;
            let found = findings(&bed.engine).await;
            assert!(
                found.len() == 1 && found[0].contains(said),
                "{lanes} lanes, {said}: {found:?}"
            );
        }
        // A row in another slot than its home's.
        let bed = Bed::new(Kind::Memory, lanes).await.unwrap();
        let tenant = bed.tenant().await;
        let mut batch = lane(&tenant).batch();
        batch.put::<Notes>(&key(1), &note("text"));
        let pos = lane(&tenant).commit(batch).await.unwrap();
        let astray = RowKey {
            slot: comity_storage::Slot::new(slot.number() + 1),
            ..row(Family::Hot, &mine(1))
        };
        damage(&bed, &tenant, vec![Op::Put(astray, value(pos).into())]).await;
        let found = findings(&bed.engine).await;
        assert!(
            found.len() == 1 && found[0].contains("not in its slot"),
            "{found:?}"
        );
    }
}

#[test]
fn tables_with_one_tag_are_named() {
    assert!(collisions(&tables()).is_empty());
    let twice = [Registered::of::<Notes>(), Registered::of::<Notes>()];
    assert_eq!(collisions(&twice), [("notes", "notes")]);
}
