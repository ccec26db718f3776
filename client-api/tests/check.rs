//! Faults (threats, the checker): of a store with keys, messages to devices, a key backup and a connection of sliding sync there is
//! nothing to find, and each row that contradicts another is found.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::{collections::BTreeMap, fmt::Display, sync::Arc};

use comity_key_backup::{check as of_backups, tables as backups};
use comity_keys::{check as of_keys, tables as keys};
use comity_protocol::sign::SigningKey;
use comity_runtime::Runtime;
use comity_storage::{At, Batch, Engine, Home, Range, RoomKey, Table, engine::Memory};
use comity_sync::{check as of_sync, tables as sync};
use comity_testkit::{Place, Server, Settings, Wire, check, encode, files, lanes};
use comity_to_device::{check as of_messages, tables as messages};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";
const SLIDING: &str = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync";
const ALICE: &str = "@alice:localhost";
const NOBODY: &str = "@nobody:localhost";
const ELSEWHERE: &str = "elsewhere.example";
const CURVE: &str = "curve25519";

/// A store with something of everything.
struct World {
    disk: Memory,
    server: Server,
    device: String,
    connection: (sync::OfDevice, sync::Connection),
}

impl World {
    async fn new() -> Self {
        let disk = Memory::new();
        let place = Place {
            disk: disk.clone(),
            files: files(),
            lanes: u8::try_from(lanes()).unwrap(),
            sync: true,
            runtime: Runtime::simulated(7),
            wire: Wire::new(),
            on_fatal: Arc::new(|error| panic!("the store failed: {error}")),
        };
        let server = Server::open(place, Settings::default()).await.unwrap();
        let alice = server.register("alice").await;
        assert_eq!(alice.id, ALICE);
        for n in 0..3 {
            let body = json!({ "messages": { ALICE: { &alice.device: { "n": n } } } });
            let path = format!("{V3}/sendToDevice/org.example.message/{n}");
            let _: Value = alice.put(path).json(body).send().await.ok();
        }
        let backup = json!({ "algorithm": "org.example.algorithm", "auth_data": {} });
        let backup = alice.post(format!("{V3}/room_keys/version")).json(backup);
        assert_eq!(backup.send().await.ok()["version"], "1");
        let path = format!("{V3}/room_keys/keys/{}/session", encode("!room:localhost"));
        let key = json!({
            "first_message_index": 0, "forwarded_count": 0, "is_verified": true, "session_data": {},
        });
        let put = alice.put(path).query("version", "1").json(key);
        let _: Value = put.send().await.ok();
        let list = json!({ "ranges": [[0, 9]], "timeline_limit": 1, "required_state": [] });
        let body = json!({ "lists": { "all": list } });
        let _: Value = alice.post(SLIDING).json(body).send().await.ok();

        // What a connection was told isn't waited for.
        let reader = server.api.rooms.tenant().lane(Home::User(ALICE)).reader();
        let connections = Range::everywhere(|_| {});
        let mut connections = reader.scan::<sync::Connections>(connections).await.unwrap();
        let (key, row) = connections.pop().unwrap();
        let world = Self {
            disk,
            server,
            device: alice.device.clone(),
            connection: (key, row.value),
        };
        world.commit(Home::User(ALICE), World::give_keys).await;
        world
    }

    /// A one-time key, a fallback key and a master key.
    fn give_keys(&self, batch: &mut Batch) {
        one_time_key(self.own(), batch);
        fallback_key(self.own(), false, batch);
        let supply = keys::Supply {
            one_time_keys: BTreeMap::from([(CURVE.to_owned(), 1)]),
            unused_fallback: vec![CURVE.to_owned()],
        };
        batch.put::<keys::Supplies>(&self.own(), &supply);
        let public = SigningKey::from_seed("1", &[1; 32]).unwrap();
        let public = public.verify_key().to_base64();
        let master = json!({
            "user_id": ALICE, "usage": ["master"], "keys": { format!("ed25519:{public}"): public },
        });
        let signing = keys::CrossSigning {
            master: Some(master.to_string()),
            ..keys::CrossSigning::default()
        };
        batch.put::<keys::CrossSigningKeys>(&keys::UserKey(ALICE.into()), &signing);
    }

    fn own(&self) -> keys::DeviceKey {
        keys::DeviceKey::new(ALICE, &self.device)
    }

    async fn commit(&self, home: Home<'_>, write: impl FnOnce(&Self, &mut Batch)) {
        let lane = self.server.api.rooms.tenant().lane(home);
        let mut batch = lane.batch();
        write(self, &mut batch);
        lane.commit(batch).await.unwrap();
    }

    async fn findings(&self) -> Vec<String> {
        let engine = Engine::Memory(self.disk.clone());
        check(&engine, self.server.name()).await.unwrap().1
    }
}

fn ghost() -> keys::DeviceKey {
    keys::DeviceKey::new(ALICE, "GHOST")
}

