//! Making accounts and authorising what is sensitive: G13, G14, G21, and Synapse's shared-secret registration.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use std::time::Duration;

use comity_accounts::{
    AccountError, Accounts, Asker, Authorisation, Operation, Registration,
    SharedSecretRegistration, Stage,
};
use common::{LANES, accounts, refreshing, register};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value, json};

const ALICE: &str = "@alice:example.org";

/// <https://spec.matrix.org/v1.19/appendices/#user-identifiers>
#[tokio::test(start_paused = true)]
async fn names_keep_the_rules() {
    for lanes in LANES {
        let accounts = accounts(lanes).await;
        let named = |name: &str| Registration {
            username: Some(name.into()),
            ..Registration::default()
        };
        for name in ["alice", "a", "x3", "q._=-/+"] {
            let made = accounts.register(named(name)).await.unwrap();
            assert_eq!(made.user_id, format!("@{name}:example.org"));
            assert_eq!(made.issued, None);
        }
        let upper = accounts.register(named("Bob-UPPER")).await.unwrap();
        assert_eq!(upper.user_id, "@bob-upper:example.org");
        for name in [
            "",
            "!",
            "a b",
            "é",
            "a:b",
            "@a",
            "_a",
            "123",
            "a\0",
            &"a".repeat(250),
        ] {
            let refused = accounts.register(named(name)).await;
            assert!(
                matches!(refused, Err(AccountError::InvalidUsername(_))),
                "{name}"
            );
        }
        assert!(matches!(
            accounts.register(named("ALICE")).await,
            Err(AccountError::UserInUse)
        ));
        let guest = Registration {
            guest: true,
            ..Registration::default()
        };
        let guest = accounts.register(guest).await.unwrap().user_id;
        assert!(accounts.user(&guest).await.unwrap().unwrap().guest);
        assert!(
            accounts
                .register(Registration::default())
                .await
                .unwrap()
                .user_id
                .starts_with("@u")
        );
    }
}

