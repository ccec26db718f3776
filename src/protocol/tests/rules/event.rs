//! Events for tests, seen by our rules under numbers and by the oracle under event ids.

use comity_protocol::auth::AuthEvent;
use comity_protocol::id::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId};
use ruma_common::MilliSecondsSinceUnixEpoch;
use ruma_events::TimelineEventType;
use serde_json::value::RawValue;

/// How our rules name events here: like the room engine, by a number that says nothing.
pub type Num = u32;

#[derive(Clone, Debug)]
pub struct TestEvent {
    pub num: Num,
    pub event_id: OwnedEventId,
    pub room_id: OwnedRoomId,
    /// Whether it carries `room_id`; not so a create event of version 12.
    pub has_room_id: bool,
    pub event_type: String,
    pub ruma_type: TimelineEventType,
    pub state_key: Option<String>,
    pub sender: OwnedUserId,
    pub ts: i64,
    pub depth: u64,
    pub prev: Vec<Num>,
    pub prev_ids: Vec<OwnedEventId>,
    pub auth: Vec<Num>,
    pub auth_ids: Vec<OwnedEventId>,
    pub redacts: Option<OwnedEventId>,
    pub content: Box<RawValue>,
    pub rejected: bool,
}

impl TestEvent {
    pub fn key(&self) -> Option<(String, String)> {
        Some((self.event_type.clone(), self.state_key.clone()?))
    }
}

impl AuthEvent for TestEvent {
    type Id = Num;

    fn id(&self) -> Num {
        self.num
    }
    fn event_id(&self) -> &EventId {
        &self.event_id
    }
    fn room_id(&self) -> &RoomId {
        &self.room_id
    }
    fn event_type(&self) -> &str {
        &self.event_type
    }
    fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }
    fn sender(&self) -> &UserId {
        &self.sender
    }
    fn origin_server_ts(&self) -> i64 {
        self.ts
    }
    fn depth(&self) -> u64 {
        self.depth
    }
    fn prev_events(&self) -> &[Num] {
        &self.prev
    }
    fn auth_events(&self) -> &[Num] {
        &self.auth
    }
    fn redacts(&self) -> Option<&EventId> {
        self.redacts.as_deref()
    }
    fn content(&self) -> &str {
        self.content.get()
    }
}

impl ruma_state_res::Event for TestEvent {
    type Id = OwnedEventId;

    fn event_id(&self) -> &OwnedEventId {
        &self.event_id
    }
    fn room_id(&self) -> Option<&RoomId> {
        self.has_room_id.then_some(&*self.room_id)
    }
    fn sender(&self) -> &UserId {
        &self.sender
    }
    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(u32::try_from(self.ts).unwrap().into())
    }
    fn event_type(&self) -> &TimelineEventType {
        &self.ruma_type
    }
    fn content(&self) -> &RawValue {
        &self.content
    }
    fn state_key(&self) -> Option<&str> {
        self.state_key.as_deref()
    }
    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.prev_ids.iter())
    }
    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &OwnedEventId> + '_> {
        Box::new(self.auth_ids.iter())
    }
    fn redacts(&self) -> Option<&OwnedEventId> {
        self.redacts.as_ref()
    }
    fn rejected(&self) -> bool {
        self.rejected
    }
}
