//! A body of several parts, read as it comes: no more of it is held than a piece and a part's head.
//!
//! <https://www.rfc-editor.org/rfc/rfc2046#section-5.1.1>

use std::io;

use bytes::{Bytes, BytesMut};
use comity_media::Pieces;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::memmem;

/// The longest head of a part, with the empty line at its end.
const MAX_HEAD: usize = 16 << 10;
/// The longest that RFC 2046 allows.
const MAX_BOUNDARY: usize = 70;

/// The boundary that a `Content-Type` names.
pub fn boundary(content_type: &str) -> Option<String> {
    let mut parameters = content_type.split(';').map(str::trim);
    let kind = parameters.next()?;
    if !kind.eq_ignore_ascii_case("multipart/mixed") {
        return None;
    }
    let value = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("boundary")
            .then(|| value.trim())
    })?;
    let value = value.trim_matches('"');
    (1..=MAX_BOUNDARY)
        .contains(&value.len())
        .then(|| value.to_owned())
}

/// The parts, one after the other.
pub struct Parts {
    body: Pieces,
    held: BytesMut,
    /// The line that stands between parts, with the end of the line before.
    between: Vec<u8>,
    ended: bool,
}

impl Parts {
    /// Of a body with this boundary.
    pub fn new(body: Pieces, boundary: &str) -> Self {
        Self {
            body,
            // What stands before the first line may be nothing at all.
            held: BytesMut::from(&b"\r\n"[..]),
            between: format!("\r\n--{boundary}").into_bytes(),
            ended: false,
        }
    }

    /// The head of the next part; `None` after the last. What is left of the one before is passed over.
    ///
    /// # Errors
    /// The body's; it ends before its last part does, or the head is too long.
    pub async fn next(&mut self) -> io::Result<Option<HeaderMap>> {
        while self.data().await?.is_some() {}
        drop(self.held.split_to(self.between.len()));
        while self.held.len() < 2 {
            self.more().await?;
        }
        if self.held.starts_with(b"--") {
            return Ok(None);
        }
        // Of a part without headers nothing but its empty line is left.
        let head = loop {
            // However much has come at once: a map of headers takes so many and no more.
            let begin = self.held.get(..MAX_HEAD).unwrap_or(&self.held);
            if let Some(at) = memmem::find(begin, b"\r\n\r\n") {
                let head = self.held.split_to(at + 4);
                break head.freeze();
            }
            if self.held.len() >= MAX_HEAD {
                return Err(io::Error::other("the head of a part is too long"));
            }
            self.more().await?;
        };
        Ok(Some(headers(&head)))
    }

    /// More of this part; `None` at its end.
    ///
    /// # Errors
    /// The body's; it ends before the part does.
    pub async fn data(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(at) = memmem::find(&self.held, &self.between) {
                return Ok((at > 0).then(|| self.held.split_to(at).freeze()));
            }
            // The line may have begun.
            let sure = (self.held.len() + 1).saturating_sub(self.between.len());
            if sure > 0 {
                return Ok(Some(self.held.split_to(sure).freeze()));
            }
            self.more().await?;
        }
    }

    /// All that is left of this part.
    pub fn into_data(self) -> Pieces {
        let next =
            |mut parts: Self| async move { Ok(parts.data().await?.map(|piece| (piece, parts))) };
        stream::try_unfold(self, next).boxed()
    }

    async fn more(&mut self) -> io::Result<()> {
        match self.body.next().await.transpose()? {
            Some(piece) if !self.ended => {
                self.held.extend_from_slice(&piece);
                Ok(())
            }
            _ => {
                self.ended = true;
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        }
    }
}

/// The lines that make sense.
fn headers(head: &[u8]) -> HeaderMap {
    let lines = head.split(|byte| *byte == b'\n');
    let line = |line: &[u8]| {
        let at = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at_checked(at)?;
        let name = HeaderName::from_bytes(name.trim_ascii()).ok()?;
        let value = HeaderValue::from_bytes(value.get(1..)?.trim_ascii()).ok()?;
        Some((name, value))
    };
    lines.filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(body: &[u8], step: usize) -> io::Result<Vec<(HeaderMap, Vec<u8>)>> {
        let pieces: Vec<_> = body
            .chunks(step)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        let mut parts = Parts::new(stream::iter(pieces).boxed(), "xyz");
        let mut read = Vec::new();
        while let Some(head) = parts.next().await? {
            let mut data = Vec::new();
            while let Some(piece) = parts.data().await? {
                data.extend_from_slice(&piece);
            }
            read.push((head, data));
        }
        Ok(read)
    }

    #[tokio::test]
    async fn parts_however_they_come() {
        let body = b"--xyz\r\nContent-Type: application/json\r\n\r\n{}\r\n--xyz\r\n\
            content-type:image/png\r\nContent-Disposition: inline\r\n\r\na\r\n--xy\r\nb\r\n\r\n--xyz--\r\n";
        for step in 1..body.len() {
            let read = read(body, step).await.unwrap();
            let [(about, json), (head, file)] = &read[..] else {
                panic!("{read:?}");
            };
            assert_eq!(
                (&about["content-type"], &json[..]),
                (&"application/json".parse().unwrap(), &b"{}"[..])
            );
            assert_eq!(head["content-type"], "image/png");
            assert_eq!(&file[..], b"a\r\n--xy\r\nb\r\n");
        }
        let bare = b"--xyz\r\n\r\nfile\r\n--xyz--";
        assert_eq!(read(bare, 3).await.unwrap()[0].1, b"file");
        for cut in 0..bare.len() - 1 {
            assert!(read(&bare[..cut], 5).await.is_err(), "{cut}");
        }
    }

    /// Law 11: a head is bounded however it comes, also at once.
    #[tokio::test]
    async fn heads_are_bounded() {
        let with = |head: &str| [b"--xyz", head.as_bytes(), b"\r\n\r\nfile\r\n--xyz--"].concat();
        let lines: String = (0..30_000).map(|n| format!("\r\nx{n}:")).collect();
        let (short, long) = (with(&lines[..16_000]), with(&lines));
        for step in [1_000, usize::MAX] {
            let parts = read(&short, step).await.unwrap();
            assert_eq!(parts[0].1, b"file");
            assert!(read(&long, step).await.is_err());
        }
    }

    #[test]
    fn boundaries() {
        assert_eq!(boundary("multipart/mixed; boundary=abc").unwrap(), "abc");
        assert_eq!(
            boundary("Multipart/Mixed;a=b; Boundary=\"a b\"").unwrap(),
            "a b"
        );
        for none in [
            "image/png",
            "multipart/mixed",
            "multipart/mixed; boundary=",
            "text/x; boundary=a",
        ] {
            assert_eq!(boundary(none), None, "{none}");
        }
    }
}
