//! Where one request of an HTTP/1 connection ends and the next begins, as far as it takes to see a length told twice.
//!
//! hyper reads a request with both `Content-Length` and chunks by its chunks and merges lengths that are the same; the head it hands
//! on no longer says so. A proxy before us may have read it by the other length: then what is a body to one is the next
//! request to the other. RFC 9112 (6.3) lets a server refuse such a request, which is what we do, so the bytes are followed on their
//! way to hyper: lines in heads and between chunks, and counts of what is to be skipped. Nothing is kept but the
//! beginning of the line under way.
//!
//! It follows what hyper accepts. Bytes that hyper refuses end the connection, so that it doesn't matter what is made of them here.

/// The part of a line that is kept: the names looked for, and a chunk's size or a length with all its digits.
const LINE: usize = 64;

/// What the next bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// A line of a head; `begun`: after its first line.
    Head { begun: bool },
    /// So many bytes of a body with a length.
    Body(u64),
    /// The line before a chunk.
    Chunk,
    /// So many bytes of a chunk, its line end with it.
    Data(u64),
    /// A line after the last chunk.
    Trailer,
}

/// Follows the bytes of one connection.
#[derive(Debug)]
pub(super) struct Framing {
    part: Part,
    /// The beginning of the line under way.
    line: Vec<u8>,
    /// `Content-Length` lines in the head under way, and the last one's value.
    lengths: u32,
    length: u64,
    /// `Transfer-Encoding` lines in the head under way.
    encodings: u32,
    /// Heads that came whole.
    heads: u32,
}

impl Default for Framing {
    fn default() -> Self {
        Self {
            part: Part::Head { begun: false },
            line: Vec::new(),
            lengths: 0,
            length: 0,
            encodings: 0,
            heads: 0,
        }
    }
}

impl Framing {
    /// Takes the next bytes in. The number (from 1) of the first request among them whose length is told twice: after it nothing
    /// can be said of the connection.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) -> Option<u32> {
        while !bytes.is_empty() {
            if let Part::Body(left) | Part::Data(left) = &mut self.part {
                let taken = bytes
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                bytes = bytes.get(taken..).unwrap_or_default();
                if *left == 0 {
                    self.part = match self.part {
                        Part::Data(_) => Part::Chunk,
                        _ => Part::Head { begun: false },
                    };
                }
                continue;
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let (piece, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
            let room = LINE.saturating_sub(self.line.len());
            self.line.extend(piece.iter().take(room));
            bytes = rest;
            if end.is_some() {
                let mut line = std::mem::take(&mut self.line);
                if self.line_ended(line.trim_ascii_end()) {
                    return Some(self.heads);
                }
                line.clear();
                self.line = line;
            }
        }
        None
    }

    /// Whether the line ended a head that tells its length twice.
    fn line_ended(&mut self, line: &[u8]) -> bool {
        match self.part {
            // Empty lines before a request are skipped.
            Part::Head { begun: false } if line.is_empty() => {}
            Part::Head { begun: false } => self.part = Part::Head { begun: true },
            Part::Head { begun: true } if line.is_empty() => return self.head_ended(),
            Part::Head { begun: true } => self.header(line),
            Part::Chunk => {
                self.part = match size(line) {
                    0 => Part::Trailer,
                    size => Part::Data(size.saturating_add(2)),
                }
            }
            Part::Trailer if line.is_empty() => self.part = Part::Head { begun: false },
            Part::Trailer | Part::Body(_) | Part::Data(_) => {}
        }
        false
    }

    fn header(&mut self, line: &[u8]) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return;
        };
        let (name, value) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"content-length") {
            self.lengths += 1;
            let digits = value.get(1..).unwrap_or_default().trim_ascii();
            self.length = number(digits, 10);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.encodings += 1;
        }
    }

    fn head_ended(&mut self) -> bool {
        self.heads = self.heads.wrapping_add(1);
        let (lengths, encodings) = (self.lengths, self.encodings);
        (self.lengths, self.encodings) = (0, 0);
        self.part = match (encodings, lengths, self.length) {
            (0, 0, _) | (0, _, 0) => Part::Head { begun: false },
            (0, _, length) => Part::Body(length),
            _ => Part::Chunk,
        };
        lengths + encodings > 1
    }
}

/// A chunk's size, from the line before it.
fn size(line: &[u8]) -> u64 {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
    number(digits.trim_ascii(), 16)
}

