//! A backup's keys as an answer: written in portions while it is sent, for a backup may have hundreds of thousands.
//!
//! An error in the midst of it cuts the connection: whoever asked sees that the answer isn't whole.

use axum::{body::Body, response::Response};
use comity_key_backup::{BackupError, Pages, Session};
use comity_storage::{Damaged, ReadError};
use futures_util::stream;
use http::{HeaderValue, header::CONTENT_TYPE};
use serde::Serialize;
use serde_json::value::RawValue;

/// A session's key: `KeyBackupData`.
#[derive(Serialize)]
pub(super) struct Key {
    first_message_index: u64,
    forwarded_count: u64,
    is_verified: bool,
    session_data: Box<RawValue>,
}

impl Key {
    pub(super) fn of(session: &Session) -> Option<Self> {
        Some(Self {
            first_message_index: session.first_message_index,
            forwarded_count: session.forwarded_count,
            is_verified: session.is_verified,
            session_data: RawValue::from_string(session.session_data.clone()).ok()?,
        })
    }
}

/// `{"rooms": {room: {"sessions": {session: key}}}}`.
pub(super) fn rooms(pages: Pages) -> Response {
    answer(pages, true)
}

/// `{"sessions": {session: key}}`, of one room.
pub(super) fn sessions(pages: Pages) -> Response {
    answer(pages, false)
}

fn answer(pages: Pages, by_room: bool) -> Response {
    let writer = Writer {
        by_room,
        room: None,
    };
    let written = stream::try_unfold(Some((pages, writer)), |state| async move {
        let Some((mut pages, mut writer)) = state else {
            return Ok::<_, BackupError>(None);
        };
        let keys = pages.next().await.inspect_err(|cause| {
            tracing::error!(%cause, "an answer was cut short");
        })?;
        if keys.is_empty() {
            return Ok(Some((writer.end(), None)));
        }
        let mut text = String::new();
        for key in &keys {
            writer.write(key, &mut text).ok_or_else(|| {
                let damaged = Damaged("a stored key is no JSON");
                BackupError::Read(ReadError::Damaged(damaged))
            })?;
        }
        Ok(Some((text, Some((pages, writer)))))
    });
    let mut response = Response::new(Body::from_stream(written));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Where in the object the answer has come to.
struct Writer {
    by_room: bool,
    /// The room whose keys are being written; none before the first key.
    room: Option<String>,
}

impl Writer {
    fn write(&mut self, session: &Session, to: &mut String) -> Option<()> {
        match &self.room {
            Some(room) if !self.by_room || *room == session.room_id => to.push(','),
            before => {
                if self.by_room {
                    to.push_str(if before.is_none() {
                        r#"{"rooms":{"#
                    } else {
                        "}},"
                    });
                    to.push_str(&serde_json::to_string(&session.room_id).ok()?);
                    to.push(':');
                }
                to.push_str(r#"{"sessions":{"#);
                self.room = Some(session.room_id.clone());
            }
        }
        to.push_str(&serde_json::to_string(&session.session_id).ok()?);
        to.push(':');
        to.push_str(&serde_json::to_string(&Key::of(session)?).ok()?);
        Some(())
    }

    /// What closes what was opened.
    fn end(self) -> String {
        let text = match (self.room, self.by_room) {
            (Some(_), true) => "}}}}",
            (Some(_), false) => "}}",
            (None, true) => r#"{"rooms":{}}"#,
            (None, false) => r#"{"sessions":{}}"#,
        };
        text.to_owned()
    }
}
