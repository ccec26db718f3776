//! What is to hold of the rows of rooms.

use std::fmt;

macro_rules! broken {
    ($($name:ident: $text:literal,)+) => {
        /// What doesn't hold.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Broken {$(
            #[doc = $text]
            $name,
        )+}

        impl Broken {
            /// All that is looked for.
            pub const ALL: &[Self] = &[$(Self::$name),+];
        }

        impl fmt::Display for Broken {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {$(
                    Self::$name => $text,
                )+})
            }
        }
    };
}

broken! {
    Unreadable: "a row can't be understood, and what comes after it wasn't looked at",
    RoomId: "the room's rows are not under its id",
    NoRoom: "rows of a room that isn't there",
    NoHead: "the room has no head",

    // Numbers, ids and what each event has (`events`).
    Number: "a number beyond those that the room has given out",
    Unnumbered: "a number that was given out has no id or no status",
    NumberTwice: "two ids have one number",
    Status: "a status says what its verdict doesn't allow",
    NamedOnly: "an event known by its name alone has a header or a body",
    NoHeader: "an event has no header",
    NoBody: "an event has no body",
    Body: "a body is no event, or another than its row's",
    Header: "a header says another thing than the body",
    Links: "a header's parents, auth events or target are others than the body's",
    Generation: "an event that was redacted is whole, or one is reduced that wasn't",
    RedactedBy: "an event is redacted by one that names another",
    EarlyRedaction: "a redaction waits for an event that is here, or for another than it names",
    BareId: "an event isn't found by its bare id, or one that isn't here is",
    StateKey: "a state key and its number don't lead to one another",
    NoStateKey: "a state event's key has no number",

    // The order and the head (`order`).
    SeqGap: "a live place of the order is empty",
    Place: "an entry of the order and the status of its event disagree",
    HistoryGap: "a place of fetched history is empty, or isn't where the hole begins",
    Hole: "a hole is at no live event, or misses what nobody named",
    Totals: "running totals go on by other than one event, or history has others than the event before it",
    HeadSeq: "the head's last sequence number isn't that of the order",
    Extremity: "an extremity isn't part of the room, or is there twice",
    Covered: "an extremity is a parent of another",
    Depth: "an extremity is deeper than the head says",
    Mode: "the room's mode and its state disagree on whether all of it is known",
    Provisional: "an event waits for a whole state in a room that isn't partial",

    // States and auth chains (`states`).
    Root: "a state root can't be read",
    Node: "a state's node is missing",
    NodeDamaged: "a state's node isn't what its name says",
    Entry: "a state has under a key an event that isn't of that key",
    EntryVerdict: "a state has an event that isn't here, or was rejected outside the graph",
    NoPlace: "a state event has no place on an auth chain, or under another key",
    Chain: "an auth chain has a gap, or a row that can't be read",
    ChainPlace: "an event's place on an auth chain is another event's, or nobody's",
    ChainEdge: "an auth chain goes where no auth event leads",
    Uncovered: "an auth event isn't reached by the auth chains",
    Citations: "links of auth chains and the rows under their targets differ",

    // Caches of the state (`derived`, `names`).
    Member: "a membership isn't what the room's state says",
    Summary: "the summary isn't what the room's state says",
    OutOfBand: "a membership of a room that we aren't in has no row of its own, or is of one that we are in",
    Alias: "an alias isn't in the list of the room that it leads to",
    Listed: "the directory has a room that isn't there",
    Upgrade: "an upgrade is under way of another room than its row's",
    Transaction: "a transaction id names an event that isn't there or was sent otherwise",
    Erasure: "an erasure is beyond the room's last event",

    // Relations, threads, receipts, counts (`relations`, `receipts`).
    Relation: "a relation's row names an event that doesn't relate so",
    Unrelated: "an event relates to another and has no row there",
    Related: "an event is found in a scope that it isn't part of",
    NotRelated: "a relation isn't found in the scopes that it is part of",
    InThread: "an event of a thread isn't found in it, or one is that isn't",
    Thread: "a thread counts otherwise than its events, or isn't where its last event is",
    Discount: "an event is counted off that wasn't redacted",
    Receipt: "a receipt's two rows disagree",
    ReceiptPlace: "a receipt is at a place that isn't its event's",
    ReceiptTotals: "a receipt has other totals than its place",
    Turn: "a member turned to a ruleset that the room doesn't have, or beyond its last event",
    Hit: "an event beyond the room's last one counts for a user",
}
