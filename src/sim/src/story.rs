//! What happened, line by line, in virtual time.

use std::hash::{DefaultHasher, Hash, Hasher};

/// A run's story: a line an answer, a fault, a life.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Story(Vec<String>);

impl Story {
    pub(crate) fn tell(&mut self, line: String) {
        self.0.push(line);
    }

    /// Its lines.
    pub(crate) fn lines(&self) -> &[String] {
        &self.0
    }

    /// Where another run of the seed went another way: both lines. None if they are one story.
    pub(crate) fn parts_from(&self, other: &Self) -> Option<(usize, String, String)> {
        let end = || "the end".to_owned();
        (0..self.0.len().max(other.0.len())).find_map(|at| {
            let (one, two) = (self.0.get(at), other.0.get(at));
            (one != two).then(|| {
                let line = |line: Option<&String>| line.cloned().unwrap_or_else(end);
                (at, line(one), line(two))
            })
        })
    }
}

/// A short name for bytes that are too long for a line: the same in every process.
pub(crate) fn digest(bytes: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
