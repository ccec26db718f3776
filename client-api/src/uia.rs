//! User-interactive authentication: a handler asks for it, and goes on once the client has proved enough.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api>

use comity_accounts::{Authorisation, Challenge, Operation, Shown, Stage};
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::{Api, ApiError};

/// Goes on if `auth` in the operation's body completes one of `flows`, with what was shown.
///
/// # Errors
/// 401 with what is still to be proved.
pub(crate) async fn authorise(
    api: &Api,
    operation: Operation<'_>,
    flows: &[&[Stage]],
) -> Result<Shown, ApiError> {
    let auth = match operation.body.get("auth") {
        None | Some(Value::Null) => None,
        Some(Value::Object(auth)) => Some(auth),
        Some(_) => return Err(ApiError::bad_json("auth is not an object")),
    };
    match api.accounts.authorise(&operation, flows, auth).await? {
        Authorisation::Passed(shown) => Ok(shown),
        Authorisation::Challenged(challenge) => Err(refusal(challenge)),
    }
}

fn refusal(challenge: Challenge) -> ApiError {
    let names =
        |stages: &[Stage]| -> Vec<&str> { stages.iter().map(|stage| stage.as_str()).collect() };
    let flows: Vec<Value> = challenge
        .flows
        .iter()
        .map(|flow| json!({ "stages": names(flow) }))
        .collect();
    let refusal = match challenge.error {
        Some(error) => ApiError::from(error).status(StatusCode::UNAUTHORIZED),
        None => ApiError::plain(StatusCode::UNAUTHORIZED),
    };
    let refusal = refusal
        .with("session", challenge.session)
        .with("flows", flows)
        .with("params", Map::new());
    match challenge.completed.as_slice() {
        [] => refusal,
        completed => refusal.with("completed", names(completed)),
    }
}
