//! Receipts, typing and unread counts.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod world;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use comity_protocol::{
    id::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, UserId},
    push::{CompiledRules, EventFacts, NewRule, Position, Recipient, RuleKind, UserRules},
};
use comity_rooms::{
    Intent, PushRules, ReceiptKind, RoomError, Rooms, Tastes, Unread,
    tables::{Hits, Receipts, Tally},
};
use comity_storage::{Home, Range, RoomKey, engine::Memory};
use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use world::*;

async fn say(rooms: &Rooms, room: &RoomId, who: &UserId, content: Value) -> OwnedEventId {
    let mut whole = json!({ "msgtype": "m.text", "body": "hello" });
    whole
        .as_object_mut()
        .unwrap()
        .extend(content.as_object().unwrap().clone());
    let intent = Intent::message(who, "m.room.message", &whole);
    send(rooms, room, intent).await.unwrap().event_id
}

fn in_thread(root: &OwnedEventId) -> Value {
    json!({ "m.relates_to": { "rel_type": "m.thread", "event_id": root } })
}

async fn unread(rooms: &Rooms, room: &RoomId, who: &UserId) -> Unread {
    rooms.view(room).await.unwrap().unread(who).await.unwrap()
}

fn tally(notify: u32, highlight: u32) -> Tally {
    Tally { notify, highlight }
}

async fn hits(rooms: &Rooms, room: &RoomId) -> usize {
    let room = RoomKey::of(room.as_str());
    let all = Range::everywhere(|_| {});
    let rows = rooms.tenant().reader().scan::<Hits>(all).await.unwrap();
    rows.iter().filter(|(key, _)| key.room == room).count()
}

/// A room with Alice who writes and Bob who reads.
async fn two(rooms: &Rooms) -> (&'static UserId, &'static UserId, OwnedRoomId) {
    let (alice, bob) = (user("@alice:localhost"), user("@bob:localhost"));
    let room = public_room(rooms, alice).await;
    join(rooms, bob, &room).await.unwrap();
    (alice, bob, room)
}

/// R3.6: a receipt never moves back, is told once to those who may see it, and is by thread.
#[tokio::test(start_paused = true)]
async fn receipts_move_forward_and_are_told_once() {
    for lanes in LANES {
        let rooms = fresh(lanes).await;
        let (alice, bob, room) = two(&rooms).await;
        let first = say(&rooms, &room, alice, json!({})).await;
        let second = say(&rooms, &room, alice, json!({})).await;
        let read = async |event: &OwnedEventId, kind, thread| {
            rooms.set_receipt(bob, &room, kind, event, thread).await
        };
        assert!(read(&second, ReceiptKind::Read, None).await.unwrap());
        assert!(!read(&first, ReceiptKind::Read, None).await.unwrap());
        assert!(!read(&second, ReceiptKind::Read, None).await.unwrap());
        assert!(read(&first, ReceiptKind::Read, Some("main")).await.unwrap());
        assert!(read(&first, ReceiptKind::ReadPrivate, None).await.unwrap());
        let refused = read(&first, ReceiptKind::Read, Some("x")).await;
        assert!(matches!(refused, Err(RoomError::Invalid(_))));
        let unknown = OwnedEventId::try_from("$nothing").unwrap();
        let refused = read(&unknown, ReceiptKind::Read, None).await;
        assert!(matches!(refused, Err(RoomError::UnknownEvent)));
        let eve = user("@eve:localhost");
        let refused = rooms
            .set_receipt(eve, &room, ReceiptKind::Read, &first, None)
            .await;
        assert!(matches!(refused, Err(RoomError::Rejected(_))));

        let reader = rooms.tenant().reader();
        let after = async |reader, pos, viewer| {
            let told = rooms
                .receipts_after(reader, &room, pos, viewer)
                .await
                .unwrap();
            told.into_iter()
                .map(|receipt| (receipt.event_id, receipt.kind, receipt.thread))
                .collect::<Vec<_>>()
        };
        let public = [
            (second.clone(), ReceiptKind::Read, None),
            (first.clone(), ReceiptKind::Read, Some("main".to_owned())),
        ];
        assert_eq!(after(&reader, 0, alice).await, public);
        assert_eq!(after(&reader, 0, bob).await.len(), 3);
        let pos = reader.bound(Home::Room(RoomKey::of(room.as_str())));
        assert_eq!(after(&reader, pos, bob).await, []);
        let third = say(&rooms, &room, alice, json!({})).await;
        assert!(read(&third, ReceiptKind::Read, None).await.unwrap());
        // Not beyond the reader's bound; then the moved one alone, and the old one nowhere.
        let now = rooms.tenant().reader();
        let moved = (third.clone(), ReceiptKind::Read, None);
        assert_eq!(after(&now, pos, alice).await, std::slice::from_ref(&moved));
        assert_eq!(after(&now, 0, alice).await, [public[1].clone(), moved]);
        assert_eq!(rooms.receipts_of(&now, bob, &room).await.unwrap().len(), 3);
    }
}

