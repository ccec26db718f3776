//! `comity config reference`: the configuration file with every key, generated from the settings.

use super::{settings, variable};

/// A configuration file that says of every key what it means and its default. Keys stand behind a `#`; those
/// without a default have nothing after the `=`.
pub fn reference() -> String {
    let mut text = String::from(
        "# Comity's configuration: every key with its default.\n\
         #\n\
         # Take the `#` before a key away to set it. Each can also be set by the environment variable beside it,\n\
         # which then wins over this file.\n",
    );
    let mut section = "";
    for entry in settings::entries() {
        if entry.section != section {
            section = entry.section;
            text.push_str(&format!("\n[{section}]\n"));
        }
        text.push('\n');
        for line in &entry.doc {
            text.push_str(&format!("# {line}\n"));
        }
        text.push_str(&format!("# {}\n", variable(&entry)));
        // JSON's scalars and lists are TOML's.
        let default = match entry.default {
            serde_json::Value::Null => String::new(),
            value => format!(" {value}"),
        };
        text.push_str(&format!("#{} ={default}\n", entry.key));
    }
    text
}
