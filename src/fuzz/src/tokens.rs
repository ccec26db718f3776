//! What clients give back: the tokens we handed out, and filters.

use std::time::Duration;

use comity_accounts::{AccountError, Accounts, Config, PasswordCost};
use comity_runtime::Runtime;
use comity_storage::{Engine, Lanes, Options, Store, TenantId, engine::Memory};
use comity_sync::{
    filter::{EventFilter, Filter, MAX_LIMIT},
    token::{SlidingPos, Token},
};

use crate::text;

/// A token of `/sync`, of sliding sync or of a page: what is read means what it says when it is written again.
pub(crate) fn sync_token(bytes: &[u8]) {
    if let Ok(pos) = text(bytes).parse::<SlidingPos>() {
        assert_eq!(pos.to_string().parse::<SlidingPos>().as_ref(), Ok(&pos));
        let elsewhere = text(bytes).parse::<Token>();
        assert_eq!(elsewhere, Ok(Token::Sync(pos.token)));
    }
    if let Ok(token) = text(bytes).parse::<Token>() {
        let again = match &token {
            Token::Sync(token) => token.to_string(),
            Token::Place(token) => token.to_string(),
        };
        assert_eq!(again.parse::<Token>().as_ref(), Ok(&token));
    }
}

/// A filter, by itself and as that of one section.
pub(crate) fn filter(bytes: &[u8]) {
    let _ = Filter::parse(text(bytes));
    if let Ok(filter) = EventFilter::parse(text(bytes)) {
        assert!(filter.limit() <= MAX_LIMIT);
        filter.wants_type("m.room.message");
        filter.wants_sender("@bob:localhost");
    }
}

thread_local! {
    /// Houses where nobody lives, one with a single lane, one with four: no token opens them.
    static HOUSES: (tokio::runtime::Runtime, [Accounts; 2]) = houses();
}

fn houses() -> (tokio::runtime::Runtime, [Accounts; 2]) {
    let mut reactor = tokio::runtime::Builder::new_current_thread();
    let reactor = reactor.enable_time().build().unwrap();
    let houses = reactor.block_on(async {
        let [one, four] = [1, 4].map(accounts);
        [one.await, four.await]
    });
    (reactor, houses)
}

/// Accounts on a memory engine, none yet.
pub(crate) async fn accounts(lanes: u8) -> Accounts {
    let options = Options {
        lanes: Lanes::new(lanes).unwrap(),
        sync: true,
        on_fatal: std::sync::Arc::new(|_| {}),
        appliers: Vec::new(),
    };
    let engine = Engine::Memory(Memory::new());
    let store = Store::new(engine, options, Runtime::simulated(1));
    let config = Config {
        server_name: "localhost".into(),
        public_baseurl: "http://localhost".into(),
        token_key: [7; 32],
        registration_open: false,
        guests: false,
        shared_secret: None,
        access_token_lifetime: Duration::from_secs(300),
        password_cost: PasswordCost {
            memory_kib: 64,
            passes: 1,
            parallel: 1,
        },
        limits: false,
    };
    Accounts::open(store.tenant(TenantId(1)).await.unwrap(), config).unwrap()
}

/// An access token or a refresh token, forged or of a session that isn't there: unknown, and no failure of ours.
pub(crate) fn access_token(bytes: &[u8]) {
    HOUSES.with(|(reactor, houses)| {
        reactor.block_on(async {
            let unknown = |error| matches!(error, AccountError::UnknownToken { .. });
            for accounts in houses {
                let asked = accounts.authenticate(text(bytes)).await;
                assert!(asked.is_err_and(unknown));
                let asked = accounts.refresh(text(bytes)).await;
                assert!(asked.is_err_and(unknown));
            }
        });
    });
}
