//! What a camera wrote into a picture besides the picture: where, when, with what. It is taken out of what users upload plain.
//!
//! EXIF, XMP and IPTC go; the orientation stays, for without it many photos lie on their side. The picture's own bytes aren't
//! touched: a file is cut along its segments, and a file that can't be followed is left as it is from there on.

mod jpeg;
mod orientation;
mod png;
mod webp;

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom},
    ops::Range,
};

use comity_runtime::PoolError;

use crate::{
    Kind, Media, MediaError,
    staging::{Staged, Staging},
};

/// Cuts in a file, at most; what has more is no photo.
const MAX_CUTS: usize = 1024;

/// A part of the file as it will be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// These bytes of the old one.
    Keep(Range<u64>),
    /// These.
    Insert(Vec<u8>),
}

/// A file being followed, and what of it stays.
struct Cutter<R> {
    file: BufReader<R>,
    at: u64,
    /// From here on nothing has been decided.
    kept_from: u64,
    pieces: Vec<Piece>,
}

impl<R: Read + Seek> Cutter<R> {
    fn new(file: R) -> Self {
        Self {
            file: BufReader::with_capacity(64 << 10, file),
            at: 0,
            kept_from: 0,
            pieces: Vec::new(),
        }
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        self.at += N as u64;
        Ok(bytes)
    }

    /// The next `length` bytes, as long as they are few; those that are there of them where the file ends before.
    fn read(&mut self, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = (&mut self.file).take(length).read_to_end(&mut bytes)?;
        self.at += read as u64;
        Ok(bytes)
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        let by = i64::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?;
        self.file.seek_relative(by)?;
        self.at += length;
        Ok(())
    }

    /// Puts these bytes where those since `from` were, up to here.
    fn replace(&mut self, from: u64, by: Vec<u8>) -> io::Result<()> {
        if self.pieces.len() >= MAX_CUTS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if from > self.kept_from {
            self.pieces.push(Piece::Keep(self.kept_from..from));
        }
        if !by.is_empty() {
            self.pieces.push(Piece::Insert(by));
        }
        self.kept_from = self.at;
        Ok(())
    }

    /// The file as it will be; `None` if it stays as it is.
    fn finish(mut self, size: u64) -> Option<Vec<Piece>> {
        if self.pieces.is_empty() {
            return None;
        }
        if self.kept_from < size {
            self.pieces.push(Piece::Keep(self.kept_from..size));
        }
        Some(self.pieces)
    }
}

/// How a file is cut; `None` if it stays as it is.
pub fn plan<R: Read + Seek>(kind: Kind, file: R, size: u64) -> Option<Vec<Piece>> {
    let mut cutter = Cutter::new(file);
    let followed = match kind {
        Kind::Jpeg => jpeg::cut(&mut cutter),
        Kind::Png => png::cut(&mut cutter),
        Kind::Webp => return webp::plan(cutter, size),
        Kind::Gif | Kind::Other => return None,
    };
    // Where it can't be followed any more, the rest stays as it is.
    drop(followed);
    cutter.finish(size)
}

