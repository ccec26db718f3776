//! Uploads, at once and by an id that was given before.
//!
//! An upload is staged, counted for its user, put under its hash, and named by its media's row, in this order. Until the last
//! there is a row that says that it was counted, by which the start after a crash takes it back, and the blob away.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#content-repository>

use comity_protocol::id::{OwnedUserId, UserId};
use comity_storage::{CommitError, Expect, Key, Pos, Range};

use crate::{
    Content, Kind, Media, MediaError, Mxc, Pieces,
    staging::Staged,
    tables::{self, Hash, Held, HeldKey, MediaKey, Medias, UploadKey, Uploads},
    turns::Turn,
    usage::upload_key,
};

/// The longest content type and file name that are kept, in bytes.
const MAX_TYPE: usize = 255;
const MAX_NAME: usize = 1024;
/// What began before its id expired has arrived after this long, or never will.
const LONGEST_UPLOAD_MS: u64 = 60 * 60 * 1_000;

/// What an uploader says of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Described {
    /// Its MIME type.
    pub content_type: Option<String>,
    /// Its name.
    pub filename: Option<String>,
}

/// An id that waits for its upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The URI.
    pub mxc: Mxc,
    /// Until when, in milliseconds since 1970.
    pub expires_ts: u64,
}

impl Media {
    /// An id for something that the user will upload.
    ///
    /// # Errors
    /// [`MediaError::TooManyPending`]; the store's.
    pub async fn create(&self, user: &UserId) -> Result<Created, MediaError> {
        let now = self.now_ms();
        let lifetime = u64::try_from(self.0.config.pending_lifetime.as_millis());
        let expires_ts = now.saturating_add(lifetime.unwrap_or(u64::MAX));
        let mxc = self.own(&self.new_id())?;
        self.note_pending(user, mxc.id(), expires_ts).await?;
        let row = tables::Media {
            uploader: Some(user.to_string()),
            created_ts: now,
            expires_ts,
            quarantined: false,
            content: None,
        };
        let key = MediaKey::from(&mxc);
        let lane = self.0.tenant.lane(key.home());
        let mut batch = lane.batch();
        batch.expect::<Medias>(&key, Expect::Absent);
        batch.put::<Medias>(&key, &row);
        lane.commit(batch).await?;
        Ok(Created { mxc, expires_ts })
    }

    /// Takes an upload; the URI it has from now on. `announced` is the length that its sender tells, in bytes.
    ///
    /// # Errors
    /// [`MediaError::TooLarge`], [`MediaError::Quota`], [`MediaError::Broken`]; the store's and the disk's.
    pub async fn upload(
        &self,
        user: &UserId,
        described: Described,
        announced: Option<u64>,
        body: Pieces,
    ) -> Result<Mxc, MediaError> {
        let mxc = self.own(&self.new_id())?;
        self.take(user, &mxc, Expect::Absent, described, announced, body)
            .await?;
        Ok(mxc)
    }

    /// Takes the upload for an id of [`Media::create`].
    ///
    /// # Errors
    /// As [`Media::upload`]; [`MediaError::NotFound`], [`MediaError::NotYours`], [`MediaError::CannotOverwrite`].
    pub async fn upload_to(
        &self,
        user: &UserId,
        mxc: &Mxc,
        described: Described,
        announced: Option<u64>,
        body: Pieces,
    ) -> Result<(), MediaError> {
        if *mxc.server() != *self.0.config.server_name {
            return Err(MediaError::NotFound);
        }
        let key = MediaKey::from(mxc);
        let row = self.0.tenant.lane(key.home()).reader();
        let row = row.get::<Medias>(&key).await?.ok_or(MediaError::NotFound)?;
        if row.value.uploader.as_deref() != Some(user.as_str()) {
            return Err(MediaError::NotYours);
        }
        if row.value.quarantined {
            return Err(MediaError::NotFound);
        }
        if row.value.content.is_some() {
            return Err(MediaError::CannotOverwrite);
        }
        if row.value.expires_ts <= self.now_ms() {
            return Err(MediaError::NotFound);
        }
        let expect = Expect::At(row.pos);
        self.take(user, mxc, expect, described, announced, body)
            .await
    }

