//! Profiles, account data, tags, push rules, filters.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use comity_accounts::{AccountError, Change};
use comity_protocol::push::{NewRule, Position, RuleError, RuleKind};
use common::{LANES, accounts, register};
use serde_json::{Map, Value, json};

const ALICE: &str = "@alice:example.org";
const ROOM: &str = "!room:example.org";

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn account_data_is_kept_a_type_and_logged() {
    for lanes in LANES {
        let accounts = accounts(lanes).await;
        let mut log = accounts.tenant().follow(accounts.tenant().heads());
        let content = object(json!({"a": 1}));
        accounts
            .set_account_data(ALICE, "x.y", &content)
            .await
            .unwrap();
        accounts
            .set_room_account_data(ALICE, ROOM, "x.y", &content)
            .await
            .unwrap();
        accounts
            .set_room_account_data(ALICE, "!other:x", "z", &content)
            .await
            .unwrap();
        assert_eq!(
            accounts.account_data(ALICE, "x.y").await.unwrap(),
            Some(json!({"a": 1}))
        );
        assert_eq!(
            accounts
                .account_data("@alice:example.orgs", "x.y")
                .await
                .unwrap(),
            None
        );
        assert_eq!(
            accounts
                .room_account_data(ALICE, ROOM, "x.y")
                .await
                .unwrap(),
            Some(json!({"a": 1}))
        );
        assert_eq!(
            accounts
                .account_data_of_room(ALICE, ROOM)
                .await
                .unwrap()
                .len(),
            1
        );
        let mut rooms: Vec<_> = accounts.all_room_account_data(ALICE).await.unwrap();
        rooms.sort_by(|a, b| a.kind.cmp(&b.kind));
        assert_eq!(rooms[1].room_id.as_deref(), Some("!other:x"));
        let kinds: Vec<_> = accounts
            .all_account_data(ALICE)
            .await
            .unwrap()
            .into_iter()
            .map(|e| e.kind)
            .collect();
        assert_eq!(kinds, ["x.y", "m.push_rules"]);
        let commits = log.next().await.unwrap();
        let changes: Vec<_> = commits
            .iter()
            .flat_map(|c| &c.records)
            .filter_map(Change::of)
            .collect();
        assert!(changes.contains(&Change::AccountData { kind: "x.y".into() }));
        assert!(changes.contains(&Change::RoomAccountData {
            room_id: ROOM.into(),
            kind: "x.y".into()
        }));
        for reserved in ["m.push_rules", "m.fully_read"] {
            let refused = accounts.set_account_data(ALICE, reserved, &content).await;
            assert!(matches!(refused, Err(AccountError::Forbidden(_))));
        }
        let large = object(json!({"a": "x".repeat(300_000)}));
        let refused = accounts.set_account_data(ALICE, "large", &large).await;
        assert!(matches!(refused, Err(AccountError::TooLarge(_))));
    }
}

/// Tags set at once by two clients are both kept.
#[tokio::test(start_paused = true)]
async fn tags_of_a_room() {
    for lanes in LANES {
        let accounts = accounts(lanes).await;
        let order = object(json!({"order": 0.5}));
        let empty = Map::new();
        futures_util::future::try_join(
            accounts.set_tag(ALICE, ROOM, "m.favourite", &order),
            accounts.set_tag(ALICE, ROOM, "u.work", &empty),
        )
        .await
        .unwrap();
        let tags = accounts
            .room_account_data(ALICE, ROOM, "m.tag")
            .await
            .unwrap();
        assert_eq!(
            tags,
            Some(json!({"tags": {"m.favourite": {"order": 0.5}, "u.work": {}}}))
        );
        accounts.remove_tag(ALICE, ROOM, "u.work").await.unwrap();
        accounts.remove_tag(ALICE, ROOM, "u.work").await.unwrap();
        let tags = accounts
            .room_account_data(ALICE, ROOM, "m.tag")
            .await
            .unwrap();
        assert_eq!(tags, Some(json!({"tags": {"m.favourite": {"order": 0.5}}})));
    }
}

