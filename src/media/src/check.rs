//! Whether media's rows and blobs agree with one another: what `comity check` asks of them once each row by itself is as its table
//! writes it ([`comity_storage::check`]).
//!
//! Each blob has a holder and each holder a blob of the size that its row says; what somebody uploaded counts for them, what nobody
//! did goes one day; a thumbnail is of media; what a user has uploaded is the sum of their files. What a crash left half done, and the
//! next start takes back, is no finding, for a row says so. Nothing is written, and what is in a blob isn't read: that is looked
//! at whenever it is served.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use comity_protocol::id::ServerName;
use comity_storage::{
    Home, Key, Pages, Range, ReadError, Reader, Row, Table, broken,
    check::{Contradiction, Listener},
};

use crate::{
    BucketConfig, MediaError,
    blobs::{Blobs, hex},
    bucket::Bucket,
    cache::FOOTPRINT,
    tables::{
        Arriving, Content, Files, Hash, Held, HeldKey, Media, MediaKey, Medias, Remote, Removals,
        ThumbnailKey, Thumbnails, UploadKey, Uploads, Usage, Usages, UserKey,
    },
};

/// Something that rows and blobs say differently.
pub type Finding = Contradiction<Broken>;

broken! {
    NoBlob: "the blob isn't there",
    Size: "the blob is of another size",
    Stray: "nobody holds it",
    NotHeld: "it doesn't hold its blob",
    HeldInVain: "it holds a blob that isn't its own",
    NotCounted: "it doesn't count for who uploaded it",
    NotKept: "it is not among what goes one day",
    NoMedia: "its media isn't there or another",
    Sum: "it isn't the sum of the user's files",
}

/// Walks all media of a tenant, and the blobs in a folder or a bucket.
///
/// On a store that is being written meanwhile, what is found need not be so.
///
/// # Errors
/// The store can't be read, or the blobs can't be listed.
pub async fn tenant(
    reader: &Reader,
    server_name: &ServerName,
    (folder, bucket): (&Path, Option<BucketConfig>),
    to: &mut dyn Listener<Finding>,
) -> Result<(), MediaError> {
    let bucket = bucket.map(Bucket::new).transpose()?;
    let blobs = Blobs::look(folder, bucket)?;
    let mut walk = Walk {
        reader,
        server_name,
        half_done: HalfDone::read(reader).await?,
        to,
    };
    for first in 0..=u8::MAX {
        walk.blobs(blobs.list(first).await?, first).await?;
    }
    walk.media().await?;
    walk.thumbnails().await?;
    walk.kept().await?;
    walk.files().await?;
    Ok(walk.usages().await?)
}

/// What a crash may have left, in the rows that tell the next start.
struct HalfDone {
    blobs: BTreeSet<Hash>,
    media: BTreeSet<MediaKey>,
    uploads: BTreeSet<(String, String)>,
}

impl HalfDone {
    async fn read(reader: &Reader) -> Result<Self, ReadError> {
        let mut found = Self {
            blobs: BTreeSet::new(),
            media: BTreeSet::new(),
            uploads: BTreeSet::new(),
        };
        let everywhere = || Range::everywhere(|_| {});
        for (note, _) in reader.scan::<Arriving>(everywhere()).await? {
            found.blobs.insert(note.hash);
        }
        for (media, _) in reader.scan::<Removals>(everywhere()).await? {
            found.media.insert(media);
        }
        for (key, upload) in reader.scan::<Uploads>(everywhere()).await? {
            if let Some((hash, _)) = upload.value.counted {
                found.blobs.insert(hash);
                found.uploads.insert((key.user, key.id));
            }
        }
        Ok(found)
    }
}

struct Walk<'a> {
    reader: &'a Reader,
    server_name: &'a ServerName,
    half_done: HalfDone,
    to: &'a mut dyn Listener<Finding>,
}

