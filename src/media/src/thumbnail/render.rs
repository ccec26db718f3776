//! Pictures made smaller: a pure function of the file's bytes, whose author means no good.
//!
//! How large a picture says it is decides before a pixel of it is decoded. Animations become GIF, pictures with alpha or of few
//! colours stay lossless (PNG), photos stay JPEG. The colour profile goes along, the rest of the file's metadata doesn't. Whatever
//! keeps a picture from moving, it stands still rather than not to be seen.

use std::io::{self, Cursor, Write};

use image::{
    DynamicImage, ImageDecoder, ImageEncoder, ImageError, ImageFormat, ImageReader, Limits,
    codecs::{jpeg::JpegEncoder, png::PngEncoder},
};
use serde::{Deserialize, Serialize};

use super::animation::{moves, moving};
use crate::Kind;

/// The largest picture: its pixels, and its sides.
const MAX_PIXELS: u64 = 64 << 20;
const MAX_SIDE: u32 = 16_384;
/// Bytes a decoder may ask for.
const MAX_ALLOC: u64 = 512 << 20;
/// The longest answer in bytes: no picture of a thumbnail's size comes near it; and the longest that moves.
const MAX_BYTES: usize = 12 << 20;
const MAX_MOVING: usize = 2 << 20;
/// The longest colour profile that goes along, in bytes.
const MAX_PROFILE: usize = 64 << 10;
const JPEG_QUALITY: u8 = 80;

/// What is to be made of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Task {
    /// Nothing: how large is it?
    Measure,
    /// One that fits these sides, or fills them with what is beyond cut off.
    Thumbnail {
        /// In pixels.
        width: u32,
        /// In pixels.
        height: u32,
        /// Whether it is to fill them.
        crop: bool,
        /// Whether it may move.
        animated: bool,
    },
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rendered {
    /// Of the picture as it is shown now, in pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// Its kind and bytes; `None` where the original is small enough.
    pub file: Option<(Kind, Vec<u8>)>,
}

/// Why nothing was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unrendered {
    /// More pixels than are decoded.
    TooLarge,
    /// No picture that can be read.
    Unreadable,
}

impl From<ImageError> for Unrendered {
    fn from(error: ImageError) -> Self {
        match error {
            ImageError::Limits(_) => Self::TooLarge,
            _ => Self::Unreadable,
        }
    }
}

/// Does a task.
///
/// # Errors
/// [`Unrendered`].
pub fn render(task: Task, kind: Kind, file: &[u8]) -> Result<Rendered, Unrendered> {
    let format = match kind {
        Kind::Png => ImageFormat::Png,
        Kind::Jpeg => ImageFormat::Jpeg,
        Kind::Gif => ImageFormat::Gif,
        Kind::Webp => ImageFormat::WebP,
        Kind::Other => return Err(Unrendered::Unreadable),
    };
    let mut reader = ImageReader::with_format(Cursor::new(file), format);
    reader.limits(limits());
    let mut decoder = reader.into_decoder()?;
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(Unrendered::Unreadable);
    }
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Unrendered::TooLarge);
    }
    let turned = decoder.orientation()?;
    let (width, height) = match turned.to_exif() {
        5..=8 => (height, width),
        _ => (width, height),
    };
    let as_it_is = Ok(Rendered {
        width,
        height,
        file: None,
    });
    let Task::Thumbnail {
        width: wide,
        height: high,
        crop,
        animated,
    } = task
    else {
        return as_it_is;
    };
    let size = Size { wide, high, crop };
    // One that moves and must not is written anew, however small.
    if size.holds(width, height) && (animated || !moves(kind, file)) {
        return as_it_is;
    }
    if animated && let Ok(Some(moving)) = moving(kind, file, size, MAX_MOVING) {
        return Ok(moving);
    }
    let profile = decoder.icc_profile()?;
    // Where a profile can't be written the colours are a little off.
    let profile = profile.filter(|profile| profile.len() <= MAX_PROFILE);
    let mut picture = DynamicImage::from_decoder(decoder)?;
    picture.apply_orientation(turned);
    let picture = size.of(picture);
    let (width, height) = (picture.width(), picture.height());
    let mut bytes = Bounded::new(MAX_BYTES);
    let (kind, written) = if kind == Kind::Jpeg {
        let mut encoder = JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY);
        profile.map(|profile| encoder.set_icc_profile(profile).ok());
        let picture = DynamicImage::from(picture.to_rgb8());
        (Kind::Jpeg, picture.write_with_encoder(encoder))
    } else {
        let mut encoder = PngEncoder::new(&mut bytes);
        profile.map(|profile| encoder.set_icc_profile(profile).ok());
        (Kind::Png, eight_bit(picture).write_with_encoder(encoder))
    };
    if bytes.cut {
        return Err(Unrendered::TooLarge);
    }
    written?;
    Ok(Rendered {
        width,
        height,
        file: Some((kind, bytes.written)),
    })
}

