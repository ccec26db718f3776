//! Thumbnails: made by a worker once a size, kept as blobs beside their media.
//!
//! A request's size is rounded up to one of a few, so that what is kept of a file is bounded whoever asks. What is small enough
//! is its own thumbnail.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#thumbnails>

mod animation;
mod render;
mod worker;

use comity_storage::{CommitError, Expect, Key};
use futures_util::StreamExt;

use crate::{
    Content, Kind, Media, MediaError, Mxc, NotFetched, Wanted,
    tables::{self, MediaKey, Medias, Shape, ThumbnailKey, Thumbnails},
    whole,
};
pub use render::{Rendered, Task, Unrendered};
pub use worker::{InProcess, RenderError, Renderer, Workers, work};

/// Boxes that pictures are made to fit. The specification's, and one for screens that have grown.
const SCALED: &[(u32, u32)] = &[
    (32, 32),
    (96, 96),
    (320, 240),
    (640, 480),
    (800, 600),
    (1600, 1200),
];
/// Sides of what is cut off to fill them; the specification has the first two.
const CROPPED: &[u32] = &[32, 96, 128, 256, 512, 800, 1600];

/// How a thumbnail is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Whether it is to fill the sides rather than to fit within them.
    pub crop: bool,
    /// Whether it may move.
    pub animated: bool,
}

impl Size {
    /// The size that is made for this one; `None` if it is larger than any.
    fn shape(self) -> Option<Shape> {
        let (width, height) = if self.crop {
            let side = |asked| CROPPED.iter().copied().find(|side| *side >= asked);
            (side(self.width)?, side(self.height)?)
        } else {
            let fits =
                |(width, height): &(u32, u32)| *width >= self.width && *height >= self.height;
            SCALED.iter().copied().find(fits)?
        };
        Some(Shape {
            width,
            height,
            crop: self.crop,
            animated: self.animated,
        })
    }
}

impl Media {
    /// A thumbnail of a picture: of another kind than the file perhaps, or the file itself where that is small.
    ///
    /// # Errors
    /// As [`Media::find`]; [`MediaError::NoPicture`], [`MediaError::PictureTooLarge`], [`MediaError::Busy`].
    pub async fn thumbnail(
        &self,
        mxc: &Mxc,
        size: Size,
        wanted: Wanted<'_>,
    ) -> Result<Content, MediaError> {
        if size.width == 0 || size.height == 0 {
            return Err(MediaError::NoSize);
        }
        let (content, pos) = self.find_row(mxc, wanted).await?;
        if content.kind == Kind::Other {
            return Err(MediaError::NoPicture);
        }
        // By its bytes, whatever its uploader says it is: it is shown in place.
        let original = Content {
            content_type: content.kind.content_type().to_owned(),
            ..content
        };
        let Some(shape) = size.shape() else {
            return Ok(original);
        };
        let key = ThumbnailKey {
            media: MediaKey::from(mxc),
            shape,
        };
        let kept = self.0.tenant.reader().get::<Thumbnails>(&key).await?;
        let made = match kept {
            Some(kept) => kept.value,
            None => match self.make(&key, &original, pos).await {
                // Nothing that who asks could make smaller.
                Err(MediaError::PictureTooLarge) if *mxc.server() != *self.0.config.server_name => {
                    return Err(NotFetched::TooLarge.into());
                }
                made => made?,
            },
        };
        Ok(made.content.unwrap_or(original))
    }

    async fn make(
        &self,
        key: &ThumbnailKey,
        original: &Content,
        pos: u64,
    ) -> Result<tables::Thumbnail, MediaError> {
        let Shape {
            width,
            height,
            crop,
            animated,
        } = key.shape;
        let task = Task::Thumbnail {
            width,
            height,
            crop,
            animated,
        };
        let rendered = self.render(task, original).await?;
        let Some((kind, bytes)) = rendered.file else {
            let own = tables::Thumbnail { content: None };
            let lane = self.0.tenant.lane(key.home());
            let mut batch = lane.batch();
            batch.expect::<Medias>(&key.media, Expect::At(pos));
            batch.put::<Thumbnails>(key, &own);
            lane.commit(batch)
                .await
                .map_err(|error| gone(error.into()))?;
            return Ok(own);
        };
        let most = bytes.len() as u64;
        let body = whole(bytes.into()).boxed();
        let staged = self.0.blobs.stage(&self.new_id(), body, most).await?;
        let content = Content {
            hash: staged.hash,
            size: staged.size,
            kind,
            content_type: kind.content_type().to_owned(),
            filename: Some(String::from(match kind {
                Kind::Jpeg => "thumbnail.jpg",
                Kind::Gif => "thumbnail.gif",
                _ => "thumbnail.png",
            })),
        };
        let made = tables::Thumbnail {
            content: Some(content),
        };
        self.place(&staged, &key.media, |batch| {
            batch.expect::<Medias>(&key.media, Expect::At(pos));
            batch.put::<Thumbnails>(key, &made);
        })
        .await
        .map_err(gone)?;
        Ok(made)
    }

    pub(crate) async fn render(
        &self,
        task: Task,
        original: &Content,
    ) -> Result<Rendered, MediaError> {
        let file = self.read(original, None).await?;
        let rendered = self.0.renderer.render(task, original.kind, file).await;
        rendered.map_err(|error| match error {
            RenderError::Unrendered(Unrendered::TooLarge) => MediaError::PictureTooLarge,
            RenderError::Unrendered(Unrendered::Unreadable) => MediaError::NoPicture,
            RenderError::Busy => MediaError::Busy,
            RenderError::Failed(cause) => MediaError::Blob(cause),
        })
    }
}

/// Its media has gone meanwhile.
fn gone(error: MediaError) -> MediaError {
    match error {
        MediaError::Commit(CommitError::Conflict(_)) => MediaError::NotFound,
        error => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Never smaller than asked for, and of few sizes.
    #[test]
    fn sizes_are_rounded_up() {
        let shape = |width, height, crop| {
            let size = Size {
                width,
                height,
                crop,
                animated: false,
            };
            size.shape().map(|shape| (shape.width, shape.height))
        };
        assert_eq!(shape(1, 1, false), Some((32, 32)));
        assert_eq!(shape(33, 20, false), Some((96, 96)));
        assert_eq!(shape(320, 240, false), Some((320, 240)));
        assert_eq!(shape(320, 241, false), Some((640, 480)));
        assert_eq!(shape(1601, 1, false), None);
        assert_eq!(shape(96, 32, true), Some((96, 32)));
        assert_eq!(shape(97, 33, true), Some((128, 96)));
        assert_eq!(shape(u32::MAX, 1, true), None);
    }
}
