//! Which operation of the specification a request is.
//!
//! Paths are read off the files' lines, since parsing ninety of them would cost each test's process a second;
//! only the file of a path that is asked for is parsed.

use super::files::{Files, Node, OURS};

const FOLDERS: [&str; 2] = ["api/client-server", "api/server-server"];

/// One method of one path.
pub(super) struct Operation {
    /// The specification's `operationId`.
    pub(super) id: String,
    node: Node,
}

impl Operation {
    /// The documented response of a status.
    pub(super) fn response(&self, files: &Files, status: u16) -> Option<Node> {
        let response = self.node.child(&["responses", &status.to_string()])?;
        Some(files.resolve(response))
    }
}

struct Template {
    file: String,
    path: String,
    /// The whole path's segments, `None` for a parameter.
    segments: Vec<Option<String>>,
}

/// All paths of the specification and ours.
pub(super) struct Operations {
    templates: Vec<Template>,
}

impl Operations {
    pub(super) fn index(files: &Files) -> Self {
        let mut names: Vec<String> = FOLDERS
            .iter()
            .flat_map(|folder| files.list(folder))
            .collect();
        names.push(OURS.to_owned());
        let mut templates = Vec::new();
        for file in names {
            let text = files.text(&file).unwrap_or_default();
            let base = base_path(&text);
            for path in paths(&text) {
                let segments = segments(&format!("{base}{path}"))
                    .map(|segment| (!segment.starts_with('{')).then(|| segment.to_owned()))
                    .collect();
                templates.push(Template {
                    file: file.clone(),
                    path,
                    segments,
                });
            }
        }
        // Literal segments before parameters, so that the first match is the closest.
        templates.sort_by_key(|template| {
            template
                .segments
                .iter()
                .map(Option::is_none)
                .collect::<Vec<_>>()
        });
        Self { templates }
    }

    /// The operation of a request; a path's last, empty segment may be left out, as the specification allows for
    /// an empty state key, and `r0` is today's `v3`.
    pub(super) fn find(&self, files: &Files, method: &str, path: &str) -> Option<Operation> {
        let path = match path.strip_prefix("/_matrix/client/r0/") {
            Some(rest) => format!("/_matrix/client/v3/{rest}"),
            None => path.to_owned(),
        };
        let method = method.to_lowercase();
        [path.clone(), format!("{path}/")].iter().find_map(|path| {
            let matching = self
                .templates
                .iter()
                .filter(|template| template.matches(path));
            let mut operations = matching.filter_map(|template| {
                let document = Node::root(&template.file, files.get(&template.file)?);
                let node = document.child(&["paths", &template.path, &method])?;
                let id = node.value().get("operationId")?.as_str()?.to_owned();
                Some(Operation { id, node })
            });
            operations.next()
        })
    }
}

impl Template {
    fn matches(&self, path: &str) -> bool {
        let mut asked = segments(path);
        self.segments
            .iter()
            .all(|segment| match (segment, asked.next()) {
                (Some(literal), Some(asked)) => literal == asked,
                (None, asked) => asked.is_some(),
                (Some(_), None) => false,
            })
            && asked.next().is_none()
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.trim_start_matches('/').split('/')
}

/// The keys of a document's `paths`: the lines two deep that begin with a slash.
fn paths(text: &str) -> Vec<String> {
    text.lines()
        .filter_map(|line| {
            let key = line.strip_prefix("  ")?.trim_start_matches('"').trim_end();
            let path = key.strip_suffix(':')?.trim_end_matches('"');
            path.starts_with('/').then(|| path.to_owned())
        })
        .collect()
}

/// The default of `basePath` in a document's `servers`.
fn base_path(text: &str) -> String {
    let mut lines = text.lines().skip_while(|line| line.trim() != "basePath:");
    let default = lines
        .nth(1)
        .and_then(|line| line.trim().strip_prefix("default:"));
    let base = default.unwrap_or_default().trim().trim_matches('"');
    base.trim_end_matches('/').to_owned()
}
