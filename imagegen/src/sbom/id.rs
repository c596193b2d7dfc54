//! Ids that follow from contents: the same document has the same one wherever and whenever it is made.

use crate::sbom::copyright_file::plain;
use crate::sha256::Sha256;

/// Returns a UUID of 122 bits of a SHA-256 digest: version 8 of RFC 9562, section 5.8.
pub(crate) fn uuid(contents: &[u8]) -> String {
    let mut bytes: [u8; 16] = [0; 16];
    bytes.copy_from_slice(&Sha256::of(contents).0[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let mut text = String::new();
    for (place, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&place) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

/// Returns a name for an element of an SPDX document. `_`, which names of crates have and SPDX has not, becomes `..`, which they have not.
pub(crate) fn for_spdx(parts: &[&str]) -> String {
    let parts: Vec<String> = parts
        .iter()
        .map(|part| plain(&part.replace('_', "..")))
        .collect();
    format!("SPDXRef-{}", parts.join("-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids() {
        assert_eq!(uuid(b""), "e3b0c442-98fc-8c14-9afb-f4c8996fb924");
        assert_eq!(
            for_spdx(&["crate", "pin_utils", "1.0+x"]),
            "SPDXRef-crate-pin..utils-1.0plusx"
        );
    }
}