/// R4.3–4: typing is told with a serial, ends by its timeout, and its end is told too.
#[tokio::test(start_paused = true)]
async fn typing_is_told_and_ends() {
    for lanes in LANES {
        let rooms = fresh(lanes).await;
        let (alice, bob, room) = two(&rooms).await;
        let typing = rooms.typing();
        let mut told = typing.subscribe();
        assert_eq!(typing.users(&room), (0, vec![]));
        typing.set(&room, alice, None);
        assert_eq!(typing.serial(), 0);
        typing.set(&room, alice, Some(Duration::from_secs(10)));
        typing.set(&room, bob, Some(Duration::from_secs(30)));
        assert_eq!(typing.changed_after(&room, 0).unwrap(), [alice, bob]);
        assert_eq!(typing.changed_after(&room, 2), None);
        tokio::time::sleep(Duration::from_secs(5)).await;
        typing.set(&room, alice, Some(Duration::from_secs(10)));
        assert_eq!(typing.serial(), 2);
        tokio::time::sleep(Duration::from_secs(7)).await;
        assert_eq!(typing.changed_after(&room, 2), None);
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert_eq!(typing.changed_after(&room, 2).unwrap(), [bob]);
        typing.set(&room, bob, None);
        assert_eq!(
            typing.changed_after(&room, 0).unwrap(),
            [] as [OwnedUserId; 0]
        );
        typing.set(&room, bob, Some(Duration::ZERO));
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(
            typing.changed_after(&room, 4).unwrap(),
            [] as [OwnedUserId; 0]
        );
        for _ in 0..6 {
            assert_eq!(told.recv().await.unwrap(), room);
        }
        assert!(told.try_recv().is_err());
    }
}

