//! The specification's own string formats, judged by the server's identifiers
//! ([grammar](https://spec.matrix.org/v1.19/appendices/#identifier-grammar)).

use comity_protocol::id;
use jsonschema::ValidationOptions;

/// Teaches the validator the `mx-…` formats.
pub(super) fn register(options: ValidationOptions<'_>) -> ValidationOptions<'_> {
    options
        .with_format("mx-user-id", |text: &str| {
            id::UserId::parse(text).is_ok_and(|user| id::is_compliant(&user))
        })
        .with_format("mx-room-id", |text: &str| id::RoomId::parse(text).is_ok())
        .with_format("mx-event-id", |text: &str| id::event_id(text).is_some())
        .with_format("mx-room-alias", |text: &str| {
            id::RoomAliasId::parse(text).is_ok()
        })
        .with_format("mx-server-name", |text: &str| {
            id::ServerName::parse(text).is_ok()
        })
        .with_format("mx-mxc-uri", |text: &str| {
            <&id::MxcUri>::from(text).is_valid()
        })
        .with_format("mx-unpadded-base64", |text: &str| is_base64(text, "+/"))
        .with_format("mx-urlsafe-unpadded-base64", |text: &str| {
            is_base64(text, "-_")
        })
}

/// Letters, digits and `others`, in a number that whole bytes have.
fn is_base64(text: &str, others: &str) -> bool {
    text.len() % 4 != 1
        && text
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || others.contains(char))
}
