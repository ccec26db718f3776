//! What guessing, flooding, racing and restoring must not get: G9, G13, and the ends of sessions and login tokens.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod common;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use comity_accounts::{
    AccountError, Accounts, Asker, Authorisation, Config, Operation, Proof, Stage,
};
use comity_runtime::Runtime;
use comity_storage::{Engine, Home, Lanes, Options, Record, Store, TenantId, engine::Memory};
use common::{LANES, accounts, config, refreshing, register, tenant};
use futures_util::future::join_all;
use serde_json::{Map, json};
use tokio::time::{Instant, sleep};

const ALICE: &str = "@alice:example.org";
const RIGHT: &str = "alice's password";

/// Who of many that try at once is refused for wrong credentials, and who for trying too much.
async fn guess(accounts: &Accounts, tries: &[(String, &str)]) -> (usize, usize) {
    let all = tries
        .iter()
        .map(|(name, address)| accounts.password_login(name, "wrong", address, refreshing("X")));
    let answers = join_all(all).await;
    let count = |is: fn(&AccountError) -> bool| {
        answers
            .iter()
            .filter(|answer| answer.as_ref().is_err_and(is))
            .count()
    };
    (
        count(|error| matches!(error, AccountError::WrongCredentials)),
        count(|error| matches!(error, AccountError::LimitExceeded { .. })),
    )
}

/// G9: five wrong logins an account and five an address, also of a hundred that come before the first one's hash is computed;
/// no more hashes than that.
#[tokio::test(start_paused = true)]
async fn g9_guessing_in_parallel_gains_nothing() {
    let by_account: Vec<_> = (0..100).map(|_| ("alice".to_owned(), "")).collect();
    let addresses: Vec<_> = (0..100).map(|n| format!("10.0.0.{n}")).collect();
    let by_account: Vec<_> = by_account
        .iter()
        .zip(&addresses)
        .map(|((name, _), address)| (name.clone(), address.as_str()))
        .collect();
    let by_address: Vec<_> = (0..25).map(|n| (format!("user{n}"), "10.0.0.1")).collect();
    for lanes in LANES {
        for tries in [&by_account, &by_address] {
            let accounts = accounts(lanes).await;
            register(&accounts, "alice").await;
            let before = accounts.password_hashes();
            assert_eq!(guess(&accounts, tries).await, (5, tries.len() - 5));
            assert_eq!(accounts.password_hashes(), before + 5);
            let (name, address) = &tries[0];
            let right = accounts.password_login(name, RIGHT, address, refreshing("X"));
            assert!(matches!(
                right.await,
                Err(AccountError::LimitExceeded { .. })
            ));
        }
    }
}

/// G10, law 11: two passwords are hashed at a time and 256 wait; who comes beyond that is told to come again and costs nothing.
#[tokio::test(start_paused = true)]
async fn g10_hashing_is_bounded() {
    for lanes in LANES {
        let config = Config {
            limits: false,
            ..config()
        };
        let accounts = Accounts::open(tenant(&Memory::default(), lanes).await, config).unwrap();
        let tries = (0..300).map(|n| {
            let name = format!("user{n}");
            let accounts = &accounts;
            async move {
                let login = accounts.password_login(&name, "wrong", "10.0.0.1", refreshing("X"));
                login.await
            }
        });
        let answers = join_all(tries).await;
        let hashed = answers.iter();
        let hashed = hashed.filter(|it| matches!(it, Err(AccountError::WrongCredentials)));
        let refused = answers.iter();
        let refused = refused.filter(|it| matches!(it, Err(AccountError::Busy(_))));
        assert_eq!((hashed.count(), refused.count()), (258, 42));
        assert_eq!(accounts.password_hashes(), 258);
    }
}

/// G9: right logins count for nothing, however many.
#[tokio::test(start_paused = true)]
async fn g9_right_logins_are_not_counted_as_wrong() {
    for lanes in LANES {
        let accounts = accounts(lanes).await;
        register(&accounts, "alice").await;
        for _ in 0..20 {
            accounts
                .password_login("alice", RIGHT, "10.0.0.1", refreshing("X"))
                .await
                .unwrap();
        }
        let tries = vec![("alice".to_owned(), "10.0.0.1"); 5];
        assert_eq!(guess(&accounts, &tries).await, (5, 0));
    }
}

async fn challenge(accounts: &Accounts, asker: Asker<'_>) -> String {
    let body = Map::new();
    let operation = Operation {
        name: "x",
        asker,
        body: &body,
    };
    match accounts
        .authorise(&operation, &[&[Stage::Dummy]], None)
        .await
        .unwrap()
    {
        Authorisation::Challenged(challenge) => challenge.session,
        Authorisation::Passed(_) => panic!("passed without a proof"),
    }
}