/// Without the depth that nobody sees.
fn eight_bit(picture: DynamicImage) -> DynamicImage {
    let colour = picture.color();
    if colour.bytes_per_pixel() <= colour.channel_count() {
        picture
    } else if colour.has_alpha() {
        picture.into_rgba8().into()
    } else {
        picture.into_rgb8().into()
    }
}

/// What was written, up to a bound: beyond it writing fails.
pub(super) struct Bounded {
    pub written: Vec<u8>,
    most: usize,
    /// Whether something is missing. Not all who write tell.
    pub cut: bool,
}

impl Bounded {
    pub(super) fn new(most: usize) -> Self {
        Self {
            written: Vec::new(),
            most,
            cut: false,
        }
    }
}

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written.len().saturating_add(bytes.len()) > self.most {
            self.cut = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_ALLOC);
    limits
}

#[derive(Clone, Copy)]
pub(super) struct Size {
    pub wide: u32,
    pub high: u32,
    pub crop: bool,
}

impl Size {
    /// Whether a picture is no larger than this.
    pub(super) fn holds(self, width: u32, height: u32) -> bool {
        width <= self.wide && height <= self.high
    }

    /// The picture in this size. None is made larger.
    pub(super) fn of(self, picture: DynamicImage) -> DynamicImage {
        let (width, height) = (picture.width(), picture.height());
        if self.holds(width, height) {
            return picture;
        }
        if !self.crop {
            return picture.thumbnail(self.wide, self.high);
        }
        // The largest part of that shape, from the middle.
        let (wide, high) = (u64::from(self.wide), u64::from(self.high));
        let (part_width, part_height) = if u64::from(width) * high > u64::from(height) * wide {
            (scaled(height, wide, high, width), height)
        } else {
            (width, scaled(width, high, wide, height))
        };
        let (x, y) = ((width - part_width) / 2, (height - part_height) / 2);
        let part = picture.crop_imm(x, y, part_width, part_height);
        if part_width <= self.wide && part_height <= self.high {
            return part;
        }
        part.thumbnail_exact(self.wide.min(part_width), self.high.min(part_height))
    }
}

