//! Which state of a room a client wants: the two dialects' ways of saying so, brought to one form.

use std::collections::{BTreeMap, BTreeSet};

use comity_rooms::{
    Found, RoomError, RoomView,
    num::EventNum,
    state::{AnyRoot, Half},
};
use serde::{Deserialize, Serialize};

const MEMBER: &str = "m.room.member";
/// What an element takes in memory beside its names, more or less.
const ELEMENT: usize = 64;

/// Entries of the state that are wanted: those of any of the patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Required(BTreeSet<Pattern>);

/// Entries that match one of `include` and none of `exclude`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pattern {
    /// Of these.
    pub include: BTreeSet<Element>,
    /// Not of these.
    pub exclude: BTreeSet<Element>,
    /// Members only as they matter for what is shown, but those whom an element names.
    pub lazy: bool,
}

/// A piece of state; what isn't named may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Element {
    /// The event type.
    #[serde(rename = "type")]
    pub event_type: Option<String>,
    /// The state key.
    pub state_key: Option<String>,
}

impl Element {
    /// One entry.
    pub fn exact(event_type: &str, state_key: &str) -> Self {
        Self {
            event_type: Some(event_type.to_owned()),
            state_key: Some(state_key.to_owned()),
        }
    }

    fn matches(&self, event_type: &str, state_key: &str) -> bool {
        let is = |wanted: &Option<String>, is: &str| wanted.as_ref().is_none_or(|own| own == is);
        is(&self.event_type, event_type) && is(&self.state_key, state_key)
    }

    /// Whether it means members without naming one.
    fn is_all_members(&self) -> bool {
        self.state_key.is_none()
            && self
                .event_type
                .as_ref()
                .is_none_or(|event_type| event_type == MEMBER)
    }
}

impl Pattern {
    fn matches(&self, event_type: &str, state_key: &str) -> bool {
        let counts =
            |element: &&Element| !(self.lazy && event_type == MEMBER && element.is_all_members());
        let has = |elements: &BTreeSet<Element>| {
            let mut elements = elements.iter().filter(counts);
            elements.any(|element| element.matches(event_type, state_key))
        };
        has(&self.include)
            && !self
                .exclude
                .iter()
                .any(|element| element.matches(event_type, state_key))
    }

    fn has_all_members(&self) -> bool {
        !self.lazy
            && self.include.iter().any(Element::is_all_members)
            && !self.exclude.iter().any(Element::is_all_members)
    }
}

impl From<Pattern> for Required {
    fn from(pattern: Pattern) -> Self {
        Self(BTreeSet::from([pattern]))
    }
}

impl FromIterator<Pattern> for Required {
    fn from_iter<T: IntoIterator<Item = Pattern>>(patterns: T) -> Self {
        Self(patterns.into_iter().collect())
    }
}

impl Required {
    /// What it takes in memory, more or less: its elements, however short, and their names.
    pub fn bytes(&self) -> usize {
        let patterns = self.0.iter();
        let elements = patterns.flat_map(|of| of.include.iter().chain(&of.exclude));
        let bytes = elements.map(|of| {
            let names = of.event_type.iter().chain(&of.state_key);
            names.map(String::len).sum::<usize>() + ELEMENT
        });
        bytes.sum()
    }

    /// What of the state either wants.
    pub(crate) fn add(&mut self, other: &Self) {
        self.0.extend(other.0.iter().cloned());
    }

    /// Whether all that the other wants is wanted.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        std::ptr::eq(self, other) || self.0.is_superset(&other.0)
    }

    /// Whether an entry is wanted.
    pub(crate) fn matches(&self, event_type: &str, state_key: &str) -> bool {
        self.0
            .iter()
            .any(|pattern| pattern.matches(event_type, state_key))
    }

    /// Whether members come as they matter for what is shown.
    pub(crate) fn is_lazy(&self) -> bool {
        self.0.iter().any(|pattern| pattern.lazy) && !self.has_all_members()
    }

    /// Whether all members are wanted: then a room waits until they are known.
    pub(crate) fn has_all_members(&self) -> bool {
        self.0.iter().any(Pattern::has_all_members)
    }

    fn elements(&self) -> impl Iterator<Item = (&Pattern, &Element)> {
        self.0.iter().flat_map(|pattern| {
            pattern
                .include
                .iter()
                .map(move |element| (pattern, element))
        })
    }

    /// The events of a state that are wanted, and weren't by `had`. What is named is looked up; where something isn't, that half of
    /// the state is read, and nothing of it is looked up besides.
    pub(crate) async fn select(
        &self,
        view: &RoomView,
        root: AnyRoot,
        had: Option<&Self>,
    ) -> Result<BTreeMap<EventNum, Found>, RoomError> {
        let mut names: BTreeSet<(&str, &str)> = BTreeSet::new();
        let mut rest = false;
        for (_, element) in self.elements() {
            let event_type = element.event_type.as_deref();
            match (event_type, element.state_key.as_deref()) {
                (Some(event_type), Some(state_key)) => _ = names.insert((event_type, state_key)),
                (None, Some(state_key)) => {
                    names.insert((MEMBER, state_key));
                    rest = true;
                }
                (Some(MEMBER), None) => {}
                (_, None) => rest = true,
            }
        }
        let is_new = |event_type: &str, state_key: &str| {
            self.matches(event_type, state_key)
                && !had.is_some_and(|had| had.matches(event_type, state_key))
        };
        let members = self.has_all_members() && !had.is_some_and(Self::has_all_members);
        names.retain(|(event_type, state_key)| {
            let is_read = if *event_type == MEMBER { members } else { rest };
            !is_read && is_new(event_type, state_key)
        });
        let names: Vec<(&str, &str)> = names.into_iter().collect();
        let named = async {
            let keys = view.state_keys(&names).await?;
            let nums = view.lookup(root, &keys).await?;
            let nums: Vec<EventNum> = nums.into_iter().flatten().collect();
            view.load(&nums).await
        };
        let half = |is_read, half| async move {
            match is_read {
                true => view.all_state_in(root, Some(half)).await,
                false => Ok(Vec::new()),
            }
        };
        let (mut wanted, rest, members) =
            futures_util::try_join!(named, half(rest, Half::Rest), half(members, Half::Members),)?;
        let read = rest.into_iter().chain(members);
        wanted.extend(read.filter(|found| {
            let state_key = found.event.state_key();
            state_key.is_some_and(|state_key| is_new(found.event.event_type(), state_key))
        }));
        Ok(wanted.into_iter().map(|found| (found.num, found)).collect())
    }
}