/// What can't be read is nothing: hyper refuses it.
fn number(digits: &[u8], radix: u32) -> u64 {
    str::from_utf8(digits)
        .ok()
        .and_then(|digits| u64::from_str_radix(digits, radix).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use comity_runtime::Runtime;

    use super::Framing;

    /// G4: which request of a connection tells its length twice, wherever the bytes are cut.
    #[test]
    fn g4_lengths_told_twice_are_found_behind_any_body() {
        const CL: &str = "content-length: 4\r\n";
        const TE: &str = "Transfer-Encoding: chunked\r\n";
        let head = |headers: &str| format!("POST / HTTP/1.1\r\nhost: a\r\n{headers}\r\n");
        let decoy = "content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n";
        let decoy_length = decoy.len();
        let cases = [
            (head(&format!("{CL}{TE}")), Some(1)),
            (head(&format!("{TE}{CL}")), Some(1)),
            (head(&format!("{CL}{CL}")), Some(1)),
            (head(&format!("{TE}{TE}")), Some(1)),
            (head(CL), None),
            (head(TE), None),
            // In a body such lines mean nothing, however it is framed.
            (
                format!(
                    "{}{decoy}{}",
                    head(&format!("content-length: {decoy_length}\r\n")),
                    head("")
                ),
                None,
            ),
            (
                format!(
                    "{}{decoy_length:x};extension\r\n{decoy}\r\n0\r\nx-trailer: a\r\n\r\n{}",
                    head(TE),
                    head("")
                ),
                None,
            ),
            // The next request is found behind either body, and behind none.
            (
                format!("{}abcd\r\n{}", head(CL), head(&format!("{CL}{TE}"))),
                Some(2),
            ),
            (
                format!(
                    "{}3\r\nabc\r\n0\r\n\r\n{}",
                    head(TE),
                    head(&format!("{TE}{CL}"))
                ),
                Some(2),
            ),
            (
                format!("{}{}", head(""), head(&format!("{CL}{CL}"))),
                Some(2),
            ),
            // Line ends without a carriage return are line ends to hyper too.
            (head(&format!("{CL}{TE}")).replace('\r', ""), Some(1)),
        ];
        for (bytes, expected) in cases {
            for piece in [1, 2, 7, bytes.len()] {
                let mut framing = Framing::default();
                let found = bytes
                    .as_bytes()
                    .chunks(piece)
                    .find_map(|piece| framing.follow(piece));
                assert_eq!(found, expected, "{piece}: {bytes}");
                assert!(framing.line.capacity() <= 2 * super::LINE);
            }
        }
    }

    /// G4: of any bytes, however they are cut up, the same request is named, and no more is kept than the beginning of a line.
    #[test]
    fn g4_the_cuts_make_no_difference() {
        const ROUNDS: usize = 2_000;
        let long = format!("x-long: {}\r\n", "a".repeat(200));
        let morsels = [
            "POST / HTTP/1.1\r\n",
            "host: a\r\n",
            "content-length: 4\r\n",
            "content-length:4 \n",
            "Content-Length: 18446744073709551615\r\n",
            "content-length: -1\r\n",
            "Transfer-Encoding: chunked\r\n",
            "transfer-encoding:\r\n",
            "\r\n",
            "\n",
            "\r",
            "abcd",
            "3\r\nabc\r\n",
            "3;extension\n",
            "0\r\n",
            "ffffffffffffffff\r\n",
            ":",
            long.as_str(),
        ];
        let runtime = Runtime::simulated(1);
        let random = runtime.random();
        let below = |bound: usize| random.below(bound as u64) as usize;
        let mut named = 0;
        for _ in 0..ROUNDS {
            let mut bytes = b"POST / HTTP/1.1\r\n".to_vec();
            for _ in 0..below(40) {
                match below(12) {
                    0 => bytes.extend(random.bytes::<3>()),
                    _ => bytes.extend(morsels[below(morsels.len())].bytes()),
                }
            }
            let whole = Framing::default().follow(&bytes);
            named += usize::from(whole.is_some());
            for _ in 0..8 {
                let longest = 1 + below(50);
                let (mut framing, mut rest, mut found) = (Framing::default(), &bytes[..], None);
                while found.is_none() && !rest.is_empty() {
                    let (piece, after) = rest.split_at(1 + below(rest.len().min(longest)));
                    found = framing.follow(piece);
                    rest = after;
                }
                assert_eq!(found, whole, "{longest}: {}", bytes.escape_ascii());
                assert!(framing.line.capacity() <= 2 * super::LINE);
            }
        }
        // Both verdicts were seen, often enough to mean something.
        assert!((ROUNDS / 20..ROUNDS).contains(&named), "{named}");
    }
}
