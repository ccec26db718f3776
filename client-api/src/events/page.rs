//! Pages of a room's order as a user may see it, and the tokens between them.
//!
//! A place token names a gap: the one just before its place. Backwards one reads on below the place, forwards from the place on.

use std::collections::BTreeSet;

use comity_protocol::id::UserId;
use comity_rooms::{Found, RoomView, Span};
use comity_storage::Home;
use comity_sync::{
    filter::EventFilter,
    token::{PlaceToken, Token},
};
use serde::Deserialize;

use super::Access;
use crate::{Api, ApiError};

/// Events looked at for one page at the most: where most are hidden, a page ends early and says where to go on.
const LOOKED_AT: usize = 2_000;
/// Fewest events looked at in one go.
const CHUNK: usize = 32;

/// A gap in a room's order, by the place after it.
pub(crate) type Gap = (i64, i64);

/// `dir`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum Direction {
    /// Towards older events.
    #[serde(rename = "b")]
    Backwards,
    /// Towards newer ones.
    #[serde(rename = "f")]
    Forwards,
}

/// The gap that a client's token names: `prev_batch`, `end` and the like, or a whole `/sync` token.
///
/// # Errors
/// 400 `M_INVALID_PARAM` for what is no token, or one of another room.
pub(crate) async fn gap(api: &Api, view: &RoomView, token: &str) -> Result<Gap, ApiError> {
    let bad = || ApiError::invalid_param("This is not a token for this room");
    match token.parse::<Token>().map_err(|_| bad())? {
        Token::Place(token) if token.room == view.key() => Ok(token.place),
        Token::Place(_) => Err(bad()),
        Token::Sync(token) => {
            let heads = api.sync.clamp(&token).heads;
            let pos = view.reader().at(heads).bound(Home::Room(view.key()));
            // After all that was known then.
            Ok((view.seq_at(pos).await?, 1))
        }
    }
}

/// The token that names a gap.
pub(crate) fn place_token(view: &RoomView, place: Gap) -> String {
    let (heads, room) = (view.reader().heads().clone(), view.key());
    PlaceToken { heads, room, place }.to_string()
}

/// Which events are wanted.
pub(crate) struct Page<'a> {
    /// Who asks.
    pub user: &'a UserId,
    /// Where to begin; at the end of the order where there is none.
    pub from: Option<Gap>,
    /// Where to stop.
    pub to: Option<Gap>,
    /// Which way.
    pub direction: Direction,
    /// How many at the most.
    pub limit: usize,
    /// Which.
    pub filter: &'a EventFilter,
    /// Not from these, state aside.
    pub ignored: &'a BTreeSet<String>,
}

/// A page.
pub(crate) struct Paged {
    /// The events, in the order asked.
    pub found: Vec<Found>,
    /// Where the page begins.
    pub start: Gap,
    /// Where it ends.
    pub end: Gap,
    /// Whether there is anything beyond.
    pub more: bool,
    /// Whether the filter left something out.
    pub thinned: bool,
}

impl Page<'_> {
    /// Reads the page.
    pub async fn of(&self, access: &Access) -> Result<Paged, ApiError> {
        let view = &access.view;
        let backwards = self.direction == Direction::Backwards;
        let last = access
            .left
            .map_or((view.seq() + 1, i64::MIN), |left| (left, 1));
        let start = self
            .from
            .unwrap_or(if backwards { last } else { (0, i64::MIN) });
        let after = |(seq, sub): Gap| (seq, sub.saturating_sub(1));
        let mut span = match self.direction {
            Direction::Backwards => Span {
                after: self.to.map(after),
                before: Some(start.min(last)),
                unknown_at: None,
                backwards,
                limit: 0,
            },
            Direction::Forwards => Span {
                after: Some(after(start)),
                before: Some(self.to.map_or(last, |to| to.min(last))),
                unknown_at: None,
                backwards,
                limit: 0,
            },
        };
        let (mut found, mut end, mut looked_at) = (Vec::new(), start, 0);
        let mut thinned = false;
        // A stretch whose ends have met holds nothing, and the store takes no range that runs backwards.
        let mut more = span.after < span.before && access.view.seq() > 0;
        while more && found.len() < self.limit && looked_at < LOOKED_AT {
            span.limit = (self.limit - found.len()).max(CHUNK);
            let (page, beyond) = view.timeline(span).await?;
            more = beyond;
            looked_at += page.len();
            let visible = view.visible(&page, self.user).await?;
            let wanted = self.wanted(view, &page).await?;
            let count = page.len();
            for (at, ((one, visible), wanted)) in
                page.into_iter().zip(visible).zip(wanted).enumerate()
            {
                let place = one.place().unwrap_or(end);
                match backwards {
                    true => (span.before, end) = (Some(place), place),
                    false => {
                        (span.after, end) = (Some(place), (place.0, place.1.saturating_add(1)))
                    }
                }
                thinned |= visible && !wanted;
                if visible && wanted {
                    found.push(one);
                }
                if found.len() == self.limit {
                    more |= at + 1 < count;
                    break;
                }
            }
            if count == 0 {
                break;
            }
        }
        // What other servers have of the time before can be asked for by the next page, unless this
        // one has found nothing: then it could not be had.
        if backwards && !more && looked_at > 0 {
            let down_to = span.after.map_or(0, |(seq, _)| seq - 1);
            more = view.last_hole(down_to, end).await?.is_some();
        }
        Ok(Paged {
            found,
            start,
            end,
            more,
            thinned,
        })
    }

    /// Of each event whether the filter and the user's ignored users let it through.
    async fn wanted(&self, view: &RoomView, page: &[Found]) -> Result<Vec<bool>, ApiError> {
        let ignored = |one: &Found| {
            one.event.state_key().is_none() && self.ignored.contains(one.event.sender().as_str())
        };
        let mut wanted = self.filter.passes(view, page, self.user).await?;
        for (wanted, one) in wanted.iter_mut().zip(page) {
            *wanted &= !ignored(one);
        }
        Ok(wanted)
    }
}
