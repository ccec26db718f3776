//! Keys of devices: who has which, handed out to those who are to encrypt for them.
//!
//! ```text
//! upload ─▶ checked, verified ─▶ rows in the user's lane ─▶ claim: each one-time key once
//!                                   └─▶ a record a change    query: as uploaded, with signatures
//! ```
//!
//! [`Keys`] is one tenant's. Devices are the accounts' business; what is kept of them here comes and goes in the same batches
//! ([`comity_accounts::Belongings`]). A change of a user's list is one record and one entry in the order of changes, whoever is to
//! hear of it: readers compare it with the rooms they share.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#end-to-end-encryption>

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]

mod change;
pub mod check;
mod claim;
mod cross_signing;
mod dehydrated;
mod devices;
mod elsewhere;
mod error;
mod lists;
pub mod object;
mod query;
mod remote;
mod signatures;
mod supply;
pub mod tables;
mod turns;
mod updates;
mod upload;

use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

use comity_accounts::Accounts;
use comity_protocol::id::{OwnedServerName, UserId};
use comity_storage::{Home, LaneWriter, Pos, Tenant};
use parking_lot::Mutex;

pub use change::{DeviceUpdate, LIST, ListChanged, SUPPLY};
pub use claim::{Claimed, Wanted};
pub use cross_signing::{CrossSigningUpload, Need};
pub use elsewhere::{Elsewhere, Neighbours, PeerDevice, PeerDevices, PeerKeys, Unreachable};
pub use error::KeysError;
pub use lists::Changed;
pub use query::{Asked, Found, UserDevices};
pub use remote::{Failure, Failures};
pub use signatures::{Refusals, SignedObjects};
pub use supply::Left;
pub use updates::{PeerSigningUpdate, PeerUpdate};
pub use upload::Upload;

/// One tenant's keys. Cheap to clone.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    tenant: Tenant,
    accounts: Accounts,
    server_name: OwnedServerName,
    elsewhere: OnceLock<Arc<dyn Elsewhere>>,
    neighbours: OnceLock<Arc<dyn Neighbours>>,
    /// Users of other servers whose list is being asked for.
    resyncing: Mutex<BTreeSet<String>>,
    /// A user's changes one after the other, so that those who want the same key don't all decide in vain.
    turns: turns::Turns,
}

impl Keys {
    /// The keys of the devices of these accounts, of a server of this name. From now on they come and go with the devices.
    pub fn new(accounts: Accounts, server_name: OwnedServerName) -> Self {
        let tenant = accounts.tenant().clone();
        accounts.keep_with_devices(Arc::new(devices::OfDevices {
            tenant: tenant.clone(),
        }));
        Self(Arc::new(Inner {
            tenant,
            accounts,
            server_name,
            elsewhere: OnceLock::new(),
            neighbours: OnceLock::new(),
            resyncing: Mutex::default(),
            turns: turns::Turns::default(),
        }))
    }

    /// The tenant whose keys these are.
    pub fn tenant(&self) -> &Tenant {
        &self.0.tenant
    }

    fn is_local(&self, user: &UserId) -> bool {
        user.server_name() == self.0.server_name
    }

    fn lane(&self, user: &str) -> &LaneWriter {
        self.0.tenant.lane(Home::User(user))
    }

    /// Where a user's lane stood when the incarnation began.
    fn began_at(&self, user: &str) -> Pos {
        self.0.tenant.began_at(Home::User(user))
    }
}