/// [`Required`] as the older dialect says it: pairs of type and state key, with `*` for anything, `$ME` for the user and `$LAZY` for
/// members as they matter. Beside `["*", "*"]` pairs of a type leave of that type only what they name.
pub fn of_pairs(pairs: &[(String, String)], me: &str) -> Required {
    let mut named: BTreeMap<&str, BTreeSet<Element>> = BTreeMap::new();
    let (mut all, mut lazy) = (false, false);
    for (event_type, state_key) in pairs {
        let state_key = if state_key == "$ME" { me } else { state_key };
        if event_type == MEMBER && state_key == "$LAZY" {
            lazy = true;
            named.entry(MEMBER).or_default();
        } else if event_type == "*" && state_key == "*" {
            all = true;
        } else {
            let some = |name: &str| (name != "*").then(|| name.to_owned());
            let element = Element {
                event_type: some(event_type),
                state_key: some(state_key),
            };
            named.entry(event_type).or_default().insert(element);
        }
    }
    let mut exclude = BTreeSet::new();
    if all {
        let of_type = |event_type: &&str| Element {
            event_type: Some((*event_type).to_owned()),
            state_key: None,
        };
        let types = named.keys().filter(|event_type| **event_type != "*");
        exclude = types.map(of_type).collect();
    }
    let others = Pattern {
        include: BTreeSet::from([Element::default()]),
        exclude,
        lazy: false,
    };
    let named = Pattern {
        include: named.into_values().flatten().collect(),
        exclude: BTreeSet::new(),
        lazy,
    };
    std::iter::once(named)
        .chain(all.then_some(others))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Required {
        let pairs: Vec<(String, String)> = pairs
            .iter()
            .map(|(event_type, state_key)| ((*event_type).to_owned(), (*state_key).to_owned()))
            .collect();
        of_pairs(&pairs, "@me:here")
    }

    /// MSC3575 as it is spoken: pairs are or-ed, `*`, `$ME`, `$LAZY`, and the one exception that `["*", "*"]` makes.
    #[test]
    fn pairs_say_what_is_wanted() {
        let name = ("m.room.name", "");
        let (me, other) = ((MEMBER, "@me:here"), (MEMBER, "@you:here"));
        let child = ("m.space.child", "!a");
        let all = ("*", "*");
        for (said, wanted, lazy) in [
            (vec![], [false, false, false, false], false),
            (vec![name], [true, false, false, false], false),
            (vec![("*", "")], [true, false, false, false], false),
            (
                vec![("m.space.child", "*")],
                [false, false, false, true],
                false,
            ),
            (vec![(MEMBER, "$ME")], [false, true, false, false], false),
            (vec![(MEMBER, "*")], [false, true, true, false], false),
            (vec![(MEMBER, "$LAZY")], [false, false, false, false], true),
            (vec![all], [true, true, true, true], false),
            (
                vec![all, (MEMBER, "$LAZY")],
                [true, false, false, true],
                true,
            ),
            (
                vec![all, (MEMBER, "$LAZY"), (MEMBER, "$ME")],
                [true, true, false, true],
                true,
            ),
            (vec![all, (MEMBER, "$ME")], [true, true, false, true], false),
        ] {
            let required = pairs(&said);
            let entries = [name, me, other, child];
            let matches = entries.map(|(event_type, key)| required.matches(event_type, key));
            assert_eq!(matches, wanted, "{said:?}");
            assert_eq!(required.is_lazy(), lazy, "{said:?}");
        }
    }

    /// MSC4186, Combining room configs: what either wants; lazily only if nobody wants all members.
    #[test]
    fn configs_are_combined() {
        let mut both = pairs(&[("*", "*"), (MEMBER, "$LAZY")]);
        both.add(&pairs(&[(MEMBER, "@you:here")]));
        assert!(both.matches(MEMBER, "@you:here") && both.is_lazy());
        both.add(&pairs(&[(MEMBER, "*")]));
        assert!(both.matches(MEMBER, "@me:here") && !both.is_lazy() && both.has_all_members());
    }

    /// MSC4186, `RequiredStateRequest`: nothing said matches everything, members aside where they are loaded lazily.
    #[test]
    fn elements_include_and_exclude() {
        let pattern = Pattern {
            include: BTreeSet::from([Element::default(), Element::exact(MEMBER, "@me:here")]),
            exclude: BTreeSet::from([Element::exact("m.room.create", "")]),
            lazy: true,
        };
        let required = Required::from(pattern);
        assert!(required.matches("m.room.name", "") && required.matches(MEMBER, "@me:here"));
        assert!(!required.matches("m.room.create", "") && !required.matches(MEMBER, "@you:here"));
    }
}
