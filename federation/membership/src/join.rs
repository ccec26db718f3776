//! Joining a room through a server that is in it.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#joining-rooms>

use std::{collections::BTreeSet, iter::once, mem::take, time::Duration};

use comity_federation_client::{PeerError, TransportError, peers::Joined};
use comity_federation_receiver::Checked;
use comity_protocol::{
    event::{Event, Limits, Signed},
    id::{OwnedServerName, RoomId, ServerName, UserId},
};
use comity_rooms::{Entered, Entry, RoomError};
use comity_storage::Row;
use futures_util::{StreamExt, stream::FuturesUnordered};
use parking_lot::Mutex;
use serde_json::{Map, Value, value::RawValue};
use tokio::time::{sleep, timeout};

use crate::{
    OtherServers,
    handshake::sent,
    tables::Handed,
    template::{Intent, TemplateError},
    trouble::{NOBODY, Trouble},
};

/// How long all attempts together may take; the state of a large room takes its time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5 * 60);
/// A join is handed over so often: again when it isn't answered for that long, or so long after the connection broke.
const TRIES: usize = 3;
const ANSWERED: Duration = Duration::from_secs(100);
const BROKEN: Duration = Duration::from_secs(5);
/// Before it is handed over again where there was too much to do here to look at all that came.
const BUSY: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(10)];
/// How long a join waits for the members as well: the rooms that people mostly join are never seen without.
const GRACE: Duration = Duration::from_millis(500);
const MEMBER: &str = "m.room.member";
/// Servers taken to be in a room whose members haven't come, at the most.
const SERVERS: usize = 20_000;

/// The join that was handed over last.
struct Last {
    row: Row<Handed>,
    /// Nobody said what became of it.
    is_open: bool,
}

impl OtherServers {
    pub(crate) async fn join_via(
        &self,
        user: &UserId,
        room_id: &RoomId,
        via: &[OwnedServerName],
        content: Map<String, Value>,
    ) -> Result<(), RoomError> {
        let intent = Intent {
            user: user.to_owned(),
            room_id: room_id.to_owned(),
            membership: "join",
            content,
        };
        // Whoever waits for it may go away; by then a server may have made it part of the room, and all others
        // count us in whether we know it or not.
        let (this, via) = (self.clone(), via.to_vec());
        let joined = self.0.runtime.spawn("join", async move {
            // From here on others may count us in, whichever of the servers it goes by.
            let _entering = this.0.fetcher.entering.begin(&intent.room_id, &via);
            let last = Mutex::default();
            let attempt = |server| this.join_through(&intent, server, &last);
            let joined = this.through(&via, PATIENCE, attempt).await;
            match last.into_inner() {
                Some(last) if last.is_open && joined.is_err() => {
                    this.hand_over_later(intent, last.row);
                }
                Some(last) => this.forget(&intent, last.row.pos).await,
                None => {}
            }
            joined
        });
        joined.await.unwrap_or(Err(NOBODY))
    }

    /// Hands a join over, again where no answer comes, beside those that are still waited for, since a large room takes its time: the same
    /// event is the same join, and is answered again.
    async fn send_join(
        &self,
        server: &ServerName,
        room_id: &RoomId,
        join: &Signed,
    ) -> Result<Joined, Trouble> {
        let peers = &self.0.fetcher.peers;
        let (event_id, pdu) = sent(join)?;
        let ask = || peers.send_join(server, room_id, &event_id, &pdu, true);
        let mut asking = FuturesUnordered::from_iter([ask()]);
        let (mut tries, mut may_be_in) = (TRIES - 1, false);
        loop {
            let answer = asking.next();
            let answer = match tries {
                0 => answer.await,
                _ => match timeout(ANSWERED, answer).await {
                    Ok(answer) => answer,
                    Err(_) => {
                        tries -= 1;
                        asking.push(ask());
                        continue;
                    }
                },
            };
            match answer {
                Some(Ok(joined)) => return Ok(joined),
                Some(Err(error)) => {
                    may_be_in |= may_have_arrived(&error);
                    if !asking.is_empty() {
                        continue;
                    }
                    if error.is_answer() || !may_be_in {
                        return Err(error.into());
                    }
                    if tries == 0 {
                        return Err(Trouble::Unanswered(error));
                    }
                    tries -= 1;
                    sleep(BROKEN).await;
                    asking.push(ask());
                }
                None => return Err(Trouble::Answer("there is none")),
            }
        }
    }

