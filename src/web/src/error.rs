//! What a client is told when something doesn't work, and what the operator is.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#standard-error-response>

use std::{borrow::Cow, fmt};

use axum::response::{IntoResponse, Response};
use comity_accounts::AccountError;
use comity_key_backup::BackupError;
use comity_keys::KeysError;
use comity_media::{MediaError, NotFetched};
use comity_protocol::{
    auth::{Membership, Rejection},
    event::{BuildError, FormatError},
};
use comity_rooms::RoomError;
use comity_storage::{CommitError, ReadError};
use comity_succession::SuccessionError;
use comity_sync::{SyncError, sliding::SlidingError};
use comity_to_device::ToDeviceError;
use http::{HeaderValue, StatusCode, header::RETRY_AFTER};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::Json;

/// An answer other than success. Made small, since every handler's result has room for one.
#[derive(Debug)]
pub struct ApiError(Box<Refusal>);

#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    body: Map<String, Value>,
}

impl ApiError {
    /// The standard error.
    pub fn new(
        status: StatusCode,
        errcode: &'static str,
        error: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self::plain(status)
            .with("errcode", errcode)
            .with("error", error.into())
    }

    /// An error without the standard keys, such as the challenge of user-interactive authentication.
    pub fn plain(status: StatusCode) -> Self {
        Self(Box::new(Refusal {
            status,
            body: Map::new(),
        }))
    }

    /// With another key in its body.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.body.insert(key.to_owned(), value.into());
        self
    }

    /// 403 `M_FORBIDDEN`.
    pub fn forbidden(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", error)
    }

    /// 404 `M_NOT_FOUND`.
    pub fn not_found(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_NOT_FOUND", error)
    }

    /// 400 with a code of its own.
    pub fn bad(errcode: &'static str, error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, errcode, error)
    }

    /// 400 `M_INVALID_PARAM`.
    pub fn invalid_param(error: impl Into<Cow<'static, str>>) -> Self {
        Self::bad("M_INVALID_PARAM", error)
    }

    /// 400 `M_MISSING_PARAM`.
    pub fn missing_param(error: impl Into<Cow<'static, str>>) -> Self {
        Self::bad("M_MISSING_PARAM", error)
    }

    /// 400 `M_BAD_JSON`: JSON, but not what is asked for.
    pub fn bad_json(error: impl Into<Cow<'static, str>>) -> Self {
        Self::bad("M_BAD_JSON", error)
    }

    /// `M_UNRECOGNIZED`: 404 for paths we don't have, 405 for methods.
    pub fn unrecognized(status: StatusCode) -> Self {
        Self::new(status, "M_UNRECOGNIZED", "Unrecognized request")
    }

    /// 413 `M_TOO_LARGE`.
    pub fn too_large(error: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", error)
    }

    /// 500: a fault of ours. The operator finds the cause in the log, under the request's id; the client learns nothing of it.
    pub fn internal(cause: impl fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "M_UNKNOWN",
            "Internal server error",
        )
    }

    /// 503: nothing is wrong with the request, it can be tried again.
    pub fn unavailable(cause: impl fmt::Display) -> Self {
        tracing::warn!(%cause, "a request could not be served");
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "M_UNKNOWN",
            "The server can't do this right now, try again later",
        )
        .with("retry_after_ms", 1_000)
    }

    /// Whether this is its status.
    pub fn is(&self, status: StatusCode) -> bool {
        self.0.status == status
    }

    /// With another status: where an endpoint documents its own for what is elsewhere told by the common one.
    pub fn status(mut self, status: StatusCode) -> Self {
        self.0.status = status;
        self
    }
}

impl From<SyncError> for ApiError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Read(cause) => cause.into(),
            SyncError::Room(error) => error.into(),
            SyncError::Account(error) => error.into(),
        }
    }
}

