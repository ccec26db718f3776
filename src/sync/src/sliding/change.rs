//! State, and what draws a room, between what the client knew of it and now.

use std::collections::{BTreeMap, BTreeSet};

use comity_rooms::{Found, RoomView, num::EventNum, state::AnyRoot};
use futures_util::try_join;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Hero, room::Part};
use crate::{SyncError, room::Stretch};

/// What the client knew of the room, if it was in it.
pub(super) struct Then {
    pub root: AnyRoot,
    pub bumped: u64,
}

/// State, and what draws the room, between what the client knew and now.
pub(super) struct Change {
    pub state: Vec<Box<RawValue>>,
    pub gone: Vec<(String, String)>,
    pub name: Option<Option<String>>,
    pub avatar: Option<Option<String>>,
}

impl Part<'_> {
    /// The state that is wanted, where it isn't what the client knew.
    pub async fn change(
        &self,
        view: &RoomView,
        stretch: &Stretch,
        then: Option<&Then>,
        root: AnyRoot,
    ) -> Result<Change, SyncError> {
        let required = &self.wanted.config.required;
        let ((state, gone), (name, avatar)) = try_join!(
            async {
                let (mut state, gone) = match then {
                    None => (required.select(view, root, None).await?, Vec::new()),
                    Some(then) => self.moved(view, stretch, then.root, root).await?,
                };
                if required.is_lazy() {
                    let mut nums = self.lazy(view, stretch, then.is_none(), root).await?;
                    nums.retain(|num| !state.contains_key(num));
                    let members = view.load(&nums).await?.into_iter();
                    state.extend(members.map(|found| (found.num, found)));
                }
                Ok::<_, SyncError>((state, gone))
            },
            face(view, then.map(|then| then.root), root),
        )?;
        let state: Vec<Found> = state.into_values().collect();
        Ok(Change {
            state: self.room.render(view, &state).await?,
            gone,
            name,
            avatar,
        })
    }

    /// The wanted state that changed, and what is wanted now and wasn't; and what of the state is no more.
    async fn moved(
        &self,
        view: &RoomView,
        stretch: &Stretch,
        then: AnyRoot,
        root: AnyRoot,
    ) -> Result<(BTreeMap<EventNum, Found>, Vec<(String, String)>), SyncError> {
        let required = &self.wanted.config.required;
        let (differs, gone) = if then.is_partial() == root.is_partial() {
            view.state_changes(then, root).await?
        } else {
            // Members who are known now were there before.
            let (then, root) = (then.known_rest(), root.known_rest());
            view.state_changes(then.into(), root.into()).await?
        };
        let lazily = required.is_lazy() && !stretch.limited;
        let wants = |event_type: &str, state_key: &str| {
            required.matches(event_type, state_key) || (lazily && event_type == "m.room.member")
        };
        let found = view.load(&differs).await?;
        let wanted = found.into_iter().filter(|found| {
            let state_key = found.event.state_key().unwrap_or_default();
            wants(found.event.event_type(), state_key)
        });
        let mut state: BTreeMap<EventNum, Found> = wanted.map(|found| (found.num, found)).collect();
        if !self.had.is_some_and(|had| had.covers(required)) {
            state.extend(required.select(view, root, self.had).await?);
        }
        let mut gone = view.key_names(&gone).await?;
        gone.retain(|(event_type, state_key)| wants(event_type, state_key));
        Ok((state, gone))
    }

    /// The members who matter for the timeline and haven't been told.
    async fn lazy(
        &self,
        view: &RoomView,
        stretch: &Stretch,
        initial: bool,
        root: AnyRoot,
    ) -> Result<Vec<EventNum>, SyncError> {
        let senders = stretch
            .found
            .iter()
            .map(|found| found.event.sender().as_str());
        let members = stretch
            .found
            .iter()
            .filter(|found| found.event.event_type() == "m.room.member");
        let targets = members.filter_map(|found| found.event.state_key());
        let who: BTreeSet<&str> = senders.chain(targets).collect();
        let nums = self.room.members_of(view, stretch, &who, root).await?;
        let (sent, user) = (&self.teller.sync.0.sent, self.teller.request.user.as_str());
        let connection = self.teller.request.told_by();
        let room = self.wanted.listed.room;
        if initial {
            sent.forget(user, &connection, room);
        }
        let base = self
            .teller
            .at
            .position
            .as_ref()
            .map(|position| position.serial);
        Ok(sent.unsent(user, &connection, room, nums, (base, self.teller.serial)))
    }
}

impl Change {
    pub fn nothing() -> Self {
        Self {
            state: Vec::new(),
            gone: Vec::new(),
            name: None,
            avatar: None,
        }
    }
}

/// A room's name and avatar, where they aren't what they were: `Some(None)` where it had one before.
async fn face(
    view: &RoomView,
    then: Option<AnyRoot>,
    root: AnyRoot,
) -> Result<(Option<Option<String>>, Option<Option<String>>), SyncError> {
    if then == Some(root) {
        return Ok((None, None));
    }
    let names = [("m.room.name", "", "name"), ("m.room.avatar", "", "url")];
    let keys = view
        .state_keys(&names.map(|(event_type, key, _)| (event_type, key)))
        .await?;
    let now = view.lookup(root, &keys).await?;
    let before = match then {
        Some(then) => view.lookup(then, &keys).await?,
        None => vec![None; now.len()],
    };
    let mut told = Vec::new();
    for ((now, before), (_, _, field)) in now.into_iter().zip(before).zip(names) {
        if now == before {
            told.push(None);
            continue;
        }
        let found = match now {
            Some(now) => view.load(&[now]).await?.pop(),
            None => None,
        };
        let text = found.and_then(|found| {
            found
                .event
                .content_string(field)
                .map(|text| text.into_owned())
        });
        let text = text.filter(|text| !text.is_empty());
        told.push(Some(text).filter(|text| text.is_some() || then.is_some()));
    }
    let avatar = told.pop().flatten();
    Ok((told.pop().flatten(), avatar))
}

/// What draws the members by whom a room is named.
pub(super) async fn heroes_of(view: &RoomView, heroes: &[String]) -> Result<Vec<Hero>, SyncError> {
    #[derive(Default, Deserialize)]
    struct Profile {
        displayname: Option<String>,
        avatar_url: Option<String>,
    }
    let names: Vec<(&str, &str)> = heroes
        .iter()
        .map(|user| ("m.room.member", user.as_str()))
        .collect();
    let keys = view.state_keys(&names).await?;
    let nums = view.lookup(view.root(), &keys).await?;
    let nums: Vec<EventNum> = nums.into_iter().flatten().collect();
    let members = view.load(&nums).await?.into_iter();
    Ok(members
        .filter_map(|found| {
            let profile: Profile = found.event.content_as().unwrap_or_default();
            Some(Hero {
                user_id: found.event.state_key()?.to_owned(),
                displayname: profile.displayname,
                avatar_url: profile.avatar_url,
            })
        })
        .collect())
}
