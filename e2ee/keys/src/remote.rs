//! Keys of users of other servers: asked for, and kept as long as we are told of their changes.
//!
//! A list is kept complete by its server's updates while that server knows that we share a room with the user. So what was fetched
//! counts for whoever has been in a room with the user since before it was asked for; anybody else has it fetched, and it counts from
//! then. What comes meanwhile is a change of the list's row, on whose absence the fetched is kept: neither overtakes the other.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use comity_protocol::id::{OwnedServerName, OwnedUserId, ServerName, UserId};
use comity_storage::{Attempts, Expect, Heads, Row};
use futures_util::{
    future::try_join_all,
    stream::{self, StreamExt},
};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use crate::{
    Asked, Claimed, Elsewhere, Found, Keys, KeysError, Neighbours, PeerDevices, PeerKeys,
    Unreachable, Wanted,
    object::{
        CrossSigningKey, MAX_PEER_TEXT, Usage, device_keys_of_peer, display_name, name_of_peer,
    },
    query::{Rows, signed},
    tables::{
        CrossSigning, CrossSigningKeys, Device, DeviceKey, Devices, Lists, RemoteList, RemoteLists,
        Signature, Signatures, UserKey,
    },
};

/// Devices of a user of another server that we hear of at the most (threat F5).
pub(crate) const MAX_DEVICES: usize = 1_000;
/// The longest that an answer waits for other servers.
const LONGEST: Duration = Duration::from_secs(20);
/// Other servers that one request asks at the most; and at a time, for all that is asked elsewhere has the same connections.
const MAX_SERVERS: usize = 1_000;
const AT_ONCE: usize = 100;
/// How often a list is asked for that keeps changing meanwhile.
const RESYNCS: u32 = 4;

/// A server of which nothing could be learned.
#[derive(Debug, Serialize)]
pub struct Failure {
    /// As if it had answered with this HTTP status.
    pub status: u16,
    /// Why.
    pub message: String,
}

/// Servers of which nothing could be learned.
pub type Failures = BTreeMap<String, Failure>;

/// A user's keys as their server told them.
#[derive(Debug, Default)]
struct Fetched {
    devices: Vec<Device>,
    cross_signing: CrossSigning,
    stream_id: Option<u64>,
}

/// What was here before it was asked for.
struct Before {
    heads: Heads,
    list: Expect,
    remote: Expect,
}

impl Keys {
    /// Says how other servers are asked. Once only; until then they count as unreachable.
    pub fn use_elsewhere(&self, elsewhere: Arc<dyn Elsewhere>) {
        drop(self.0.elsewhere.set(elsewhere));
    }

    /// Says who knows the rooms. Once only; until then nobody shares one.
    pub fn use_neighbours(&self, neighbours: Arc<dyn Neighbours>) {
        drop(self.0.neighbours.set(neighbours));
    }

    pub(crate) fn elsewhere(&self) -> Result<&Arc<dyn Elsewhere>, Unreachable> {
        let elsewhere = self.0.elsewhere.get();
        elsewhere.ok_or_else(|| Unreachable("Other servers can't be asked".to_owned()))
    }

    /// The keys of users wherever they are, as `viewer` sees them, with the servers that gave no answer in that time.
    ///
    /// # Errors
    /// The store's.
    pub async fn query_all(
        &self,
        asked: &BTreeMap<OwnedUserId, Vec<String>>,
        viewer: &UserId,
        time: Duration,
    ) -> Result<(Found, Failures), KeysError> {
        let mut here = Asked::new();
        let mut there: BTreeMap<&ServerName, Vec<&UserId>> = BTreeMap::new();
        let others = asked.keys().map(|user| &**user);
        let others = others.filter(|user| !self.is_local(user));
        let known = self.known_to(viewer, others.collect()).await?;
        for (user, devices) in asked {
            let user: &UserId = user;
            if self.is_local(user) || known.contains(user) {
                here.insert(user.to_string(), devices.clone());
            } else {
                there.entry(user.server_name()).or_default().push(user);
            }
        }
        let mut found = self.query(&here, Some(viewer.as_str())).await?;
        let mut failures = too_many(&mut there);
        let until = Instant::now() + time.min(LONGEST);
        let mut fetches = Vec::with_capacity(there.len());
        for (server, users) in &there {
            fetches.push(self.fetch(until, server, users, viewer));
        }
        let fetches = all_of(fetches).await;
        for ((server, users), fetched) in there.into_iter().zip(fetches) {
            let mut fetched = match fetched? {
                Ok(fetched) => fetched,
                Err(why) => {
                    failures.insert(server.to_string(), why.into());
                    continue;
                }
            };
            for user in users {
                let Some(rows) = fetched.remove(user.as_str()) else {
                    continue;
                };
                let wanted = asked.get(user).map_or(&[][..], Vec::as_slice);
                let viewer = Some(viewer.as_str());
                found.add(user.as_str(), wanted, &rows, viewer);
            }
        }
        Ok((found, failures))
    }

