//! Push rules: which events notify or highlight for which user.
//!
//! A user's rules are stored as what *they* made of them ([`UserRules`]: their own rules, in order, and what they changed in
//! the server's defaults), so that a new default reaches everybody. A client sees the whole [`Ruleset`]. An event is judged
//! by [`CompiledRules`], a ruleset compiled once, narrowed to one room by [`CompiledRules::in_room`].
//!
//! Narrowing is what keeps unread counts cheap: in a given room the rules of most users come down to the same few programs
//! (defaults, muted, mentions only), which [`RoomRules::shared`] names by a [`Fingerprint`]. [`classify`] judges an event once
//! for each of those; only users it names, and users with rules of their own that look into events, are judged one by one.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#push-rules>

mod condition;
mod defaults;
mod edit;
mod evaluate;
mod facts;
mod glob;
mod model;

pub use condition::property_path;
pub use edit::{MAX_PATTERN_BYTES, MAX_RULES, NewRule, Position, RuleError, UserRules};
pub use evaluate::{CompiledRules, Fingerprint, RoomRules, SharedRules, classify};
pub use facts::{EventFacts, Recipient, Verdict};
pub use glob::{Glob, MAX_GLOB_BYTES, Steps, folded};
pub use model::{Action, Condition, Rule, RuleKind, Ruleset};
