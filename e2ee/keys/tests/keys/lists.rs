//! <https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user>

use comity_testkit::{
    Server, User,
    device::{CrossSigning, Device, public},
    encode,
};
use serde_json::{Value, json};

/// A client that follows lists: what its syncs say, and whether `/keys/changes` says the same.
pub struct Follower<'a> {
    pub user: &'a User,
    pub since: String,
}

fn names(lists: &Value, name: &str) -> Vec<String> {
    let names = lists[name].as_array().cloned().unwrap_or_default();
    names
        .iter()
        .map(|name| name.as_str().unwrap().to_owned())
        .collect()
}

impl<'a> Follower<'a> {
    pub async fn of(user: &'a User) -> Self {
        let answer = user.sync(None).await;
        assert!(
            answer.get("device_lists").is_none(),
            "nothing to compare with"
        );
        let since = answer["next_batch"].as_str().unwrap().to_owned();
        Self { user, since }
    }

    /// What changed since it last asked: `changed`, `left`.
    pub async fn news(&mut self) -> (Vec<String>, Vec<String>) {
        let answer = self.user.sync(Some(&self.since)).await;
        let to = answer["next_batch"].as_str().unwrap().to_owned();
        let lists = &answer["device_lists"];
        let told = (names(lists, "changed"), names(lists, "left"));
        let changes = self.user.get("/_matrix/client/v3/keys/changes");
        let changes = changes.query("from", &self.since).query("to", &to);
        let changes = changes.send().await.ok();
        assert_eq!(told, (names(&changes, "changed"), names(&changes, "left")));
        self.since = to;
        told
    }
}

pub fn changed(users: &[&User]) -> (Vec<String>, Vec<String>) {
    let mut users: Vec<String> = users.iter().map(|user| user.id.clone()).collect();
    users.sort();
    (users, Vec::new())
}

pub fn left(user: &User) -> (Vec<String>, Vec<String>) {
    (Vec::new(), vec![user.id.clone()])
}

pub const NOTHING: (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());

async fn public_room(user: &User) -> String {
    user.create_room(json!({"preset": "public_chat"})).await
}

/// Who shares a room hears of new keys, names and devices that go; who shares none does not (E7's like).
#[tokio::test(start_paused = true)]
async fn changes_of_those_who_share_a_room() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (carol, dave) = (
        server.register("carol").await,
        server.register("dave").await,
    );
    let room = public_room(&alice).await;
    bob.join(&room).await;
    // Dave doesn't sync; that he shares a room with Alice is read for it.
    dave.join(&public_room(&alice).await).await;
    let mut alices = Follower::of(&alice).await;
    let mut bobs = Follower::of(&bob).await;
    let mut carols = Follower::of(&carol).await;
    let device = Device::of(&bob);
    let keys = device.publish().await;
    assert_eq!(alices.news().await, changed(&[&bob]));
    assert_eq!(
        bobs.news().await,
        changed(&[&bob]),
        "for other devices of theirs"
    );
    assert_eq!(carols.news().await, NOTHING);
    // The same again is no change, and what isn't about keys isn't either.
    device.upload(json!({ "device_keys": keys })).await.ok();
    bob.send(&room, "hello").await;
    let name = format!("/_matrix/client/v3/profile/{}/displayname", encode(&bob.id));
    bob.put(name)
        .json(json!({"displayname": "Bob"}))
        .send()
        .await
        .ok();
    server.login("bob").await;
    assert_eq!(alices.news().await, NOTHING);
    let path = format!("/_matrix/client/v3/devices/{}", bob.device);
    bob.put(path)
        .json(json!({"display_name": "phone"}))
        .send()
        .await
        .ok();
    Device::of(&dave).publish().await;
    assert_eq!(alices.news().await, changed(&[&bob, &dave]));
    let cross_signing = CrossSigning::of(&bob.id);
    device
        .post("device_signing/upload", cross_signing.upload())
        .await
        .ok();
    assert_eq!(alices.news().await, changed(&[&bob]));
    bob.post("/_matrix/client/v3/logout").send().await.ok();
    assert_eq!(alices.news().await, changed(&[&bob]));
    assert_eq!(carols.news().await, NOTHING);
}

