//! PostgreSQL's sessions end at any time: no answer may be untrue for that.

use std::{sync::Arc, time::Duration};

use comity_storage::{CommitError, Expect};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::bed::{Bed, Kind, Notes, database, key, lane, note, put, read, sql};

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

/// Where a connection ends: before the commit that holds the marker reaches the server, or with the answer to it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    Request,
    Answer,
}

const MARKER: &[u8] = b"which of both?";

/// Forwards connections to a server, and ends one of them as it is told.
async fn cutter(server: String, cut: Arc<Mutex<Option<Cut>>>) -> String {
    #[expect(clippy::disallowed_methods, reason = "a network of the test's own")]
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            #[expect(clippy::disallowed_methods, reason = "a network of the test's own")]
            let server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(forward(client, server, cut.clone()));
        }
    });
    address
}

async fn forward(mut client: TcpStream, mut server: TcpStream, cut: Arc<Mutex<Option<Cut>>>) {
    let (mut asked, mut answered) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut last = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(read @ 1..) = read else { return };
                if asked[..read].windows(MARKER.len()).any(|bytes| bytes == MARKER) {
                    match cut.lock().take() {
                        Some(Cut::Request) => return,
                        Some(Cut::Answer) => last = true,
                        None => {}
                    }
                }
                server.write_all(&asked[..read]).await.unwrap();
            }
            read = server.read(&mut answered) => match read {
                Ok(read @ 1..) if !last => client.write_all(&answered[..read]).await.unwrap(),
                _ => return,
            },
        }
    }
}

/// data-model.md, Commits: a connection that ends within a COMMIT leaves its outcome unknown; the lane finds out, and the
/// writer is told what is so.
#[tokio::test]
async fn a_commit_cut_in_its_middle_is_there_or_not_as_told() {
    for (at, there) in [(Cut::Request, false), (Cut::Answer, true)] {
        let Some(mut bed) = Bed::new(Kind::Postgres, 4).await else {
            return;
        };
        let cut = Arc::new(Mutex::new(None));
        let url = std::env::var(crate::bed::POSTGRES_URL).unwrap();
        let server = url
            .split(['@', '/'])
            .find(|part| part.contains("127.0.0.1:"));
        let server = server.expect("the tests' PostgreSQL has an address and a port");
        let through = cutter(server.to_owned(), cut.clone()).await;
        bed.engine = database(&bed.schema, &url.replace(server, &through)).await;
        let tenant = bed.tenant().await;
        put(&tenant, 1, "before").await;
        *cut.lock() = Some(at);
        let mut batch = lane(&tenant).batch();
        batch.put::<Notes>(&key(2), &note(str::from_utf8(MARKER).unwrap()));
        let outcome = lane(&tenant).commit(batch).await;
        assert!(cut.lock().is_none(), "the commit did not pass by");
        match outcome {
            Ok(_) => assert!(there),
            Err(CommitError::NotApplied(_)) => assert!(!there),
            other => panic!("{other:?}"),
        }
        assert_eq!(read(&tenant, 2).await.is_some(), there);
        put(&tenant, 3, "after").await;
    }
}
