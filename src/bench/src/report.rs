//! From the record to the page: one table, each cell the median of the repeats and their range, beside what is wanted.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::error::{Error, Result};
use crate::plot;
use crate::record::Line;
use crate::stats::Spread;
use crate::targets;

/// The part of the page that is made here stands between these.
const BEGIN: &str = "<!-- results: made by `comity-bench report` -->";
const END: &str = "<!-- end of results -->";

/// A row: workload, case, value's name.
pub type Row = (String, String, String);

/// All values, by row and then by server, over the repeats.
#[derive(Default)]
pub struct Table {
    /// Rows in the order in which they were first measured.
    pub rows: Vec<Row>,
    /// The servers, by name.
    pub servers: Vec<String>,
    /// The values.
    pub cells: BTreeMap<(Row, String), Vec<f64>>,
}

impl Table {
    /// Gathers the record's measurements.
    #[must_use]
    pub fn of(lines: &[Line]) -> Self {
        let mut table = Self::default();
        for line in lines {
            let Line::Measured {
                server,
                measurement,
                ..
            } = line
            else {
                continue;
            };
            if !table.servers.contains(server) {
                table.servers.push(server.clone());
            }
            for (name, value) in &measurement.values {
                let row = (
                    measurement.workload.clone(),
                    measurement.case.clone(),
                    name.clone(),
                );
                if !table.rows.contains(&row) {
                    table.rows.push(row.clone());
                }
                table
                    .cells
                    .entry((row, server.clone()))
                    .or_default()
                    .push(*value);
            }
        }
        table.servers.sort();
        // Stable: within a workload the cases stay in the order in which they ran. W11 comes after W9.
        table
            .rows
            .sort_by_key(|(workload, ..)| (workload.len(), workload.clone()));
        table
    }

    /// The spread of one cell.
    #[must_use]
    pub fn spread(&self, row: &Row, server: &str) -> Option<Spread> {
        Spread::of(self.cells.get(&(row.clone(), server.to_owned()))?)
    }
}

/// What a value's name says to people: words and unit.
#[must_use]
pub fn label(name: &str) -> &str {
    match name {
        "sends_per_s" => "sends a second",
        "ack_p50_ms" => "acknowledged, p50, ms",
        "ack_p99_ms" => "acknowledged, p99, ms",
        "cpu_s_per_1k" => "CPU-seconds per 1,000 sends",
        "deliver_p50_ms" => "delivered, p50, ms",
        "deliver_p99_ms" => "delivered, p99, ms",
        "deliver_max_ms" => "delivered, last, ms",
        "lost" => "copies lost",
        "twice" => "copies delivered twice",
        "cpu_percent" => "CPU, % of a core",
        "ack_ms" => "acknowledged, ms",
        "last_ms" => "last answer, ms",
        "cpu_s" => "CPU-seconds",
        "idle_memory_mb" => "memory before, MB",
        "memory_mb" => "memory, MB",
        "bytes_each" => "bytes each",
        "cpu_percent_quiet" => "CPU without expiries, % of a core",
        "cpu_percent_expiring" => "CPU with 30 s expiries, % of a core",
        "ms" => "answered, ms",
        "mb" => "answer, MB",
        "cpu_ms" => "CPU, ms",
        "usable_ms" => "usable, ms",
        "complete_ms" => "complete, ms",
        "peak_memory_mb" => "memory at its peak, MB",
        "serve_ms" => "another server let in, ms",
        "serve_cpu_s" => "CPU-seconds for that",
        "serve_mb" => "what that one was told, MB",
        "pdus_per_s" => "events a second",
        "cpu_s_per_1k_pdus" => "CPU-seconds per 1,000 events",
        "forks_cpu_s" => "CPU-seconds to take the forks",
        "merged_ms" => "the event that joins them shown, ms",
        "merged_cpu_ms" => "CPU for that, ms",
        "p50_ms" => "answered, p50, ms",
        "p99_ms" => "answered, p99, ms",
        "answers_mb" => "answers together, MB",
        "claims_per_s" => "claims a second",
        "keys_lacking" => "claims that were given no key, though there was one",
        "keys_twice" => "keys given away twice",
        "cpu_s_per_1k_claims" => "CPU-seconds per 1,000 claims",
        other => other,
    }
}

/// Three digits that count.
#[must_use]
pub fn figure(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = text
        .split_once('.')
        .map_or((text.as_str(), None), |(whole, rest)| (whole, Some(rest)));
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    rest.map_or(grouped.clone(), |rest| format!("{grouped}.{rest}"))
}

fn cell(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "—".to_owned(),
        |spread| {
            if figure(spread.min) == figure(spread.max) {
                return figure(spread.median);
            }
            format!(
                "{} ({}–{})",
                figure(spread.median),
                figure(spread.min),
                figure(spread.max)
            )
        },
    )
}