/// G13, law 11: whoever begins sessions without end loses their own, nobody else's.
#[tokio::test(start_paused = true)]
async fn g13_nobody_loses_a_session_to_a_flood_of_others() {
    for lanes in LANES {
        let accounts = accounts(lanes).await;
        register(&accounts, "alice").await;
        let (alice, other) = (Asker::User(ALICE), Asker::Address("10.9.9.9"));
        let sessions = [
            challenge(&accounts, alice).await,
            challenge(&accounts, other).await,
        ];
        let flooder = Asker::Address("10.0.0.1");
        let first = challenge(&accounts, flooder).await;
        for _ in 0..1_000 {
            challenge(&accounts, flooder).await;
        }
        // From everywhere, more than there is room for in all.
        for n in 0..12_000_u32 {
            let address = std::net::Ipv4Addr::from_bits(0x0B00_0000 + n / 2).to_string();
            challenge(&accounts, Asker::Address(&address)).await;
        }
        let answer = async |asker, session: &str| {
            let body = Map::new();
            let operation = Operation {
                name: "x",
                asker,
                body: &body,
            };
            let auth = json!({"type": "m.login.dummy", "session": session});
            let flows: &[&[Stage]] = &[&[Stage::Dummy]];
            accounts
                .authorise(&operation, flows, auth.as_object())
                .await
        };
        let lost = answer(flooder, &first).await;
        assert!(matches!(lost, Err(AccountError::InteractiveAuth(_))));
        for (asker, session) in [alice, other].into_iter().zip(&sessions) {
            let passed = answer(asker, session).await;
            assert!(matches!(passed, Ok(Authorisation::Passed(_))), "{asker:?}");
        }
    }
}

/// A proof of the user's password, by the way that hands one out.
async fn proof(accounts: &Accounts, password: &str) -> Proof {
    let body = Map::new();
    let operation = Operation {
        name: "x",
        asker: Asker::User(ALICE),
        body: &body,
    };
    let auth = json!({"type": "m.login.password", "password": password});
    let flows: &[&[Stage]] = &[&[Stage::Password]];
    match accounts
        .authorise(&operation, flows, auth.as_object())
        .await
    {
        Ok(Authorisation::Passed(shown)) => shown.password.unwrap(),
        other => panic!("no proof: {other:?}"),
    }
}

/// A login token ends with the password it rests on; a user has few, and nobody else's give way for them.
#[tokio::test(start_paused = true)]
async fn a_login_token_ends_with_the_password_that_was_proved() {
    for lanes in LANES {
        let accounts = accounts(lanes).await;
        register(&accounts, "alice").await;
        register(&accounts, "bob").await;
        let login = async |token: &str| {
            accounts
                .token_login(token, "10.0.0.1", refreshing("NEW"))
                .await
        };
        let old = proof(&accounts, RIGHT).await;
        let (good, _) = accounts.login_token(ALICE, old.clone());
        let (stale, _) = accounts.login_token(ALICE, old.clone());
        login(&good).await.unwrap();
        accounts.set_password(ALICE, "another").await.unwrap();
        assert!(matches!(
            login(&stale).await,
            Err(AccountError::Forbidden(_))
        ));
        // Proved before the change and asked for after it.
        let (late, _) = accounts.login_token(ALICE, old);
        assert!(matches!(
            login(&late).await,
            Err(AccountError::Forbidden(_))
        ));

        let new = proof(&accounts, "another").await;
        let (kept, _) = accounts.login_token(ALICE, new.clone());
        for _ in 0..100 {
            accounts.login_token("@bob:example.org", new.clone());
        }
        login(&kept).await.unwrap();
        let first = accounts.login_token(ALICE, new.clone()).0;
        for _ in 0..4 {
            accounts.login_token(ALICE, new.clone());
        }
        assert!(matches!(
            login(&first).await,
            Err(AccountError::Forbidden(_))
        ));
    }
}

/// G11: a login with the old password that began before a change leaves no session that is good after it, wherever in
/// between the change comes.
#[tokio::test(start_paused = true)]
async fn g11_a_login_racing_a_password_change_gains_nothing() {
    for lanes in LANES {
        let (mut refused, mut ended) = (0, 0);
        for steps in 0..40 {
            let accounts = accounts(lanes).await;
            register(&accounts, "alice").await;
            let mut login =
                Box::pin(accounts.password_login("alice", RIGHT, "10.0.0.1", refreshing("X")));
            let mut done = None;
            for _ in 0..steps {
                if done.is_none()
                    && let std::task::Poll::Ready(answer) = futures_util::poll!(&mut login)
                {
                    done = Some(answer);
                }
                tokio::task::yield_now().await;
            }
            accounts.set_password(ALICE, "another").await.unwrap();
            accounts.logout_all(ALICE, None).await.unwrap();
            let answer = match done {
                Some(answer) => answer,
                None => login.await,
            };
            match answer {
                Err(AccountError::WrongCredentials) => refused += 1,
                Ok(issued) => {
                    let used = accounts.authenticate(&issued.access_token).await;
                    assert!(
                        matches!(used, Err(AccountError::UnknownToken { .. })),
                        "{steps}"
                    );
                    ended += 1;
                }
                Err(error) => panic!("{steps}: {error}"),
            }
        }
        assert!(
            refused > 0 && ended > 0,
            "{refused} {ended}: one side of the race was never seen"
        );
    }
}

