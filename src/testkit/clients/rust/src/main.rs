//! What a matrix-rust-sdk client (Element X's library) goes through with a homeserver, in order: each
//! step goes on where the one before stopped.
//!
//! `HOMESERVER_URL`: base URL; registration is open. `HOMESERVER_RESTART`: a command that kills the
//! server, starts it again and returns when it answers. Then they look at a list of rooms ([`room_list`]). With
//! `OTHER_HOMESERVER_URL` instead it is the conversation in an encrypted room ([`encryption`]).

mod device;
mod encryption;
mod room_list;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use matrix_sdk::RoomState;
use matrix_sdk::room::MessagesOptions;
use matrix_sdk::room::edit::EditedContent;
use matrix_sdk::ruma::UInt;
use matrix_sdk::ruma::api::client::receipt::create_receipt::v3::ReceiptType;
use matrix_sdk::ruma::api::client::room::create_room::v3::{Request as CreateRoom, RoomPreset};
use matrix_sdk::ruma::events::reaction::ReactionEventContent;
use matrix_sdk::ruma::events::receipt::{ReceiptThread, ReceiptType as StoredReceipt};
use matrix_sdk::ruma::events::relation::{Annotation, Thread};
use matrix_sdk::ruma::events::room::message::{
    Relation, RoomMessageEventContent, RoomMessageEventContentWithoutRelation,
};
use serde_json::Value;

use device::{Device, client, log_in, sign_up, unique};

const HOME: &str = "HOMESERVER_URL";

/// The two users, from their sign-up on.
struct Scenario {
    alice: Device,
    bob: Device,
    names: [String; 2],
    password: String,
}

async fn sign_up_and_create() -> Result<Scenario> {
    let unique = unique()?;
    let names = ["alice", "bob"].map(|name| format!("{name}-{unique}"));
    let password = format!("{unique}-Correct-Horse");
    let [alice, bob] = [
        sign_up(client(HOME)?, &names[0], &password).await?,
        sign_up(client(HOME)?, &names[1], &password).await?,
    ];
    ensure!(
        sign_up(client(HOME)?, &names[0], &password).await.is_err(),
        "a taken name was given again"
    );
    ensure!(
        alice.whoami().await?.user_id.as_str() == alice.user_id().context("no session")?.as_str()
    );
    let mut request = CreateRoom::new();
    request.preset = Some(RoomPreset::PrivateChat);
    request.name = Some("Scenario".to_owned());
    let room = alice.create_room(request).await?.room_id().to_owned();
    Ok(Scenario {
        alice: Device::new(alice, &room),
        bob: Device::new(bob, &room),
        names,
        password,
    })
}

async fn invite_and_join(scenario: &mut Scenario) -> Result<()> {
    let Scenario { alice, bob, .. } = scenario;
    alice
        .until("the room", async |device| Ok(device.room().ok()))
        .await?;
    ensure!(
        bob.client.join_room_by_id(&bob.room).await.is_err(),
        "joined without an invitation"
    );
    let guest = bob.client.user_id().context("no session")?.to_owned();
    alice.room()?.invite_user_by_id(&guest).await?;
    let invited = bob
        .until("the invitation", async |device| Ok(device.room().ok()))
        .await?;
    ensure!(invited.state() == RoomState::Invited && invited.name().as_deref() == Some("Scenario"));
    invited.join().await?;
    bob.until("the join", async |device| {
        Ok((device.room()?.state() == RoomState::Joined).then_some(()))
    })
    .await?;
    alice
        .until("the other's join", async |device| {
            let member = device.room()?.get_member_no_sync(&guest).await?;
            Ok(member
                .filter(|member| member.membership().as_str() == "join")
                .map(drop))
        })
        .await
}

async fn send(scenario: &mut Scenario) -> Result<()> {
    let id = scenario.alice.say("hello").await?;
    ensure!(scenario.bob.sees(&id).await?["content"]["body"] == "hello");
    Ok(())
}

async fn edit(scenario: &mut Scenario) -> Result<()> {
    let Scenario { alice, bob, .. } = scenario;
    let id = alice.say("teh text").await?;
    let new = EditedContent::RoomMessage(RoomMessageEventContentWithoutRelation::text_plain(
        "the text",
    ));
    let replacement = alice.room()?.make_edit_event(&id, new).await?;
    let replacement = alice.room()?.send(replacement).await?.event_id;
    ensure!(bob.sees(&replacement).await?["content"]["m.relates_to"]["event_id"] == id.as_str());
    let bundled = &bob.fetch(&id).await?["unsigned"]["m.relations"]["m.replace"];
    ensure!(
        bundled["content"]["m.new_content"]["body"] == "the text",
        "not bundled: {bundled}"
    );
    Ok(())
}

