//! Numbers: their grammar, and the form they are written in.

use super::{JsonError, MAX_INTEGER, Numbers};

/// The length of the JSON number that `bytes` begin with; `None` if they don't.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    let digits = |from: usize| {
        bytes
            .get(from..)
            .unwrap_or_default()
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    match (bytes.get(at), digits(at)) {
        (_, 0) => return None,
        (Some(b'0'), _) => at += 1,
        (_, count) => at += count,
    }
    if bytes.get(at) == Some(&b'.') {
        let count = digits(at + 1);
        if count == 0 {
            return None;
        }
        at += 1 + count;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let count = digits(at + 1 + sign);
        if count == 0 {
            return None;
        }
        at += 1 + sign + count;
    }
    Some(at)
}

/// Writes a number of JSON's grammar.
pub(super) fn write(text: &str, numbers: Numbers, out: &mut String) -> Result<(), JsonError> {
    let is_plain = text != "-0" && !text.contains(['.', 'e', 'E']);
    // Sixteen digits and a sign; longer ones are out of range whatever their digits.
    let small = |text: &str| text.len() <= 17;
    let integer = || {
        text.parse::<i64>()
            .ok()
            .filter(|value| value.abs() <= MAX_INTEGER)
    };
    match numbers {
        Numbers::Strict if is_plain && small(text) && integer().is_some() => out.push_str(text),
        Numbers::Strict => return Err(JsonError::Number),
        Numbers::Lax if is_plain && small(text) => out.push_str(text),
        Numbers::Lax => {
            let value: f64 = text.parse().map_err(|_| JsonError::Number)?;
            if !value.is_finite() {
                // Nobody could read it back.
                return Err(JsonError::Number);
            }
            let is_other_integer = text == "-0" || text.contains(['e', 'E']);
            if is_other_integer && value.fract() == 0.0 && value.abs() <= MAX_INTEGER as f64 {
                // Exact: an integer of at most 53 bits. `+ 0` also turns −0 into 0.
                out.push_str(&(value as i64).to_string());
            } else {
                out.push_str(text);
            }
        }
    }
    Ok(())
}
