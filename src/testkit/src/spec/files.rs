//! The specification's YAML files, and schemas made whole from them.
//!
//! A file is named as in the specification's repository (`api/client-server/sync.yaml`,
//! `event-schemas/schema/m.room.member.yaml`), so that the relative references between them hold wherever
//! the two trees lie; ours are under `comity/`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};

/// Our own document: routes outside the specification.
pub(super) const OURS: &str = "comity/comity.yaml";

/// A place in a document: what references in it are relative to, and the value.
pub(super) struct Node {
    file: String,
    value: Value,
}

impl Node {
    pub(super) fn root(file: &str, document: Arc<Value>) -> Self {
        Self {
            file: file.to_owned(),
            value: Value::clone(&document),
        }
    }

    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    /// An element of a list.
    #[cfg(test)]
    pub(super) fn item(&self, index: usize) -> Self {
        Self {
            file: self.file.clone(),
            value: self.value[index].clone(),
        }
    }

    /// The value under `keys`, one below the other.
    pub(super) fn child(&self, keys: &[&str]) -> Option<Self> {
        let value = keys
            .iter()
            .try_fold(&self.value, |value, key| value.get(key))?;
        Some(Self {
            file: self.file.clone(),
            value: value.clone(),
        })
    }
}

/// The files read so far.
pub(super) struct Files {
    root: PathBuf,
    parsed: Mutex<BTreeMap<String, Option<Arc<Value>>>>,
}

impl Files {
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            root,
            parsed: Mutex::default(),
        }
    }

    /// The names in a folder, sorted.
    pub(super) fn list(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(folder)).into_iter().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.ends_with(".yaml"))
            .map(|name| format!("{folder}/{name}"))
            .collect();
        names.sort();
        names
    }

    /// A file's text.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        if name == OURS {
            return Some(include_str!("../../schemas/comity.yaml").to_owned());
        }
        std::fs::read_to_string(self.path(name)).ok()
    }

    /// A file's content, parsed once; `None` if there is no such file.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Value>> {
        let mut parsed = self.parsed.lock().unwrap();
        if let Some(known) = parsed.get(name) {
            return known.clone();
        }
        let document = self.text(name).map(|text| {
            let yaml =
                serde_yaml_ng::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            Arc::new(to_json(yaml))
        });
        parsed.insert(name.to_owned(), document.clone());
        document
    }

    /// The node that this one's `$ref` names.
    pub(super) fn follow(&self, node: &Node) -> Option<Node> {
        let reference = node.value.get("$ref")?.as_str()?;
        Some(self.target(&node.file, reference))
    }

    /// The node itself, or the one its `$ref` stands for.
    pub(super) fn resolve(&self, node: Node) -> Node {
        match self.follow(&node) {
            Some(target) => self.resolve(target),
            None => node,
        }
    }

    /// A schema that needs no other file: what it refers to is in its `$defs`.
    pub(super) fn bundle(&self, schema: &Node) -> Value {
        let mut definitions = BTreeMap::new();
        let mut whole = self.localise(&schema.file, &schema.value, &mut definitions);
        if let Value::Object(whole) = &mut whole {
            whole.insert("$defs".to_owned(), json!(definitions));
        }
        whole
    }

    fn localise(
        &self,
        file: &str,
        schema: &Value,
        definitions: &mut BTreeMap<String, Value>,
    ) -> Value {
        match schema {
            Value::Array(items) => items
                .iter()
                .map(|item| self.localise(file, item, definitions))
                .collect(),
            Value::Object(object) => {
                let mut local = Map::new();
                for (key, value) in object {
                    let value = match key.as_str() {
                        // Not part of the schema; examples have references of their own.
                        "example" | "examples" | "description" | "$schema" => continue,
                        "properties" | "patternProperties" | "$defs" => {
                            self.localise_each(file, value, definitions)
                        }
                        "$ref" => self.local_reference(file, value, definitions),
                        "enum" | "const" | "default" | "required" => value.clone(),
                        _ => self.localise(file, value, definitions),
                    };
                    local.insert(key.clone(), value);
                }
                close_patterns(&mut local);
                Value::Object(local)
            }
            other => other.clone(),
        }
    }

    /// Like `localise` for a map from names to schemas, whose names mean nothing to JSON Schema.
    fn localise_each(
        &self,
        file: &str,
        schemas: &Value,
        definitions: &mut BTreeMap<String, Value>,
    ) -> Value {
        let schemas = schemas.as_object().into_iter().flatten();
        Value::Object(
            schemas
                .map(|(name, schema)| (name.clone(), self.localise(file, schema, definitions)))
                .collect(),
        )
    }

    fn local_reference(
        &self,
        file: &str,
        reference: &Value,
        definitions: &mut BTreeMap<String, Value>,
    ) -> Value {
        let reference = reference.as_str().expect("a reference is a string");
        let (target_file, pointer) = locate(file, reference);
        let name = format!("{target_file}#{pointer}").replace(['/', '#', '~', '$'], ".");
        if !definitions.contains_key(&name) {
            // Entered before its content is looked at: schemas may be recursive.
            definitions.insert(name.clone(), Value::Null);
            let target = self.target(file, reference);
            let schema = self.localise(&target.file, &target.value, definitions);
            definitions.insert(name.clone(), schema);
        }
        json!(format!("#/$defs/{name}"))
    }

    fn target(&self, file: &str, reference: &str) -> Node {
        let (file, pointer) = locate(file, reference);
        let document = self.get(&file).unwrap_or_else(|| panic!("no file {file}"));
        let value = document.pointer(&pointer);
        let value = value
            .unwrap_or_else(|| panic!("nothing at {file}#{pointer}"))
            .clone();
        Node { file, value }
    }

    fn path(&self, name: &str) -> PathBuf {
        match name.strip_prefix("api/") {
            Some(rest) => self.root.join("openapi/api").join(rest),
            None => self.root.join(name),
        }
    }
}

