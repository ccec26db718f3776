//! Numbers of one to five bytes, seven bits each, lowest first: what state nodes and chain rows
//! are made of. There is one encoding per number, so equal content has equal bytes.

/// Appends `n`.
pub(crate) fn put(out: &mut Vec<u8>, mut n: u32) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Takes a number off the front of `bytes`; `None` when it is cut short, longer than it need be,
/// or more than 32 bits.
pub(crate) fn take(bytes: &mut &[u8]) -> Option<u32> {
    let mut n = 0u32;
    for shift in [0, 7, 14, 21, 28] {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u32::from(byte & 0x7f);
        if (shift == 28 && byte > 0x0f) || (shift > 0 && byte == 0) {
            return None;
        }
        n |= bits << shift;
        if byte & 0x80 == 0 {
            return Some(n);
        }
    }
    None
}

/// Appends the step from `from` to `to`, short when they are near each other.
pub(crate) fn put_step(out: &mut Vec<u8>, from: u32, to: u32) {
    let step = to.wrapping_sub(from) as i32;
    put(out, ((step << 1) ^ (step >> 31)) as u32);
}

/// Takes a step off the front of `bytes` and returns where it leads from `from`.
pub(crate) fn take_step(bytes: &mut &[u8], from: u32) -> Option<u32> {
    let zigzag = take(bytes)?;
    let step = (zigzag >> 1) ^ (zigzag & 1).wrapping_neg();
    Some(from.wrapping_add(step))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_survives_the_round_trip(n: u32, from: u32) {
            let mut out = Vec::new();
            super::put(&mut out, n);
            super::put_step(&mut out, from, n);
            let mut bytes = out.as_slice();
            prop_assert_eq!(super::take(&mut bytes), Some(n));
            prop_assert_eq!(super::take_step(&mut bytes, from), Some(n));
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn whatever_is_read_was_written_so(bytes: Vec<u8>) {
            let mut rest = bytes.as_slice();
            if let Some(n) = super::take(&mut rest) {
                let mut out = Vec::new();
                super::put(&mut out, n);
                prop_assert_eq!(&out, &bytes[..bytes.len() - rest.len()]);
            }
        }
    }
}
