//! Faults (threats, the checker): rows that contradict one another are found, whichever they are; a room in order has
//! nothing to find.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod world;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use comity_rooms::{
    CreateRoom, Intent, Preset, ReceiptKind, Rooms, Transaction, Visibility,
    chains::{ChainKey, EventNum},
    check::{self, Broken, Finding},
    tables::*,
};
use comity_storage::{
    At, Batch, Engine, Family, Home, Range, RoomKey, Table, TenantId, engine::Memory,
};
use serde_json::{Value, json};
use world::*;

/// What the checker finds on a disk.
async fn findings(disk: &Memory) -> Vec<Finding> {
    let engine = Engine::Memory(disk.clone());
    let reader = comity_storage::check::reader(&engine, TenantId(1));
    let reader = reader.await.unwrap().unwrap();
    let mut found = Vec::new();
    let mut note = |finding: Finding| found.push(finding);
    let server = "localhost".try_into().unwrap();
    check::tenant(&reader, server, &mut note).await.unwrap();
    found
}

/// A room in which there is something of everything, and its rows.
struct Rows {
    room: RoomKey,
    room_id: String,
    head: Head,
    head_pos: u64,
    headers: BTreeMap<u32, Header>,
    bodies: BTreeMap<u32, Body>,
    statuses: BTreeMap<u32, Status>,
    entries: BTreeMap<(i64, i64), Entry>,
    keys: BTreeMap<(String, String), u32>,
    nodes: Vec<RoomHash>,
    chains: BTreeMap<ChainKey, Bytes>,
    alice: Member,
    summary: Summary,
    relations: Vec<(RoomRelation, Relation)>,
    related: Vec<(RoomRelated, Num)>,
    threads: Vec<(RoomNum, Thread)>,
    receipts: Vec<(RoomReceipt, Receipt)>,
    moves: Vec<(RoomReceiptAt, Receipt)>,
    txns: Vec<(RoomTxn, Done)>,
}

async fn all<T: Table>(rooms: &Rooms, room: RoomKey) -> Vec<(T::Key, T::Value, u64)> {
    let range = Range::of(Home::Room(room), |key| {
        key.room(room);
    });
    let rows = rooms.tenant().reader().scan::<T>(range).await.unwrap();
    rows.into_iter()
        .map(|(key, row)| (key, row.value, row.pos))
        .collect()
}

async fn values<T: Table>(rooms: &Rooms, room: RoomKey) -> Vec<(T::Key, T::Value)> {
    let rows = all::<T>(rooms, room).await;
    rows.into_iter()
        .map(|(key, value, _)| (key, value))
        .collect()
}

impl Rows {
    async fn of(rooms: &Rooms, room_id: &str) -> Self {
        let room = RoomKey::of(room_id);
        let by_num = |rows: Vec<(RoomNum, Header)>| rows.into_iter().map(|(key, v)| (key.num, v));
        let (_, head, head_pos) = all::<Heads>(rooms, room).await.pop().unwrap();
        Self {
            room,
            room_id: room_id.to_owned(),
            head,
            head_pos,
            headers: by_num(values::<Headers>(rooms, room).await).collect(),
            bodies: values::<Bodies>(rooms, room)
                .await
                .into_iter()
                .map(|(key, v)| (key.num, v))
                .collect(),
            statuses: values::<Statuses>(rooms, room)
                .await
                .into_iter()
                .map(|(key, v)| (key.num, v))
                .collect(),
            entries: values::<Timeline>(rooms, room)
                .await
                .into_iter()
                .map(|(key, v)| ((key.seq, key.sub), v))
                .collect(),
            keys: values::<KeyNums>(rooms, room)
                .await
                .into_iter()
                .map(|(key, v)| ((key.event_type, key.state_key), v.0))
                .collect(),
            nodes: values::<Nodes>(rooms, room)
                .await
                .into_iter()
                .map(|(key, _)| key)
                .collect(),
            chains: values::<Chains>(rooms, room)
                .await
                .into_iter()
                .map(|(key, v)| (key.key, v))
                .collect(),
            alice: {
                let alice = rooms.member(user("@alice:localhost"), room_id.try_into().unwrap());
                alice.await.unwrap().unwrap().value
            },
            summary: values::<Summaries>(rooms, room).await.remove(0).1,
            relations: values::<Relations>(rooms, room).await,
            related: values::<Related>(rooms, room).await,
            threads: values::<Threads>(rooms, room).await,
            receipts: values::<Receipts>(rooms, room).await,
            moves: values::<ReceiptMoves>(rooms, room).await,
            txns: {
                let reader = rooms.tenant().reader();
                let rows = reader.scan::<Txns>(Range::everywhere(|_| {})).await;
                let rows = rows.unwrap().into_iter();
                rows.map(|(key, row)| (key, row.value)).collect()
            },
        }
    }

