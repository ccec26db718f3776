//! W11: what encryption asks of a server: one-time keys claimed, each given away once; the keys of hundreds of
//! users queried; a room's key sent to a thousand devices, all of which wait for it in their syncs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use comity_protocol::unpadded;
use hyper::Method;
use parking_lot::Mutex;
use rand::Rng as _;
use rand_chacha::ChaCha12Rng;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::crowd::{self, Listener};
use super::fanout::tell;
use super::{Measurement, Meter, Site, Sizes, number, repeated};
use crate::device::{self, Device};
use crate::error::{Error, Result};
use crate::http::Connection;
use crate::matrix::{self, Account, each};
use crate::stats::Latencies;

const UPLOAD: &str = "/_matrix/client/v3/keys/upload";
const CROSS_SIGNING: &str = "/_matrix/client/v3/keys/device_signing/upload";
const CLAIM: &str = "/_matrix/client/v3/keys/claim";
const QUERY: &str = "/_matrix/client/v3/keys/query";
const SEND: &str = "/_matrix/client/v3/sendToDevice/m.room.encrypted";
/// What the devices sync by.
const FILTER: &str = r#"{"presence":{"types":[]}}"#;

/// Devices of each user.
const DEVICES: usize = 2;
/// One-time keys that a device has, at the least.
const KEYS: usize = 10;
/// Claims at a time.
const IN_FLIGHT: usize = 64;
/// Room keys sent; the figures are their medians.
const MESSAGES: usize = 3;
/// Devices of one request, as the widespread SDK has it.
const PER_REQUEST: usize = 250;
/// Bytes of a room key's ciphertext, before base64.
const CIPHERTEXT: usize = 900;

/// Who encrypts.
pub struct Encrypting {
    /// Who asks and sends, of no keys.
    speaker: Account,
    /// Of each user one after the other.
    devices: Vec<Device>,
    /// The same, as they sync.
    listeners: Vec<Arc<Listener>>,
}

#[derive(Deserialize)]
struct Claimed {
    one_time_keys: BTreeMap<String, BTreeMap<String, BTreeMap<String, IgnoredAny>>>,
}

#[derive(Deserialize)]
struct Found {
    device_keys: BTreeMap<String, BTreeMap<String, IgnoredAny>>,
    master_keys: BTreeMap<String, IgnoredAny>,
}

/// Makes the users and their devices; all upload identity keys, the users cross-signing keys.
///
/// # Errors
/// When the server refuses any of it.
pub async fn prepare(site: &Site, sizes: &Sizes) -> Result<Encrypting> {
    let secret = site.secret.as_deref();
    let mut connection = Connection::new(&site.target);
    let speaker = matrix::register(&mut connection, &site.unique(), secret).await?;
    let names: Vec<String> = (0..sizes.key_users).map(|_| site.unique()).collect();
    let devices = each(&site.target, 8, names, async |connection, name| {
        let mut random = site.random();
        let first = matrix::register(connection, &name, secret).await?;
        let second = matrix::login(connection, &first.user_id).await?;
        let mut devices = Vec::new();
        for account in [first, second] {
            let device = Device::new(account, &mut random);
            if devices.is_empty() {
                let keys = device::cross_signing(&device.account.user_id, &mut random)?;
                upload(connection, &device, CROSS_SIGNING, keys).await?;
            }
            let keys = json!({ "device_keys": device.identity()? });
            upload(connection, &device, UPLOAD, keys).await?;
            devices.push(device);
        }
        Ok(devices)
    })
    .await?;
    let devices: Vec<Device> = devices.into_iter().flatten().collect();
    let accounts = devices.iter().map(|device| device.account.clone());
    let accounts: Vec<Account> = accounts.collect();
    let listeners = each(&site.target, 8, accounts, async |connection, account| {
        let (since, _) = matrix::sync(connection, &account, None, Some(FILTER), 0).await?;
        Ok(Arc::new(Listener {
            account,
            filter: FILTER.to_owned(),
            since: Mutex::new(since),
        }))
    })
    .await?;
    Ok(Encrypting {
        speaker,
        devices,
        listeners,
    })
}

async fn upload(
    connection: &mut Connection,
    device: &Device,
    path: &str,
    keys: Value,
) -> Result<()> {
    let token = Some(device.account.token.as_str());
    matrix::call(connection, Method::POST, path, token, Some(keys))
        .await
        .map(drop)
}

/// Runs all three cases.
///
/// # Errors
/// When a request is refused, a device isn't found or isn't reached.
pub async fn run(site: &Site, encrypting: &Encrypting, sizes: &Sizes) -> Result<Vec<Measurement>> {
    Ok(vec![
        claims(site, &encrypting.devices, sizes.claims).await?,
        query(site, encrypting).await?,
        room_key(site, encrypting).await?,
    ])
}

