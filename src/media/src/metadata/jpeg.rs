//! JPEG: segments up to the picture's data, which is followed to its end, where further pictures may stand.

use std::io::{self, BufRead, Read, Seek};

use super::{Cutter, orientation};

/// Application segments that hold metadata: their marker, and what they begin with.
const METADATA: &[(u8, &[u8])] = &[
    (0xe1, b"Exif\0\0"),
    (0xe1, b"http://ns.adobe.com/xap/1.0/\0"),
    (0xe1, b"http://ns.adobe.com/xmp/extension/\0"),
    (0xed, b"Photoshop 3.0\0"),
];

pub(super) fn cut<R: Read + Seek>(cutter: &mut Cutter<R>) -> io::Result<()> {
    loop {
        let from = cutter.at;
        if cutter.take::<1>()? != [0xff] {
            // After the last picture.
            return Ok(());
        }
        let marker = loop {
            match cutter.take::<1>()? {
                [0xff] => {}
                [marker] => break marker,
            }
        };
        match marker {
            // The beginning and the end of a picture, and what stands alone.
            0x01 | 0xd0..=0xd9 => {}
            0x00 => return Ok(()),
            _ => {
                let length = u16::from_be_bytes(cutter.take()?);
                let Some(length) = length.checked_sub(2) else {
                    return Ok(());
                };
                if (0xe0..=0xef).contains(&marker) {
                    let content = cutter.read(u64::from(length))?;
                    application(cutter, from, marker, &content)?;
                } else {
                    cutter.skip(u64::from(length))?;
                }
                if marker == 0xda {
                    scan(cutter)?;
                }
            }
        }
    }
}

fn application<R: Read + Seek>(
    cutter: &mut Cutter<R>,
    from: u64,
    marker: u8,
    content: &[u8],
) -> io::Result<()> {
    let is = |(kind, begin): &&(u8, &[u8])| *kind == marker && content.starts_with(begin);
    let Some((_, begin)) = METADATA.iter().find(is) else {
        return Ok(());
    };
    let upright = content
        .strip_prefix(b"Exif\0\0")
        .and_then(orientation::read);
    let instead = upright.map_or_else(Vec::new, |orientation| {
        let tiff = orientation::write(orientation);
        let length = u16::try_from(2 + begin.len() + tiff.len()).unwrap_or(u16::MAX);
        [&[0xff, 0xe1], &length.to_be_bytes()[..], begin, &tiff].concat()
    });
    cutter.replace(from, instead)
}

/// Goes to the first marker after the picture's data.
fn scan<R: Read + Seek>(cutter: &mut Cutter<R>) -> io::Result<()> {
    loop {
        let bytes = cutter.file.fill_buf()?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some(at) = bytes.iter().position(|byte| *byte == 0xff) else {
            let length = bytes.len();
            cutter.file.consume(length);
            cutter.at += length as u64;
            continue;
        };
        cutter.file.consume(at);
        cutter.at += at as u64;
        let [_, next] = cutter.take::<2>()?;
        // A 255 of the data, or a place to start again at.
        if next != 0 && !(0xd0..=0xd7).contains(&next) {
            cutter.file.seek_relative(-2)?;
            cutter.at -= 2;
            return Ok(());
        }
    }
}
