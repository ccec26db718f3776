//! From the log to the queues: who is to hear of what.
//!
//! An event of ours, or one that we took in for its server (a join, leave or knock handed to us), goes
//! to the servers in the room before or after it; whoever is kicked or banned, or whose invite is taken
//! back, hears of it even so. A receipt goes to the servers in the room now (threat E7).

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use comity_keys::{KeysError, ListChanged};
use comity_protocol::{
    auth::Membership,
    id::{OwnedServerName, RoomId, ServerName, UserId},
};
use comity_rooms::{
    Found, ReceiptKind, RoomError, RoomView, Span, log, num::EventNum, state::AnyRoot, tables::Mode,
};
use comity_storage::{Follower, Logged, Record};

use crate::{
    Held, Inner,
    alone::Alone,
    queue::{Due, Queue},
};

/// Before the log is read again after it couldn't be.
const AGAIN: Duration = Duration::from_secs(1);
/// Events that a server hears of a room in which it was found to be only later.
const CAUGHT_UP: usize = 50;

/// Follows the log as long as there is a sender.
pub(crate) async fn follow(held: Held, mut log: Follower) {
    let mut alone = Alone::default();
    loop {
        let commits = match log.next().await {
            Ok(commits) => commits,
            Err(error) => {
                tracing::warn!(%error, "the log can't be read");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        let Some(inner) = held.upgrade() else { return };
        for logged in commits {
            for record in &logged.records {
                // Nothing is stepped over: what can't be read now is read again.
                while let Err(error) = inner.dispatch(&logged, record, &mut alone).await {
                    tracing::warn!(%error, "an event can't be dispatched yet");
                    tokio::time::sleep(AGAIN).await;
                    // Nobody else has it any more.
                    if held.strong_count() <= 1 {
                        return;
                    }
                }
            }
            let mut dispatched = inner.dispatched.lock();
            *dispatched = dispatched.with(logged.lane, logged.pos);
        }
        *inner.dispatched.lock() = log.cursor().clone();
    }
}

impl Inner {
    async fn dispatch(
        self: &Arc<Self>,
        logged: &Logged,
        record: &Record,
        alone: &mut Alone,
    ) -> Result<(), RoomError> {
        if !matches!(record.kind, log::kind::PLACED | log::kind::RECEIPT) {
            alone.forget(&record.subject);
        }
        let dispatched = match record.kind {
            log::kind::PLACED => self.placed(logged, record, alone).await,
            log::kind::RELAYED => self.relayed(logged, record).await,
            log::kind::RECEIPT => self.receipt(logged, record).await,
            log::kind::COMPLETED => self.completed(logged, record).await,
            log::kind::ENTERED => {
                self.entered(record);
                Ok(())
            }
            comity_keys::LIST => self.list(logged, record).await,
            comity_to_device::log::OUTGOING => {
                self.messages(record);
                Ok(())
            }
            _ => return Ok(()),
        };
        match dispatched {
            // A room that was purged since; a record that will not be readable later either.
            Err(RoomError::UnknownRoom) => Ok(()),
            Err(error @ RoomError::Damaged(_)) => {
                tracing::error!(%error, "a record of the log is passed over");
                Ok(())
            }
            dispatched => dispatched,
        }
    }

    /// Rows wait for a server: its worker reads them.
    fn messages(self: &Arc<Self>, record: &Record) {
        if let Ok(server) = <&ServerName>::try_from(record.subject.as_str()) {
            self.put(server, Queue::messages);
        }
    }

    /// What servers were to be told of a room before we entered it anew isn't found from what comes.
    fn entered(&self, record: &Record) {
        if let Some(room_id) = room(&record.subject) {
            for destination in self.destinations() {
                destination.queue.lock().entered(room_id);
            }
        }
    }

    /// An event of ours, unless the room is ours alone: then the usual one costs no more.
    async fn placed(
        self: &Arc<Self>,
        logged: &Logged,
        record: &Record,
        alone: &mut Alone,
    ) -> Result<(), RoomError> {
        let placed: log::Placed = log::read(record)?;
        let (Some(sender), Some(room_id)) = (user(&placed.sender), room(&record.subject)) else {
            return Ok(());
        };
        let local = self.is_local(sender.server_name());
        if !local || placed.member.is_some() {
            alone.forget(&record.subject);
        }
        if !local || alone.holds(&record.subject) {
            return Ok(());
        }
        let view = self.rooms.view(room_id).await?;
        if placed
            .member
            .as_ref()
            .is_some_and(|(of, now)| of == sender.as_str() && now == "join")
        {
            self.introduce(logged, &view, sender, EventNum(placed.num))
                .await?;
        }
        // A join that follows what isn't here is the one by which we came in: who let us in makes it known.
        let (seq, place) = (placed.seq, (placed.seq, 0));
        if placed.member.is_some() && view.last_hole(seq - 1, place).await? == Some(seq) {
            return Ok(());
        }
        let servers = self.event(logged, &view, EventNum(placed.num)).await?;
        // Only who comes or goes could make it another's.
        if placed.member.is_none() && servers.iter().eq([self.rooms.server_name()]) {
            alone.add(&record.subject);
        }
        Ok(())
    }

    /// A list of ours changed: every server that shares a room with its user hears of it.
    async fn list(self: &Arc<Self>, logged: &Logged, record: &Record) -> Result<(), RoomError> {
        let (Some(user), Some(changed)) = (user(&record.subject), ListChanged::of(record)) else {
            return Ok(());
        };
        let says_nothing = changed.devices.is_empty() && !changed.cross_signing;
        if says_nothing || !self.is_local(user.server_name()) {
            return Ok(());
        }
        let says_nothing = self.says_nothing(user, &changed).await.map_err(unread)?;
        let servers = self.servers_near(user, says_nothing).await?;
        self.tell_list(logged, user, &changed, servers);
        Ok(())
    }

    /// The servers that share a room with a user of ours, if need be one whose members are known.
    async fn servers_near(
        &self,
        user: &UserId,
        only_known: bool,
    ) -> Result<BTreeSet<OwnedServerName>, RoomError> {
        let mut servers = BTreeSet::new();
        for room_id in self.rooms.rooms_with(user, Membership::Join).await? {
            match self.rooms.view(&room_id).await {
                Ok(view) if only_known && is_partial(&view) => {}
                Ok(view) => servers.extend(view.servers().await?),
                // Purged since.
                Err(RoomError::UnknownRoom) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(servers)
    }

    /// Whether there is nothing of the list yet, and this adds nothing: somebody has signed in and has neither a name nor keys for
    /// their device.
    async fn says_nothing(&self, user: &UserId, changed: &ListChanged) -> Result<bool, KeysError> {
        if changed.cross_signing || self.has_keys(user).await? {
            return Ok(false);
        }
        for update in &changed.devices {
            let told = self.keys.update_of(user.as_str(), update).await?;
            let has = |key| told.get(key).is_some();
            let is_there = told.get("deleted") == Some(&false.into());
            if has("device_display_name") || has("keys") || !is_there {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a user of ours has anything by which others could encrypt for them.
    async fn has_keys(&self, user: &UserId) -> Result<bool, KeysError> {
        let list = self.keys.devices(user.as_str()).await?;
        Ok(list.is_some_and(|list| !list.is_empty()))
    }

    /// A user of ours came into a room: the servers there may not have heard of their devices. Where they are only said to be there,
    /// which may be thousands, nothing is told of who has no keys: to others such devices are none.
    async fn introduce(
        self: &Arc<Self>,
        logged: &Logged,
        view: &RoomView,
        user: &UserId,
        join: EventNum,
    ) -> Result<(), RoomError> {
        let Some(found) = view.load(&[join]).await?.pop() else {
            return Ok(());
        };
        if let Some(before) = found.root_before()?
            && let Some(was) = view
                .state_in(before, "m.room.member", user.as_str())
                .await?
            && was.event.content_string("membership").as_deref() == Some("join")
        {
            return Ok(());
        }
        if is_partial(view) && !self.has_keys(user).await.map_err(unread)? {
            return Ok(());
        }
        self.tell_latest(logged, user, view.servers().await?).await
    }

    async fn tell_latest(
        self: &Arc<Self>,
        logged: &Logged,
        user: &UserId,
        servers: impl IntoIterator<Item = OwnedServerName>,
    ) -> Result<(), RoomError> {
        let latest = self.keys.latest_update(user.as_str()).await;
        let latest = latest.map_err(unread)?;
        let changed = ListChanged {
            devices: latest.into_iter().collect(),
            ..ListChanged::default()
        };
        if !changed.devices.is_empty() {
            self.tell_list(logged, user, &changed, servers);
        }
        Ok(())
    }

    fn tell_list(
        self: &Arc<Self>,
        logged: &Logged,
        user: &UserId,
        changed: &ListChanged,
        servers: impl IntoIterator<Item = OwnedServerName>,
    ) {
        for server in servers {
            if !self.is_local(&server) {
                let at = (logged.lane, logged.pos);
                self.put(&server, |queue| {
                    queue.lists.put(user.to_owned(), changed, at)
                });
                self.touched.lock().insert(logged.lane);
            }
        }
    }

    async fn relayed(self: &Arc<Self>, logged: &Logged, record: &Record) -> Result<(), RoomError> {
        let relayed: log::Relayed = log::read(record)?;
        let Some(room_id) = room(&record.subject) else {
            return Ok(());
        };
        let view = self.rooms.view(room_id).await?;
        let told = self.event(logged, &view, EventNum(relayed.num)).await;
        told.map(drop)
    }

    /// Puts an event into the queues of those who are to hear of it; the servers that were in the room before or after it.
    async fn event(
        self: &Arc<Self>,
        logged: &Logged,
        view: &RoomView,
        num: EventNum,
    ) -> Result<BTreeSet<OwnedServerName>, RoomError> {
        let Some(found) = view.load(&[num]).await?.pop() else {
            return Ok(BTreeSet::new());
        };
        let mut servers = view.servers_around(&found).await?;
        let event = &found.event;
        let membership = event.content_string("membership");
        if event.event_type() == "m.room.member"
            && matches!(membership.as_deref(), Some("leave" | "ban"))
            && let Some(target) = event.state_key().and_then(user)
        {
            servers.insert(target.server_name().to_owned());
        }
        for server in &servers {
            // Whoever handed it to us has it.
            if self.is_local(server) || server == event.sender().server_name() {
                continue;
            }
            let due = Due {
                room_id: view.room_id().to_owned(),
                num: num.0,
                lane: logged.lane,
                pos: logged.pos,
                is_last: false,
            };
            self.put(server, |queue| queue.event(due));
            self.touched.lock().insert(logged.lane);
        }
        Ok(servers)
    }

    /// A room is known wholly now: whoever was in it all the time and wasn't known to be hears what we
    /// have said there, the latest of it; the rest they ask for. Our join too: who left them out needn't have made it known. And of the
    /// lists of our users there, whoever was in it at some time.
    async fn completed(
        self: &Arc<Self>,
        logged: &Logged,
        record: &Record,
    ) -> Result<(), RoomError> {
        let completed: log::Completed = log::read(record)?;
        let Some(room_id) = room(&record.subject) else {
            return Ok(());
        };
        let view = self.rooms.view(room_id).await?;
        let span = Span {
            after: Some((completed.join, -1)),
            ..Span::latest(CAUGHT_UP)
        };
        let (mut since, _) = view.timeline(span).await?;
        since.sort_by_key(Found::place);
        let told = |server: &OwnedServerName| {
            let told = completed.servers.iter().any(|told| told == server.as_str());
            told || self.is_local(server)
        };
        let mut were_in = BTreeSet::new();
        for found in &since {
            let is_ours = self.is_local(found.event.sender().server_name());
            if !is_ours && found.event.event_type() != "m.room.member" {
                continue;
            }
            let mut servers = view.servers_around(found).await?;
            servers.retain(|server| !told(server));
            if is_ours {
                for server in &servers {
                    let due = Due {
                        room_id: room_id.to_owned(),
                        num: found.num.0,
                        lane: logged.lane,
                        pos: logged.pos,
                        is_last: false,
                    };
                    self.put(server, |queue| queue.event(due));
                    self.touched.lock().insert(logged.lane);
                }
            }
            were_in.append(&mut servers);
        }
        let mut unknown: BTreeSet<_> = view.servers().await?.into_iter().collect();
        unknown.retain(|server| !told(server));
        were_in.retain(|server| !unknown.contains(server));
        if unknown.is_empty() && were_in.is_empty() {
            return Ok(());
        }
        let here = view.moved(AnyRoot::EMPTY, view.root()).await?.came;
        let ours = here.iter().filter_map(|id| user(id));
        for user in ours.filter(|user| self.is_local(user.server_name())) {
            let mut servers = unknown.clone();
            // Who has gone meanwhile may share another room since, and takes what it knows of the list for the latest.
            if !were_in.is_empty() {
                let near = self.servers_near(user, false).await?;
                servers.extend(were_in.intersection(&near).cloned());
            }
            self.tell_latest(logged, user, servers).await?;
        }
        Ok(())
    }

    async fn receipt(self: &Arc<Self>, logged: &Logged, record: &Record) -> Result<(), RoomError> {
        let moved: log::ReceiptMoved = log::read(record)?;
        let (Some(reader), Some(room_id)) = (user(&moved.user), room(&record.subject)) else {
            return Ok(());
        };
        if moved.private || !self.is_local(reader.server_name()) {
            return Ok(());
        }
        let servers = self.rooms.servers_in(room_id).await?;
        if servers.iter().all(|server| self.is_local(server)) {
            return Ok(());
        }
        let store = self.tenant.reader();
        let after = logged.pos.saturating_sub(1);
        let receipts = self
            .rooms
            .receipts_after(&store, room_id, after, reader)
            .await?;
        for receipt in receipts {
            // One that has moved again since is told by its own record.
            if receipt.user != reader || receipt.kind != ReceiptKind::Read {
                continue;
            }
            for server in servers.iter().filter(|server| !self.is_local(server)) {
                let (room_id, receipt) = (room_id.to_owned(), receipt.clone());
                self.put(server, |queue| queue.edus.receipt(room_id, receipt));
            }
        }
        Ok(())
    }
}

fn is_partial(view: &RoomView) -> bool {
    view.head().mode == Mode::Partial
}

fn unread(error: KeysError) -> RoomError {
    match error {
        KeysError::Read(error) => error.into(),
        error => RoomError::Damaged(error.to_string()),
    }
}

fn user(id: &str) -> Option<&UserId> {
    id.try_into().ok()
}

fn room(id: &str) -> Option<&RoomId> {
    id.try_into().ok()
}
