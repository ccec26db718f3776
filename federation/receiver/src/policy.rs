//! The word of rooms' policy servers on what comes from other servers without it.
//!
//! The rooms' door says whom to ask; those events come again with the server's signature, or with its refusal, which an
//! answer that doesn't come in time counts as: a room can be had to do without its server, but a server can't be had to
//! hold up a room. Those that follow them at once are asked about as well, so that a line costs few
//! answers one after the other.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#validating-policy-server-signatures>

use std::collections::{BTreeMap, BTreeSet};

use comity_federation_client::PeerError;
use comity_protocol::{
    event::Signed,
    id::{EventId, OwnedEventId, RoomId},
};
use comity_rooms::{Arrival, Outcome, PolicyServer, RoomError, Rooms, Way};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use serde_json::value::RawValue;

use crate::missing::Fetcher;

/// Events that a server is asked about at a time.
const AT_ONCE: usize = 8;
/// A lot of events is asked about so often at the most: beyond it nothing is recommended.
const ROUNDS: usize = 8;

/// What was said of some events that go through the door together, maybe again and again: nobody is asked twice.
#[derive(Default)]
pub(crate) struct Words(Mutex<Said>);

#[derive(Default)]
struct Said {
    /// Those that were signed.
    recommended: BTreeMap<OwnedEventId, Signed>,
    /// The others.
    refused: BTreeSet<OwnedEventId>,
}

impl Words {
    fn refused(&self) -> BTreeSet<OwnedEventId> {
        self.0.lock().refused.clone()
    }

    /// With the word on it that it has already.
    fn with(&self, arrival: Arrival) -> Arrival {
        let said = self.0.lock();
        let event = said.recommended.get(arrival.event.event().event_id());
        let event = event.cloned().unwrap_or(arrival.event);
        Arrival { event, ..arrival }
    }

    fn recommend(&self, event: &Signed) {
        let event_id = event.event().event_id().to_owned();
        self.0.lock().recommended.insert(event_id, event.clone());
    }

    fn refuse(&self, event_id: &EventId) {
        self.0.lock().refused.insert(event_id.to_owned());
    }
}

impl Fetcher {
    /// An event with a policy server's word on it.
    ///
    /// # Errors
    /// [`PeerError`]: it doesn't recommend the event, or says nothing of use.
    pub async fn recommended(
        &self,
        policy: &PolicyServer,
        event: &Signed,
    ) -> Result<Signed, PeerError> {
        let json = RawValue::from_string(event.event().json().to_owned());
        let json = json.map_err(|_| PeerError::Request)?;
        let signature = self.peers.policy_signature(policy.server(), &json).await?;
        let recommended = policy.recommended(event, &signature);
        recommended.ok_or(PeerError::Malformed)
    }

    /// Brings events to the rooms' door, with the word of the room's policy server where that is wanted.
    ///
    /// # Errors
    /// The rooms'.
    pub(crate) async fn bring(
        &self,
        rooms: &Rooms,
        room_id: &RoomId,
        arrivals: Vec<Arrival>,
        words: &Words,
    ) -> Result<Vec<(OwnedEventId, Outcome)>, RoomError> {
        let arrivals = arrivals.into_iter().map(|arrival| words.with(arrival));
        let mut arrivals: Vec<Arrival> = arrivals.collect();
        let mut settled = Vec::new();
        for round in 0..=ROUNDS {
            let (came, refused) = (arrivals.clone(), words.refused());
            let outcomes = rooms.receive_with(room_id, came, &refused).await?;
            let policy = outcomes.iter().find_map(|(_, outcome)| match outcome {
                Outcome::Unasked(policy) => Some(policy.clone()),
                _ => None,
            });
            let Some(policy) = policy else {
                settled.extend(outcomes);
                break;
            };
            let mut open: BTreeSet<OwnedEventId> = BTreeSet::new();
            for (event_id, outcome) in outcomes {
                if matches!(outcome, Outcome::Settled(_) | Outcome::Refused(_)) {
                    settled.push((event_id, outcome));
                } else {
                    open.insert(event_id);
                }
            }
            arrivals.retain(|arrival| open.contains(arrival.event.event().event_id()));
            let asks = arrivals.into_iter().map(|arrival| {
                let event = arrival.event.event();
                let is_news = matches!(arrival.way, Way::New | Way::Beyond(_));
                let is_asked =
                    is_news && policy.wants(event) && !refused.contains(event.event_id());
                let (policy, is_last) = (&policy, round + 1 >= ROUNDS);
                async move {
                    match is_asked {
                        true => self.asked(policy, arrival, is_last, words).await,
                        false => arrival,
                    }
                }
            });
            arrivals = stream::iter(asks).buffered(AT_ONCE).collect().await;
        }
        Ok(settled)
    }

    /// An event with the server's word, unless that refuses it. The last time around nobody is asked.
    async fn asked(
        &self,
        policy: &PolicyServer,
        arrival: Arrival,
        is_last: bool,
        words: &Words,
    ) -> Arrival {
        let event_id = arrival.event.event().event_id();
        if is_last {
            words.refuse(event_id);
            return arrival;
        }
        match self.recommended(policy, &arrival.event).await {
            Ok(event) => {
                words.recommend(&event);
                Arrival { event, ..arrival }
            }
            Err(error) => {
                let server = policy.server();
                tracing::debug!(%event_id, %server, %error, "event not recommended");
                words.refuse(event_id);
                arrival
            }
        }
    }
}
