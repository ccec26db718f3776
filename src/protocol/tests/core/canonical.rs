//! Canonical JSON by data: <https://spec.matrix.org/v1.19/appendices/#canonical-json>.

use comity_protocol::canonical::{
    JsonError, MAX_DEPTH, Numbers, Object, canonicalize, canonicalize_within, members,
};

#[derive(serde::Deserialize)]
struct Case {
    why: String,
    #[serde(rename = "in")]
    input: String,
    out: Option<String>,
    numbers: String,
}

/// The spec's vectors, and threats A1 and A4.
#[test]
fn cases() {
    for line in include_str!("../data/canonical_json.jsonl").lines() {
        let case: Case = serde_json::from_str(line).unwrap();
        let both = case.numbers == "both";
        for (name, numbers) in [("strict", Numbers::Strict), ("lax", Numbers::Lax)] {
            if both || case.numbers == name {
                let out = canonicalize(case.input.as_bytes(), numbers).ok();
                assert_eq!(out, case.out, "{name}, {}: {}", case.why, case.input);
            }
        }
    }
}

#[test]
fn bytes_that_are_no_utf8() {
    for bytes in [
        &b"\"\xff\""[..],
        b"\"\xed\xa0\x80\"",
        b"\"\xc0\x80\"",
        b"\xef\xbb\xbf{}",
    ] {
        assert!(canonicalize(bytes, Numbers::Lax).is_err(), "{bytes:?}");
    }
}

/// Threat A3: nesting costs no stack, and one level too many is one answer everywhere.
#[test]
fn a3_nesting() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    for numbers in [Numbers::Strict, Numbers::Lax] {
        let deepest = nested(MAX_DEPTH);
        assert_eq!(canonicalize(deepest.as_bytes(), numbers), Ok(deepest));
        let too_deep = Err(JsonError::TooDeep);
        assert_eq!(
            canonicalize(nested(MAX_DEPTH + 1).as_bytes(), numbers),
            too_deep
        );
        assert_eq!(
            canonicalize("[".repeat(65_536).as_bytes(), numbers),
            too_deep
        );
        assert_eq!(
            canonicalize("{\"a\":".repeat(10_000).as_bytes(), numbers),
            too_deep
        );
    }
}

/// Threat A3: what carries an event that is nested too deeply can be read, on little stack, and no longer
/// than other text of its size takes.
#[test]
fn a3_nesting_of_what_carries_events() {
    const DEEP: usize = 32_768;
    let within = |text: &str| canonicalize_within(text.as_bytes(), Numbers::Lax, DEEP);
    let arrays = "[".repeat(DEEP) + &"]".repeat(DEEP);
    let objects = "{\"a\":".repeat(DEEP) + "1" + &"}".repeat(DEEP);
    for deep in [arrays, objects] {
        let read = std::thread::scope(|scope| {
            let small = std::thread::Builder::new().stack_size(64 << 10);
            let reading = small.spawn_scoped(scope, || within(&deep)).unwrap();
            reading.join().unwrap()
        });
        assert_eq!(read.as_ref(), Ok(&deep));
        assert_eq!(within(&format!("[{deep}]")), Err(JsonError::TooDeep));
    }
    // Each level would have to move all that is in it.
    let unsorted = |depth: usize| "{\"b\":1,\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
    let sorted = within(&unsorted(150)).unwrap();
    assert_eq!(
        canonicalize_within(sorted.as_bytes(), Numbers::Lax, DEEP),
        Ok(sorted)
    );
    assert_eq!(within(&unsorted(DEEP)), Err(JsonError::TooDeep));
}

#[test]
fn members_of_an_object() {
    let text = r#"{"a":[1,{"b":"}"}],"c\"d":"x,\"y\\","e":-1,"f":{}}"#;
    let all: Vec<_> = members(text).collect();
    let expected = [
        ("a", r#"[1,{"b":"}"}]"#),
        (r#"c\"d"#, r#""x,\"y\\""#),
        ("e", "-1"),
        ("f", "{}"),
    ];
    assert_eq!(all, expected);
    assert_eq!(members(text).get("e"), Some("-1"));
    assert_eq!(members(text).get("g"), None);
    for text in [
        "{}",
        "",
        "[1,2]",
        "1",
        "{",
        "{\"a",
        "{\"a\":",
        "{\"a\":\"\\",
    ] {
        assert_eq!(members(text).count(), 0, "{text}");
    }
}

#[test]
fn an_object_changed_is_canonical() {
    let mut object = Object::parse(r#"{"b":1,"c":2}"#).unwrap();
    object
        .set("d", &serde_json::json!({ "z": 1, "a": 2 }))
        .unwrap();
    object.set("\n", "first").unwrap();
    object.remove("c");
    assert_eq!(object.get("b"), Some("1"));
    assert_eq!(
        object.write().unwrap(),
        r#"{"\n":"first","b":1,"d":{"a":2,"z":1}}"#
    );
    assert_eq!(object.set("e", &0.5), Err(JsonError::Number));
}
