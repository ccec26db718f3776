//! Media as HTTP answers: its type, its name, what a browser may do with it, and parts of it.
//!
//! Whoever uploaded a file chose its type and its bytes, so nothing a browser could run is ever shown in place (threat H4): inline
//! is the specification's list alone, by the type that is sent along, and all of it goes out sandboxed and not to be guessed at.
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#serving-inline-content>

use std::ops::Range;

use axum::{body::Body, response::Response};
use comity_media::{Content, Media, Served, Size};
use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{
        ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE,
        CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, IF_RANGE, LOCATION, RANGE,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use serde::Deserialize;

use crate::ApiError;

/// What may be shown in place.
const INLINE: &[&str] = &[
    "text/css",
    "text/plain",
    "text/csv",
    "application/json",
    "application/ld+json",
    "image/jpeg",
    "image/gif",
    "image/png",
    "image/apng",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "video/quicktime",
    "audio/mp4",
    "audio/webm",
    "audio/aac",
    "audio/mpeg",
    "audio/ogg",
    "audio/wave",
    "audio/wav",
    "audio/x-wav",
    "audio/x-pn-wav",
    "audio/flac",
    "audio/x-flac",
];

const POLICY: HeaderValue = HeaderValue::from_static(
    "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
     style-src 'unsafe-inline'; object-src 'self';",
);

/// What is under a URI never changes; who may have it is asked each time it isn't at hand.
const FOR_EVER: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// The size of a thumbnail, as both APIs ask for it.
#[derive(Deserialize)]
pub struct ThumbnailRequest {
    width: u32,
    height: u32,
    #[serde(default)]
    method: Method,
    #[serde(default)]
    animated: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Method {
    Crop,
    #[default]
    Scale,
}

impl ThumbnailRequest {
    /// That size.
    pub fn size(&self) -> Size {
        Size {
            width: self.width,
            height: self.height,
            crop: self.method == Method::Crop,
            animated: self.animated,
        }
    }
}

/// What a request asks for of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// All of it.
    Whole,
    /// These bytes.
    Part(Range<u64>),
    /// The asker has it.
    Nothing,
    /// A part it doesn't have.
    Beyond,
}

/// A file, or the part of it that the request's headers ask for, under its own name or another; from somewhere else, if `elsewhere`
/// says that the asker goes there and the file is kept where that can be.
///
/// # Errors
/// It can't be read.
pub async fn serve(
    media: &Media,
    content: &Content,
    name: Option<&str>,
    request: &HeaderMap,
    elsewhere: bool,
) -> Result<Response, ApiError> {
    let tag = content.tag();
    let asked = asked(request, &tag, content.size);
    if elsewhere
        && asked != Asked::Nothing
        && let Some(response) = redirect(media, content, name)
    {
        return Ok(response);
    }
    let (status, body, length) = match &asked {
        Asked::Whole => {
            let pieces = media.read(content, None).await?;
            (StatusCode::OK, Body::from_stream(pieces), content.size)
        }
        Asked::Part(part) => {
            let pieces = media.read(content, Some(part.clone())).await?;
            let length = part.end.saturating_sub(part.start);
            let body = Body::from_stream(pieces);
            (StatusCode::PARTIAL_CONTENT, body, length)
        }
        Asked::Nothing => (StatusCode::NOT_MODIFIED, Body::empty(), 0),
        Asked::Beyond => (StatusCode::RANGE_NOT_SATISFIABLE, Body::empty(), 0),
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let name = name.or(content.filename.as_deref());
    headers.insert(
        CONTENT_DISPOSITION,
        disposition(&content.content_type, name),
    );
    headers.insert(CONTENT_TYPE, kind(&content.content_type));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let anywhere = HeaderValue::from_static("cross-origin");
    headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, anywhere);
    headers.insert(CACHE_CONTROL, FOR_EVER);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(ETAG, text(&tag));
    if status != StatusCode::NOT_MODIFIED {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    match asked {
        Asked::Part(Range { start, end }) => {
            let last = end.saturating_sub(1);
            let range = text(&format!("bytes {start}-{last}/{}", content.size));
            headers.insert(CONTENT_RANGE, range);
        }
        Asked::Beyond => {
            headers.insert(CONTENT_RANGE, text(&format!("bytes */{}", content.size)));
        }
        Asked::Whole | Asked::Nothing => {}
    }
    Ok(response)
}

/// To where the file is kept, for as long as the link there is good.
fn redirect(media: &Media, content: &Content, name: Option<&str>) -> Option<Response> {
    let disposition = disposition(&content.content_type, name.or(content.filename.as_deref()));
    let kind = kind(&content.content_type);
    let served = Served {
        content_type: kind.to_str().ok()?,
        disposition: disposition.to_str().ok()?,
    };
    let link = media.link(content, served)?;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    let headers = response.headers_mut();
    headers.insert(LOCATION, HeaderValue::from_str(link.as_str()).ok()?);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Some(response)
}

/// A `Content-Type`.
pub fn kind(content_type: &str) -> HeaderValue {
    HeaderValue::from_str(content_type)
        .unwrap_or(HeaderValue::from_static("application/octet-stream"))
}

/// A `Content-Disposition`: whether a file is shown in place, and what it is called.
pub fn disposition(content_type: &str, name: Option<&str>) -> HeaderValue {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let inline = INLINE.iter().any(|kind| essence.eq_ignore_ascii_case(kind));
    let mut line = String::from(if inline { "inline" } else { "attachment" });
    match name {
        Some(name) if name.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => {
            let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
            line.push_str(&format!("; filename=\"{quoted}\""));
        }
        // https://www.rfc-editor.org/rfc/rfc8187
        Some(name) => {
            line.push_str("; filename*=utf-8''");
            line.extend(percent_encoding::utf8_percent_encode(
                name,
                percent_encoding::NON_ALPHANUMERIC,
            ));
        }
        None => {}
    }
    text(&line)
}

/// A line of our own making.
fn text(line: &str) -> HeaderValue {
    HeaderValue::from_str(line).unwrap_or(HeaderValue::from_static("attachment"))
}

/// <https://www.rfc-editor.org/rfc/rfc9110#name-range-requests>, one range at a time; what can't be understood is not there.
pub fn asked(request: &HeaderMap, tag: &str, size: u64) -> Asked {
    let header = |name: HeaderName| request.get(name).and_then(|value| value.to_str().ok());
    // What a proxy has compressed comes back as weak.
    let is_it = |one: &str| one.strip_prefix("W/").unwrap_or(one) == tag;
    let has = |tags: &str| tags == "*" || tags.split(',').map(str::trim).any(is_it);
    if header(IF_NONE_MATCH).is_some_and(has) {
        return Asked::Nothing;
    }
    if header(IF_RANGE).is_some_and(|one| one != tag) {
        return Asked::Whole;
    }
    let range = header(RANGE).and_then(|range| range.strip_prefix("bytes="));
    let Some((from, to)) = range.and_then(|range| range.split_once('-')) else {
        return Asked::Whole;
    };
    let part = match (from.trim(), to.trim()) {
        ("", last) => number(last).map(|last| size.saturating_sub(last)..size),
        (from, "") => number(from).map(|from| from..size),
        (from, to) => number(from)
            .zip(number(to))
            .and_then(|(from, to)| (to >= from).then(|| from..to.saturating_add(1).min(size))),
    };
    match part {
        None => Asked::Whole,
        Some(part) if part.start >= part.end => Asked::Beyond,
        Some(part) => Asked::Part(part),
    }
}

/// Digits alone; what they can't count to is beyond every file.
fn number(digits: &str) -> Option<u64> {
    let all = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// H4: inline by the list, however the type is written.
    #[test]
    fn h4_only_the_list_is_shown_in_place() {
        for (kind, inline) in [
            ("image/png", true),
            ("IMAGE/PNG", true),
            ("text/plain; charset=utf-8", true),
            ("text/html", false),
            ("Text/HTML;x=1", false),
            ("image/svg+xml", false),
            ("image/png,text/html", false),
            ("application/pdf", false),
            ("", false),
        ] {
            let line = disposition(kind, None);
            let expected = if inline { "inline" } else { "attachment" };
            assert_eq!(line, expected, "{kind}");
        }
    }

    #[test]
    fn names_are_quoted_or_encoded() {
        let named = |name| disposition("image/png", Some(name));
        assert_eq!(named("a;b c"), "inline; filename=\"a;b c\"");
        assert_eq!(named("a\"\\b"), "inline; filename=\"a\\\"\\\\b\"");
        assert_eq!(named("🐔"), "inline; filename*=utf-8''%F0%9F%90%94");
        assert_eq!(named("a\r\nb"), "inline; filename*=utf-8''a%0D%0Ab");
    }

    #[test]
    fn parts() {
        let of = |name: HeaderName, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            asked(&headers, "\"tag\"", 100)
        };
        let range = |value| of(RANGE, value);
        assert_eq!(range("bytes=0-9"), Asked::Part(0..10));
        assert_eq!(range("bytes=90-"), Asked::Part(90..100));
        assert_eq!(range("bytes=90-1000"), Asked::Part(90..100));
        assert_eq!(range("bytes=-10"), Asked::Part(90..100));
        assert_eq!(range("bytes=-1000"), Asked::Part(0..100));
        let far = "bytes=0-99999999999999999999";
        assert_eq!(range(far), Asked::Part(0..100));
        for beyond in [
            "bytes=100-",
            "bytes=100-200",
            "bytes=-0",
            "bytes=99999999999999999999-",
        ] {
            assert_eq!(range(beyond), Asked::Beyond, "{beyond}");
        }
        for whole in [
            "bytes=9-0",
            "bytes=0-1,5-6",
            "lines=0-1",
            "bytes=x-",
            "bytes=",
            "bytes=--1",
            "bytes=+1-2",
            "bytes=-",
        ] {
            assert_eq!(range(whole), Asked::Whole, "{whole}");
        }
        assert_eq!(of(IF_NONE_MATCH, "\"other\", \"tag\""), Asked::Nothing);
        assert_eq!(of(IF_NONE_MATCH, "W/\"tag\""), Asked::Nothing);
        assert_eq!(of(IF_NONE_MATCH, "\"other\""), Asked::Whole);
    }
}
