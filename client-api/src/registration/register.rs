//! `POST /register`: a new account, or a guest's.
//!
//! Where registration is open, nothing has to be proved; everywhere a registration token opens the door.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3register>

use axum::extract::State;
use comity_accounts::{Asker, Limit, NewDevice, Operation, Registered, Registration, Stage};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Address, Api, ApiError, Json, Query, read, session::SignedIn, uia};

#[derive(Deserialize)]
pub(super) struct Asked {
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Register {
    username: Option<String>,
    password: Option<String>,
    device_id: Option<String>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    inhibit_login: bool,
    #[serde(default)]
    refresh_token: bool,
}

#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Answer {
    SignedIn(SignedIn),
    AccountAlone {
        user_id: String,
        home_server: String,
    },
}

pub(super) async fn post(
    State(api): State<Api>,
    Address(address): Address,
    Query(asked): Query<Asked>,
    Json(body): Json<Map<String, Value>>,
) -> Result<Json<Answer>, ApiError> {
    let guest = match asked.kind.as_deref() {
        None | Some("user") => false,
        Some("guest") => true,
        Some(_) => return Err(ApiError::invalid_param("kind is user or guest")),
    };
    // Every attempt counts, also to guess a name or a registration token.
    api.limit(Limit::LoginByAddress, &address)?;
    let new: Register = read(body.clone())?;
    if let Some(username) = new.username.as_deref().filter(|_| !guest) {
        // Before anything is proved: whoever hears it later has solved a riddle in vain.
        api.accounts.check_available(username).await?;
    }
    let token = match guest {
        true => None,
        false => prove(&api, &address, &body).await?,
    };
    api.limit(Limit::Registration, &address)?;
    if !guest && new.password.is_none() {
        return Err(ApiError::missing_param("The password is missing"));
    }
    let device = NewDevice {
        device_id: new.device_id.filter(|_| !guest),
        display_name: new.initial_device_display_name,
        refresh: new.refresh_token,
    };
    let registration = Registration {
        username: new.username,
        password: new.password,
        guest,
        token,
        device: (!new.inhibit_login).then_some(device),
        ..Registration::default()
    };
    let Registered { user_id, issued } = api.accounts.register(registration).await?;
    Ok(Json(match issued {
        Some(issued) => Answer::SignedIn(SignedIn::new(&api, issued)),
        None => Answer::AccountAlone {
            user_id,
            home_server: api.rooms.server_name().to_string(),
        },
    }))
}

/// The registration token that was shown, if one was.
async fn prove(
    api: &Api,
    address: &str,
    body: &Map<String, Value>,
) -> Result<Option<String>, ApiError> {
    const OPEN: &[&[Stage]] = &[&[Stage::Dummy], &[Stage::RegistrationToken]];
    const BY_TOKEN: &[&[Stage]] = &[&[Stage::RegistrationToken]];
    let flows = if api.accounts.registration_open() {
        OPEN
    } else {
        BY_TOKEN
    };
    let operation = Operation {
        name: "register",
        asker: Asker::Address(address),
        body,
    };
    let shown = uia::authorise(api, operation, flows).await?;
    Ok(shown.registration_token)
}
