//! The state beside a timeline, and what a client names and draws the room by.

use std::collections::BTreeSet;

use comity_protocol::{auth::Membership, client_event::stripped_state};
use comity_rooms::{
    Found, RoomError, RoomView,
    num::EventNum,
    state::{AnyRoot, Half},
    tables::{InRoom, Summaries},
};
use comity_storage::Home;
use futures_util::try_join;
use serde_json::value::RawValue;

use super::{RoomSync, membership_of, timeline::Stretch};
use crate::{
    SyncError,
    answer::{Events, State, Summary},
};

/// Members who name a room without a name.
const HEROES: usize = 5;
/// Members looked at to find them.
const HEROES_LOOKED_AT: usize = 64;

impl RoomSync<'_> {
    /// The state that the client knows: that at the last answer, if the user was joined then.
    pub(crate) async fn known_root(&self) -> Result<Option<AnyRoot>, SyncError> {
        if !self.was_in() || self.build.request.full_state {
            return Ok(None);
        }
        let Some(since) = self.build.since else {
            return Ok(None);
        };
        let reader = self.build.reader.at(since.clone());
        match self.sync.0.rooms.view_at(&reader, &self.room_id).await {
            Ok(then) => Ok(Some(then.root())),
            Err(RoomError::UnknownRoom) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The state beside the timeline.
    pub(super) async fn state(
        &self,
        view: &RoomView,
        stretch: &Stretch,
        known: Option<AnyRoot>,
        last: AnyRoot,
        summary: Option<&Summary>,
    ) -> Result<State, SyncError> {
        let request = self.build.request;
        let filter = &request.filter.room.state;
        let end = if request.use_state_after {
            last
        } else {
            stretch.root
        };
        let lazy = filter.lazy_load_members;
        let (nums, members) = try_join!(
            async {
                Ok::<_, SyncError>(match known {
                    // Members who are known now were there before: they are told when they matter.
                    Some(known) if lazy && known.is_partial() != end.is_partial() => {
                        let (known, end) = (known.known_rest(), end.known_rest());
                        view.state_diff(known.into(), end.into()).await?
                    }
                    Some(known) => view.state_diff(known, end).await?,
                    None => view.state_nums(end, lazy.then_some(Half::Rest)).await?,
                })
            },
            async {
                if lazy {
                    self.lazy_members(view, stretch, known, end, summary).await
                } else {
                    Ok(Vec::new())
                }
            },
        )?;
        let nums: BTreeSet<EventNum> = nums.into_iter().chain(members).collect();
        let nums: Vec<EventNum> = nums.into_iter().collect();
        let found = view.load(&nums).await?;
        let passes = filter.passes(view, &found, &request.user).await?;
        let found: Vec<Found> = found
            .into_iter()
            .zip(passes)
            .filter(|(_, passes)| *passes)
            .map(|(found, _)| found)
            .collect();
        Ok(self.state_of(Events {
            events: self.render(view, &found).await?,
        }))
    }

    pub(super) fn state_of(&self, events: Events) -> State {
        if self.build.request.use_state_after {
            State::After(events)
        } else {
            State::Before(events)
        }
    }

    /// The members who matter for this answer: the timeline's senders, the heroes, and at first the
    /// user; those whom the device knows already left out unless it wants them again.
    async fn lazy_members(
        &self,
        view: &RoomView,
        stretch: &Stretch,
        known: Option<AnyRoot>,
        end: AnyRoot,
        summary: Option<&Summary>,
    ) -> Result<Vec<EventNum>, SyncError> {
        let request = self.build.request;
        let (user, device) = (request.user.as_str(), request.device.as_str());
        let mut who: BTreeSet<&str> = stretch
            .found
            .iter()
            .map(|found| found.event.sender().as_str())
            .collect();
        if known.is_none() {
            who.insert(user);
            self.sync.0.sent.forget(user, device, self.room);
        }
        who.extend(
            summary
                .and_then(|summary| summary.heroes.as_ref())
                .into_iter()
                .flatten()
                .map(String::as_str),
        );
        let members = self.members_of(view, stretch, &who, end).await?;
        let home = Home::Room(self.room);
        let lane = self.sync.0.rooms.tenant().lanes().of(home.slot());
        let since = self.build.since.map(|since| since.get(lane));
        let bound = self.build.reader.bound(home);
        let unsent =
            self.sync
                .0
                .sent
                .unsent(user, device, self.room, members.clone(), (since, bound));
        Ok(if request.filter.room.state.include_redundant_members {
            members
        } else {
            unsent
        })
    }

    /// The member events of these users; of senders whom a partial state doesn't know, those that authorise what they sent.
    pub(crate) async fn members_of(
        &self,
        view: &RoomView,
        stretch: &Stretch,
        who: &BTreeSet<&str>,
        end: AnyRoot,
    ) -> Result<Vec<EventNum>, SyncError> {
        let names: Vec<(&str, &str)> = who.iter().map(|user| ("m.room.member", *user)).collect();
        let keys = view.state_keys(&names).await?;
        let in_state = view.lookup(end, &keys).await?;
        let unknown: BTreeSet<&str> = names
            .iter()
            .zip(&in_state)
            .filter(|(_, num)| num.is_none() && end.is_partial())
            .map(|((_, user), _)| *user)
            .collect();
        let mut members: Vec<EventNum> = in_state.into_iter().flatten().collect();
        if !unknown.is_empty() {
            members.extend(view.members_named(&stretch.found, &unknown).await?);
        }
        Ok(members)
    }

    /// Who is there, from the room's summary where it is not newer than this answer, and by whom to
    /// name a room without a name; which may be one of the `names`, by their types.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync_response-200_roomsummary>
    pub(crate) async fn summary(
        &self,
        view: &RoomView,
        names: &[&str],
    ) -> Result<Summary, SyncError> {
        let key = InRoom { room: self.room };
        let names: Vec<(&str, &str)> = names.iter().map(|name| (*name, "")).collect();
        let (row, named) = try_join!(
            async { Ok::<_, SyncError>(view.reader().get::<Summaries>(&key).await?) },
            async { Ok(view.states(&names).await?) },
        )?;
        let settled = row.filter(|row| row.pos <= view.reader().bound(Home::Room(self.room)));
        let (joined, invited) = match &settled {
            Some(row) => (row.value.joined, row.value.invited),
            None => {
                let members = view.all_state(Some(Half::Members)).await?;
                let count = |wanted| {
                    members
                        .iter()
                        .filter(|found| membership_of(found) == Some(wanted))
                        .count()
                };
                (
                    count(Membership::Join) as u64,
                    count(Membership::Invite) as u64,
                )
            }
        };
        let is_named = named.iter().any(|found| {
            let key = if found.event.event_type() == "m.room.name" {
                "name"
            } else {
                "alias"
            };
            found
                .event
                .content_string(key)
                .is_some_and(|value| !value.is_empty())
        });
        let heroes = if is_named {
            None
        } else {
            Some(self.heroes(view).await?)
        };
        Ok(Summary {
            heroes,
            joined,
            invited,
        })
    }

    /// The first members other than the user; those who left, where nobody else is there.
    async fn heroes(&self, view: &RoomView) -> Result<Vec<String>, SyncError> {
        let mut nums = view.state_nums(view.root(), Some(Half::Members)).await?;
        nums.truncate(HEROES_LOOKED_AT);
        let me = self.build.request.user.as_str();
        let members = view.load(&nums).await?;
        let others = members
            .iter()
            .filter(|found| found.event.state_key() != Some(me));
        let (here, gone): (Vec<&Found>, Vec<&Found>) = others.partition(|found| {
            matches!(
                membership_of(found),
                Some(Membership::Join | Membership::Invite)
            )
        });
        let heroes = if here.is_empty() { gone } else { here };
        let names = heroes
            .into_iter()
            .filter_map(|found| found.event.state_key());
        Ok(names.take(HEROES).map(str::to_owned).collect())
    }

    /// What someone may see of a room who is not in it.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#stripped-state>
    pub(crate) async fn stripped(&self) -> Result<Option<Events>, SyncError> {
        if let Some(kept) = self.out_of_band().await? {
            // What ended it is newer than this answer, and told by the next.
            let stands = kept.membership == self.stood.now.as_str();
            return Ok(stands.then(|| Events {
                events: kept.stripped(),
            }));
        }
        let view = self.view().await?;
        let user = self.build.request.user.as_str();
        let member = view.state("m.room.member", user).await?;
        let mut keys = vec![
            ("m.room.create", ""),
            ("m.room.name", ""),
            ("m.room.avatar", ""),
            ("m.room.topic", ""),
            ("m.room.join_rules", ""),
            ("m.room.canonical_alias", ""),
            ("m.room.encryption", ""),
        ];
        let sender = member
            .as_ref()
            .map(|member| member.event.sender().to_string());
        if let Some(sender) = sender.as_deref().filter(|sender| *sender != user) {
            keys.push(("m.room.member", sender));
        }
        let found = view.states(&keys).await?;
        let events = found
            .iter()
            .chain(&member)
            .map(|found| stripped_state(&found.event));
        Ok(Some(Events {
            events: events
                .filter_map(|json| RawValue::from_string(json).ok())
                .collect(),
        }))
    }
}
