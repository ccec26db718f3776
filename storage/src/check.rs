//! Walks a tenant's rows and says what is not as this crate writes it: what `comity check` stands on. What
//! rows of several tables say together is for the crates that write them to check; they read through
//! [`reader`] and tell a [`Listener`] as well.
//!
//! It claims nothing and writes nothing. On a store that is being written meanwhile, rows may be
//! newer than the heads it read first; run it when nothing writes.

use std::{collections::BTreeMap, fmt, sync::Arc};

use bytes::Bytes;

use crate::{
    batch::after_prefix,
    claim,
    engine::{Engine, RowKey, Scan},
    error::ReadError,
    heads::{Heads, Pos},
    key::{At, Lane, Lanes, Slot, TenantId},
    log::LogTable,
    pages::{PAGE, Pages},
    read::Reader,
    store::Shared,
    system::{self, Births, Cursors, Epochs, LaneKey},
    table::{self, Family, Registered, Row, Table},
};

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The table's name, where the row has one.
    pub table: Option<&'static str>,
    /// The row's family and key; none where it is about a lane.
    pub row: Option<(Family, Bytes)>,
    /// What is wrong. It holds no content of the row.
    pub what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.table.unwrap_or("store"), self.what)?;
        if let Some((family, key)) = &self.row {
            write!(f, " [{} ", family.name())?;
            key.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
            write!(f, "]")?;
        }
        Ok(())
    }
}

/// Hears what a check finds, and how far it has come. A closure over findings is one.
pub trait Listener<F>: Send {
    /// Something is not as it should be.
    fn found(&mut self, finding: F);
    /// So many rows have been walked since this was last said.
    fn walked(&mut self, rows: usize) {
        let _ = rows;
    }
}

impl<F, C: FnMut(F) + Send> Listener<F> for C {
    fn found(&mut self, finding: F) {
        self(finding);
    }
}

impl<F> dyn Listener<F> + '_ {
    /// The next page of a table's rows, which are told as walked.
    ///
    /// # Errors
    /// The store can't be read.
    pub async fn page<T: Table>(
        &mut self,
        reader: &Reader,
        pages: &mut Pages<T>,
    ) -> Result<Option<Vec<(T::Key, Row<T::Value>)>>, ReadError> {
        let page = pages.next(reader).await?;
        self.walked(page.as_ref().map_or(0, Vec::len));
        Ok(page)
    }
}

/// Rows of several tables that say different things: what a crate finds of the rows that it writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction<B> {
    /// Whose rows: a user, a server, a file.
    pub of: String,
    /// What should hold and doesn't.
    pub broken: B,
    /// In which table.
    pub table: &'static str,
}

impl<B: fmt::Display> fmt::Display for Contradiction<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}: {}", self.table, self.of, self.broken)
    }
}

impl<B> dyn Listener<Contradiction<B>> + '_ {
    /// Tells a contradiction in a table.
    pub fn say<T: Table>(&mut self, of: &str, broken: B) {
        self.found(Contradiction {
            of: of.to_owned(),
            broken,
            table: T::NAME,
        });
    }
}

/// What doesn't hold between rows, each with its words, once for readers of the code and of the check's findings.
#[macro_export]
macro_rules! broken {
    ($($name:ident: $text:literal,)+) => {
        /// What doesn't hold.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Broken {$(
            #[doc = $text]
            $name,
        )+}

        impl Broken {
            /// All that is looked for.
            pub const ALL: &[Self] = &[$(Self::$name),+];
        }

        impl ::std::fmt::Display for Broken {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(match self {$(
                    Self::$name => $text,
                )+})
            }
        }
    };
}

/// Reads a tenant's rows as they are, up to where its lanes stand, without a claim to any. `None` where its
/// own rows don't say what lanes it has, which [`tenant`] finds.
///
/// # Errors
/// The store can't be read.
pub async fn reader(engine: &Engine, tenant: TenantId) -> Result<Option<Reader>, ReadError> {
    let birth = claim::read::<Births>(engine, tenant, &LaneKey(Lane(0))).await?;
    let Some(lanes) = birth.and_then(|birth| Lanes::new(birth.value.lanes)) else {
        return Ok(None);
    };
    let mut heads = Vec::new();
    for lane in lanes.all() {
        let head = claim::head(engine, tenant, lane).await?;
        heads.push(head.map_or(0, |head| head.pos));
    }
    let shared = Arc::new(Shared::new(engine, tenant, lanes, heads));
    Ok(Some(Reader {
        bound: shared.heads(),
        shared,
        overlay: None,
    }))
}

/// What was walked.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Rows.
    pub rows: u64,
    /// The lanes' heads.
    pub heads: Heads,
}