async fn claims(site: &Site, devices: &[Device], count: usize) -> Result<Measurement> {
    // One device of a user only, so that no two claims meet at one user but by chance.
    let of: Vec<&Device> = devices
        .iter()
        .step_by(DEVICES)
        .take(count.div_ceil(KEYS))
        .collect();
    let keys = count.div_ceil(of.len().max(1));
    each(&site.target, 8, of.clone(), async |connection, device| {
        let names = (0..keys).map(|_| site.unique());
        let keys = device.one_time_keys(names, &mut site.random())?;
        upload(connection, device, UPLOAD, json!({ "one_time_keys": keys })).await
    })
    .await?;
    let by = devices.iter().rev().cycle();
    let pairs: Vec<(&Device, &Device)> = by.zip(of.into_iter().cycle()).take(count).collect();
    site.processes.settle().await;

    let meter = Meter::start(&site.processes);
    let claimed = each(
        &site.target,
        IN_FLIGHT,
        pairs,
        async |connection, (by, of)| {
            let (user, id) = (&of.account.user_id, &of.account.device_id);
            let wanted = json!({ "one_time_keys": { user: { id: "signed_curve25519" } } });
            let start = Instant::now();
            let body = Bytes::from(wanted.to_string());
            let answer = matrix::post(connection, CLAIM, &by.account.token, body).await?;
            let took = start.elapsed();
            let Claimed { one_time_keys } = serde_json::from_slice(&answer)?;
            let devices = one_time_keys.into_values().flat_map(BTreeMap::into_values);
            let keys: Vec<String> = devices.flat_map(BTreeMap::into_keys).collect();
            Ok((took, keys))
        },
    )
    .await?;
    let (cpu, elapsed) = (meter.cpu_seconds(), meter.elapsed().as_secs_f64());

    let (mut latencies, mut given) = (Latencies::default(), BTreeSet::new());
    let (mut lacking, mut twice) = (0, 0);
    for (took, keys) in claimed {
        latencies.push(took);
        lacking += usize::from(keys.is_empty());
        for key in keys {
            twice += usize::from(!given.insert(key));
        }
    }
    let count = number(count).max(1.0);
    Ok(
        Measurement::new("W11", format!("a claim, {IN_FLIGHT} in flight"))
            .with("claims_per_s", count / elapsed)
            .with("p50_ms", latencies.quantile_ms(0.5))
            .with("p99_ms", latencies.quantile_ms(0.99))
            .with("keys_lacking", number(lacking))
            .with("keys_twice", number(twice))
            .with_if(
                site.processes.known(),
                "cpu_s_per_1k_claims",
                cpu / count * 1e3,
            ),
    )
}

async fn query(site: &Site, encrypting: &Encrypting) -> Result<Measurement> {
    let Encrypting {
        speaker, devices, ..
    } = encrypting;
    let users = devices.iter().map(|device| &device.account.user_id);
    let all: [&str; 0] = [];
    let users: BTreeMap<&String, _> = users.map(|user| (user, all)).collect();
    let body = Bytes::from(json!({ "device_keys": users }).to_string());
    let case = format!("the keys of {} users, {DEVICES} devices each", users.len());
    let mut connection = Connection::new(&site.target);
    let asked = repeated(site, Measurement::new("W11", case), async || {
        matrix::post(&mut connection, QUERY, &speaker.token, body.clone()).await
    });
    let (measurement, answer) = asked.await?;
    let found: Found = serde_json::from_slice(&answer)?;
    let of_devices: usize = found.device_keys.values().map(BTreeMap::len).sum();
    let of_users = found.master_keys.len();
    if (of_devices, of_users) != (devices.len(), users.len()) {
        let error = format!("a query found {of_devices} devices and {of_users} master keys");
        return Err(Error::Program(error));
    }
    Ok(measurement)
}

async fn room_key(site: &Site, encrypting: &Encrypting) -> Result<Measurement> {
    let Encrypting {
        speaker,
        devices,
        listeners,
    } = encrypting;
    let listeners = crowd::awake(site, listeners.clone()).await?;
    let mark = format!("~{}.", site.unique());
    let mut random = site.random();
    let mut messages = Vec::new();
    for message in 0..=MESSAGES {
        let begin = format!("{mark}{message}~");
        let requests = devices.chunks(PER_REQUEST);
        let requests = requests.map(|devices| to_devices(devices, &begin, &mut random));
        messages.push(requests.collect::<Vec<Bytes>>());
    }
    let told = tell(
        site,
        listeners,
        &mark,
        MESSAGES,
        async |connection, message| {
            let requests = messages.get(message).into_iter().flatten();
            for (index, body) in requests.enumerate() {
                let path = format!("{SEND}/{}{message}.{index}", matrix::encode(&mark));
                let answer = connection
                    .request(Method::PUT, &path, Some(&speaker.token), body.clone())
                    .await?;
                answer.accepted(&Method::PUT, &path)?;
            }
            Ok(())
        },
    )
    .await?;
    let case = format!("a room key to {} waiting devices", devices.len());
    Ok(told.said_in(Measurement::new("W11", case), site.processes.known()))
}

/// A request that sends each of the devices a ciphertext of its own, which begins with `begin`.
fn to_devices(devices: &[Device], begin: &str, random: &mut ChaCha12Rng) -> Bytes {
    let sender_key = device::base64(random);
    let mut messages: BTreeMap<&str, BTreeMap<&str, Value>> = BTreeMap::new();
    for device in devices {
        let mut ciphertext = vec![0; CIPHERTEXT];
        random.fill_bytes(&mut ciphertext);
        let body = format!("{begin}{}", unpadded::encode(&ciphertext));
        let key = device.curve25519.as_str();
        let content = json!({
            "algorithm": "m.olm.v1.curve25519-aes-sha2",
            "sender_key": sender_key,
            "ciphertext": { key: { "type": 1, "body": body } },
        });
        let Account {
            user_id, device_id, ..
        } = &device.account;
        let of_user = messages.entry(user_id).or_default();
        of_user.insert(device_id, content);
    }
    Bytes::from(json!({ "messages": messages }).to_string())
}
