//! Wherever a crash comes between rows and files, the next start puts them in agreement again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod house;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use comity_media::{
    Config, Created, Described, Elsewhere, Fetched, InProcess, Media, Mxc, NotFetched, Page, Size,
    Wanted,
    tables::{Arriving, Content, Held, Medias, Remote, Removals, Thumbnails, Uploads, Usages},
    whole,
};
use comity_protocol::id::{OwnedUserId, UserId};
use comity_storage::{
    Tenant,
    engine::{Memory, memory::Fault},
};
use futures_util::{StreamExt, stream};
use house::{all, picture, tenant};
use sha2::{Digest, Sha256};
use tokio::time::sleep;

fn open(tenant: &Tenant, folder: &Path) -> Media {
    let config = Config {
        // Each second file lets one go.
        max_cache_bytes: 30_000,
        ..house::config(folder)
    };
    let renderer = InProcess::new(tenant.runtime());
    house::open(tenant, config, Arc::new(Others), Arc::new(renderer))
}

/// Servers that have everything: a kilobyte of it, another for each id.
struct Others;

#[async_trait]
impl Elsewhere for Others {
    async fn media(&self, mxc: &Mxc, _: Duration, _: u64) -> Result<Fetched, NotFetched> {
        let body = Bytes::from(mxc.id().repeat(1_000));
        Ok(Fetched {
            described: Described::default(),
            body: whole(body).boxed(),
        })
    }

    async fn page(&self, _: &str, _: u64) -> Result<Page, NotFetched> {
        Err(NotFetched::NotFound)
    }
}

/// A bit of everything; what was acknowledged of our own.
async fn story(media: &Media, alice: &UserId) -> Vec<Mxc> {
    let upload = async |body: Bytes| {
        let body = whole(body).boxed();
        media.upload(alice, Described::default(), None, body).await
    };
    let mut kept = Vec::new();
    kept.extend(upload(Bytes::from_static(b"same")).await);
    kept.extend(upload(Bytes::from_static(b"same")).await);
    if let Ok(shown) = upload(picture()).await {
        let size = Size {
            width: 32,
            height: 32,
            crop: true,
            animated: false,
        };
        drop(media.thumbnail(&shown, size, Wanted::default()).await);
        kept.push(shown);
    }
    if let Ok(Created { mxc, .. }) = media.create(alice).await {
        // Two at once, and one that is late: its row is written already.
        let upload = async |body: &'static str, after: u64| {
            let body = stream::once(async move {
                sleep(Duration::from_secs(after)).await;
                Ok(Bytes::from_static(body.as_bytes()))
            });
            let described = Described::default();
            media
                .upload_to(alice, &mxc, described, None, body.boxed())
                .await
                .is_ok()
        };
        let (one, other, late) =
            tokio::join!(upload("one", 0), upload("other", 0), upload("late", 1));
        if one || other || late {
            kept.push(mxc.clone());
        }
    }
    for id in ["a", "b", "c"] {
        let mxc = Mxc::new("b.test", id).unwrap();
        drop(media.find(&mxc, Wanted::default().fetched_for(alice)).await);
        // What goes for it goes beside.
        sleep(Duration::from_secs(1)).await;
    }
    // What is taken away: of two that are the same one, and a picture with what was made of it.
    let gone: Vec<_> = kept.iter().take(3).skip(1).cloned().collect();
    for mxc in gone {
        kept.retain(|one| *one != mxc);
        drop(media.remove(&mxc).await);
    }
    for id in ["c", "d"] {
        let mxc = Mxc::new("b.test", id).unwrap();
        drop(media.quarantine(&mxc, true).await);
    }
    kept
}

/// The blobs in a folder, by name.
fn blobs(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let Ok(outer) = std::fs::read_dir(folder.join("blobs")) else {
        return found;
    };
    for outer in outer.map(Result::unwrap) {
        for file in std::fs::read_dir(outer.path()).unwrap().map(Result::unwrap) {
            let name =
                [outer.file_name(), file.file_name()].map(|name| name.into_string().unwrap());
            let bytes = std::fs::read(file.path()).unwrap();
            assert_eq!(hex(&Sha256::digest(bytes)), name.concat());
            found.insert(name.concat());
        }
    }
    found
}

fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Rows and files agree, and counts with both.
async fn agree(tenant: &Tenant, folder: &Path, kept: &[Mxc]) {
    let reader = tenant.reader();
    let media = all::<Medias>(&reader).await;
    let thumbnails = all::<Thumbnails>(&reader).await;
    let kept_of = all::<Remote>(&reader).await;
    assert!(
        kept_of
            .iter()
            .all(|(key, _)| media.iter().any(|(media, _)| media == key))
    );
    let of = |key: &str, content: &Content| (key.to_owned(), hex(&content.hash));
    let mut named = BTreeSet::new();
    let mut used: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (key, row) in &media {
        let Some(content) = &row.content else {
            continue;
        };
        named.insert(of(&key.0, content));
        if let Some(user) = &row.uploader {
            let used = used.entry(user.clone()).or_default();
            *used = (used.0 + content.size, used.1 + 1);
        }
    }
    for (key, row) in &thumbnails {
        assert!(media.iter().any(|(media, _)| *media == key.media));
        let goes = kept_of.iter().any(|(media, _)| *media == key.media);
        assert!(goes || row.content.is_none());
        named.extend(row.content.iter().map(|content| of(&key.media.0, content)));
    }
    let held = all::<Held>(&reader).await.into_iter();
    let held: BTreeSet<_> = held
        .map(|(key, ())| (key.media.0, hex(&key.hash)))
        .collect();
    assert_eq!(held, named);
    let files: BTreeSet<String> = named.into_iter().map(|(_, hash)| hash).collect();
    assert_eq!(blobs(folder), files);
    let counted = all::<Usages>(&reader).await.into_iter();
    let counted = counted.filter(|(_, usage)| usage.files > 0);
    let counted: BTreeMap<_, _> = counted
        .map(|(key, usage)| (key.0, (usage.bytes, usage.files)))
        .collect();
    assert_eq!(counted, used);
    assert!(all::<Arriving>(&reader).await.is_empty());
    assert!(all::<Removals>(&reader).await.is_empty());
    let uploads = all::<Uploads>(&reader).await;
    assert!(uploads.iter().all(|(_, upload)| upload.counted.is_none()));
    assert_eq!(
        std::fs::read_dir(folder.join("staging")).unwrap().count(),
        0
    );
    for mxc in kept {
        let key = format!("{}/{}", mxc.server(), mxc.id());
        let row = media.iter().find(|(media, _)| media.0 == key);
        assert!(row.is_some_and(|(_, row)| row.content.is_some()), "{mxc}");
    }
}

/// Threats' faults, "media rows match blobs": the store fails at each of its writes in turn, which is made or lost; then the power goes.
#[tokio::test(start_paused = true)]
async fn rows_and_blobs_agree_after_a_crash() {
    let alice = OwnedUserId::try_from("@alice:a.test").unwrap();
    for lanes in [1, 4] {
        for at in 0.. {
            let mut whole_story = false;
            for written in [true, false] {
                let folder = tempfile::tempdir().unwrap();
                let disk = Memory::new();
                let first = tenant(&disk, lanes, 1).await;
                let media = open(&first, folder.path());
                media.resume().await.unwrap();
                let writes = Arc::new(AtomicUsize::new(0));
                let counted = writes.clone();
                disk.set_faults(Some(Box::new(move |apply| {
                    if apply && counted.fetch_add(1, Ordering::Relaxed) == at {
                        return Fault::CutOff(written);
                    }
                    Fault::None
                })));
                let kept = story(&media, &alice).await;
                whole_story = writes.load(Ordering::Relaxed) <= at;
                drop(media);
                let disk = disk.crash();
                disk.set_faults(None);
                disk.reconnect();
                let second = tenant(&disk, lanes, 2).await;
                let media = open(&second, folder.path());
                // What is half done is no finding, for the rows tell the start. (Each check lists all folders there may be.)
                if lanes == 4 && at % 3 == 0 {
                    assert_eq!(house::findings(&second, folder.path()).await, []);
                }
                media.resume().await.unwrap();
                agree(&second, folder.path(), &kept).await;
            }
            if whole_story {
                assert!(at > 15, "{at}");
                break;
            }
        }
    }
}
