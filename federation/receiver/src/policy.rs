//! The word of rooms' policy servers on what comes from other servers without it.
//!
//! The rooms' door says whom to ask; those events come again with the server's signature, or with its refusal, which an
//! answer that doesn't come in time counts as: a room can be had to do without its server, but a server can't be had to
//! hold up a room. One that is overwhelmed, or can't be reached, is asked once more. Those that follow them at once are asked about as well, so that a line costs few
//! answers one after the other.
//!
//! <https://spec.matrix.org/v1.19/server-server-api/#validating-policy-server-signatures>

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use comity_federation_client::PeerError;
use comity_protocol::{
    event::Signed,
    id::{EventId, OwnedEventId, RoomId},
};
use comity_rooms::{Arrival, Outcome, PolicyServer, RoomError, Rooms, Wanted, Way};
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep, timeout_at};

use crate::missing::Fetcher;

/// Events that a server is asked about at a time.
const AT_ONCE: usize = 8;
/// A lot of events is asked about so often at the most: beyond it nothing is recommended.
const ROUNDS: usize = 8;
/// Before a server is asked once more whose answer says nothing of the event, unless it names another time; and until when it is.
const AGAIN: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

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

    /// Brings events to the rooms' door, with the word of the room's policy server where that is wanted. What nobody has been asked about
    /// `until` then is wanting, of nothing that could be fetched.
    ///
    /// # Errors
    /// The rooms'.
    pub(crate) async fn bring(
        &self,
        rooms: &Rooms,
        room_id: &RoomId,
        arrivals: Vec<Arrival>,
        words: &Words,
        until: Option<Instant>,
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
            if until.is_some_and(|until| until <= Instant::now()) {
                let wanting = || Outcome::Wanted(Wanted::default());
                settled.extend(open.into_iter().map(|event_id| (event_id, wanting())));
                break;
            }
            arrivals.retain(|arrival| open.contains(arrival.event.event().event_id()));
            // The last time around nobody is asked, and all that is open is refused: else it would be in nobody's answer.
            let is_last = round + 1 >= ROUNDS;
            let asks = arrivals.into_iter().map(|arrival| {
                let event = arrival.event.event();
                let is_news = matches!(arrival.way, Way::New | Way::Beyond(_));
                let is_wanted = is_last || policy.wants(event);
                let is_asked = is_news && is_wanted && !refused.contains(event.event_id());
                let policy = &policy;
                async move {
                    match is_asked {
                        true => self.asked(policy, arrival, is_last, words, until).await,
                        false => arrival,
                    }
                }
            });
            arrivals = stream::iter(asks).buffered(AT_ONCE).collect().await;
        }
        Ok(settled)
    }

    /// An event with the server's word, unless that refuses it, or there is no time left.
    async fn asked(
        &self,
        policy: &PolicyServer,
        arrival: Arrival,
        is_last: bool,
        words: &Words,
        until: Option<Instant>,
    ) -> Arrival {
        let event_id = arrival.event.event().event_id();
        if is_last {
            words.refuse(event_id);
            return arrival;
        }
        let asking = self.insisted(policy, &arrival.event);
        let answer = match until {
            Some(until) => timeout_at(until, asking).await,
            None => Ok(asking.await),
        };
        match answer {
            Ok(Ok(event)) => {
                words.recommend(&event);
                Arrival { event, ..arrival }
            }
            Ok(Err(error)) => {
                let server = policy.server();
                tracing::debug!(%event_id, %server, %error, "event not recommended");
                words.refuse(event_id);
                arrival
            }
            Err(_) => arrival,
        }
    }

    /// An event with the server's word, asked for once more where what came says nothing of the event: refused here, it is for good.
    async fn insisted(&self, policy: &PolicyServer, event: &Signed) -> Result<Signed, PeerError> {
        let until = Instant::now() + PATIENCE;
        let error = match self.recommended(policy, event).await {
            Err(error) if says_nothing(&error) => error,
            answer => return answer,
        };
        let wait = error.retry_after().unwrap_or(AGAIN);
        if wait >= until.saturating_duration_since(Instant::now()) {
            return Err(error);
        }
        sleep(wait).await;
        let again = timeout_at(until, self.recommended(policy, event)).await;
        again.unwrap_or(Err(error))
    }
}

/// Whether a server that was asked hasn't answered, or only that it can't now.
fn says_nothing(error: &PeerError) -> bool {
    let was_asked = matches!(error, PeerError::Refused(_) | PeerError::Unreachable(_));
    was_asked && !error.is_answer()
}
