//! Bodies: JSON objects.

use axum::{
    body::Body,
    extract::{FromRequest, Request},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header::CONTENT_TYPE};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, error::Category, value::RawValue};

use crate::ApiError;

/// The largest body we read, in bytes. An event has 65,536; lists of users and devices may be longer.
const MAX_BODY: usize = 1 << 20;

/// A JSON object, in a request or in an answer. Whatever the content type says, and as older clients do, an absent body is `{}`.
///
/// Bytes that are no JSON are 400 `M_NOT_JSON`; JSON that is no object, or not the one asked for, is 400 `M_BAD_JSON`.
pub struct Json<T>(pub T);

impl<T, S> FromRequest<S> for Json<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let bytes = bytes(request.into_body(), MAX_BODY).await?;
        parse(&bytes).map(Self)
    }
}

/// The bytes of a body, `most` of them.
///
/// # Errors
/// 413 `M_TOO_LARGE`; 400 `M_NOT_JSON` if it doesn't arrive.
pub async fn bytes(body: Body, most: usize) -> Result<Bytes, ApiError> {
    match Limited::new(body, most).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(ApiError::too_large("The request's body is too large"))
        }
        Err(_) => Err(not_json()),
    }
}

fn not_json() -> ApiError {
    ApiError::bad("M_NOT_JSON", "The request's body is not JSON")
}

/// A body's object. No bytes are an empty one.
///
/// # Errors
/// 400 `M_NOT_JSON` or `M_BAD_JSON`.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // The parser doesn't look at the encoding of what it skips.
    let text = str::from_utf8(bytes).map_err(|_| not_json())?.trim_ascii();
    let text = if text.is_empty() { "{}" } else { text };
    if !text.starts_with('{') {
        // Structs can be read from arrays as well, which is nothing a client should rely on.
        return Err(match serde_json::from_str::<&RawValue>(text) {
            Ok(_) => ApiError::bad_json("The request's body is not an object"),
            Err(_) => not_json(),
        });
    }
    serde_json::from_str(text).map_err(|error| match error.classify() {
        Category::Data => unfit(&error),
        Category::Syntax | Category::Eof | Category::Io => not_json(),
    })
}

/// Reads a value that was taken out of a body.
///
/// # Errors
/// 400 `M_BAD_JSON`.
pub fn read<T: DeserializeOwned>(object: Map<String, Value>) -> Result<T, ApiError> {
    serde_json::from_value(Value::Object(object)).map_err(|error| unfit(&error))
}

/// The parser's words quote what they can't read, which may be a password; only those about a missing field quote us.
fn unfit(error: &serde_json::Error) -> ApiError {
    let text = error.to_string();
    match text
        .strip_prefix("missing field `")
        .and_then(|rest| rest.split('`').next())
    {
        Some(field) => ApiError::bad_json(format!("The field {field} is missing")),
        None => ApiError::bad_json("A field of the request's body has another type than it should"),
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => {
                let kind = HeaderValue::from_static("application/json");
                ([(CONTENT_TYPE, kind)], bytes).into_response()
            }
            // Our own structs can be written; if one can't, better no body than half of one.
            Err(cause) => {
                tracing::error!(%cause, "an answer could not be written");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Named {
        #[expect(dead_code, reason = "read by the parser alone")]
        name: String,
    }

    fn refused(bytes: &[u8]) -> String {
        format!("{:?}", parse::<Named>(bytes).unwrap_err())
    }

    /// Threat A1, A3: what is no JSON, and what is not the JSON asked for.
    #[test]
    fn bodies_that_cannot_be() {
        let deep = "[".repeat(64 << 10);
        let deep_value = format!("{{\"name\":\"x\",\"other\":{deep}");
        for no_json in [
            &b"{"[..],
            b"{\"name\":\"\xff\"}",
            b"{\"other\":\"\xff\",\"name\":\"x\"}",
            b"{\"name\":NaN}",
            b"nonsense",
            deep.as_bytes(),
            deep_value.as_bytes(),
        ] {
            let error = refused(no_json);
            assert!(error.contains("M_NOT_JSON"), "{error}");
        }
        for bad in [
            &b"\"text\""[..],
            b"[\"x\"]",
            b"3",
            b"{}",
            b"",
            b"{\"name\":5}",
        ] {
            let error = refused(bad);
            assert!(error.contains("M_BAD_JSON"), "{error}");
        }
        assert!(parse::<Named>(b" {\"name\":\"x\"}\n").is_ok());
        assert!(parse::<Map<String, Value>>(b"").is_ok());
    }

    /// Threat E10: an error never quotes the request.
    #[test]
    fn errors_do_not_quote() {
        for body in [
            &b"{\"name\":{\"canary\":1}}"[..],
            b"{\"name\":[\"canary\"]}",
            b"\"canary\"",
        ] {
            assert!(!refused(body).contains("canary"));
        }
        assert!(refused(b"{}").contains("name"));
    }
}