    async fn join_through(
        &self,
        intent: &Intent,
        server: OwnedServerName,
        last: &Mutex<Option<Last>>,
    ) -> Result<(), Trouble> {
        let peers = &self.0.fetcher.peers;
        let room_id = &intent.room_id;
        let made = peers.make_join(&server, room_id, &intent.user).await?;
        let content = serde_json::to_string(&intent.content);
        let handed = Handed {
            room_id: room_id.to_string(),
            content: content.map_err(|_| TemplateError::Form)?,
            server: server.to_string(),
            version: made.room_version,
            template: made.event.get().to_owned(),
            made_at: self.0.runtime.clock().now_ms(),
            opaque_id: self.0.runtime.random().alphanumeric(18),
        };
        let join = self.join_of(intent, &handed)?;
        let pos = self.note(intent, &handed).await.map_err(Trouble::Ours)?;
        let row = Row { pos, value: handed };
        *last.lock() = Some(Last { row, is_open: true });
        let entered = self.enter_by(intent, server, join).await;
        let may_be_in = entered.as_ref().is_err_and(Trouble::may_be_in);
        if let Some(last) = last.lock().as_mut() {
            last.is_open = may_be_in;
        }
        entered
    }

    /// Hands a join over and enters the room by what comes back.
    pub(crate) async fn enter_by(
        &self,
        intent: &Intent,
        server: OwnedServerName,
        join: Signed,
    ) -> Result<(), Trouble> {
        let room_id = &intent.room_id;
        let version = join.event().version();
        let checks = &self.0.fetcher.checks;
        let mut waits = BUSY.into_iter();
        let (answer, state, auth_chain) = loop {
            let mut answer = self.send_join(&server, room_id, &join).await?;
            let (state, auth_chain) = (take(&mut answer.state), take(&mut answer.auth_chain));
            let state = checks.checked(version, room_id, Limits::Past, state).await;
            let auth_chain = checks.checked(version, room_id, Limits::Past, auth_chain);
            let auth_chain = auth_chain.await;
            if !state.is_busy && !auth_chain.is_busy {
                break (answer, state, auth_chain);
            }
            // What wasn't looked at would be missing for good. It isn't kept: it may be large, and the same event is answered again.
            drop((answer, state, auth_chain));
            let wait = waits.next();
            sleep(wait.ok_or(Trouble::Ours(RoomError::Incomplete))?).await;
        };
        let join = self
            .with_authorisers_signature(join, &server, answer.event)
            .await?;
        let unheard = self.awaited(&state.unheard).await?;
        let is_whole = unheard.is_empty() && self.awaited(&auth_chain.unheard).await?.is_empty();
        let named = match answer.members_omitted {
            true => answer.servers_in_room.unwrap_or_default(),
            false => servers_of(&state),
        };
        let unchecked = unheard.iter().filter(|event| event.event_type() != MEMBER);
        let unchecked = unchecked.map(|event| event.event_id().to_owned()).collect();
        let (state, auth_chain) = (state.signed, auth_chain.signed);
        let is_create = |event: &Event| event.is_state("m.room.create", "");
        // Nothing can be judged without it.
        if unheard.iter().any(is_create) {
            return Err(Trouble::Unchecked);
        }
        let create = state
            .iter()
            .map(Signed::event)
            .find(|event| is_create(event));
        let is_of_version = create.map(|create| {
            let named = create.content_string("room_version");
            named.as_deref().unwrap_or("1") == version.as_str()
        });
        if is_of_version != Some(true) {
            // Its members would be in another room than we are.
            return Err(Trouble::Answer(
                "the state has no m.room.create of this room",
            ));
        }
        // What can't be checked yet is waited for as members are that were left out.
        let omitted = (answer.members_omitted || !is_whole).then(|| {
            let us = intent.user.server_name();
            let named = named.into_iter();
            let named = named.filter(|named| *named != server && named != us);
            once(server.clone()).chain(named).take(SERVERS).collect()
        });
        let is_partial = omitted.is_some();
        let entry = Entry {
            version,
            join,
            state,
            auth_chain,
            omitted,
            unchecked,
        };
        let rooms = self.rooms().map_err(Trouble::Ours)?;
        match Box::pin(rooms.enter(room_id, entry)).await {
            Ok(Entered::Before(join)) => {
                let fetcher = &self.0.fetcher;
                let is_in = fetcher.bring_join(&rooms, room_id, &server, join).await;
                let is_in = is_in.map_err(Trouble::Ours)?;
                is_in.then_some(()).ok_or(Trouble::NotAllowed)
            }
            Ok(Entered::Placed(_)) => {
                if is_partial {
                    self.begin_completion(room_id.clone());
                    drop(timeout(GRACE, rooms.whole_view(room_id)).await);
                }
                Ok(())
            }
            Err(RoomError::Invalid(what)) => Err(Trouble::Answer(what)),
            Err(RoomError::Rejected(_)) => Err(Trouble::NotAllowed),
            Err(error) => Err(Trouble::Ours(error)),
        }
    }

