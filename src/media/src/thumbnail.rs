//! Thumbnails: made by a worker once a size, kept as blobs beside their media.
//!
//! A request's size is rounded up to one of a few, so that what is kept of a file is bounded whoever asks. What is small enough
//! is its own thumbnail, unless it moves and must not. A picture is made once for all who ask, and for one asker one at a time, so
//! one that takes long holds up nobody but who asked for it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#thumbnails>

mod animation;
mod confinement;
pub(crate) mod render;
mod worker;

use std::{sync::Arc, time::Duration};

use comity_runtime::Runtime;
use comity_storage::{CommitError, Expect, Key};
use futures_util::StreamExt;

use crate::{
    Content, Kind, Media, MediaError, Mxc, NotFetched, Pieces, Wanted,
    flights::{Flights, Outcome},
    tables::{self, MediaKey, Medias, Shape, ThumbnailKey, Thumbnails},
    turns::Turns,
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
/// What is cut out to fill its sides: its longer side, where the specification has the first two, and width by height.
const CROPPED: &[u32] = &[32, 96, 128, 256, 512, 800, 1600];
const ASPECTS: &[(u32, u32)] = &[(1, 1), (4, 3), (3, 4), (16, 9), (9, 16), (3, 1), (1, 3)];
/// The sides of what is as large as it is.
const WHOLE: u32 = u32::MAX;

/// Pictures that are made or wait for it; for one asker, how many at a time and how many wait.
const MAKING: usize = 512;
const BY_ASKER: (usize, usize) = (1, 63);
/// How long it is remembered that nothing can be made of a file.
const REMEMBERED: Duration = Duration::from_secs(10 * 60);

/// Thumbnails under way.
pub(crate) struct Making {
    flights: Flights<ThumbnailKey, tables::Thumbnail>,
    askers: Turns,
}

impl Making {
    pub fn new(runtime: &Runtime) -> Self {
        Self {
            flights: Flights::new(runtime, "thumbnail", MAKING, good_for),
            askers: Turns::new(BY_ASKER.0, BY_ASKER.1),
        }
    }
}

fn good_for(made: &Outcome<tables::Thumbnail>) -> Duration {
    match made {
        Err(MediaError::NoPicture | MediaError::PictureTooLarge) => REMEMBERED,
        _ => Duration::ZERO,
    }
}

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
    /// The size that is made for this one.
    fn shape(self) -> Shape {
        let holds = |(width, height): &(u32, u32)| *width >= self.width && *height >= self.height;
        let sides = if self.crop {
            let aspect = self.aspect();
            let mut cropped = CROPPED.iter().map(|side| cut_out(*side, aspect));
            cropped.find(holds)
        } else {
            SCALED.iter().copied().find(holds)
        };
        let (width, height) = sides.unwrap_or((WHOLE, WHOLE));
        Shape {
            width,
            height,
            crop: self.crop && sides.is_some(),
            animated: self.animated,
        }
    }

    /// The one that is nearest to its own.
    fn aspect(self) -> (u32, u32) {
        let off = |(wide, high): &(u32, u32)| {
            let one = u128::from(self.width) * u128::from(*high);
            let other = u128::from(self.height) * u128::from(*wide);
            (one.max(other), one.min(other))
        };
        let nearer = |one: &&(u32, u32), other: &&(u32, u32)| {
            let ((a, b), (c, d)) = (off(one), off(other));
            (a * d).cmp(&(c * b))
        };
        ASPECTS.iter().min_by(nearer).copied().unwrap_or((1, 1))
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
        let key = ThumbnailKey {
            media: MediaKey::from(mxc),
            shape: size.shape(),
        };
        let kept = self.0.tenant.reader().get::<Thumbnails>(&key).await?;
        let made = match kept {
            Some(kept) => {
                // Another server's file was looked at when it was found.
                if *mxc.server() == *self.0.config.server_name {
                    self.looked_at(&key.media).await?;
                }
                Ok(kept.value)
            }
            None => {
                // Each waits in a queue of their own, whoever began the flight.
                let turn = Arc::new(self.0.thumbnails.askers.take(wanted.asker).await?);
                let make = || {
                    let (media, key, original) = (self.clone(), key.clone(), original.clone());
                    let turn = Arc::clone(&turn);
                    async move {
                        let _turn = turn;
                        media.make(&key, &original, pos).await
                    }
                };
                self.0.thumbnails.flights.outcome(&key, make).await
            }
        };
        let made = match made {
            // Nothing that who asks could make smaller.
            Err(MediaError::PictureTooLarge) if *mxc.server() != *self.0.config.server_name => {
                return Err(NotFetched::TooLarge.into());
            }
            made => made?,
        };
        Ok(made.content.unwrap_or(original))
    }

    async fn make(
        &self,
        key: &ThumbnailKey,
        original: &Content,
        pos: u64,
    ) -> Outcome<tables::Thumbnail> {
        // Another flight may have landed between the look and this one.
        if let Some(kept) = self.0.tenant.reader().get::<Thumbnails>(key).await? {
            return Ok(kept.value);
        }
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
        let file = self.read(original, None).await?;
        let rendered = self.render(task, original.kind, file).await?;
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
        kind: Kind,
        file: Pieces,
    ) -> Result<Rendered, MediaError> {
        let rendered = self.0.renderer.render(task, kind, file).await;
        rendered.map_err(|error| match error {
            RenderError::Unrendered(Unrendered::TooLarge) => MediaError::PictureTooLarge,
            RenderError::Unrendered(Unrendered::Unreadable) => MediaError::NoPicture,
            RenderError::Busy => MediaError::Busy,
            RenderError::Failed(cause) => MediaError::Blob(cause),
        })
    }
}

/// A longer side and the other one in this aspect, rounded up.
fn cut_out(longer: u32, (wide, high): (u32, u32)) -> (u32, u32) {
    let other = longer
        .saturating_mul(wide.min(high))
        .div_ceil(wide.max(high));
    if wide < high {
        (other, longer)
    } else {
        (longer, other)
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

    /// Never smaller than asked for, of few sizes, and cut out in the aspect that is asked for or nearly that.
    #[test]
    fn sizes_are_rounded_up() {
        let shape = |width, height, crop| {
            let size = Size {
                width,
                height,
                crop,
                animated: false,
            };
            let shape = size.shape();
            (shape.width, shape.height)
        };
        assert_eq!(shape(1, 1, false), (32, 32));
        assert_eq!(shape(33, 20, false), (96, 96));
        assert_eq!(shape(320, 240, false), (320, 240));
        assert_eq!(shape(320, 241, false), (640, 480));
        assert_eq!(shape(1601, 1, false), (WHOLE, WHOLE));
        assert_eq!(shape(32, 32, true), (32, 32));
        assert_eq!(shape(96, 32, true), (96, 32));
        assert_eq!(shape(97, 33, true), (128, 43));
        assert_eq!(shape(800, 600, true), (800, 600));
        assert_eq!(shape(100, 60, true), (128, 72));
        assert_eq!(shape(60, 100, true), (72, 128));
        assert_eq!(shape(1, 500, true), (171, 512));
        assert_eq!(shape(u32::MAX, 1, true), (WHOLE, WHOLE));
    }
}
