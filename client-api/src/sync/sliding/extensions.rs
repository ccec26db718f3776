//! What is asked and told besides rooms: the same in both dialects, under other names. Unknown names are passed over.
//!
//! <https://github.com/matrix-org/matrix-spec-proposals/pull/4508>

use std::collections::{BTreeMap, BTreeSet};

use comity_sync::{
    DeviceLists,
    sliding::{self, ExtensionsAnswer, ThreadUpdates, WantedMessages, WantedThreads},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::{RawValue, to_raw_value};

use crate::ApiError;

/// Messages to the device, if the client doesn't say.
const MESSAGES: i64 = 100;
/// Threads, if the client doesn't say, and at the most.
const THREADS: u64 = 100;

/// What a dialect calls them.
pub(super) struct Names {
    pub to_device: &'static str,
    pub e2ee: &'static str,
    pub account_data: &'static str,
    pub receipts: &'static str,
    pub typing: &'static str,
    pub threads: &'static str,
}

/// As they come and go.
pub(super) type Extensions = BTreeMap<String, Box<RawValue>>;

#[derive(Deserialize)]
struct ToDevice {
    enabled: Option<bool>,
    limit: Option<i64>,
    since: Option<String>,
}

#[derive(Deserialize)]
struct Switch {
    enabled: Option<bool>,
    lists: Option<BTreeSet<String>>,
    rooms: Option<BTreeSet<String>>,
}

#[derive(Deserialize)]
struct Threads {
    enabled: Option<bool>,
    include_roots: Option<bool>,
    limit: Option<u64>,
}

#[derive(Serialize)]
struct Messages {
    next_batch: String,
    events: Vec<Box<RawValue>>,
}

#[derive(Serialize)]
struct Keys {
    #[serde(skip_serializing_if = "Option::is_none")]
    device_lists: Option<DeviceLists>,
    device_one_time_keys_count: BTreeMap<String, u32>,
    device_unused_fallback_key_types: Vec<String>,
}

#[derive(Serialize)]
struct Data {
    global: Vec<Box<RawValue>>,
    rooms: BTreeMap<String, Vec<Box<RawValue>>>,
}

#[derive(Serialize)]
struct ByRoom {
    rooms: BTreeMap<String, Box<RawValue>>,
}

#[derive(Serialize)]
struct UpdatedThreads {
    updates: BTreeMap<String, BTreeMap<String, sliding::ThreadUpdate>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prev_batch: Option<String>,
}

impl Names {
    /// What is wanted.
    pub fn read(&self, mut wanted: Extensions) -> Result<sliding::Extensions, ApiError> {
        let wanted = &mut wanted;
        Ok(sliding::Extensions {
            to_device: messages(take(wanted, self.to_device)?)?,
            e2ee: scope(take(wanted, self.e2ee)?).is_some(),
            account_data: scope(take(wanted, self.account_data)?),
            receipts: scope(take(wanted, self.receipts)?),
            typing: scope(take(wanted, self.typing)?),
            threads: threads(take(wanted, self.threads)?)?,
        })
    }

    /// What is told.
    pub fn write(&self, told: ExtensionsAnswer) -> Result<Extensions, ApiError> {
        let mut extensions = Extensions::new();
        let to = &mut extensions;
        put(to, self.to_device, told.to_device.map(Messages::from))?;
        put(to, self.e2ee, told.e2ee.map(Keys::from))?;
        put(to, self.account_data, told.account_data.map(Data::from))?;
        let receipts = told.receipts.map(|rooms| ByRoom { rooms });
        put(to, self.receipts, receipts)?;
        put(to, self.typing, told.typing.map(|rooms| ByRoom { rooms }))?;
        // Who missed nothing is told nothing.
        let threads = told.threads.filter(|threads| !threads.is_empty());
        put(to, self.threads, threads.map(UpdatedThreads::from))?;
        Ok(extensions)
    }
}

fn take<T: DeserializeOwned>(from: &mut Extensions, name: &str) -> Result<Option<T>, ApiError> {
    let raw = from.remove(name);
    let read = raw.map(|raw| serde_json::from_str::<Option<T>>(raw.get()));
    let read = read.transpose();
    let read = read.map_err(|_| ApiError::bad_json("An extension can't be read"))?;
    Ok(read.flatten())
}

fn put<T: Serialize>(to: &mut Extensions, name: &str, told: Option<T>) -> Result<(), ApiError> {
    if let Some(told) = told {
        let told = to_raw_value(&told).map_err(ApiError::internal)?;
        to.insert(name.to_owned(), told);
    }
    Ok(())
}

/// The rooms of an extension; `None` if it isn't wanted.
fn scope(switch: Option<Switch>) -> Option<sliding::Scope> {
    let switch = switch.filter(|switch| switch.enabled == Some(true))?;
    // A star is what is meant where nothing is said.
    let named = |names: Option<BTreeSet<String>>| names.filter(|names| !names.contains("*"));
    Some(sliding::Scope {
        lists: named(switch.lists),
        rooms: named(switch.rooms),
    })
}

/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4538>
fn messages(wanted: Option<ToDevice>) -> Result<Option<WantedMessages>, ApiError> {
    let Some(wanted) = wanted.filter(|wanted| wanted.enabled == Some(true)) else {
        return Ok(None);
    };
    let limit = usize::try_from(wanted.limit.unwrap_or(MESSAGES)).ok();
    let since = wanted.since.as_deref().unwrap_or("0").parse();
    match (since, limit.filter(|limit| *limit > 0)) {
        (Ok(since), Some(limit)) => Ok(Some(WantedMessages { since, limit })),
        _ => {
            let error = "since or limit of messages to the device can't be used";
            Err(ApiError::invalid_param(error))
        }
    }
}

/// <https://github.com/matrix-org/matrix-spec-proposals/pull/4360>
fn threads(wanted: Option<Threads>) -> Result<Option<WantedThreads>, ApiError> {
    let Some(wanted) = wanted.filter(|wanted| wanted.enabled == Some(true)) else {
        return Ok(None);
    };
    Ok(Some(WantedThreads {
        include_roots: wanted.include_roots.unwrap_or_default(),
        limit: thread_limit(wanted.limit)?,
    }))
}

/// How many threads are told at once.
pub(super) fn thread_limit(limit: Option<u64>) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(THREADS).min(THREADS);
    let limit = usize::try_from(limit).ok().filter(|limit| *limit > 0);
    limit.ok_or_else(|| ApiError::invalid_param("The limit of threads must be above zero"))
}

impl From<sliding::Messages> for Messages {
    fn from(messages: sliding::Messages) -> Self {
        Self {
            next_batch: messages.next_batch.to_string(),
            events: messages.events,
        }
    }
}

impl From<sliding::E2ee> for Keys {
    fn from(e2ee: sliding::E2ee) -> Self {
        Self {
            device_lists: e2ee.device_lists,
            device_one_time_keys_count: e2ee.one_time_keys,
            device_unused_fallback_key_types: e2ee.unused_fallback,
        }
    }
}

impl From<sliding::AccountData> for Data {
    fn from(data: sliding::AccountData) -> Self {
        Self {
            global: data.global,
            rooms: data.rooms,
        }
    }
}

impl From<ThreadUpdates> for UpdatedThreads {
    fn from(threads: ThreadUpdates) -> Self {
        Self {
            updates: threads.rooms,
            prev_batch: threads.more.map(|more| more.to_string()),
        }
    }
}
