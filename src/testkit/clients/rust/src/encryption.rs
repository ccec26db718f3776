//! Users of two servers in an encrypted room: alice at home, bob and carol at the other. What is read here was decrypted.
//!
//! `OTHER_HOMESERVER_URL`: the other's base URL. `HOMESERVER_VERIFIES`: set if the home verifies the signatures of keys.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use matrix_sdk::attachment::AttachmentConfig;
use matrix_sdk::encryption::verification::Verification;
use matrix_sdk::encryption::vodozemac::olm::Account;
use matrix_sdk::encryption::{BackupDownloadStrategy, EncryptionSettings};
use matrix_sdk::ruma::api::client::keys::{claim_keys, upload_keys};
use matrix_sdk::ruma::api::client::room::create_room::v3::{Request as CreateRoom, RoomPreset};
use matrix_sdk::ruma::events::key::verification::VerificationMethod;
use matrix_sdk::ruma::events::room::encryption::RoomEncryptionEventContent;
use matrix_sdk::ruma::events::room::message::FileMessageEventContent;
use matrix_sdk::ruma::events::{AnyInitialStateEvent, InitialStateEvent};
use matrix_sdk::ruma::serde::Raw;
use matrix_sdk::ruma::{EventId, OneTimeKeyAlgorithm, OwnedDeviceId, OwnedEventId, OwnedUserId};
use matrix_sdk::{Client, ClientBuilder, RoomState};
use serde_json::{Value, json};

use crate::device::{Device, client, log_in, sign_up, unique};
use crate::{HOME, Report};

pub const OTHER: &str = "OTHER_HOMESERVER_URL";

struct Scenario {
    alice: Device,
    bob: Device,
    unique: String,
    password: String,
    recovery_key: String,
    before: OwnedEventId,
}

pub async fn converse(report: &mut Report) {
    crate::converse!(report, meet, come_late recover compare_numbers fall_back attach delete_a_device forge);
}

/// A client that makes a user's identity, shares history with whom it invites, and takes what a backup has once it may.
pub fn encrypting(server: &str) -> Result<ClientBuilder> {
    let settings = EncryptionSettings {
        auto_enable_cross_signing: true,
        backup_download_strategy: BackupDownloadStrategy::OneShot,
        auto_enable_backups: false,
    };
    Ok(client(server)?
        .with_encryption_settings(settings)
        .with_enable_share_history_on_invite(true))
}

pub async fn ready(client: Client) -> Client {
    client
        .encryption()
        .wait_for_e2ee_initialization_tasks()
        .await;
    client
}

/// What makes a new room an encrypted one.
pub fn encryption() -> Raw<AnyInitialStateEvent> {
    let content = RoomEncryptionEventContent::with_recommended_defaults();
    InitialStateEvent::with_empty_state_key(content).to_raw_any()
}

fn ids(client: &Client) -> Result<(OwnedUserId, OwnedDeviceId)> {
    let ids = client.user_id().zip(client.device_id());
    let (user, device) = ids.context("no session")?;
    Ok((user.to_owned(), device.to_owned()))
}

/// The event once this device has it and could open it, be it by keys that come later.
async fn reads(device: &mut Device, id: &EventId) -> Result<Value> {
    let what = format!("reading {id}");
    device
        .until(&what, async |device| {
            // It may not have come to this server yet.
            let Ok(event) = device.room()?.event(id, None).await else {
                return Ok(None);
            };
            let event = event
                .encryption_info()
                .map(|_| event.raw().deserialize_as());
            Ok(event.transpose()?)
        })
        .await
}

/// The host invites somebody, who enters.
async fn bring(host: &mut Device, guest: &mut Device) -> Result<()> {
    let (user, _) = ids(&guest.client)?;
    host.room()?.invite_user_by_id(&user).await?;
    let invited = guest
        .until("the invitation", async |device| Ok(device.room().ok()))
        .await?;
    invited.join().await?;
    guest
        .until("the join", async |device| {
            let room = device.room()?;
            let is_in = room.state() == RoomState::Joined;
            Ok((is_in && room.encryption_state().is_encrypted()).then_some(()))
        })
        .await?;
    host.until("the other's join", async |device| {
        let member = device.room()?.get_member_no_sync(&user).await?;
        Ok(member
            .filter(|member| member.membership().as_str() == "join")
            .map(drop))
    })
    .await
}

