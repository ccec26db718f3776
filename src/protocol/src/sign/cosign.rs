//! Other servers' events that we vouch for with a signature of our own: an invite for our user,
//! and a join that our user authorises.
//!
//! Each is compared with what we mean to vouch for, in all that the signature would say (law 9);
//! what differs is not signed. The signatures that are there stay.

use std::collections::BTreeSet;

use crate::event::{Event, Signed, WellFormed};
use crate::id::{OwnedServerName, RoomId, ServerName, UserId};

use super::event::verify_signers;
use super::{KeyRing, SignatureError, SigningKey, required_signers, signed_part, with_signature};

/// The invite that we mean to accept delivery of.
#[derive(Clone, Copy, Debug)]
pub struct InviteIntent<'a> {
    /// The room that the request named.
    pub room: &'a RoomId,
    /// The server that asks.
    pub origin: &'a ServerName,
    /// Our user.
    pub invitee: &'a UserId,
}

/// The restricted join that we mean to authorise.
#[derive(Clone, Copy, Debug)]
pub struct JoinIntent<'a> {
    /// The room.
    pub room: &'a RoomId,
    /// The server that asks, whose user joins.
    pub origin: &'a ServerName,
    /// Our user, who may invite.
    pub authoriser: &'a UserId,
}

/// Why an event isn't signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CosignError {
    /// It isn't what we mean to sign; names the member that differs.
    #[error("not what was asked for: {0} differs")]
    Differs(&'static str),
    /// The servers that had to sign before us haven't.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// With our signature it is no event any more: too large, or its signatures are malformed.
    #[error("can't be signed in this form")]
    Form,
}

impl SigningKey {
    /// Signs an invite of another server's user for a user of `server`, ours.
    ///
    /// # Errors
    /// The event is something else than that invite. Nothing is signed (threat C1).
    ///
    /// See <https://spec.matrix.org/v1.19/server-server-api/#inviting-to-a-room>.
    pub fn cosign_invite(
        &self,
        server: &ServerName,
        intent: InviteIntent<'_>,
        invite: &Signed,
    ) -> Result<Signed, CosignError> {
        let event = invite.event();
        must("invitee", intent.invitee.server_name() == server)?;
        must("room_id", event.room_id() == intent.room)?;
        must(
            "state_key",
            event.is_state("m.room.member", intent.invitee.as_str()),
        )?;
        must(
            "membership",
            event.content_string("membership").as_deref() == Some("invite"),
        )?;
        must("sender", event.sender().server_name() == intent.origin)?;
        self.add_to(server, event)
    }

    /// Checks the signatures of a restricted join and adds ours, `server`'s, as its authoriser's.
    /// That our user may indeed authorise it is for the caller to know.
    ///
    /// # Errors
    /// The event is something else than that join, others have to sign it first, or its content
    /// isn't what its server hashed. Nothing is signed.
    ///
    /// See <https://spec.matrix.org/v1.19/server-server-api/#restricted-rooms>.
    pub fn cosign_join(
        &self,
        server: &ServerName,
        intent: JoinIntent<'_>,
        join: &WellFormed,
        keys: &impl KeyRing,
    ) -> Result<Signed, CosignError> {
        let event = join.event();
        let authoriser = event.content_string("join_authorised_via_users_server");
        must("authoriser", intent.authoriser.server_name() == server)?;
        must("room_id", event.room_id() == intent.room)?;
        must(
            "state_key",
            event.is_state("m.room.member", event.sender().as_str()),
        )?;
        must(
            "membership",
            event.content_string("membership").as_deref() == Some("join"),
        )?;
        must("sender", event.sender().server_name() == intent.origin)?;
        must(
            "join_authorised_via_users_server",
            event.rules().restricted && authoriser.as_deref() == Some(intent.authoriser.as_str()),
        )?;
        must("hashes", event.content_hash_matches())?;
        let mut others: BTreeSet<OwnedServerName> = required_signers(event)?;
        others.remove(server);
        verify_signers(event, &others, keys)?;
        self.add_to(server, event)
    }

    fn add_to(&self, server: &ServerName, event: &Event) -> Result<Signed, CosignError> {
        let signature = self.sign(signed_part(event).as_bytes());
        let json = with_signature(event.json(), server, self.key_id(), &signature)
            .map_err(|_| CosignError::Form)?;
        Event::from_stored(event.version(), event.event_id().to_owned(), json)
            .map(Signed::new)
            .map_err(|_| CosignError::Form)
    }
}

fn must(member: &'static str, holds: bool) -> Result<(), CosignError> {
    if holds {
        Ok(())
    } else {
        Err(CosignError::Differs(member))
    }
}