/// Walks all rows of a tenant. `tables` are those of the other crates; this one's own are added.
/// Each finding is told as it is met.
///
/// # Errors
/// The store can't be read.
pub async fn tenant(
    engine: &Engine,
    tenant: TenantId,
    tables: &[Registered],
    to: &mut dyn Listener<Finding>,
) -> Result<Checked, ReadError> {
    let mut walk = Walk {
        engine,
        tenant,
        tables: BTreeMap::new(),
        lanes: Lanes::ONE,
        heads: Vec::new(),
        bases: Vec::new(),
        logs: BTreeMap::new(),
        rows: 0,
        to,
    };
    for table in system::tables().iter().chain(tables) {
        if let Some(other) = walk.tables.insert(table.tag, *table) {
            walk.say(
                None,
                format!("{} and {} have one tag", other.name, table.name),
            );
        }
    }
    walk.lanes().await?;
    for family in Family::ALL {
        walk.family(family).await?;
    }
    walk.logs_end_at_heads();
    Ok(Checked {
        rows: walk.rows,
        heads: Heads::new(walk.heads),
    })
}

/// Rows that belong to none of these tenants.
///
/// # Errors
/// The store can't be read.
pub async fn strays(
    engine: &Engine,
    tenants: &[TenantId],
    to: &mut dyn Listener<Finding>,
) -> Result<(), ReadError> {
    let mut tenants = tenants.to_vec();
    tenants.sort();
    for family in Family::ALL {
        let mut from = Bytes::new();
        let ends = tenants
            .iter()
            .map(|t| Bytes::copy_from_slice(&t.0.to_be_bytes()));
        let last = Bytes::from_static(&[255; 64]);
        for end in ends.chain([last]) {
            let scan = Scan {
                family,
                slot: None,
                from: from.clone(),
                to: end.clone(),
                reverse: false,
                limit: PAGE,
            };
            for (key, _) in page(engine, scan).await? {
                to.found(Finding {
                    table: None,
                    row: Some((family, key)),
                    what: "the row belongs to no tenant".into(),
                });
            }
            from = after_prefix(&end);
        }
    }
    Ok(())
}

async fn page(engine: &Engine, scan: Scan) -> Result<Vec<(Bytes, Bytes)>, ReadError> {
    let mut pages = engine.scan_many(&[scan]).await?;
    Ok(pages.pop().unwrap_or_default())
}

struct Walk<'a> {
    engine: &'a Engine,
    tenant: TenantId,
    tables: BTreeMap<[u8; 2], Registered>,
    lanes: Lanes,
    heads: Vec<Pos>,
    /// Where the lanes' positions of this incarnation begin.
    bases: Vec<Pos>,
    /// Where each lane's log has been followed to.
    logs: BTreeMap<Lane, Pos>,
    rows: u64,
    to: &'a mut dyn Listener<Finding>,
}

