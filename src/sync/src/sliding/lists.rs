//! Which rooms a request is about: those in the windows of its lists and those it names.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use comity_accounts::Invites;
use comity_protocol::auth::Membership;
use comity_storage::{Reader, RoomKey};

use super::{
    Filters, List, RoomConfig, SlidingError, SlidingRequest, connection::At, looked::Wants,
    request::REQUIRED_BYTES,
};
use crate::{Sync, SyncError, recent_rooms::Listed};

/// What a list's name takes in memory beside its letters, more or less.
const NAME: usize = 32;

/// A room that the request is about.
pub(super) struct Wanted {
    pub listed: Listed,
    pub config: RoomConfig,
    /// The same, to be compared.
    pub wants: Wants,
    /// The lists in whose windows it is.
    pub lists: Arc<BTreeSet<String>>,
    /// It is one of the subscriptions.
    pub subscribed: bool,
}

/// By what a room is wanted: the lists that have it in their windows, what the subscription to it asks for. Of two rooms that are
/// subscribed to alike it is the same.
#[derive(Default, PartialEq, Eq, Hash)]
struct By<'a> {
    lists: Vec<&'a str>,
    subscription: Option<&'a RoomConfig>,
}

/// What rooms share that are wanted by the same.
#[derive(Clone)]
struct Joined {
    config: RoomConfig,
    wants: Wants,
    lists: Arc<BTreeSet<String>>,
}

/// What lists say, and the rooms that are wanted, the last active first.
pub(super) struct Interest {
    pub counts: BTreeMap<String, usize>,
    pub wanted: Vec<Wanted>,
    /// The rooms that are direct by the user's account data.
    pub direct: BTreeSet<String>,
}

impl Sync {
    /// The rooms that a request is about, at a position of its connection.
    ///
    /// # Errors
    /// [`SlidingError::TooMuch`] where its lists and subscriptions overlap in so many ways that what they come to takes too much.
    pub(super) async fn interest(
        &self,
        request: &SlidingRequest,
        reader: &Reader,
        at: &At,
    ) -> Result<Interest, SlidingError> {
        let user = &request.user;
        let asks = |asks: fn(&Filters) -> bool| {
            let mut lists = request.lists.values();
            lists.any(|list| asks(&list.filters))
        };
        let asks_tags = asks(|filters| filters.tags.is_some() || !filters.not_tags.is_empty());
        let (listed, direct, tags, spaces) = futures_util::try_join!(
            self.listed(user, reader),
            self.direct(user.as_str()),
            async {
                if asks_tags {
                    self.tags(user.as_str()).await
                } else {
                    Ok(BTreeMap::new())
                }
            },
            self.spaces(request, reader),
        )?;
        let invites = if listed.iter().any(|one| one.is(Membership::Invite)) {
            let invites = self.0.accounts.invites(user.as_str()).await;
            invites.map_err(SyncError::from)?
        } else {
            Invites::default()
        };
        let is_news = |one: &Listed| {
            let known = at.known(one.room);
            known.is_some_and(|known| one.place.pos > known.upto)
        };
        // What the user may be told of at all: a room that they forgot, as long as the client doesn't know that it is left.
        let tellable = |one: &Listed| {
            let sender = one.stands.as_ref().and_then(|place| place.sender.as_ref());
            let refused = sender.is_some_and(|sender| !invites.shows(sender));
            let unwelcome = one.is(Membership::Invite) && refused;
            !unwelcome && (!one.place.forgotten || is_news(one))
        };
        // Who left knows it once they were told; who was removed may not have noticed.
        let shown = |one: &Listed| {
            tellable(one) && (!one.is_gone() || is_news(one) || one.was_removed(user))
        };
        let sides = Sides {
            direct: &direct,
            tags: &tags,
            spaces: &spaces,
        };
        // By their places among all rooms, of which the others are compared with and no more.
        let mut wanted: BTreeMap<usize, By<'_>> = BTreeMap::new();
        let mut counts = BTreeMap::new();
        for (name, list) in &request.lists {
            let mut count = 0;
            for (place, one) in listed.iter().enumerate() {
                if !shown(one) || !sides.pass(&list.filters, one) {
                    continue;
                }
                if list.has(count) {
                    wanted.entry(place).or_default().lists.push(name);
                }
                count += 1;
            }
            counts.insert(name.clone(), count);
        }
        // A subscription to a room that the user was never in any way is passed over: there is nothing of it here.
        let subscriptions = request.subscriptions.iter();
        let subscriptions: HashMap<RoomKey, &RoomConfig> = subscriptions
            .map(|(room_id, config)| (RoomKey::of(room_id.as_str()), config))
            .collect();
        for (place, one) in listed.iter().enumerate() {
            if subscriptions.is_empty() {
                break;
            }
            if let Some(config) = subscriptions.get(&one.room).filter(|_| tellable(one)) {
                wanted.entry(place).or_default().subscription = Some(config);
            }
        }
        // Many rooms are wanted by the same, and share what that comes to.
        let mut joined: HashMap<By<'_>, Joined> = HashMap::new();
        let (mut bytes, mut all) = (0, Vec::with_capacity(wanted.len()));
        for (place, by) in wanted {
            let Some(listed) = listed.get(place).cloned() else {
                continue;
            };
            let subscribed = by.subscription.is_some();
            let by_the_same = match joined.get(&by) {
                Some(joined) => joined.clone(),
                None => {
                    let made = request.joined(&by, at);
                    bytes += made.bytes();
                    if bytes > REQUIRED_BYTES {
                        return Err(SlidingError::TooMuch);
                    }
                    joined.insert(by, made.clone());
                    made
                }
            };
            let Joined {
                config,
                wants,
                lists,
            } = by_the_same;
            all.push(Wanted {
                listed,
                config,
                wants,
                lists,
                subscribed,
            });
        }
        Ok(Interest {
            counts,
            wanted: all,
            direct,
        })
    }

