//! Ids of apps: GUIDs, as numbers.

/// Reads `8-4-4-4-12` hexadecimal digits of either case. Nothing else ever gets into an address.
pub(super) fn parse(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 {
        return None;
    }
    let mut id = 0;
    for (at, byte) in bytes.iter().enumerate() {
        match (at, byte) {
            (8 | 13 | 18 | 23, b'-') => {}
            (8 | 13 | 18 | 23, _) => return None,
            (_, b'0'..=b'9') => id = id << 4 | u128::from(byte - b'0'),
            (_, b'a'..=b'f') => id = id << 4 | u128::from(byte - b'a' + 10),
            (_, b'A'..=b'F') => id = id << 4 | u128::from(byte - b'A' + 10),
            _ => return None,
        }
    }
    Some(id)
}

/// In lower case, as the Cloud Controller writes them.
pub(super) fn text(id: u128) -> String {
    let hex = format!("{id:032x}");
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_guids_are_ids() {
        let id = "efe5c422-e8a7-42c2-a52b-98bffd8d6a07";
        assert_eq!(text(parse(id).unwrap()), id);
        assert_eq!(parse(&id.to_uppercase()), parse(id));
        assert_eq!(text(5), "00000000-0000-0000-0000-000000000005");
        for odd in [
            "",
            "gorouter",
            "efe5c422-e8a7-42c2-a52b-98bffd8d6a0",
            "efe5c422-e8a7-42c2-a52b-98bffd8d6a077",
            "efe5c422e-8a7-42c2-a52b-98bffd8d6a07",
            "gfe5c422-e8a7-42c2-a52b-98bffd8d6a07",
            "../../v3/users?-42c2-a52b-98bffd8d6a0",
            "éfe5c422-e8a7-42c2-a52b-98bffd8d6a0",
        ] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }
}