async fn react(scenario: &mut Scenario) -> Result<()> {
    let Scenario { alice, bob, .. } = scenario;
    let id = alice.say("like this?").await?;
    bob.sees(&id).await?;
    let reaction = || ReactionEventContent::new(Annotation::new(id.clone(), "👍".to_owned()));
    let sent = bob.room()?.send(reaction()).await?.event_id;
    ensure!(alice.sees(&sent).await?["content"]["m.relates_to"]["key"] == "👍");
    ensure!(
        bob.room()?.send(reaction()).await.is_err(),
        "the same reaction was taken twice"
    );
    Ok(())
}

async fn redact(scenario: &mut Scenario) -> Result<()> {
    let Scenario { alice, bob, .. } = scenario;
    let id = alice.say("a secret").await?;
    bob.sees(&id).await?;
    let redaction = alice
        .room()?
        .redact(&id, Some("slip"), None)
        .await?
        .event_id;
    bob.sees(&redaction).await?;
    let redacted = bob.fetch(&id).await?;
    ensure!(
        redacted["content"]
            .as_object()
            .is_some_and(serde_json::Map::is_empty),
        "still there: {redacted}"
    );
    Ok(())
}

async fn thread(scenario: &mut Scenario) -> Result<()> {
    let Scenario { alice, bob, .. } = scenario;
    let root = alice.say("a topic").await?;
    bob.sees(&root).await?;
    let mut last = root.clone();
    for body in ["first", "second"] {
        let mut content = RoomMessageEventContent::text_plain(body);
        content.relates_to = Some(Relation::Thread(Thread::plain(root.clone(), last)));
        last = bob.room()?.send(content).await?.event_id;
    }
    alice.sees(&last).await?;
    let bundled = &alice.fetch(&root).await?["unsigned"]["m.relations"]["m.thread"];
    ensure!(
        bundled["count"] == 2 && bundled["latest_event"]["event_id"] == last.as_str(),
        "not bundled: {bundled}"
    );
    let threaded = ReceiptThread::Thread(root);
    alice
        .room()?
        .send_single_receipt(ReceiptType::Read, threaded, last)
        .await?;
    Ok(())
}

async fn unread(scenario: &mut Scenario) -> Result<()> {
    let Scenario { alice, bob, .. } = scenario;
    let caught_up = bob.say("catch up").await?;
    alice.sees(&caught_up).await?;
    alice.read(&caught_up).await?;
    alice.counts(0, 0).await?;
    bob.say("one").await?;
    bob.say("two").await?;
    let me = alice.client.user_id().context("no session")?.to_owned();
    let mention = RoomMessageEventContent::text_plain("three").add_mentions(
        matrix_sdk::ruma::events::Mentions::with_user_ids([me.clone()]),
    );
    let last = bob.room()?.send(mention).await?.event_id;
    alice.counts(3, 1).await?;
    alice.read(&last).await?;
    alice.counts(0, 0).await?;
    bob.until("how far the other has read", async |device| {
        let receipt = device
            .room()?
            .load_user_receipt(StoredReceipt::Read, ReceiptThread::Unthreaded, &me)
            .await?;
        Ok(receipt.filter(|(id, _)| *id == last).map(drop))
    })
    .await
}

async fn paginate(scenario: &mut Scenario) -> Result<()> {
    let mut sent = Vec::new();
    for index in 0..45 {
        sent.push(scenario.alice.say(&format!("page {index}")).await?);
    }
    let room = scenario.bob.room()?;
    let (mut from, mut back) = (None::<String>, Vec::new());
    loop {
        let mut options = MessagesOptions::backward().from(from.as_deref());
        options.limit = UInt::from(10_u32);
        let page = room.messages(options).await?;
        back.extend(page.chunk);
        ensure!(back.len() < 1_000, "pagination never ends");
        let Some(end) = page.end else { break };
        from = Some(end);
    }
    let events = back
        .iter()
        .rev()
        .map(|event| event.raw().deserialize_as::<Value>());
    let events: Vec<Value> = events.collect::<Result<_, _>>()?;
    ensure!(
        events
            .first()
            .is_some_and(|event| event["type"] == "m.room.create"),
        "not back to the first"
    );
    let of_pages = events.iter().filter_map(|event| event["event_id"].as_str());
    let of_pages: Vec<&str> = of_pages
        .filter(|id| sent.iter().any(|sent| sent.as_str() == *id))
        .collect();
    ensure!(
        of_pages == sent.iter().map(|id| id.as_str()).collect::<Vec<_>>(),
        "lost, repeated or out of order"
    );
    Ok(())
}