    /// What of this may be checked later.
    async fn awaited(&self, unheard: &[(Event, OwnedServerName)]) -> Result<Vec<Event>, Trouble> {
        let mut awaited = Vec::new();
        for (event, server) in unheard {
            let server = BTreeSet::from([server.clone()]);
            let tells = self.0.fetcher.may_tell_keys(&server).await;
            if tells.map_err(|error| Trouble::Ours(error.into()))? {
                awaited.push(event.clone());
            }
        }
        Ok(awaited)
    }

    /// Our join with the signature of the server that authorises it, where one does.
    async fn with_authorisers_signature(
        &self,
        join: Signed,
        server: &ServerName,
        answered: Option<Box<RawValue>>,
    ) -> Result<Signed, Trouble> {
        let event = join.event();
        if event
            .content_member("join_authorised_via_users_server")
            .is_none()
        {
            return Ok(join);
        }
        let answered = answered.ok_or(Trouble::Answer("the join is not signed"))?;
        let checks = &self.0.fetcher.checks;
        // The template's authoriser is of this server.
        let signed = checks.countersigned(event, &answered, server).await;
        signed.ok_or(Trouble::Answer("the join is not signed by its authoriser"))
    }
}

/// Whether a request of which no answer came may have been done. What stands before a server may lose patience with it.
fn may_have_arrived(error: &PeerError) -> bool {
    match error {
        PeerError::Unreachable(error) => {
            matches!(error, TransportError::Broken(_) | TransportError::Timeout)
        }
        // 520 to 524 is what the most widespread of those says.
        PeerError::Refused(refusal) => matches!(refusal.status, 502 | 504 | 520..=524),
        _ => false,
    }
}

/// The servers that are in a room by its state, also by what of it can't be checked yet.
fn servers_of(state: &Checked) -> Vec<OwnedServerName> {
    let signed = state.signed.iter().map(Signed::event);
    let events = signed.chain(state.unheard.iter().map(|(event, _)| event));
    let joined = events.filter(|event| {
        let membership = event.content_string("membership");
        event.event_type() == MEMBER && membership.as_deref() == Some("join")
    });
    let servers: BTreeSet<OwnedServerName> = joined
        .filter_map(|event| <&UserId>::try_from(event.state_key()?).ok())
        .map(|user| user.server_name().to_owned())
        .collect();
    servers.into_iter().collect()
}
