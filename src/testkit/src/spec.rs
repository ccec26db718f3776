//! The specification as a test: what an answer must look like, read from the specification's own files.
//!
//! An answer passes when its operation documents its status and the body matches the schema given there, or when
//! it is one of the [common errors](https://spec.matrix.org/v1.19/client-server-api/#standard-error-response) in
//! the standard shape. Every event in it must match the schema of its type besides. Routes outside the
//! specification have their schemas in `schemas/comity.yaml` of this crate; a route in neither fails.
//!
//! The files are looked for where `COMITY_SPEC` says, else in `../shared/spec` beside the repository. Without them
//! nothing is validated, and that is said once. They are read and resolved lazily, per operation, and kept.

mod events;
mod files;
mod formats;
mod operations;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex};

use jsonschema::{Draft, Validator};
use serde::Deserialize;
use serde_json::Value;

use self::files::{Files, Node};
use self::operations::{Operation, Operations};

/// Errors any operation may answer without documenting them, by status.
const COMMON_ERRORS: [(u16, &[&str]); 7] = [
    (
        400,
        &[
            "M_BAD_JSON",
            "M_NOT_JSON",
            "M_MISSING_PARAM",
            "M_INVALID_PARAM",
        ],
    ),
    (
        401,
        &[
            "M_UNKNOWN_TOKEN",
            "M_MISSING_TOKEN",
            "M_USER_LOCKED",
            // Requests between servers.
            "M_UNAUTHORIZED",
        ],
    ),
    (
        403,
        &[
            "M_FORBIDDEN",
            "M_USER_SUSPENDED",
            "M_USER_DEACTIVATED",
            "M_GUEST_ACCESS_FORBIDDEN",
            // Said by the module of server notices about leaving, where the endpoint is silent.
            "M_CANNOT_LEAVE_SERVER_NOTICE_ROOM",
        ],
    ),
    (404, &["M_NOT_FOUND", "M_UNRECOGNIZED"]),
    (405, &["M_UNRECOGNIZED"]),
    (413, &["M_TOO_LARGE"]),
    (429, &["M_LIMIT_EXCEEDED"]),
];

/// Operations that say in words alone that they may ask for user-interactive authentication.
const INTERACTIVE: [&str; 1] = ["uploadCrossSigningKeys"];

/// Operations whose answer is content somebody chose, where something like an event need not be one.
const FREE_FORM: [&str; 7] = [
    "getAccountData",
    "getAccountDataPerRoom",
    "getFilter",
    "getProfileField",
    "getRoomStateWithKey",
    "getUserProfile",
    "getMutualRooms",
];

/// The specification's files, indexed, with what was compiled so far.
pub struct Spec {
    files: Files,
    operations: Operations,
    deviations: Vec<Deviation>,
    schemas: Mutex<BTreeMap<String, Option<Arc<Validator>>>>,
}

/// A place where we answer otherwise than the schema's letter, with the reason (`schemas/deviations.yaml`).
#[derive(Deserialize)]
struct Deviation {
    operation: String,
    status: u16,
    /// JSON pointer into the operation's schema, references resolved into `$defs`.
    at: String,
    value: Value,
    #[expect(dead_code, reason = "read by people")]
    why: String,
}

/// The specification, or `None` when its files are not here (said once).
#[must_use]
pub fn get() -> Option<&'static Spec> {
    static SPEC: LazyLock<Option<Spec>> = LazyLock::new(|| {
        let root = folder();
        if root.join("openapi/api/client-server").is_dir() {
            Some(Spec::open(root))
        } else {
            eprintln!(
                "comity-testkit: no specification at {}: answers are tested without it (set COMITY_SPEC)",
                root.display()
            );
            None
        }
    });
    SPEC.as_ref()
}

/// Everything wrong with an answer as the wire carried it, one sentence each; empty where the specification is not here. `path` may
/// hold a query; see [`Seen`] for the rest.
#[must_use]
pub fn violations(
    (method, path): (&str, &str),
    (status, bytes): (u16, &[u8]),
    events: bool,
) -> Vec<String> {
    let body = serde_json::from_slice(bytes).ok();
    get().map_or_else(Vec::new, |spec| {
        spec.violations(Seen {
            method,
            path: path.split('?').next().unwrap_or(path),
            status,
            body: body.as_ref(),
            events,
        })
    })
}

/// Holds an answer against the specification, as [`violations`] does.
///
/// # Panics
/// When something is wrong with it.
pub fn check(asked: (&str, &str), (status, bytes): (u16, &[u8]), events: bool) {
    let found = violations(asked, (status, bytes), events);
    let (method, path) = asked;
    assert!(
        found.is_empty(),
        "{method} {path} answered {status}, against the specification:\n  {}\nin {}",
        found.join("\n  "),
        String::from_utf8_lossy(bytes)
    );
}

/// Where the specification's files are looked for.
#[must_use]
pub fn folder() -> PathBuf {
    match std::env::var_os("COMITY_SPEC") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/spec"),
    }
}

/// An answer as the wire carried it.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// The request's method, in capitals.
    pub method: &'a str,
    /// The request's path, still percent-encoded, without the query.
    pub path: &'a str,
    /// The answer's status.
    pub status: u16,
    /// The answer's body, where it was JSON.
    pub body: Option<&'a Value>,
    /// Whether the events in it are checked too.
    pub events: bool,
}

