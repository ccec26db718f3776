//! Who asks, by their access token.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens>

use axum::extract::{FromRequestParts, OptionalFromRequestParts, Query};
use comity_accounts::Authenticated;
use comity_protocol::id::{OwnedUserId, UserId};
use http::{
    StatusCode,
    header::{AUTHORIZATION, USER_AGENT},
    request::Parts,
};
use serde::Deserialize;

use super::address::address;
use crate::{Api, ApiError};

/// A signed-in user with an account. Guests are refused.
pub(crate) struct User {
    /// Their id.
    pub id: OwnedUserId,
    /// The device.
    pub device: String,
    /// Proof of it, and word of its end for whatever waits on the user's behalf.
    pub session: Authenticated,
}

/// A signed-in user, with an account or as a guest: where the specification's list of what guests may do has the endpoint
/// (<https://spec.matrix.org/v1.19/client-server-api/#guest-access>).
pub(crate) struct UserOrGuest(pub User);

/// Someone who wants to sign out, which users and guests may even while their account is locked.
pub(crate) struct SigningOut(pub User);

impl User {
    /// Refuses suspended users: they may read, leave and sign out, nothing that others see.
    ///
    /// <https://spec.matrix.org/v1.19/client-server-api/#account-suspension>
    pub(crate) fn may_act(&self) -> Result<(), ApiError> {
        if self.session.requester.suspended {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "M_USER_SUSPENDED",
                "Your account is suspended",
            ));
        }
        Ok(())
    }

    /// Whether this is a server administrator.
    pub(crate) fn is_admin(&self) -> bool {
        self.session.requester.admin
    }

    /// Refuses all but server administrators.
    pub(crate) fn must_be_admin(&self) -> Result<(), ApiError> {
        if self.is_admin() {
            return Ok(());
        }
        Err(ApiError::forbidden("You are not a server administrator"))
    }

    /// Refuses paths of other users than the one who asks.
    pub(crate) fn must_be(&self, user: &UserId) -> Result<(), ApiError> {
        if self.id == user {
            return Ok(());
        }
        Err(ApiError::forbidden("This belongs to another user"))
    }

    pub(crate) fn is_guest(&self) -> bool {
        self.session.requester.guest
    }
}

impl FromRequestParts<Api> for UserOrGuest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let session = api.accounts.authenticate(&needed_token(parts)?).await?;
        let agent = parts.headers.get(USER_AGENT);
        let agent = agent.and_then(|agent| agent.to_str().ok());
        api.accounts.saw(
            &session,
            &address(parts).to_string(),
            agent.unwrap_or_default(),
        );
        user(session).map(Self)
    }
}

/// Where nobody needs a token: whoever sends one is who it says, and it has to be good.
impl OptionalFromRequestParts<Api> for UserOrGuest {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Option<Self>, ApiError> {
        match token(parts) {
            Some(_) => {
                let user = <Self as FromRequestParts<Api>>::from_request_parts(parts, api);
                user.await.map(Some)
            }
            None => Ok(None),
        }
    }
}

impl FromRequestParts<Api> for SigningOut {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let token = needed_token(parts)?;
        user(api.accounts.authenticate_to_sign_out(&token).await?).map(Self)
    }
}

fn user(session: Authenticated) -> Result<User, ApiError> {
    let requester = &session.requester;
    let id = OwnedUserId::try_from(requester.user_id.as_str())
        .map_err(|_| ApiError::internal("an account's user id can't be read"))?;
    let device = requester.device_id.clone();
    Ok(User {
        id,
        device,
        session,
    })
}

fn needed_token(parts: &Parts) -> Result<String, ApiError> {
    token(parts).ok_or_else(|| {
        ApiError::new(
            StatusCode::UNAUTHORIZED,
            "M_MISSING_TOKEN",
            "An access token is needed",
        )
    })
}

impl FromRequestParts<Api> for User {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let asked = <UserOrGuest as FromRequestParts<Api>>::from_request_parts(parts, api);
        let UserOrGuest(user) = asked.await?;
        if user.is_guest() {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "M_GUEST_ACCESS_FORBIDDEN",
                "Guests can't do this",
            ));
        }
        Ok(user)
    }
}

/// The token of the `Authorization` header, or of the query as older clients send it.
fn token(parts: &Parts) -> Option<String> {
    #[derive(Deserialize)]
    struct InQuery {
        access_token: Option<String>,
    }

    let token = match parts.headers.get(AUTHORIZATION) {
        Some(header) => {
            let (scheme, token) = header.to_str().ok()?.split_once(' ')?;
            scheme
                .eq_ignore_ascii_case("bearer")
                .then(|| token.trim().to_owned())
        }
        None => Query::<InQuery>::try_from_uri(&parts.uri)
            .ok()
            .and_then(|Query(query)| query.access_token),
    };
    token.filter(|token| !token.is_empty())
}
