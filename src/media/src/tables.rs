//! The rows of media. Those of a piece of media are in the lane its own name hashes to, those that count what a user has uploaded
//! in the user's.

use comity_storage::{Damaged, Home, Key, KeyReader, KeyWriter, postcard_value};
use serde::{Deserialize, Serialize};

use crate::{Kind, Mxc};

/// The SHA-256 of a blob: its name.
pub type Hash = [u8; 32];

/// A piece of media: `server/id`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MediaKey(pub String);

impl From<&Mxc> for MediaKey {
    fn from(mxc: &Mxc) -> Self {
        Self(format!("{}/{}", mxc.server(), mxc.id()))
    }
}

impl MediaKey {
    /// The server, and the id that it gave.
    pub fn parts(&self) -> Option<(&str, &str)> {
        self.0.split_once('/')
    }
}

impl Key for MediaKey {
    fn home(&self) -> Home<'_> {
        Home::Name(&self.0)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.0);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self(from.str()?))
    }
}

/// A blob, and a piece of media that holds it: found by the blob, and in the lane of the media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldKey {
    /// The blob.
    pub hash: Hash,
    /// What holds it.
    pub media: MediaKey,
}

impl Key for HeldKey {
    fn home(&self) -> Home<'_> {
        self.media.home()
    }
    fn write(&self, to: &mut KeyWriter) {
        to.fixed(&self.hash);
        self.media.write(to);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            hash: from.fixed()?,
            media: MediaKey::read(from)?,
        })
    }
}

/// What a thumbnail is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Whether it fills the sides rather than to fit within them.
    pub crop: bool,
    /// Whether it may move.
    pub animated: bool,
}

/// A thumbnail of a piece of media.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ThumbnailKey {
    /// What it is of.
    pub media: MediaKey,
    /// How large.
    pub shape: Shape,
}

impl Key for ThumbnailKey {
    fn home(&self) -> Home<'_> {
        self.media.home()
    }
    fn write(&self, to: &mut KeyWriter) {
        self.media.write(to);
        let Shape { width, height, .. } = self.shape;
        let how = u8::from(self.shape.crop) | u8::from(self.shape.animated) << 1;
        to.u32(width).u32(height).u8(how);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        let media = MediaKey::read(from)?;
        let (width, height, how) = (from.u32()?, from.u32()?, from.u8()?);
        let (crop, animated) = (how & 1 != 0, how & 2 != 0);
        Ok(Self {
            media,
            shape: Shape {
                width,
                height,
                crop,
                animated,
            },
        })
    }
}

/// A user's one row in a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserKey(pub String);

impl Key for UserKey {
    fn home(&self) -> Home<'_> {
        Home::User(&self.0)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.0);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self(from.str()?))
    }
}

/// An upload of a user: by the id it has or will have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadKey {
    /// The user's id.
    pub user: String,
    /// The media id, on our own server.
    pub id: String,
}

impl Key for UploadKey {
    fn home(&self) -> Home<'_> {
        Home::User(&self.user)
    }
    fn write(&self, to: &mut KeyWriter) {
        to.str(&self.user).str(&self.id);
    }
    fn read(from: &mut KeyReader<'_>) -> Result<Self, Damaged> {
        Ok(Self {
            user: from.str()?,
            id: from.str()?,
        })
    }
}

/// A piece of media.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Media {
    /// Who of our users uploaded it; nobody did what came from elsewhere.
    pub uploader: Option<String>,
    /// When its id was given, or it came here, in milliseconds since 1970.
    pub created_ts: u64,
    /// Until when it must be uploaded, in milliseconds since 1970; of no meaning once it has content.
    pub expires_ts: u64,
    /// Whether nobody gets it any more, until an administrator says otherwise.
    pub quarantined: bool,
    /// What it is; `None` while it is yet to be uploaded, and where it isn't to be fetched.
    pub content: Option<Content>,
}

/// What a piece of media is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// The blob.
    pub hash: Hash,
    /// Its length in bytes.
    pub size: u64,
    /// What its bytes say it is.
    pub kind: Kind,
    /// What its uploader says it is.
    pub content_type: String,
    /// The name of the file.
    pub filename: Option<String>,
}

impl Content {
    /// Its strong HTTP entity tag.
    pub fn tag(&self) -> String {
        format!("\"{}\"", crate::blobs::hex(&self.hash))
    }
}

/// An upload under way: what was counted for it, until its media has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// Until when it must have begun, in milliseconds since 1970.
    pub expires_ts: u64,
    /// The blob and its size, once they are counted.
    pub counted: Option<(Hash, u64)>,
}

/// A file that a user uploaded, or uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uploaded {
    /// Its length in bytes, as it counts.
    pub size: u64,
}

/// A user's file that was taken away, and counts perhaps still.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Whose it was.
    pub uploader: String,
}

/// What a user has uploaded: the sum of their [`Uploaded`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes, those of uploads under way among them.
    pub bytes: u64,
    /// Files.
    pub files: u64,
}

/// A thumbnail that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thumbnail {
    /// What it is; `None` where the media itself is small enough.
    pub content: Option<Content>,
}

/// What is kept until nobody looks: a file of another server, or of a page, and what was made of any file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cached {
    /// What it takes, with what was made of it; of a user's file that alone.
    pub bytes: u64,
    /// When somebody last looked, to the day, in milliseconds since 1970.
    pub used_ts: u64,
}

postcard_value!(Media, Upload, Uploaded, Removal, Usage, Thumbnail, Cached);

comity_storage::tables! {
    /// `server/id` → [`Media`].
    Medias: "media", b"M.", Hot, MediaKey => Media;
    /// `hash, server/id` → (): whose the blob is.
    Held: "held blob", b"Mh", Hot, HeldKey => ();
    /// `hash, server/id` → (): the blob may be there, and nobody hold it.
    Arriving: "arriving blob", b"Mi", Hot, HeldKey => ();
    /// `server/id` → [`Cached`]: what goes one day.
    Remote: "remote media", b"Mc", Hot, MediaKey => Cached;
    /// `server/id, size` → [`Thumbnail`].
    Thumbnails: "thumbnail", b"Mt", Hot, ThumbnailKey => Thumbnail;
    /// `user, id` → [`Upload`].
    Uploads: "upload", b"Mu", Hot, UploadKey => Upload;
    /// `user, id` → [`Uploaded`]: what makes up what a user has uploaded.
    Files: "uploaded file", b"Mf", Hot, UploadKey => Uploaded;
    /// `server/id` → [`Removal`]: what is to be finished.
    Removals: "media removal", b"Mr", Hot, MediaKey => Removal;
    /// `user` → [`Usage`].
    Usages: "media usage", b"Mq", Hot, UserKey => Usage;
}
