//! `GET` and `POST /login`: how one can sign in, and doing it.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3login>
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3login>

use axum::extract::State;
use comity_accounts::NewDevice;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::SignedIn;
use crate::{Address, Api, ApiError, Json};

const PASSWORD: &str = "m.login.password";
const TOKEN: &str = "m.login.token";

pub(super) async fn get() -> Json<Value> {
    Json(json!({ "flows": [{ "type": PASSWORD }, { "type": TOKEN, "get_login_token": true }] }))
}

#[derive(Deserialize)]
pub(super) struct Login {
    r#type: String,
    identifier: Option<Identifier>,
    /// Deprecated, for `identifier`.
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
    device_id: Option<String>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    refresh_token: bool,
}

#[derive(Deserialize)]
struct Identifier {
    r#type: String,
    user: Option<String>,
}

#[derive(Serialize)]
pub(super) struct Answer {
    #[serde(flatten)]
    signed_in: SignedIn,
    well_known: Value,
}

pub(super) async fn post(
    State(api): State<Api>,
    Address(address): Address,
    Json(login): Json<Login>,
) -> Result<Json<Answer>, ApiError> {
    let device = NewDevice {
        device_id: login.device_id.clone(),
        display_name: login.initial_device_display_name.clone(),
        refresh: login.refresh_token,
    };
    let issued = match login.r#type.as_str() {
        PASSWORD => {
            let (user, password) = credentials(login)?;
            let login = api
                .accounts
                .password_login(&user, &password, &address, device);
            login.await?
        }
        TOKEN => {
            let token = login.token;
            let token = token.ok_or_else(|| ApiError::missing_param("The token is missing"))?;
            api.accounts.token_login(&token, &address, device).await?
        }
        _ => return Err(ApiError::bad("M_UNKNOWN", "This login type is not offered")),
    };
    Ok(Json(Answer {
        signed_in: SignedIn::new(&api, issued),
        well_known: json!({ "m.homeserver": { "base_url": api.settings.public_baseurl } }),
    }))
}

/// The user and the password.
fn credentials(login: Login) -> Result<(String, String), ApiError> {
    let user = match login.identifier {
        Some(identifier) if identifier.r#type == "m.id.user" => identifier.user,
        Some(_) => {
            return Err(ApiError::bad(
                "M_UNKNOWN",
                "Users are known by their user ids only",
            ));
        }
        None => login.user,
    };
    let user = user.ok_or_else(|| ApiError::missing_param("The user is missing"))?;
    let password = login
        .password
        .ok_or_else(|| ApiError::missing_param("The password is missing"))?;
    Ok((user, password))
}
