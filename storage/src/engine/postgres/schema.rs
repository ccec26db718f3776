//! The tables, the function that commits, and the statements that read.
//!
//! A table a family, `(s, k, v)`: slot, key, value. So slots can be spread over servers, and an
//! extension that distributes tables by a column can take the layout as it is.

use crate::{key::SLOTS, table::Family};

/// The newest form of the tables and of the function that this build knows.
pub(super) const FORMAT: i32 = 1;

/// What an open server is told of each connection. Every statement here finds rows by the primary
/// key; a plan made for a table that was empty must not outlive that.
pub(super) const SESSION: &str = "set enable_seqscan = off; set enable_hashjoin = off; \
    set enable_mergejoin = off; set jit = off; set plan_cache_mode = force_generic_plan; \
    set client_min_messages = warning; set idle_in_transaction_session_timeout = '60s'; ";

/// The lane has another owner.
pub(super) const FENCED: &str = "CM001";
/// A condition does not hold.
pub(super) const CONDITION: &str = "CM002";

fn table(family: Family) -> String {
    format!("comity_{}", family.name())
}

/// Makes what is missing. Several may come at once: the lock lets one do it.
pub(super) fn create() -> String {
    let mut sql = String::from(
        "begin; select pg_advisory_xact_lock(7163384699); \
         create table if not exists comity_store (format int not null, synced timestamptz); \
         insert into comity_store (format) select 1 where not exists (select from comity_store); ",
    );
    for family in Family::ALL {
        let table = table(family);
        // Rows rewritten often leave room for their next versions on their page.
        let with = match family {
            Family::Hot | Family::Queue => "fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05",
            _ => "fillfactor = 100",
        };
        sql += &format!(
            "create table if not exists {table} \
             (s int not null, k bytea not null, v bytea not null, primary key (s, k)) with ({with}); "
        );
    }
    // Bodies are compressed before they come here. Told once, for it needs the table alone.
    sql += "do $body$ begin if exists (select from pg_attribute where attrelid = 'comity_body'::regclass \
         and attname = 'v' and attstorage <> 'e') then \
           alter table comity_body alter column v set storage external; \
         end if; end $body$; ";
    sql += &commit_function();
    sql + "commit"
}

/// One call, one transaction, one round trip that can still roll back: the claim, shared until the
/// end so that another's waits; the conditions; ranges, rows removed, rows written. A log row is
/// inserted and never written over: the compare-and-set on its position.
fn commit_function() -> String {
    let mut body = format!(
        "perform 1 from comity_hot where s = fence_s and k = fence_k and v = fence_v for share; \
         if not found then raise exception 'the lane has another owner' using errcode = '{FENCED}'; end if; "
    );
    for (n, family) in Family::ALL.into_iter().enumerate() {
        let table = table(family);
        let conflict = match family {
            Family::Log => "",
            _ => "on conflict (s, k) do update set v = excluded.v",
        };
        body += &format!(
            "if {n} = any(if_f) then \
               perform 1 from unnest(if_f, if_s, if_k, if_at) c(f, s, k, at) \
                 left join {table} t on t.s = c.s and t.k = c.k \
                 where c.f = {n} and case when c.at is null then t.k is not null \
                   else t.k is null or substring(t.v from 2 for 8) <> c.at end; \
               if found then raise exception 'a condition does not hold' using errcode = '{CONDITION}'; end if; \
             end if; \
             if {n} = any(range_f) then \
               delete from {table} t using unnest(range_f, range_s, range_from, range_to) r(f, s, a, b) \
                 where r.f = {n} and t.s = r.s and t.k >= r.a and t.k < r.b; \
             end if; \
             if {n} = any(del_f) then \
               delete from {table} t using unnest(del_f, del_s, del_k) d(f, s, k) \
                 where d.f = {n} and t.s = d.s and t.k = d.k; \
             end if; \
             if {n} = any(put_f) then \
               insert into {table} (s, k, v) select p.s, p.k, p.v \
                 from unnest(put_f, put_s, put_k, put_v) p(f, s, k, v) where p.f = {n} {conflict}; \
             end if; "
        );
    }
    format!(
        "create or replace function comity_commit_{FORMAT}( \
           fence_s int, fence_k bytea, fence_v bytea, \
           if_f int[], if_s int[], if_k bytea[], if_at bytea[], \
           range_f int[], range_s int[], range_from bytea[], range_to bytea[], \
           del_f int[], del_s int[], del_k bytea[], \
           put_f int[], put_s int[], put_k bytea[], put_v bytea[] \
         ) returns void language plpgsql as $body$ begin {body} end $body$; "
    )
}

pub(super) fn commit() -> String {
    let parameters: Vec<String> = (1..=18).map(|n| format!("${n}")).collect();
    format!("select comity_commit_{FORMAT}({})", parameters.join(", "))
}

pub(super) const CLAIM_NEW: &str =
    "insert into comity_hot (s, k, v) values ($1, $2, $3) on conflict (s, k) do nothing";

pub(super) const CLAIM: &str = "update comity_hot set v = $3 where s = $1 and k = $2 and v = $4";

/// Makes all that was committed before durable, where commits don't wait for that.
pub(super) const SYNC: &str = "begin; set local synchronous_commit = on; \
     update comity_store set synced = now(); commit";

pub(super) fn get(family: Family) -> String {
    let table = table(family);
    format!(
        "select p.i, t.v from unnest($1::int[], $2::bytea[]) with ordinality p(s, k, i) \
         join {table} t on t.s = p.s and t.k = p.k"
    )
}

pub(super) fn scan(family: Family, reverse: bool) -> String {
    let (table, order) = (table(family), order(reverse));
    format!(
        "select k, v from {table} where s = $1 and k >= $2 and k < $3 order by k {order} limit $4"
    )
}

/// The same over all slots, each by its own key range.
pub(super) fn scan_everywhere(family: Family, reverse: bool) -> String {
    let (table, order) = (table(family), order(reverse));
    let last = SLOTS - 1;
    format!(
        "select t.k, t.v from generate_series(0, {last}) g(s) cross join lateral \
           (select k, v from {table} where s = g.s and k >= $1 and k < $2 order by k {order} limit $3) t \
         order by t.k {order} limit $3"
    )
}

fn order(reverse: bool) -> &'static str {
    if reverse { "desc" } else { "asc" }
}
