//! Push rules.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use comity_testkit::{Server, User, encode};
use serde_json::{Value, json};

const RULES: &str = "/_matrix/client/v3/pushrules";

fn rule(kind: &str, id: &str) -> String {
    format!("{RULES}/global/{kind}/{}", encode(id))
}

async fn keywords(user: &User) -> Vec<Value> {
    let all = user.get(format!("{RULES}/global/")).send().await.ok();
    let rules = all["content"].as_array().unwrap();
    rules.iter().map(|rule| rule["rule_id"].clone()).collect()
}

/// Push rules API: a rule's life, from its place among others to its end.
#[tokio::test(start_paused = true)]
async fn rules_are_made_ordered_changed_and_removed() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let new = |id: &str| json!({"pattern": id, "actions": ["notify"]});
    for (id, place) in [
        ("tea", ""),
        ("cake", ""),
        ("jam", "?after=cake"),
        ("bun", "?before=tea"),
    ] {
        let path = format!("{}{place}", rule("content", id));
        let _ = alice.put(path).json(new(id)).send().await.ok();
    }
    assert_eq!(keywords(&alice).await, ["cake", "jam", "bun", "tea"]);
    let tea = rule("content", "tea");
    let _ = alice
        .put(format!("{tea}/enabled"))
        .json(json!({"enabled": false}))
        .send()
        .await
        .ok();
    assert_eq!(
        alice.get(format!("{tea}/enabled")).send().await.ok(),
        json!({"enabled": false})
    );
    let loud = json!({"actions": ["notify", {"set_tweak": "highlight"}]});
    let _ = alice
        .put(format!("{tea}/actions"))
        .json(&loud)
        .send()
        .await
        .ok();
    assert_eq!(alice.get(format!("{tea}/actions")).send().await.ok(), loud);
    assert_eq!(
        alice.get(&tea).send().await.ok(),
        json!({
            "rule_id": "tea", "default": false, "enabled": false, "pattern": "tea",
            "actions": loud["actions"],
        })
    );
    let _ = alice.delete(&tea).send().await.ok();
    alice.delete(&tea).send().await.error(404, "M_NOT_FOUND");
    assert_eq!(keywords(&alice).await, ["cake", "jam", "bun"]);

    let master = rule("override", ".m.rule.master");
    let _ = alice
        .put(format!("{master}/enabled"))
        .json(json!({"enabled": true}))
        .send()
        .await
        .ok();
    let all = alice.get(format!("{RULES}/")).send().await.ok();
    assert_eq!(all["global"]["override"][0]["enabled"], true);
}

/// Push rules API: what is refused. A rule of an unknown kind is one that doesn't exist.
#[tokio::test(start_paused = true)]
async fn what_push_rules_refuse() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let quiet = json!({"actions": []});
    for (path, status, errcode) in [
        (rule("postcontent", "x"), 404, "M_NOT_FOUND"),
        (rule("room", ".mine"), 400, "M_INVALID_PARAM"),
        (rule("room", "a/b"), 400, "M_INVALID_PARAM"),
        (rule("room", "a") + "?before=b", 400, "M_UNKNOWN"),
        (rule("content", "no pattern"), 400, "M_BAD_JSON"),
    ] {
        let refused = alice.put(path).json(&quiet).send().await;
        refused.error(status, errcode);
    }
    let unknown = rule("room", "!x:localhost");
    for path in [
        rule("postcontent", "x"),
        unknown.clone(),
        unknown.clone() + "/enabled",
    ] {
        alice.get(path).send().await.error(404, "M_NOT_FOUND");
    }
    let change = alice.put(unknown + "/actions").json(&quiet).send().await;
    change.error(404, "M_NOT_FOUND");
}

/// Historical actions do nothing but are given back, as older clients expect; and nobody has a pusher.
#[tokio::test(start_paused = true)]
async fn an_old_client_finds_its_way() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let muted = json!({"actions": ["dont_notify"]});
    let path = rule("sender", &alice.id);
    let _ = alice.put(path).json(&muted).send().await.ok();
    let all = alice.get(format!("{RULES}/")).send().await.ok();
    assert_eq!(all["global"]["sender"][0]["actions"], muted["actions"]);
    let pushers = alice.get("/_matrix/client/v3/pushers").send().await.ok();
    assert_eq!(pushers, json!({"pushers": []}));
}

/// MSC3930: polls notify as messages do, votes don't; the rule for two comes first.
#[tokio::test(start_paused = true)]
async fn polls_have_rules() {
    let server = Server::start().await;
    let alice = server.register("alice").await;
    let all = alice.get(format!("{RULES}/")).send().await.ok();
    let place = |kind: &str, name: &str| {
        let id = format!(".org.matrix.msc3930.rule.{name}");
        let mut rules = all["global"][kind].as_array().unwrap().iter();
        rules.position(|rule| rule["rule_id"] == id.as_str())
    };
    assert!(place("override", "poll_response").is_some());
    for what in ["poll_start", "poll_end"] {
        let one_to_one = place("underride", &format!("{what}_one_to_one"));
        assert!(one_to_one < place("underride", what), "{what}");
        assert!(one_to_one.is_some());
    }
    let bob = server.register("bob").await;
    let room = alice.create_room(json!({"preset": "public_chat"})).await;
    bob.join(&room).await;
    for (kind, unread) in [("start", 1), ("response", 1), ("end", 2)] {
        let kind = format!("org.matrix.msc3381.poll.{kind}");
        bob.send_event(&room, &kind, json!({})).await;
        let sync = alice.sync(None).await;
        let counts = &sync["rooms"]["join"][&room]["unread_notifications"];
        assert_eq!(counts["notification_count"], unread, "{kind}");
    }
}