fn one_time_key(device: keys::DeviceKey, batch: &mut Batch) {
    let key = keys::OneTimeKeyKey {
        device,
        algorithm: CURVE.into(),
        pos: At::Commit,
        index: 0,
    };
    let value = keys::OneTimeKey {
        key_id: format!("{CURVE}:one"),
        json: "\"one\"".into(),
    };
    batch.put::<keys::OneTimeKeys>(&key, &value);
}

fn fallback_key(device: keys::DeviceKey, used: bool, batch: &mut Batch) {
    let key = keys::FallbackKey {
        device,
        algorithm: CURVE.into(),
    };
    let value = keys::Fallback {
        key_id: format!("{CURVE}:last"),
        json: "\"last\"".into(),
        used,
    };
    batch.put::<keys::Fallbacks>(&key, &value);
}

fn device(key: &keys::DeviceKey, device_id: &str, batch: &mut Batch) {
    let value = keys::Device {
        device_id: device_id.into(),
        name: None,
        keys: None,
    };
    batch.put::<keys::Devices>(key, &value);
}

/// A message in the queue of a device that isn't there, with these totals.
fn message(index: u32, nth: u64, batch: &mut Batch) {
    let key = messages::InQueue {
        user: ALICE.into(),
        device: [1; 16],
        pos: At::Commit,
        index,
    };
    let message = messages::Message {
        sender: "12345".into(),
        event_type: "123".into(),
        content: "{}".into(),
    };
    let value = messages::Queued {
        nth,
        bytes: 10 * nth,
        item: message,
    };
    batch.put::<messages::Queues>(&key, &value);
}

fn backup(count: u64, etag: u64, batch: &mut Batch) {
    let value = backups::Backup {
        algorithm: "org.example.algorithm".into(),
        auth_data: "{}".into(),
        count,
        etag,
    };
    batch.put::<backups::Backups>(&version(), &value);
}

fn version() -> backups::UserVersion {
    let (user, version) = (ALICE.into(), 1);
    backups::UserVersion { user, version }
}

/// A connection of a device that isn't there.
fn connection_of_ghost() -> sync::OfDevice {
    sync::OfDevice {
        user: ALICE.into(),
        device: [1; 16],
        conn: [2; 16],
    }
}

type Damage = fn(&World, &mut Batch);

/// What is said of a damage to rows of a home.
struct Case {
    line: String,
    home: Home<'static>,
    damage: Damage,
}

fn case<T: Table>(home: Home<'static>, broken: impl Display, damage: Damage) -> Case {
    let (Home::User(whose) | Home::Server(whose)) = home else {
        panic!("{home:?}");
    };
    Case {
        line: format!("{} of {whose}: {broken}", T::NAME),
        home,
        damage,
    }
}

fn of_alice<T: Table>(broken: impl Display, damage: Damage) -> Case {
    case::<T>(Home::User(ALICE), broken, damage)
}

fn key_cases() -> Vec<Case> {
    use of_keys::Broken::*;
    vec![
        of_alice::<keys::Devices>(NotKept, |world, batch| {
            batch.delete::<keys::Devices>(&world.own());
        }),
        of_alice::<keys::Devices>(NoDevice, |_, batch| device(&ghost(), "GHOST", batch)),
        of_alice::<keys::Devices>(OtherName, |world, batch| {
            device(&world.own(), "GHOST", batch);
        }),
        of_alice::<keys::OneTimeKeys>(NoDevice, |_, batch| one_time_key(ghost(), batch)),
        of_alice::<keys::Fallbacks>(NoDevice, |_, batch| fallback_key(ghost(), true, batch)),
        of_alice::<keys::GivenKeys>(NoDevice, |_, batch| {
            let key = keys::GivenKey {
                device: ghost(),
                pos: At::Commit,
                key: keys::NameHash::of(&["one"]),
            };
            batch.put::<keys::GivenKeys>(&key, &());
        }),
        of_alice::<keys::Supplies>(NoDevice, |_, batch| {
            batch.put::<keys::Supplies>(&ghost(), &keys::Supply::default());
        }),
        of_alice::<keys::Supplies>(Count, |world, batch| one_time_key(world.own(), batch)),
        of_alice::<keys::Supplies>(Count, |world, batch| {
            fallback_key(world.own(), true, batch);
        }),
        of_alice::<keys::Supplies>(Count, |world, batch| {
            batch.delete::<keys::Supplies>(&world.own());
        }),
        of_alice::<keys::CrossSigningKeys>(CrossSigning, |_, batch| {
            let signing = keys::CrossSigning {
                self_signing: Some("{}".into()),
                ..keys::CrossSigning::default()
            };
            batch.put::<keys::CrossSigningKeys>(&keys::UserKey(ALICE.into()), &signing);
        }),
        case::<keys::CrossSigningKeys>(Home::User(NOBODY), NoUser, |_, batch| {
            let signing = keys::CrossSigning::default();
            batch.put::<keys::CrossSigningKeys>(&keys::UserKey(NOBODY.into()), &signing);
        }),
        of_alice::<keys::Lists>(NotListed, |_, batch| {
            let list = keys::List::default();
            batch.put::<keys::Lists>(&keys::UserKey(ALICE.into()), &list);
        }),
        of_alice::<keys::Changes>(NotLatest, |_, batch| {
            let key = keys::ChangeKey {
                slot: Home::User(ALICE).slot().number(),
                pos: At::Commit,
                user: ALICE.into(),
            };
            batch.put::<keys::Changes>(&key, &keys::ChangedFor::default());
        }),
    ]
}

