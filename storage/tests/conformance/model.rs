//! Random histories against a plain map: batches on conditions, removals of ranges, faults,
//! crashes with commits in flight. After each step the store reads as the map does, both ways.

use std::collections::BTreeMap;

use comity_storage::{
    Batch, CommitError, Engine, Expect, Home, Pos, Range, Reader, Record, Tenant,
    engine::memory::Fault,
};
use proptest::prelude::*;

use crate::bed::{Bed, Kind, Note, NoteKey, Notes, note};

const USERS: [&str; 4] = ["@a:x", "@b:x", "@c:x", "@d:x"];

#[derive(Clone, Debug)]
enum Change {
    Put(u64),
    Delete(u64),
    DeleteAll,
}

#[derive(Clone, Debug)]
enum Step {
    /// A batch of a user's, on conditions that hold or, for the number given, don't.
    Commit(usize, Vec<Change>, Option<u64>),
    /// The same, and the process ends before the answer.
    CommitAndCrash(usize, Vec<Change>),
    Crash,
    /// What the next write meets, in memory.
    Meet(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = prop_oneof![
        6 => (0..8u64).prop_map(Change::Put),
        3 => (0..8u64).prop_map(Change::Delete),
        1 => Just(Change::DeleteAll),
    ];
    let changes = proptest::collection::vec(change, 0..5);
    let step = prop_oneof![
        12 => (0..4usize, changes.clone(), proptest::option::weighted(0.2, 0..8u64))
            .prop_map(|(user, changes, wrong)| Step::Commit(user, changes, wrong)),
        2 => (0..4usize, changes).prop_map(|(user, changes)| Step::CommitAndCrash(user, changes)),
        1 => Just(Step::Crash),
        3 => (0..3u8).prop_map(Step::Meet),
    ];
    proptest::collection::vec(step, 1..40)
}

/// Positions, which tell one writing of a row from another.
type Model = BTreeMap<(usize, u64), Pos>;

fn apply(model: &mut Model, user: usize, changes: &[Change], pos: Pos) {
    for change in changes {
        match change {
            Change::Put(n) => {
                model.insert((user, *n), pos);
            }
            Change::Delete(n) => {
                model.remove(&(user, *n));
            }
            Change::DeleteAll => model.retain(|(of, _), _| *of != user),
        }
    }
}

fn batch(
    tenant: &Tenant,
    model: &Model,
    user: usize,
    changes: &[Change],
    wrong: Option<u64>,
) -> Batch {
    let name = USERS[user];
    let mut batch = tenant.lane(Home::User(name)).batch();
    for n in 0..8 {
        let there = model.get(&(user, n)).copied();
        let expect = match (there, wrong == Some(n)) {
            (Some(pos), false) => Expect::At(pos),
            (Some(_), true) => Expect::Absent,
            (None, false) => Expect::Absent,
            (None, true) => Expect::At(1),
        };
        batch.expect::<Notes>(&NoteKey(name.into(), n), expect);
    }
    batch.log(Record {
        kind: 1,
        subject: name.into(),
        body: Vec::new(),
    });
    for change in changes {
        match change {
            Change::Put(n) => batch.put::<Notes>(&NoteKey(name.into(), *n), &note(n)),
            Change::Delete(n) => batch.delete::<Notes>(&NoteKey(name.into(), *n)),
            Change::DeleteAll => batch.delete_all::<Notes>(Home::User(name), |k| {
                k.str(name);
            }),
        };
    }
    batch
}

async fn agrees(reader: &Reader, model: &Model, user: usize) {
    let expected: Vec<(u64, Pos, Note)> = model
        .iter()
        .filter(|((of, _), _)| *of == user)
        .map(|((_, n), pos)| (*n, *pos, note(n)))
        .collect();
    let name = USERS[user];
    for (reverse, limit) in [
        (false, usize::MAX),
        (true, usize::MAX),
        (false, 2),
        (true, 3),
    ] {
        let range = Range::of(Home::User(name), |k| {
            k.str(name);
        });
        let range = if reverse { range.reverse() } else { range };
        let found = reader.scan::<Notes>(range.limit(limit)).await.unwrap();
        let found: Vec<_> = found
            .into_iter()
            .map(|(key, row)| (key.1, row.pos, row.value))
            .collect();
        let mut expected = expected.clone();
        if reverse {
            expected.reverse();
        }
        expected.truncate(limit);
        assert_eq!(found, expected);
    }
}

async fn run(mut bed: Bed, steps: Vec<Step>) {
    let mut model = Model::new();
    let mut tenant = bed.tenant().await;
    let mut faulty = false;
    for step in steps {
        match step {
            Step::Commit(user, changes, wrong) => {
                let writer = tenant.lane(Home::User(USERS[user])).clone();
                let made = batch(&tenant, &model, user, &changes, wrong);
                match writer.append(made).await {
                    Err(CommitError::Conflict("notes")) => assert!(wrong.is_some()),
                    Err(error) => panic!("{error}"),
                    Ok(appended) => {
                        assert!(wrong.is_none());
                        let before = model.clone();
                        apply(&mut model, user, &changes, appended.pos);
                        // A write that will be refused may be gone already.
                        if !faulty {
                            agrees(&writer.reader(), &model, user).await;
                        }
                        match appended.durable().await {
                            Ok(_) => {}
                            Err(CommitError::NotApplied(_)) => model = before,
                            Err(error) => panic!("{error}"),
                        }
                        agrees(&writer.reader(), &model, user).await;
                    }
                }
            }
            Step::CommitAndCrash(user, changes) => {
                let writer = tenant.lane(Home::User(USERS[user])).clone();
                let made = batch(&tenant, &model, user, &changes, None);
                let pos = writer.append(made).await.unwrap().pos;
                bed.crash().await;
                tenant = bed.tenant().await;
                // Either all of it or nothing: the lane's log says which.
                let me = tenant.lanes().of(Home::User(USERS[user]).slot());
                let mut after = tenant.follow(comity_storage::Heads::zero(tenant.lanes()));
                let mut logged = false;
                loop {
                    let found = after.ready().await.unwrap();
                    if found.is_empty() {
                        break;
                    }
                    // In lane 0 the start's own commit may have taken a place that was lost.
                    logged |= found
                        .iter()
                        .any(|l| l.lane == me && l.pos == pos && l.records.len() == 1);
                }
                if logged {
                    apply(&mut model, user, &changes, pos);
                }
            }
            Step::Crash => {
                bed.crash().await;
                tenant = bed.tenant().await;
            }
            Step::Meet(fault) => {
                if let Engine::Memory(memory) = &bed.engine {
                    let faults = [Fault::NotApplied, Fault::UnknownApplied, Fault::UnknownLost];
                    let mut next = Some(faults[usize::from(fault)]);
                    memory.set_faults(Some(Box::new(move |apply| match apply {
                        true => next.take().unwrap_or(Fault::None),
                        false => Fault::None,
                    })));
                    faulty = true;
                    continue;
                }
            }
        }
        if let Engine::Memory(memory) = &bed.engine {
            memory.set_faults(None);
            faulty = false;
        }
        for user in 0..USERS.len() {
            agrees(&tenant.reader(), &model, user).await;
        }
    }
}

fn check(kind: Kind, lanes: u8, cases: u32) {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    proptest!(config, |(steps in steps())| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            if let Some(bed) = Bed::new(kind, lanes).await {
                run(bed, steps).await;
            }
        });
    });
}

#[test]
fn memory_1() {
    // With one lane here, with four below.
    check(Kind::Memory, 1, 80);
}

#[test]
fn memory_4() {
    // With four lanes here, with one above.
    check(Kind::Memory, 4, 80);
}

#[test]
fn rocks_4() {
    check(Kind::Rocks, 4, 10);
}

#[test]
fn postgres_4() {
    check(Kind::Postgres, 4, 6);
}
