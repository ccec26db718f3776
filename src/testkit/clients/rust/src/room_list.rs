//! The list of rooms as Element X shows it: sliding sync through matrix-sdk-ui's room list.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, pin_mut};
use matrix_sdk::ruma::api::client::room::create_room::v3::{Request as CreateRoom, RoomPreset};
use matrix_sdk::ruma::events::AnyInitialStateEvent;
use matrix_sdk::ruma::events::room::message::RoomMessageEventContent;
use matrix_sdk::ruma::serde::Raw;
use matrix_sdk::ruma::{OwnedEventId, OwnedRoomId};
use matrix_sdk::{Client, RoomState};
use matrix_sdk_ui::eyeball_im::Vector;
use matrix_sdk_ui::room_list_service::filters::new_filter_non_left;
use matrix_sdk_ui::room_list_service::{RoomList, RoomListItem};
use matrix_sdk_ui::sync_service::SyncService;
use matrix_sdk_ui::timeline::{RoomExt as _, TimelineItem};
use tokio::time::timeout;

use crate::device::{client, log_in, sign_up, unique};
use crate::encryption::{encrypting, encryption, ready};
use crate::{HOME, Report, restart};

const PATIENCE: Duration = Duration::from_secs(30);
/// Rooms that fit on a screen.
const SCREEN: usize = 20;

/// Alice looks at her rooms, in which bob writes.
struct Scenario {
    alice: Client,
    bob: Client,
    service: SyncService,
    list: RoomList,
    /// In the order in which they were made.
    rooms: Vec<OwnedRoomId>,
}

pub async fn converse(report: &mut Report) {
    crate::converse!(report, open_the_list, a_message_moves_up an_invitation_comes a_secret_is_read the_list_goes_on the_list_empties);
}

fn room(name: &str) -> CreateRoom {
    let mut request = CreateRoom::new();
    request.preset = Some(RoomPreset::PublicChat);
    request.name = Some(name.to_owned());
    request
}

async fn say(client: &Client, room: &OwnedRoomId, body: &str) -> Result<OwnedEventId> {
    let room = client.get_room(room).context("the room is not there")?;
    let sent = room.send(RoomMessageEventContent::text_plain(body)).await?;
    Ok(sent.event_id)
}

/// Waits until the list, as a client draws it, is so.
async fn shows(
    list: &RoomList,
    what: &str,
    is: impl Fn(&Vector<RoomListItem>) -> bool,
) -> Result<()> {
    let (changes, controller) = list.entries_with_dynamic_adapters(SCREEN);
    pin_mut!(changes);
    controller.set_filter(Box::new(new_filter_non_left()));
    let mut shown = Vector::new();
    let drawn = async {
        while let Some(changes) = changes.next().await {
            for change in changes {
                change.apply(&mut shown);
            }
            if is(&shown) {
                return Ok(());
            }
        }
        bail!("the list ended before {what}")
    };
    let drawn = timeout(PATIENCE, drawn).await;
    drawn.with_context(|| format!("waited in vain: {what}"))?
}

async fn open_the_list() -> Result<Scenario> {
    let unique = unique()?;
    let names = ["alice", "bob"].map(|name| format!("{name}-list-{unique}"));
    let password = format!("{unique}-Correct-Horse");
    let maker = sign_up(client(HOME)?, &names[0], &password).await?;
    let bob = ready(sign_up(encrypting(HOME)?, &names[1], &password).await?).await;
    let mut rooms = Vec::new();
    for n in 0..SCREEN + 5 {
        let made = maker.create_room(room(&format!("room {n}"))).await?;
        rooms.push(made.room_id().to_owned());
    }
    for room in &rooms[..2] {
        bob.join_room_by_id(room).await?;
    }
    // What she sees comes by sliding sync alone.
    let alice = ready(log_in(encrypting(HOME)?, &names[0], &password).await?).await;
    let service = SyncService::builder(alice.clone()).build().await?;
    let list = service.room_list_service().all_rooms().await?;
    service.start().await;
    let newest: BTreeSet<&str> = rooms.iter().skip(5).map(|room| room.as_str()).collect();
    let first = shows(&list, "the rooms that fit", |shown| {
        let shown = shown.iter().map(|room| room.room_id().as_str());
        shown.collect::<BTreeSet<&str>>() == newest
    });
    first.await?;
    Ok(Scenario {
        alice,
        bob,
        service,
        list,
        rooms,
    })
}

