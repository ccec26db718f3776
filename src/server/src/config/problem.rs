//! What is wrong with a configuration, in the words of whoever has to solve it.

use std::fmt;

use figment::{Figment, Metadata, Source, value::Value};

use super::{environment, settings::Entry};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(String);

impl Problem {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub(super) fn unknown(what: String, suggestion: Option<String>) -> Self {
        Self(match suggestion {
            Some(suggestion) => format!("there is no {what}: did you mean {suggestion}?"),
            None => format!("there is no {what}: `comity config reference` lists them all"),
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The candidate closest to `name`, if one is within `distance` edits.
pub(super) fn nearest(
    name: &str,
    candidates: impl IntoIterator<Item = String>,
    distance: usize,
) -> Option<String> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(name, &candidate), candidate))
        .filter(|(edits, _)| *edits <= distance)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Keys and sections that nobody knows.
pub(super) fn unknown_keys(figment: &Figment, entries: &[Entry]) -> Vec<Problem> {
    // A file that is no TOML is told by the extraction.
    let Ok(root) = figment.find_value("") else {
        return Vec::new();
    };
    let mut problems = Vec::new();
    let mut unknown = |path: String, value: &Value, known: Vec<String>| {
        let place = place(figment.get_metadata(value.tag()));
        let suggestion = nearest(&path, known, 4).map(|known| format!("`{known}`"));
        problems.push(Problem::unknown(format!("key `{path}`{place}"), suggestion));
    };
    for (key, value) in root.as_dict().into_iter().flatten() {
        let of_section = |entry: &&Entry| entry.section == key;
        match value.as_dict() {
            Some(section) if entries.iter().any(|entry| entry.section == key) => {
                for (inner, value) in section {
                    if !entries
                        .iter()
                        .filter(of_section)
                        .any(|entry| entry.key == inner)
                    {
                        let known = entries.iter().filter(of_section).map(Entry::path).collect();
                        unknown(format!("{key}.{inner}"), value, known);
                    }
                }
            }
            _ if entries
                .iter()
                .any(|entry| entry.section.is_empty() && entry.key == key) => {}
            _ => {
                let tops = entries.iter().map(|entry| match entry.section {
                    "" => entry.key.to_owned(),
                    section => section.to_owned(),
                });
                unknown(key.clone(), value, tops.collect());
            }
        }
    }
    problems
}

/// Figment's errors, each with its key and where it was written.
pub(super) fn from_figment(error: figment::Error) -> Vec<Problem> {
    error
        .into_iter()
        .map(|error| {
            let path = error.path.join(".");
            let place = place(error.metadata.as_ref());
            let colon = if path.is_empty() { "" } else { ": " };
            Problem(format!("{path}{colon}{}{place}", error.kind))
        })
        .collect()
}

fn place(metadata: Option<&Metadata>) -> String {
    match metadata {
        Some(Metadata {
            source: Some(Source::File(file)),
            ..
        }) => format!(" (in {})", file.display()),
        Some(metadata) if metadata.name == environment::LAYER => " (in the environment)".to_owned(),
        _ => String::new(),
    }
}
