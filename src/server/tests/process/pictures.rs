//! Pictures are made smaller by processes of this very binary, which harm nobody when they are harmed (R16.2, H5).

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use comity_media::{Kind, RenderError, Renderer, Task, Unrendered, Workers, whole};
use comity_testkit::PICTURE;
use futures_util::StreamExt;

use crate::server::{COMITY, Server, comity_at};

fn workers() -> Workers {
    let program = PathBuf::from(COMITY);
    Workers::new(program, ["render-picture".to_owned()])
}

const SMALL: Task = Task::Thumbnail {
    width: 32,
    height: 32,
    crop: false,
    animated: false,
};

fn file(bytes: &[u8]) -> comity_media::Pieces {
    whole(Bytes::copy_from_slice(bytes)).boxed()
}

#[tokio::test]
async fn a_worker_makes_a_picture_smaller() {
    let workers = workers();
    let made = workers.render(SMALL, Kind::Png, file(PICTURE)).await;
    let made = made.unwrap();
    assert_eq!((made.width, made.height), (32, 16));
    let (kind, bytes) = made.file.unwrap();
    let measured = workers.render(Task::Measure, kind, file(&bytes)).await;
    assert_eq!(measured.unwrap().width, 32);
}

/// A server goes on to make pictures smaller when an upgrade has put another program in its place, or none.
#[test]
fn workers_are_of_the_version_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("comity");
    let placed = fs::hard_link(COMITY, &program);
    placed
        .or_else(|_| fs::copy(COMITY, &program).map(drop))
        .unwrap();
    let mut command = comity_at(&program, &folder.path().join("data"), &[]);
    command.arg("serve");
    let server = Server::run(command);
    let alice = server.register("alice", "a secret of alice");
    let token = alice["access_token"].as_str().unwrap();
    let bearer = format!("authorization: Bearer {token}\r\n");
    let path = "/_matrix/media/v3/upload";
    let uploaded = server.request("POST", path, &bearer, PICTURE).ok();
    let uri = uploaded["content_uri"].as_str().unwrap();
    let picture = uri.strip_prefix("mxc://").unwrap();
    let thumbnail = |width: u32, height: u32| {
        let size = format!("width={width}&height={height}&method=crop");
        let path = format!("/_matrix/client/v1/media/thumbnail/{picture}?{size}");
        let made = server.request("GET", &path, &bearer, "");
        assert_eq!(made.status, 200, "{}: {}", made.text, server.log());
        assert_eq!(made.header("content-type"), "image/png");
    };
    thumbnail(32, 32);
    // As a package does it: beside, then over it.
    let newer = folder.path().join("newer");
    fs::write(&newer, "#!/bin/sh\nexit 2\n").unwrap();
    fs::set_permissions(&newer, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&newer, &program).unwrap();
    thumbnail(96, 96);
    fs::remove_file(&program).unwrap();
    thumbnail(96, 32);
}

/// H5: what a worker can't read, or must not, is an answer, not a fault.
#[tokio::test]
async fn h5_hostile_files_are_refused() {
    let workers = workers();
    let mut bomb = PICTURE[..33].to_vec();
    bomb[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
    bomb[29..33].copy_from_slice(&[0xc4, 0xcd, 0xaa, 0x9d]);
    for (kind, bytes, expected) in [
        (Kind::Png, &bomb[..], Unrendered::TooLarge),
        (Kind::Png, &PICTURE[..100], Unrendered::Unreadable),
        (Kind::Jpeg, PICTURE, Unrendered::Unreadable),
        (Kind::Webp, b"RIFF", Unrendered::Unreadable),
        (Kind::Other, PICTURE, Unrendered::Unreadable),
    ] {
        let refused = workers.render(SMALL, kind, file(bytes)).await;
        assert_eq!(refused, Err(RenderError::Unrendered(expected)), "{kind:?}");
    }
    // Of a file without end it reads the beginning, and that is all.
    let endless = futures_util::stream::repeat_with(|| Ok(Bytes::from_static(&[0; 1 << 20])));
    let began = Instant::now();
    let refused = workers.render(SMALL, Kind::Png, endless.boxed()).await;
    assert_eq!(
        refused,
        Err(RenderError::Unrendered(Unrendered::Unreadable))
    );
    assert!(began.elapsed() < Duration::from_secs(40));
}

/// One that says more than is heard isn't waited for.
#[tokio::test]
async fn h5_a_worker_without_end_is_left() {
    let endless = ["-c", "cat > /dev/null; exec yes"].map(str::to_owned);
    let workers = Workers::new(PathBuf::from("/bin/sh"), endless);
    let began = Instant::now();
    let refused = workers.render(SMALL, Kind::Png, file(PICTURE)).await;
    assert_eq!(
        refused,
        Err(RenderError::Unrendered(Unrendered::Unreadable))
    );
    assert!(began.elapsed() < Duration::from_secs(20));
}

/// H5: a worker has nothing to look at: no environment, no file it could open, and no call of the kernel to reach others by.
#[test]
fn h5_a_worker_has_nothing_but_its_pipes() {
    let mut worker = Command::new(COMITY)
        .arg("render-picture")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = worker.stdin.take().unwrap();
    input.write_all(&[0; 32]).unwrap();
    let proc = PathBuf::from(format!("/proc/{}", worker.id()));
    let said = |file: &str, begin: &str, at: usize| {
        let text = std::fs::read_to_string(proc.join(file)).unwrap();
        let mut lines = text.lines();
        let line = lines.find(|line| line.starts_with(begin)).unwrap();
        line.split_whitespace().nth(at).unwrap().to_owned()
    };
    let until = Instant::now() + Duration::from_secs(20);
    let bounded = loop {
        // By a filter, and with no way to more rights.
        if said("status", "Seccomp:", 1) == "2" {
            assert_eq!(said("limits", "Max open files", 3), "3");
            assert_eq!(said("status", "NoNewPrivs:", 1), "1");
            assert_eq!(said("status", "Threads:", 1), "1");
            break true;
        }
        if Instant::now() > until {
            break false;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(bounded);
    drop(input);
    let done = worker.wait_with_output().unwrap();
    assert!(!done.status.success() && done.stdout.is_empty());
}
