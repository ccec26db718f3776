//! PostgreSQL's sessions end at any time: no answer may be untrue for that.

use std::time::Duration;

use comity_storage::{CommitError, Expect};

use crate::bed::{Bed, Kind, Notes, key, lane, note, put, sql};

/// data-model.md, Commits: after `Unknown` the lane claims anew and finds out, so that who counts
/// the commits that were answered counts what is there.
#[tokio::test]
async fn sessions_may_end_at_any_time() {
    let Some(bed) = Bed::new(Kind::Postgres, 4).await else {
        return;
    };
    let tenant = bed.tenant().await;
    put(&tenant, 1, "0").await;
    let schema = bed.schema.clone();
    let ending = async {
        for _ in 0..15 {
            tokio::time::sleep(Duration::from_millis(40)).await;
            sql(&format!(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = '{schema}'"
            ))
            .await;
        }
    };
    let counting = async {
        let (mut counted, mut failed) = (0, 0);
        loop {
            let row = match tenant.reader().get::<Notes>(&key(1)).await {
                Ok(row) => row.unwrap(),
                Err(_) => continue,
            };
            assert_eq!(row.value, note(counted));
            let mut batch = lane(&tenant).batch();
            batch
                .expect::<Notes>(&key(1), Expect::At(row.pos))
                .put::<Notes>(&key(1), &note(counted + 1));
            match lane(&tenant).commit(batch).await {
                Ok(_) => counted += 1,
                Err(CommitError::NotApplied(_) | CommitError::Read(_)) => failed += 1,
                Err(error) => panic!("{error}"),
            }
            if counted >= 200 && failed > 0 {
                return counted;
            }
        }
    };
    let (counted, ()) = tokio::join!(counting, ending);
    let row = tenant.reader().get::<Notes>(&key(1)).await;
    assert_eq!(row.unwrap().unwrap().value, note(counted));
}