    async fn take(
        &self,
        user: &UserId,
        mxc: &Mxc,
        expect: Expect,
        described: Described,
        announced: Option<u64>,
        body: Pieces,
    ) -> Result<(), MediaError> {
        let room = self.room(user).await?;
        let longest = self.0.config.max_upload_bytes;
        // One that is too long for anybody is too large, whoever sends it.
        if announced.is_some_and(|size| size > longest) {
            return Err(MediaError::TooLarge);
        }
        if announced.is_some_and(|size| size > room) {
            return Err(MediaError::Quota);
        }
        // What is staged isn't counted yet: a user has a few such files, no more.
        let turn = self.0.uploading.take(user.as_str()).await?;
        let name = self.new_id();
        let staged = self.0.blobs.stage(&name, body, room.min(longest)).await;
        let staged = staged.map_err(|error| match error {
            MediaError::TooLarge if room < longest => MediaError::Quota,
            error => error,
        })?;
        let staged = self.without_metadata(staged).await?;
        let arriving = Arriving {
            user: user.to_owned(),
            mxc: mxc.clone(),
            expect,
            content: content(&staged, described),
            staged,
            turn,
        };
        // A task of its own: whoever uploads may hang up, and what was begun is finished.
        let media = self.clone();
        let keeping = async move { media.keep(arriving).await };
        let keeping = self.0.runtime.carry_on("upload", keeping);
        keeping.await.map_err(|_| MediaError::Stopped)?
    }

    async fn keep(&self, arriving: Arriving) -> Result<(), MediaError> {
        let Arriving {
            user,
            mxc,
            expect,
            content,
            staged,
            turn: _turn,
        } = arriving;
        let (id, hash, size) = (mxc.id(), content.hash, content.size);
        let noted = self.charge(&user, id, (hash, size)).await?;
        let row = tables::Media {
            uploader: Some(user.to_string()),
            created_ts: self.now_ms(),
            expires_ts: 0,
            quarantined: false,
            content: Some(content),
        };
        match self.name(&mxc, expect, &row, &staged).await {
            Ok(()) => {
                self.0.arrivals.tell();
                self.settle(&upload_key(&user, id), noted).await
            }
            // It may have been written: the next start finds out, and until then it counts.
            Err(error @ MediaError::Commit(CommitError::Unknown(_))) => Err(error),
            Err(error) => {
                // The row that names the blob goes last.
                self.collect(&hash).await?;
                self.uncharge(&user, id).await?;
                Err(match error {
                    MediaError::Commit(CommitError::Conflict(_)) => MediaError::CannotOverwrite,
                    error => error,
                })
            }
        }
    }

    /// Puts a staged file under its hash and writes the row that names it.
    async fn name(
        &self,
        mxc: &Mxc,
        expect: Expect,
        row: &tables::Media,
        staged: &Staged,
    ) -> Result<(), MediaError> {
        let key = MediaKey::from(mxc);
        // Whoever collects the same blob waits until it is held.
        let _held = self.0.blobs.lock(&staged.hash).await;
        self.0.blobs.put(staged).await?;
        let lane = self.0.tenant.lane(key.home());
        let mut batch = lane.batch();
        batch.expect::<Medias>(&key, expect);
        batch.put::<Medias>(&key, row);
        let held = HeldKey {
            hash: staged.hash,
            media: key,
        };
        batch.put::<Held>(&held, &());
        lane.commit(batch).await?;
        Ok(())
    }

