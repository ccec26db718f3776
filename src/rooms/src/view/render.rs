//! Events as a client of a certain user sees them: `unsigned` with what the server knows beside the
//! event, bundled aggregations included.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#definition-clientevent>

use std::collections::{BTreeMap, BTreeSet};

use comity_protocol::{
    client_event::{ClientFormat, client_event},
    id::UserId,
};
use futures_util::future::try_join_all;
use serde_json::{Map, Value, json, value::RawValue};

use super::{Found, RoomView, Span};
use crate::{
    error::RoomError,
    num::{EventNum, StateKeyNum},
    state::AnyRoot,
    tables::{self, Relation, RoomNum, Scope, Thread},
};

/// Relations of one event looked at whatever they are; where there are more, they are asked for by kind.
const RELATIONS: usize = 32;
/// References bundled, and edits looked at, at the most; the newest.
const BUNDLED: usize = 100;

/// Who looks.
#[derive(Debug, Clone, Copy)]
pub struct Viewer<'a> {
    /// The user.
    pub user: &'a UserId,
    /// The device, which recognises its own sends by their transaction id.
    pub device: Option<&'a str>,
}

/// What is bundled of the relations to an event.
#[derive(Default)]
struct Related {
    /// Valid edits.
    edits: Vec<EventNum>,
    /// References, newest first.
    references: Vec<EventNum>,
}

/// What stands beside the events, read for all of them together.
struct Beside {
    others: BTreeMap<EventNum, Found>,
    related: BTreeMap<EventNum, Related>,
    threads: BTreeMap<EventNum, Thread>,
    replaced: Vec<Option<EventNum>>,
    member: Vec<Option<EventNum>>,
}

