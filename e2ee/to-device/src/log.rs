//! What is written into the lanes' logs of messages to devices; the numbers are those of what lanes owe each other, too.

/// A user's devices have got messages. The record's subject is the user's id.
pub const MESSAGES: u16 = 0x0301;
/// There is something for another server. The record's subject is its name.
pub const OUTGOING: u16 = 0x0302;