    fn in_room(&self) -> InRoom {
        InRoom { room: self.room }
    }

    fn at(&self, num: u32) -> RoomNum {
        let room = self.room;
        RoomNum { room, num }
    }

    fn text(&self, name: &str) -> RoomText {
        let (room, name) = (self.room, name.to_owned());
        RoomText { room, name }
    }

    fn place(&self, (seq, sub): (i64, i64)) -> RoomPlace {
        let room = self.room;
        RoomPlace { room, seq, sub }
    }

    fn seq(&self, seq: i64) -> RoomSeq {
        let room = self.room;
        RoomSeq { room, seq }
    }

    fn alices(&self) -> UserRoom {
        UserRoom {
            user: "@alice:localhost".into(),
            room: self.room,
        }
    }

    /// The message with this body.
    fn said(&self, text: &str) -> u32 {
        let body = format!(r#""body":"{text}""#);
        let mut found = self
            .bodies
            .iter()
            .filter(|(_, row)| row.json.contains(&body));
        *found.next().unwrap().0
    }

    fn seq_of(&self, num: u32) -> i64 {
        self.statuses[&num].place.unwrap().0
    }

    fn redacted(&self) -> u32 {
        let mut found = self
            .statuses
            .iter()
            .filter(|(_, row)| row.redacted_by.is_some());
        *found.next().unwrap().0
    }

    /// The latest event of the state, and its place on a chain.
    fn chained(&self, kind: &str) -> u32 {
        let mut found = self.headers.iter().rev();
        *found.find(|(_, row)| row.event_type == kind).unwrap().0
    }

    fn chain(&self, num: u32) -> RoomChain {
        RoomChain {
            room: self.room,
            key: ChainKey::Event(EventNum(num)),
        }
    }

    /// Another room, of the same lane.
    fn another(&self) -> RoomKey {
        let mut key = self.room;
        key.0[15] ^= 1;
        key
    }

    fn put_head(&self, batch: &mut Batch, change: impl FnOnce(&mut Head)) {
        let mut head = self.head.clone();
        change(&mut head);
        let (room, pos) = (self.room, At::Is(self.head_pos));
        batch.put::<Heads>(&RoomAt { room, pos }, &head);
    }

    fn put_status(&self, batch: &mut Batch, num: u32, change: impl FnOnce(&mut Status)) {
        let mut status = self.statuses[&num].clone();
        change(&mut status);
        batch.put::<Statuses>(&self.at(num), &status);
    }

    fn put_header(&self, batch: &mut Batch, num: u32, change: impl FnOnce(&mut Header)) {
        let mut header = self.headers[&num].clone();
        change(&mut header);
        batch.put::<Headers>(&self.at(num), &header);
    }
}

fn relates(rel_type: &str, to: &str, body: &str) -> Value {
    json!({ "body": body, "m.relates_to": { "rel_type": rel_type, "event_id": to } })
}

/// Makes the room.
async fn lived_in(rooms: &Rooms) -> Rows {
    let (alice, bob) = (user("@alice:localhost"), user("@bob:localhost"));
    let request = CreateRoom {
        visibility: Visibility::Public,
        room_alias_name: Some("here".into()),
        name: Some("a name".into()),
        topic: Some("a topic".into()),
        preset: Some(Preset::Public),
        ..CreateRoom::default()
    };
    let room = create(rooms, alice, request).await;
    join(rooms, bob, &room).await.unwrap();
    let say = async |who, content: Value| {
        let intent = Intent::message(who, "m.room.message", &content);
        send(rooms, &room, intent).await.unwrap().event_id
    };
    let first = say(alice, json!({ "body": "first" })).await;
    say(bob, relates("m.replace", first.as_str(), "an edit")).await;
    say(bob, relates("m.thread", first.as_str(), "in thread")).await;
    say(alice, relates("m.thread", first.as_str(), "in thread too")).await;
    let gone = say(alice, json!({ "body": "regretted" })).await;
    let redaction = Intent {
        redacts: Some(gone.clone()),
        ..Intent::message(alice, "m.room.redaction", &json!({ "redacts": gone }))
    };
    send(rooms, &room, redaction).await.unwrap();
    let kind = ReceiptKind::Read;
    rooms
        .set_receipt(bob, &room, kind, &first, None)
        .await
        .unwrap();
    let rename = Intent::state(alice, "m.room.name", "", &json!({ "name": "another" }));
    send(rooms, &room, rename).await.unwrap();
    let levels = content(rooms, &room, "m.room.power_levels", "")
        .await
        .unwrap();
    let mut levels = levels.as_object().unwrap().clone();
    levels.insert("invite".into(), 10.into());
    let levels = Intent::state(alice, "m.room.power_levels", "", &levels);
    send(rooms, &room, levels).await.unwrap();
    let txn = Transaction {
        user: alice.to_owned(),
        device: "DEVICE".into(),
        path: "send/m.room.message".into(),
        txn: "1".into(),
    };
    let mut change = rooms.change(&room).await.unwrap();
    let last = Intent::message(alice, "m.room.message", &json!({ "body": "last" }));
    change.add(last, Some(&txn)).await.unwrap();
    change.commit().await.unwrap();
    Rows::of(rooms, room.as_str()).await
}

/// A status whose bytes are none.
struct Garbage;

impl Table for Garbage {
    const NAME: &'static str = "garbage";
    const FAMILY: Family = Statuses::FAMILY;
    const TAG: [u8; 2] = Statuses::TAG;
    type Key = RoomNum;
    type Value = Bytes;
}

type Damage = fn(&Rows, &mut Batch);

/// For each thing that is to hold, a way to break it.
const DAMAGES: &[(Broken, Damage)] = &[
    (Broken::Unreadable, |rows, batch| {
        batch.put::<Garbage>(&rows.at(0), &Bytes::from_static(b"?"));
    }),
    (Broken::RoomId, |rows, batch| {
        let info = Info {
            room_id: "!other:localhost".into(),
            version: comity_protocol::room_version::RoomVersion::V12,
        };
        batch.put::<Infos>(&rows.in_room(), &info);
    }),
    (Broken::NoRoom, |rows, batch| {
        let at = RoomNum {
            room: rows.another(),
            num: 0,
        };
        batch.put::<Statuses>(&at, &rows.statuses[&0]);
    }),
    (Broken::NoRoom, |rows, batch| {
        let (room, event_id) = (rows.another(), "$some".into());
        batch.put::<IdRooms>(&IdRoom { event_id, room }, &());
    }),
    (Broken::NoHead, |rows, batch| {
        batch.delete_all::<Heads>(Home::Room(rows.room), |key| {
            key.room(rows.room);
        });
    }),
    (Broken::Number, |rows, batch| {
        batch.put::<EventNums>(&rows.text("$some"), &Num(999));
    }),
    (Broken::Number, |rows, batch| {
        batch.put::<Followed>(&rows.at(999), &FollowedBy { entry: false });
    }),
    (Broken::Unnumbered, |rows, batch| {
        let id = &rows.headers[&rows.said("first")].event_id;
        batch.delete::<EventNums>(&rows.text(id));
    }),
    (Broken::Unnumbered, |rows, batch| {
        rows.put_head(batch, |head| head.next_num += 1);
    }),
    (Broken::NumberTwice, |rows, batch| {
        batch.put::<EventNums>(&rows.text("$some"), &Num(3));
    }),
    (Broken::Status, |rows, batch| {
        rows.put_status(batch, rows.said("first"), |status| status.place = None);
    }),
    (Broken::NamedOnly, |rows, batch| {
        rows.put_status(batch, rows.said("first"), |status| {
            status.verdict = Verdict::Named;
        });
    }),
    (Broken::NoHeader, |rows, batch| {
        batch.delete::<Headers>(&rows.at(rows.said("first")));
    }),
    (Broken::NoBody, |rows, batch| {
        batch.delete::<Bodies>(&rows.at(rows.said("first")));
    }),
    (Broken::Body, |rows, batch| {
        let other = &rows.bodies[&rows.said("last")];
        batch.put::<Bodies>(&rows.at(rows.said("first")), other);
    }),
    (Broken::Header, |rows, batch| {
        rows.put_header(batch, rows.said("first"), |header| header.ts += 1);
    }),
    (Broken::Links, |rows, batch| {
        rows.put_header(batch, rows.said("last"), |header| header.prev = vec![0]);
    }),
    (Broken::Links, |rows, batch| {
        let redaction = rows.statuses[&rows.redacted()].redacted_by.unwrap();
        rows.put_header(batch, redaction, |header| header.redacts = Some(0));
    }),
    (Broken::Generation, |rows, batch| {
        rows.put_status(batch, rows.redacted(), |status| status.redacted_by = None);
    }),
    (Broken::RedactedBy, |rows, batch| {
        rows.put_status(batch, rows.redacted(), |status| {
            status.redacted_by = Some(0);
        });
    }),
    (Broken::EarlyRedaction, |rows, batch| {
        let early = RoomPair {
            room: rows.room,
            num: rows.redacted(),
            other: rows.statuses[&rows.redacted()].redacted_by.unwrap(),
        };
        batch.put::<EarlyRedactions>(&early, &());
    }),
    (Broken::BareId, |rows, batch| {
        let event_id = rows.headers[&rows.said("first")].event_id.clone();
        let room = rows.room;
        batch.delete::<IdRooms>(&IdRoom { event_id, room });
    }),
    (Broken::BareId, |rows, batch| {
        let (event_id, room) = ("$some".into(), rows.room);
        batch.put::<IdRooms>(&IdRoom { event_id, room }, &());
    }),
    (Broken::StateKey, |rows, batch| {
        let key = RoomStateKey {
            room: rows.room,
            event_type: "m.room.name".into(),
            state_key: String::new(),
        };
        batch.delete::<KeyNums>(&key);
    }),
    (Broken::NoStateKey, |rows, batch| {
        let num = rows.keys[&("m.room.name".into(), String::new())];
        batch.delete::<StateKeys>(&rows.at(num));
    }),
    (Broken::SeqGap, |rows, batch| {
        batch.delete::<Timeline>(&rows.place((3, 0)));
    }),
    (Broken::Place, |rows, batch| {
        let entry = Entry {
            num: 0,
            ..rows.entries[&(rows.head.seq, 0)].clone()
        };
        batch.put::<Timeline>(&rows.place((rows.head.seq, 0)), &entry);
    }),
    (Broken::HistoryGap, |rows, batch| {
        let gap = Gap {
            missing: vec![rows.headers[&0].event_id.clone()],
            lowest: -1,
            by: FollowedBy { entry: false },
        };
        batch.put::<Gaps>(&rows.seq(3), &gap);
    }),
    (Broken::HistoryGap, |rows, batch| {
        let entry = &rows.entries[&(rows.head.seq, 0)];
        batch.put::<Timeline>(&rows.place((rows.head.seq, -2)), entry);
    }),
    (Broken::Hole, |rows, batch| {
        let gap = Gap {
            missing: vec!["$some".into()],
            lowest: 0,
            by: FollowedBy { entry: false },
        };
        batch.put::<Gaps>(&rows.seq(3), &gap);
    }),
    (Broken::Totals, |rows, batch| {
        let entry = Entry {
            totals: Totals::default(),
            ..rows.entries[&(rows.head.seq, 0)].clone()
        };
        batch.put::<Timeline>(&rows.place((rows.head.seq, 0)), &entry);
    }),
    (Broken::Totals, |rows, batch| {
        let place = (rows.head.seq, 0);
        let mut entry = rows.entries[&place].clone();
        for total in &mut entry.totals.0 {
            total.all.notify += 2;
            total.main.notify += 2;
        }
        batch.put::<Timeline>(&rows.place(place), &entry);
    }),
    (Broken::HeadSeq, |rows, batch| {
        rows.put_head(batch, |head| head.seq += 1);
    }),
    (Broken::Extremity, |rows, batch| {
        rows.put_head(batch, |head| head.extremities.push(head.extremities[0]));
    }),
    (Broken::Covered, |rows, batch| {
        let before = rows.headers[&rows.head.extremities[0]].prev[0];
        rows.put_head(batch, |head| head.extremities.push(before));
    }),
    (Broken::Depth, |rows, batch| {
        rows.put_head(batch, |head| head.depth -= 1);
    }),
    (Broken::Mode, |rows, batch| {
        let partial = Partial {
            join: 1,
            prev: Vec::new(),
            servers: Vec::new(),
            lacks: Vec::new(),
        };
        batch.put::<Partials>(&rows.in_room(), &partial);
    }),
    (Broken::Provisional, |rows, batch| {
        let given = Vec::new();
        batch.put::<Provisionals>(&rows.at(1), &Provisional { given });
    }),
    (Broken::Root, |rows, batch| {
        rows.put_head(batch, |head| head.root = vec![9]);
    }),
    (Broken::Node, |rows, batch| {
        rows.nodes.iter().for_each(|node| {
            batch.delete::<Nodes>(node);
        });
    }),
    (Broken::NodeDamaged, |rows, batch| {
        rows.nodes.iter().for_each(|node| {
            batch.put::<Nodes>(node, &Bytes::from_static(b"no node"));
        });
    }),
    (Broken::Entry, |rows, batch| {
        // The names of two keys change places.
        let named = ["m.room.name", "m.room.topic"];
        let [one, other] = named.map(|kind| rows.keys[&(kind.into(), String::new())]);
        for (kind, num) in named.into_iter().zip([other, one]) {
            let key = RoomStateKey {
                room: rows.room,
                event_type: kind.into(),
                state_key: String::new(),
            };
            let name = StateKey {
                event_type: kind.into(),
                state_key: String::new(),
            };
            batch
                .put::<KeyNums>(&key, &KeyNum(num))
                .put::<StateKeys>(&rows.at(num), &name);
        }
    }),
    (Broken::EntryVerdict, |rows, batch| {
        rows.put_status(batch, rows.chained("m.room.topic"), |status| {
            status.verdict = Verdict::Rejected;
            status.root_before = Vec::new();
        });
    }),
    (Broken::NoPlace, |rows, batch| {
        batch.delete::<Chains>(&rows.chain(rows.chained("m.room.topic")));
    }),
    (Broken::Chain, |rows, batch| {
        let at = rows.chain(rows.chained("m.room.topic"));
        batch.put::<Chains>(&at, &Bytes::from_static(b"?"));
    }),
    (Broken::ChainPlace, |rows, batch| {
        let (one, other) = (rows.chained("m.room.topic"), rows.chained("m.room.name"));
        let value = &rows.chains[&ChainKey::Event(EventNum(other))];
        batch.put::<Chains>(&rows.chain(one), value);
    }),
    (Broken::ChainEdge, |rows, batch| {
        rows.put_header(batch, rows.chained("m.room.power_levels"), |header| {
            header.auth.clear();
        });
    }),
    (Broken::Uncovered, |rows, batch| {
        let name = rows.chained("m.room.name");
        rows.put_header(batch, rows.chained("m.room.topic"), |header| {
            header.auth.push(name);
        });
    }),
    (Broken::Citations, |rows, batch| {
        let mut cited = rows.chains.keys();
        let key = *cited
            .find(|key| matches!(key, ChainKey::Cited(..)))
            .unwrap();
        let room = rows.room;
        batch.delete::<Chains>(&RoomChain { room, key });
    }),
    (Broken::Member, |rows, batch| {
        batch.delete::<Members>(&rows.alices());
    }),
    (Broken::Member, |rows, batch| {
        let member = Member {
            room_id: rows.room_id.clone(),
            membership: "join".into(),
            num: 1,
            seq: 1,
            forgotten: false,
            since: 0,
            was_in: true,
        };
        let key = UserRoom {
            user: "@carol:localhost".into(),
            room: rows.room,
        };
        batch.put::<Members>(&key, &Member { num: 3, ..member });
    }),
    (Broken::Member, |rows, batch| {
        let member = Member {
            was_in: false,
            ..rows.alice.clone()
        };
        batch.put::<Members>(&rows.alices(), &member);
    }),
    (Broken::Summary, |rows, batch| {
        let summary = Summary {
            joined: 3,
            ..rows.summary.clone()
        };
        batch.put::<Summaries>(&rows.in_room(), &summary);
    }),
    (Broken::OutOfBand, |rows, batch| {
        let invite = OutOfBand {
            membership: "invite".into(),
            sender: "@bob:elsewhere".into(),
            event_id: None,
            made: 0,
            event: None,
            state: Vec::new(),
            via: Vec::new(),
            invited_by: None,
        };
        batch.put::<OutOfBands>(&rows.text("@alice:localhost"), &invite);
    }),
    (Broken::OutOfBand, |rows, batch| {
        let member = Member {
            room_id: rows.room_id.clone(),
            membership: "invite".into(),
            num: 0,
            seq: 1,
            forgotten: false,
            since: 0,
            was_in: false,
        };
        let key = UserRoom {
            user: "@carol:localhost".into(),
            room: rows.room,
        };
        batch.put::<Members>(&key, &member);
    }),
    (Broken::Alias, |rows, batch| {
        batch.delete::<RoomAliases>(&rows.text("#here:localhost"));
    }),
    (Broken::Listed, |rows, batch| {
        let room = rows.another();
        batch.put::<Directory>(&Listed { room }, &Published);
    }),
    (Broken::Upgrade, |rows, batch| {
        let upgrade = Upgrade {
            room_id: "!other:localhost".into(),
            replacement: "!new:localhost".into(),
            user: "@alice:localhost".into(),
            aliases: Vec::new(),
            published: false,
        };
        batch.put::<Upgrades>(&rows.in_room(), &upgrade);
    }),
    (Broken::Transaction, |rows, batch| {
        let (key, done) = &rows.txns[0];
        batch.put::<Txns>(
            key,
            &Done {
                seq: 1,
                ..done.clone()
            },
        );
    }),
    (Broken::Erasure, |rows, batch| {
        batch.put::<Erasures>(&rows.text("@bob:localhost"), &Erased { seq: 999 });
    }),
    (Broken::Relation, |rows, batch| {
        let (key, row) = &rows.relations[0];
        let sender = "@carol:localhost".into();
        batch.put::<Relations>(
            key,
            &Relation {
                sender,
                ..row.clone()
            },
        );
    }),
    (Broken::Unrelated, |rows, batch| {
        batch.delete::<Relations>(&rows.relations[0].0);
    }),
    (Broken::Related, |rows, batch| {
        let (key, num) = &rows.related[0];
        let scope = Scope::Type("m.reference").hash();
        batch.put::<Related>(
            &RoomRelated {
                scope,
                ..key.clone()
            },
            num,
        );
    }),
    (Broken::NotRelated, |rows, batch| {
        for (key, _) in &rows.related {
            batch.delete::<Related>(key);
        }
    }),
    (Broken::InThread, |rows, batch| {
        let in_thread = Scope::Thread.hash();
        let mut related = rows.related.iter();
        let (key, _) = related.find(|(key, _)| key.scope == in_thread).unwrap();
        batch.delete::<Related>(key);
    }),
    (Broken::Thread, |rows, batch| {
        let (key, thread) = &rows.threads[0];
        let count = thread.count + 1;
        batch.put::<Threads>(
            key,
            &Thread {
                count,
                ..thread.clone()
            },
        );
    }),
    (Broken::Thread, |rows, batch| {
        batch.delete::<ThreadOrder>(&rows.seq(rows.threads[0].1.latest_seq));
    }),
    (Broken::Discount, |rows, batch| {
        batch.put::<Discounts>(&rows.seq(rows.seq_of(rows.said("first"))), &());
    }),
    (Broken::Receipt, |rows, batch| {
        batch.delete::<ReceiptMoves>(&rows.moves[0].0);
    }),
    (Broken::Receipt, |rows, batch| {
        let (key, receipt) = &rows.moves[0];
        let user = "@alice:localhost".into();
        batch.put::<ReceiptMoves>(
            &RoomReceiptAt {
                user,
                ..key.clone()
            },
            receipt,
        );
    }),
    (Broken::ReceiptPlace, |rows, batch| {
        let (key, receipt) = &rows.receipts[0];
        batch.put::<Receipts>(
            key,
            &Receipt {
                seq: 1,
                ..receipt.clone()
            },
        );
    }),
    (Broken::ReceiptTotals, |rows, batch| {
        let (key, receipt) = &rows.receipts[0];
        let mut receipt = receipt.clone();
        receipt.totals.0.push(Total {
            all: Tally {
                notify: 1,
                highlight: 0,
            },
            ..Total::default()
        });
        batch.put::<Receipts>(key, &receipt);
    }),
    (Broken::Turn, |rows, batch| {
        let turn = RoomTurn {
            room: rows.room,
            user: "@bob:localhost".into(),
            seq: 1,
        };
        batch.put::<Turns>(&turn, &Place(9));
    }),
    (Broken::Hit, |rows, batch| {
        let at = UserHit {
            user: "@bob:localhost".into(),
            room: rows.room,
            seq: 999,
        };
        let hit = Hit {
            thread: None,
            notify: 1,
            highlight: 0,
        };
        batch.put::<Hits>(&at, &hit);
    }),
];

#[tokio::test(start_paused = true)]
async fn what_contradicts_another_row_is_found() {
    let mut broken: BTreeSet<Broken> = BTreeSet::new();
    let mut missed = Vec::new();
    for (at, (what, damage)) in DAMAGES.iter().enumerate() {
        let disk = Memory::new();
        let rooms = open(&disk, LANES[at % LANES.len()]).await;
        let rows = lived_in(&rooms).await;
        let writer = rooms.tenant().lane(Home::Room(rows.room));
        let mut batch = writer.batch();
        damage(&rows, &mut batch);
        writer.commit(batch).await.unwrap();
        let found = findings(&disk).await;
        let is_it = |finding: &Finding| finding.broken == *what;
        if !found.iter().any(is_it) {
            missed.push((at, what, found));
        }
        broken.insert(*what);
    }
    assert!(missed.is_empty(), "{missed:#?}");
    let all: BTreeSet<Broken> = Broken::ALL.iter().copied().collect();
    assert_eq!(broken, all, "each is broken once");
}

#[tokio::test(start_paused = true)]
async fn a_room_in_order_has_nothing_to_find() {
    for lanes in LANES {
        let disk = Memory::new();
        let rooms = open(&disk, lanes).await;
        let rows = lived_in(&rooms).await;
        assert_eq!(findings(&disk).await, []);
        // What is found names the room and no content.
        let writer = rooms.tenant().lane(Home::Room(rows.room));
        let mut batch = writer.batch();
        let said = rows.said("first");
        batch.delete::<Headers>(&rows.at(said));
        writer.commit(batch).await.unwrap();
        let found = findings(&disk).await;
        let line = format!(
            "room {}: an event has no header [event {said}]",
            rows.room_id
        );
        assert!(
            found.iter().any(|found| found.to_string() == line),
            "{found:?}"
        );
    }
}