/// The page's made part.
fn results(lines: &[Line], table: &Table, plot: &str) -> String {
    let mut out = format!("{BEGIN}\n\n![The same in a picture]({plot})\n\n");
    for line in lines {
        if let Line::Run {
            date,
            machine,
            repeats,
            seed,
            ..
        } = line
        {
            let _ = writeln!(
                out,
                "- {date}: {machine}; {repeats} repeats, order by seed {seed}."
            );
        }
    }
    for server in &table.servers {
        let mut versions = Vec::new();
        let (mut p50, mut p99, mut load) = (Vec::new(), Vec::new(), Vec::new());
        for line in lines {
            if let Line::Server {
                server: of,
                version,
                fsync_p50_ms,
                fsync_p99_ms,
                load_average,
                ..
            } = line
                && of == server
            {
                if !versions.contains(version) {
                    versions.push(version.clone());
                }
                p50.push(*fsync_p50_ms);
                p99.push(*fsync_p99_ms);
                load.push(*load_average);
            }
        }
        let _ = writeln!(
            out,
            "- {server}: {}. Just before: fsync p50 {} ms, p99 {} ms; load average {}.",
            versions.join("; "),
            cell(Spread::of(&p50)),
            cell(Spread::of(&p99)),
            cell(Spread::of(&load)),
        );
    }
    let _ = writeln!(
        out,
        "\n| | case | | wanted | {} |",
        table.servers.join(" | ")
    );
    let _ = writeln!(
        out,
        "|---|---|---|---|{}",
        "---:|".repeat(table.servers.len())
    );
    let mut last = None;
    for row in &table.rows {
        let (workload, case, name) = row;
        let again = last.replace((workload, case)) == Some((workload, case));
        let (workload, case) = if again {
            ("", "")
        } else {
            (workload.as_str(), case.as_str())
        };
        let cells: Vec<String> = table
            .servers
            .iter()
            .map(|server| cell(table.spread(row, server)))
            .collect();
        let _ = writeln!(
            out,
            "| {workload} | {case} | {} | {} | {} |",
            label(name),
            targets::wanted(&row.0, &row.1, name),
            cells.join(" | ")
        );
    }
    for line in lines {
        if let Line::Failed {
            server,
            repeat,
            workload,
            error,
        } = line
        {
            let _ = writeln!(
                out,
                "\n{workload} failed on {server}, repeat {repeat}: {error}"
            );
        }
    }
    let _ = write!(out, "\n{END}");
    out
}

/// Writes the plot, and the results into the page between its two marks.
///
/// # Errors
/// When the page isn't there, has no marks, or can't be written.
pub fn write(lines: &[Line], page: &Path, plot_path: &Path) -> Result<()> {
    let table = Table::of(lines);
    let plot_name = plot_path.file_name().unwrap_or_default().to_string_lossy();
    let text = fs::read_to_string(page)?;
    let parts = text
        .split_once(BEGIN)
        .and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.ok_or_else(|| {
        Error::Program(format!("{} lacks the marks of the results", page.display()))
    })?;
    fs::write(
        page,
        format!("{before}{}{after}", results(lines, &table, &plot_name)),
    )?;
    Ok(fs::write(plot_path, plot::svg(&table))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::Measurement;

    fn measured(server: &str, repeat: usize, value: f64) -> Line {
        let measurement = Measurement::new("W1", "one room").with("sends_per_s", value);
        Line::Measured {
            server: server.to_owned(),
            repeat,
            measurement,
        }
    }

    #[test]
    fn figures_keep_three_digits_that_count() {
        for (value, text) in [
            (0.0, "0"),
            (0.0123, "0.012"),
            (1.234, "1.23"),
            (45.67, "45.7"),
            (1234.5, "1,234"),
        ] {
            assert_eq!(figure(value), text);
        }
        assert_eq!(figure(1_234_567.0), "1,234,567");
    }

    #[test]
    fn the_page_keeps_what_is_around_the_results() {
        let folder = tempfile::tempdir().unwrap();
        let (page, plot) = (
            folder.path().join("page.md"),
            folder.path().join("plot.svg"),
        );
        fs::write(&page, format!("before\n{BEGIN}\nold\n{END}\nafter\n")).unwrap();
        let lines = [
            measured("a", 1, 10.0),
            measured("a", 2, 30.0),
            measured("a", 3, 20.0),
            measured("b", 1, 5.0),
        ];
        write(&lines, &page, &plot).unwrap();
        let text = fs::read_to_string(&page).unwrap();
        assert!(
            text.starts_with("before\n") && text.ends_with("\nafter\n"),
            "{text}"
        );
        assert!(
            text.contains("| W1 | one room | sends a second |  | 20.0 (10.0–30.0) | 5.00 |"),
            "{text}"
        );
        assert!(!text.contains("old"));
        assert!(fs::read_to_string(&plot).unwrap().starts_with("<svg"));
    }

    #[test]
    fn a_record_survives_being_written_and_read() {
        let line = serde_json::to_string(&measured("a", 1, 10.0)).unwrap();
        assert!(matches!(
            serde_json::from_str(&line).unwrap(),
            Line::Measured { repeat: 1, .. }
        ));
    }
}
