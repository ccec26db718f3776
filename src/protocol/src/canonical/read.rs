//! The one decoder: untrusted bytes in, canonical text out, in one pass.
//!
//! A value is copied piece by piece while it is checked. An object whose keys turn out to be
//! unsorted or repeated is put in order when it closes, by moving its members' finished text.
//! What is open stands in a list, never on the stack, so that nesting costs memory in proportion.

use std::borrow::Cow;
use std::ops::Range;

use super::{JsonError, MAX_DEPTH, Numbers, number};

/// Checks one JSON value and writes its canonical form.
///
/// Time is at most linear in `bytes` times [`MAX_DEPTH`], which an object within an unsorted object
/// within … takes; memory is linear. The caller bounds their length.
///
/// # Errors
/// The bytes are no JSON, or not of the kind this module lets through.
pub fn canonicalize(bytes: &[u8], numbers: Numbers) -> Result<String, JsonError> {
    canonicalize_within(bytes, numbers, MAX_DEPTH)
}

/// The same with another bound of nesting, in the same time: what is nested deeper than [`MAX_DEPTH`]
/// and unsorted all the way is refused as too deep even so.
///
/// # Errors
/// As [`canonicalize`].
pub fn canonicalize_within(
    bytes: &[u8],
    numbers: Numbers,
    max_depth: usize,
) -> Result<String, JsonError> {
    let text = std::str::from_utf8(bytes).map_err(|_| JsonError::Unicode)?;
    let mut reader = Reader {
        text,
        at: 0,
        numbers,
        max_depth,
        open: Vec::new(),
        may_move: text.len().saturating_mul(MAX_DEPTH),
        out: String::with_capacity(text.len()),
    };
    reader.skip_space();
    reader.document()?;
    reader.skip_space();
    if reader.at < text.len() {
        Err(reader.syntax())
    } else {
        Ok(reader.out)
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    numbers: Numbers,
    max_depth: usize,
    /// What has begun and not ended, outermost first.
    open: Vec<Open<'a>>,
    /// Bytes that may still be moved to put objects in order.
    may_move: usize,
    out: String,
}

enum Open<'a> {
    Array,
    Object(Members<'a>),
}

/// An object in the making.
struct Members<'a> {
    /// Where the first begins in what is written.
    start: usize,
    written: Vec<Written<'a>>,
    in_order: bool,
}

