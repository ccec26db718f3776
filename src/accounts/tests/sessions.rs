//! Signing in, refreshing, signing out: R1.1, R1.3–R1.5, G9, G10, G16.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use std::time::Duration;

use comity_accounts::{AccountError, Accounts, Issued, NewDevice, Standing};
use comity_storage::engine::Memory;
use common::{LANES, accounts, config, refreshing, register, tenant};

const ALICE: &str = "@alice:example.org";

async fn signed_in(lanes: u8) -> (Accounts, Issued) {
    let accounts = accounts(lanes).await;
    let issued = register(&accounts, "alice").await.issued.unwrap();
    (accounts, issued)
}

fn is_unknown<T>(answer: &Result<T, AccountError>, soft: bool) -> bool {
    matches!(answer, Err(AccountError::UnknownToken { soft_logout }) if *soft_logout == soft)
}

/// R1.1: a token says who asks, costs no read after its first request, and ends when it says.
#[tokio::test(start_paused = true)]
async fn r1_1_a_token_is_good_until_it_expires_and_costs_no_read() {
    use std::sync::atomic::Ordering::Relaxed;
    for lanes in LANES {
        let (accounts, issued) = signed_in(lanes).await;
        assert_eq!(issued.expires_in_ms, Some(300_000));
        accounts.authenticate(&issued.access_token).await.unwrap();
        let reads = accounts.tenant().stats().round_trips.load(Relaxed);
        let known = accounts.authenticate(&issued.access_token).await.unwrap();
        assert_eq!(accounts.tenant().stats().round_trips.load(Relaxed), reads);
        assert_eq!(known.requester.user_id, ALICE);
        assert_eq!(known.requester.device_id, "PHONE");
        tokio::time::advance(Duration::from_secs(301)).await;
        assert!(is_unknown(
            &accounts.authenticate(&issued.access_token).await,
            true
        ));
    }
}

/// R1.1: a client that can't refresh gets a token that doesn't expire.
#[tokio::test(start_paused = true)]
async fn r1_1_without_refresh_a_token_does_not_expire() {
    for lanes in LANES {
        let (accounts, _) = signed_in(lanes).await;
        let device = NewDevice {
            refresh: false,
            ..refreshing("OLD")
        };
        let issued = accounts.login(ALICE, device).await.unwrap();
        assert_eq!((issued.expires_in_ms, &issued.refresh_token), (None, &None));
        tokio::time::advance(Duration::from_secs(10_000_000)).await;
        accounts.authenticate(&issued.access_token).await.unwrap();
    }
}

/// R1.3, G16: the old refresh token answers with the same pair until that is used, then ends the family.
#[tokio::test(start_paused = true)]
async fn r1_3_g16_a_lost_answer_logs_nobody_out_and_a_replay_ends_the_family() {
    for lanes in LANES {
        let (accounts, first) = signed_in(lanes).await;
        let old = first.refresh_token.clone().unwrap();
        let lost = accounts.refresh(&old).await.unwrap();
        let second = accounts.refresh(&old).await.unwrap();
        assert_eq!(lost.refresh_token, second.refresh_token);
        // Until the new pair is used, the old access token is good as well.
        accounts.authenticate(&first.access_token).await.unwrap();
        accounts.authenticate(&second.access_token).await.unwrap();
        assert!(is_unknown(
            &accounts.authenticate(&first.access_token).await,
            true
        ));

        let third = accounts
            .refresh(second.refresh_token.as_deref().unwrap())
            .await
            .unwrap();
        let open = accounts.authenticate(&third.access_token).await.unwrap();
        assert!(is_unknown(&accounts.refresh(&old).await, false));
        assert!(open.has_ended());
        assert!(is_unknown(
            &accounts.authenticate(&third.access_token).await,
            false
        ));
        assert!(is_unknown(
            &accounts
                .refresh(third.refresh_token.as_deref().unwrap())
                .await,
            false
        ));
    }
}

/// R1.3: refreshing with the new pair is using it.
#[tokio::test(start_paused = true)]
async fn r1_3_refreshing_twice_spends_the_first() {
    for lanes in LANES {
        let (accounts, first) = signed_in(lanes).await;
        let second = accounts
            .refresh(first.refresh_token.as_deref().unwrap())
            .await
            .unwrap();
        accounts
            .refresh(second.refresh_token.as_deref().unwrap())
            .await
            .unwrap();
        assert!(is_unknown(
            &accounts
                .refresh(first.refresh_token.as_deref().unwrap())
                .await,
            false
        ));
    }
}

