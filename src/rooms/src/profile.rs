//! The profile that a membership carries, and showing a new one in every room of its user.

use comity_protocol::{
    auth::Membership,
    id::{RoomId, UserId},
};
use comity_storage::{Batch, CommitError, Expect, Home, Range};
use serde_json::{Map, Value};

use crate::{
    error::RoomError,
    rooms::Rooms,
    tables::{NewProfile, NewProfiles, UserName},
};

/// How a user shows themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// `displayname`
    pub displayname: Option<String>,
    /// `avatar_url`
    pub avatar_url: Option<String>,
}

/// Writes what the server says into a member event's content, over what is there.
pub(crate) fn member_content(
    content: &mut Map<String, Value>,
    membership: &str,
    profile: Option<&Profile>,
    reason: Option<&str>,
) {
    for key in ["join_authorised_via_users_server", "third_party_invite"] {
        content.remove(key);
    }
    let mut put = |key: &str, value: Option<&str>| match value {
        Some(value) => drop(content.insert(key.to_owned(), value.into())),
        None => drop(content.remove(key)),
    };
    put("membership", Some(membership));
    put("reason", reason);
    put(
        "displayname",
        profile.and_then(|profile| profile.displayname.as_deref()),
    );
    put(
        "avatar_url",
        profile.and_then(|profile| profile.avatar_url.as_deref()),
    );
}

impl Rooms {
    /// What another server's user shows of themselves: all of it, or one field. Nothing of it is kept.
    ///
    /// <https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1queryprofile>
    ///
    /// # Errors
    /// [`RoomError::OtherServer`] where that server can't be asked or knows nothing of it;
    /// [`RoomError::Forbidden`] where it won't tell.
    pub async fn profile_elsewhere(
        &self,
        user: &UserId,
        field: Option<&str>,
    ) -> Result<Map<String, Value>, RoomError> {
        let elsewhere = self.elsewhere("other servers are not asked for profiles")?;
        elsewhere.profile(user, field).await
    }

    /// Writes down, in the batch that changes a user's profile, that it is still to be shown in their rooms:
    /// [`Rooms::show_profile`] does that, and [`Rooms::resume_profiles`] goes on with what a crash left.
    pub fn note_profile(&self, batch: &mut Batch, user: &UserId, profile: &Profile) {
        let note = NewProfile {
            displayname: profile.displayname.clone(),
            avatar_url: profile.avatar_url.clone(),
        };
        batch.put::<NewProfiles>(&user_name(user), &note);
    }

    /// Shows a user's noted profile, if there is one, in all rooms they have joined.
    ///
    /// Each room gets its member event, then the note is taken away. A room takes the profile that the
    /// note has *then*, and says nothing that it says already: of two changes at a time the later one
    /// wins everywhere, and doing it twice does nothing. It goes on when the caller stops waiting.
    ///
    /// # Errors
    /// A room could not be changed; then it is tried again at the next start.
    pub async fn show_profile(&self, user: &UserId) -> Result<(), RoomError> {
        let (rooms, user) = (self.clone(), user.to_owned());
        let shown = self
            .0
            .runtime
            .carry_on("profile", async move { rooms.show_noted(&user).await });
        shown
            .await
            .unwrap_or(Err(RoomError::Forbidden("the server is shutting down")))
    }

    /// Goes on with the profiles that were to be shown when the server last stopped.
    ///
    /// # Errors
    /// The first that could not be shown; call again.
    pub async fn resume_profiles(&self) -> Result<(), RoomError> {
        let range = Range::everywhere(|_| {});
        let notes = self.tenant().reader().scan::<NewProfiles>(range).await?;
        for (key, _) in notes {
            if let Ok(user) = <&UserId>::try_from(key.user.as_str()) {
                self.show_noted(user).await?;
            }
        }
        Ok(())
    }

    async fn show_noted(&self, user: &UserId) -> Result<(), RoomError> {
        let writer = self.tenant().lane(Home::User(user.as_str())).clone();
        let key = user_name(user);
        while let Some(note) = writer.reader().get::<NewProfiles>(&key).await? {
            for room_id in self.rooms_with(user, Membership::Join).await? {
                self.show_profile_in(user, &room_id).await?;
            }
            let mut batch = writer.batch();
            batch
                .expect::<NewProfiles>(&key, Expect::At(note.pos))
                .delete::<NewProfiles>(&key);
            match writer.commit(batch).await {
                // There is a newer one.
                Err(CommitError::Conflict(_)) => {}
                other => return Ok(other.map(drop)?),
            }
        }
        Ok(())
    }

    async fn show_profile_in(&self, user: &UserId, room_id: &RoomId) -> Result<(), RoomError> {
        let mut change = self.change(room_id).await?;
        let writer = self.tenant().lane(Home::User(user.as_str()));
        let note = writer.reader().get::<NewProfiles>(&user_name(user)).await?;
        let Some(note) = note.map(|row| row.value) else {
            return Ok(());
        };
        if change.membership(user).await? != Membership::Join {
            return Ok(());
        }
        let Some(event) = change.state_event("m.room.member", user.as_str()).await? else {
            return Ok(());
        };
        let mut content = event.content_as::<Map<String, Value>>().unwrap_or_default();
        let profile = Profile {
            displayname: note.displayname,
            avatar_url: note.avatar_url,
        };
        member_content(&mut content, "join", Some(&profile), None);
        match change.set_member(user, user, &content).await {
            // The room doesn't take it; the others still can.
            Err(
                RoomError::Rejected(_)
                | RoomError::NotRecommended(_)
                | RoomError::PolicyServerSilent
                | RoomError::LimitExceeded { .. },
            ) => Ok(()),
            other => other.map(drop),
        }
    }
}

fn user_name(user: &UserId) -> UserName {
    let user = user.to_string();
    UserName { user }
}