/// data-model.md, Sessions: a session of before an incarnation ends, for its end may be among what was lost; the device stays,
/// and its user signs in on it again.
#[tokio::test(start_paused = true)]
async fn sessions_end_with_their_incarnation() {
    for lanes in LANES {
        let disk = Memory::default();
        let open = async |sync, disk: &Memory| {
            let options = Options {
                lanes: Lanes::new(lanes).unwrap(),
                sync,
                on_fatal: Arc::new(|_| {}),
                appliers: Vec::new(),
            };
            let store = Store::new(
                Engine::Memory(disk.clone()),
                options,
                Runtime::simulated(u64::from(lanes)),
            );
            let tenant = store.tenant(TenantId(1)).await.unwrap();
            Accounts::open(tenant, config()).unwrap()
        };
        let accounts = open(true, &disk).await;
        let issued = register(&accounts, "alice").await.issued.unwrap();
        // Nothing can be lost: the session goes on.
        let disk = disk.crash();
        let accounts = open(false, &disk).await;
        accounts.authenticate(&issued.access_token).await.unwrap();
        // Without fsync something can.
        let disk = disk.crash();
        let accounts = open(true, &disk).await;
        let ended = |answer| {
            matches!(
                answer,
                Err(AccountError::UnknownToken { soft_logout: true })
            )
        };
        assert!(ended(
            accounts.authenticate(&issued.access_token).await.map(drop)
        ));
        let refreshed = accounts
            .refresh(issued.refresh_token.as_deref().unwrap())
            .await;
        assert!(ended(refreshed.map(drop)));
        let again = accounts
            .password_login("alice", RIGHT, "10.0.0.1", refreshing("PHONE"))
            .await
            .unwrap();
        accounts.authenticate(&again.access_token).await.unwrap();
        assert_eq!(accounts.devices(ALICE).await.unwrap().len(), 1);
    }
}

/// R1.5, law 5; data-model.md, Sessions: a node that the store keeps waiting for its log hears of no revocation. After 750 ms its
/// requests read their sessions' rows, and whoever was signed out by another node is out here too; once the log can be read
/// again, requests read nothing.
#[tokio::test(start_paused = true)]
async fn r1_5_a_stalled_follower_makes_requests_read_their_sessions() {
    for lanes in LANES {
        let disk = Memory::default();
        let tenant = tenant(&disk, lanes).await;
        let node = || Accounts::open(tenant.clone(), config()).unwrap();
        let (here, elsewhere) = (node(), node());
        let alice = register(&here, "alice").await.issued.unwrap().access_token;
        let bob = register(&here, "bob").await.issued.unwrap().access_token;
        for token in [&alice, &bob] {
            here.authenticate(token).await.unwrap();
        }
        // Too much for followers to find in memory, and a store that takes longer than they wait.
        disk.set_distance(Duration::from_secs(1));
        let lane = tenant.lane(Home::User(ALICE));
        let mut batch = lane.batch();
        batch.log(Record {
            kind: 0xffff,
            subject: ALICE.into(),
            body: vec![0; 3 << 20],
        });
        lane.commit(batch).await.unwrap();
        let took = async |token: &str| {
            let began = Instant::now();
            here.authenticate(token).await.unwrap();
            began.elapsed()
        };
        sleep(Duration::from_millis(700)).await;
        assert_eq!(took(&bob).await, Duration::ZERO);
        sleep(Duration::from_millis(100)).await;
        assert_eq!(took(&bob).await, Duration::from_secs(1));
        assert_eq!(took(&bob).await, Duration::from_secs(1));
        let devices = ["PHONE".to_owned()];
        elsewhere.delete_devices(ALICE, &devices).await.unwrap();
        assert!(matches!(
            here.authenticate(&alice).await,
            Err(AccountError::UnknownToken { .. })
        ));

        disk.set_distance(Duration::ZERO);
        sleep(Duration::from_secs(2)).await;
        took(&bob).await;
        let reads = || tenant.stats().round_trips.load(Relaxed);
        let before = reads();
        took(&bob).await;
        assert_eq!(reads(), before);
    }
}