async fn a_message_moves_up(scenario: &mut Scenario) -> Result<()> {
    let Scenario {
        bob, list, rooms, ..
    } = scenario;
    for oldest in [&rooms[0], &rooms[1]] {
        say(bob, oldest, "hello").await?;
        let moved = shows(list, "the room on top, unread", |shown| {
            shown.front().is_some_and(|top| {
                top.room_id() == oldest && top.unread_notification_counts().notification_count == 1
            })
        });
        moved.await?;
    }
    Ok(())
}

/// Bob invites alice into a room of this name, she finds it in the list and enters.
async fn enter(
    scenario: &Scenario,
    name: &str,
    state: Vec<Raw<AnyInitialStateEvent>>,
) -> Result<OwnedRoomId> {
    let Scenario {
        alice, bob, list, ..
    } = scenario;
    let mut request = room(name);
    request.preset = Some(RoomPreset::PrivateChat);
    request.invite = alice.user_id().map(ToOwned::to_owned).into_iter().collect();
    request.initial_state = state;
    let made = bob.create_room(request).await?.room_id().to_owned();
    let stands = async |state: RoomState| {
        let what = format!("the room as {state:?}");
        let is = |shown: &Vector<RoomListItem>| {
            let mut shown = shown.iter();
            shown.any(|room| {
                room.room_id() == made
                    && room.state() == state
                    && room.name().as_deref() == Some(name)
            })
        };
        shows(list, &what, is).await
    };
    stands(RoomState::Invited).await?;
    let invited = alice.get_room(&made).context("no invitation")?;
    invited.join().await?;
    stands(RoomState::Joined).await?;
    Ok(made)
}

async fn an_invitation_comes(scenario: &mut Scenario) -> Result<()> {
    enter(scenario, "by invitation", Vec::new()).await?;
    Ok(())
}

/// She opens a room and reads in it what was encrypted: its keys come on a connection of their own.
async fn a_secret_is_read(scenario: &mut Scenario) -> Result<()> {
    let made = enter(scenario, "a secret", vec![encryption()]).await?;
    let Scenario {
        alice,
        bob,
        service,
        ..
    } = scenario;
    let opened = alice.get_room(&made).context("no room")?;
    service
        .room_list_service()
        .subscribe_to_rooms(&[&made])
        .await;
    let timeline = opened.timeline().await?;
    let (mut shown, changes) = timeline.subscribe().await;
    pin_mut!(changes);
    let said = say(bob, &made, "psst").await?;
    let is_read = |shown: &Vector<Arc<TimelineItem>>| {
        let mut events = shown.iter().filter_map(|item| item.as_event());
        events.any(|event| {
            let message = event.content().as_message();
            event.event_id().is_some_and(|id| id == said)
                && message.is_some_and(|message| message.body() == "psst")
        })
    };
    let drawn = async {
        while !is_read(&shown) {
            let changes = changes.next().await.context("the timeline ended")?;
            for change in changes {
                change.apply(&mut shown);
            }
        }
        Ok(())
    };
    let drawn = timeout(PATIENCE, drawn).await;
    drawn.context("waited in vain for the message")?
}

/// A kill of the server ends no list.
async fn the_list_goes_on(scenario: &mut Scenario) -> Result<()> {
    let Scenario {
        bob,
        service,
        list,
        rooms,
        ..
    } = scenario;
    restart().await?;
    service.stop().await;
    service.start().await;
    say(bob, &rooms[0], "after the crash").await?;
    let moved = shows(list, "the room on top", |shown| {
        shown.front().is_some_and(|top| top.room_id() == rooms[0])
    });
    moved.await
}

/// What is left leaves the list.
async fn the_list_empties(scenario: &mut Scenario) -> Result<()> {
    let Scenario {
        alice,
        service,
        list,
        rooms,
        ..
    } = scenario;
    let left = alice.get_room(&rooms[0]).context("no room")?;
    left.leave().await?;
    let gone = shows(list, "the rest", |shown| {
        !shown.is_empty() && shown.iter().all(|room| room.room_id() != rooms[0])
    });
    gone.await?;
    service.stop().await;
    ensure!(alice.whoami().await.is_ok());
    Ok(())
}