async fn meet() -> Result<Scenario> {
    let unique = unique()?;
    let password = format!("{unique}-Correct-Horse");
    let alice = sign_up(encrypting(HOME)?, &format!("alice-{unique}"), &password).await?;
    let alice = ready(alice).await;
    let bob = sign_up(encrypting(OTHER)?, &format!("bob-{unique}"), &password).await?;
    let bob = ready(bob).await;
    let mut request = CreateRoom::new();
    request.preset = Some(RoomPreset::PrivateChat);
    request.initial_state = vec![encryption()];
    let room = alice.create_room(request).await?.room_id().to_owned();
    let [mut alice, mut bob] = [alice, bob].map(|client| Device::new(client, &room));
    alice
        .until("the room", async |device| Ok(device.room().ok()))
        .await?;
    let recovery_key = alice.client.encryption().recovery().enable().await?;
    bring(&mut alice, &mut bob).await?;
    let before = alice.say("who is there?").await?;
    ensure!(reads(&mut bob, &before).await?["content"]["body"] == "who is there?");
    let answer = bob.say("me").await?;
    ensure!(reads(&mut alice, &answer).await?["content"]["body"] == "me");
    Ok(Scenario {
        alice,
        bob,
        unique,
        password,
        recovery_key,
        before,
    })
}

/// Who comes late reads what follows, and what was shared with the invitation.
async fn come_late(scenario: &mut Scenario) -> Result<()> {
    let name = format!("carol-{}", scenario.unique);
    let carol = sign_up(encrypting(OTHER)?, &name, &scenario.password).await?;
    let mut carol = Device::new(ready(carol).await, &scenario.alice.room);
    carol.sync(Duration::ZERO).await?; // uploads her keys
    bring(&mut scenario.alice, &mut carol).await?;
    let welcome = scenario.alice.say("welcome").await?;
    ensure!(reads(&mut carol, &welcome).await?["content"]["body"] == "welcome");
    ensure!(reads(&mut carol, &scenario.before).await?["content"]["body"] == "who is there?");
    Ok(())
}

/// Another device of a user's, which knows of the room.
async fn another(server: &str, name: &str, scenario: &Scenario) -> Result<Device> {
    let name = format!("{name}-{}", scenario.unique);
    let device = log_in(encrypting(server)?, &name, &scenario.password).await?;
    let mut device = Device::new(ready(device).await, &scenario.alice.room);
    device
        .until("the room", async |device| Ok(device.room().ok()))
        .await?;
    Ok(device)
}

/// Another device of alice's, signed by her identity, with the keys of the backup.
async fn another_of_alice(scenario: &Scenario) -> Result<Device> {
    let second = another(HOME, "alice", scenario).await?;
    let recovery = second.client.encryption().recovery();
    recovery.recover(&scenario.recovery_key).await?;
    Ok(second)
}

async fn recover(scenario: &mut Scenario) -> Result<()> {
    let backups = scenario.alice.client.encryption().backups();
    backups.wait_for_steady_state().await?;
    let mut second = another_of_alice(scenario).await?;
    ensure!(reads(&mut second, &scenario.before).await?["content"]["body"] == "who is there?");
    let (user, id) = ids(&second.client)?;
    let signed = scenario.bob.until("the signature", async |bob| {
        let device = bob.client.encryption().get_device(&user, &id).await?;
        Ok(device
            .filter(|device| device.is_cross_signed_by_owner())
            .map(drop))
    });
    signed.await
}