impl From<SlidingError> for ApiError {
    fn from(error: SlidingError) -> Self {
        match error {
            SlidingError::UnknownPos => Self::bad("M_UNKNOWN_POS", "The position is unknown"),
            SlidingError::TooMuch => Self::invalid_param("The lists overlap in too many ways"),
            SlidingError::Sync(error) => error.into(),
            SlidingError::Commit(error) => error.into(),
        }
    }
}

impl From<SuccessionError> for ApiError {
    fn from(error: SuccessionError) -> Self {
        match error {
            SuccessionError::Room(error) => error.into(),
            SuccessionError::Account(error) => error.into(),
        }
    }
}

/// What the store could not say now it may say later; what it says wrongly is a fault.
impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Engine(_) => Self::unavailable(error),
            ReadError::Damaged(_) => Self::internal(error),
        }
    }
}

/// A write that was lost, or may have been, can be asked for again: what has a transaction id is done once all the same.
impl From<CommitError> for ApiError {
    fn from(error: CommitError) -> Self {
        use CommitError as E;
        match error {
            E::Conflict(_) | E::Fenced | E::NotApplied(_) | E::Unknown(_) => {
                Self::unavailable(error)
            }
            E::Read(error) => error.into(),
            E::WrongLane { .. } | E::WrongTenant | E::Unstamped(_) | E::KeyTooLong(_) => {
                Self::internal(error)
            }
        }
    }
}

/// Its body alone: where an answer tells why part of what was asked for isn't done.
impl Serialize for ApiError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.body.serialize(serializer)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Refusal { status, body } = *self.0;
        let wait_ms = body.get("retry_after_ms").and_then(Value::as_u64);
        let mut response = (status, Json(body)).into_response();
        if let Some(wait_ms) = wait_ms {
            let seconds = HeaderValue::from(wait_ms.div_ceil(1_000));
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}

impl From<AccountError> for ApiError {
    fn from(error: AccountError) -> Self {
        use AccountError as E;
        let text = error.to_string();
        match error {
            E::InvalidUsername(_) => Self::bad("M_INVALID_USERNAME", text),
            E::UserInUse => Self::bad("M_USER_IN_USE", text),
            E::RegistrationRefused(_)
            | E::WrongCredentials
            | E::Forbidden(_)
            | E::InteractiveAuth(_) => Self::forbidden(text),
            E::InvalidParam(_) => Self::invalid_param(text),
            E::TooLarge(_) => Self::too_large(text),
            E::KeyTooLarge => Self::bad("M_KEY_TOO_LARGE", text),
            E::ProfileTooLarge => Self::bad("M_PROFILE_TOO_LARGE", text),
            E::NotFound(_) => Self::not_found(text),
            E::UnknownToken { soft_logout } => {
                Self::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", text)
                    .with("soft_logout", soft_logout)
            }
            E::Locked => {
                Self::new(StatusCode::UNAUTHORIZED, "M_USER_LOCKED", text).with("soft_logout", true)
            }
            E::Deactivated => Self::new(StatusCode::FORBIDDEN, "M_USER_DEACTIVATED", text),
            E::LimitExceeded { retry_after_ms } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", text)
                    .with("retry_after_ms", retry_after_ms)
            }
            E::Busy(cause) => Self::unavailable(cause),
            E::Read(cause) => cause.into(),
            E::Commit(cause) => cause.into(),
            E::Internal(cause) => Self::internal(cause),
        }
    }
}

impl From<BackupError> for ApiError {
    fn from(error: BackupError) -> Self {
        use BackupError as E;
        let text = error.to_string();
        match error {
            E::UnknownVersion | E::UnknownKey => Self::not_found(text),
            E::WrongVersion { current } => {
                Self::new(StatusCode::FORBIDDEN, "M_WRONG_ROOM_KEYS_VERSION", text)
                    .with("current_version", current)
            }
            E::InvalidParam(_) => Self::invalid_param(text),
            E::TooLarge(_) => Self::too_large(text),
            E::Read(cause) => cause.into(),
            E::Commit(cause) => cause.into(),
        }
    }
}

