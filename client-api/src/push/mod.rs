//! What notifies a user: <https://spec.matrix.org/v1.19/client-server-api/#push-notifications>.

mod actions;
mod all;
mod enabled;
mod global;
mod pushers;
mod rule;

use axum::routing::get;
use comity_accounts::Limit;
use comity_protocol::push::{Rule, RuleError, RuleKind, UserRules};
use http::StatusCode;

use crate::{Api, ApiError, Routes, User};

pub(crate) fn routes() -> Routes {
    Routes::new()
        .v3("/pushers", get(pushers::get))
        .v3("/pushrules/", get(all::get))
        .v3("/pushrules/global/", get(global::get))
        .v3(
            "/pushrules/global/{kind}/{rule}",
            get(rule::get).put(rule::put).delete(rule::delete),
        )
        .v3(
            "/pushrules/global/{kind}/{rule}/actions",
            get(actions::get).put(actions::put),
        )
        .v3(
            "/pushrules/global/{kind}/{rule}/enabled",
            get(enabled::get).put(enabled::put),
        )
}

/// The kind a path names; a rule of another kind doesn't exist.
fn kind(name: &str) -> Result<RuleKind, ApiError> {
    RuleKind::parse(name).ok_or_else(|| refused(&RuleError::NotFound))
}

/// The rule a path names, the server's defaults among them.
async fn find(api: &Api, user: &User, of: &str, rule_id: &str) -> Result<Rule, ApiError> {
    let kind = kind(of)?;
    let rules = api.accounts.push_rules(user.id.as_str()).await?;
    let rule = rules.ruleset(user.id.as_str()).get(kind, rule_id).cloned();
    rule.ok_or_else(|| refused(&RuleError::NotFound))
}

/// Changes a user's rules.
async fn edit(
    api: &Api,
    user: &User,
    change: impl Fn(&mut UserRules) -> Result<(), RuleError>,
) -> Result<(), ApiError> {
    api.limit(Limit::AccountChange, &user.id)?;
    let edited = api
        .accounts
        .edit_push_rules(user.id.as_str(), change)
        .await?;
    edited.map_err(|error| refused(&error))
}

fn refused(error: &RuleError) -> ApiError {
    let (status, errcode) = error.errcode();
    match StatusCode::from_u16(status) {
        Ok(status) => ApiError::new(status, errcode, error.to_string()),
        Err(cause) => ApiError::internal(cause),
    }
}
