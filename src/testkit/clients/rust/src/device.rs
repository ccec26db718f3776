//! A user's device by matrix-rust-sdk, and how to wait for what it is to see.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use matrix_sdk::config::{RequestConfig, SyncSettings};
use matrix_sdk::room::Receipts;
use matrix_sdk::ruma::api::client::account::register::v3::Request as Register;
use matrix_sdk::ruma::api::client::uiaa::{AuthData, Dummy};
use matrix_sdk::ruma::events::room::message::RoomMessageEventContent;
use matrix_sdk::ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId};
use matrix_sdk::{Client, ClientBuilder, Room};
use serde_json::Value;
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_secs(30);

/// A client and what its syncs brought of the room.
pub struct Device {
    pub client: Client,
    pub room: OwnedRoomId,
    pub timeline: Vec<Value>,
}

/// A client of the server that a variable names.
pub fn client(server: &str) -> Result<ClientBuilder> {
    let url = std::env::var(server).with_context(|| server.to_owned())?;
    // A refusal is an answer here; nothing is tried twice behind our back.
    let config = RequestConfig::new()
        .disable_retry()
        .timeout(Duration::from_secs(60));
    Ok(Client::builder().homeserver_url(url).request_config(config))
}

pub async fn sign_up(client: ClientBuilder, name: &str, password: &str) -> Result<Client> {
    let client = client.build().await?;
    let mut request = Register::new();
    request.username = Some(name.to_owned());
    request.password = Some(password.to_owned());
    request.auth = Some(AuthData::Dummy(Dummy::new()));
    client.matrix_auth().register(request).await?;
    Ok(client)
}

pub async fn log_in(client: ClientBuilder, name: &str, password: &str) -> Result<Client> {
    let client = client.build().await?;
    client
        .matrix_auth()
        .login_username(name, password)
        .send()
        .await?;
    Ok(client)
}

/// What tells the users of this run from those of others.
pub fn unique() -> Result<String> {
    let start = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_nanos();
    Ok(format!("rs-{start}-{}", std::process::id()))
}

impl Device {
    pub fn new(client: Client, room: &RoomId) -> Self {
        Self {
            client,
            room: room.to_owned(),
            timeline: Vec::new(),
        }
    }

    pub fn room(&self) -> Result<Room> {
        self.client
            .get_room(&self.room)
            .context("the room is not there")
    }

    pub async fn sync(&mut self, timeout: Duration) -> Result<()> {
        let mut answer = self
            .client
            .sync_once(SyncSettings::new().timeout(timeout))
            .await?;
        if let Some(joined) = answer.rooms.joined.remove(&self.room) {
            for event in joined.timeline.events {
                self.timeline.push(event.raw().deserialize_as()?);
            }
        }
        Ok(())
    }

    /// Syncs until `found` gives something: what it waits for wakes the sync.
    pub async fn until<T>(
        &mut self,
        what: &str,
        found: impl AsyncFn(&Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(value) = found(self).await? {
                return Ok(value);
            }
            ensure!(Instant::now() < end, "waited in vain: {what}");
            self.sync(Duration::from_secs(5)).await?;
        }
    }

    pub async fn sees(&mut self, id: &EventId) -> Result<Value> {
        let what = format!("event {id}");
        self.until(&what, async |device| {
            Ok(device
                .timeline
                .iter()
                .find(|event| event["event_id"] == id.as_str())
                .cloned())
        })
        .await
    }

    pub async fn counts(&mut self, notifications: u64, highlights: u64) -> Result<()> {
        let what = format!("{notifications} notifications, {highlights} highlights");
        self.until(&what, async |device| {
            let counts = device.room()?.unread_notification_counts();
            Ok(
                (counts.notification_count == notifications
                    && counts.highlight_count == highlights)
                    .then_some(()),
            )
        })
        .await
    }

    pub async fn say(&self, body: &str) -> Result<OwnedEventId> {
        Ok(self
            .room()?
            .send(RoomMessageEventContent::text_plain(body))
            .await?
            .event_id)
    }

    /// Fetches the event as it is now.
    pub async fn fetch(&self, id: &EventId) -> Result<Value> {
        Ok(self.room()?.event(id, None).await?.raw().deserialize_as()?)
    }

    pub async fn read(&self, id: &EventId) -> Result<()> {
        let receipts = Receipts::new()
            .public_read_receipt(id.to_owned())
            .fully_read_marker(id.to_owned());
        Ok(self.room()?.send_multiple_receipts(receipts).await?)
    }
}
