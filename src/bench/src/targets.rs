//! What the values ought to be, on two cores: the targets that were set before anything was built.

/// What is wanted of a value, with the size of the case where that is another than may have been measured; empty where nothing was set.
#[must_use]
pub fn wanted(workload: &str, case: &str, name: &str) -> &'static str {
    match (workload, name) {
        ("W1", "sends_per_s") if case.ends_with(" 1 in flight") => "≥ 0.8 / (fsync p50 + 0.4 ms)",
        ("W1", "sends_per_s") if case.ends_with("64 in flight") => "≥ 5,000; D0 7,000",
        ("W1", "cpu_s_per_1k") if case.ends_with("64 in flight") => "≤ 0.15",
        ("W2", "deliver_p99_ms") => "≤ 25; D0 5",
        ("W2", "lost" | "twice") => "0",
        ("W3", "ack_ms") => "≤ 5",
        ("W3", "last_ms") => "≤ 250 (of 5,000)",
        ("W3", "cpu_s") => "≤ 0.2 (of 5,000)",
        ("W4", "memory_mb") => "≤ 60",
        ("W4", "bytes_each") => "≤ 20,000",
        ("W4", "cpu_percent_quiet") => "≤ 1",
        ("W4", "cpu_percent_expiring") => "≤ 15",
        ("W5", "ms") if case.ends_with("lazy") => "≤ 1,500 (3,000 rooms)",
        ("W5", "cpu_s") if case.ends_with("full") => "≤ 1 each 100 MB",
        ("W5", "cpu_ms") if case.ends_with("nothing happened") => "≤ 1",
        ("W5", "p50_ms") if case.contains("sliding sync") => "≤ 10 (3,000 rooms)",
        ("W6", "last_ms") => initial(case),
        ("W7", "usable_ms") => "≤ 1,000",
        ("W7", "complete_ms") => "≤ 10,000 (50,000 members)",
        ("W7", "peak_memory_mb") => "≤ 500 (50,000 members)",
        ("W8", "pdus_per_s") => "≥ 5,000",
        ("W9", "merged_ms") if case.ends_with(" 2000 conflicts") => "≤ 500",
        ("W9", "merged_ms") if case.ends_with(" 20 conflicts") => "≤ 20",
        ("W11", "keys_lacking" | "keys_twice") => "0",
        _ => "",
    }
}

/// Of 200 users in 300 rooms of 300 members.
fn initial(case: &str) -> &'static str {
    let by_timeline = [
        ("timeline 1,", "≤ 4,000 (200 × 300 × 300)"),
        ("timeline 5,", "≤ 5,000 (200 × 300 × 300)"),
        ("timeline 10, all", "≤ 60,000 (200 × 300 × 300)"),
        ("timeline 20,", "≤ 10,000 (200 × 300 × 300)"),
    ];
    let found = by_timeline
        .into_iter()
        .find(|(timeline, _)| case.contains(timeline));
    found.map_or("", |(_, wanted)| wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_are_told_from_one_another() {
        let one = "10 users × 30 rooms × 30 members, timeline 1, lazy members";
        let ten = "10 users × 30 rooms × 30 members, timeline 10, all members";
        assert!(wanted("W6", one, "last_ms").starts_with("≤ 4,000"));
        assert!(wanted("W6", ten, "last_ms").starts_with("≤ 60,000"));
        assert_eq!(wanted("W6", one, "cpu_s"), "");
        let many = "version 10: 500 entries, 2 forks, 2000 conflicts";
        assert_eq!(wanted("W9", many, "merged_ms"), "≤ 500");
    }
}
