//! What is taken away while the same comes here anew, at each moment that it may.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod house;

use std::{
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
    Content, Described, Elsewhere, Fetched, Kind, Media, MediaError, Mxc, NotFetched, Page, Pieces,
    RenderError, Rendered, Renderer, Size, Task, Wanted,
    tables::{Arriving, MediaKey, Medias},
    whole,
};
use comity_protocol::id::OwnedUserId;
use comity_storage::{
    Tenant,
    engine::{Memory, memory::Fault},
};
use futures_util::{StreamExt, TryStreamExt};
use house::{LANES, all, config, findings, open, tenant};
use tokio::time::sleep;

/// How long each call of the store takes.
const SECOND: Duration = Duration::from_secs(1);
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A server that has a picture.
struct Others;

#[async_trait]
impl Elsewhere for Others {
    async fn media(&self, _: &Mxc, _: Duration, _: u64) -> Result<Fetched, NotFetched> {
        Ok(Fetched {
            described: Described::default(),
            body: whole(Bytes::from_static(PNG)).boxed(),
        })
    }

    async fn page(&self, _: &str, _: u64) -> Result<Page, NotFetched> {
        Err(NotFetched::NotFound)
    }
}

/// What it makes of a picture is never the same.
#[derive(Default)]
struct Painter(AtomicUsize);

#[async_trait]
impl Renderer for Painter {
    async fn render(&self, _: Task, _: Kind, _: Pieces) -> Result<Rendered, RenderError> {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Rendered {
            width: 1,
            height: 1,
            file: Some((Kind::Png, [PNG, &number.to_be_bytes()].concat())),
        })
    }
}

async fn house(tenant: &Tenant, folder: &Path) -> Media {
    let painter = Arc::new(Painter::default());
    let media = open(tenant, config(folder), Arc::new(Others), painter);
    media.resume().await.unwrap();
    media
}

fn picture() -> Mxc {
    Mxc::new("b.test", "x").unwrap()
}

async fn thumbnail(media: &Media) -> Result<Content, MediaError> {
    let size = Size {
        width: 32,
        height: 32,
        crop: true,
        animated: false,
    };
    let alice = OwnedUserId::try_from("@alice:a.test").unwrap();
    let wanted = Wanted::default().fetched_for(&alice);
    media.thumbnail(&picture(), size, wanted).await
}

/// What is made of media that came here anew stays, and what was made of what it was goes.
#[tokio::test(start_paused = true)]
async fn what_comes_anew_stays() {
    for lanes in LANES {
        for moment in 0..40 {
            let folder = tempfile::tempdir().unwrap();
            let disk = Memory::new();
            let tenant = tenant(&disk, lanes, 1).await;
            let media = house(&tenant, folder.path()).await;
            thumbnail(&media).await.unwrap();
            disk.set_distance(SECOND);
            let mxc = picture();
            let taking = media.quarantine(&mxc, true);
            let anew = async {
                sleep(moment * SECOND / 4).await;
                disk.set_distance(Duration::ZERO);
                media.quarantine(&mxc, false).await.unwrap();
                thumbnail(&media).await
            };
            let (taken, made) = tokio::join!(taking, anew);
            taken.unwrap();
            let key = MediaKey::from(&picture());
            let row = tenant.reader().get::<Medias>(&key).await.unwrap();
            if row.unwrap().value.content.is_some() {
                let made = media.read(&made.unwrap(), None).await.unwrap();
                let bytes: Vec<Bytes> = made.try_collect().await.unwrap();
                assert!(bytes.concat().starts_with(PNG), "{moment}");
            }
            assert_eq!(findings(&tenant, folder.path()).await, [], "{moment}");
        }
    }
}

/// Threats' faults, "media rows match blobs": nor does a crash leave a blob that no row knows of.
#[tokio::test(start_paused = true)]
async fn a_crash_meanwhile_leaves_nothing() {
    for (lanes, moment) in LANES
        .into_iter()
        .flat_map(|n| (0..12).map(move |at| (n, at)))
    {
        for at in 0.. {
            let folder = tempfile::tempdir().unwrap();
            let disk = Memory::new();
            let first = tenant(&disk, lanes, 1).await;
            let media = house(&first, folder.path()).await;
            thumbnail(&media).await.unwrap();
            let writes = Arc::new(AtomicUsize::new(0));
            let counted = writes.clone();
            disk.set_faults(Some(Box::new(move |apply| {
                if apply && counted.fetch_add(1, Ordering::Relaxed) == at {
                    return Fault::CutOff(false);
                }
                Fault::None
            })));
            disk.set_distance(SECOND);
            let mxc = picture();
            let anew = async {
                sleep(moment * SECOND / 2).await;
                drop(media.quarantine(&mxc, false).await);
                drop(thumbnail(&media).await);
            };
            drop(tokio::join!(media.quarantine(&mxc, true), anew));
            let all_of_it = writes.load(Ordering::Relaxed) <= at;
            drop(media);
            let disk = disk.crash();
            disk.set_faults(None);
            disk.set_distance(Duration::ZERO);
            disk.reconnect();
            let second = tenant(&disk, lanes, 2).await;
            drop(house(&second, folder.path()).await);
            assert_eq!(findings(&second, folder.path()).await, [], "{moment} {at}");
            assert_eq!(all::<Arriving>(&second.reader()).await, []);
            if all_of_it {
                assert!(at > 2, "{at}");
                break;
            }
        }
    }
}
