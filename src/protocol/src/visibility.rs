//! History visibility: who may see an event, by the state of the room at that event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>

use crate::auth::Membership;

/// The `history_visibility` of a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HistoryVisibility {
    /// Anyone, joined or not.
    WorldReadable,
    /// Whoever is or becomes a member; also what an absent or unknown value means.
    #[default]
    Shared,
    /// Members from their invitation on.
    Invited,
    /// Members from their join on.
    Joined,
}

impl HistoryVisibility {
    /// Reads the value of `m.room.history_visibility`'s `history_visibility`, `None` if it isn't there or no string.
    pub fn parse(value: Option<&str>) -> Self {
        match value {
            Some("world_readable") => Self::WorldReadable,
            Some("invited") => Self::Invited,
            Some("joined") => Self::Joined,
            _ => Self::Shared,
        }
    }
}

/// The two settings that decide about an event, as they were at one side of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The room's history visibility.
    pub visibility: HistoryVisibility,
    /// The asking user's membership.
    pub membership: Membership,
}

impl Setting {
    fn allows(self, joined_later: bool) -> bool {
        match (self.visibility, self.membership) {
            (HistoryVisibility::WorldReadable, _) | (_, Membership::Join) => true,
            (HistoryVisibility::Invited, Membership::Invite) => true,
            (HistoryVisibility::Shared, _) => joined_later,
            _ => false,
        }
    }
}

/// Whether the user may see the event.
///
/// `before` is the room's state before the event. `after` is the state after it: for `m.room.history_visibility` and for the
/// user's own `m.room.member` events either side may allow; for all others the two are equal. `joined_later` says whether the
/// user joined the room at any point after the event.
pub fn may_see(before: Setting, after: Setting, joined_later: bool) -> bool {
    before.allows(joined_later) || after.allows(joined_later)
}

#[cfg(test)]
mod tests {
    use HistoryVisibility::{Invited, Joined, Shared, WorldReadable};
    use Membership::{Ban, Invite, Join, Knock, Leave};

    use super::*;

    /// E3: all settings by all memberships at the event, by whether the user joined later.
    #[test]
    fn e3_every_setting_by_every_membership() {
        // One letter a membership (join, invite, knock, leave, ban): y, n, or l: only if they joined later.
        let table = [
            (WorldReadable, "yyyyy"),
            (Shared, "yllll"),
            (Invited, "yynnn"),
            (Joined, "ynnnn"),
        ];
        for (visibility, row) in table {
            for (membership, expected) in [Join, Invite, Knock, Leave, Ban]
                .into_iter()
                .zip(row.chars())
            {
                let at = Setting {
                    visibility,
                    membership,
                };
                for joined_later in [false, true] {
                    let expected = expected == 'y' || (expected == 'l' && joined_later);
                    assert_eq!(
                        may_see(at, at, joined_later),
                        expected,
                        "{at:?}, {joined_later}"
                    );
                }
            }
        }
    }

    /// E3: a change of visibility is seen by whoever either side of it lets see.
    #[test]
    fn e3_a_change_of_visibility_is_seen_from_both_sides() {
        let at = |visibility, membership| Setting {
            visibility,
            membership,
        };
        for (from, to) in [(WorldReadable, Joined), (Joined, WorldReadable)] {
            assert!(may_see(at(from, Leave), at(to, Leave), false));
        }
        assert!(may_see(at(Joined, Invite), at(Invited, Invite), false));
        assert!(!may_see(at(Joined, Leave), at(Invited, Leave), true));
    }

    /// E3: users see their own joins, leaves and bans, whatever the visibility.
    #[test]
    fn e3_own_membership_events_are_seen_from_both_sides() {
        let at = |membership| Setting {
            visibility: Joined,
            membership,
        };
        for (from, to, expected) in [
            (Leave, Join, true),
            (Invite, Join, true),
            (Join, Leave, true),
            (Join, Ban, true),
            (Leave, Invite, false),
            (Ban, Leave, false),
        ] {
            assert_eq!(
                may_see(at(from), at(to), false),
                expected,
                "{from:?} to {to:?}"
            );
        }
    }

    #[test]
    fn what_is_not_understood_is_shared() {
        for value in [None, Some("shared"), Some("secret"), Some("JOINED")] {
            assert_eq!(HistoryVisibility::parse(value), Shared);
        }
        assert_eq!(HistoryVisibility::parse(Some("joined")), Joined);
    }
}