impl RoomView {
    /// The events as the viewer's client gets them, in order.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn render(
        &self,
        found: &[Found],
        viewer: Viewer<'_>,
        format: ClientFormat,
    ) -> Result<Vec<Box<RawValue>>, RoomError> {
        let beside = self.beside(found, viewer.user).await?;
        let found = &*self.veiled(found.into(), viewer.user).await?;
        let now = self.rooms.now();
        let mut rendered = Vec::with_capacity(found.len());
        for (at, one) in found.iter().enumerate() {
            let mut unsigned = self.unsigned(one, viewer, now);
            self.add_state(&mut unsigned, one, at, viewer, &beside);
            if let Some(redaction) = one
                .status
                .redacted_by
                .and_then(|num| beside.others.get(&EventNum(num)))
            {
                let event = plain(redaction, ClientFormat::WithRoomId);
                unsigned.insert("redacted_because".into(), event);
            }
            let relations = bundle(one, viewer, &beside);
            if !relations.is_empty() {
                unsigned.insert("m.relations".into(), relations.into());
            }
            rendered.push(raw(client_event(
                &one.event,
                format,
                Some(&Value::Object(unsigned).to_string()),
            ))?);
        }
        Ok(rendered)
    }

    fn unsigned(&self, one: &Found, viewer: Viewer<'_>, now: u64) -> Map<String, Value> {
        let mut unsigned = Map::new();
        let age = i64::try_from(now)
            .unwrap_or(i64::MAX)
            .saturating_sub(one.event.origin_server_ts());
        unsigned.insert("age".into(), age.into());
        if let Some((seq, 0)) = one.place() {
            unsigned.insert("org.comity.seq".into(), seq.into());
        }
        if let Some(sent) = &one.status.sent
            && one.event.sender() == viewer.user
            && viewer.device == Some(&sent.device)
        {
            unsigned.insert("transaction_id".into(), sent.txn.clone().into());
        }
        unsigned
    }

    fn add_state(
        &self,
        unsigned: &mut Map<String, Value>,
        one: &Found,
        at: usize,
        viewer: Viewer<'_>,
        beside: &Beside,
    ) {
        let other = |num: Option<&Option<EventNum>>| {
            num.copied()
                .flatten()
                .and_then(|num| beside.others.get(&num))
        };
        let own = one.event.is_state("m.room.member", viewer.user.as_str());
        let member = if own {
            Some(one)
        } else {
            other(beside.member.get(at))
        };
        let membership = member.map_or_else(Default::default, super::state::membership_in);
        unsigned.insert("membership".into(), membership.as_str().into());
        if let Some(old) = other(beside.replaced.get(at)) {
            unsigned.insert(
                "replaces_state".into(),
                old.event.event_id().as_str().into(),
            );
            unsigned.insert("prev_sender".into(), old.event.sender().as_str().into());
            let content = serde_json::from_str(old.event.content().get()).unwrap_or(Value::Null);
            unsigned.insert("prev_content".into(), content);
        }
    }

    async fn beside(&self, found: &[Found], user: &UserId) -> Result<Beside, RoomError> {
        // With state nothing is bundled, nor with what was redacted.
        let bundles =
            |one: &&Found| one.event.state_key().is_none() && one.status.redacted_by.is_none();
        let bundling: Vec<&Found> = found.iter().filter(bundles).collect();
        let (related, threads, (replaced, member)) = futures_util::try_join!(
            self.related_to(&bundling),
            self.threads_from(&bundling),
            self.state_beside(found, user),
        )?;
        // What was already so when the event came, and who took its content: its reader may know.
        let mut of_event: BTreeSet<EventNum> =
            replaced.iter().chain(&member).copied().flatten().collect();
        of_event.extend(
            found
                .iter()
                .filter_map(|one| one.status.redacted_by)
                .map(EventNum),
        );
        // What came after it: only what the reader may see (E3).
        let mut wanted = of_event.clone();
        wanted.extend(threads.values().map(|thread| EventNum(thread.latest)));
        for related in related.values() {
            wanted.extend(related.edits.iter().chain(&related.references));
        }
        let wanted: Vec<EventNum> = wanted.into_iter().collect();
        let loaded = self.load(&wanted).await?;
        let (kept, later): (Vec<Found>, Vec<Found>) = loaded
            .into_iter()
            .partition(|found| of_event.contains(&found.num));
        let later = if later.is_empty() {
            later
        } else {
            self.only_visible(later, user).await?
        };
        let others: Vec<Found> = kept.into_iter().chain(later).collect();
        let others = self.veiled(others.into(), user).await?.into_owned();
        let others = others.into_iter().map(|found| (found.num, found)).collect();
        Ok(Beside {
            others,
            related,
            threads,
            replaced,
            member,
        })
    }

    /// The edits and references of each event. Mostly all that relates to an event is looked at in one
    /// go; where that is much, the few that matter are found by their scopes.
    async fn related_to(&self, found: &[&Found]) -> Result<BTreeMap<EventNum, Related>, RoomError> {
        let mut of_all: BTreeMap<EventNum, Related> = BTreeMap::new();
        if found.is_empty() {
            return Ok(of_all);
        }
        let nums: Vec<EventNum> = found.iter().map(|one| one.num).collect();
        let rows = self.relations(&nums, Span::latest(RELATIONS)).await?;
        let mut scopes = Vec::new();
        for (one, rows) in found.iter().zip(rows) {
            if rows.len() == RELATIONS {
                let edits = Scope::Like {
                    rel_type: "m.replace",
                    event_type: one.event.event_type(),
                    sender: one.event.sender().as_str(),
                    key: None,
                };
                scopes.push((one.num, edits));
                scopes.push((one.num, Scope::Type("m.reference")));
                continue;
            }
            for (_, relation) in rows {
                let related = of_all.entry(one.num).or_default();
                let num = EventNum(relation.num);
                if is_edit_of(&relation, one) {
                    related.edits.push(num);
                } else if relation.rel_type == "m.reference" {
                    related.references.push(num);
                }
            }
        }
        if scopes.is_empty() {
            return Ok(of_all);
        }
        let rows = self.related(&scopes, Span::latest(BUNDLED)).await?;
        let nums = |rows: &Vec<((i64, i64), EventNum)>| rows.iter().map(|(_, num)| *num).collect();
        for (scopes, rows) in scopes.chunks(2).zip(rows.chunks(2)) {
            if let ([(target, _), ..], [edits, references]) = (scopes, rows) {
                let related = Related {
                    edits: nums(edits),
                    references: nums(references),
                };
                of_all.insert(*target, related);
            }
        }
        Ok(of_all)
    }

    /// The threads that begin with these events.
    async fn threads_from(
        &self,
        found: &[&Found],
    ) -> Result<BTreeMap<EventNum, Thread>, RoomError> {
        let at = found.iter().map(|one| RoomNum {
            room: self.room,
            num: one.num.0,
        });
        let at: Vec<RoomNum> = at.collect();
        let rows = self.reader.get_many::<tables::Threads>(&at).await?;
        let threads = at.iter().zip(rows);
        let threads = threads.filter_map(|(at, row)| Some((EventNum(at.num), row?.value)));
        Ok(threads.filter(|(_, thread)| thread.count > 0).collect())
    }

    /// Of each event the state event that it replaced, and the viewer's member event before it.
    async fn state_beside(
        &self,
        found: &[Found],
        user: &UserId,
    ) -> Result<(Vec<Option<EventNum>>, Vec<Option<EventNum>>), RoomError> {
        let mut names = vec![("m.room.member", user.as_str())];
        names.extend(
            found
                .iter()
                .filter_map(|one| Some((one.event.event_type(), one.event.state_key()?))),
        );
        let mut keys = self.state_keys(&names).await?.into_iter();
        let me = keys.next().flatten();
        let roots = found.iter().map(Found::root_before);
        let roots = roots.collect::<Result<Vec<Option<AnyRoot>>, _>>()?;
        let key = |one: &Found| one.event.state_key().and_then(|_| keys.next().flatten());
        let keys: Vec<Option<StateKeyNum>> = found.iter().map(key).collect();
        // Each state is asked once for all.
        let mut asked: BTreeMap<AnyRoot, Vec<Option<StateKeyNum>>> = BTreeMap::new();
        for (root, key) in roots.iter().zip(&keys) {
            if let Some(root) = root {
                asked.entry(*root).or_insert_with(|| vec![me]).push(*key);
            }
        }
        let states = asked.iter().map(|(root, keys)| self.lookup(*root, keys));
        let states = try_join_all(states).await?;
        let mut held: BTreeMap<(AnyRoot, StateKeyNum), EventNum> = BTreeMap::new();
        for ((root, keys), nums) in asked.iter().zip(states) {
            let entries = keys.iter().zip(nums);
            held.extend(entries.filter_map(|(key, num)| Some(((*root, (*key)?), num?))));
        }
        let at =
            |root: &Option<AnyRoot>, key: Option<StateKeyNum>| held.get(&((*root)?, key?)).copied();
        let replaced = roots.iter().zip(keys).map(|(root, key)| at(root, key));
        let member = roots.iter().map(|root| at(root, me));
        Ok((replaced.collect(), member.collect()))
    }
}