/// R1.4, G10: the same answer for a wrong password and an unknown user. G9: the sixth wrong login is refused, for both.
#[tokio::test(start_paused = true)]
async fn r1_4_g9_g10_wrong_credentials_all_look_alike() {
    for lanes in LANES {
        for name in [
            "alice",
            "@alice:example.org",
            "nobody",
            "@alice:elsewhere.org",
            "\0",
        ] {
            let (accounts, _) = signed_in(lanes).await;
            for _ in 0..5 {
                let answer = accounts
                    .password_login(name, "wrong", "1.2.3.4", refreshing("X"))
                    .await;
                assert!(
                    matches!(answer, Err(AccountError::WrongCredentials)),
                    "{name}"
                );
            }
            let answer = accounts
                .password_login(name, "alice's password", "1.2.3.5", refreshing("X"))
                .await;
            assert!(
                matches!(answer, Err(AccountError::LimitExceeded { .. })),
                "{name}"
            );
            tokio::time::advance(Duration::from_secs(12)).await;
            let answer = accounts
                .password_login(name, "alice's password", "1.2.3.5", refreshing("X"))
                .await;
            assert_eq!(
                answer.is_ok(),
                name.starts_with("alice") || name == ALICE,
                "{name}"
            );
        }
    }
}

/// G10: one hash an attempt, whether the user is known, unknown, without a password, or can't be.
#[tokio::test(start_paused = true)]
async fn g10_every_attempt_costs_one_hash() {
    for lanes in LANES {
        let (accounts, _) = signed_in(lanes).await;
        let new = comity_accounts::Registration {
            username: Some("sso".into()),
            ..Default::default()
        };
        accounts.register(new).await.unwrap();
        let long = "x".repeat(100_000);
        for (name, password) in [
            ("alice", "wrong"),
            ("nobody", "wrong"),
            ("sso", "wrong"),
            ("@a:b", "wrong"),
            ("alice", ""),
            ("alice", &long),
        ] {
            let before = accounts.password_hashes();
            let answer = accounts
                .password_login(name, password, &before.to_string(), refreshing("X"))
                .await;
            assert!(
                matches!(answer, Err(AccountError::WrongCredentials)),
                "{name}"
            );
            assert_eq!(accounts.password_hashes(), before + 1, "{name}");
        }
    }
}

/// E10, R11.2: what may end in a log shows neither password nor token nor key.
#[tokio::test(start_paused = true)]
async fn e10_secrets_are_not_printed() {
    for lanes in LANES {
        let (accounts, issued) = signed_in(lanes).await;
        let new = comity_accounts::Registration {
            password: Some("canary".into()),
            token: Some("canary".into()),
            ..Default::default()
        };
        let config = comity_accounts::Config {
            shared_secret: Some("canary".into()),
            ..config()
        };
        let known = accounts.authenticate(&issued.access_token).await.unwrap();
        let printed = format!("{new:?} {config:?} {issued:?} {known:?}");
        let refresh = issued.refresh_token.unwrap();
        for secret in ["canary", &issued.access_token, &refresh, "[7, 7, 7"] {
            assert!(!printed.contains(secret), "{printed}");
        }
    }
}

/// R1.5: signing out ends the tokens and what waits on their behalf; the other device stays.
#[tokio::test(start_paused = true)]
async fn r1_5_logout_ends_tokens_and_open_polls() {
    for lanes in LANES {
        let (accounts, phone) = signed_in(lanes).await;
        let laptop = accounts.login(ALICE, refreshing("LAPTOP")).await.unwrap();
        let poll = accounts.authenticate(&phone.access_token).await.unwrap();
        let other = accounts.authenticate(&laptop.access_token).await.unwrap();
        accounts.logout(&poll).await.unwrap();
        poll.ended().await;
        assert!(is_unknown(
            &accounts.authenticate(&phone.access_token).await,
            false
        ));
        assert!(is_unknown(
            &accounts
                .refresh(phone.refresh_token.as_deref().unwrap())
                .await,
            false
        ));
        assert!(!other.has_ended());
        accounts.logout_all(ALICE, None).await.unwrap();
        other.ended().await;
        assert!(accounts.devices(ALICE).await.unwrap().is_empty());
    }
}