/// A member: its key as compared, and its text, key included.
struct Written<'a> {
    key: Cow<'a, str>,
    span: Range<usize>,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn syntax(&self) -> JsonError {
        JsonError::Syntax(self.at)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Takes this byte, and the space after it.
    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        if is_next {
            self.at += 1;
            self.skip_space();
        }
        is_next
    }

    /// One value, whatever is in it.
    fn document(&mut self) -> Result<(), JsonError> {
        loop {
            if self.begin()? && self.end()? {
                return Ok(());
            }
        }
    }

    /// Reads what a value begins with; whether it ended with it.
    fn begin(&mut self) -> Result<bool, JsonError> {
        let (open, close) = match self.peek() {
            Some(b'{') => (b'{', b'}'),
            Some(b'[') => (b'[', b']'),
            _ => return self.scalar().map(|()| true),
        };
        if self.open.len() == self.max_depth {
            return Err(JsonError::TooDeep);
        }
        self.take(open);
        self.out.push(char::from(open));
        if self.peek() == Some(close) {
            self.close(close)?;
            return Ok(true);
        }
        if open == b'[' {
            self.open.push(Open::Array);
            return Ok(false);
        }
        let mut members = Members {
            start: self.out.len(),
            written: Vec::new(),
            in_order: true,
        };
        self.key(&mut members)?;
        self.open.push(Open::Object(members));
        Ok(false)
    }

    /// A value has ended, and maybe what it stands in; whether everything has. If not, another value
    /// follows.
    fn end(&mut self) -> Result<bool, JsonError> {
        while let Some(innermost) = self.open.pop() {
            self.skip_space();
            match innermost {
                Open::Array if self.take(b',') => {
                    self.out.push(',');
                    self.open.push(Open::Array);
                    return Ok(false);
                }
                Open::Array => self.close(b']')?,
                Open::Object(mut members) => {
                    if let Some(last) = members.written.last_mut() {
                        last.span.end = self.out.len();
                    }
                    if self.take(b',') {
                        self.out.push(',');
                        self.key(&mut members)?;
                        self.open.push(Open::Object(members));
                        return Ok(false);
                    }
                    if !members.in_order {
                        self.put_in_order(members)?;
                    }
                    self.close(b'}')?;
                }
            }
        }
        Ok(true)
    }

    /// A member's key, up to where its value begins.
    fn key(&mut self, members: &mut Members<'a>) -> Result<(), JsonError> {
        let start = self.out.len();
        let key = self.string()?;
        self.skip_space();
        if !self.take(b':') {
            return Err(self.syntax());
        }
        self.out.push(':');
        members.in_order &= members.written.last().is_none_or(|last| last.key < key);
        let span = start..start;
        members.written.push(Written { key, span });
        Ok(())
    }

    fn scalar(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b't') => self.word("true"),
            Some(b'f') => self.word("false"),
            Some(b'n') => self.word("null"),
            _ => self.number(),
        }
    }

    fn word(&mut self, word: &str) -> Result<(), JsonError> {
        if !self.rest().starts_with(word) {
            return Err(self.syntax());
        }
        self.at += word.len();
        self.out.push_str(word);
        Ok(())
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let rest = self.rest();
        let length = number::length(rest.as_bytes()).ok_or_else(|| self.syntax())?;
        let text = rest.get(..length).ok_or_else(|| self.syntax())?;
        self.at += length;
        number::write(text, self.numbers, &mut self.out)
    }

    fn put_in_order(&mut self, members: Members<'a>) -> Result<(), JsonError> {
        let Members {
            start, mut written, ..
        } = members;
        // The last of a repeated key comes first in its run and is the one that is kept.
        written.sort_by(|a, b| a.key.cmp(&b.key).then(b.span.start.cmp(&a.span.start)));
        written.dedup_by(|later, kept| later.key == kept.key);
        let size = self.out.len() - start;
        self.may_move = self.may_move.checked_sub(size).ok_or(JsonError::TooDeep)?;
        let mut ordered = String::with_capacity(size);
        for member in written {
            if !ordered.is_empty() {
                ordered.push(',');
            }
            ordered.push_str(self.out.get(member.span).unwrap_or_default());
        }
        self.out.truncate(start);
        self.out.push_str(&ordered);
        Ok(())
    }

    fn close(&mut self, byte: u8) -> Result<(), JsonError> {
        // Not `take`: what follows belongs to the caller.
        if self.peek() != Some(byte) {
            return Err(self.syntax());
        }
        self.at += 1;
        self.out.push(char::from(byte));
        Ok(())
    }

    /// Reads a string, writes it, and returns it unescaped.
    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        if self.peek() != Some(b'"') {
            return Err(self.syntax());
        }
        self.at += 1;
        let written = self.out.len();
        self.out.push('"');
        let plain = self.plain_run()?;
        self.out.push_str(plain);
        if self.peek() == Some(b'"') {
            self.at += 1;
            self.out.push('"');
            return Ok(Cow::Borrowed(plain));
        }
        let mut unescaped = String::from(plain);
        while self.peek() != Some(b'"') {
            let char = self.escape()?;
            unescaped.push(char);
            let plain = self.plain_run()?;
            unescaped.push_str(plain);
        }
        self.at += 1;
        self.out.truncate(written);
        write_string(&unescaped, &mut self.out);
        Ok(Cow::Owned(unescaped))
    }

    /// What stands before the next quote or backslash.
    fn plain_run(&mut self) -> Result<&'a str, JsonError> {
        let rest = self.rest();
        let length = rest
            .bytes()
            .position(|byte| byte == b'"' || byte == b'\\' || byte < 0x20)
            .ok_or(JsonError::Syntax(self.text.len()))?;
        let run = rest.get(..length).ok_or(JsonError::Unicode)?;
        self.at += length;
        if self.peek().is_some_and(|byte| byte < 0x20) {
            return Err(self.syntax());
        }
        Ok(run)
    }

    fn escape(&mut self) -> Result<char, JsonError> {
        let mut bytes = self.rest().bytes().skip(1);
        let char = match bytes.next() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(),
            _ => return Err(self.syntax()),
        };
        self.at += 2;
        Ok(char)
    }

    fn unicode_escape(&mut self) -> Result<char, JsonError> {
        let first = self.code_unit()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or(JsonError::Unicode);
        }
        if !self.rest().starts_with("\\u") {
            return Err(JsonError::Unicode);
        }
        let second = self.code_unit()?;
        if !(0xdc00..0xe000).contains(&second) {
            return Err(JsonError::Unicode);
        }
        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))
            .ok_or(JsonError::Unicode)
    }

    /// `\u` and four hexadecimal digits.
    fn code_unit(&mut self) -> Result<u32, JsonError> {
        let digits = self.rest().get(2..6).ok_or_else(|| self.syntax())?;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(self.syntax());
        }
        let unit = u32::from_str_radix(digits, 16).map_err(|_| self.syntax())?;
        self.at += 6;
        Ok(unit)
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }
}

/// Writes a string with its quotes and the escapes of the canonical grammar.
pub(crate) fn write_string(text: &str, out: &mut String) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            char if char < ' ' => {
                out.push_str("\\u00");
                out.push(if char < '\u{10}' { '0' } else { '1' });
                out.push(char::from_digit(u32::from(char) & 0xf, 16).unwrap_or('0'));
            }
            char => out.push(char),
        }
    }
    out.push('"');
}