#[tokio::test(start_paused = true)]
async fn push_rules_are_stored_as_changes_and_shown_whole() {
    for lanes in LANES {
        let accounts = accounts(lanes).await;
        let rule: NewRule =
            serde_json::from_value(json!({"actions": ["notify"], "pattern": "tea"})).unwrap();
        let put = accounts.edit_push_rules(ALICE, |rules| {
            rules.put(RuleKind::Content, "tea", rule.clone(), &Position::default())
        });
        put.await.unwrap().unwrap();
        let refused = accounts.edit_push_rules(ALICE, |rules| rules.delete(RuleKind::Content, "x"));
        assert_eq!(refused.await.unwrap(), Err(RuleError::NotFound));
        let shown = accounts
            .account_data(ALICE, "m.push_rules")
            .await
            .unwrap()
            .unwrap();
        assert_eq!(shown["global"]["content"][0]["pattern"], "tea");
        assert_eq!(shown["global"]["override"][0]["rule_id"], ".m.rule.master");
        let stored = accounts.push_rules(ALICE).await.unwrap();
        assert!(
            stored
                .ruleset(ALICE)
                .get(RuleKind::Content, "tea")
                .is_some()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn ignored_users_are_those_listed() {
    for lanes in LANES {
        let accounts = accounts(lanes).await;
        assert!(accounts.ignored_users(ALICE).await.unwrap().is_empty());
        let list = object(json!({"ignored_users": {"@spam:x": {}, "@b:x": {}}}));
        accounts
            .set_account_data(ALICE, "m.ignored_user_list", &list)
            .await
            .unwrap();
        let ignored: Vec<_> = accounts
            .ignored_users(ALICE)
            .await
            .unwrap()
            .into_iter()
            .collect();
        assert_eq!(ignored, ["@b:x", "@spam:x"]);
    }
}

/// <https://spec.matrix.org/v1.19/client-server-api/#profiles>
#[tokio::test(start_paused = true)]
async fn profile_fields_and_their_bounds() {
    for lanes in LANES {
        let accounts = accounts(lanes).await;
        let missing = accounts.profile(ALICE).await;
        assert!(matches!(missing, Err(AccountError::NotFound(_))));
        register(&accounts, "alice").await;
        // A new account is named after its localpart.
        let new = Value::Object(accounts.profile(ALICE).await.unwrap());
        assert_eq!(new, json!({"displayname": "alice"}));
        let set = |field: &str, value: Value| {
            let (accounts, field) = (accounts.clone(), field.to_owned());
            async move { accounts.set_profile_field(ALICE, &field, Some(value)).await }
        };
        assert!(set("displayname", json!("Alice 🦊")).await.unwrap());
        assert!(!set("displayname", json!("Alice 🦊")).await.unwrap());
        assert!(set("org.example.pronouns", json!(["she"])).await.unwrap());
        assert_eq!(
            Value::Object(accounts.profile(ALICE).await.unwrap()),
            json!({"displayname": "Alice 🦊", "org.example.pronouns": ["she"]})
        );
        assert!(matches!(
            set("displayname", json!(1)).await,
            Err(AccountError::InvalidParam(_))
        ));
        for name in ["", "Upper", "a b", "é", "1a"] {
            assert!(
                matches!(
                    set(name, json!(1)).await,
                    Err(AccountError::InvalidParam(_))
                ),
                "{name}"
            );
        }
        assert!(matches!(
            set(&"a".repeat(256), json!(1)).await,
            Err(AccountError::KeyTooLarge)
        ));
        let large = json!("x".repeat(64 * 1024));
        assert!(matches!(
            set("org.example.large", large).await,
            Err(AccountError::ProfileTooLarge)
        ));
        assert!(
            accounts
                .set_profile_field(ALICE, "displayname", None)
                .await
                .unwrap()
        );
        accounts.deactivate(ALICE, false).await.unwrap();
        assert!(matches!(
            accounts.profile(ALICE).await,
            Err(AccountError::NotFound(_))
        ));
        assert!(matches!(
            set("displayname", json!("back")).await,
            Err(AccountError::Deactivated)
        ));
    }
}

/// Law 11: filters are bounded, and one stored twice is one.
#[tokio::test(start_paused = true)]
async fn filters_are_kept_once_and_bounded() {
    for lanes in LANES {
        let accounts = accounts(lanes).await;
        let filter = |n: u32| object(json!({"room": {"timeline": {"limit": n}}}));
        let first = accounts.create_filter(ALICE, &filter(0)).await.unwrap();
        assert_eq!(
            accounts.create_filter(ALICE, &filter(0)).await.unwrap(),
            first
        );
        assert_eq!(accounts.filter(ALICE, &first).await.unwrap(), filter(0));
        let mut last = String::new();
        for n in 1..=100 {
            last = accounts.create_filter(ALICE, &filter(n)).await.unwrap();
        }
        assert_eq!(accounts.filter(ALICE, &last).await.unwrap(), filter(100));
        for gone in [first.as_str(), "x", &"x".repeat(1_000)] {
            assert!(matches!(
                accounts.filter(ALICE, gone).await,
                Err(AccountError::NotFound(_))
            ));
        }
        assert!(matches!(
            accounts.filter("@bob:example.org", &last).await,
            Err(AccountError::NotFound(_))
        ));
    }
}