/// `side · times / by`, between 1 and `most`.
fn scaled(side: u32, times: u64, by: u64, most: u32) -> u32 {
    let scaled = u64::from(side) * times / by.max(1);
    u32::try_from(scaled).unwrap_or(most).clamp(1, most.max(1))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use image::{
        AnimationDecoder, Delay, Frame, Rgb, RgbImage, Rgba, RgbaImage,
        codecs::{
            gif::{GifDecoder, GifEncoder},
            png::PngDecoder,
        },
    };

    use super::*;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let picture = RgbaImage::from_fn(width, height, |x, y| {
            Rgba([
                u8::try_from(x % 256).unwrap(),
                u8::try_from(y % 256).unwrap(),
                0,
                255,
            ])
        });
        let mut bytes = Vec::new();
        picture
            .write_with_encoder(PngEncoder::new(&mut bytes))
            .unwrap();
        bytes
    }

    fn thumbnail(width: u32, height: u32, crop: bool, animated: bool) -> Task {
        Task::Thumbnail {
            width,
            height,
            crop,
            animated,
        }
    }

    /// <https://spec.matrix.org/v1.19/client-server-api/#thumbnails>: scaling keeps the shape, cropping takes the asked one.
    #[test]
    fn sizes() {
        for (from, to, crop, expected) in [
            ((1000, 673), (32, 32), false, (32, 22)),
            ((1000, 673), (32, 32), true, (32, 32)),
            ((100, 1000), (320, 240), false, (24, 240)),
            ((100, 1000), (96, 96), true, (96, 96)),
            ((50, 1000), (96, 96), true, (50, 50)),
            ((2, 1000), (32, 32), false, (1, 32)),
        ] {
            let task = thumbnail(to.0, to.1, crop, false);
            let made = render(task, Kind::Png, &png(from.0, from.1)).unwrap();
            assert_eq!(
                (made.width, made.height),
                expected,
                "{from:?} {to:?} {crop}"
            );
            let (kind, bytes) = made.file.unwrap();
            let again = render(Task::Measure, kind, &bytes).unwrap();
            assert_eq!((again.width, again.height), expected);
        }
    }

    /// None is made larger: the original is given.
    #[test]
    fn small_ones_stay() {
        let mut photo = Vec::new();
        let picture = RgbImage::from_pixel(20, 10, Rgb([1, 2, 3]));
        let encoder = JpegEncoder::new_with_quality(&mut photo, 90);
        picture.write_with_encoder(encoder).unwrap();
        let task = thumbnail(32, 32, false, false);
        let made = render(task, Kind::Jpeg, &photo).unwrap();
        assert_eq!((made.width, made.height, made.file), (20, 10, None));
    }

    fn gif(frames: u32, side: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = GifEncoder::new(&mut bytes);
        for frame in 0..frames {
            let grey = u8::try_from(frame * 40).unwrap();
            let picture = RgbaImage::from_pixel(side, side, Rgba([grey, grey, grey, 255]));
            let delay = Delay::from_saturating_duration(Duration::from_millis(100));
            let frame = Frame::from_parts(picture, 0, 0, delay);
            encoder.encode_frame(frame).unwrap();
        }
        drop(encoder);
        bytes
    }

    /// R16.2: what moves may move, and must not where nobody asked for it.
    #[test]
    fn animations() {
        let count = |bytes: &[u8]| {
            let decoder = GifDecoder::new(Cursor::new(bytes.to_vec())).unwrap();
            decoder.into_frames().count()
        };
        let file = gif(5, 100);
        let (kind, moving) = render(thumbnail(32, 32, true, true), Kind::Gif, &file)
            .unwrap()
            .file
            .unwrap();
        assert_eq!((kind, count(&moving)), (Kind::Gif, 5));
        let still = render(thumbnail(32, 32, true, false), Kind::Gif, &file).unwrap();
        assert_eq!(still.file.unwrap().0, Kind::Png);
        let small = gif(5, 10);
        let moving = render(thumbnail(32, 32, true, true), Kind::Gif, &small).unwrap();
        assert_eq!(moving.file, None);
        let still = render(thumbnail(32, 32, true, false), Kind::Gif, &small).unwrap();
        assert_eq!((still.width, still.file.unwrap().0), (10, Kind::Png));
        let one = render(thumbnail(32, 32, true, true), Kind::Gif, &gif(1, 100)).unwrap();
        assert_eq!(one.file.unwrap().0, Kind::Png);
    }

    /// What is as large as asked for is given as it is, decoded or not; if it moves and mustn't, made anew.
    #[test]
    fn as_large_as_it_is() {
        for (kind, file, animated, anew) in [
            (Kind::Png, png(300, 200), false, false),
            (Kind::Gif, gif(1, 50), false, false),
            (Kind::Gif, gif(5, 50), true, false),
            (Kind::Gif, gif(5, 50), false, true),
        ] {
            let task = thumbnail(u32::MAX, u32::MAX, false, animated);
            let made = render(task, kind, &file).unwrap();
            assert_eq!(made.file.is_some(), anew, "{kind:?} {animated}");
            assert!(made.file.is_none_or(|(kind, _)| kind == Kind::Png));
        }
    }

    /// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediathumbnailservernamemediaid>: what can't be
    /// animated is as if nobody had asked for that.
    #[test]
    fn what_cannot_move_stands_still() {
        let size = Size {
            wide: 32,
            high: 32,
            crop: true,
        };
        let mut file = gif(5, 100);
        let moving = |file: &[u8], most| moving(Kind::Gif, file, size, most);
        let most = moving(&file, MAX_MOVING).unwrap().unwrap().file.unwrap().1;
        assert!(moving(&file, most.len()).unwrap().is_some());
        assert!(!matches!(moving(&file, most.len() - 1), Ok(Some(_))));
        // Cut short in its last frame.
        file.truncate(file.len() - 20);
        let task = thumbnail(32, 32, true, true);
        let still = render(task, Kind::Gif, &file).unwrap().file.unwrap();
        assert_eq!(still.0, Kind::Png);
    }

    /// H6: neither a file's colour profile nor its depth makes its thumbnails long.
    #[test]
    fn h6_thumbnails_are_short() {
        let picture = image::ImageBuffer::from_pixel(100, 100, Rgba([1_u16, 2, 3, 65_535]));
        for (profile, kept) in [(MAX_PROFILE, true), (MAX_PROFILE + 1, false)] {
            let mut file = Vec::new();
            let mut encoder = PngEncoder::new(&mut file);
            encoder.set_icc_profile(vec![7; profile]).unwrap();
            let picture = DynamicImage::from(picture.clone());
            picture.write_with_encoder(encoder).unwrap();
            let task = thumbnail(32, 32, false, false);
            let (_, small) = render(task, Kind::Png, &file).unwrap().file.unwrap();
            let mut decoder = PngDecoder::new(Cursor::new(&small)).unwrap();
            assert_eq!(decoder.icc_profile().unwrap().is_some(), kept);
            assert_eq!(decoder.color_type(), image::ColorType::Rgba8);
        }
    }

    /// H5: refused from its header, whatever follows.
    #[test]
    fn h5_a_bomb_is_refused_from_its_header() {
        let mut bomb = png(1, 1);
        bomb[16..24].copy_from_slice(&[0, 0, 0xc3, 0x50, 0, 0, 0xc3, 0x50]);
        // The head's checksum.
        let crc = crc(&bomb[12..29]);
        bomb[29..33].copy_from_slice(&crc.to_be_bytes());
        #[expect(clippy::disallowed_methods, reason = "what is measured is real time")]
        let began = SystemTime::now();
        let refused = render(thumbnail(32, 32, true, false), Kind::Png, &bomb);
        assert_eq!(refused, Err(Unrendered::TooLarge));
        assert!(began.elapsed().unwrap() < Duration::from_millis(100));
    }

    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
                (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
            })
        })
    }

    /// H5: other kinds of pictures are none to us.
    #[test]
    fn h5_only_four_kinds_are_decoded() {
        let task = thumbnail(32, 32, true, false);
        for kind in [Kind::Other, Kind::Png, Kind::Jpeg, Kind::Gif, Kind::Webp] {
            for file in [&b"II*\0"[..], b"8BPS", b"%!PS", b"<svg/>", b""] {
                let refused = render(task, kind, file);
                assert_eq!(refused, Err(Unrendered::Unreadable), "{kind:?} {file:?}");
            }
        }
    }
}