fn message_cases() -> Vec<Case> {
    use of_messages::Broken::*;
    vec![
        of_alice::<messages::Queues>(NoDevice, |_, batch| message(0, 1, batch)),
        of_alice::<messages::Queues>(Totals, |_, batch| {
            message(0, 1, batch);
            message(1, 9, batch);
        }),
        of_alice::<messages::Queues>(Order, |_, batch| {
            message(0, 1, batch);
            message(2, 2, batch);
        }),
        case::<messages::Outgoing>(Home::Server(ELSEWHERE), NotOwed, |_, batch| {
            let key = messages::InOutgoing {
                server: ELSEWHERE.into(),
                pos: At::Commit,
                index: 0,
            };
            let value = messages::Queued {
                nth: 1,
                bytes: 2,
                item: messages::Edu("{}".into()),
            };
            batch.put::<messages::Outgoing>(&key, &value);
        }),
    ]
}

fn backup_cases() -> Vec<Case> {
    use of_backups::Broken::*;
    vec![
        of_alice::<backups::Sessions>(NoBackup, |_, batch| {
            batch.delete::<backups::Backups>(&version());
        }),
        of_alice::<backups::Backups>(Count, |_, batch| backup(2, 1, batch)),
        of_alice::<backups::Backups>(Etag, |_, batch| backup(1, 0, batch)),
        of_alice::<backups::Backups>(NotGiven, |_, batch| {
            let given = backups::Given { last: 0 };
            batch.put::<backups::Versions>(&backups::UserKey(ALICE.into()), &given);
        }),
        // Newer than its backup, which doesn't count it.
        of_alice::<backups::Backups>(Etag, |_, batch| session("!room:localhost", batch)),
        of_alice::<backups::Sessions>(OtherName, |_, batch| session("!other:localhost", batch)),
        case::<backups::Versions>(Home::User(NOBODY), NoUser, |_, batch| {
            let given = backups::Given { last: 1 };
            batch.put::<backups::Versions>(&backups::UserKey(NOBODY.into()), &given);
        }),
    ]
}

/// A key of a session of a room, under a name that isn't its own.
fn session(room_id: &str, batch: &mut Batch) {
    let key = backups::UserSession {
        backup: version(),
        room: RoomKey::of("!room:localhost"),
        session: [9; 16],
    };
    let value = backups::Session {
        room_id: room_id.into(),
        session_id: "another".into(),
        first_message_index: 0,
        forwarded_count: 0,
        is_verified: false,
        session_data: "{}".into(),
    };
    batch.put::<backups::Sessions>(&key, &value);
}

fn sync_cases() -> Vec<Case> {
    use of_sync::Broken::*;
    vec![
        of_alice::<sync::Connections>(NoDevice, |world, batch| {
            let (_, connection) = &world.connection;
            batch.put::<sync::Connections>(&connection_of_ghost(), connection);
        }),
        of_alice::<sync::ConnectionRooms>(NoConnection, |_, batch| {
            let key = sync::InConnection {
                of: connection_of_ghost(),
                room: RoomKey::of("!room:localhost"),
            };
            batch.put::<sync::ConnectionRooms>(&key, &sync::Known::default());
        }),
        of_alice::<sync::ConnectionStates>(NoConnection, |_, batch| {
            let (of, number) = (connection_of_ghost(), 0);
            let wanted = comity_sync::sliding::Required::default();
            batch.put::<sync::ConnectionStates>(&sync::OfConnection { of, number }, &wanted);
        }),
        of_alice::<sync::Connections>(Position, |world, batch| {
            let (key, mut connection) = world.connection.clone();
            connection.newest.serial = 9;
            batch.put::<sync::Connections>(&key, &connection);
        }),
    ]
}

#[tokio::test(start_paused = true)]
async fn what_contradicts_another_row_is_found() {
    assert_eq!(World::new().await.findings().await, [""; 0]);
    let cases = [key_cases(), message_cases(), backup_cases(), sync_cases()];
    for (n, case) in cases.into_iter().flatten().enumerate() {
        let world = World::new().await;
        world.commit(case.home, case.damage).await;
        let found = world.findings().await;
        assert!(found.contains(&case.line), "{n}, {}: {found:?}", case.line);
    }
}
