//! What `comity check` finds of media: nothing where all is well, and each thing that is broken.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod house;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use comity_media::{
    Described, Elsewhere, Fetched, InProcess, Media, Mxc, NotFetched, Page, Size, Wanted,
    check::Broken,
    tables::{
        Cached, Files, Held, HeldKey, MediaKey, Medias, Remote, ThumbnailKey, Thumbnails,
        UploadKey, Uploaded, Usage, Usages, UserKey,
    },
    whole,
};
use comity_protocol::id::OwnedUserId;
use comity_storage::{Batch, Home, Key, Tenant, engine::Memory};
use futures_util::StreamExt;
use house::{LANES, all, config, findings, open, picture, tenant};

/// Servers that have a file.
struct Others;

#[async_trait]
impl Elsewhere for Others {
    async fn media(&self, _: &Mxc, _: Duration, _: u64) -> Result<Fetched, NotFetched> {
        Ok(Fetched {
            described: Described::default(),
            body: whole(Bytes::from_static(b"from elsewhere")).boxed(),
        })
    }

    async fn page(&self, _: &str, _: u64) -> Result<Page, NotFetched> {
        Err(NotFetched::NotFound)
    }
}

/// A tenant with a picture, its thumbnail and a file of another server.
struct World {
    tenant: Tenant,
    folder: tempfile::TempDir,
    picture: MediaKey,
    remote: MediaKey,
}

const ALICE: &str = "@alice:a.test";

async fn world(lanes: u8) -> World {
    let folder = tempfile::tempdir().unwrap();
    let tenant = tenant(&Memory::new(), lanes, 1).await;
    let renderer = Arc::new(InProcess::new(tenant.runtime()));
    let media: Media = open(&tenant, config(folder.path()), Arc::new(Others), renderer);
    let alice = OwnedUserId::try_from(ALICE).unwrap();
    let file = picture();
    let size = file.len() as u64;
    let body = whole(file).boxed();
    let picture = media.upload(&alice, Described::default(), None, body).await;
    let picture = picture.unwrap();
    let shape = Size {
        width: 32,
        height: 32,
        crop: true,
        animated: false,
    };
    let thumbnail = media.thumbnail(&picture, shape, Wanted::default()).await;
    assert_ne!(thumbnail.unwrap().size, size);
    let remote = Mxc::new("b.test", "x").unwrap();
    let found = media.find(&remote, Wanted::default().fetched_for(&alice));
    found.await.unwrap();
    World {
        tenant,
        picture: MediaKey::from(&picture),
        remote: MediaKey::from(&remote),
        folder,
    }
}

impl World {
    async fn commit(&self, home: Home<'_>, rows: impl FnOnce(&mut Batch)) {
        let lane = self.tenant.lane(home);
        let mut batch = lane.batch();
        rows(&mut batch);
        lane.commit(batch).await.unwrap();
    }

    async fn of_picture(&self, rows: impl FnOnce(&mut Batch)) {
        self.commit(self.picture.home(), rows).await;
    }

    async fn of_alice(&self, rows: impl FnOnce(&mut Batch)) {
        self.commit(Home::User(ALICE), rows).await;
    }

    async fn held(&self, of: &MediaKey) -> HeldKey {
        let row = self.tenant.reader().get::<Medias>(of).await.unwrap();
        let hash = row.unwrap().value.content.unwrap().hash;
        HeldKey {
            hash,
            media: of.clone(),
        }
    }

    async fn held_by(&self, of: &ThumbnailKey) -> HeldKey {
        let row = self.tenant.reader().get::<Thumbnails>(of).await.unwrap();
        HeldKey {
            hash: row.unwrap().value.content.unwrap().hash,
            media: of.media.clone(),
        }
    }

    async fn blob(&self, of: &MediaKey) -> PathBuf {
        let hash = self.held(of).await.hash;
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let (outer, file) = hex.split_at(2);
        self.folder.path().join("blobs").join(outer).join(file)
    }

    fn file(&self) -> UploadKey {
        UploadKey {
            user: ALICE.to_owned(),
            id: self.picture.parts().unwrap().1.to_owned(),
        }
    }

    async fn broken(&self) -> Vec<Broken> {
        let found = findings(&self.tenant, self.folder.path()).await;
        found.into_iter().map(|finding| finding.broken).collect()
    }
}

