//! What a server may read of events: history visibility, asked for its users together.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility>

use std::collections::BTreeMap;

use comity_protocol::{
    auth::{MemberContent, Membership},
    event::Event,
    id::UserId,
    visibility::HistoryVisibility,
};

use super::{PeerView, present::Tally};
use crate::{
    error::RoomError,
    num::EventNum,
    view::{Found, visibility_in},
};

impl PeerView {
    /// Those of some events that the server may have, as it may have them: those that none of its users could see, redacted, unless
    /// they take back what one could see; and those of an erased account, unless the server was in the room when they came or when the
    /// account ended.
    pub(super) async fn shown(&self, found: Vec<Found>) -> Result<Vec<Event>, RoomError> {
        let found = self.owed(found).await?;
        let mut visible = self.visible(&found).await?;
        for (visible, one) in visible.iter_mut().zip(&found) {
            if !*visible {
                *visible = self.sees_what_is_taken_back(one).await?;
            }
            *visible &= !self.is_veiled(one).await?;
        }
        Ok(found
            .into_iter()
            .zip(visible)
            .map(|(found, visible)| {
                if visible {
                    found.event
                } else {
                    found.event.redact()
                }
            })
            .collect())
    }

    /// Of each event, whether the server may read it: not if the state before it isn't known. It is in
    /// the room, so that what is shared with members is shared with it.
    pub(super) async fn visible(&self, found: &[Found]) -> Result<Vec<bool>, RoomError> {
        let view = &self.view;
        let keys = view
            .state_keys(&[("m.room.history_visibility", "")])
            .await?;
        let mut settings: BTreeMap<&[u8], HistoryVisibility> = BTreeMap::new();
        let mut events: BTreeMap<EventNum, HistoryVisibility> = BTreeMap::new();
        let mut census = view.census().await?;
        let mut visible = Vec::with_capacity(found.len());
        for one in found {
            let before = one.status.root_before.as_slice();
            let Some(root) = one.root_before()? else {
                visible.push(false);
                continue;
            };
            let setting = match settings.get(before) {
                Some(setting) => *setting,
                None => {
                    let num = view.lookup(root, &keys).await?.pop().flatten();
                    let setting = match num {
                        None => HistoryVisibility::default(),
                        Some(num) => match events.get(&num) {
                            Some(setting) => *setting,
                            None => {
                                let event = view.load(&[num]).await?.pop();
                                let setting =
                                    event.as_ref().map_or_else(Default::default, visibility_in);
                                events.insert(num, setting);
                                setting
                            }
                        },
                    };
                    settings.insert(before, setting);
                    setting
                }
            };
            let after = if one.event.is_state("m.room.history_visibility", "") {
                visibility_in(one)
            } else {
                setting
            };
            if is_shared(setting) || is_shared(after) {
                visible.push(true);
                continue;
            }
            census = view.census_at(census, root).await?;
            let mut tally = census.of(&self.server);
            if root.is_partial() && view.hinted().contains(&self.server) {
                tally.joined = tally.joined.max(1);
            }
            if let Some(membership) = self.membership_set_by(&one.event) {
                tally.count(membership, true);
            }
            visible.push(sees(setting, tally) || sees(after, tally));
        }
        Ok(visible)
    }

    /// Whether an event has taken back one that the server may read, and would say so no more if it were redacted itself: before room version
    /// 11 `redacts` is nothing that redaction leaves. It would take no effect there, and what everybody else has taken back would stay.
    /// It tells nothing that isn't shown with its target: clients get it there, whole, as
    /// [`redacted_because`](https://spec.matrix.org/v1.19/client-server-api/#redactions). So not one that has had no effect: its reason is shown nowhere.
    async fn sees_what_is_taken_back(&self, one: &Found) -> Result<bool, RoomError> {
        let Some(target) = one.event.redacts() else {
            return Ok(false);
        };
        if one.event.redact().redacts().is_some() {
            return Ok(false);
        }
        let Some(target) = self.view.event(target).await? else {
            return Ok(false);
        };
        Ok(
            target.status.redacted_by == Some(one.num.0)
                && self.visible(&[target]).await? == [true],
        )
    }

    /// Whether an event's sender was erased before the server could have had it.
    async fn is_veiled(&self, one: &Found) -> Result<bool, RoomError> {
        let Some(seq) = self.view.erased_at(one) else {
            return Ok(false);
        };
        let mut roots = Vec::from_iter(one.root_before()?);
        if let Some(last) = self.view.at(seq).await? {
            roots.push(self.view.root_after(&last).await?);
        }
        let mut census = self.view.census().await?;
        for root in roots {
            census = self.view.census_at(census, root).await?;
            if census.of(&self.server).joined > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The membership that an event gives to a user of the server.
    fn membership_set_by(&self, event: &Event) -> Option<Membership> {
        let user = <&UserId>::try_from(event.state_key()?).ok()?;
        let is_theirs = event.event_type() == "m.room.member" && user.server_name() == self.server;
        is_theirs.then(|| MemberContent::read(event.content().get()).membership)?
    }
}

fn is_shared(visibility: HistoryVisibility) -> bool {
    matches!(
        visibility,
        HistoryVisibility::WorldReadable | HistoryVisibility::Shared
    )
}

fn sees(visibility: HistoryVisibility, tally: Tally) -> bool {
    match visibility {
        HistoryVisibility::WorldReadable | HistoryVisibility::Shared => true,
        HistoryVisibility::Invited => tally.joined + tally.invited > 0,
        HistoryVisibility::Joined => tally.joined > 0,
    }
}
