//! Other servers' users: their devices and keys, and who stands behind an OpenID token.

use comity_protocol::id::{OwnedUserId, ServerName, UserId};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Call, PAGE, PeerError, Peers, SMALL};

#[derive(Deserialize)]
struct UserInfo {
    sub: OwnedUserId,
}

impl Peers {
    /// The answer is read as the caller likes, here and below.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn devices<A: DeserializeOwned>(
        &self,
        to: &ServerName,
        user: &UserId,
    ) -> Result<A, PeerError> {
        let path = ["federation", "v1", "user", "devices", user.as_str()];
        self.call(to, Call::get(&path, PAGE)).await
    }

    /// `request` is the body that the specification describes.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysquery>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn query_keys<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        to: &ServerName,
        request: &B,
    ) -> Result<A, PeerError> {
        let path = ["federation", "v1", "user", "keys", "query"];
        self.call(to, Call::post(&path, request, PAGE)?).await
    }

    /// `request` is the body that the specification describes.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#post_matrixfederationv1userkeysclaim>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn claim_keys<B: Serialize + Sync, A: DeserializeOwned>(
        &self,
        to: &ServerName,
        request: &B,
    ) -> Result<A, PeerError> {
        let path = ["federation", "v1", "user", "keys", "claim"];
        self.call(to, Call::post(&path, request, PAGE)?).await
    }

    /// Whose OpenID token it is: a user of the server that is asked, else the answer is none (threat B8).
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1openiduserinfo>
    ///
    /// # Errors
    /// [`PeerError`].
    pub async fn openid_user(
        &self,
        to: &ServerName,
        access_token: &str,
    ) -> Result<OwnedUserId, PeerError> {
        let path = ["federation", "v1", "openid", "userinfo"];
        let call = Call::get(&path, SMALL).query([("access_token", access_token.to_owned())]);
        let UserInfo { sub } = self.call(to, call.unsigned()).await?;
        if sub.server_name() == to {
            Ok(sub)
        } else {
            Err(PeerError::Malformed)
        }
    }
}
