//! What joining, knocking and declining have in common: a template, its completion, its signature;
//! and one server after the other, until one lets it happen.

use std::{future::Future, time::Duration};

use comity_protocol::{
    event::{Signed, Unsigned},
    id::{OwnedEventId, OwnedServerName, ServerName},
};
use comity_rooms::RoomError;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use crate::{
    OtherServers,
    template::{Intent, TemplateError},
    trouble::{NOBODY, Trouble},
};

/// Servers asked for one operation.
const SERVERS: usize = 10;

impl OtherServers {
    /// Our event, signed, from what a server answered to `make_…`.
    pub(crate) fn complete(
        &self,
        intent: &Intent,
        version: Option<&str>,
        template: &RawValue,
        server: &OwnedServerName,
    ) -> Result<Signed, Trouble> {
        let version = intent.version(version)?;
        let random = self.0.runtime.random();
        let now = self.0.runtime.clock().now_ms();
        let opaque_id = random.alphanumeric(18);
        let unsigned = intent.complete(version, template, server, now, opaque_id)?;
        self.sign(intent, unsigned)
    }

    pub(crate) fn sign(&self, intent: &Intent, unsigned: Unsigned) -> Result<Signed, Trouble> {
        let us = intent.user.server_name();
        let signed = self.0.key.sign_event(us, unsigned);
        Ok(signed.map_err(TemplateError::from)?)
    }

    /// Tries one server after the other, for as long as `patience`. The first refusal that says
    /// something about the room is what the client is told, if none lets it happen.
    pub(crate) async fn through<T, F>(
        &self,
        via: &[OwnedServerName],
        patience: Duration,
        attempt: impl Fn(OwnedServerName) -> F,
    ) -> Result<T, RoomError>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        let until = Instant::now() + patience;
        let mut refusal = None;
        for server in servers(via, self.rooms()?.server_name()) {
            let trouble = match timeout_at(until, Box::pin(attempt(server.clone()))).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(trouble)) => trouble,
                Err(_) => break,
            };
            tracing::debug!(%server, %trouble, "another server could not help");
            match (trouble, &refusal) {
                (Trouble::Ours(error), _) => return Err(error),
                // That a server wants to be asked later says nothing of the room.
                (trouble, None | Some(RoomError::LimitExceeded { .. })) => {
                    refusal = trouble.refusal().or(refusal);
                }
                (_, Some(_)) => {}
            }
        }
        Err(refusal.unwrap_or(NOBODY))
    }
}

/// An event of ours as `send_…` carries it.
pub(crate) fn sent(event: &Signed) -> Result<(OwnedEventId, Box<RawValue>), Trouble> {
    let event = event.event();
    let json = RawValue::from_string(event.json().to_owned());
    let json = json.map_err(|_| Trouble::Answer("the event is no JSON"))?;
    Ok((event.event_id().to_owned(), json))
}

/// Those of `via` to ask: each once, and not ourselves.
fn servers(via: &[OwnedServerName], us: &ServerName) -> Vec<OwnedServerName> {
    let mut servers: Vec<OwnedServerName> = Vec::new();
    for server in via {
        if server != us && !servers.contains(server) && servers.len() < SERVERS {
            servers.push(server.clone());
        }
    }
    servers
}
