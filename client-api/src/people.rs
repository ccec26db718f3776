//! What is asked of a user's account before they appear in a room: how they show themselves, and whether they may be invited.

use comity_accounts::{AVATAR_URL, AccountError, DISPLAY_NAME, InviteVerdict, Limit};
use comity_protocol::id::UserId;
use comity_rooms::Profile;
use http::StatusCode;
use serde_json::{Map, Value};

use crate::{Api, ApiError};

/// How a user shows themselves in their member events. Of users of other servers, and of those who don't exist, nothing is known.
pub(crate) async fn profile(api: &Api, user: &UserId) -> Result<Profile, ApiError> {
    if user.server_name() != api.rooms.server_name() {
        return Ok(Profile::default());
    }
    let fields = match api.accounts.profile(user.as_str()).await {
        Err(AccountError::NotFound(_)) => return Ok(Profile::default()),
        fields => fields?,
    };
    Ok(shown(&fields))
}

/// What member events show of a profile.
pub(crate) fn shown(profile: &Map<String, Value>) -> Profile {
    let text = |field| profile.get(field)?.as_str().map(str::to_owned);
    Profile {
        displayname: text(DISPLAY_NAME),
        avatar_url: text(AVATAR_URL),
    }
}

/// Asks what [`invitee`] asks where a member event is written by hand, if it is an invite.
///
/// # Errors
/// As [`invitee`].
pub(crate) async fn may_be_invited(
    api: &Api,
    inviter: &UserId,
    user: &UserId,
    membership: Option<&Value>,
) -> Result<(), ApiError> {
    if membership.is_some_and(|membership| membership == "invite") {
        invitee(api, inviter, user).await?;
    }
    Ok(())
}

/// What an invite shows of the user it is for, if they take it.
///
/// An invite that they ignore is not refused: it is kept from them, and nobody learns that they ignore someone.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#invite-permission>
///
/// # Errors
/// 403 `M_INVITE_BLOCKED`; 429 where `inviter` sends, or `user` gets, more than can be meant well.
pub(crate) async fn invitee(
    api: &Api,
    inviter: &UserId,
    user: &UserId,
) -> Result<Profile, ApiError> {
    api.limit(Limit::InviteBySender, inviter)?;
    api.limit(Limit::InviteByReceiver, user)?;
    if user.server_name() == api.rooms.server_name() {
        let invites = api.accounts.invites(user.as_str()).await?;
        if invites.by(inviter) == InviteVerdict::Block {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "M_INVITE_BLOCKED",
                "The user doesn't take the invite",
            ));
        }
    }
    profile(api, user).await
}