    /// Takes back what a crash left half done. Before anything is uploaded. A bucket that can't be used is told to the operator, and
    /// what is half done in it left to a later start.
    ///
    /// # Errors
    /// The store's and the disk's.
    pub async fn resume(&self) -> Result<(), MediaError> {
        self.finish_removals().await?;
        self.count_cached().await?;
        if let Err(why) = self.0.blobs.try_out(&self.0.runtime).await {
            tracing::error!(%why, "no files: the bucket can't be used");
            return Ok(());
        }
        self.discard_arriving().await?;
        let reader = self.0.tenant.reader();
        let uploads = reader.scan::<Uploads>(Range::everywhere(|_| {})).await?;
        for (key, upload) in uploads {
            let Some((hash, _)) = upload.value.counted else {
                continue;
            };
            self.take_back(&key, upload.pos, &hash).await?;
        }
        Ok(())
    }

    /// Takes back an upload that ended in between, unless it has arrived.
    async fn take_back(&self, key: &UploadKey, pos: Pos, hash: &Hash) -> Result<(), MediaError> {
        let Ok(user) = OwnedUserId::try_from(key.user.as_str()) else {
            return Ok(());
        };
        let media = MediaKey::from(&self.own(&key.id)?);
        let row = self.0.tenant.reader().get::<Medias>(&media).await?;
        // Another upload to the same id may have come first.
        let named = row.and_then(|row| row.value.content);
        if named.is_some_and(|content| content.hash == *hash) {
            return self.settle(key, pos).await;
        }
        self.collect(hash).await?;
        self.uncharge(&user, &key.id).await
    }

    /// Forgets ids that waited for their upload in vain, and takes back what couldn't be while the disk or the bucket failed.
    ///
    /// # Errors
    /// The store's.
    pub async fn tend(&self) -> Result<(), MediaError> {
        let reader = self.0.tenant.reader();
        let uploads = reader.scan::<Uploads>(Range::everywhere(|_| {})).await?;
        let now = self.now_ms();
        for (key, upload) in uploads {
            let over = upload.value.expires_ts.saturating_add(LONGEST_UPLOAD_MS) <= now;
            if !over {
                continue;
            }
            // One that couldn't be taken back then.
            if let Some((hash, _)) = upload.value.counted {
                self.take_back(&key, upload.pos, &hash).await?;
                continue;
            }
            let media = MediaKey::from(&self.own(&key.id)?);
            let lane = self.0.tenant.lane(media.home());
            let row = lane.reader().get::<Medias>(&media).await?;
            if let Some(row) = row.filter(|row| row.value.content.is_none()) {
                let mut batch = lane.batch();
                batch.expect::<Medias>(&media, Expect::At(row.pos));
                batch.delete::<Medias>(&media);
                match lane.commit(batch).await {
                    // It is being uploaded after all.
                    Err(CommitError::Conflict(_)) => continue,
                    done => done?,
                };
            }
            self.settle(&key, upload.pos).await?;
        }
        Ok(())
    }
}

/// A file whose bytes are here, to be made part of the store.
struct Arriving {
    user: OwnedUserId,
    mxc: Mxc,
    /// What its media's row has to be still.
    expect: Expect,
    content: Content,
    staged: Staged,
    /// Its user's, until it has arrived.
    turn: Turn,
}

/// The file as it will be told of: its uploader's word where there is one that can stand in a header, else what its bytes say.
pub(crate) fn content(staged: &Staged, described: Described) -> Content {
    let kind = Kind::of(&staged.head);
    let printable = |text: &String| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let content_type = described.content_type.map(|text| text.trim().to_owned());
    let content_type =
        content_type.filter(|text| !text.is_empty() && text.len() <= MAX_TYPE && printable(text));
    let filename = described.filename.map(|mut name| {
        name.retain(|c| !c.is_control());
        name.truncate(name.floor_char_boundary(MAX_NAME));
        name
    });
    Content {
        hash: staged.hash,
        size: staged.size,
        kind,
        content_type: content_type.unwrap_or_else(|| kind.content_type().to_owned()),
        filename: filename.filter(|name| !name.is_empty()),
    }
}