    /// <https://spec.matrix.org/v1.19/client-server-api/#mdirect>
    async fn direct(&self, user: &str) -> Result<BTreeSet<String>, SyncError> {
        let direct = self.0.accounts.account_data(user, "m.direct").await?;
        let rooms = direct.as_ref().and_then(|direct| direct.as_object());
        let rooms = rooms.into_iter().flat_map(|direct| direct.values());
        let rooms = rooms.filter_map(|rooms| rooms.as_array()).flatten();
        Ok(rooms
            .filter_map(|room| room.as_str().map(str::to_owned))
            .collect())
    }

    /// The tags of the user's rooms, by room.
    async fn tags(&self, user: &str) -> Result<BTreeMap<String, BTreeSet<String>>, SyncError> {
        let data = self.0.accounts.all_room_account_data(user).await?;
        let tags = data.into_iter().filter(|data| data.kind == "m.tag");
        Ok(tags
            .filter_map(|data| {
                let tags = data.content.get("tags")?.as_object()?;
                Some((data.room_id?, tags.keys().cloned().collect()))
            })
            .collect())
    }
}

impl SlidingRequest {
    /// What is wanted of rooms that are wanted by these, as it is held already if it is.
    fn joined(&self, by: &By<'_>, at: &At) -> Joined {
        let mut config = self.config_of(&by.lists, by.subscription);
        config.required = at.held(config.required);
        let lists = by.lists.iter().map(|name| (*name).to_owned());
        Joined {
            wants: Wants::of(&config),
            config,
            lists: Arc::new(lists.collect()),
        }
    }
}

impl Joined {
    /// What it takes in memory, more or less.
    fn bytes(&self) -> usize {
        let names = self.lists.iter().map(|name| name.len() + NAME);
        self.config.required.bytes() + names.sum::<usize>()
    }
}

impl List {
    /// Whether a place is in the window.
    fn has(&self, place: usize) -> bool {
        self.ranges.as_ref().is_none_or(|ranges| {
            let mut ranges = ranges.iter();
            ranges.any(|(first, last)| (*first..=*last).contains(&place))
        })
    }
}

/// What filters look at beside the rooms.
struct Sides<'a> {
    direct: &'a BTreeSet<String>,
    tags: &'a BTreeMap<String, BTreeSet<String>>,
    spaces: &'a BTreeMap<String, Arc<BTreeSet<String>>>,
}

impl Sides<'_> {
    fn pass(&self, filters: &Filters, one: &Listed) -> bool {
        let room_id: &str = &one.place.room_id;
        let (room_type, encrypted) = one.kind();
        let is_of = |types: &BTreeSet<Option<String>>| {
            let mut types = types.iter();
            types.any(|of| of.as_deref() == room_type)
        };
        let has_tag = |tags: &BTreeSet<String>| {
            let has = self.tags.get(room_id);
            has.is_some_and(|has| !tags.is_disjoint(has))
        };
        let in_space = |spaces: &BTreeSet<comity_protocol::id::OwnedRoomId>| {
            let mut children = spaces
                .iter()
                .filter_map(|space| self.spaces.get(space.as_str()));
            children.any(|children| children.contains(room_id))
        };
        filters
            .is_dm
            .is_none_or(|is| is == self.direct.contains(room_id))
            && filters.is_encrypted.is_none_or(|is| is == encrypted)
            && filters
                .is_invited
                .is_none_or(|is| is == one.is(Membership::Invite))
            && filters.room_types.as_ref().is_none_or(is_of)
            && !is_of(&filters.not_room_types)
            && filters.spaces.as_ref().is_none_or(in_space)
            && filters.tags.as_ref().is_none_or(has_tag)
            && !has_tag(&filters.not_tags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// MSC4186, `SyncListConfig`: places count from 0, both ends are inclusive, no range is all.
    #[test]
    fn windows_are_inclusive() {
        let list = |ranges| List {
            ranges,
            ..List::default()
        };
        let window = list(Some(vec![(0, 1), (4, 4)]));
        let has: Vec<usize> = (0..6).filter(|place| window.has(*place)).collect();
        assert_eq!(has, [0, 1, 4]);
        assert!(list(None).has(1_000_000));
    }
}
