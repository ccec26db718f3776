//! The specification's own string formats
//! ([identifier grammar](https://spec.matrix.org/v1.19/appendices/#identifier-grammar)).

use jsonschema::ValidationOptions;

/// Teaches the validator the `mx-…` formats.
pub(super) fn register(options: ValidationOptions<'_>) -> ValidationOptions<'_> {
    options
        .with_format("mx-user-id", user_id)
        .with_format("mx-room-id", |id: &str| sigil(id, '!'))
        .with_format("mx-event-id", |id: &str| sigil(id, '$'))
        .with_format("mx-room-alias", |id: &str| named(id, '#'))
        .with_format("mx-server-name", server_name)
        .with_format("mx-mxc-uri", mxc_uri)
        .with_format("mx-unpadded-base64", |text: &str| base64(text, "+/"))
        .with_format("mx-urlsafe-unpadded-base64", |text: &str| {
            base64(text, "-_")
        })
}

fn user_id(id: &str) -> bool {
    named(id, '@')
}

/// A sigil and something behind it, in at most 255 bytes.
fn sigil(id: &str, sigil: char) -> bool {
    id.len() <= 255
        && id
            .strip_prefix(sigil)
            .is_some_and(|rest| !rest.is_empty() && !rest.contains('\0'))
}

/// A sigil, a local part, a colon, a server name.
fn named(id: &str, with: char) -> bool {
    sigil(id, with)
        && id
            .split_once(':')
            .is_some_and(|(_, server)| server_name(server))
}

/// A host name or address, and perhaps a port.
fn server_name(name: &str) -> bool {
    let (host, port) = match name.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, "")) => (address, None),
        Some((address, rest)) => (address, Some(rest.strip_prefix(':').unwrap_or("none"))),
        None => match name.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (name, None),
        },
    };
    let host_is_fine = if name.starts_with('[') {
        host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        !host.is_empty()
            && host
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
    };
    host_is_fine
        && port.is_none_or(|port| {
            (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit())
        })
}

fn mxc_uri(uri: &str) -> bool {
    let parts = uri
        .strip_prefix("mxc://")
        .and_then(|rest| rest.split_once('/'));
    parts.is_some_and(|(server, media)| {
        server_name(server)
            && !media.is_empty()
            && media
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    })
}

fn base64(text: &str, others: &str) -> bool {
    text.len() % 4 != 1
        && text
            .chars()
            .all(|char| char.is_ascii_alphanumeric() || others.contains(char))
}
