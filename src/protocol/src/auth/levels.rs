//! The rules for changing `m.room.power_levels`: nobody gives, takes or touches more than they have.

use std::collections::{BTreeMap, BTreeSet};

use super::rejection::Act;
use super::{Create, LevelField, PowerLevelsContent, Rejection, UserLevel};
use crate::id::UserId;
use crate::room_version::RoomVersionRules;

pub(super) fn check_levels(
    rules: &RoomVersionRules,
    sender: &UserId,
    power: UserLevel,
    content: &str,
    create: &Create,
    current: Option<&PowerLevelsContent>,
) -> Result<(), Rejection> {
    let new = PowerLevelsContent::read(rules, content)?;
    if new
        .users
        .keys()
        .any(|user| create.privileged.contains(user))
    {
        return Err(Rejection::CreatorInPowerLevels);
    }
    let Some(current) = current else {
        return Ok(());
    };

    // "Added" and "removed" compare with the default: levels are inferred where not supplied.
    let field_changes = LevelField::ALL
        .into_iter()
        .filter(|field| current.fields.get(field) != new.fields.get(field))
        .all(|field| power.reaches(current.field(field)) && power.reaches(new.field(field)));
    let within_reach = |_: &str, level| power.reaches(level);
    let below_or_own =
        |user: &str, level| UserLevel::Level(level) < power || user == sender.as_str();
    let allowed = field_changes
        && may_change(&current.events, &new.events, power, within_reach)
        && (!rules.limit_notification_levels
            || may_change(
                &current.notifications,
                &new.notifications,
                power,
                within_reach,
            ))
        && may_change(&current.users, &new.users, power, below_or_own);
    if allowed {
        Ok(())
    } else {
        Err(Rejection::InsufficientPower(Act::ChangeLevels))
    }
}

/// Whether every changed or removed entry may be touched, and no new value is above `power`.
fn may_change(
    current: &BTreeMap<String, i64>,
    new: &BTreeMap<String, i64>,
    power: UserLevel,
    may_touch: impl Fn(&str, i64) -> bool,
) -> bool {
    let keys: BTreeSet<_> = current.keys().chain(new.keys()).collect();
    keys.into_iter()
        .filter(|key| current.get(*key) != new.get(*key))
        .all(|key| {
            current.get(key).is_none_or(|level| may_touch(key, *level))
                && new.get(key).is_none_or(|level| power.reaches(*level))
        })
}
