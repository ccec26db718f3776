//! Coming and going: joins, invites, knocks, leaving, kicks, bans, forgetting.
//!
//! Each is one change of one room, judged by the room's rules; what stands here is what the rules
//! leave to the server. Who may ask at all (ignored users, invite blocking, server notices) is the
//! caller's question. Doing what is already so makes no event.

use comity_protocol::{
    auth::{JoinRule, JoinRulesContent, Membership, Rejection},
    id::{OwnedRoomId, OwnedServerName, RoomId, UserId},
};
use comity_storage::{Home, Range, RoomKey};
use serde_json::{Map, Value};

use crate::{
    change::{Change, Intent, Placed},
    error::RoomError,
    log,
    profile::{Profile, member_content},
    rooms::Rooms,
    tables::{Heads, Members, Mode, UserRoom},
};

const MEMBER: &str = "m.room.member";

impl Change {
    /// Asked before anything of a room is told, for outsiders learn nothing of it, not even that it is there (threat E5).
    pub(crate) async fn must_be_joined(&mut self, user: &UserId) -> Result<(), RoomError> {
        match self.membership(user).await? {
            Membership::Join => Ok(()),
            _ => Err(RoomError::Rejected(Rejection::SenderNotJoined)),
        }
    }
}

/// A request to join.
#[derive(Debug, Clone, Default)]
pub struct Join {
    /// The user's profile.
    pub profile: Profile,
    /// `reason`
    pub reason: Option<String>,
    /// What else the client wants in the member event; what the server says there is left out.
    pub extra: Map<String, Value>,
    /// The user is a guest.
    pub guest: bool,
    /// Servers that may let the user in, where we can't.
    pub via: Vec<OwnedServerName>,
}

/// Servers that are asked for one join or knock at the most.
const MAX_VIA: usize = 10;

/// A member event without a profile.
fn plain(membership: &str, reason: Option<&str>) -> Map<String, Value> {
    let mut content = Map::new();
    member_content(&mut content, membership, None, reason);
    content
}

impl Join {
    /// The content of the member event, as far as it is the user's.
    fn content(&self) -> Map<String, Value> {
        let mut content = self.extra.clone();
        content.remove("is_direct");
        let (profile, reason) = (&self.profile, self.reason.as_deref());
        member_content(&mut content, "join", Some(profile), reason);
        content
    }
}