/// R1.5: a node that had no part in the logout ends the session too, by the lane's log.
#[tokio::test(start_paused = true)]
async fn r1_5_another_node_hears_of_it_by_the_log() {
    for lanes in LANES {
        let tenant = tenant(&Memory::default(), lanes).await;
        let here = Accounts::open(tenant.clone(), config()).unwrap();
        let there = Accounts::open(tenant, config()).unwrap();
        let issued = register(&here, "alice").await.issued.unwrap();
        let poll = there.authenticate(&issued.access_token).await.unwrap();
        let who = here.authenticate(&issued.access_token).await.unwrap();
        here.logout(&who).await.unwrap();
        tokio::time::timeout(Duration::from_secs(1), poll.ended())
            .await
            .unwrap();
        assert!(is_unknown(
            &there.authenticate(&issued.access_token).await,
            false
        ));
    }
}

/// G11: locking ends what is under way and answers so until it is undone; deactivation is for good.
#[tokio::test(start_paused = true)]
async fn g11_locked_and_deactivated_accounts() {
    for lanes in LANES {
        let (accounts, issued) = signed_in(lanes).await;
        let poll = accounts.authenticate(&issued.access_token).await.unwrap();
        accounts
            .set_standing(ALICE, Standing::Locked(true))
            .await
            .unwrap();
        poll.ended().await;
        let answer = accounts.authenticate(&issued.access_token).await;
        assert!(matches!(answer, Err(AccountError::Locked)));
        accounts
            .authenticate_to_sign_out(&issued.access_token)
            .await
            .unwrap();
        let answer = accounts.authenticate(&issued.access_token).await;
        assert!(matches!(answer, Err(AccountError::Locked)));
        accounts
            .set_standing(ALICE, Standing::Locked(false))
            .await
            .unwrap();
        accounts
            .set_standing(ALICE, Standing::Suspended(true))
            .await
            .unwrap();
        let again = accounts.authenticate(&issued.access_token).await.unwrap();
        assert!(again.requester.suspended);

        accounts.deactivate(ALICE, true).await.unwrap();
        accounts.deactivate(ALICE, true).await.unwrap();
        again.ended().await;
        assert!(is_unknown(
            &accounts.authenticate(&issued.access_token).await,
            false
        ));
        let login = accounts
            .password_login("alice", "alice's password", "::1", refreshing("X"))
            .await;
        assert!(matches!(login, Err(AccountError::WrongCredentials)));
        let login = accounts.login(ALICE, refreshing("X")).await;
        assert!(matches!(login, Err(AccountError::Deactivated)));
        let taken = accounts.check_available("alice").await;
        assert!(matches!(taken, Err(AccountError::UserInUse)));
    }
}

/// G11: what runs at the same time as a deactivation leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn g11_nothing_outlives_a_deactivation() {
    for lanes in LANES {
        let (accounts, _) = signed_in(lanes).await;
        let name = Some(serde_json::json!("Alice"));
        let (deactivated, login, named) = futures_util::join!(
            accounts.deactivate(ALICE, false),
            accounts.login(ALICE, refreshing("LATE")),
            accounts.set_profile_field(ALICE, "displayname", name),
        );
        deactivated.unwrap();
        assert!(matches!(login, Err(AccountError::Deactivated)));
        assert!(matches!(named, Err(AccountError::Deactivated)));
        assert_eq!(accounts.devices(ALICE).await.unwrap(), []);
        assert!(matches!(
            accounts.profile(ALICE).await,
            Err(AccountError::NotFound(_))
        ));
    }
}

