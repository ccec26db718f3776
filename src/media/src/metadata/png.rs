//! PNG: chunks of a length, a type, content and a checksum.

use std::io::{self, Read, Seek};

use super::{Cutter, orientation};

/// Of a text chunk, enough to know its keyword by.
const KEYWORD: u64 = 80;

pub(super) fn cut<R: Read + Seek>(cutter: &mut Cutter<R>) -> io::Result<()> {
    cutter.skip(8)?;
    loop {
        let from = cutter.at;
        let length = u64::from(u32::from_be_bytes(cutter.take()?));
        match &cutter.take::<4>()? {
            b"IEND" => return Ok(()),
            b"eXIf" if length <= 1 << 20 => {
                let tiff = cutter.read(length)?;
                cutter.skip(4)?;
                let instead = orientation::read(&tiff).map(exif).unwrap_or_default();
                cutter.replace(from, instead)?;
            }
            b"eXIf" => {
                cutter.skip(length + 4)?;
                cutter.replace(from, Vec::new())?;
            }
            b"tEXt" | b"zTXt" | b"iTXt" => {
                let head = cutter.read(length.min(KEYWORD))?;
                cutter.skip(length - head.len() as u64 + 4)?;
                if is_metadata(&head) {
                    cutter.replace(from, Vec::new())?;
                }
            }
            _ => cutter.skip(length + 4)?,
        }
    }
}

/// XMP, and what ImageMagick makes of EXIF and IPTC: the whole of it, or a text for each thing.
fn is_metadata(text: &[u8]) -> bool {
    let begins = |with: &[u8]| {
        let begin = text.get(..with.len());
        begin.is_some_and(|begin| begin.eq_ignore_ascii_case(with))
    };
    begins(b"XML:com.adobe.xmp\0") || begins(b"Raw profile type ") || begins(b"exif:")
}

/// A chunk that tells an orientation.
fn exif(orientation: u8) -> Vec<u8> {
    let tiff = orientation::write(orientation);
    let length = u32::try_from(tiff.len()).unwrap_or_default();
    let named = [b"eXIf", &tiff[..]].concat();
    let sum = crc(&named);
    [&length.to_be_bytes()[..], &named, &sum.to_be_bytes()].concat()
}

/// The checksum of a chunk, over its type and content.
fn crc(bytes: &[u8]) -> u32 {
    let step = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg())
        })
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    /// The known value of "123456789".
    #[test]
    fn the_checksum_is_that_of_png() {
        assert_eq!(super::crc(b"123456789"), 0xcbf4_3926);
        assert_eq!(super::crc(b"IEND"), 0xae42_6082);
    }
}
