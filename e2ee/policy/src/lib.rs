//! Encryption as a room mode (R20.1): what a server lets its own users send.
//!
//! A tenant has a mode for all its rooms, by configuration; a room may have one of its own, as state ([`MODE_EVENT`]). The two give
//! a [`Policy`]: whether this server's users may encrypt in the room, and whether they must. All of it is a function of what it is
//! given; events of other servers are never judged by it, since every server has to come to the same room.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Serialize, de::IgnoredAny};

/// The state event, with an empty state key, by which a room has a mode of its own: `{"mode": "required"}`. Of a required room it can't
/// be taken back.
pub const MODE_EVENT: &str = "org.comity.room.encryption_mode";
/// The state event that turns encryption on.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#mroomencryption>
pub const ENCRYPTION_EVENT: &str = "m.room.encryption";
/// The algorithm of rooms that are encrypted without anybody having said how, and the one that counts where encryption is required: of
/// others nobody knows that they encrypt.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#mmegolmv1aes-sha2>
pub const ALGORITHM: &str = "m.megolm.v1.aes-sha2";
/// Message events that say nothing of what is written, and that clients send in the clear in encrypted rooms too, since servers act on
/// them: redactions take content away, reactions are counted.
const IN_THE_CLEAR: [&str; 2] = ["m.room.redaction", "m.reaction"];

/// What is wanted of rooms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Nobody of this server encrypts.
    Forbidden,
    /// Whoever may turn encryption on decides.
    #[default]
    Allowed,
    /// As `allowed`; new rooms begin encrypted, but for public ones.
    Default,
    /// New rooms begin encrypted, and nobody of this server sends a message in the clear.
    Required,
}

impl Mode {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Forbidden => "forbidden",
            Self::Allowed => "allowed",
            Self::Default => "default",
            Self::Required => "required",
        }
    }

    /// Whether this server may look at pages that its users write of (R20.2): where all that is written is encrypted, an address to
    /// preview is a piece of it.
    pub fn lets_preview(self) -> bool {
        self != Self::Required
    }

    /// The mode that the content of a [`MODE_EVENT`] names. New rooms are no room's own business, so `default` is none.
    pub fn of_content(content: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Content {
            mode: Mode,
        }
        let content: Content = serde_json::from_str(content).ok()?;
        Some(content.mode).filter(|mode| *mode != Self::Default)
    }

    /// Whether a new room begins encrypted whose creator didn't say so. Spaces have no messages.
    pub fn encrypts_new(self, is_public: bool, is_space: bool) -> bool {
        match self {
            Self::Forbidden | Self::Allowed => false,
            Self::Default => !is_public && !is_space,
            Self::Required => !is_space,
        }
    }
}

/// What this server's users may and must do in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// They may encrypt.
    pub may: bool,
    /// They must.
    pub must: bool,
}

impl Policy {
    /// Of a room in a tenant, by the tenant's mode and the room's own.
    pub fn of(tenant: Mode, room: Option<Mode>) -> Self {
        let is = |mode| tenant == mode || room == Some(mode);
        Self {
            may: !is(Mode::Forbidden),
            must: is(Mode::Required),
        }
    }

    /// What it comes to, as a mode. Where the tenant forbids what the room requires, nothing can be sent.
    pub fn mode(self) -> Mode {
        match (self.may, self.must) {
            (_, true) => Mode::Required,
            (false, false) => Mode::Forbidden,
            (true, false) => Mode::Allowed,
        }
    }
}

/// How a room stands.
#[derive(Clone, Copy, Debug)]
pub struct Room<'a> {
    /// The mode of all rooms of the tenant.
    pub tenant: Mode,
    /// The room's own.
    pub own: Option<Mode>,
    /// The algorithm of its encryption, if it is on.
    pub algorithm: Option<&'a str>,
}

/// An event that a user of this server is about to send.
#[derive(Clone, Copy, Debug)]
pub struct Sent<'a> {
    /// `type`
    pub event_type: &'a str,
    /// `state_key`
    pub state_key: Option<&'a str>,
    /// `content`, as JSON.
    pub content: &'a str,
    /// Whether it redacts the room's current encryption or mode event.
    pub redacts_encryption: bool,
}

/// Why an event is refused. Its text is for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Encryption is not to be.
    Forbidden,
    /// It would be a message in the clear.
    Plaintext,
    /// Encryption would end, or be one that isn't known.
    Downgrade,
    /// The room can't have this mode.
    Mode,
}

