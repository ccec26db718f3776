//! The rulesets that a room counts by beside the default one: what the rules of many members come down to
//! (muted, mentions only), at most [`PLACES`] of them.
//!
//! Each has a place among the totals, and each member is at one place: to count by another from now on is
//! a *turn*, which is a row. A place that nobody is at any more can be another ruleset's: what was counted
//! there before stays as it is, for counts are differences.

use std::collections::BTreeMap;

use comity_protocol::push::{EventFacts, Fingerprint, SharedRules, Verdict};

use crate::tables;

/// Places beside the default ruleset's; who finds none free has a hit for each event that differs.
const PLACES: usize = 7;

/// See the module.
pub(crate) struct Rulesets {
    /// By place, the default first; none where no member of the place has been heard yet.
    programs: Vec<Option<SharedRules>>,
    /// Their names, from place 1 on.
    names: Vec<Fingerprint>,
    /// Who is at another place than the default's.
    places: BTreeMap<String, u8>,
}

impl Rulesets {
    /// The rulesets as the room's rows have them.
    pub fn new(common: SharedRules, names: tables::Rulesets, places: BTreeMap<String, u8>) -> Self {
        let mut programs = vec![None; names.0.len() + 1];
        if let Some(first) = programs.first_mut() {
            *first = Some(common);
        }
        Self {
            programs,
            names: names.0,
            places,
        }
    }

    /// The names for the room's row.
    pub fn names(&self) -> tables::Rulesets {
        tables::Rulesets(self.names.clone())
    }

    /// Where a member is.
    pub fn place_of(&self, user: &str) -> u8 {
        self.places.get(user).copied().unwrap_or_default()
    }

    /// What an event is under each ruleset, to whom it doesn't name.
    pub fn verdicts(&self, event: &EventFacts<'_>) -> Vec<Verdict> {
        let verdict = |program: &Option<SharedRules>| {
            let program = program.as_ref();
            program.map_or_else(Verdict::default, |program| program.verdict(event))
        };
        self.programs.iter().map(verdict).collect()
    }

    /// The place of a ruleset, given now where one is free.
    pub fn find(&mut self, rules: &SharedRules) -> Option<u8> {
        let name = rules.fingerprint();
        if let Some(Some(common)) = self.programs.first()
            && common.fingerprint() == name
        {
            return Some(0);
        }
        let known = self.names.iter().position(|known| *known == name);
        let at = known.or_else(|| self.free())?;
        if at == self.names.len() {
            self.names.push(name);
            self.programs.push(None);
        }
        *self.names.get_mut(at)? = name;
        *self.programs.get_mut(at + 1)? = Some(rules.clone());
        u8::try_from(at + 1).ok()
    }

    /// The first name whose place nobody is at, or a new one.
    fn free(&self) -> Option<usize> {
        let taken = |at: &usize| {
            self.places
                .values()
                .any(|place| usize::from(*place) == at + 1)
        };
        (0..PLACES)
            .find(|at| !taken(at))
            .filter(|at| *at <= self.names.len())
    }

    /// Puts a member at a place; whether they were elsewhere.
    pub fn turn(&mut self, user: &str, place: u8) -> bool {
        let before = match place {
            0 => self.places.remove(user),
            _ => self.places.insert(user.to_owned(), place),
        };
        before.unwrap_or_default() != place
    }
}
