//! The frame by which the agent finds out whether both its ports are on one segment.
//!
//! A broadcast of the first EtherType that IEEE 802 leaves to local experiments, so that every switch and access point passes it on
//! and no host answers it. The nonce says who sent it, when and where; what it means is the loop guard's matter.
//!
//! ```text
//!  0        14                22               30                    60
//! +--------+-----------------+----------------+---------------------+
//! | header | "footlink"      | nonce          | zeros               |
//! +--------+-----------------+----------------+---------------------+
//! ```

use pnet_base::MacAddr;

use super::ethernet::{self, Frame};

/// The EtherType.
pub const TYPE_LOOP_PROBE: u16 = 0x88b5;

const MAGIC: [u8; 8] = *b"footlink";
/// Shortest Ethernet payload: what a switch would pad the frame to anyway.
const LEN: usize = 46;

/// Encodes a probe as a frame from `source` to everybody.
pub fn encode(source: MacAddr, nonce: u64) -> Vec<u8> {
    let mut payload = [0; LEN];
    payload[..8].copy_from_slice(&MAGIC);
    payload[8..16].copy_from_slice(&nonce.to_be_bytes());
    ethernet::encode(MacAddr::broadcast(), source, TYPE_LOOP_PROBE, &payload)
}

/// Returns the nonce of a probe; `None` for other people's experiments.
pub fn decode(frame: &Frame<'_>) -> Option<u64> {
    if frame.ether_type != TYPE_LOOP_PROBE {
        return None;
    }
    let (magic, rest) = frame.payload.split_first_chunk()?;
    let nonce = rest.first_chunk()?;
    (*magic == MAGIC).then_some(u64::from_be_bytes(*nonce))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A: MacAddr = MacAddr(2, 0, 0, 0, 0, 0xa);

    fn decode_payload(ether_type: u16, payload: &[u8]) -> Option<u64> {
        let bytes = ethernet::encode(MacAddr::broadcast(), A, ether_type, payload);
        decode(&ethernet::decode(&bytes).unwrap())
    }

    #[test]
    fn what_is_not_a_probe_is_refused() {
        assert_eq!(decode_payload(TYPE_LOOP_PROBE, b"footlink"), None);
        assert_eq!(decode_payload(TYPE_LOOP_PROBE, b"football01234567"), None);
        assert_eq!(decode_payload(0x88b6, b"footlink01234567"), None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(nonce: u64) {
            let bytes = encode(A, nonce);
            prop_assert_eq!(bytes.len(), 60);
            prop_assert_eq!(decode(&ethernet::decode(&bytes).unwrap()), Some(nonce));
        }

        #[test]
        fn decode_never_panics(payload in proptest::collection::vec(any::<u8>(), 0..32)) {
            decode_payload(TYPE_LOOP_PROBE, &payload);
        }
    }
}
