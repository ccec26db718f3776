//! Who may see what: history visibility by the state at each event.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::{
    auth::Membership,
    id::UserId,
    visibility::{HistoryVisibility, Setting, may_see},
};

use super::{Found, RoomView, state::membership_in};
use crate::{error::RoomError, num::EventNum, state::AnyRoot};

/// Steps back through a user's memberships at the most.
const STEPS: usize = 32;

/// How a user stands to a room: what visibility asks of them once, whatever the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Their membership now.
    pub membership: Membership,
    /// Where it was set: sequence number.
    pub since: i64,
    /// The last sequence number at which they were joined: `i64::MAX` while they are, `None` if they
    /// never were.
    pub joined_until: Option<i64>,
}

impl RoomView {
    /// How a user stands to the room at this position.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn standing(&self, user: &UserId) -> Result<Standing, RoomError> {
        let keys = self.state_keys(&[("m.room.member", user.as_str())]).await?;
        let mut root = self.root;
        let mut standing = Standing {
            membership: Membership::Leave,
            since: 0,
            joined_until: None,
        };
        let mut later: Option<i64> = None;
        for step in 0..STEPS {
            let Some(num) = self.lookup(root, &keys).await?.pop().flatten() else {
                break;
            };
            let Some(found) = self.load(&[num]).await?.pop() else {
                break;
            };
            let (membership, seq) = (
                membership_in(&found),
                found.place().map_or(0, |(seq, _)| seq),
            );
            if step == 0 {
                standing.membership = membership;
                standing.since = seq;
            }
            if membership == Membership::Join {
                standing.joined_until = Some(later.unwrap_or(i64::MAX));
                break;
            }
            later = Some(seq);
            // What was before we came isn't known here.
            let Some(before) = found.root_before()? else {
                break;
            };
            root = before;
        }
        Ok(standing)
    }

    /// Reads ahead what all that is shown to a user turns on: how they stand to the room, and how it shows
    /// its history.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn meet(&self, user: &UserId) -> Result<(), RoomError> {
        self.state_keys(&setting_keys(user)).await?;
        futures_util::try_join!(self.standing(user), self.history_visibility())?;
        Ok(())
    }

    /// Of each event, whether the user may see it.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn visible(&self, found: &[Found], user: &UserId) -> Result<Vec<bool>, RoomError> {
        let roots = found.iter().filter_map(|one| one.root_before().transpose());
        let roots = roots.collect::<Result<BTreeSet<AnyRoot>, _>>()?;
        let (standing, settings) =
            futures_util::try_join!(self.standing(user), self.settings(roots, user))?;
        let mut visible = Vec::with_capacity(found.len());
        for one in found {
            let before = one.root_before()?.and_then(|root| settings.get(&root));
            let Some(before) = before.copied() else {
                visible.push(false);
                continue;
            };
            let mut after = before;
            if one.event.is_state("m.room.history_visibility", "") {
                after.visibility = visibility_in(one);
            }
            if one.event.is_state("m.room.member", user.as_str()) {
                after.membership = membership_in(one);
            }
            let seq = one.place().map_or(i64::MAX, |(seq, _)| seq);
            let joined_later = standing.joined_until.is_some_and(|until| seq < until);
            visible.push(may_see(before, after, joined_later));
        }
        Ok(visible)
    }

    /// Whether the user may see a state as the room had it at this place: as they would an event sent just then.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn state_visible(
        &self,
        root: AnyRoot,
        seq: i64,
        user: &UserId,
    ) -> Result<bool, RoomError> {
        let (standing, settings) =
            futures_util::try_join!(self.standing(user), self.settings([root].into(), user))?;
        let joined_later = standing.joined_until.is_some_and(|until| seq < until);
        let setting = settings.get(&root);
        Ok(setting.is_some_and(|setting| may_see(*setting, *setting, joined_later)))
    }

    /// What these states say of history and of the user.
    async fn settings(
        &self,
        roots: BTreeSet<AnyRoot>,
        user: &UserId,
    ) -> Result<BTreeMap<AnyRoot, Setting>, RoomError> {
        let keys = self.state_keys(&setting_keys(user)).await?;
        let states = self.lookup_each(roots, &keys).await?;
        let nums: BTreeSet<EventNum> = states.values().flatten().flatten().copied().collect();
        let nums: Vec<EventNum> = nums.into_iter().collect();
        let events: BTreeMap<EventNum, Found> = self
            .load(&nums)
            .await?
            .into_iter()
            .map(|event| (event.num, event))
            .collect();
        let setting = |nums: Vec<Option<EventNum>>| {
            let event = |at: usize| events.get(nums.get(at)?.as_ref()?);
            Setting {
                visibility: event(0).map_or_else(Default::default, visibility_in),
                membership: event(1).map_or_else(Default::default, membership_in),
            }
        };
        Ok(states
            .into_iter()
            .map(|(root, nums)| (root, setting(nums)))
            .collect())
    }

    /// Those of the events that the user may see.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn only_visible(
        &self,
        found: Vec<Found>,
        user: &UserId,
    ) -> Result<Vec<Found>, RoomError> {
        let visible = self.visible(&found, user).await?;
        Ok(found
            .into_iter()
            .zip(visible)
            .filter(|(_, visible)| *visible)
            .map(|(found, _)| found)
            .collect())
    }

    /// The room's history visibility now.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn history_visibility(&self) -> Result<HistoryVisibility, RoomError> {
        let found = self.state("m.room.history_visibility", "").await?;
        Ok(found.as_ref().map_or_else(Default::default, visibility_in))
    }
}

fn setting_keys(user: &UserId) -> [(&str, &str); 2] {
    [
        ("m.room.history_visibility", ""),
        ("m.room.member", user.as_str()),
    ]
}

/// The setting that an `m.room.history_visibility` makes.
pub(crate) fn visibility_in(found: &Found) -> HistoryVisibility {
    HistoryVisibility::parse(found.event.content_string("history_visibility").as_deref())
}