impl Walk<'_> {
    fn say(&mut self, table: Option<&'static str>, what: impl Into<String>) {
        self.to.found(Finding {
            table,
            row: None,
            what: what.into(),
        });
    }

    fn say_of(
        &mut self,
        table: Option<&'static str>,
        row: (Family, &Bytes),
        what: impl Into<String>,
    ) {
        self.to.found(Finding {
            table,
            row: Some((row.0, row.1.clone())),
            what: what.into(),
        });
    }

    /// Every lane has a claim and a head, and neither contradicts the other.
    async fn lanes(&mut self) -> Result<(), ReadError> {
        let zero = LaneKey(Lane(0));
        match claim::read::<Births>(self.engine, self.tenant, &zero).await? {
            None => self.say(None, "the tenant has no birth row"),
            Some(birth) => match Lanes::new(birth.value.lanes) {
                Some(lanes) => {
                    self.lanes = lanes;
                    self.bases = lanes.all().map(|lane| birth.value.base(lane)).collect();
                }
                None => self.say(None, format!("{} lanes can't be", birth.value.lanes)),
            },
        }
        for lane in self.lanes.all() {
            let epoch = claim::read::<Epochs>(self.engine, self.tenant, &LaneKey(lane)).await?;
            let head = claim::head(self.engine, self.tenant, lane).await?;
            let n = lane.0;
            match (&epoch, &head) {
                (None, _) => self.say(None, format!("lane {n} has never had an owner")),
                (Some(epoch), Some(head)) if head.epoch > epoch.value.epoch => {
                    self.say(None, format!("lane {n} was written by an owner to come"));
                }
                _ => {}
            }
            self.heads.push(head.map_or(0, |head| head.pos));
        }
        Ok(())
    }

    async fn family(&mut self, family: Family) -> Result<(), ReadError> {
        let mut from = Bytes::copy_from_slice(&self.tenant.0.to_be_bytes());
        let to = after_prefix(&from);
        loop {
            let scan = Scan {
                family,
                slot: None,
                from: from.clone(),
                to: to.clone(),
                reverse: false,
                limit: PAGE,
            };
            let rows = page(self.engine, scan).await?;
            let mut addresses = Vec::with_capacity(rows.len());
            for (key, value) in &rows {
                self.rows += 1;
                if let Some(slot) = self.row(family, key, value) {
                    let key = key.clone();
                    addresses.push(RowKey { family, slot, key });
                }
            }
            self.found_at(&addresses).await?;
            self.to.walked(rows.len());
            match rows.last() {
                Some((last, _)) if rows.len() == PAGE => {
                    from = [last.as_ref(), &[0]].concat().into();
                }
                _ => return Ok(()),
            }
        }
    }

    /// The row parses, and its position has been given out. Returns the slot that its key names.
    fn row(&mut self, family: Family, key: &Bytes, value: &Bytes) -> Option<Slot> {
        let tag = key.get(4..6).and_then(|tag| <[u8; 2]>::try_from(tag).ok());
        let Some(table) = tag.and_then(|tag| self.tables.get(&tag)).copied() else {
            self.say_of(None, (family, key), "no table has this tag");
            return None;
        };
        let name = Some(table.name);
        if table.family != family {
            let what = format!("the row belongs to family {}", table.family.name());
            self.say_of(name, (family, key), what);
        }
        let slot = match (table.slot)(key) {
            Ok(slot) => slot,
            Err(damaged) => {
                self.say_of(name, (family, key), damaged.to_string());
                return None;
            }
        };
        let head = self.heads.get(usize::from(self.lanes.of(slot).0)).copied();
        match (table.pos)(value) {
            Err(damaged) => self.say_of(name, (family, key), damaged.to_string()),
            Ok(Some(pos)) if Some(pos) > head && table.tag != table::tag_of::<Epochs>() => {
                let what = format!("position {pos} is beyond the lane's head");
                self.say_of(name, (family, key), what);
            }
            Ok(_) => {}
        }
        if table.tag == table::tag_of::<LogTable>() {
            self.log(family, key, value);
        }
        if table.tag == table::tag_of::<Cursors>() {
            self.cursor(family, key, value);
        }
        Some(slot)
    }

    /// Each log row names the one before it.
    fn log(&mut self, family: Family, key: &Bytes, value: &Bytes) {
        let (Ok(at), Ok(row)) = (
            table::read_key::<LogTable>(key),
            table::read_value::<LogTable>(value),
        ) else {
            return;
        };
        let (At::Is(pos), after) = (at.pos, row.value.after) else {
            return;
        };
        // The first one there may follow what was pruned.
        if let Some(before) = self.logs.insert(at.lane, pos)
            && before != after
        {
            let what =
                format!("commits are missing between {before} and {pos}: it follows {after}");
            self.say_of(Some("log"), (family, key), what);
        }
        if at.lane.0 >= self.lanes.count() {
            self.say_of(Some("log"), (family, key), "there is no such lane");
        }
    }

    fn cursor(&mut self, family: Family, key: &Bytes, value: &Bytes) {
        let (Ok(route), Ok(row)) = (
            table::read_key::<Cursors>(key),
            table::read_value::<Cursors>(value),
        ) else {
            return;
        };
        let source = usize::from(route.source.0);
        let head = self.heads.get(source).max(self.bases.get(source));
        // After a lossy start a cursor may stand in the empty stretch before the new positions.
        if Some(&row.value.pos) > head {
            self.say_of(
                Some("outbox cursor"),
                (family, key),
                "it is beyond its source's head",
            );
        }
    }

    fn logs_end_at_heads(&mut self) {
        for (lane, head) in self.lanes.all().zip(self.heads.clone()) {
            let last = self.logs.get(&lane).copied().unwrap_or(0);
            if last != head {
                let n = lane.0;
                self.say(
                    Some("lane head"),
                    format!("lane {n} stands at {head}, its log ends at {last}"),
                );
            }
        }
    }

    /// Rows are where their homes say, for an engine that keeps slots apart.
    async fn found_at(&mut self, addresses: &[RowKey]) -> Result<(), ReadError> {
        let values = self.engine.get_many(addresses).await?;
        for (row, value) in addresses.iter().zip(values) {
            if value.is_none() {
                let what = format!("the row is not in its slot {}", row.slot.number());
                self.say_of(None, (row.family, &row.key), what);
            }
        }
        Ok(())
    }
}