impl Rooms {
    /// Joins a room; who is in it already stays as they are.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#joining-rooms>
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`], [`RoomError::Rejected`], [`RoomError::GuestAccess`],
    /// [`RoomError::OtherServer`]; of a restricted room [`RoomError::Forbidden`], [`RoomError::UnableToAuthoriseJoin`],
    /// [`RoomError::UnableToGrantJoin`].
    pub async fn join(
        &self,
        user: &UserId,
        room_id: &RoomId,
        request: Join,
    ) -> Result<Placed, RoomError> {
        let Some(mut change) = self.inside(room_id).await? else {
            return self.join_elsewhere(user, room_id, request).await;
        };
        let before = change.membership(user).await?;
        if before == Membership::Join
            && let Some(standing) = change.standing(MEMBER, user.as_str()).await?
        {
            // It may have been appended only; it is durable when this is.
            change.commit().await?;
            return Ok(standing);
        }
        // Whether they are banned, the others know.
        if change.live()?.is_partial() && before != Membership::Invite {
            drop(change);
            return self.join_elsewhere(user, room_id, request).await;
        }
        if request.guest && !change.live()?.summary.guest_can_join {
            return Err(RoomError::GuestAccess);
        }
        let mut content = request.content();
        if before != Membership::Invite {
            match self.authoriser(&mut change, user).await {
                Ok(None) => {}
                Ok(Some(authoriser)) => {
                    content.insert("join_authorised_via_users_server".into(), authoriser.into());
                }
                // Another of the room's servers may be able to.
                Err(error @ (RoomError::UnableToAuthoriseJoin | RoomError::UnableToGrantJoin)) => {
                    drop(change);
                    let others = self.view(room_id).await?.other_servers().await?;
                    if others.is_empty() || self.elsewhere("").is_err() {
                        return Err(error);
                    }
                    let via = others;
                    let request = Join { via, ..request };
                    return self.join_elsewhere(user, room_id, request).await;
                }
                Err(error) => return Err(error),
            }
        }
        change.set_member(user, user, &content).await
    }

    /// Takes a room for a change if we are in it.
    async fn inside(&self, room_id: &RoomId) -> Result<Option<Change>, RoomError> {
        match self.change(room_id).await {
            Ok(change) if change.live()?.head.mode.takes_part() => Ok(Some(change)),
            Ok(_) | Err(RoomError::UnknownRoom) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Joins a room through another server.
    async fn join_elsewhere(
        &self,
        user: &UserId,
        room_id: &RoomId,
        request: Join,
    ) -> Result<Placed, RoomError> {
        let Ok(elsewhere) = self.elsewhere("") else {
            return Err(RoomError::UnknownRoom);
        };
        if request.guest {
            return Err(RoomError::GuestAccess);
        }
        let via = self.ways_to(user, room_id, &request.via).await?;
        elsewhere
            .join(user, room_id, &via, request.content())
            .await?;
        // Read without taking the room: who completes its state has it for as long as that takes.
        let view = self.view(room_id).await?;
        let joined = view.state(MEMBER, user.as_str()).await?;
        let placed = joined.and_then(|joined| {
            let (seq, _) = joined.place()?;
            let event_id = joined.event.event_id().to_owned();
            Some(Placed { event_id, seq })
        });
        placed.ok_or(RoomError::UnknownRoom)
    }

    /// The servers by which a room can be reached: those that were named and those that an invite came
    /// by; where nobody named any, also the one that the room's id names, which once was in the room, and
    /// those that were in it with us.
    async fn ways_to(
        &self,
        user: &UserId,
        room_id: &RoomId,
        named: &[OwnedServerName],
    ) -> Result<Vec<OwnedServerName>, RoomError> {
        let invited = self
            .out_of_band(&self.tenant().reader(), user, room_id)
            .await?;
        let mut via: Vec<OwnedServerName> = Vec::new();
        let invited = invited.map(|row| row.servers()).unwrap_or_default();
        let own = room_id.server_name().map(ToOwned::to_owned);
        let own = own.filter(|_| named.is_empty());
        let before = match self.view(room_id).await {
            Ok(_) if !named.is_empty() => Vec::new(),
            Ok(view) => view.other_servers().await?,
            Err(RoomError::UnknownRoom) => Vec::new(),
            Err(error) => return Err(error),
        };
        let others = invited.into_iter().chain(own).chain(before);
        for server in named.iter().cloned().chain(others) {
            if server != self.server_name() && !via.contains(&server) && via.len() < MAX_VIA {
                via.push(server);
            }
        }
        if via.is_empty() {
            return Err(RoomError::UnknownRoom);
        }
        Ok(via)
    }

    /// Who lets a user into a room with a restricted join rule; `None` where no one needs to, or
    /// the user is banned and the rules will say so.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#restricted-rooms>
    pub(crate) async fn authoriser(
        &self,
        change: &mut Change,
        user: &UserId,
    ) -> Result<Option<String>, RoomError> {
        let rules = change.version()?.rules();
        let Some(event) = change.state_event("m.room.join_rules", "").await? else {
            return Ok(None);
        };
        let content = JoinRulesContent::read(event.content().get());
        let restricted = match content.join_rule {
            JoinRule::Restricted => rules.restricted,
            JoinRule::KnockRestricted => rules.knock_restricted,
            _ => false,
        };
        if !restricted || change.membership(user).await? == Membership::Ban {
            return Ok(None);
        }
        self.check_allowed(user, &content.allow).await?;
        let inviter = change.local_inviter().await?;
        inviter
            .map(|inviter| Some(inviter.to_string()))
            .ok_or(RoomError::UnableToGrantJoin)
    }

    /// Whether a user is in one of these rooms, as far as this server can tell.
    async fn check_allowed(&self, user: &UserId, allowed: &[String]) -> Result<(), RoomError> {
        let reader = self.tenant().reader();
        let keys: Vec<UserRoom> = allowed
            .iter()
            .map(|room_id| user_room(user, RoomKey::of(room_id)))
            .collect();
        let rows = reader.get_many::<Members>(&keys).await?;
        for (row, room_id) in rows.into_iter().zip(allowed) {
            // Of a room that we have left since, the row says what once was.
            if row.is_some_and(|row| row.value.membership() == Membership::Join)
                && self.knows_members(RoomKey::of(room_id)).await?
            {
                return Ok(());
            }
        }
        for room_id in allowed {
            if !self.knows_members(RoomKey::of(room_id)).await? {
                return Err(RoomError::UnableToAuthoriseJoin);
            }
        }
        Err(RoomError::Forbidden(
            "the user is in none of the rooms whose members may join",
        ))
    }

    /// Whether this server is in a room and knows all of its members.
    pub(crate) async fn knows_members(&self, room: RoomKey) -> Result<bool, RoomError> {
        let last = Range::of(Home::Room(room), |key| {
            key.room(room);
        })
        .reverse()
        .limit(1);
        let heads = self.tenant().reader().scan::<Heads>(last).await?;
        Ok(heads
            .first()
            .is_some_and(|(_, row)| row.value.mode == Mode::Joined))
    }

    /// Invites a user.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidinvite>
    ///
    /// # Errors
    /// [`RoomError::Rejected`], [`RoomError::OtherServer`].
    pub async fn invite(
        &self,
        user: &UserId,
        room_id: &RoomId,
        target: &UserId,
        profile: &Profile,
        reason: Option<&str>,
    ) -> Result<Placed, RoomError> {
        let mut content = Map::new();
        member_content(&mut content, "invite", Some(profile), reason);
        self.invite_with(user, room_id, target, &content).await
    }

    /// Invites a user by a whole member event. One of another server is asked there first: its
    /// signature is part of the event.
    pub(crate) async fn invite_with(
        &self,
        user: &UserId,
        room_id: &RoomId,
        target: &UserId,
        content: &Map<String, Value>,
    ) -> Result<Placed, RoomError> {
        let mut change = self.change_knowing(room_id, target).await?;
        if self.is_local(target) {
            return change.set_member(user, target, content).await;
        }
        let elsewhere = self.elsewhere("users of other servers can't be invited")?;
        let intent = Intent::state(user, MEMBER, target.as_str(), content);
        let draft = change.draft(&intent).await?;
        let mut invite = self.sign(draft.unsigned)?;
        let unasked = change.unasked(invite.event()).await?;
        drop(change);
        if let Some(policy) = unasked {
            invite = self.recommended(&policy, invite).await?;
        }
        let view = self.view(room_id).await?;
        let mut state = view.introduction().await?;
        let inviter = view.state(MEMBER, user.as_str()).await?;
        state.extend(inviter.map(|found| found.event));
        let ours = invite.event().clone();
        let signed = elsewhere.invite(invite, state).await?;
        let event = signed.event();
        let same = event.event_id() == ours.event_id()
            && event.content().get() == ours.content().get()
            && event.json().len() >= ours.json().len();
        if !same {
            return Err(RoomError::OtherServer(
                "the invited user's server answered with another event",
            ));
        }
        self.change(room_id).await?.take_in(signed, None).await?;
        let mut change = self.change(room_id).await?;
        let standing = change.standing(MEMBER, target.as_str()).await?;
        standing.ok_or(RoomError::UnknownEvent)
    }

    /// Leaves a room, declines an invite, or takes a knock back.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidleave>
    ///
    /// # Errors
    /// [`RoomError::Rejected`] for someone who isn't in, invited or knocking.
    pub async fn leave(
        &self,
        user: &UserId,
        room_id: &RoomId,
        reason: Option<&str>,
    ) -> Result<(), RoomError> {
        let content = plain("leave", reason);
        let Some(change) = self.inside(room_id).await? else {
            let reader = self.tenant().reader();
            let row = self.out_of_band(&reader, user, room_id).await?;
            let row = match row {
                Some(row) => row,
                None => self.left_behind(user, room_id).await?,
            };
            return self.leave_out_of_band(user, room_id, &row, content).await;
        };
        change.set_member(user, user, &content).await.map(drop)
    }

    /// Sends a user away: a member, an invited one or one who knocks.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidkick>
    ///
    /// # Errors
    /// [`RoomError::Forbidden`] where the user isn't there; [`RoomError::Rejected`].
    pub async fn kick(
        &self,
        user: &UserId,
        room_id: &RoomId,
        target: &UserId,
        reason: Option<&str>,
    ) -> Result<Placed, RoomError> {
        let refusal = |before| {
            matches!(before, Membership::Leave | Membership::Ban)
                .then_some("the user is not in the room")
        };
        self.set_anothers(user, room_id, target, &plain("leave", reason), refusal)
            .await
    }

    /// Bans a user, in the room or not.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidban>
    ///
    /// # Errors
    /// [`RoomError::Rejected`].
    pub async fn ban(
        &self,
        user: &UserId,
        room_id: &RoomId,
        target: &UserId,
        reason: Option<&str>,
    ) -> Result<Placed, RoomError> {
        self.set_anothers(user, room_id, target, &plain("ban", reason), |_| None)
            .await
    }

    /// Lifts a ban.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidunban>
    ///
    /// # Errors
    /// [`RoomError::Forbidden`] where there is none; [`RoomError::Rejected`].
    pub async fn unban(
        &self,
        user: &UserId,
        room_id: &RoomId,
        target: &UserId,
        reason: Option<&str>,
    ) -> Result<Placed, RoomError> {
        let refusal = |before| (before != Membership::Ban).then_some("the user is not banned");
        self.set_anothers(user, room_id, target, &plain("leave", reason), refusal)
            .await
    }

    /// Sets another's membership, unless what it is refuses that.
    async fn set_anothers(
        &self,
        user: &UserId,
        room_id: &RoomId,
        target: &UserId,
        content: &Map<String, Value>,
        refusal: impl Fn(Membership) -> Option<&'static str>,
    ) -> Result<Placed, RoomError> {
        let mut change = self.change_knowing(room_id, target).await?;
        change.must_be_joined(user).await?;
        if let Some(why) = refusal(change.membership(target).await?) {
            return Err(RoomError::Forbidden(why));
        }
        change.set_member(user, target, content).await
    }

    /// Knocks on a room.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3knockroomidoralias>
    ///
    /// # Errors
    /// [`RoomError::UnknownRoom`], [`RoomError::Rejected`].
    pub async fn knock(
        &self,
        user: &UserId,
        room_id: &RoomId,
        profile: &Profile,
        reason: Option<&str>,
        via: &[OwnedServerName],
    ) -> Result<(), RoomError> {
        let mut content = Map::new();
        member_content(&mut content, "knock", Some(profile), reason);
        if let Some(change) = self.inside(room_id).await? {
            return change.set_member(user, user, &content).await.map(drop);
        }
        let Ok(elsewhere) = self.elsewhere("") else {
            return Err(RoomError::UnknownRoom);
        };
        let via = self.ways_to(user, room_id, via).await?;
        elsewhere.knock(user, room_id, &via, content).await
    }

    /// Forgets a room that the user has left: its history is no longer theirs to see, until they
    /// are invited or join again.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidforget>
    ///
    /// # Errors
    /// [`RoomError::NotLeft`]; [`RoomError::UnknownRoom`] for someone who never was there.
    pub async fn forget(&self, user: &UserId, room_id: &RoomId) -> Result<(), RoomError> {
        let mut change = match self.change(room_id).await {
            Err(RoomError::UnknownRoom) => return self.forget_out_of_band(user, room_id).await,
            change => change?,
        };
        let live = change.live()?;
        let key = user_room(user, live.room);
        let row = live.reader().get::<Members>(&key).await?;
        let mut member = row.ok_or(RoomError::UnknownRoom)?.value;
        if !matches!(member.membership(), Membership::Leave | Membership::Ban) {
            return Err(RoomError::NotLeft);
        }
        if member.forgotten {
            return Ok(());
        }
        member.forgotten = true;
        let forgot = log::Forgot {
            user: user.to_string(),
        };
        let record = log::record(log::kind::FORGOT, room_id.as_str(), &forgot)?;
        change.batch().put::<Members>(&key, &member).log(record);
        change.commit().await.map(drop)
    }

    /// Sets a membership by a whole member event. A join is a join: what the room asks for and the
    /// server vouches for is not the client's to write.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3roomsroomidstateeventtypestatekey>
    ///
    /// # Errors
    /// As [`Rooms::join`] and [`Rooms::invite`].
    pub async fn set_membership(
        &self,
        user: &UserId,
        room_id: &RoomId,
        target: &UserId,
        mut content: Map<String, Value>,
        guest: bool,
    ) -> Result<Placed, RoomError> {
        for key in ["join_authorised_via_users_server", "third_party_invite"] {
            content.remove(key);
        }
        let text = |key| content.get(key).and_then(Value::as_str);
        let membership = text("membership").and_then(Membership::from_name);
        if membership == Some(Membership::Invite) && !self.is_local(target) {
            return self.invite_with(user, room_id, target, &content).await;
        }
        let mut change = self.change(room_id).await?;
        if membership == Some(Membership::Join)
            && target == user
            && change.membership(user).await? != Membership::Join
        {
            drop(change);
            let profile = Profile {
                displayname: text("displayname").map(str::to_owned),
                avatar_url: text("avatar_url").map(str::to_owned),
            };
            let reason = text("reason").map(str::to_owned);
            let request = Join {
                profile,
                reason,
                extra: content,
                guest,
                via: Vec::new(),
            };
            return self.join(user, room_id, request).await;
        }
        change.set_member(user, target, &content).await
    }

    /// The rooms that two users of this server share, by their ids' order.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mutual_rooms>
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn mutual_rooms(
        &self,
        user: &UserId,
        other: &UserId,
    ) -> Result<Vec<OwnedRoomId>, RoomError> {
        let mine = self.rooms_with(user, Membership::Join).await?;
        let keys: Vec<UserRoom> = mine
            .iter()
            .map(|room_id| user_room(other, RoomKey::of(room_id.as_str())))
            .collect();
        let theirs = self.tenant().reader().get_many::<Members>(&keys).await?;
        let shared = mine.into_iter().zip(theirs).filter(|(_, row)| {
            row.as_ref()
                .is_some_and(|row| row.value.membership() == Membership::Join)
        });
        let mut shared: Vec<OwnedRoomId> = shared.map(|(room_id, _)| room_id).collect();
        shared.sort();
        Ok(shared)
    }
}

impl Change {
    /// Sets a membership, and no more.
    pub(crate) async fn set_member(
        self,
        sender: &UserId,
        target: &UserId,
        content: &Map<String, Value>,
    ) -> Result<Placed, RoomError> {
        let intent = Intent::state(sender, MEMBER, target.as_str(), content);
        self.send(intent, None).await
    }
}

fn user_room(user: &UserId, room: RoomKey) -> UserRoom {
    let user = user.to_string();
    UserRoom { user, room }
}
