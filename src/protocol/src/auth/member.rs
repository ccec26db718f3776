//! The rules for `m.room.member`: who may come, go, and send others away.

use serde_json::Value;

use super::rejection::Act;
use super::rules::{allow_if, is_first_join};
use super::{
    AuthEvent, AuthState, Create, JoinRule, LevelField, MemberContent, Membership, Rejection,
};
use crate::room_version::RoomVersionRules;

pub(super) fn check_member<E: AuthEvent>(
    rules: &RoomVersionRules,
    event: &E,
    state: &AuthState<E::Id>,
    create_id: &E::Id,
    create: &Create,
) -> Result<(), Rejection> {
    let target = event.state_key().ok_or(Rejection::NoStateKey)?;
    let content = MemberContent::read(event.content());
    let membership = content.membership.ok_or(Rejection::UnknownMembership)?;
    if rules.restricted && content.authoriser.is_some() && content.authoriser().is_none() {
        // No server can have signed for it.
        return Err(Rejection::MalformedAuthoriser);
    }
    let change = Change {
        rules,
        state,
        sender: event.sender().as_str(),
        target,
    };
    match membership {
        Membership::Join if is_first_join(event, target, create_id, create) => Ok(()),
        Membership::Join => change.join(&content),
        Membership::Invite => match &content.third_party_invite {
            Some(invite) => change.invite_by_third_party(invite),
            None => change.invite(),
        },
        Membership::Leave if change.sender == target => change.leave(),
        Membership::Leave => change.kick(),
        Membership::Ban => change.ban(),
        Membership::Knock if rules.knock => change.knock(),
        Membership::Knock => Err(Rejection::UnknownMembership),
    }
}

/// A change of one user's membership by a sender, in a state.
struct Change<'a, Id> {
    rules: &'a RoomVersionRules,
    state: &'a AuthState<Id>,
    sender: &'a str,
    target: &'a str,
}

impl<Id: Clone> Change<'_, Id> {
    fn join(&self, content: &MemberContent) -> Result<(), Rejection> {
        if self.sender != self.target {
            return Err(Rejection::SenderIsNotTarget);
        }
        let membership = self.state.membership(self.target);
        if membership == Membership::Ban {
            return Err(Rejection::Banned);
        }
        let join_rule = self.state.join_rule;
        let is_expected = matches!(membership, Membership::Invite | Membership::Join);
        let forbidden = Rejection::ForbiddenByJoinRule(join_rule);
        match join_rule {
            JoinRule::Public => Ok(()),
            JoinRule::Invite => allow_if(is_expected, forbidden),
            JoinRule::Knock => allow_if(self.rules.knock && is_expected, forbidden),
            JoinRule::Restricted if !self.rules.restricted => Err(forbidden),
            JoinRule::KnockRestricted if !self.rules.knock_restricted => Err(forbidden),
            JoinRule::Restricted | JoinRule::KnockRestricted => allow_if(
                is_expected || self.may_authorise(content),
                Rejection::Unauthorised,
            ),
            JoinRule::Other => Err(forbidden),
        }
    }

    /// Whether the authoriser a restricted join names is in the room and could invite.
    fn may_authorise(&self, content: &MemberContent) -> bool {
        let levels = self.state.levels();
        content.authoriser().is_some_and(|authoriser| {
            self.state.membership(authoriser.as_str()) == Membership::Join
                && levels
                    .user(authoriser.as_str())
                    .reaches(levels.field(LevelField::Invite))
        })
    }

    fn invite_by_third_party(&self, invite: &Value) -> Result<(), Rejection> {
        if self.state.membership(self.target) == Membership::Ban {
            return Err(Rejection::Banned);
        }
        let holds = || {
            let signed = invite.get("signed")?.as_object()?;
            let user = signed.get("mxid")?.as_str()?;
            let keys = self
                .state
                .third_party_invite(signed.get("token")?.as_str()?)?;
            Some(
                user == self.target
                    && self.sender == keys.sender.as_str()
                    && keys.have_signed(signed),
            )
        };
        allow_if(holds().unwrap_or(false), Rejection::ThirdPartyInvite)
    }

    fn invite(&self) -> Result<(), Rejection> {
        self.sender_is_joined()?;
        let membership = self.state.membership(self.target);
        if matches!(membership, Membership::Join | Membership::Ban) {
            return Err(Rejection::WrongMembership(membership));
        }
        let levels = self.state.levels();
        allow_if(
            levels
                .user(self.sender)
                .reaches(levels.field(LevelField::Invite)),
            Rejection::InsufficientPower(Act::Invite),
        )
    }

    fn leave(&self) -> Result<(), Rejection> {
        let membership = self.state.membership(self.target);
        let can_leave = match membership {
            Membership::Invite | Membership::Join => true,
            Membership::Knock => self.rules.knock,
            Membership::Ban | Membership::Leave => false,
        };
        allow_if(can_leave, Rejection::WrongMembership(membership))
    }

    fn kick(&self) -> Result<(), Rejection> {
        self.sender_is_joined()?;
        let levels = self.state.levels();
        if self.state.membership(self.target) == Membership::Ban
            && !levels
                .user(self.sender)
                .reaches(levels.field(LevelField::Ban))
        {
            return Err(Rejection::InsufficientPower(Act::Unban));
        }
        self.overpowers(LevelField::Kick, Act::Kick)
    }

    fn ban(&self) -> Result<(), Rejection> {
        self.sender_is_joined()?;
        self.overpowers(LevelField::Ban, Act::Ban)
    }

    fn knock(&self) -> Result<(), Rejection> {
        let allows_knocks = match self.state.join_rule {
            JoinRule::Knock => true,
            JoinRule::KnockRestricted => self.rules.knock_restricted,
            _ => false,
        };
        if !allows_knocks {
            return Err(Rejection::ForbiddenByJoinRule(self.state.join_rule));
        }
        if self.sender != self.target {
            return Err(Rejection::SenderIsNotTarget);
        }
        let membership = self.state.membership(self.target);
        allow_if(
            !matches!(
                membership,
                Membership::Ban | Membership::Invite | Membership::Join
            ),
            Rejection::WrongMembership(membership),
        )
    }

    fn sender_is_joined(&self) -> Result<(), Rejection> {
        allow_if(
            self.state.membership(self.sender) == Membership::Join,
            Rejection::SenderNotJoined,
        )
    }

    /// Whether the sender reaches a level and stands above the target.
    fn overpowers(&self, field: LevelField, act: Act) -> Result<(), Rejection> {
        let levels = self.state.levels();
        let sender = levels.user(self.sender);
        allow_if(
            sender.reaches(levels.field(field)) && levels.user(self.target) < sender,
            Rejection::InsufficientPower(act),
        )
    }
}