/// G21: a token with one use, a hundred in parallel: one account.
#[tokio::test(start_paused = true)]
async fn g21_a_registration_token_is_spent_once() {
    for lanes in LANES {
        let accounts = accounts(lanes).await;
        let token = accounts
            .create_registration_token(None, Some(1), None)
            .await
            .unwrap();
        let tries = (0..100).map(|n| {
            accounts.register(Registration {
                username: Some(format!("user{n}x")),
                token: Some(token.clone()),
                ..Registration::default()
            })
        });
        let made = futures_util::future::join_all(tries).await;
        assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 1);
        assert!(
            made.iter()
                .all(|made| matches!(made, Ok(_) | Err(AccountError::Forbidden(_))))
        );
        assert_eq!(accounts.users(None, 1_000).await.unwrap().len(), 1);
        assert!(!accounts.registration_token_is_valid(&token).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_registration_gives_its_token_back_and_tokens_expire() {
    for lanes in LANES {
        let accounts = accounts(lanes).await;
        register(&accounts, "alice").await;
        let at = 1_893_456_000_000 + 60_000;
        let token = accounts
            .create_registration_token(Some("tok".into()), Some(1), Some(at))
            .await
            .unwrap();
        let new = |name: &str| Registration {
            username: Some(name.into()),
            token: Some(token.clone()),
            ..Registration::default()
        };
        assert!(matches!(
            accounts.register(new("alice")).await,
            Err(AccountError::UserInUse)
        ));
        assert!(accounts.registration_token_is_valid("tok").await.unwrap());
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(matches!(
            accounts.register(new("bob")).await,
            Err(AccountError::Forbidden(_))
        ));
        accounts.delete_registration_token("tok").await.unwrap();
        assert!(accounts.registration_tokens().await.unwrap().is_empty());
        for bad in ["", "a b", "a/b", &"a".repeat(65)] {
            assert!(
                accounts
                    .create_registration_token(Some(bad.into()), None, None)
                    .await
                    .is_err()
            );
        }
    }
}

fn mac(fields: &[&str]) -> String {
    let mut mac = <Hmac<sha1::Sha1>>::new_from_slice(b"secret").unwrap();
    mac.update(fields.join("\0").as_bytes());
    mac.finalize()
        .into_bytes()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

fn request<'a>(nonce: &'a str, mac: &'a str) -> SharedSecretRegistration<'a> {
    SharedSecretRegistration {
        nonce,
        username: "Root",
        password: "pass",
        admin: true,
        display_name: None,
        user_type: None,
        mac,
    }
}

/// Synapse's protocol: a nonce, an HMAC-SHA1 over what is asked for; the nonce is good once, for a minute.
#[tokio::test(start_paused = true)]
async fn whoever_knows_the_shared_secret_makes_accounts() {
    for lanes in LANES {
        let accounts = accounts(lanes).await;
        let nonce = accounts.registration_nonce().unwrap();
        let good = mac(&[&nonce, "Root", "pass", "admin"]);
        let made = accounts
            .register_with_shared_secret(&request(&nonce, &good), refreshing("D"))
            .await
            .unwrap();
        assert_eq!(made.user_id, "@root:example.org");
        assert!(accounts.user(&made.user_id).await.unwrap().unwrap().admin);
        let again = accounts
            .register_with_shared_secret(&request(&nonce, &good), refreshing("D"))
            .await;
        assert!(matches!(again, Err(AccountError::InvalidParam(_))));
        for wrong in ["", "zz", "abc", &mac(&["x", "Root", "pass", "admin"])] {
            let nonce = accounts.registration_nonce().unwrap();
            let refused = accounts
                .register_with_shared_secret(&request(&nonce, wrong), refreshing("D"))
                .await;
            assert!(
                matches!(refused, Err(AccountError::Forbidden(_))),
                "{wrong}"
            );
        }
        let late = accounts.registration_nonce().unwrap();
        tokio::time::advance(Duration::from_secs(61)).await;
        let good = mac(&[&late, "Root", "pass", "admin"]);
        let refused = accounts
            .register_with_shared_secret(&request(&late, &good), refreshing("D"))
            .await;
        assert!(matches!(refused, Err(AccountError::InvalidParam(_))));
    }
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

async fn challenged(accounts: &Accounts, operation: &Operation<'_>) -> String {
    match accounts
        .authorise(operation, &[&[Stage::Password]], None)
        .await
        .unwrap()
    {
        Authorisation::Challenged(challenge) => challenge.session,
        Authorisation::Passed(_) => panic!("passed without a proof"),
    }
}

/// G13: a session serves the operation, user and body it was begun for, once; the proof must be the user's own.
#[tokio::test(start_paused = true)]
async fn g13_interactive_auth_is_bound_to_operation_user_and_body() {
    for lanes in LANES {
        let accounts = accounts(lanes).await;
        register(&accounts, "alice").await;
        register(&accounts, "bob").await;
        let body = object(json!({"devices": ["A"], "auth": {"x": 1}}));
        let other_body = object(json!({"devices": ["B"]}));
        let operation = Operation {
            name: "delete_devices",
            asker: Asker::User(ALICE),
            body: &body,
        };
        let flows: &[&[Stage]] = &[&[Stage::Password]];
        let proof = |session: &str, user: &str, password: &str| {
            object(json!({
                "type": "m.login.password", "session": session, "password": password,
                "identifier": {"type": "m.id.user", "user": user},
            }))
        };
        let session = challenged(&accounts, &operation).await;
        let right = proof(&session, "alice", "alice's password");
        for changed in [
            Operation {
                name: "deactivate",
                ..operation
            },
            Operation {
                asker: Asker::User("@bob:example.org"),
                ..operation
            },
            Operation {
                body: &other_body,
                ..operation
            },
        ] {
            let refused = accounts.authorise(&changed, flows, Some(&right)).await;
            assert!(
                matches!(refused, Err(AccountError::InteractiveAuth(_))),
                "{changed:?}"
            );
        }
        let bobs = proof(&session, "bob", "bob's password");
        let refused = accounts.authorise(&operation, flows, Some(&bobs)).await;
        assert!(matches!(refused, Err(AccountError::Forbidden(_))));
        let wrong = accounts
            .authorise(&operation, flows, Some(&proof(&session, ALICE, "x")))
            .await
            .unwrap();
        let Authorisation::Challenged(challenge) = wrong else {
            panic!("passed with a wrong password")
        };
        assert!(matches!(
            challenge.error,
            Some(AccountError::WrongCredentials)
        ));
        assert_eq!(
            (challenge.session.as_str(), challenge.completed.len()),
            (session.as_str(), 0)
        );

        let passed = accounts
            .authorise(&operation, flows, Some(&right))
            .await
            .unwrap();
        assert!(matches!(passed, Authorisation::Passed(_)));
        let again = accounts.authorise(&operation, flows, Some(&right)).await;
        assert!(matches!(again, Err(AccountError::InteractiveAuth(_))));
    }
}

/// G13: whoever has no password isn't asked for one, nor let through without.
#[tokio::test(start_paused = true)]
async fn g13_no_password_stage_for_the_passwordless() {
    for lanes in LANES {
        let accounts = accounts(lanes).await;
        let new = Registration {
            username: Some("sso".into()),
            ..Registration::default()
        };
        let user = accounts.register(new).await.unwrap().user_id;
        let body = Map::new();
        let operation = Operation {
            name: "deactivate",
            asker: Asker::User(&user),
            body: &body,
        };
        let refused = accounts
            .authorise(&operation, &[&[Stage::Password]], None)
            .await;
        assert!(matches!(refused, Err(AccountError::Forbidden(_))));
        let offered = accounts
            .authorise(&operation, &[&[Stage::Password], &[Stage::Dummy]], None)
            .await
            .unwrap();
        let Authorisation::Challenged(challenge) = offered else {
            panic!("passed without a proof")
        };
        assert_eq!(challenge.flows, [vec![Stage::Dummy]]);
    }
}

#[tokio::test(start_paused = true)]
async fn registration_asks_for_a_token_and_says_which_was_shown() {
    for lanes in LANES {
        let accounts = accounts(lanes).await;
        let token = accounts
            .create_registration_token(None, Some(1), None)
            .await
            .unwrap();
        let body = object(json!({"username": "alice"}));
        let operation = Operation {
            name: "register",
            asker: Asker::Address("1.2.3.4"),
            body: &body,
        };
        let flows: &[&[Stage]] = &[&[Stage::RegistrationToken, Stage::Dummy]];
        let session = match accounts.authorise(&operation, flows, None).await.unwrap() {
            Authorisation::Challenged(challenge) => challenge.session,
            Authorisation::Passed(_) => panic!("passed without a proof"),
        };
        let stage = |kind: &str, token: &str| {
            object(json!({"type": kind, "session": session, "token": token}))
        };
        let wrong = stage("m.login.registration_token", "x");
        let answer = accounts
            .authorise(&operation, flows, Some(&wrong))
            .await
            .unwrap();
        assert!(matches!(answer, Authorisation::Challenged(c) if c.error.is_some()));
        let right = stage("m.login.registration_token", &token);
        let answer = accounts
            .authorise(&operation, flows, Some(&right))
            .await
            .unwrap();
        assert!(
            matches!(answer, Authorisation::Challenged(c) if c.completed == [Stage::RegistrationToken])
        );
        let answer = accounts
            .authorise(&operation, flows, Some(&stage("m.login.dummy", "")))
            .await
            .unwrap();
        assert!(
            matches!(answer, Authorisation::Passed(shown) if shown.registration_token == Some(token))
        );
        tokio::time::advance(Duration::from_secs(16 * 60)).await;
        let late = accounts.authorise(&operation, flows, Some(&right)).await;
        assert!(matches!(late, Err(AccountError::InteractiveAuth(_))));
    }
}

/// G14: no row holds a password, and nothing that prints an account does.
#[tokio::test(start_paused = true)]
async fn g14_a_password_is_stored_as_its_hash_alone() {
    for lanes in LANES {
        let accounts = accounts(lanes).await;
        register(&accounts, "canary").await;
        let user = accounts.user("@canary:example.org").await.unwrap().unwrap();
        assert!(
            user.password
                .as_deref()
                .unwrap()
                .starts_with("$argon2id$v=19$m=64,t=1,p=1$")
        );
        assert!(!format!("{user:?}").contains("canary's password"));
    }
}