    /// One-time keys of users wherever they are, with the servers that gave no answer in that time.
    ///
    /// # Errors
    /// The store's.
    pub async fn claim_all(
        &self,
        wanted: BTreeMap<OwnedUserId, BTreeMap<String, String>>,
        time: Duration,
    ) -> Result<(Claimed, Failures), KeysError> {
        let mut here = Wanted::new();
        let mut there: BTreeMap<OwnedServerName, Wanted> = BTreeMap::new();
        for (user, devices) in wanted {
            if self.is_local(&user) {
                here.insert(user.to_string(), devices);
            } else {
                let of_server = there.entry(user.server_name().to_owned()).or_default();
                of_server.insert(user.to_string(), devices);
            }
        }
        let mut failures = too_many(&mut there);
        let until = Instant::now() + time.min(LONGEST);
        let mut claims = Vec::with_capacity(there.len());
        for (server, wanted) in &there {
            claims.push(self.claim_in(until, server, wanted));
        }
        let (claimed, of_others) = futures_util::join!(self.claim(&here), all_of(claims));
        let mut claimed = claimed?;
        for ((server, wanted), of_server) in there.iter().zip(of_others) {
            match of_server {
                Ok(of_server) => claimed.extend(only(of_server, wanted)),
                Err(why) => _ = failures.insert(server.to_string(), why.into()),
            }
        }
        Ok((claimed, failures))
    }

    /// Claims at another server, until then.
    async fn claim_in(
        &self,
        until: Instant,
        server: &ServerName,
        wanted: &Wanted,
    ) -> Result<Claimed, Unreachable> {
        let claim = self.elsewhere()?.claim(server, wanted);
        in_time(until, claim).await
    }