/// An object that only names its keys by patterns has keys of no other kind, in the format given for them.
fn close_patterns(schema: &mut Map<String, Value>) {
    let Some(Value::Object(patterns)) = schema.get("patternProperties") else {
        return;
    };
    if schema.contains_key("properties") || schema.contains_key("additionalProperties") {
        return;
    }
    let formats: Vec<Value> = patterns
        .values()
        .filter_map(|schema| Some(json!({ "format": schema.get("x-pattern-format")? })))
        .collect();
    if formats.len() == patterns.len() {
        schema.insert("propertyNames".to_owned(), json!({ "anyOf": formats }));
    }
    schema.insert("additionalProperties".to_owned(), json!(false));
}

/// The file and the JSON pointer that `reference`, found in `file`, leads to.
fn locate(file: &str, reference: &str) -> (String, String) {
    let (target, pointer) = reference.split_once('#').unwrap_or((reference, ""));
    if target.is_empty() {
        return (file.to_owned(), pointer.to_owned());
    }
    let mut parts: Vec<&str> = file.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    (parts.join("/"), pointer.to_owned())
}

/// YAML as JSON: keys that are numbers (statuses) become strings.
fn to_json(yaml: serde_yaml_ng::Value) -> Value {
    use serde_yaml_ng::Value as Yaml;
    match yaml {
        Yaml::Null => Value::Null,
        Yaml::Bool(bool) => json!(bool),
        Yaml::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => json!(number),
            (_, Some(number)) => json!(number),
            _ => json!(number.as_f64()),
        },
        Yaml::String(string) => json!(string),
        Yaml::Sequence(items) => items.into_iter().map(to_json).collect(),
        Yaml::Tagged(tagged) => to_json(tagged.value),
        Yaml::Mapping(mapping) => Value::Object(
            mapping
                .into_iter()
                .map(|(key, value)| match to_json(key) {
                    Value::String(key) => (key, to_json(value)),
                    key => (key.to_string(), to_json(value)),
                })
                .collect(),
        ),
    }
}
