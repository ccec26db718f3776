//! What comes with files: what they are named and called, how they are wrapped, what is cut out of them, which part of them is asked
//! for; and pages of the web.

use std::io::Cursor;

use bytes::Bytes;
use comity_federation_media::{
    filename,
    multipart::{Parts, boundary},
};
use comity_media::{
    Kind, Mxc,
    metadata::{Piece, plan},
    page_properties,
    tables::MediaKey,
};
use comity_web::content::{Asked, asked, disposition};
use futures_util::{FutureExt, StreamExt, stream};
use http::{HeaderMap, HeaderValue, header::RANGE};

use crate::text;

/// A type, a line break, and a name or a `Content-Disposition`: what we call a file others read as its name, and of what a browser
/// runs nothing is shown in place.
pub(crate) fn content_disposition(bytes: &[u8]) {
    let (kind, name) = text(bytes).split_once('\n').unwrap_or_default();
    let _ = filename(name);
    let line = disposition(kind, Some(name));
    let line = line.to_str().unwrap();
    assert_eq!(filename(line).as_deref(), Some(name));
    let essence = kind.split(';').next().unwrap().to_ascii_lowercase();
    let runs = ["html", "svg", "xml", "script", "pdf"];
    let runs = runs.iter().any(|one| essence.contains(one));
    assert!(!runs || line.starts_with("attachment"));
}

/// A server's name, a line break, an id: what is taken is no path, and its key names the same.
pub(crate) fn mxc(bytes: &[u8]) {
    let (server, id) = text(bytes).split_once('\n').unwrap_or_default();
    let Some(mxc) = Mxc::new(server, id) else {
        return;
    };
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    assert!(id.chars().all(safe) && !server.contains(['/', '\\', '\0']));
    assert_eq!(MediaKey::from(&mxc).parts(), Some((server, id)));
}

/// A picture: it grows by no more than an orientation, and what was cut needs no cutting.
pub(crate) fn metadata(bytes: &[u8]) {
    let kind = Kind::of(bytes);
    let left = cut(kind, bytes);
    assert!(left.len() <= 2 * bytes.len());
    // Behind a picture's end it is looked for where another begins, and cutting may take its beginning along.
    let one = kind != Kind::Jpeg || !bytes.windows(2).any(|two| two == b"\xff\xd9");
    assert!(!one || cut(kind, &left).len() == left.len());
}

fn cut(kind: Kind, file: &[u8]) -> Vec<u8> {
    let Some(pieces) = plan(kind, Cursor::new(file), file.len() as u64) else {
        return file.to_vec();
    };
    let (mut left, mut at) = (Vec::new(), 0);
    for piece in pieces {
        match piece {
            Piece::Insert(bytes) => left.extend(bytes),
            Piece::Keep(range) => {
                let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).unwrap());
                assert!(at <= start, "out of order");
                left.extend_from_slice(&file[start..end]);
                at = end;
            }
        }
    }
    left
}

/// How many bytes come at a time, a `Content-Type`, a line break, a body of several parts: its parts are the same however they come.
pub(crate) fn multipart(bytes: &[u8]) {
    let Some((step, bytes)) = bytes.split_first() else {
        return;
    };
    let line = bytes.iter().position(|byte| *byte == b'\n');
    let (kind, body) = bytes.split_at(line.unwrap_or(bytes.len()));
    let Some(boundary) = boundary(text(kind)) else {
        return;
    };
    let body = body.get(1..).unwrap_or_default();
    let at_once = parts(body, &boundary, body.len());
    assert_eq!(parts(body, &boundary, usize::from(*step)), at_once);
    let data = at_once.0.iter().map(|(_, data)| data.len());
    assert!(data.sum::<usize>() <= body.len());
}

/// A part's head, and what is in it.
type Part = (HeaderMap, Vec<u8>);

/// The parts, and whether they came to their end.
fn parts(body: &[u8], boundary: &str, step: usize) -> (Vec<Part>, bool) {
    let pieces = body.chunks(step.max(1));
    let pieces: Vec<_> = pieces
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    let mut read = Vec::new();
    let whole = async {
        let mut parts = Parts::new(stream::iter(pieces).boxed(), boundary);
        while let Some(head) = parts.next().await? {
            read.push((head, Vec::new()));
            while let Some(piece) = parts.data().await? {
                read.last_mut().unwrap().1.extend_from_slice(&piece);
            }
        }
        std::io::Result::Ok(())
    };
    // All of it is there.
    let ended = whole.now_or_never().unwrap().is_ok();
    (read, ended)
}

/// A charset, a line break, a page: what it says of itself is little, and in lines.
pub(crate) fn page(bytes: &[u8]) {
    let line = bytes.iter().position(|byte| *byte == b'\n');
    let (charset, page) = bytes.split_at(line.unwrap_or(bytes.len()));
    let said = page_properties(page, Some(text(charset)));
    assert!(said.len() <= 70);
    for (name, value) in said {
        assert!((1..=64).contains(&name.len()));
        assert!((1..=1024).contains(&value.len()));
        assert!(![name, value].concat().contains(char::is_control));
    }
}

/// A file's size, a line break, a `Range`: what is given is what an obvious reading of it asks for.
pub(crate) fn range(bytes: &[u8]) {
    let (size, line) = text(bytes).split_once('\n').unwrap_or_default();
    let (Ok(size), Ok(value)) = (size.parse::<u64>(), HeaderValue::from_str(line)) else {
        return;
    };
    let given = asked(&HeaderMap::from_iter([(RANGE, value)]), "\"tag\"", size);
    if let Asked::Part(part) = &given {
        assert!(part.start < part.end && part.end <= size);
    }
    // Spaces are passed over, which nobody has to.
    if !line.contains([' ', '\t']) {
        assert_eq!(given, obvious(line, size));
    }
}

fn obvious(line: &str, size: u64) -> Asked {
    let sides = line.strip_prefix("bytes=");
    let Some((from, to)) = sides.and_then(|sides| sides.split_once('-')) else {
        return Asked::Whole;
    };
    let digits = |side: &str| side.chars().all(|c| c.is_ascii_digit());
    if !digits(from) || !digits(to) || (from.is_empty() && to.is_empty()) {
        return Asked::Whole;
    }
    let number = |side: &str| side.parse().unwrap_or(u64::MAX);
    let (first, last) = match (from, to) {
        ("", most) => (size.saturating_sub(number(most)), u64::MAX),
        (from, "") => (number(from), u64::MAX),
        (from, to) => (number(from), number(to)),
    };
    if last < first {
        return Asked::Whole;
    }
    if first >= size {
        return Asked::Beyond;
    }
    Asked::Part(first..last.saturating_add(1).min(size))
}