impl Spec {
    fn open(root: PathBuf) -> Self {
        let files = Files::new(root);
        let operations = Operations::index(&files);
        let deviations = serde_yaml_ng::from_str(include_str!("../schemas/deviations.yaml"))
            .expect("schemas/deviations.yaml is well-formed");
        Self {
            files,
            operations,
            deviations,
            schemas: Mutex::default(),
        }
    }

    /// Everything wrong with an answer, one sentence each; empty when it is as the specification says.
    #[must_use]
    pub fn violations(&self, seen: Seen<'_>) -> Vec<String> {
        let operation = self.operations.find(&self.files, seen.method, seen.path);
        let mut found = match &operation {
            Some(operation) => self.answer_violations(operation, seen),
            None => self.unknown_route_violations(seen),
        };
        let error = seen.body.filter(|body| body.get("errcode").is_some());
        if error.is_some_and(|body| !body["error"].is_string()) {
            found.push("an error is explained by `error`, a string".to_owned());
        }
        let free = operation.is_some_and(|operation| FREE_FORM.contains(&operation.id.as_str()));
        if let Some(body) = seen
            .body
            .filter(|_| seen.events && !free && seen.status < 300)
        {
            events::collect(self, body, &mut found);
        }
        found
    }

    fn answer_violations(&self, operation: &Operation, seen: Seen<'_>) -> Vec<String> {
        let documented = self.response_schema(operation, seen.status);
        let found = match &documented {
            None if self.is_challenge(operation, seen) => Vec::new(),
            None => vec![format!(
                "{} does not document status {}",
                operation.id, seen.status
            )],
            Some(None) => return Vec::new(),
            Some(Some(schema)) => match seen.body {
                Some(body) => errors(schema, body),
                None => vec![format!(
                    "{} {}: the body is not JSON",
                    operation.id, seen.status
                )],
            },
        };
        if !found.is_empty() && self.is_common_error(seen) {
            return Vec::new();
        }
        found
    }

    fn unknown_route_violations(&self, seen: Seen<'_>) -> Vec<String> {
        if matches!(seen.status, 404 | 405) && self.is_common_error(seen) {
            return Vec::new();
        }
        vec![format!(
            "{} {} is in no schema: give it one in src/testkit/schemas/comity.yaml",
            seen.method, seen.path
        )]
    }

    /// <https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api>
    fn is_challenge(&self, operation: &Operation, seen: Seen<'_>) -> bool {
        let schema = self.schema_file("api/client-server/definitions/auth_response.yaml");
        let is_valid = |body| schema.is_some_and(|schema| schema.is_valid(body));
        seen.status == 401
            && INTERACTIVE.contains(&operation.id.as_str())
            && seen.body.is_some_and(is_valid)
    }

    fn is_common_error(&self, seen: Seen<'_>) -> bool {
        let Some(body) = seen.body else { return false };
        let common = COMMON_ERRORS.iter().any(|(status, codes)| {
            *status == seen.status && codes.iter().any(|code| body["errcode"] == *code)
        });
        let file = if seen.status == 429 {
            "rate_limited"
        } else {
            "error"
        };
        let schema = self.schema_file(&format!("api/client-server/definitions/errors/{file}.yaml"));
        common && body["error"].is_string() && schema.is_some_and(|schema| schema.is_valid(body))
    }

    /// `None` if the status is not documented, `Some(None)` if it is, without a JSON schema.
    fn response_schema(
        &self,
        operation: &Operation,
        status: u16,
    ) -> Option<Option<Arc<Validator>>> {
        let response = operation.response(&self.files, status)?;
        let Some(schema) = response.child(&["content", "application/json", "schema"]) else {
            return Some(None);
        };
        let key = format!("{} {status}", operation.id);
        Some(self.compiled(&key, || {
            let mut bundle = self.files.bundle(&schema);
            for deviation in &self.deviations {
                if deviation.operation == operation.id && deviation.status == status {
                    let place = bundle.pointer_mut(&deviation.at);
                    let place =
                        place.unwrap_or_else(|| panic!("deviation: no {} in {key}", deviation.at));
                    *place = deviation.value.clone();
                }
            }
            Some(bundle)
        }))
    }

    /// The schema a whole file holds, if there is such a file.
    fn schema_file(&self, name: &str) -> Option<Arc<Validator>> {
        self.compiled(name, || {
            let document = self.files.get(name)?;
            Some(self.files.bundle(&Node::root(name, document)))
        })
    }

    fn compiled(
        &self,
        key: &str,
        bundle: impl FnOnce() -> Option<Value>,
    ) -> Option<Arc<Validator>> {
        let mut schemas = self.schemas.lock().unwrap();
        if let Some(known) = schemas.get(key) {
            return known.clone();
        }
        let compiled = bundle().map(|schema| {
            let options = jsonschema::options()
                .with_draft(Draft::Draft202012)
                .should_validate_formats(true);
            let validator = formats::register(options).build(&schema);
            Arc::new(validator.unwrap_or_else(|error| panic!("{key}: {error}")))
        });
        schemas.insert(key.to_owned(), compiled.clone());
        compiled
    }
}

/// What `schema` finds wrong in `value`: where, and what.
fn errors(schema: &Validator, value: &Value) -> Vec<String> {
    schema
        .iter_errors(value)
        .map(|error| {
            let mut what = error.to_string();
            if what.len() > 400 {
                what = format!("{}…", what.chars().take(400).collect::<String>());
            }
            format!("at `{}`: {what}", error.instance_path())
        })
        .collect()
}

#[cfg(test)]
mod tests;
