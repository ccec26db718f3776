//! WebP: a RIFF container whose head tells its length, and whose first chunk which others there are.

use std::io::{self, Read, Seek};

use super::{Cutter, Piece, orientation};

const HAS_EXIF: u8 = 0x08;
const HAS_XMP: u8 = 0x04;

/// What was found on the way.
#[derive(Default)]
struct Found {
    /// The length that the container tells.
    length: u32,
    /// Where the flags stand, and what they are.
    flags: Option<(u64, u8)>,
    orientation: Option<u8>,
    /// Bytes cut behind what the container tells of, and put in there.
    behind: (u64, u64),
}

impl Found {
    /// Chunks from `from` to `to` are replaced by one of so many bytes.
    fn count(&mut self, from: u64, to: u64, by: usize) {
        if from >= 8 + u64::from(self.length) {
            self.behind.0 += to - from;
            self.behind.1 += by as u64;
        }
    }
}

pub(super) fn plan<R: Read + Seek>(mut cutter: Cutter<R>, size: u64) -> Option<Vec<Piece>> {
    let mut found = Found::default();
    // Where it can't be followed any more, the rest stays as it is.
    drop(cut(&mut cutter, &mut found));
    let pieces = cutter.finish(size)?;
    // What it tells of may end before the file does.
    let left: u64 = pieces.iter().map(Piece::length).sum();
    let (cut, put) = found.behind;
    let riff = (u64::from(found.length) + left + cut).saturating_sub(size + put);
    let riff = u32::try_from(riff).unwrap_or(u32::MAX);
    let mut head = Vec::from(*b"RIFF");
    head.extend_from_slice(&riff.to_le_bytes());
    let mut patched = vec![Piece::Insert(head)];
    let mut from = 8;
    if let Some((at, flags)) = found.flags {
        let kept = if found.orientation.is_some() {
            HAS_EXIF
        } else {
            0
        };
        let flags = flags & !(HAS_EXIF | HAS_XMP) | kept;
        patched.extend([Piece::Keep(from..at), Piece::Insert(vec![flags])]);
        from = at + 1;
    }
    // The head and the flags stand before anything that is cut.
    let mut pieces = pieces.into_iter();
    match pieces.next() {
        Some(Piece::Keep(first)) if first.start == 0 && first.end >= from => {
            patched.push(Piece::Keep(from..first.end));
        }
        _ => return None,
    }
    patched.extend(pieces);
    Some(patched)
}

fn cut<R: Read + Seek>(cutter: &mut Cutter<R>, found: &mut Found) -> io::Result<()> {
    cutter.skip(4)?;
    found.length = u32::from_le_bytes(cutter.take()?);
    cutter.skip(4)?;
    loop {
        let from = cutter.at;
        let name = cutter.take::<4>()?;
        let length = u64::from(u32::from_le_bytes(cutter.take()?));
        let padded = length + length % 2;
        match &name {
            b"VP8X" if from == 12 && length > 0 => {
                found.flags = Some((cutter.at, cutter.take::<1>()?[0]));
                cutter.skip(padded - 1)?;
            }
            b"EXIF" if length <= 1 << 20 => {
                let content = cutter.read(length)?;
                cutter.skip(length % 2)?;
                let tiff = content.strip_prefix(b"Exif\0\0").unwrap_or(&content);
                let upright = orientation::read(tiff).filter(|_| found.orientation.is_none());
                found.orientation = found.orientation.or(upright);
                let kept = upright.map(exif).unwrap_or_default();
                found.count(from, cutter.at, kept.len());
                cutter.replace(from, kept)?;
            }
            b"EXIF" | b"XMP " => {
                cutter.skip(padded)?;
                found.count(from, cutter.at, 0);
                cutter.replace(from, Vec::new())?;
            }
            _ => cutter.skip(padded)?,
        }
    }
}

/// A chunk that tells an orientation.
fn exif(orientation: u8) -> Vec<u8> {
    let tiff = orientation::write(orientation);
    let length = u32::try_from(tiff.len()).unwrap_or_default();
    [b"EXIF", &length.to_le_bytes()[..], &tiff].concat()
}

impl Piece {
    fn length(&self) -> u64 {
        match self {
            Self::Keep(range) => range.end.saturating_sub(range.start),
            Self::Insert(bytes) => bytes.len() as u64,
        }
    }
}