/// Two devices of alice's compare numbers: the one signs the other, which is then told the secrets of their identity and backup.
async fn compare_numbers(scenario: &mut Scenario) -> Result<()> {
    let mut second = another(HOME, "alice", scenario).await?;
    let alice = &mut scenario.alice;
    let (user, id) = ids(&second.client)?;
    let device = alice.until("the device", async |alice| {
        Ok(alice.client.encryption().get_device(&user, &id).await?)
    });
    let methods = || vec![VerificationMethod::SasV1];
    let device = device.await?;
    let request = device.request_verification_with_methods(methods()).await?;
    let flow = request.flow_id();
    let asked = second.until("the request", async |second| {
        let encryption = second.client.encryption();
        Ok(encryption.get_verification_request(&user, flow).await)
    });
    asked.await?.accept_with_methods(methods()).await?;
    let accepted = alice.until("its acceptance", async |_| {
        Ok(request.is_ready().then_some(()))
    });
    accepted.await?;
    let ours = request.start_sas().await?.context("nothing to compare")?;
    let started = second.until("its start", async |second| {
        let encryption = second.client.encryption();
        let found = encryption.get_verification(&user, flow).await;
        Ok(found.and_then(Verification::sas))
    });
    let theirs = started.await?;
    theirs.accept().await?;
    // Each needs the other's key for them.
    let (shown, shown_there) = tokio::try_join!(
        alice.until("numbers", async |_| Ok(ours.decimals())),
        second.until("the other's numbers", async |_| Ok(theirs.decimals())),
    )?;
    ensure!(shown == shown_there, "the numbers differ");
    ours.confirm().await?;
    theirs.confirm().await?;
    let asker = second.client.encryption();
    let told = async |_: &Device| -> Result<Option<()>> {
        let status = asker.cross_signing_status().await;
        let knows = status.is_some_and(|status| status.is_complete());
        Ok((knows && asker.backups().are_enabled().await).then_some(()))
    };
    tokio::try_join!(
        alice.until("that the secrets were asked for", &told),
        second.until("the secrets", &told),
    )?;
    ensure!(reads(&mut second, &scenario.before).await?["content"]["body"] == "who is there?");
    Ok(())
}

/// Takes a key of a device's to open a session with it; nothing if it has none.
async fn claim(
    client: &Client,
    (user, device): &(OwnedUserId, OwnedDeviceId),
) -> Result<Option<(String, Value)>> {
    let algorithm = OneTimeKeyAlgorithm::SignedCurve25519;
    let wanted = BTreeMap::from([(device.clone(), algorithm)]);
    let request = claim_keys::v3::Request::new(BTreeMap::from([(user.clone(), wanted)]));
    let mut claimed = client.send(request).await?.one_time_keys;
    let keys = claimed
        .remove(user)
        .and_then(|mut devices| devices.remove(device));
    let Some((id, key)) = keys.and_then(|mut keys| keys.pop_first()) else {
        return Ok(None);
    };
    Ok(Some((id.to_string(), key.deserialize_as_unchecked()?)))
}

/// A fallback key opens a session once the one-time keys ran out. Bob doesn't sync meanwhile, so there are no new ones.
async fn fall_back(scenario: &mut Scenario) -> Result<()> {
    let bob = ids(&scenario.bob.client)?;
    let mut given = BTreeSet::new();
    loop {
        let key = claim(&scenario.alice.client, &bob).await?;
        let (id, key) = key.context("there is no fallback key")?;
        if key["fallback"] == true {
            break;
        }
        ensure!(given.insert(id), "a one-time key was given away twice");
    }
    ensure!(!given.is_empty(), "there were no one-time keys");
    let newcomer = another_of_alice(scenario).await?;
    let said = newcomer.say("are you asleep?").await?;
    ensure!(reads(&mut scenario.bob, &said).await?["content"]["body"] == "are you asleep?");
    let alice = &scenario.alice.client;
    let again = scenario.bob.until("one-time keys again", async |_| {
        let key = claim(alice, &bob).await?;
        Ok(key.filter(|(_, key)| key["fallback"] != true).map(drop))
    });
    again.await
}

async fn attach(scenario: &mut Scenario) -> Result<()> {
    let letter = b"dear bob".to_vec();
    let (room, kind) = (scenario.alice.room()?, mime::TEXT_PLAIN);
    let sending =
        room.send_attachment("letter.txt", &kind, letter.clone(), AttachmentConfig::new());
    let sent = sending.await?.event_id;
    let received = reads(&mut scenario.bob, &sent).await?;
    ensure!(
        received["content"]["file"]["url"].is_string(),
        "the file isn't encrypted"
    );
    let content: FileMessageEventContent = serde_json::from_value(received["content"].clone())?;
    let file = scenario
        .bob
        .client
        .media()
        .get_file(&content, false)
        .await?;
    ensure!(file == Some(letter), "another file came");
    Ok(())
}