async fn converge(scenario: &mut Scenario) -> Result<()> {
    let Scenario {
        alice,
        bob,
        names,
        password,
    } = scenario;
    let mut other = Device::new(
        log_in(client(HOME)?, &names[0], password).await?,
        &alice.room,
    );
    other.sync(Duration::ZERO).await?;
    ensure!(other.client.device_id() != alice.client.device_id());
    alice.room()?.set_is_favourite(true, Some(0.5)).await?;
    other
        .until("the tag", async |device| {
            Ok(device.room()?.is_favourite().then_some(()))
        })
        .await?;
    let mut ids = vec![alice.say("from the first").await?];
    ids.push(other.say("from the second").await?);
    ids.push(bob.say("to both").await?);
    for device in [&mut *alice, &mut other] {
        device.sees(&ids[2]).await?;
        let order = device
            .timeline
            .iter()
            .filter_map(|event| event["event_id"].as_str());
        let order: Vec<&str> = order
            .filter(|id| ids.iter().any(|sent| sent.as_str() == *id))
            .collect();
        ensure!(
            order == ids.iter().map(|id| id.as_str()).collect::<Vec<_>>(),
            "a device differs: {order:?}"
        );
    }
    other
        .until("unread", async |device| {
            Ok((device
                .room()?
                .unread_notification_counts()
                .notification_count
                > 0)
            .then_some(()))
        })
        .await?;
    alice.read(&ids[2]).await?;
    alice.counts(0, 0).await?;
    other.counts(0, 0).await?;
    other.client.matrix_auth().logout().await?;
    ensure!(
        other.client.whoami().await.is_err(),
        "the token outlived its device"
    );
    alice.client.whoami().await?;
    Ok(())
}

/// Kills the server and waits until it answers again.
async fn restart() -> Result<()> {
    let restart = std::env::var("HOMESERVER_RESTART").context("HOMESERVER_RESTART")?;
    let mut command = tokio::process::Command::new("bash");
    let ended = command.args(["-c", &restart]).status().await?;
    ensure!(ended.success(), "no restart");
    Ok(())
}

async fn reconnect(scenario: &mut Scenario) -> Result<()> {
    let Scenario { alice, bob, .. } = scenario;
    let before = bob.say("before the crash").await?;
    restart().await?;
    let after = bob.say("after the crash").await?;
    // With the sync tokens from before.
    for device in [&mut *alice, &mut *bob] {
        ensure!(device.sees(&before).await?["content"]["body"] == "before the crash");
        device.sees(&after).await?;
        for id in [&before, &after] {
            let copies = device
                .timeline
                .iter()
                .filter(|event| event["event_id"] == id.as_str())
                .count();
            ensure!(copies == 1, "{copies} copies of {id}");
        }
    }
    Ok(())
}

async fn leave(scenario: &mut Scenario) -> Result<()> {
    let Scenario { alice, bob, .. } = scenario;
    bob.room()?.leave().await?;
    let guest = bob.client.user_id().context("no session")?.to_owned();
    alice
        .until("the other's leave", async |device| {
            let member = device.room()?.get_member_no_sync(&guest).await?;
            Ok(member
                .is_none_or(|member| member.membership().as_str() == "leave")
                .then_some(()))
        })
        .await?;
    if bob.say("still here?").await.is_ok() {
        bail!("who has left can send");
    }
    Ok(())
}

async fn come_back(scenario: &mut Scenario) -> Result<()> {
    let Scenario { alice, bob, .. } = scenario;
    let guest = bob.client.user_id().context("no session")?.to_owned();
    alice.room()?.invite_user_by_id(&guest).await?;
    let invited = bob
        .until("the invitation", async |device| {
            let room = device.room()?;
            Ok((room.state() == RoomState::Invited).then_some(room))
        })
        .await?;
    invited.join().await?;
    bob.until("the join", async |device| {
        Ok((device.room()?.state() == RoomState::Joined).then_some(()))
    })
    .await?;
    let id = bob.say("here again").await?;
    alice.sees(&id).await.map(drop)
}

/// What passed and what failed, a line each.
#[derive(Default)]
struct Report {
    passed: u32,
    failed: u32,
}

impl Report {
    fn step(&mut self, name: &str, outcome: &Result<()>) {
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("ok {name}");
            }
            Err(error) => {
                self.failed += 1;
                println!("FAILED {name}: {error:#}");
            }
        }
    }
}

/// The steps that follow the first, as functions of what that made.
macro_rules! converse {
    ($report:ident, $first:ident, $($step:ident)*) => {
        match $first().await {
            Err(error) => $report.step(stringify!($first), &Err(error)),
            Ok(mut scenario) => {
                $report.step(stringify!($first), &Ok(()));
                $( $report.step(stringify!($step), &$step(&mut scenario).await); )*
            }
        }
    };
}
use converse;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut report = Report::default();
    if std::env::var(encryption::OTHER).is_ok() {
        encryption::converse(&mut report).await;
    } else {
        converse!(report, sign_up_and_create,
            invite_and_join send edit react redact thread unread paginate converge reconnect leave come_back);
        room_list::converse(&mut report).await;
    }
    println!("{} passed, {} failed", report.passed, report.failed);
    if report.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
