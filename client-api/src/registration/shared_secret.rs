//! `GET` and `POST /_synapse/admin/v1/register`: accounts made by whoever knows the server's shared secret.
//!
//! Not in the specification: scripts and test suites make accounts by it, as they do with Synapse, which describes it at
//! <https://element-hq.github.io/synapse/latest/admin_api/register_api.html>.

use axum::extract::State;
use comity_accounts::{Limit, NewDevice, SharedSecretRegistration};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Address, Api, ApiError, Json, session::SignedIn};

pub(super) async fn get(
    State(api): State<Api>,
    Address(address): Address,
) -> Result<Json<Value>, ApiError> {
    // As many nonces are kept as there is room for: nobody is to fill it alone.
    api.limit(Limit::LoginByAddress, &address)?;
    let nonce = api.accounts.registration_nonce()?;
    Ok(Json(json!({ "nonce": nonce })))
}

#[derive(Deserialize)]
pub(super) struct Register {
    nonce: String,
    username: String,
    password: String,
    #[serde(default)]
    admin: bool,
    displayname: Option<String>,
    user_type: Option<String>,
    mac: String,
}

pub(super) async fn post(
    State(api): State<Api>,
    Address(address): Address,
    Json(new): Json<Register>,
) -> Result<Json<SignedIn>, ApiError> {
    api.limit(Limit::Registration, &address)?;
    let request = SharedSecretRegistration {
        nonce: &new.nonce,
        username: &new.username,
        password: &new.password,
        admin: new.admin,
        display_name: new.displayname.as_deref(),
        user_type: new.user_type.as_deref(),
        mac: &new.mac,
    };
    let registered = api
        .accounts
        .register_with_shared_secret(&request, NewDevice::default())
        .await?;
    let issued = registered
        .issued
        .ok_or_else(|| ApiError::internal("a registration that asked for a login got none"))?;
    Ok(Json(SignedIn::new(&api, issued)))
}