/// A device that is deleted is encrypted for no more.
async fn delete_a_device(scenario: &mut Scenario) -> Result<()> {
    let mut second = another(OTHER, "bob", scenario).await?;
    let (user, id) = ids(&second.client)?;
    let knows = async |device: &Device| -> Result<bool> {
        let devices = device.client.encryption().get_user_devices(&user).await?;
        Ok(devices.get(&id).is_some())
    };
    let alice = &mut scenario.alice;
    let known = alice.until("the device", async |alice| {
        Ok(knows(alice).await?.then_some(()))
    });
    known.await?;
    let said = alice.say("to both").await?;
    ensure!(reads(&mut second, &said).await?["content"]["body"] == "to both");
    second.client.matrix_auth().logout().await?;
    let gone = alice.until("its end", async |alice| {
        Ok((!knows(alice).await?).then_some(()))
    });
    gone.await?;
    ensure!(
        claim(&alice.client, &(user, id)).await?.is_none(),
        "its keys outlived it"
    );
    let said = alice.say("to the one").await?;
    ensure!(reads(&mut scenario.bob, &said).await?["content"]["body"] == "to the one");
    Ok(())
}

/// What isn't signed by the device is refused, and its own keys come to others as it made them.
async fn forge(scenario: &mut Scenario) -> Result<()> {
    if std::env::var("HOMESERVER_VERIFIES").is_err() {
        return Ok(());
    }
    let name = format!("mallory-{}", scenario.unique);
    let mallory = sign_up(client(HOME)?, &name, &scenario.password).await?;
    let (user, device) = ids(&mallory)?;
    let (mut own, anothers) = (Account::new(), Account::new());
    let identity = json!({
        "user_id": user, "device_id": device,
        "algorithms": ["m.olm.v1.curve25519-aes-sha2", "m.megolm.v1.aes-sha2"],
        "keys": {
            format!("curve25519:{device}"): own.curve25519_key().to_base64(),
            format!("ed25519:{device}"): own.ed25519_key().to_base64(),
        },
    });
    let upload = async |identity: Option<Value>, key: Option<(String, Value)>| -> Result<bool> {
        let mut request = upload_keys::v3::Request::new();
        request.device_keys = identity
            .map(|identity| Raw::from_json_string(identity.to_string()))
            .transpose()?;
        if let Some((id, key)) = key {
            let key = Raw::from_json_string(key.to_string())?;
            request.one_time_keys.insert(id.as_str().try_into()?, key);
        }
        match mallory.send(request).await {
            Ok(_) => Ok(true),
            Err(refused) if refused.as_client_api_error().is_some() => Ok(false),
            Err(error) => Err(error.into()),
        }
    };
    let signed = |object: &Value, by: &Account| {
        let mut signed = object.clone();
        // The members of these are in order, so this is canonical.
        let signature = by.sign(object.to_string()).to_base64();
        signed["signatures"] = json!({ user.as_str(): { format!("ed25519:{device}"): signature } });
        signed
    };
    ensure!(
        !upload(Some(signed(&identity, &anothers)), None).await?,
        "a forged identity was taken"
    );
    ensure!(
        upload(Some(signed(&identity, &own)), None).await?,
        "the device's own was refused"
    );
    own.generate_one_time_keys(1);
    let (id, key) = own.one_time_keys().into_iter().next().context("no key")?;
    let id = format!("signed_curve25519:{}", id.to_base64());
    let key = json!({ "key": key.to_base64() });
    ensure!(
        !upload(None, Some((id.clone(), key.clone()))).await?,
        "an unsigned key was taken"
    );
    let forged = signed(&key, &anothers);
    ensure!(
        !upload(None, Some((id.clone(), forged))).await?,
        "a forged key was taken"
    );
    let genuine = signed(&key, &own);
    ensure!(
        upload(None, Some((id.clone(), genuine.clone()))).await?,
        "the device's own was refused"
    );
    let claimed = claim(&scenario.bob.client, &(user, device)).await?;
    ensure!(
        claimed == Some((id, genuine)),
        "another key came: {claimed:?}"
    );
    Ok(())
}