impl From<ToDeviceError> for ApiError {
    fn from(error: ToDeviceError) -> Self {
        use ToDeviceError as E;
        let text = error.to_string();
        match error {
            E::InvalidParam(_) => Self::invalid_param(text),
            E::TooLarge(_) => Self::too_large(text),
            E::Read(cause) => cause.into(),
            E::Commit(cause) => cause.into(),
        }
    }
}

impl From<MediaError> for ApiError {
    fn from(error: MediaError) -> Self {
        use MediaError as E;
        let text = error.to_string();
        match error {
            E::NotFound => Self::not_found(text),
            E::NotYetUploaded => Self::new(StatusCode::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED", text),
            E::CannotOverwrite => Self::new(StatusCode::CONFLICT, "M_CANNOT_OVERWRITE_MEDIA", text),
            E::NotYours | E::Quota => Self::forbidden(text),
            E::TooLarge => Self::too_large(text),
            E::TooManyPending => Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", text)
                .with("retry_after_ms", 60_000),
            E::NoSize => Self::invalid_param(text),
            E::NoPicture => Self::bad("M_UNKNOWN", text),
            E::PictureTooLarge => Self::too_large(text),
            E::NoPreviews => Self::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", text),
            E::BadAddress => Self::invalid_param(text),
            E::NoPage(cause) => {
                tracing::info!(%cause, "a page could not be previewed");
                Self::not_found(text)
            }
            E::NotFetched(NotFetched::NotFound) => Self::not_found(text),
            E::NotFetched(NotFetched::NotYetUploaded) => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED", text)
            }
            E::NotFetched(NotFetched::TooLarge) => {
                Self::new(StatusCode::BAD_GATEWAY, "M_TOO_LARGE", text)
            }
            E::NotFetched(NotFetched::Unreachable(cause)) => {
                tracing::info!(cause, "media could not be fetched");
                let text = "The media's server can't be reached";
                Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", text)
            }
            E::FetchedTooMuch { retry_after_ms } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", text)
                    .with("retry_after_ms", retry_after_ms)
            }
            E::Broken => Self::bad("M_UNKNOWN", text),
            E::Stopped | E::Busy | E::Full => Self::unavailable(text),
            E::Bucket(cause) => {
                tracing::error!(cause, "the bucket failed");
                Self::unavailable(text)
            }
            E::Blob(_) | E::NoBucket => Self::internal(text),
            E::Read(cause) => cause.into(),
            E::Commit(cause) => cause.into(),
        }
    }
}

impl From<KeysError> for ApiError {
    fn from(error: KeysError) -> Self {
        use KeysError as E;
        match error {
            E::BadJson(text) => Self::bad_json(text),
            E::Invalid(text) => Self::invalid_param(text),
            E::Missing(text) => Self::missing_param(text),
            E::InvalidSignature(text) => Self::bad("M_INVALID_SIGNATURE", text),
            E::Forbidden(text) => Self::forbidden(text),
            E::NotFound(text) => Self::not_found(text),
            E::TooLarge(text) => Self::too_large(text),
            E::Account(error) => error.into(),
            E::Read(cause) => cause.into(),
            E::Commit(cause) => cause.into(),
        }
    }
}