impl Refusal {
    /// The text for clients.
    pub fn text(self) -> &'static str {
        match self {
            Self::Forbidden => "This server forbids encryption in this room",
            Self::Plaintext => "Messages have to be encrypted in this room",
            Self::Downgrade => "This room's encryption can't be changed or ended",
            Self::Mode => {
                "An encrypted room may require encryption, one that isn't may forbid it; the mode is forbidden, allowed or required"
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// Whether a user of this server may send the event, as far as encryption goes.
///
/// # Errors
/// Why not.
pub fn check(room: Room<'_>, sent: Sent<'_>) -> Result<(), Refusal> {
    let policy = Policy::of(room.tenant, room.own);
    match (sent.event_type, sent.state_key) {
        (ENCRYPTION_EVENT, Some("")) => {
            #[derive(Deserialize)]
            struct Content<'a> {
                #[serde(borrow)]
                algorithm: Cow<'a, str>,
            }
            let content: Option<Content<'_>> = serde_json::from_str(sent.content).ok();
            let algorithm = content.as_ref().map(|content| &*content.algorithm);
            if !policy.may {
                return Err(Refusal::Forbidden);
            }
            if policy.must && algorithm != Some(ALGORITHM) {
                return Err(Refusal::Downgrade);
            }
            Ok(())
        }
        (MODE_EVENT, Some("")) => match (Mode::of_content(sent.content), room.algorithm) {
            (next, _) if room.own == Some(Mode::Required) && next != Some(Mode::Required) => {
                Err(Refusal::Downgrade)
            }
            (Some(Mode::Required), Some(ALGORITHM))
            | (Some(Mode::Forbidden), None)
            | (Some(Mode::Allowed), _) => Ok(()),
            _ => Err(Refusal::Mode),
        },
        (_, Some(_)) => Ok(()),
        ("m.room.encrypted", None) if !policy.may => Err(Refusal::Forbidden),
        ("m.room.encrypted", None) if policy.must && !is_ciphertext(sent.content) => {
            Err(Refusal::Plaintext)
        }
        ("m.room.encrypted", None) => Ok(()),
        ("m.room.redaction", None) if policy.must && sent.redacts_encryption => {
            Err(Refusal::Downgrade)
        }
        (event_type, None) if policy.must && !IN_THE_CLEAR.contains(&event_type) => {
            Err(Refusal::Plaintext)
        }
        _ => Ok(()),
    }
}

/// Whether this is what encrypts a message, and says nothing beside it that is read as one.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#mroomencrypted>
fn is_ciphertext(content: &str) -> bool {
    #[derive(Deserialize)]
    struct Content<'a> {
        #[serde(borrow)]
        algorithm: Cow<'a, str>,
        #[serde(borrow)]
        ciphertext: Cow<'a, str>,
        body: Option<IgnoredAny>,
        formatted_body: Option<IgnoredAny>,
    }
    let content: Option<Content<'_>> = serde_json::from_str(content).ok();
    content.is_some_and(|content| {
        let says_nothing = content.body.is_none() && content.formatted_body.is_none();
        content.algorithm == ALGORITHM && !content.ciphertext.is_empty() && says_nothing
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Mode::{Allowed, Default, Forbidden, Required};

    const MEGOLM: &str = r#"{"algorithm":"m.megolm.v1.aes-sha2"}"#;

    fn room(tenant: Mode, own: Option<Mode>, encrypted: bool) -> Room<'static> {
        Room {
            tenant,
            own,
            algorithm: encrypted.then_some(ALGORITHM),
        }
    }

    const CIPHERTEXT: &str = r#"{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"AwgA"}"#;

    fn message(event_type: &str) -> Sent<'_> {
        Sent {
            event_type,
            state_key: None,
            content: CIPHERTEXT,
            redacts_encryption: false,
        }
    }

    fn state<'a>(event_type: &'a str, content: &'a str) -> Sent<'a> {
        Sent {
            state_key: Some(""),
            content,
            ..message(event_type)
        }
    }

    /// R20.1: who may and must encrypt, by both modes; the stricter counts.
    #[test]
    fn r20_1_messages_by_mode() {
        for (tenant, own, encrypted, plain) in [
            (Allowed, None, true, true),
            (Default, None, true, true),
            (Allowed, Some(Allowed), true, true),
            (Forbidden, None, false, true),
            (Forbidden, Some(Allowed), false, true),
            (Allowed, Some(Forbidden), false, true),
            (Required, None, true, false),
            (Required, Some(Allowed), true, false),
            (Default, Some(Required), true, false),
            (Forbidden, Some(Required), false, false),
        ] {
            let room = room(tenant, own, true);
            let may = |event_type| check(room, message(event_type)).is_ok();
            let what = format!("{tenant:?} {own:?}");
            assert_eq!(may("m.room.encrypted"), encrypted, "{what}");
            for event_type in [
                "m.room.message",
                "m.sticker",
                "m.call.invite",
                "org.example.any",
            ] {
                assert_eq!(may(event_type), plain, "{what}");
            }
            for event_type in ["m.room.redaction", "m.reaction"] {
                assert!(may(event_type), "{what}");
            }
            let topic = state("m.room.topic", r#"{"topic":"in the clear"}"#);
            assert_eq!(check(room, topic), Ok(()), "{what}");
        }
    }

    /// R20.1: what is sent as ciphertext is some, and nothing can be read beside it.
    #[test]
    fn r20_1_ciphertext_by_its_content() {
        for (content, expected) in [
            (CIPHERTEXT, Ok(())),
            (
                r#"{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"AwgA","m.relates_to":{},"session_id":"s"}"#,
                Ok(()),
            ),
            ("{}", Err(Refusal::Plaintext)),
            (r#"{"body":"in the clear"}"#, Err(Refusal::Plaintext)),
            (
                r#"{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":""}"#,
                Err(Refusal::Plaintext),
            ),
            (
                r#"{"algorithm":"org.example.rot13","ciphertext":"va gur pyrne"}"#,
                Err(Refusal::Plaintext),
            ),
            (
                r#"{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"AwgA","body":"in the clear"}"#,
                Err(Refusal::Plaintext),
            ),
            (
                r#"{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"AwgA","formatted_body":"in the clear"}"#,
                Err(Refusal::Plaintext),
            ),
        ] {
            let sent = Sent {
                content,
                ..message("m.room.encrypted")
            };
            assert_eq!(
                check(room(Required, None, true), sent),
                expected,
                "{content}"
            );
            assert_eq!(check(room(Allowed, None, true), sent), Ok(()), "{content}");
        }
    }

    /// R20.1: encryption that is required is neither ended, nor changed, nor redacted.
    #[test]
    fn r20_1_no_downgrade() {
        let other = r#"{"algorithm":"org.example.rot13"}"#;
        let rotated = r#"{"algorithm":"m.megolm.v1.aes-sha2","rotation_period_msgs":10}"#;
        for (now, content, expected) in [
            (room(Required, None, true), MEGOLM, Ok(())),
            (room(Required, None, true), rotated, Ok(())),
            (room(Required, None, true), other, Err(Refusal::Downgrade)),
            (room(Required, None, true), "{}", Err(Refusal::Downgrade)),
            (
                room(Required, None, true),
                r#"{"algorithm":1}"#,
                Err(Refusal::Downgrade),
            ),
            (room(Required, None, false), MEGOLM, Ok(())),
            (room(Required, None, false), "{}", Err(Refusal::Downgrade)),
            (room(Required, None, false), other, Err(Refusal::Downgrade)),
            (room(Allowed, None, false), other, Ok(())),
            (
                room(Allowed, Some(Required), true),
                "{}",
                Err(Refusal::Downgrade),
            ),
            (room(Allowed, None, true), "{}", Ok(())),
            (
                room(Forbidden, None, false),
                MEGOLM,
                Err(Refusal::Forbidden),
            ),
            (
                room(Allowed, Some(Forbidden), false),
                MEGOLM,
                Err(Refusal::Forbidden),
            ),
        ] {
            assert_eq!(
                check(now, state(ENCRYPTION_EVENT, content)),
                expected,
                "{now:?} {content}"
            );
        }
        let redaction = Sent {
            redacts_encryption: true,
            ..message("m.room.redaction")
        };
        assert_eq!(
            check(room(Required, None, true), redaction),
            Err(Refusal::Downgrade)
        );
        assert_eq!(check(room(Allowed, None, true), redaction), Ok(()));
    }

    /// R20.1: a room's own mode; what it requires it requires for good.
    #[test]
    fn r20_1_a_rooms_own_mode() {
        let mode = |mode| format!(r#"{{"mode":"{mode}"}}"#);
        for (own, encrypted, next, expected) in [
            (None, true, "required", Ok(())),
            (None, false, "required", Err(Refusal::Mode)),
            (None, false, "forbidden", Ok(())),
            (None, true, "forbidden", Err(Refusal::Mode)),
            (None, true, "default", Err(Refusal::Mode)),
            (None, true, "nonsense", Err(Refusal::Mode)),
            (Some(Forbidden), false, "allowed", Ok(())),
            (Some(Required), true, "required", Ok(())),
            (Some(Required), true, "allowed", Err(Refusal::Downgrade)),
            (Some(Required), true, "forbidden", Err(Refusal::Downgrade)),
        ] {
            let sent = mode(next);
            let outcome = check(room(Allowed, own, encrypted), state(MODE_EVENT, &sent));
            assert_eq!(outcome, expected, "{own:?} {encrypted} {next}");
        }
    }

    /// R20.1: new rooms follow the tenant's mode.
    #[test]
    fn r20_1_new_rooms() {
        for (mode, private, public, space) in [
            (Forbidden, false, false, false),
            (Allowed, false, false, false),
            (Default, true, false, false),
            (Required, true, true, false),
        ] {
            assert_eq!(mode.encrypts_new(false, false), private);
            assert_eq!(mode.encrypts_new(true, false), public);
            assert_eq!(mode.encrypts_new(false, true), space);
        }
    }
}
