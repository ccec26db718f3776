//! The picture: for each headline value a group of bars, one a server, on a logarithmic scale,
//! because the servers differ by orders of magnitude.

use std::fmt::Write as _;

use crate::report::{Row, Table, figure, label};

/// The values that are drawn.
const HEADLINES: [&str; 10] = [
    "sends_per_s",
    "cpu_s_per_1k",
    "deliver_p99_ms",
    "last_ms",
    "bytes_each",
    "idle_memory_mb",
    "ms",
    "p50_ms",
    "claims_per_s",
    "cpu_ms",
];
const COLOURS: [&str; 5] = ["#1b6ca8", "#6cb2e0", "#c8553d", "#8a8a8a", "#4d8b56"];
const LEFT: f64 = 360.0;
const WIDTH: f64 = 420.0;
const BAR: f64 = 13.0;

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// Draws the table's headline values.
#[must_use]
pub fn svg(table: &Table) -> String {
    let mut body = String::new();
    let mut y = 16.0;
    for (server, colour) in table.servers.iter().zip(COLOURS.iter().cycle()) {
        let _ = write!(
            body,
            r#"<rect x="{LEFT}" y="{:.0}" width="11" height="11" fill="{colour}"/><text x="{}" y="{:.0}">{}</text>"#,
            y - 9.0,
            LEFT + 17.0,
            y,
            escape(server)
        );
        y += 17.0;
    }
    for row in table
        .rows
        .iter()
        .filter(|(_, _, name)| HEADLINES.contains(&name.as_str()))
    {
        y = group(&mut body, table, row, y + 14.0);
    }
    let (width, height) = (LEFT + WIDTH + 90.0, y + 12.0);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>{body}\n</svg>\n"
    )
}

/// Draws one value's bars from `y` down and gives where they end. Bars are compared within the
/// group only: the shortest is a tenth of the scale.
fn group(body: &mut String, table: &Table, row: &Row, mut y: f64) -> f64 {
    let (workload, case, name) = row;
    let medians: Vec<Option<f64>> = table
        .servers
        .iter()
        .map(|server| table.spread(row, server).map(|spread| spread.median))
        .collect();
    let positive = || {
        medians
            .iter()
            .flatten()
            .copied()
            .filter(|value| *value > 0.0)
    };
    let least = positive().fold(f64::INFINITY, f64::min) / 2.0;
    let most = positive().fold(0.0, f64::max);
    let _ = write!(
        body,
        "\n<text x=\"{}\" y=\"{:.0}\" text-anchor=\"end\">{} · {}</text>\
         <text x=\"{}\" y=\"{:.0}\" text-anchor=\"end\" fill=\"#555\">{}</text>",
        LEFT - 8.0,
        y + 10.0,
        workload,
        escape(case),
        LEFT - 8.0,
        y + 24.0,
        escape(label(name)),
    );
    let top = y;
    for (median, colour) in medians.iter().zip(COLOURS.iter().cycle()) {
        let Some(value) = median else { continue };
        let share = if *value > 0.0 {
            ((value / least).ln() / (most / least).ln()).clamp(0.0, 1.0)
        } else {
            0.0
        };
        let length = share * WIDTH;
        let _ = write!(
            body,
            "<rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{length:.1}\" height=\"{}\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{:.0}\">{}</text>",
            BAR - 2.0,
            LEFT + length + 5.0,
            y + 10.0,
            figure(*value),
        );
        y += BAR;
    }
    y.max(top + 26.0)
}