/// Coming into a room makes those in it matter, going makes them matter no more, unless another room is shared.
#[tokio::test(start_paused = true)]
async fn joins_and_leaves() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let carol = server.register("carol").await;
    let (one, two) = (public_room(&alice).await, public_room(&alice).await);
    let mut alices = Follower::of(&alice).await;
    let mut bobs = Follower::of(&bob).await;
    bob.join(&one).await;
    assert_eq!(alices.news().await, changed(&[&bob]));
    assert_eq!(bobs.news().await, changed(&[&alice, &bob]));
    bob.join(&two).await;
    carol.join(&one).await;
    assert_eq!(bobs.news().await, changed(&[&alice, &bob, &carol]));
    assert_eq!(alices.news().await, changed(&[&bob, &carol]));
    bob.leave(&one).await;
    assert_eq!(alices.news().await, NOTHING, "they share another room");
    assert_eq!(bobs.news().await, left(&carol));
    alice.kick(&two, &bob.id).await;
    assert_eq!(alices.news().await, left(&bob));
    assert_eq!(bobs.news().await, left(&alice));
    // What they do now is nobody's business, until they are back.
    let device = Device::of(&bob);
    device.publish().await;
    assert_eq!(alices.news().await, NOTHING);
    alice.invite(&one, &bob.id).await;
    assert_eq!(alices.news().await, NOTHING, "an invite is no join");
    bob.join(&one).await;
    assert_eq!(alices.news().await, changed(&[&bob]));
    bobs.news().await;
    // There and back again between two syncs.
    bob.leave(&one).await;
    bob.join(&one).await;
    assert_eq!(alices.news().await, changed(&[&bob]));
    assert_eq!(bobs.news().await, changed(&[&alice, &bob, &carol]));
}

/// Whoever waits is woken by a change of those they share a room with.
#[tokio::test(start_paused = true)]
async fn a_change_wakes_who_shares_a_room() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    bob.join(&public_room(&alice).await).await;
    let alices = Follower::of(&alice).await;
    let poll = alice
        .sync_request(Some(&alices.since))
        .query("timeout", "30000");
    let device = Device::of(&bob);
    let (answer, _) = tokio::join!(poll.send(), device.publish());
    assert_eq!(
        names(&answer.ok()["device_lists"], "changed"),
        [bob.id.as_str()]
    );
}

/// Who signs another's key learns of it on their other devices; nobody else does.
#[tokio::test(start_paused = true)]
async fn what_one_signs_of_others_is_ones_own_news() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    bob.join(&public_room(&alice).await).await;
    let (alices, bobs) = (Device::of(&alice), Device::of(&bob));
    let (of_alice, of_bob) = (CrossSigning::of(&alice.id), CrossSigning::of(&bob.id));
    alices
        .post("device_signing/upload", of_alice.upload())
        .await
        .ok();
    bobs.post("device_signing/upload", of_bob.upload())
        .await
        .ok();
    let (mut alices_news, mut bobs_news) = (Follower::of(&alice).await, Follower::of(&bob).await);
    let mut master = of_bob.master_key();
    of_alice.sign_with(&of_alice.user_signing, &mut master);
    let body = json!({ &bob.id: { public(&of_bob.master): master } });
    alices.post("signatures/upload", body).await.ok();
    assert_eq!(alices_news.news().await, changed(&[&bob]));
    assert_eq!(bobs_news.news().await, NOTHING);
}

/// A token of before the server's start is answered from rows, as exactly; tokens that are none are refused.
#[tokio::test(start_paused = true)]
async fn over_a_restart() {
    let server = Server::start().await;
    let (alice, bob) = (server.register("alice").await, server.register("bob").await);
    let (carol, dave) = (
        server.register("carol").await,
        server.register("dave").await,
    );
    let room = public_room(&alice).await;
    bob.join(&room).await;
    carol.join(&room).await;
    let since = Follower::of(&alice).await.since;
    Device::of(&bob).publish().await;
    Device::of(&dave).publish().await;
    let server = server.restarted().await;
    let alice = server.login("alice").await;
    let mut alices = Follower {
        user: &alice,
        since,
    };
    assert_eq!(alices.news().await, changed(&[&bob]));
    assert_eq!(alices.news().await, NOTHING);
    let changes = alice.get("/_matrix/client/v3/keys/changes?from=x&to=y");
    changes.send().await.error(400, "M_INVALID_PARAM");
}
