//! What moves: read frame by frame, and written as GIF.

use std::io::Cursor;

use image::{
    AnimationDecoder, DynamicImage, Frame, Frames, ImageDecoder,
    codecs::{
        gif::{GifDecoder, GifEncoder, Repeat},
        png::PngDecoder,
        webp::WebPDecoder,
    },
};

use super::render::{Bounded, Rendered, Size, Unrendered, limits};
use crate::Kind;

/// Of an animation: frames, and pixels of all of them together; what has more stands still.
const MAX_FRAMES: usize = 300;
const MAX_FRAME_PIXELS: u64 = 256 << 20;

/// The frames of what may be an animation; `None` if it is none.
fn frames(kind: Kind, file: &[u8]) -> Result<Option<Frames<'_>>, Unrendered> {
    let bytes = Cursor::new(file);
    Ok(match kind {
        Kind::Gif => {
            let mut decoder = GifDecoder::new(bytes)?;
            decoder.set_limits(limits())?;
            Some(decoder.into_frames())
        }
        Kind::Webp => {
            let mut decoder = WebPDecoder::new(bytes)?;
            decoder.set_limits(limits())?;
            let animated = decoder.has_animation();
            animated.then(|| decoder.into_frames())
        }
        Kind::Png => {
            let decoder = PngDecoder::with_limits(bytes, limits())?;
            if decoder.is_apng()? {
                Some(decoder.apng()?.into_frames())
            } else {
                None
            }
        }
        Kind::Jpeg | Kind::Other => None,
    })
}

/// Whether somebody else might see it move. What begins to and breaks off may.
pub(super) fn moves(kind: Kind, file: &[u8]) -> bool {
    match frames(kind, file) {
        Ok(Some(frames)) => kind != Kind::Gif || frames.take(2).count() > 1,
        Ok(None) => false,
        Err(_) => true,
    }
}

/// The animation in this size, of at most so many bytes; `None` if it is none, or too long a one.
pub(super) fn moving(
    kind: Kind,
    file: &[u8],
    size: Size,
    most: usize,
) -> Result<Option<Rendered>, Unrendered> {
    let Some(frames) = frames(kind, file)? else {
        return Ok(None);
    };
    let mut bytes = Bounded::new(most);
    let mut encoder = GifEncoder::new_with_speed(&mut bytes, 20);
    encoder.set_repeat(Repeat::Infinite)?;
    let (mut number, mut pixels, mut shown) = (0, 0, (0, 0));
    for frame in frames {
        let frame = frame?;
        let delay = frame.delay();
        let picture = DynamicImage::from(frame.into_buffer());
        number += 1;
        pixels += u64::from(picture.width()) * u64::from(picture.height());
        if number > MAX_FRAMES || pixels > MAX_FRAME_PIXELS {
            return Ok(None);
        }
        let picture = size.of(picture).into_rgba8();
        shown = picture.dimensions();
        encoder.encode_frame(Frame::from_parts(picture, 0, 0, delay))?;
    }
    drop(encoder);
    Ok((number > 1 && !bytes.cut).then_some(Rendered {
        width: shown.0,
        height: shown.1,
        file: Some((Kind::Gif, bytes.written)),
    }))
}
