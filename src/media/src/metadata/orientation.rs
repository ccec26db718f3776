//! Which way up a picture is: the one thing of its EXIF that it can't do without.

/// The tag in the first directory.
const TAG: u16 = 0x0112;

/// The orientation that a TIFF block tells, 2 to 8; `None` if it is as it lies.
pub(super) fn read(tiff: &[u8]) -> Option<u8> {
    let little = match tiff.get(..4)? {
        b"II*\0" => true,
        b"MM\0*" => false,
        _ => return None,
    };
    let short = |at: usize| {
        let bytes: [u8; 2] = tiff.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if little {
            u16::from_le_bytes(bytes)
        } else {
            u16::from_be_bytes(bytes)
        })
    };
    let long = |at: usize| {
        let bytes: [u8; 4] = tiff.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if little {
            u32::from_le_bytes(bytes)
        } else {
            u32::from_be_bytes(bytes)
        })
    };
    let directory = usize::try_from(long(4)?).ok()?;
    let entries = usize::from(short(directory)?);
    let value = (0..entries).find_map(|entry| {
        let at = directory.checked_add(2 + entry * 12)?;
        (short(at)? == TAG).then(|| short(at + 8))?
    })?;
    u8::try_from(value)
        .ok()
        .filter(|value| (2..=8).contains(value))
}

/// A TIFF block that tells nothing but an orientation.
pub(super) fn write(orientation: u8) -> Vec<u8> {
    let mut tiff = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    tiff.extend_from_slice(&[orientation, 0, 0, 0, 0, 0, 0]);
    tiff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for orientation in 2..=8 {
            let tiff = write(orientation);
            assert_eq!(tiff.len(), 26);
            assert_eq!(read(&tiff), Some(orientation));
            for cut in 0..20 {
                assert_eq!(read(&tiff[..cut]), None);
            }
        }
        assert_eq!(read(&write(1)), None);
        assert_eq!(read(&write(9)), None);
        assert_eq!(read(b"MM\0*\xff\xff\xff\xff"), None);
        assert_eq!(
            read(b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"),
            Some(6)
        );
    }
}