impl Walk<'_> {
    async fn page<T: Table>(
        &mut self,
        pages: &mut Pages<T>,
    ) -> Result<Option<Vec<(T::Key, Row<T::Value>)>>, ReadError> {
        self.to.page(self.reader, pages).await
    }

    /// The blobs whose name begins with this byte, by name, against who holds them.
    async fn blobs(&mut self, blobs: BTreeMap<String, u64>, first: u8) -> Result<(), ReadError> {
        let mut unheld: BTreeSet<_> = blobs.keys().cloned().collect();
        let mut pages = beginning::<Held>(first);
        while let Some(page) = self.page(&mut pages).await? {
            for (held, _) in page {
                let name = hex(&held.hash);
                unheld.remove(&name);
                let Some(size) = self.size_of(&held).await? else {
                    self.to.say::<Held>(&held.media.0, Broken::HeldInVain);
                    continue;
                };
                match blobs.get(&name) {
                    None => self.to.say::<Held>(&held.media.0, Broken::NoBlob),
                    Some(found) if *found != size => {
                        self.to.say::<Held>(&held.media.0, Broken::Size);
                    }
                    Some(_) => {}
                }
            }
        }
        for hash in &self.half_done.blobs {
            unheld.remove(&hex(hash));
        }
        for name in unheld {
            self.to.found(Finding {
                of: name,
                broken: Broken::Stray,
                table: "blob",
            });
        }
        Ok(())
    }

    /// The size that a holder's row says its blob has.
    async fn size_of(&self, held: &HeldKey) -> Result<Option<u64>, ReadError> {
        let is_it = |content: &Content| content.hash == held.hash;
        let media = self.reader.get::<Medias>(&held.media).await?;
        let media = media.and_then(|row| row.value.content).filter(is_it);
        if let Some(content) = media {
            return Ok(Some(content.size));
        }
        let made = Range::of(held.media.home(), |prefix| held.media.write(prefix));
        let made = self.reader.scan::<Thumbnails>(made).await?.into_iter();
        let mut made = made.filter_map(|(_, row)| row.value.content);
        Ok(made.find(is_it).map(|content| content.size))
    }

    async fn is_held(&self, media: &MediaKey, content: &Content) -> Result<bool, ReadError> {
        let held = HeldKey {
            hash: content.hash,
            media: media.clone(),
        };
        Ok(self.reader.get::<Held>(&held).await?.is_some())
    }

    async fn media(&mut self) -> Result<(), ReadError> {
        let mut pages = Pages::<Medias>::all();
        while let Some(page) = self.page(&mut pages).await? {
            for (key, row) in page {
                let Some(content) = &row.value.content else {
                    continue;
                };
                if !self.is_held(&key, content).await? {
                    self.to.say::<Medias>(&key.0, Broken::NotHeld);
                }
                if let Some(user) = &row.value.uploader {
                    if !self.counts(&key, user, content).await? {
                        self.to.say::<Medias>(&key.0, Broken::NotCounted);
                    }
                } else {
                    let kept = self.reader.get::<Remote>(&key).await?;
                    let least = content.size.saturating_add(FOOTPRINT);
                    if kept.is_none_or(|kept| kept.value.bytes < least) {
                        self.to.say::<Medias>(&key.0, Broken::NotKept);
                    }
                }
            }
        }
        Ok(())
    }

    async fn counts(
        &self,
        key: &MediaKey,
        user: &str,
        content: &Content,
    ) -> Result<bool, ReadError> {
        let Some((_, id)) = key.parts() else {
            return Ok(false);
        };
        let file = UploadKey {
            user: user.to_owned(),
            id: id.to_owned(),
        };
        let file = self.reader.get::<Files>(&file).await?;
        Ok(file.is_some_and(|file| file.value.size == content.size))
    }

    async fn thumbnails(&mut self) -> Result<(), ReadError> {
        let mut pages = Pages::<Thumbnails>::all();
        while let Some(page) = self.page(&mut pages).await? {
            for (ThumbnailKey { media, .. }, row) in page {
                let of = self.reader.get::<Medias>(&media).await?;
                let of = of.and_then(|row| row.value.content);
                if of.is_none() {
                    self.to.say::<Thumbnails>(&media.0, Broken::NoMedia);
                } else if let Some(content) = &row.value.content {
                    if !self.is_held(&media, content).await? {
                        self.to.say::<Thumbnails>(&media.0, Broken::NotHeld);
                    }
                    if self.reader.get::<Remote>(&media).await?.is_none() {
                        self.to.say::<Thumbnails>(&media.0, Broken::NotKept);
                    }
                }
            }
        }
        Ok(())
    }

    async fn kept(&mut self) -> Result<(), ReadError> {
        let mut pages = Pages::<Remote>::all();
        while let Some(page) = self.page(&mut pages).await? {
            for (key, _) in page {
                let of = self.reader.get::<Medias>(&key).await?;
                let of = of.filter(|of| of.value.content.is_some());
                let is_it = match of {
                    Some(of) if of.value.uploader.is_none() => true,
                    // Of a user's file what was made of it.
                    Some(_) => self.is_made_of(&key).await?,
                    None => false,
                };
                if !is_it {
                    self.to.say::<Remote>(&key.0, Broken::NoMedia);
                }
            }
        }
        Ok(())
    }

    async fn is_made_of(&self, media: &MediaKey) -> Result<bool, ReadError> {
        let made = Range::of(media.home(), |prefix| media.write(prefix));
        let made = self.reader.scan::<Thumbnails>(made).await?;
        Ok(made.iter().any(|(_, row)| row.value.content.is_some()))
    }

    /// Files against their media, and whether their user has a sum at all.
    async fn files(&mut self) -> Result<(), ReadError> {
        let mut pages = Pages::<Files>::all();
        let mut last = None;
        while let Some(page) = self.page(&mut pages).await? {
            for (key, row) in page {
                let media = MediaKey(format!("{}/{}", self.server_name, key.id));
                let of = self.reader.get::<Medias>(&media).await?;
                let is_it = |of: &Media| {
                    of.uploader.as_deref() == Some(&key.user)
                        && of.content.as_ref().map(|content| content.size) == Some(row.value.size)
                };
                let half_done = self.half_done.media.contains(&media)
                    || (self.half_done.uploads).contains(&(key.user.clone(), key.id.clone()));
                if !half_done && !of.is_some_and(|of| is_it(&of.value)) {
                    self.to.say::<Files>(&media.0, Broken::NoMedia);
                }
                if last.as_ref() != Some(&key.user) {
                    let sum = UserKey(key.user.clone());
                    if self.reader.get::<Usages>(&sum).await?.is_none() {
                        self.to.say::<Usages>(&key.user, Broken::Sum);
                    }
                    last = Some(key.user);
                }
            }
        }
        Ok(())
    }

    async fn usages(&mut self) -> Result<(), ReadError> {
        let mut pages = Pages::<Usages>::all();
        while let Some(page) = self.page(&mut pages).await? {
            for (UserKey(user), usage) in page {
                let of_user = Range::of(Home::User(&user), |key| {
                    key.str(&user);
                });
                let files = self.reader.scan::<Files>(of_user).await?;
                let sizes = files.iter().map(|(_, file)| file.value.size);
                let sum = Usage {
                    bytes: sizes.fold(0, u64::saturating_add),
                    files: files.len() as u64,
                };
                if sum != usage.value {
                    self.to.say::<Usages>(&user, Broken::Sum);
                }
            }
        }
        Ok(())
    }
}

/// The rows whose keys begin with this byte.
fn beginning<T: Table>(first: u8) -> Pages<T> {
    Pages::of(Range::everywhere(|key| {
        key.u8(first);
    }))
}