/// R8.3, data-model.md: counts by thread, moved by receipts, by writing and by joining.
#[tokio::test(start_paused = true)]
async fn counts_follow_receipts_by_thread() {
    for lanes in LANES {
        let rooms = fresh(lanes).await;
        let (alice, bob, room) = two(&rooms).await;
        let late = user("@late:localhost");
        let mention = json!({ "m.mentions": { "user_ids": [bob, "@nobody:localhost"] } });
        let both = |a: &Value, b: Value| {
            let mut both = a.clone();
            both.as_object_mut()
                .unwrap()
                .extend(b.as_object().unwrap().clone());
            both
        };
        let a = say(&rooms, &room, alice, json!({})).await;
        let b = say(&rooms, &room, alice, in_thread(&a)).await;
        say(&rooms, &room, alice, both(&mention, in_thread(&a))).await;
        let d = say(&rooms, &room, alice, mention.clone()).await;
        say(&rooms, &room, alice, in_thread(&a)).await;
        let reaction =
            json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": d, "key": "+" } });
        send(
            &rooms,
            &room,
            Intent::message(alice, "m.reaction", &reaction),
        )
        .await
        .unwrap();
        let threads = |tally| [(a.to_string(), tally)].into();
        assert_eq!(
            unread(&rooms, &room, bob).await,
            Unread {
                total: tally(5, 2),
                main: tally(2, 1),
                threads: threads(tally(3, 1))
            }
        );
        assert_eq!(unread(&rooms, &room, alice).await, Unread::default());
        join(&rooms, late, &room).await.unwrap();
        assert_eq!(unread(&rooms, &room, late).await, Unread::default());
        assert_eq!(hits(&rooms, &room).await, 2);

        let read = async |event: &OwnedEventId, thread| {
            rooms
                .set_receipt(bob, &room, ReceiptKind::Read, event, thread)
                .await
                .unwrap()
        };
        read(&b, Some(a.as_str())).await;
        assert_eq!(
            unread(&rooms, &room, bob).await,
            Unread {
                total: tally(4, 2),
                main: tally(2, 1),
                threads: threads(tally(2, 1))
            }
        );
        read(&d, Some("main")).await;
        assert_eq!(
            unread(&rooms, &room, bob).await,
            Unread {
                total: tally(2, 1),
                main: tally(0, 0),
                threads: threads(tally(2, 1))
            }
        );
        // A receipt for the whole room up to the mention in the main timeline: the thread's rest stays.
        read(&d, None).await;
        assert_eq!(
            unread(&rooms, &room, bob).await,
            Unread {
                total: tally(1, 0),
                main: tally(0, 0),
                threads: threads(tally(1, 0))
            }
        );
        assert_eq!(hits(&rooms, &room).await, 0);
        // Writing reads the thread that is written in, and no other.
        say(&rooms, &room, alice, json!({})).await;
        say(&rooms, &room, bob, in_thread(&a)).await;
        assert_eq!(
            unread(&rooms, &room, bob).await,
            Unread {
                total: tally(1, 0),
                main: tally(1, 0),
                threads: [].into()
            }
        );
        assert_eq!(unread(&rooms, &room, late).await.total, tally(2, 0));
        say(&rooms, &room, bob, json!({})).await;
        assert_eq!(unread(&rooms, &room, bob).await, Unread::default());
        // @room is everybody's, and so is a tombstone, but for who made it: Bob's answer in the thread is
        // all that Alice has to read.
        let everybody = json!({ "m.mentions": { "room": true } });
        say(&rooms, &room, alice, everybody).await;
        assert_eq!(unread(&rooms, &room, bob).await.total, tally(1, 1));
        let grave = json!({ "body": "", "replacement_room": "!x:localhost" });
        let level = json!({ "users": {}, "events": { "m.room.tombstone": 150 } });
        send(
            &rooms,
            &room,
            Intent::state(alice, "m.room.power_levels", "", &level),
        )
        .await
        .unwrap();
        send(
            &rooms,
            &room,
            Intent::state(alice, "m.room.tombstone", "", &grave),
        )
        .await
        .unwrap();
        assert_eq!(unread(&rooms, &room, bob).await.total, tally(2, 2));
        assert_eq!(unread(&rooms, &room, alice).await.total, tally(1, 0));
    }
}

#[derive(Default)]
struct Rules(Mutex<(u64, Vec<Changed>)>);

type Changed = (OwnedUserId, Option<Tastes>);

impl Rules {
    fn set(&self, user: &UserId, rules: &UserRules, ignored: &[&UserId]) {
        let tastes = Tastes {
            rules: Arc::new(CompiledRules::new(rules, user.as_str())),
            ignored: Arc::new(
                ignored
                    .iter()
                    .map(|user| (*user).to_owned())
                    .collect::<BTreeSet<_>>(),
            ),
        };
        let mut state = self.0.lock();
        state.0 += 1;
        state.1.push((user.to_owned(), Some(tastes)));
    }
}

#[async_trait]
impl PushRules for Rules {
    fn changed_since(&self, since: u64) -> (u64, Option<Vec<OwnedUserId>>) {
        let state = self.0.lock();
        let changed = state.1.iter().skip(usize::try_from(since).unwrap());
        (
            state.0,
            Some(changed.map(|(user, _)| user.clone()).collect()),
        )
    }
    async fn tastes(&self, users: &[OwnedUserId]) -> Result<Vec<Option<Tastes>>, RoomError> {
        let state = self.0.lock();
        let of = |user: &OwnedUserId| {
            let last = state.1.iter().rev().find(|(known, _)| known == user);
            last.and_then(|(_, tastes)| tastes.clone())
        };
        Ok(users.iter().map(of).collect())
    }
}

