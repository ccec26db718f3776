//! `GET /.well-known/matrix/support`: whom to turn to.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#getwell-knownmatrixsupport>

use axum::extract::State;
use comity_protocol::id::OwnedUserId;
use serde::Serialize;

use crate::{Api, ApiError, Json};

#[derive(Serialize)]
pub(super) struct Answer {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    contacts: Vec<Contact>,
    #[serde(skip_serializing_if = "Option::is_none")]
    support_page: Option<String>,
}

#[derive(Serialize)]
struct Contact {
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    email_address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    matrix_id: Option<OwnedUserId>,
}

pub(super) async fn get(State(api): State<Api>) -> Result<Json<Answer>, ApiError> {
    let support = api.settings.support.clone();
    let reachable = support.email_address.is_some() || support.matrix_id.is_some();
    if !reachable && support.page.is_none() {
        return Err(ApiError::not_found("Nobody is named whom to turn to"));
    }
    let contact = reachable.then_some(Contact {
        role: "m.role.admin",
        email_address: support.email_address,
        matrix_id: support.matrix_id,
    });
    Ok(Json(Answer {
        contacts: contact.into_iter().collect(),
        support_page: support.page,
    }))
}