/// Threats' faults, "media rows match blobs", both ways; each rule broken once.
#[tokio::test(start_paused = true)]
async fn each_disagreement_is_found() {
    for lanes in LANES {
        let fine = world(lanes).await;
        assert_eq!(fine.broken().await, []);

        let missing = world(lanes).await;
        std::fs::remove_file(missing.blob(&missing.picture).await).unwrap();
        assert_eq!(missing.broken().await, [Broken::NoBlob]);

        let longer = world(lanes).await;
        std::fs::write(longer.blob(&longer.remote).await, b"longer than it was").unwrap();
        assert_eq!(longer.broken().await, [Broken::Size]);

        let stray = world(lanes).await;
        let beside = stray.blob(&stray.picture).await;
        std::fs::write(beside.with_file_name("0".repeat(62)), b"").unwrap();
        assert_eq!(stray.broken().await, [Broken::Stray]);

        // Nobody holds the blob then, either.
        let unheld = world(lanes).await;
        let held = unheld.held(&unheld.picture).await;
        unheld
            .of_picture(|batch| {
                batch.delete::<Held>(&held);
            })
            .await;
        assert_eq!(unheld.broken().await, [Broken::Stray, Broken::NotHeld]);

        let vain = world(lanes).await;
        let held = HeldKey {
            hash: [0; 32],
            media: vain.picture.clone(),
        };
        vain.of_picture(|batch| {
            batch.put::<Held>(&held, &());
        })
        .await;
        assert_eq!(vain.broken().await, [Broken::HeldInVain]);

        let uncounted = world(lanes).await;
        let file = uncounted.file();
        let delete = |batch: &mut Batch| {
            batch.delete::<Files>(&file);
        };
        uncounted.of_alice(delete).await;
        assert_eq!(uncounted.broken().await, [Broken::NotCounted, Broken::Sum]);

        let sum = world(lanes).await;
        let more = Usage { bytes: 1, files: 1 };
        let alice = UserKey(ALICE.to_owned());
        sum.of_alice(|batch| {
            batch.put::<Usages>(&alice, &more);
        })
        .await;
        assert_eq!(sum.broken().await, [Broken::Sum]);
        sum.of_alice(|batch| {
            batch.delete::<Usages>(&alice);
        })
        .await;
        assert_eq!(sum.broken().await, [Broken::Sum]);

        // A file whose media isn't there.
        let vanished = world(lanes).await;
        let file = UploadKey {
            id: "other".to_owned(),
            ..vanished.file()
        };
        let size = picture().len() as u64;
        let put = |batch: &mut Batch| {
            let twice = Usage {
                bytes: 2 * size,
                files: 2,
            };
            batch.put::<Files>(&file, &Uploaded { size });
            batch.put::<Usages>(&alice, &twice);
        };
        vanished.of_alice(put).await;
        assert_eq!(vanished.broken().await, [Broken::NoMedia]);

        let eternal = world(lanes).await;
        let key = eternal.remote.clone();
        let delete = |batch: &mut Batch| {
            batch.delete::<Remote>(&key);
        };
        eternal.commit(key.home(), delete).await;
        assert_eq!(eternal.broken().await, [Broken::NotKept]);

        let mortal = world(lanes).await;
        let put = |batch: &mut Batch| {
            let cached = Cached {
                bytes: 1 << 20,
                used_ts: 0,
            };
            batch.put::<Remote>(&mortal.picture, &cached);
        };
        mortal.of_picture(put).await;
        assert_eq!(mortal.broken().await, []);
        let (made, _) = all::<Thumbnails>(&mortal.tenant.reader()).await.remove(0);
        let held = mortal.held_by(&made).await;
        let delete = |batch: &mut Batch| {
            batch.delete::<Thumbnails>(&made).delete::<Held>(&held);
        };
        mortal.of_picture(delete).await;
        assert_eq!(mortal.broken().await, [Broken::Stray, Broken::NoMedia]);

        let made_for_ever = world(lanes).await;
        let delete = |batch: &mut Batch| {
            batch.delete::<Remote>(&made_for_ever.picture);
        };
        made_for_ever.of_picture(delete).await;
        assert_eq!(made_for_ever.broken().await, [Broken::NotKept]);

        // Its media has nothing to show, and a thumbnail all the same.
        let orphan = world(lanes).await;
        let (mut thumbnail, value) = all::<Thumbnails>(&orphan.tenant.reader()).await.remove(0);
        thumbnail.media = MediaKey("a.test/nothing".to_owned());
        let put = |batch: &mut Batch| {
            batch.put::<Thumbnails>(&thumbnail, &value);
        };
        orphan.commit(thumbnail.home(), put).await;
        assert_eq!(orphan.broken().await, [Broken::NoMedia]);
    }
}

/// Where there are no files there is nothing to find; where they were, everything.
#[tokio::test(start_paused = true)]
async fn a_folder_that_is_gone() {
    for lanes in LANES {
        let empty = tenant(&Memory::new(), lanes, 1).await;
        assert_eq!(findings(&empty, Path::new("/nowhere")).await, []);
        let world = world(lanes).await;
        let found = findings(&world.tenant, Path::new("/nowhere")).await;
        let found: Vec<_> = found.into_iter().map(|finding| finding.broken).collect();
        assert_eq!(found, [Broken::NoBlob; 3]);
    }
}