/// Bundled aggregations: the latest edit, references, the thread.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#aggregations-of-child-events>
fn bundle(one: &Found, viewer: Viewer<'_>, beside: &Beside) -> Map<String, Value> {
    let mut bundle = Map::new();
    let none = Related::default();
    let related = beside.related.get(&one.num).unwrap_or(&none);
    let edits = related.edits.iter();
    let edit = edits
        .filter_map(|num| beside.others.get(num))
        .max_by_key(|edit| {
            (
                edit.event.origin_server_ts(),
                edit.event.event_id().to_owned(),
            )
        });
    if let Some(edit) = edit {
        bundle.insert("m.replace".into(), plain(edit, ClientFormat::WithRoomId));
    }
    let references: Vec<Value> = related
        .references
        .iter()
        .rev()
        .filter_map(|num| beside.others.get(num))
        .map(|found| json!({ "event_id": found.event.event_id() }))
        .collect();
    if !references.is_empty() {
        bundle.insert("m.reference".into(), json!({ "chunk": references }));
    }
    if let Some(thread) = beside.threads.get(&one.num)
        && let Some(latest) = beside.others.get(&EventNum(thread.latest))
    {
        let me = viewer.user.as_str();
        let participated = one.event.sender() == viewer.user
            || thread
                .participants
                .binary_search_by(|user| user.as_str().cmp(me))
                .is_ok();
        bundle.insert(
            "m.thread".into(),
            json!({
                "latest_event": plain(latest, ClientFormat::WithRoomId),
                "count": thread.count,
                "current_user_participated": participated,
            }),
        );
    }
    bundle
}

/// Whether a relation is a valid edit: by the sender, of the same type.
///
/// <https://spec.matrix.org/v1.19/client-server-api/#validity-of-replacement-events>
fn is_edit_of(relation: &Relation, one: &Found) -> bool {
    relation.rel_type == "m.replace"
        && relation.sender == one.event.sender().as_str()
        && relation.event_type == one.event.event_type()
}

fn plain(found: &Found, format: ClientFormat) -> Value {
    serde_json::from_str(&client_event(&found.event, format, None)).unwrap_or(Value::Null)
}

fn raw(json: String) -> Result<Box<RawValue>, RoomError> {
    RawValue::from_string(json)
        .map_err(|_| RoomError::Damaged("an event does not render as JSON".into()))
}
