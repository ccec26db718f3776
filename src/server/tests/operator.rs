//! The operator's commands, through a running server and without one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::{os::unix::fs::PermissionsExt, path::Path};

use comity_accounts::Registration;
use comity_house::House;
use comity_runtime::Runtime;
use comity_server::{
    config::Config,
    house,
    operator::{self, Order},
};

fn config(folder: &Path) -> Config {
    let environment = [
        ("COMITY_SERVER_NAME", "localhost".to_owned()),
        ("COMITY_DATA_DIR", folder.display().to_string()),
        ("COMITY_STORAGE__ENGINE", "rocksdb".to_owned()),
        ("COMITY_STORAGE__LANES", "4".to_owned()),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value));
    Config::load(None, environment).unwrap()
}

fn add(name: &str) -> Order {
    Order::AddUser {
        name: name.to_owned(),
        password: Some("secret".to_owned()),
        admin: name == "alice",
    }
}

/// The same accounts whoever has the store; the socket is for the server's own user alone.
#[test]
fn commands_reach_the_store_whether_the_server_runs_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    // A reactor each: the store is free again when its process, here the reactor, ends.
    let process = || tokio::runtime::Runtime::new().unwrap();
    let added = process().block_on(operator::give(&config, &add("alice"), false));
    added.unwrap();
    process().block_on(with_the_server(&config, folder.path()));
}

async fn with_the_server(config: &Config, folder: &Path) {
    let runtime = Runtime::system();
    let house = house::open(config, &runtime).await.unwrap();
    operator::serve(config, &house, &runtime).unwrap();
    let socket = folder.join("operator.sock");
    let mode = std::fs::metadata(socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    operator::give(config, &add("bob"), false).await.unwrap();
    let taken = operator::give(config, &add("bob"), false)
        .await
        .unwrap_err();
    assert!(taken.contains("taken"), "{taken}");
    let name = "bob".to_owned();
    operator::give(config, &Order::Deactivate { name }, false)
        .await
        .unwrap();
    let reset = Order::ResetPassword {
        name: "@alice:localhost".to_owned(),
        password: None,
    };
    let said = operator::give(config, &reset, false).await.unwrap();
    let (_, password) = said.trim().split_once("Password: ").unwrap();
    let accounts = &house.api.accounts;
    assert!(
        accounts
            .verify_password("@alice:localhost", password)
            .await
            .unwrap()
    );
    let list = operator::give(config, &Order::ListUsers, false)
        .await
        .unwrap();
    assert_eq!(list, "@alice:localhost admin\n@bob:localhost deactivated\n");
    registration_tokens(config, &house).await;
}

/// Where registration is closed, people sign up by tokens that the operator makes.
async fn registration_tokens(config: &Config, house: &House) {
    let give = async |order: Order| operator::give(config, &order, false).await;
    let add = async |uses, days| {
        let said = give(Order::AddToken { uses, days }).await.unwrap();
        said.trim().to_owned()
    };
    let (once, week) = (add(Some(1), None).await, add(None, Some(7)).await);
    let accounts = &house.api.accounts;
    for token in [&once, &week] {
        let new = Registration {
            username: Some(format!("by.{}", token.to_lowercase())),
            password: Some("secret".to_owned()),
            token: Some(token.clone()),
            ..Registration::default()
        };
        accounts.register(new).await.unwrap();
    }
    assert!(!accounts.registration_token_is_valid(&once).await.unwrap());
    let mut expected = vec![
        format!("{once} 1 of 1 used"),
        format!("{week} 1 used, good for 7 more days"),
    ];
    expected.sort();
    let list = give(Order::ListTokens).await.unwrap();
    assert_eq!(list.lines().collect::<Vec<_>>(), expected);
    let remove = || {
        give(Order::RemoveToken {
            token: week.clone(),
        })
    };
    remove().await.unwrap();
    assert!(remove().await.is_err());
    assert!(!accounts.registration_token_is_valid(&week).await.unwrap());
}