/// The job to leave rooms survives a crash between the deactivation and its end.
#[tokio::test(start_paused = true)]
async fn a_deactivation_is_finished_after_a_restart() {
    use comity_accounts::LeaveRooms;
    struct Leaving(std::sync::Mutex<Vec<(String, bool)>>);
    #[async_trait::async_trait]
    impl LeaveRooms for Leaving {
        async fn leave_all(&self, user_id: &str, erase: bool) -> Result<(), AccountError> {
            self.0.lock().unwrap().push((user_id.to_owned(), erase));
            Ok(())
        }
    }
    for lanes in LANES {
        let disk = Memory::default();
        let accounts = Accounts::open(tenant(&disk, lanes).await, config()).unwrap();
        register(&accounts, "alice").await;
        let favourite = serde_json::Map::new();
        accounts
            .set_tag(ALICE, "!a:x", "m.favourite", &favourite)
            .await
            .unwrap();
        accounts
            .set_tag(ALICE, "!b:x", "m.favourite", &favourite)
            .await
            .unwrap();
        accounts.deactivate(ALICE, true).await.unwrap();
        let accounts = Accounts::open(tenant(&disk, lanes).await, config()).unwrap();
        let leaving = Leaving(std::sync::Mutex::default());
        accounts.finish_deactivations(&leaving).await.unwrap();
        accounts.finish_deactivations(&leaving).await.unwrap();
        assert_eq!(*leaving.0.lock().unwrap(), [(ALICE.to_owned(), true)]);
        assert_eq!(accounts.all_room_account_data(ALICE).await.unwrap(), []);
    }
}

/// Signing in again on a device ends its tokens of before; its name stays.
#[tokio::test(start_paused = true)]
async fn a_device_has_one_session() {
    for lanes in LANES {
        let (accounts, first) = signed_in(lanes).await;
        let device = NewDevice {
            display_name: Some("other".into()),
            ..refreshing("PHONE")
        };
        let second = accounts
            .password_login("ALICE", "alice's password", "::1", device)
            .await
            .unwrap();
        assert!(is_unknown(
            &accounts.authenticate(&first.access_token).await,
            false
        ));
        accounts.authenticate(&second.access_token).await.unwrap();
        let devices = accounts.devices(ALICE).await.unwrap();
        assert_eq!(devices.len(), 1);
        assert_eq!(devices[0].display_name.as_deref(), Some("my PHONE"));
    }
}

#[tokio::test(start_paused = true)]
async fn devices_are_named_seen_and_deleted() {
    for lanes in LANES {
        let (accounts, issued) = signed_in(lanes).await;
        let who = accounts.authenticate(&issued.access_token).await.unwrap();
        accounts.saw(&who, "10.0.0.1", "client/1");
        let seen = accounts.device(ALICE, "PHONE").await.unwrap().seen.unwrap();
        assert_eq!(
            (seen.ip.as_str(), seen.user_agent.as_str()),
            ("10.0.0.1", "client/1")
        );
        accounts.write_seen().await.unwrap();
        assert_eq!(
            accounts.device(ALICE, "PHONE").await.unwrap().seen,
            Some(seen)
        );
        accounts
            .rename_device(ALICE, "PHONE", Some("new".into()))
            .await
            .unwrap();
        assert_eq!(
            accounts
                .device(ALICE, "PHONE")
                .await
                .unwrap()
                .display_name
                .as_deref(),
            Some("new")
        );
        let missing = accounts.rename_device(ALICE, "X", None).await;
        assert!(matches!(missing, Err(AccountError::NotFound(_))));
        accounts
            .delete_devices(ALICE, &["PHONE".into(), "X".into()])
            .await
            .unwrap();
        assert!(who.has_ended());
        assert!(matches!(
            accounts.device(ALICE, "PHONE").await,
            Err(AccountError::NotFound(_))
        ));
    }
}

/// A password change that keeps one device.
#[tokio::test(start_paused = true)]
async fn a_new_password_counts_and_other_devices_can_be_signed_out() {
    for lanes in LANES {
        let (accounts, phone) = signed_in(lanes).await;
        let laptop = accounts.login(ALICE, refreshing("LAPTOP")).await.unwrap();
        accounts.set_password(ALICE, "new password").await.unwrap();
        accounts.logout_all(ALICE, Some("PHONE")).await.unwrap();
        accounts.authenticate(&phone.access_token).await.unwrap();
        assert!(is_unknown(
            &accounts.authenticate(&laptop.access_token).await,
            false
        ));
        assert!(
            !accounts
                .verify_password(ALICE, "alice's password")
                .await
                .unwrap()
        );
        assert!(
            accounts
                .verify_password(ALICE, "new password")
                .await
                .unwrap()
        );
    }
}