impl From<RoomError> for ApiError {
    fn from(error: RoomError) -> Self {
        let text = error.to_string();
        match error {
            // The same for a room one isn't in and one that isn't there: whether it exists is not told (threat E5).
            RoomError::UnknownRoom
            | RoomError::Rejected(
                Rejection::SenderNotJoined
                | Rejection::ForbiddenByJoinRule(_)
                | Rejection::WrongMembership(Membership::Leave),
            ) => Self::forbidden("You are not in this room, or there is no such room"),
            // Nobody may send such an event, whatever their power: it is the request that is wrong.
            RoomError::Rejected(Rejection::CreatorInPowerLevels | Rejection::PowerLevels(_)) => {
                Self::bad_json(text)
            }
            RoomError::UnknownEvent => {
                Self::not_found("There is no such event, or you can't see it")
            }
            RoomError::Rejected(_)
            | RoomError::Forbidden(_)
            | RoomError::NotRecommended(_)
            | RoomError::PolicyServerSilent => Self::forbidden(text),
            RoomError::GuestAccess => {
                Self::new(StatusCode::FORBIDDEN, "M_GUEST_ACCESS_FORBIDDEN", text)
            }
            RoomError::Invalid(_) => Self::invalid_param(text),
            RoomError::BadJson(_) => Self::bad_json(text),
            RoomError::UnsupportedVersion => Self::bad("M_UNSUPPORTED_ROOM_VERSION", text),
            RoomError::IncompatibleVersion(version) => {
                Self::bad("M_INCOMPATIBLE_ROOM_VERSION", text)
                    .with("room_version", version.as_str())
            }
            RoomError::Signature(_) => Self::forbidden(text),
            RoomError::InvalidState(_) => Self::bad("M_INVALID_ROOM_STATE", text),
            RoomError::OtherServer(_) => Self::not_found(text),
            RoomError::InviteBlocked => Self::new(StatusCode::FORBIDDEN, "M_INVITE_BLOCKED", text),
            // Which server may let a user in is a matter between servers, whose API has codes for it.
            RoomError::UnableToAuthoriseJoin | RoomError::UnableToGrantJoin => {
                Self::forbidden(text)
            }
            RoomError::LimitExceeded { retry_after_ms } => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", text)
                    .with("retry_after_ms", retry_after_ms)
            }
            RoomError::NotLeft => Self::bad("M_UNKNOWN", text),
            RoomError::Incomplete => Self::unavailable(text),
            RoomError::UnknownAlias => Self::not_found(text),
            RoomError::BadAlias => Self::bad("M_BAD_ALIAS", text),
            RoomError::DuplicateAnnotation => Self::bad("M_DUPLICATE_ANNOTATION", text),
            RoomError::Build(BuildError::Format(
                FormatError::TooLarge | FormatError::TooLong(_),
            )) => Self::too_large(text),
            RoomError::Build(BuildError::Format(_)) => Self::bad_json(text),
            RoomError::Build(cause) => Self::internal(cause),
            RoomError::Taken(_) => Self::bad("M_ROOM_IN_USE", text),
            RoomError::Damaged(cause) => Self::internal(cause),
            RoomError::Read(cause) => cause.into(),
            RoomError::Commit(cause) => cause.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use comity_storage::Damaged;

    use super::*;

    /// A store that can't, for now, is no fault of ours: the client is told to come again, by whichever capability it asked.
    #[test]
    fn what_may_go_well_later_is_503_with_a_wait() {
        let lost = || CommitError::NotApplied("canary".into());
        for (error, expected) in [
            (ApiError::from(lost()), 503),
            (RoomError::from(lost()).into(), 503),
            (AccountError::from(lost()).into(), 503),
            (CommitError::Unknown("canary".into()).into(), 503),
            (CommitError::Conflict("canary").into(), 503),
            (CommitError::Fenced.into(), 503),
            (ReadError::Engine("canary".into()).into(), 503),
            (
                SyncError::Read(ReadError::Engine("canary".into())).into(),
                503,
            ),
            (ReadError::Damaged(Damaged("canary")).into(), 500),
            (CommitError::KeyTooLong(600).into(), 500),
        ] {
            let told = Value::Object(error.0.body.clone()).to_string();
            assert!(!told.contains("canary"), "{told}");
            let response = error.into_response();
            assert_eq!(response.status().as_u16(), expected, "{told}");
            let wait = response.headers().contains_key(RETRY_AFTER);
            assert_eq!(wait, expected == 503, "{told}");
        }
    }
}
