//! Answers that hold a large room's state: written in portions while they are sent, so that one costs no more memory than a
//! few hundred events, however many the room has.
//!
//! An error in the midst of it cuts the connection: whoever asked sees that the answer isn't whole.

use std::{collections::VecDeque, fmt::Write};

use axum::{body::Body, response::Response};
use comity_rooms::{PeerView, RoomError, num::EventNum};
use futures_util::stream;
use http::{HeaderValue, header::CONTENT_TYPE};

/// Events of one portion.
const PORTION: usize = 256;

/// A piece of an answer.
pub(crate) enum Part {
    /// What stands between lists.
    Text(String),
    /// A list's events, commas between them.
    Events(Vec<EventNum>),
}

impl Part {
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

/// The answer whose parts these are, all of a room at one position.
pub(crate) fn answer(view: PeerView, parts: Vec<Part>) -> Response {
    let portions: VecDeque<Portion> = parts.into_iter().flat_map(Portion::of).collect();
    let written = stream::try_unfold((view, portions), |(view, mut portions)| async move {
        let Some(portion) = portions.pop_front() else {
            return Ok(None);
        };
        let text = portion.write(&view).await.inspect_err(|cause| {
            tracing::error!(%cause, "an answer was cut short");
        })?;
        Ok::<_, RoomError>(Some((text, (view, portions))))
    });
    let mut response = Response::new(Body::from_stream(written));
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

enum Portion {
    Text(String),
    /// Some of a list's events; whether others went before.
    Events(Vec<EventNum>, bool),
}

impl Portion {
    fn of(part: Part) -> Vec<Self> {
        match part {
            Part::Text(text) => vec![Self::Text(text)],
            Part::Events(nums) => nums
                .chunks(PORTION)
                .enumerate()
                .map(|(at, nums)| Self::Events(nums.to_vec(), at > 0))
                .collect(),
        }
    }

    async fn write(self, view: &PeerView) -> Result<String, RoomError> {
        let (nums, mut comma) = match self {
            Self::Text(text) => return Ok(text),
            Self::Events(nums, comma) => (nums, comma),
        };
        let mut text = String::new();
        for event in view.pdus(&nums).await? {
            let between = if comma { "," } else { "" };
            let _ = write!(text, "{between}{}", event.json()); // a String takes everything
            comma = true;
        }
        Ok(text)
    }
}