/// Data-model.md, Unread counts: whatever rules members have and change to, what they have not read is the
/// sum of the verdicts that their rules gave when the events came; and rows are written by hits and turns.
#[tokio::test(start_paused = true)]
async fn counts_are_the_sum_of_the_verdicts() {
    for lanes in LANES {
        for seed in 0..10 {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let mut disk = Memory::new();
            let mut rooms = open(&disk, lanes).await;
            let rules = Arc::new(Rules::default());
            rooms.use_push_rules(rules.clone());
            let alice = user("@alice:localhost");
            let room = public_room(&rooms, alice).await;
            let members: Vec<OwnedUserId> = (0..12)
                .map(|n| user(&format!("@m{n}:localhost")).to_owned())
                .collect();
            for member in &members {
                join(&rooms, member, &room).await.unwrap();
            }
            // More rulesets than a room has places for; they differ in this room, or only elsewhere.
            let rulesets: Vec<UserRules> = (0..12)
                .map(|n| {
                    let mut own = UserRules::default();
                    let new = NewRule {
                        actions: Vec::new(),
                        conditions: Vec::new(),
                        pattern: None,
                    };
                    let (kind, id) = match n {
                        0 => return own,
                        1 => (RuleKind::Room, room.to_string()),
                        2 => (RuleKind::Room, "!elsewhere:localhost".to_owned()),
                        _ => (RuleKind::Sender, format!("@m{}:localhost", n - 3)),
                    };
                    own.put(kind, &id, new, &Position::default()).unwrap();
                    own
                })
                .collect();
            let mut has: Vec<usize> = vec![0; members.len()];
            let mut expected: Vec<Vec<(i64, Option<OwnedEventId>, Tally)>> = vec![Vec::new(); 12];
            let mut events: Vec<(OwnedEventId, i64)> = Vec::new();
            for _ in 0..60 {
                let whose = rng.random_range(0..members.len());
                match rng.random_range(0..10) {
                    0..3 => {
                        has[whose] = rng.random_range(0..rulesets.len());
                        rules.set(&members[whose], &rulesets[has[whose]], &[]);
                    }
                    3 if !events.is_empty() => {
                        let (event, seq) = &events[rng.random_range(0..events.len())];
                        let kind = ReceiptKind::Read;
                        let set = rooms.set_receipt(&members[whose], &room, kind, event, None);
                        if set.await.unwrap() {
                            expected[whose].retain(|(at, ..)| at > seq);
                        }
                    }
                    4 => {
                        disk = disk.crash();
                        rooms = open(&disk, lanes).await;
                        rooms.use_push_rules(rules.clone());
                    }
                    _ => {
                        let sender = &members[rng.random_range(0..3)];
                        let mut content = json!({ "msgtype": "m.text", "body": "hello" });
                        if rng.random_range(0..4) == 0 {
                            content["m.mentions"] = json!({ "user_ids": [members[whose]] });
                        }
                        let root = events.first().filter(|_| rng.random_bool(0.3));
                        let root = root.map(|(root, _)| root.clone());
                        if let Some(root) = &root {
                            content["m.relates_to"] = in_thread(root)["m.relates_to"].clone();
                        }
                        let intent = Intent::message(sender, "m.room.message", &content);
                        let placed = send(&rooms, &room, intent).await.unwrap();
                        let facts = EventFacts {
                            event_type: "m.room.message",
                            sender: sender.as_str(),
                            room_id: room.as_str(),
                            state_key: None,
                            content: content.as_object().unwrap(),
                            joined_members: 13,
                            sender_power_level: 0,
                            notification_levels: None,
                        };
                        for (at, member) in members.iter().enumerate() {
                            let me = Recipient {
                                user_id: member.as_str(),
                                display_name: None,
                            };
                            let own = CompiledRules::new(&rulesets[has[at]], member.as_str());
                            let verdict = own.in_room(room.as_str()).verdict(&facts, &me);
                            let added = tally(verdict.notify.into(), verdict.highlight.into());
                            if member == sender {
                                // Who writes has read the thread written in.
                                expected[at].retain(|(_, thread, _)| *thread != root);
                            } else {
                                expected[at].push((placed.seq, root.clone(), added));
                            }
                        }
                        events.push((placed.event_id, placed.seq));
                    }
                }
                for (member, expected) in members.iter().zip(&expected) {
                    let sum = |all: &mut dyn Iterator<Item = &Tally>| {
                        all.fold(tally(0, 0), |sum, one| {
                            tally(sum.notify + one.notify, sum.highlight + one.highlight)
                        })
                    };
                    let unread = unread(&rooms, &room, member).await;
                    let of_main = expected.iter().filter(|(_, thread, _)| thread.is_none());
                    let case = format!("{lanes} lanes, seed {seed}, {member}");
                    assert_eq!(
                        unread.total,
                        sum(&mut expected.iter().map(|(.., t)| t)),
                        "{case}"
                    );
                    assert_eq!(unread.main, sum(&mut of_main.map(|(.., t)| t)), "{case}");
                }
            }
        }
    }
}

