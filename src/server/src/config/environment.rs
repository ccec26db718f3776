//! Environment variables as a layer of configuration.

use figment::{
    Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};

use super::{Problem, problem::nearest, settings::Entry, variable};

/// The name of this layer in figment's metadata.
pub(super) const LAYER: &str = "environment";

/// The variables that are set, as values.
pub(super) struct Variables(Dict);

/// Picks `COMITY_…` variables, and says which of them name no key.
///
/// One without `__` is only taken for a misspelt key when it is close to one: `COMITY_TEST_POSTGRES_URL` and the
/// like belong to others.
pub(super) fn read(
    environment: impl IntoIterator<Item = (String, String)>,
    entries: &[Entry],
) -> (Variables, Vec<Problem>) {
    let (mut root, mut problems) = (Dict::new(), Vec::new());
    for (name, text) in environment {
        if !name.starts_with("COMITY_") {
            continue;
        }
        let Some(entry) = entries.iter().find(|entry| variable(entry) == name) else {
            let known = entries.iter().map(variable);
            let suggestion = nearest(&name, known, if name.contains("__") { 5 } else { 2 });
            if name.contains("__") || suggestion.is_some() {
                problems.push(Problem::unknown(format!("variable {name}"), suggestion));
            }
            continue;
        };
        match (entry.parse)(&text) {
            Ok(value) if entry.section.is_empty() => {
                root.insert(entry.key.to_owned(), value);
            }
            Ok(value) => {
                let section = root
                    .entry(entry.section.to_owned())
                    .or_insert_with(|| Value::from(Dict::new()));
                if let Value::Dict(_, section) = section {
                    section.insert(entry.key.to_owned(), value);
                }
            }
            Err(expected) => problems.push(Problem::new(format!("{name} {expected}"))),
        }
    }
    (Variables(root), problems)
}

impl Provider for Variables {
    fn metadata(&self) -> Metadata {
        Metadata::named(LAYER)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.0.clone()))
    }
}
