//! The tokens that clients hold: where they are in everything (`s…`), where in a connection of sliding sync (`p…`), or where in one
//! room's order (`t…`).
//!
//! A client gives back what it was given; what is inside is ours alone. Both kinds carry the lanes'
//! positions, so that a token of one kind can serve where the other is expected: a `/sync` token
//! given to `/messages` is turned into a place by what the room was at those positions.
//!
//! `docs/data-model.md`, Tokens.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use comity_storage::{Heads, Pos, RoomKey};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The newest form of tokens that this build writes. In the first, a sync's token says nothing of messages to devices; in the second,
/// nothing of where somebody was shown to type.
const FORMAT: u8 = 3;
/// Characters of a token at the most: 64 lanes of ten bytes, in base64, and some.
const MAX_CHARS: usize = 1_280;

/// How far a client has come in everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncToken {
    /// The store's incarnation that the positions are of.
    pub incarnation: u32,
    /// The lanes' positions; an absent one is 0.
    pub heads: Heads,
    /// How far in what lives in memory.
    pub ephemeral: Ephemeral,
    /// How far the device has come in its queue of messages, as a position of the user's lane. It may be far behind the heads:
    /// an answer has so many messages and no more, and says all about rooms.
    pub to_device: Pos,
    /// The rooms in which the client was shown somebody type: a later run of the server, which knows nothing of them, tells it that
    /// they don't.
    pub typing_in: Vec<RoomPrefix>,
}

/// The first bytes of a room's key. Two of a user's rooms may have the same: then one is told of that had no need to be.
pub type RoomPrefix = [u8; 4];

/// A room's [`RoomPrefix`].
pub(crate) fn prefix(room: RoomKey) -> RoomPrefix {
    let [first, second, third, fourth, ..] = room.0;
    [first, second, third, fourth]
}

/// How far a client has come in typing and presence, which live in the memory of one node's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Ephemeral {
    /// Which run of which node: serials of another one say nothing here.
    pub node: u64,
    /// The serial of typing.
    pub typing: u64,
    /// The serial of presence.
    pub presence: u64,
}

/// A place in one room's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlaceToken {
    /// The lanes' positions when it was given.
    pub heads: Heads,
    /// The room.
    pub room: RoomKey,
    /// The gap just before this place: backwards one goes on below it, forwards from it on.
    pub place: (i64, i64),
}

/// Where an answer of sliding sync ended: what it went up to, and the name of what is kept of it. Elsewhere it stands for the former.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlidingPos {
    /// How far it went.
    pub token: SyncToken,
    /// Which of the connection's positions it is ([`crate::tables::Position`]).
    pub id: u64,
}

/// Either.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Token {
    /// Of `/sync`, or of sliding sync.
    Sync(SyncToken),
    /// Of `/messages` and the like, and `prev_batch`.
    Place(PlaceToken),
}

/// The text is no token of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a token that the server gave out")]
pub struct BadToken;

#[derive(Serialize, Deserialize)]
struct Written {
    format: u8,
    incarnation: u32,
    heads: Vec<u64>,
    ephemeral: Ephemeral,
}

/// What follows it in the second format.
#[derive(Serialize, Deserialize)]
struct WrittenQueue {
    to_device: Pos,
}

/// What follows it since the third.
#[derive(Serialize, Deserialize)]
struct WrittenRest {
    to_device: Pos,
    typing_in: Vec<RoomPrefix>,
}

#[derive(Serialize, Deserialize)]
struct WrittenPlace {
    format: u8,
    heads: Vec<u64>,
    room: [u8; 16],
    place: (i64, i64),
}

impl std::fmt::Display for SyncToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let heads = self.heads.positions().to_vec();
        let written = Written {
            format: FORMAT,
            incarnation: self.incarnation,
            heads,
            ephemeral: self.ephemeral,
        };
        let rest = WrittenRest {
            to_device: self.to_device,
            typing_in: self.typing_in.clone(),
        };
        write(f, 's', &(written, rest))
    }
}

impl std::fmt::Display for SlidingPos {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let written = Written {
            format: FORMAT,
            incarnation: self.token.incarnation,
            heads: self.token.heads.positions().to_vec(),
            ephemeral: self.token.ephemeral,
        };
        write(f, 'p', &(written, self.id))
    }
}

impl std::str::FromStr for SlidingPos {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let body = text.strip_prefix('p').filter(|_| text.len() <= MAX_CHARS);
        let (written, id): (Written, u64) = read(&decoded(body.ok_or(BadToken)?)?)?;
        if !(2..=FORMAT).contains(&written.format) {
            return Err(BadToken);
        }
        let token = SyncToken {
            incarnation: written.incarnation,
            heads: Heads::new(written.heads),
            ephemeral: written.ephemeral,
            to_device: 0,
            typing_in: Vec::new(),
        };
        Ok(Self { token, id })
    }
}