/// R8.3: a user's own rules and ignored users count from the moment they are made, for them alone;
/// members with the default rules cost no rows.
#[tokio::test(start_paused = true)]
async fn own_rules_count_for_their_user_alone() {
    for lanes in LANES {
        let rooms = fresh(lanes).await;
        let rules = Arc::new(Rules::default());
        rooms.use_push_rules(rules.clone());
        let (alice, bob, room) = two(&rooms).await;
        let [muted, keyword, ignoring] = [
            "@muted:localhost",
            "@keyword:localhost",
            "@ignoring:localhost",
        ]
        .map(user);
        let rule = |kind, id: &str, actions: Value, pattern: Option<&str>| {
            let mut own = UserRules::default();
            let new = NewRule {
                actions: actions.as_array().unwrap().clone(),
                conditions: Vec::new(),
                pattern: pattern.map(str::to_owned),
            };
            own.put(kind, id, new, &Position::default()).unwrap();
            own
        };
        let mute = rule(RuleKind::Room, room.as_str(), json!([]), None);
        let watch = rule(
            RuleKind::Content,
            "tea",
            json!(["notify", { "set_tweak": "highlight" }]),
            Some("tea"),
        );
        rules.set(ignoring, &UserRules::default(), &[alice]);
        for who in [muted, keyword, ignoring] {
            join(&rooms, who, &room).await.unwrap();
        }
        for n in 0..20 {
            join(&rooms, user(&format!("@m{n}:localhost")), &room)
                .await
                .unwrap();
        }
        say(&rooms, &room, alice, json!({ "body": "tea?" })).await;
        let of = async |who| unread(&rooms, &room, who).await.total;
        assert_eq!(
            (of(bob).await, of(muted).await, of(keyword).await),
            (tally(1, 0), tally(1, 0), tally(1, 0))
        );
        assert_eq!(of(ignoring).await, tally(0, 0));
        assert_eq!(hits(&rooms, &room).await, 1);
        rules.set(muted, &mute, &[]);
        rules.set(keyword, &watch, &[]);
        say(&rooms, &room, alice, json!({ "body": "more tea?" })).await;
        say(&rooms, &room, bob, json!({})).await;
        assert_eq!(
            (of(bob).await, of(muted).await, of(keyword).await),
            (tally(0, 0), tally(1, 0), tally(3, 1))
        );
        assert_eq!(of(ignoring).await, tally(1, 0));
        // A mention reaches the muted one as well.
        say(
            &rooms,
            &room,
            alice,
            json!({ "m.mentions": { "user_ids": [muted] } }),
        )
        .await;
        assert_eq!(of(muted).await, tally(2, 1));
        // Who has left is not counted for.
        rooms.leave(muted, &room, None).await.unwrap();
        let before = hits(&rooms, &room).await;
        say(&rooms, &room, bob, json!({})).await;
        assert_eq!(hits(&rooms, &room).await, before);
    }
}

