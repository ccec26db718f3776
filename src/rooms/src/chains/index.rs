//! The questions the cover answers.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ChainError, ChainSource, EventNum, StateSet,
    rows::Place,
    walk::{Cover, Spans, Walk, raise},
};

/// The auth chains of one room.
#[derive(Debug, Clone)]
pub struct ChainIndex<S> {
    pub(super) source: S,
}

impl<S: ChainSource> ChainIndex<S> {
    /// The chains whose rows `source` holds.
    pub fn new(source: S) -> Self {
        Self { source }
    }

    /// Whether `to` is in the auth chain of `from`.
    ///
    /// # Errors
    /// [`ChainError`], as everything here, when an event isn't indexed or a row can't be read.
    pub async fn reaches(
        &self,
        from: EventNum,
        to: EventNum,
    ) -> Result<bool, ChainError<S::Error>> {
        let mut walk = Walk::new(&self.source);
        let places = walk.places(&[from, to]).await?;
        let [from, to] = places.as_slice() else {
            return Ok(false);
        };
        let reached = walk.descend([*from]).await?;
        Ok(reached
            .get(&to.chain)
            .is_some_and(|count| to.position < *count))
    }

    /// The auth chains of some events together: their auth events, those events' auth events and
    /// so on.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn auth_chain(
        &self,
        of: &[EventNum],
    ) -> Result<BTreeSet<EventNum>, ChainError<S::Error>> {
        let mut walk = Walk::new(&self.source);
        let places = walk.places(of).await?;
        let reached = walk.descend(places).await?;
        Ok(walk.events(
            &reached
                .into_iter()
                .map(|(chain, count)| (chain, (0, count)))
                .collect(),
        ))
    }

    /// Whether `event` is in the auth chain of an event of the state.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn is_reached<T>(
        &self,
        event: EventNum,
        state: &T,
    ) -> Result<bool, ChainError<S::Error>>
    where
        T: StateSet<Error = S::Error>,
    {
        let mut walk = Walk::new(&self.source);
        let places = walk.places(&[event]).await?;
        let span = |place: Place| (place.chain, (place.position, place.position + 1));
        let mut left: Spans = places.into_iter().map(span).collect();
        walk.subtract_reached(&mut left, state).await?;
        Ok(left.is_empty())
    }

    /// The [auth difference](https://spec.matrix.org/v1.19/rooms/v2/#definitions) of forks of the
    /// room's state: the events in the auth chain of some fork's state but not of all.
    ///
    /// `forks` has each fork's events where the forks disagree, `common` the entries all share;
    /// whatever one of those reaches is in every chain.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn auth_difference<T>(
        &self,
        forks: &[BTreeSet<EventNum>],
        common: &T,
    ) -> Result<BTreeSet<EventNum>, ChainError<S::Error>>
    where
        T: StateSet<Error = S::Error>,
    {
        let mut walk = Walk::new(&self.source);
        let mut covers = Vec::with_capacity(forks.len());
        for fork in forks {
            let events: Vec<_> = fork.iter().copied().collect();
            let places = walk.places(&events).await?;
            covers.push(walk.descend(places).await?);
        }
        let mut some = Cover::new();
        covers
            .iter()
            .flatten()
            .for_each(|(&chain, &count)| _ = raise(&mut some, chain, count));
        let all = |chain| {
            covers
                .iter()
                .map(|cover| cover.get(&chain).copied().unwrap_or(0))
                .min()
                .unwrap_or(0)
        };
        let mut difference: Spans = some
            .into_iter()
            .map(|(chain, count)| (chain, (all(chain), count)))
            .collect();
        walk.subtract_reached(&mut difference, common).await?;
        Ok(walk.events(&difference))
    }

    /// The [conflicted state subgraph](https://spec.matrix.org/v1.19/rooms/v12/#definitions): the
    /// events on an auth path between two of `conflicted`, these included.
    ///
    /// # Errors
    /// [`ChainError`].
    pub async fn conflicted_subgraph(
        &self,
        conflicted: &BTreeSet<EventNum>,
    ) -> Result<BTreeSet<EventNum>, ChainError<S::Error>> {
        let mut walk = Walk::new(&self.source);
        let events: Vec<_> = conflicted.iter().copied().collect();
        let places = walk.places(&events).await?;
        let mut below = walk.descend(places.iter().copied()).await?;
        places
            .iter()
            .for_each(|place| _ = raise(&mut below, place.chain, place.position + 1));

        // All links below the conflicted events have been read; turned round, they lead up again.
        let mut links = BTreeSet::new();
        for (&chain, &count) in &below {
            for position in 0..count {
                let by = Place { chain, position };
                links.extend(walk.links(by).map(|to| (to, by)));
            }
        }
        // Per chain, from where on its events reach a conflicted one.
        let mut above: BTreeMap<u32, u32> = BTreeMap::new();
        let mut ahead = places;
        while let Some(place) = ahead.pop() {
            let before = above.get(&place.chain).copied().unwrap_or(u32::MAX);
            if place.position < before {
                above.insert(place.chain, place.position);
                let lowest = Place {
                    chain: 0,
                    position: 0,
                };
                let end = Place {
                    chain: place.chain,
                    position: before,
                };
                ahead.extend(
                    links
                        .range((place, lowest)..(end, lowest))
                        .map(|(_, by)| *by),
                );
            }
        }
        let between =
            |(chain, count): (u32, u32)| above.get(&chain).map(|&start| (chain, (start, count)));
        Ok(walk.events(&below.into_iter().filter_map(between).collect()))
    }
}