    /// Those of these users of whom what is here counts for `viewer`.
    async fn known_to<'a>(
        &self,
        viewer: &UserId,
        users: Vec<&'a UserId>,
    ) -> Result<BTreeSet<&'a UserId>, KeysError> {
        let Some(neighbours) = self.0.neighbours.get() else {
            return Ok(BTreeSet::new());
        };
        let keys = users.iter().map(|user| UserKey(user.to_string()));
        let keys: Vec<UserKey> = keys.collect();
        let rows = self.0.tenant.reader();
        let rows = rows.get_many::<RemoteLists>(&keys).await?;
        let fresh = users.into_iter().zip(rows).filter_map(|(user, row)| {
            // Updates that came before the incarnation may be lost.
            let began_at = self.began_at(user.as_str());
            let row = row.filter(|row| row.value.fresh && row.pos > began_at)?;
            Some((user, Heads::new(row.value.asked_at)))
        });
        let fresh: Vec<(&UserId, Heads)> = fresh.collect();
        let near = neighbours.are_since(viewer, &fresh).await?;
        let kept = fresh.into_iter().zip(near).filter(|(_, near)| *near);
        Ok(kept.map(|((user, _), _)| user).collect())
    }

    /// What a server says of its users, if it does until then; it is kept for those whose changes we will be told of.
    async fn fetch(
        &self,
        until: Instant,
        server: &ServerName,
        users: &[&UserId],
        viewer: &UserId,
    ) -> Result<Result<BTreeMap<String, Rows>, Unreachable>, KeysError> {
        let before = users.iter().map(|user| self.before(user.as_str()));
        let before = try_join_all(before).await?;
        let elsewhere = match self.elsewhere() {
            Ok(elsewhere) => elsewhere,
            Err(why) => return Ok(Err(why)),
        };
        let names: Vec<&str> = users.iter().map(|user| user.as_str()).collect();
        let mut answer = match in_time(until, elsewhere.query(server, &names)).await {
            Ok(answer) => answer,
            Err(why) => return Ok(Err(why)),
        };
        let since = users.iter().zip(&before);
        let since = since.map(|(user, before)| (*user, before.heads.clone()));
        let near = match self.0.neighbours.get() {
            Some(neighbours) => {
                neighbours
                    .are_since(viewer, &since.collect::<Vec<_>>())
                    .await?
            }
            None => vec![false; users.len()],
        };
        let mut found = Vec::with_capacity(users.len());
        for ((user, before), near) in users.iter().zip(before).zip(near) {
            if let Some(fetched) = Fetched::of_query(user, &mut answer) {
                found.push(self.take(user, fetched, near.then_some(before), viewer));
            }
        }
        // Side by side, so that their commits go together.
        Ok(Ok(try_join_all(found).await?.into_iter().collect()))
    }

    /// What a server says of a user, as `viewer` sees it; it is kept where `before` says what was here.
    async fn take(
        &self,
        user: &UserId,
        fetched: Fetched,
        before: Option<Before>,
        viewer: &UserId,
    ) -> Result<(String, Rows), KeysError> {
        if let Some(before) = before {
            self.keep(user.as_str(), &fetched, &before).await?;
        }
        let rows = Rows {
            devices: fetched.devices,
            cross_signing: Some(fetched.cross_signing),
            signatures: self.signed_by(viewer.as_str(), user.as_str()).await?,
        };
        Ok((user.to_string(), rows))
    }

    /// Asks for a user's list as a whole, until it is complete; what fails is asked for again when it is wanted.
    pub(crate) fn resync(&self, user: OwnedUserId) {
        if !self.0.resyncing.lock().insert(user.to_string()) {
            return;
        }
        let keys = self.clone();
        let runtime = self.0.tenant.runtime().clone();
        drop(runtime.spawn("device list", async move {
            for _ in 0..RESYNCS {
                match keys.resync_once(&user).await {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(error) => {
                        tracing::debug!(%error, "a device list could not be asked for");
                        break;
                    }
                }
            }
            keys.0.resyncing.lock().remove(user.as_str());
        }));
    }

    /// Whether the list is complete now, or nobody's to follow.
    async fn resync_once(&self, user: &UserId) -> Result<bool, ResyncError> {
        let before = self.before(user.as_str()).await?;
        let answer = self.elsewhere()?.devices(user).await?;
        let Some(neighbours) = self.0.neighbours.get() else {
            return Ok(true);
        };
        if !neighbours.is_near(user).await.map_err(KeysError::from)? {
            return Ok(true);
        }
        let fetched = Fetched::of_devices(user, answer);
        Ok(self.keep(user.as_str(), &fetched, &before).await?)
    }

    /// What is here of a user, before another server is asked.
    async fn before(&self, user: &str) -> Result<Before, KeysError> {
        let heads = self.0.tenant.heads();
        let reader = self.lane(user).reader();
        let key = UserKey(user.to_owned());
        let (list, remote) =
            futures_util::try_join!(reader.get::<Lists>(&key), reader.get::<RemoteLists>(&key),)?;
        Ok(Before {
            heads,
            list: expect(list.as_ref()),
            remote: expect(remote.as_ref()),
        })
    }

    /// Keeps what was fetched, unless something was heard of the list since; whether it did.
    async fn keep(
        &self,
        user: &str,
        fetched: &Fetched,
        before: &Before,
    ) -> Result<bool, KeysError> {
        let lane = self.lane(user);
        let turn = self.0.turns.of(user).await;
        let reader = lane.reader();
        let (_, devices) = self.own(&reader, user).await?;
        let mut batch = lane.batch();
        let key = UserKey(user.to_owned());
        batch.expect::<Lists>(&key, before.list);
        batch.expect::<RemoteLists>(&key, before.remote);
        for device in &devices {
            if fetched
                .devices
                .iter()
                .all(|of| of.device_id != device.device_id)
            {
                batch.delete::<Devices>(&DeviceKey::new(user, &device.device_id));
            }
        }
        for device in fetched
            .devices
            .iter()
            .filter(|device| !devices.contains(device))
        {
            batch.put::<Devices>(&DeviceKey::new(user, &device.device_id), device);
        }
        batch.put::<CrossSigningKeys>(&key, &fetched.cross_signing);
        let remote = RemoteList {
            stream_id: fetched.stream_id,
            fresh: true,
            asked_at: before.heads.positions().to_vec(),
        };
        batch.put::<RemoteLists>(&key, &remote);
        // Decided once: who lost to an update asks again.
        let appended = Attempts::default().append(lane, batch).await?;
        drop(turn);
        let Some(appended) = appended else {
            return Ok(false);
        };
        appended.durable().await?;
        Ok(true)
    }

    /// What a user signed of another's keys: signer, what.
    async fn signed_by(
        &self,
        signer: &str,
        target: &str,
    ) -> Result<Vec<(String, Signature)>, KeysError> {
        let reader = self.0.tenant.reader();
        let rows = reader.scan::<Signatures>(signed(signer, target));
        let rows = rows.await?.into_iter();
        Ok(rows.map(|(key, row)| (key.signer, row.value)).collect())
    }
}

/// Takes away the servers that are too many for one request.
fn too_many<S: Ord + Clone + ToString, W>(there: &mut BTreeMap<S, W>) -> Failures {
    let Some(first) = there.keys().nth(MAX_SERVERS).cloned() else {
        return Failures::new();
    };
    let beyond = there.split_off(&first).into_keys();
    let why = || Unreachable("There are too many servers in the request".to_owned());
    beyond
        .map(|server| (server.to_string(), why().into()))
        .collect()
}

