//! JPEG: pictures one after the other, with whatever stands between them; each of segments, and of the picture's data.
//!
//! It is followed as decoders do, who pass over what stands where a marker should: a picture that they show loses what it tells.

use std::io::{self, BufRead, Read, Seek};

use super::{Cutter, orientation};

/// Application segments that hold metadata: their marker, and what they begin with.
const METADATA: &[(u8, &[u8])] = &[
    (0xe1, EXIF),
    (0xe1, b"http://ns.adobe.com/xap/1.0/\0"),
    (0xe1, b"http://ns.adobe.com/xmp/extension/\0"),
    (0xed, b"Photoshop 3.0\0"),
];
const EXIF: &[u8] = b"Exif\0\0";

pub(super) fn cut<R: Read + Seek>(cutter: &mut Cutter<R>) -> io::Result<()> {
    let mut in_picture = true;
    loop {
        to_marker(cutter)?;
        let from = cutter.at;
        let marker = loop {
            match cutter.take::<1>()? {
                [0xff] => {}
                [marker] => break marker,
            }
        };
        match marker {
            // Not by chance: a marker comes next.
            0xd8 => in_picture |= cutter.file.fill_buf()?.first() == Some(&0xff),
            0xd9 => in_picture = false,
            // A 255 of the data, a place to start again at, and what stands alone.
            0x00 | 0x01 | 0xd0..=0xd7 => {}
            // Of what stands between pictures nothing is understood.
            _ if !in_picture => {}
            _ => {
                let length = u16::from_be_bytes(cutter.take()?);
                let length = u64::from(length.saturating_sub(2));
                if (0xe0..=0xef).contains(&marker) {
                    let content = cutter.read(length)?;
                    application(cutter, from, marker, &content)?;
                } else {
                    cutter.skip(length)?;
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
    let upright = content.strip_prefix(EXIF).and_then(orientation::read);
    let instead = upright.map_or_else(Vec::new, |orientation| {
        let tiff = orientation::write(orientation);
        let length = u16::try_from(2 + begin.len() + tiff.len()).unwrap_or(u16::MAX);
        [&[0xff, 0xe1], &length.to_be_bytes()[..], begin, &tiff].concat()
    });
    cutter.replace(from, instead)
}

/// Goes to where the next marker may stand.
fn to_marker<R: Read + Seek>(cutter: &mut Cutter<R>) -> io::Result<()> {
    loop {
        let bytes = cutter.file.fill_buf()?;
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let at = bytes.iter().position(|byte| *byte == 0xff);
        let passed = at.unwrap_or(bytes.len());
        cutter.file.consume(passed);
        cutter.at += passed as u64;
        if at.is_some() {
            return Ok(());
        }
    }
}