/// Threat E8: what is redacted counts no more, nor do its highlights, whether read before or not; a
/// thread that loses its only message goes on counting from where it was.
#[tokio::test(start_paused = true)]
async fn e8_what_is_redacted_counts_no_more() {
    for lanes in LANES {
        let rooms = fresh(lanes).await;
        let (alice, bob, room) = two(&rooms).await;
        let redact = async |event: &OwnedEventId| {
            let mut intent = Intent::message(alice, "m.room.redaction", &json!({}));
            intent.redacts = Some(event.clone());
            intent.content = serde_json::value::to_raw_value(&json!({ "redacts": event })).unwrap();
            send(&rooms, &room, intent).await.unwrap();
        };
        let of = async |who| unread(&rooms, &room, who).await;
        let read = say(&rooms, &room, alice, json!({})).await;
        rooms
            .set_receipt(bob, &room, ReceiptKind::Read, &read, None)
            .await
            .unwrap();
        let root = say(&rooms, &room, alice, json!({})).await;
        let mention = json!({ "m.mentions": { "user_ids": [bob] } });
        let mention = say(&rooms, &room, alice, mention).await;
        let reply = say(&rooms, &room, alice, in_thread(&root)).await;
        assert_eq!(of(bob).await.total, tally(3, 1));
        redact(&mention).await;
        assert_eq!(of(bob).await.total, tally(2, 0));
        // What was read before takes nothing from what is not.
        redact(&read).await;
        assert_eq!(of(bob).await.total, tally(2, 0));
        redact(&reply).await;
        assert_eq!(of(bob).await.total, tally(1, 0));
        say(&rooms, &room, alice, in_thread(&root)).await;
        let unread = of(bob).await;
        assert_eq!(unread.threads, [(root.to_string(), tally(1, 0))].into());
        assert_eq!((unread.main, unread.total), (tally(1, 0), tally(2, 0)));
    }
}

/// data-model.md, Unread counts: who reads thread by thread doesn't count from their join for ever.
#[tokio::test(start_paused = true)]
async fn counts_begin_where_all_is_read() {
    for lanes in LANES {
        let rooms = fresh(lanes).await;
        let (alice, bob, room) = two(&rooms).await;
        let base = async || {
            let key = comity_rooms::tables::RoomReceipt {
                room: RoomKey::of(room.as_str()),
                user: bob.to_string(),
                kind: String::new(),
                thread: String::new(),
            };
            let row = rooms.tenant().reader().get::<Receipts>(&key).await.unwrap();
            row.unwrap().value.seq
        };
        let read = async |event: &OwnedEventId, thread: &str| {
            rooms
                .set_receipt(bob, &room, ReceiptKind::Read, event, Some(thread))
                .await
                .unwrap()
        };
        let seq = async |event: &OwnedEventId| {
            let found = rooms.view(&room).await.unwrap().event(event).await.unwrap();
            found.unwrap().place().unwrap().0
        };
        let joined = base().await;
        let mention = json!({ "m.mentions": { "user_ids": [bob] } });
        let root = say(&rooms, &room, alice, mention).await;
        let first = say(&rooms, &room, alice, in_thread(&root)).await;
        let second = say(&rooms, &room, alice, in_thread(&root)).await;
        let last = say(&rooms, &room, alice, json!({})).await;
        read(&last, "main").await;
        assert_eq!(base().await, joined);
        read(&first, root.as_str()).await;
        assert_eq!(base().await, seq(&first).await);
        let one_left = Unread {
            total: tally(1, 0),
            main: tally(0, 0),
            threads: [(root.to_string(), tally(1, 0))].into(),
        };
        assert_eq!(unread(&rooms, &room, bob).await, one_left);
        assert_eq!(hits(&rooms, &room).await, 0);
        read(&second, root.as_str()).await;
        assert_eq!(base().await, seq(&last).await);
        assert_eq!(unread(&rooms, &room, bob).await, Unread::default());
        say(&rooms, &room, alice, in_thread(&root)).await;
        assert_eq!(unread(&rooms, &room, bob).await, one_left);
    }
}