/// What they come to, in their order, so many under way at once. Whoever is silent keeps one place, and not those behind it.
async fn all_of<F: Future>(asking: Vec<F>) -> Vec<F::Output> {
    let asking = asking.into_iter().enumerate();
    let asking = asking.map(|(n, one)| async move { (n, one.await) });
    let came = stream::iter(asking).buffer_unordered(AT_ONCE);
    let mut came: Vec<_> = came.collect().await;
    came.sort_unstable_by_key(|(n, _)| *n);
    came.into_iter().map(|(_, one)| one).collect()
}

/// An answer, if it comes until then; who has its turn later isn't asked.
async fn in_time<A>(
    until: Instant,
    answer: impl Future<Output = Result<A, Unreachable>>,
) -> Result<A, Unreachable> {
    let late = || Unreachable("The server did not answer in time".to_owned());
    if Instant::now() >= until {
        return Err(late());
    }
    let answer = timeout_at(until, answer).await;
    answer.unwrap_or_else(|_| Err(late()))
}

/// Why a list could not be asked for.
#[derive(Debug, thiserror::Error)]
enum ResyncError {
    #[error(transparent)]
    Unreachable(#[from] Unreachable),
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl From<Unreachable> for Failure {
    fn from(why: Unreachable) -> Self {
        Self {
            status: 503,
            message: why.0,
        }
    }
}

impl Fetched {
    /// A user's part of an answer; `None` if it has none.
    fn of_query(user: &UserId, answer: &mut PeerKeys) -> Option<Self> {
        let name = user.as_str();
        let devices = answer.device_keys.remove(name)?.into_iter();
        let devices = devices.filter(|(device_id, _)| device_id.len() <= MAX_PEER_TEXT);
        let devices = devices.take(MAX_DEVICES).filter_map(|(device_id, raw)| {
            Some(Device {
                keys: Some(device_keys_of_peer(&raw, name, &device_id)?),
                name: display_name(&raw).map(name_of_peer),
                device_id,
            })
        });
        Some(Self {
            devices: devices.collect(),
            cross_signing: cross_signing_of_peer(
                name,
                answer.master_keys.remove(name).as_deref(),
                answer.self_signing_keys.remove(name).as_deref(),
            ),
            stream_id: None,
        })
    }

    fn of_devices(user: &UserId, answer: PeerDevices) -> Self {
        let name = user.as_str();
        let mut devices: BTreeMap<String, Device> = BTreeMap::new();
        let told = answer.devices.into_iter();
        let told = told.filter(|device| device.device_id.len() <= MAX_PEER_TEXT);
        for device in told.take(MAX_DEVICES) {
            let keys = device.keys.as_deref();
            let row = Device {
                keys: keys.and_then(|raw| device_keys_of_peer(raw, name, &device.device_id)),
                name: device.device_display_name.map(name_of_peer),
                device_id: device.device_id.clone(),
            };
            devices.insert(device.device_id, row);
        }
        Self {
            devices: devices.into_values().collect(),
            cross_signing: cross_signing_of_peer(
                name,
                answer.master_key.as_deref(),
                answer.self_signing_key.as_deref(),
            ),
            stream_id: Some(answer.stream_id),
        }
    }
}

/// The cross-signing keys that another server tells of a user, as far as they are some.
pub(crate) fn cross_signing_of_peer(
    user: &str,
    master: Option<&RawValue>,
    self_signing: Option<&RawValue>,
) -> CrossSigning {
    let read = |raw: Option<&_>, usage| CrossSigningKey::read(raw?, user, usage).ok();
    let master = read(master, Usage::Master);
    let self_signing = read(self_signing, Usage::SelfSigning).filter(|key| {
        let by = master.as_ref();
        by.is_some_and(|master| key.is_signed_by(user, master))
    });
    CrossSigning {
        master: master.map(|key| key.json),
        self_signing: self_signing.map(|key| key.json),
        user_signing: None,
    }
}

/// Of what another server gave away, what it was asked for.
fn only(claimed: Claimed, wanted: &Wanted) -> Claimed {
    let claimed = claimed.into_iter().filter_map(|(user, devices)| {
        let wanted = wanted.get(&user)?;
        let devices = devices.into_iter().filter_map(|(device, keys)| {
            let algorithm = wanted.get(&device)?;
            let is_wanted = |id: &str| id.split_once(':').is_some_and(|(of, _)| of == algorithm);
            let mut keys = keys.into_iter().filter(|(id, _)| is_wanted(id));
            let key = keys.next()?;
            Some((device, BTreeMap::from([key])))
        });
        Some((user, devices.collect()))
    });
    claimed
        .filter(|(_, devices): &(String, BTreeMap<_, _>)| !devices.is_empty())
        .collect()
}

fn expect<V>(row: Option<&Row<V>>) -> Expect {
    row.map_or(Expect::Absent, |row| Expect::At(row.pos))
}
