//! What clients give back: the tokens we handed out, and filters.

use std::time::Duration;

use comity_accounts::{AccountError, Accounts, Config, PasswordCost};
use comity_runtime::Runtime;
use comity_storage::{Engine, Lanes, Options, Store, TenantId, engine::Memory};
use comity_sync::{
    filter::{EventFilter, Filter, MAX_LIMIT},
    token::Token,
};

use crate::text;

/// A token of `/sync` or of a page: what is read means what it says when it is written again.
pub(crate) fn sync_token(bytes: &[u8]) {
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
    /// A house where nobody lives: no token opens it.
    static ACCOUNTS: (tokio::runtime::Runtime, Accounts) = accounts();
}

fn accounts() -> (tokio::runtime::Runtime, Accounts) {
    let mut reactor = tokio::runtime::Builder::new_current_thread();
    let reactor = reactor.enable_time().build().unwrap();
    let accounts = reactor.block_on(async {
        let options = Options {
            lanes: Lanes::ONE,
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
    });
    (reactor, accounts)
}

/// An access token or a refresh token, forged or of a session that isn't there: unknown, and no failure of ours.
pub(crate) fn access_token(bytes: &[u8]) {
    ACCOUNTS.with(|(reactor, accounts)| {
        reactor.block_on(async {
            let unknown = |error| matches!(error, AccountError::UnknownToken { .. });
            let asked = accounts.authenticate(text(bytes)).await;
            assert!(asked.is_err_and(unknown));
            let asked = accounts.refresh(text(bytes)).await;
            assert!(asked.is_err_and(unknown));
        });
    });
}
