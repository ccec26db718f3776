//! What bytes say they are, whatever is said of them.

use serde::{Deserialize, Serialize};

/// Bytes looked at.
pub(crate) const HEAD: usize = 64;

/// What we do more with than to keep it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// None of these.
    Other,
    /// A PNG image, perhaps animated.
    Png,
    /// A JPEG image.
    Jpeg,
    /// A GIF image, perhaps animated.
    Gif,
    /// A WebP image, perhaps animated.
    Webp,
}

impl Kind {
    /// By the first bytes.
    pub fn of(head: &[u8]) -> Self {
        match head {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Self::Png,
            [0xff, 0xd8, 0xff, ..] => Self::Jpeg,
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Self::Gif,
            [
                b'R',
                b'I',
                b'F',
                b'F',
                _,
                _,
                _,
                _,
                b'W',
                b'E',
                b'B',
                b'P',
                ..,
            ] => Self::Webp,
            _ => Self::Other,
        }
    }

    /// Its MIME type.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Other => "application/octet-stream",
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Gif => "image/gif",
            Self::Webp => "image/webp",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R16.1: by the bytes.
    #[test]
    fn kinds_by_their_first_bytes() {
        for (head, kind) in [
            (&b"\x89PNG\r\n\x1a\n\0\0"[..], Kind::Png),
            (b"\xff\xd8\xff\xe0", Kind::Jpeg),
            (b"GIF89a\0", Kind::Gif),
            (b"GIF87a", Kind::Gif),
            (b"RIFF\0\0\0\0WEBPVP8 ", Kind::Webp),
            (b"RIFF\0\0\0\0WAVE", Kind::Other),
            (b"<svg", Kind::Other),
            (b"II*\0", Kind::Other),
            (b"8BPS", Kind::Other),
            (b"%!PS", Kind::Other),
            (b"", Kind::Other),
        ] {
            assert_eq!(Kind::of(head), kind, "{head:?}");
        }
    }
}
