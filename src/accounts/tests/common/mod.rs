//! A tenant's accounts over the memory engine, with simulated time.
#![allow(dead_code)]

use std::{sync::Arc, time::Duration};

use comity_accounts::{Accounts, Config, NewDevice, PasswordCost, Registered, Registration};
use comity_runtime::Runtime;
use comity_storage::{Engine, Lanes, Options, Store, Tenant, TenantId, engine::Memory};

/// The lane counts every test runs with.
pub const LANES: [u8; 2] = [1, 4];

pub fn config() -> Config {
    Config {
        server_name: "example.org".into(),
        public_baseurl: "https://example.org".into(),
        token_key: [7; 32],
        registration_open: true,
        guests: true,
        shared_secret: Some("secret".into()),
        access_token_lifetime: Duration::from_secs(300),
        password_cost: PasswordCost {
            memory_kib: 64,
            passes: 1,
            parallel: 2,
        },
        limits: true,
    }
}

pub async fn tenant(disk: &Memory, lanes: u8) -> Tenant {
    let options = Options {
        lanes: Lanes::new(lanes).unwrap(),
        sync: true,
        on_fatal: Arc::new(|_| {}),
        appliers: Vec::new(),
    };
    let runtime = Runtime::simulated(u64::from(lanes));
    let store = Store::new(Engine::Memory(disk.clone()), options, runtime);
    store.tenant(TenantId(1)).await.unwrap()
}

pub async fn accounts(lanes: u8) -> Accounts {
    Accounts::open(tenant(&Memory::default(), lanes).await, config()).unwrap()
}

/// Registers and signs in, with a refresh token.
pub async fn register(accounts: &Accounts, name: &str) -> Registered {
    let new = Registration {
        username: Some(name.into()),
        password: Some(format!("{name}'s password")),
        device: Some(refreshing("PHONE")),
        ..Registration::default()
    };
    accounts.register(new).await.unwrap()
}

pub fn refreshing(id: &str) -> NewDevice {
    NewDevice {
        device_id: Some(id.into()),
        display_name: Some(format!("my {id}")),
        refresh: true,
    }
}