impl std::fmt::Display for PlaceToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let heads = self.heads.positions().to_vec();
        write(
            f,
            't',
            &WrittenPlace {
                format: FORMAT,
                heads,
                room: self.room.0,
                place: self.place,
            },
        )
    }
}

fn write(
    f: &mut std::fmt::Formatter<'_>,
    kind: char,
    written: &impl Serialize,
) -> std::fmt::Result {
    let bytes = postcard::to_stdvec(written).map_err(|_| std::fmt::Error)?;
    write!(f, "{kind}{}", URL_SAFE_NO_PAD.encode(bytes))
}

impl std::str::FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        if text.len() > MAX_CHARS {
            return Err(BadToken);
        }
        if let Some(body) = text.strip_prefix('s') {
            let (written, rest): (Written, _) = take(&decoded(body)?)?;
            let rest = match written.format {
                1 if rest.is_empty() => WrittenRest {
                    to_device: 0,
                    typing_in: Vec::new(),
                },
                2 => WrittenRest {
                    to_device: read::<WrittenQueue>(&rest)?.to_device,
                    typing_in: Vec::new(),
                },
                FORMAT => read(&rest)?,
                _ => return Err(BadToken),
            };
            Ok(Self::Sync(SyncToken {
                incarnation: written.incarnation,
                heads: Heads::new(written.heads),
                ephemeral: written.ephemeral,
                to_device: rest.to_device,
                typing_in: rest.typing_in,
            }))
        } else if text.starts_with('p') {
            Ok(Self::Sync(text.parse::<SlidingPos>()?.token))
        } else if let Some(body) = text.strip_prefix('t') {
            let WrittenPlace {
                format: 1..=FORMAT,
                heads,
                room,
                place,
            } = read(&decoded(body)?)?
            else {
                return Err(BadToken);
            };
            Ok(Self::Place(PlaceToken {
                heads: Heads::new(heads),
                room: RoomKey(room),
                place,
            }))
        } else {
            Err(BadToken)
        }
    }
}

fn decoded(body: &str) -> Result<Vec<u8>, BadToken> {
    URL_SAFE_NO_PAD.decode(body).map_err(|_| BadToken)
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, BadToken> {
    postcard::from_bytes(bytes).map_err(|_| BadToken)
}

/// What the bytes begin with, and the rest.
fn take<T: DeserializeOwned>(bytes: &[u8]) -> Result<(T, Vec<u8>), BadToken> {
    let (read, rest) = postcard::take_from_bytes(bytes).map_err(|_| BadToken)?;
    Ok((read, rest.to_vec()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// data-model.md, Tokens: what was given out is read back; anything else is refused, never a panic (G8).
        #[test]
        fn tokens_come_back(heads in proptest::collection::vec(any::<u64>(), 0..64), seq in any::<i64>(), serial in any::<u64>(), junk in ".{0,40}") {
            let sync = SyncToken { incarnation: 3, heads: Heads::new(heads.clone()), ephemeral: Ephemeral { node: 9, typing: serial, presence: 1 }, to_device: serial / 3, typing_in: vec![[7; 4]; usize::from(serial as u8 % 17)] };
            prop_assert_eq!(sync.to_string().parse::<Token>().unwrap(), Token::Sync(sync.clone()));
            let first = Written { format: 1, incarnation: 3, heads: sync.heads.positions().to_vec(), ephemeral: sync.ephemeral };
            let first = format!("s{}", URL_SAFE_NO_PAD.encode(postcard::to_stdvec(&first).unwrap()));
            let older = SyncToken { typing_in: Vec::new(), ..sync.clone() };
            prop_assert_eq!(first.parse::<Token>().unwrap(), Token::Sync(SyncToken { to_device: 0, ..older.clone() }));
            let second = Written { format: 2, incarnation: 3, heads: sync.heads.positions().to_vec(), ephemeral: sync.ephemeral };
            let second = (second, WrittenQueue { to_device: sync.to_device });
            let second = format!("s{}", URL_SAFE_NO_PAD.encode(postcard::to_stdvec(&second).unwrap()));
            prop_assert_eq!(second.parse::<Token>().unwrap(), Token::Sync(older.clone()));
            let pos = SlidingPos { token: SyncToken { to_device: 0, ..older }, id: serial };
            prop_assert_eq!(pos.to_string().parse::<SlidingPos>().unwrap(), pos.clone());
            prop_assert_eq!(pos.to_string().parse::<Token>().unwrap(), Token::Sync(pos.token));
            let _ = format!("p{junk}").parse::<Token>();
            let place = PlaceToken { heads: Heads::new(heads), room: RoomKey([5; 16]), place: (seq, -1) };
            prop_assert_eq!(place.to_string().parse::<Token>().unwrap(), Token::Place(place));
            let _ = junk.parse::<Token>();
            let _ = format!("s{junk}").parse::<Token>();
        }
    }
}
