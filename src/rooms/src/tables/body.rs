//! Bodies: the events' JSON, compressed.
//!
//! Events are small and alike, so a dictionary saves more than compression by itself. Dictionaries are
//! part of the binary and numbered; a row says which one it needs, so a new one takes no row away. They
//! are made by `examples/body-dictionary.rs` from events that nobody wrote.

use std::{cell::RefCell, io, sync::LazyLock};

use comity_storage::{Damaged, Value};
use zstd::{
    bulk::{Compressor, Decompressor},
    dict::{DecoderDictionary, EncoderDictionary},
    zstd_safe::CParameter,
};

use super::{RoomNum, table};
use crate::varint;

/// How hard to compress: what a higher one saves of such small texts isn't worth its time.
const LEVEL: i32 = 3;
/// The dictionary that bodies are written with.
const CURRENT: u8 = 1;
/// A body written as it is, where compression gains nothing.
const PLAIN: u8 = 0;
/// Bytes of a body at the most: an event has 65,536, and what an old room has kept may have more.
const MAX_BODY: usize = 1 << 20;

static FIRST: &[u8] = include_bytes!("../../dictionaries/1.zstd");
static ENCODER: LazyLock<EncoderDictionary<'static>> =
    LazyLock::new(|| EncoderDictionary::copy(FIRST, LEVEL));
static DECODER: LazyLock<DecoderDictionary<'static>> =
    LazyLock::new(|| DecoderDictionary::copy(FIRST));

thread_local! {
    // Their working memory is worth keeping: making it costs more than a body does.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

/// How much of an event's body is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// All of it.
    Full,
    /// What redaction leaves.
    Redacted,
}

/// An event's canonical JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body {
    /// How much is left.
    pub generation: Generation,
    /// The text.
    pub json: String,
}

impl Value for Body {
    /// `generation, dictionary`, then the text, or its length and its compressed bytes. The first format
    /// had the text after the generation.
    const FORMAT: u8 = 2;

    fn write(&self, to: &mut Vec<u8>) {
        to.push(match self.generation {
            Generation::Full => 0,
            Generation::Redacted => 1,
        });
        match compress(self.json.as_bytes()) {
            Ok(small) if small.len() < self.json.len() => {
                to.push(CURRENT);
                varint::put(to, u32::try_from(self.json.len()).unwrap_or(u32::MAX));
                to.extend_from_slice(&small);
            }
            _ => {
                to.push(PLAIN);
                to.extend_from_slice(self.json.as_bytes());
            }
        }
    }

    fn read(format: u8, payload: &[u8]) -> Result<Self, Damaged> {
        let cut = Damaged("an event's body ends early");
        let (generation, rest) = payload.split_first().ok_or(cut)?;
        let generation = match generation {
            0 => Generation::Full,
            1 => Generation::Redacted,
            _ => return Err(Damaged("an event's body is of an unknown generation")),
        };
        let bytes = match (format, rest.split_first()) {
            (1, _) => rest.to_vec(),
            (_, Some((&PLAIN, text))) => text.to_vec(),
            (_, Some((&CURRENT, small))) => {
                let mut small = small;
                let length = varint::take(&mut small).ok_or(cut)?;
                decompress(small, length)
                    .map_err(|_| Damaged("an event's body does not decompress"))?
            }
            (_, Some(_)) => return Err(Damaged("an event's body needs an unknown dictionary")),
            (_, None) => return Err(cut),
        };
        let json = String::from_utf8(bytes).map_err(|_| Damaged("an event's body is not UTF-8"))?;
        Ok(Self { generation, json })
    }
}

fn compress(text: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let compressor = match kept {
            Some(compressor) => compressor,
            None => {
                let mut new = Compressor::with_prepared_dictionary(&ENCODER)?;
                // The row tells both already.
                new.set_parameter(CParameter::DictIdFlag(false))?;
                new.set_parameter(CParameter::ContentSizeFlag(false))?;
                kept.insert(new)
            }
        };
        compressor.compress(text)
    })
}

fn decompress(small: &[u8], length: u32) -> io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let decompressor = match kept {
            Some(decompressor) => decompressor,
            None => kept.insert(Decompressor::with_prepared_dictionary(&DECODER)?),
        };
        decompressor.decompress(small, (length as usize).min(MAX_BODY))
    })
}

table!(
    /// `room, number` → [`Body`].
    Bodies, "event body", b"Rj", Body, true, RoomNum => Body);

#[cfg(test)]
mod tests {
    use comity_storage::Value;

    use super::*;

    fn body(json: &str) -> Body {
        Body {
            generation: Generation::Full,
            json: json.to_owned(),
        }
    }

    /// data-model.md, Events: a body comes back as it was, of whatever size; rows of the first format are
    /// read; what is cut or unknown is damage, never a panic.
    #[test]
    fn bodies_come_back() {
        for json in ["{}", r#"{"type":"m.room.message"}"#, &"x".repeat(70_000)] {
            let mut bytes = Vec::new();
            body(json).write(&mut bytes);
            assert_eq!(Body::read(2, &bytes), Ok(body(json)));
            for end in 0..bytes.len().min(200) {
                assert_ne!(Body::read(2, &bytes[..end]), Ok(body(json)));
            }
        }
        let old = [b"\0".as_slice(), br#"{"type":"m.old"}"#].concat();
        assert_eq!(Body::read(1, &old), Ok(body(r#"{"type":"m.old"}"#)));
        assert!(Body::read(2, &[0, 9, 1, 2]).is_err());
        assert!(Body::read(2, &[0, CURRENT, 255, 255, 255, 255, 15, 1]).is_err());
    }
}
