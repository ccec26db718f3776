//! Events read back from their rows.

use comity_protocol::{event::Event, id::OwnedEventId, room_version::RoomVersion};
use comity_storage::{Reader, RoomKey};

use crate::{
    error::RoomError,
    num::EventNum,
    tables::{self, RoomNum},
};

/// The event with this number, in the form that is left of it.
pub(crate) async fn load(
    reader: &Reader,
    room: RoomKey,
    version: RoomVersion,
    num: EventNum,
) -> Result<Event, RoomError> {
    let at = RoomNum { room, num: num.0 };
    let body = reader
        .get::<tables::Bodies>(&at)
        .await?
        .ok_or(RoomError::UnknownEvent)?;
    parse(reader, room, version, num, body.value.json).await
}

/// An event whose body is at hand.
pub(crate) async fn parse(
    reader: &Reader,
    room: RoomKey,
    version: RoomVersion,
    num: EventNum,
    json: String,
) -> Result<Event, RoomError> {
    let at = RoomNum { room, num: num.0 };
    let header = reader
        .get::<tables::Headers>(&at)
        .await?
        .ok_or(RoomError::UnknownEvent)?;
    Ok(Event::from_stored(
        version,
        read_id(&header.value.event_id)?,
        json,
    )?)
}

/// An event id as rows hold it.
pub(crate) fn read_id(text: &str) -> Result<OwnedEventId, RoomError> {
    comity_protocol::id::event_id(text)
        .ok_or_else(|| RoomError::Damaged("a stored event id does not parse".into()))
}