impl Media {
    /// The staged file without what doesn't belong to the picture.
    pub(crate) async fn without_metadata(&self, staged: Staged) -> Result<Staged, MediaError> {
        let kind = Kind::of(&staged.head);
        if matches!(kind, Kind::Other | Kind::Gif) {
            return Ok(staged);
        }
        let name = self.new_id();
        let target = self.0.blobs.staging(&name);
        let work = move || -> io::Result<Staged> {
            let mut file = File::open(staged.path())?;
            let Some(pieces) = plan(kind, &file, staged.size) else {
                return Ok(staged);
            };
            let mut cut = Staging::create(target, name)?;
            for piece in pieces {
                match piece {
                    Piece::Insert(bytes) => cut.write(&bytes)?,
                    Piece::Keep(range) => {
                        file.seek(SeekFrom::Start(range.start))?;
                        let length = range.end.saturating_sub(range.start);
                        cut.copy(&mut (&mut file).take(length))?;
                    }
                }
            }
            cut.finish()
        };
        let done = self.0.files.run(work).await;
        let done = done.map_err(|error| match error {
            PoolError::Busy(_) => MediaError::Busy,
            error => MediaError::Blob(error.to_string()),
        });
        Ok(done??)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn stripped(kind: Kind, file: &[u8]) -> Vec<u8> {
        let Some(pieces) = plan(kind, Cursor::new(file), file.len() as u64) else {
            return file.to_vec();
        };
        let piece = |piece: &Piece| match piece {
            Piece::Insert(bytes) => bytes.clone(),
            Piece::Keep(range) => {
                let at = |n: u64| usize::try_from(n).unwrap();
                file[at(range.start)..at(range.end)].to_vec()
            }
        };
        pieces.iter().flat_map(piece).collect()
    }

    /// EXIF with a place in it, and an orientation.
    fn exif(orientation: u8) -> Vec<u8> {
        let mut tiff = orientation::write(orientation);
        tiff.extend_from_slice(b"canary: 52.5N 13.4E");
        tiff
    }

    fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len() + 2).unwrap();
        [&[0xff, marker], &length.to_be_bytes()[..], content].concat()
    }

    fn jpeg(application: &[Vec<u8>]) -> Vec<u8> {
        let scan = segment(0xda, b"\x01\x01\0\0\x3f\0");
        // With a 255 of the data and a restart.
        let data = b"abc\xff\0def\xff\xd0ghi\xff\xd9";
        let start = [0xff, 0xd8];
        [&start[..], &application.concat(), &scan, data].concat()
    }

    /// R16.2: a photo keeps its orientation and loses the rest of what the camera said, in every picture of the file.
    #[test]
    fn photos_lose_their_place() {
        let exif_segment = |n| segment(0xe1, &[b"Exif\0\0", &exif(n)[..]].concat());
        let xmp = segment(0xe1, b"http://ns.adobe.com/xap/1.0/\0canary");
        let iptc = segment(0xed, b"Photoshop 3.0\0canary");
        let icc = segment(0xe2, b"ICC_PROFILE\0\x01\x01profile");
        let bare = jpeg(std::slice::from_ref(&icc));
        assert_eq!(stripped(Kind::Jpeg, &bare), bare);
        let upright = [exif_segment(1), icc.clone(), xmp, iptc];
        assert_eq!(stripped(Kind::Jpeg, &jpeg(&upright)), bare);
        let turned = [exif_segment(6), icc];
        let mut file = jpeg(&turned);
        let second = jpeg(&[exif_segment(1)]);
        file.extend(&second);
        let left = stripped(Kind::Jpeg, &file);
        assert!(!left.windows(6).any(|part| part == b"canary"));
        let kept = left.windows(26).find(|part| part.starts_with(b"MM\0*"));
        assert_eq!(kept.and_then(orientation::read), Some(6));
        assert!(left.ends_with(&jpeg(&[])));
    }

    /// R16.2: nor is it left where decoders pass over something to show the picture, or behind the picture.
    #[test]
    fn nothing_hides_it() {
        let exif = segment(0xe1, &[b"Exif\0\0", &exif(1)[..]].concat());
        let told = jpeg(std::slice::from_ref(&exif));
        let bare = jpeg(&[]);
        let cut_short = &exif[..exif.len() - 1];
        let within = |before: &[u8], after: &[u8]| {
            let (start, rest) = bare.split_at(2);
            [start, before, &exif, after, rest].concat()
        };
        let scan = segment(0xda, b"\x01\x01\0\0\x3f\0");
        for (file, left) in [
            // Rubbish before a marker, segments of no length, bytes that fill.
            (within(b"\0\x11", b""), None),
            (within(b"\xff\xe5\0\0", b""), None),
            (within(b"\xff\xe5\0\x01", b""), None),
            (within(b"\xff\xff\xff", b""), Some(bare.clone())),
            // In a second scan's head; behind a filled 255 and a filled restart of the first one's data.
            (within(&[&scan[..], b"data"].concat(), &scan), None),
            (within(&[&scan[..], b"\xff\xff\0a"].concat(), b""), None),
            (within(&[&scan[..], b"\xff\xff\xd0a"].concat(), b""), None),
            // Of a second picture, behind what fills a block, or looks like a long segment, or a beginning.
            ([&bare[..], &[0; 100], &told].concat(), None),
            ([&bare[..], b"\xff\xe5\xff\xff", &told].concat(), None),
            (
                [&bare[..], b"\xff\xd8\0\xff\xe5\xff\xff", &told].concat(),
                None,
            ),
            // The file ends within it.
            (
                [b"\xff\xd8", cut_short].concat(),
                Some(b"\xff\xd8".to_vec()),
            ),
        ] {
            let found = stripped(Kind::Jpeg, &file);
            let told = found.windows(6).any(|part| part == b"canary");
            assert!(!told, "{}", file.escape_ascii());
            let cut = file.len() - exif.len();
            match left {
                Some(left) => assert_eq!(found, left),
                None => assert_eq!(found.len(), cut, "{}", file.escape_ascii()),
            }
        }
    }

    #[test]
    fn pngs_lose_it_too() {
        let chunk = |name: &[u8], content: &[u8]| {
            let length = u32::try_from(content.len()).unwrap();
            [&length.to_be_bytes()[..], name, content, b"sum."].concat()
        };
        let file = |chunks: &[Vec<u8>]| {
            let start = [&b"\x89PNG\r\n\x1a\n"[..], &chunk(b"IHDR", &[0; 13])].concat();
            [
                start,
                chunks.concat(),
                chunk(b"IDAT", b"data"),
                chunk(b"IEND", b""),
            ]
            .concat()
        };
        let software = chunk(b"tEXt", b"Software\0Paint");
        let bare = file(std::slice::from_ref(&software));
        assert_eq!(stripped(Kind::Png, &bare), bare);
        let told = [
            chunk(b"eXIf", &exif(1)),
            software,
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0canary"),
            chunk(b"zTXt", b"Raw profile type exif\0\0canary"),
            chunk(b"tEXt", b"exif:GPSLatitude\0canary"),
        ];
        assert_eq!(stripped(Kind::Png, &file(&told)), bare);
        let turned = stripped(Kind::Png, &file(&[chunk(b"eXIf", &exif(3))]));
        assert!(!turned.windows(6).any(|part| part == b"canary"));
        assert!(turned.windows(4).any(|part| part == b"eXIf"));
    }

    #[test]
    fn webps_lose_it_too() {
        let chunk = |name: &[u8], content: &[u8]| {
            let length = u32::try_from(content.len()).unwrap();
            let pad = vec![0; content.len() % 2];
            [name, &length.to_le_bytes()[..], content, &pad].concat()
        };
        let file = |flags: u8, chunks: &[Vec<u8>]| {
            let inner = [
                b"WEBP".to_vec(),
                chunk(b"VP8X", &[flags, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
                chunk(b"VP8 ", b"picture"),
                chunks.concat(),
            ];
            chunk(b"RIFF", &inner.concat())
        };
        let told = [chunk(b"EXIF", &exif(1)), chunk(b"XMP ", b"canary!")];
        let bare = file(0x10, &[]);
        assert_eq!(stripped(Kind::Webp, &bare), bare);
        assert_eq!(stripped(Kind::Webp, &file(0x1c, &told)), bare);
        let told = [chunk(b"EXIF", &exif(8)), chunk(b"XMP ", b"canary!")];
        let expected = file(0x18, &[chunk(b"EXIF", &orientation::write(8))]);
        assert_eq!(stripped(Kind::Webp, &file(0x1c, &told)), expected);
        // What stands behind the container stays behind it.
        let behind = |file: Vec<u8>| [&file[..], b"rest"].concat();
        let told = behind(file(0x1c, &told));
        assert_eq!(stripped(Kind::Webp, &told), behind(expected));
        // Chunks there, which the container's length doesn't count, are cut without making it shorter.
        let appended = [chunk(b"XMP ", b"canary!"), chunk(b"EXIF", &exif(1))];
        let told = [bare.clone(), appended.concat()].concat();
        assert_eq!(stripped(Kind::Webp, &told), bare);
    }

    /// Whatever is cut short or altered: no panic, and what is left is no longer than what came but for an orientation.
    #[test]
    fn nothing_makes_it_stumble() {
        let exif = segment(0xe1, &[b"Exif\0\0", &exif(6)[..]].concat());
        let file = jpeg(&[exif]);
        for kind in [Kind::Jpeg, Kind::Png, Kind::Webp] {
            for at in 0..file.len() {
                let _ = stripped(kind, &file[..at]);
                for value in [0, 1, 0x7f, 0xff] {
                    let mut altered = file.clone();
                    altered[at] = value;
                    assert!(stripped(kind, &altered).len() <= file.len() + 64);
                }
            }
        }
    }
}
