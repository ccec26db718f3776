//! What capabilities leave for one another in the lanes' logs: bodies of records and of debts.

use std::fmt::Debug;

use comity_accounts::{Accounts, Change, NewDevice, Registration};
use comity_keys::ListChanged;
use comity_rooms::log::{self, kind};
use comity_storage::{Owed, Record, Target, table::to_postcard};
use serde::{Serialize, de::DeserializeOwned};

use crate::tokens::accounts;

/// Whether the body of a record can be read.
pub type Reads = fn(&Record) -> bool;

/// The kinds of records that have a body, each with its reader.
pub const RECORDS: [(u16, Reads); 10] = [
    (comity_accounts::KIND, |record| kept(record, Change::of)),
    (comity_keys::LIST, |record| kept(record, ListChanged::of)),
    (kind::PLACED, of_rooms::<log::Placed>),
    (kind::RECEIPT, of_rooms::<log::ReceiptMoved>),
    (kind::FORGOT, of_rooms::<log::Forgot>),
    (kind::RESOLVED, of_rooms::<log::Resolved>),
    (kind::RELAYED, of_rooms::<log::Relayed>),
    (kind::COMPLETED, of_rooms::<log::Completed>),
    (kind::REPLACED, of_rooms::<log::Replaced>),
    (kind::FETCHED, of_rooms::<log::Fetched>),
];

fn of_rooms<T: Serialize + DeserializeOwned + PartialEq + Debug>(record: &Record) -> bool {
    kept(record, |record| log::read::<T>(record).ok())
}

/// Whether it can be read; then it is read the same from what it is written as.
fn kept<T: Serialize + PartialEq + Debug>(
    record: &Record,
    read: impl Fn(&Record) -> Option<T>,
) -> bool {
    let Some(said) = read(record) else {
        return false;
    };
    let again = Record {
        body: to_postcard(&said).unwrap(),
        ..record.clone()
    };
    assert_eq!(read(&again), Some(said));
    true
}

/// A record, or a debt, as the corpus has it: its kind in two bytes, and its body.
fn parts(bytes: &[u8]) -> Option<(u16, Vec<u8>)> {
    let (kind, body) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*kind), body.to_vec()))
}

/// Whether the body of a record can be read; of a kind that has none, or that nobody knows, it can't.
///
/// # Panics
/// If it would be another when it was written again.
#[must_use]
pub fn reads(bytes: &[u8]) -> bool {
    let Some((kind, body)) = parts(bytes) else {
        return false;
    };
    let record = Record {
        kind,
        subject: String::new(),
        body,
    };
    let mut known = RECORDS.iter().filter(|(known, _)| *known == kind);
    known.any(|(_, reads)| reads(&record))
}

/// Damage is no record, or another one.
pub(crate) fn record(bytes: &[u8]) {
    let _ = reads(bytes);
}

thread_local! {
    /// Houses with a user and her device, one with a single lane, one with four.
    static HOUSES: (tokio::runtime::Runtime, [Accounts; 2]) = houses();
}

fn houses() -> (tokio::runtime::Runtime, [Accounts; 2]) {
    let mut reactor = tokio::runtime::Builder::new_current_thread();
    let reactor = reactor.enable_time().build().unwrap();
    let alice = || Registration {
        username: Some("alice".to_owned()),
        device: Some(NewDevice {
            device_id: Some("DEVICE".to_owned()),
            ..NewDevice::default()
        }),
        ..Registration::default()
    };
    let houses = reactor.block_on(async {
        let houses = [accounts(1).await, accounts(4).await];
        for house in &houses {
            house.register(alice()).await.unwrap();
        }
        houses
    });
    (reactor, houses)
}

/// Whatever stands in a debt, it is done with: nothing that is owed after it waits for it.
pub(crate) fn debt(bytes: &[u8]) {
    let Some((kind, body)) = parts(bytes) else {
        return;
    };
    let targets = [
        Target::User("@alice:localhost".to_owned()),
        Target::Server("there.test".to_owned()),
    ];
    HOUSES.with(|(reactor, houses)| {
        reactor.block_on(async {
            for (house, target) in houses
                .iter()
                .flat_map(|house| targets.each_ref().map(|target| (house, target)))
            {
                let lane = house.tenant().lane(target.home());
                let owed = Owed {
                    kind,
                    target: target.clone(),
                    body: body.clone(),
                };
                for applier in comity_to_device::appliers() {
                    if applier.kind() == kind {
                        let mut batch = lane.batch();
                        applier
                            .apply(&lane.reader(), &[&owed], &mut batch)
                            .await
                            .unwrap();
                    }
                }
            }
        });
    });
}
