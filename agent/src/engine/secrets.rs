//! The engine's secrets: one for each purpose, of random bytes that it is handed. It has no randomness of its own.
//!
//! ```text
//!   bytes  0..16   a key, from which one key is derived for each purpose whose numbers others see
//!         16..24   the salt of whom DHCP refused, which nobody sees
//!         24..32   where the timers' spread begins, which anybody may work out
//! ```
//!
//! What leaves this machine was hashed with SipHash-2-4 under such a key: who sees some numbers learns no other, neither of
//! their purpose nor of another. The hasher of the standard library will not do, because its key cannot be set; and for one
//! function of forty lines, with the vector of its authors, no dependency is needed.

use std::fmt;

/// How many random bytes the secrets are made of.
pub const RANDOM_BYTES: usize = 32;

/// A key for one purpose.
#[derive(Clone, Copy)]
pub(crate) struct Secret(u64, u64);

/// All of them.
#[derive(Debug)]
pub(crate) struct Secrets {
    /// For the loop guard's nonces.
    pub(crate) loop_nonces: Secret,
    /// For the numbers of DHCP conversations on the uplink.
    pub(crate) dhcp_numbers: Secret,
    pub(crate) dhcp_admission: u64,
    pub(crate) timers: u64,
}

impl Secrets {
    /// Splits the random bytes.
    pub(crate) fn split(random: [u8; RANDOM_BYTES]) -> Secrets {
        let (words, _) = random.as_chunks::<8>();
        let word = |at: usize| u64::from_le_bytes(words[at]);
        let key = Secret(word(0), word(1));
        Secrets {
            loop_nonces: key.derive(1),
            dhcp_numbers: key.derive(2),
            dhcp_admission: word(2),
            timers: word(3),
        }
    }
}

impl Secret {
    fn derive(self, purpose: u64) -> Secret {
        Secret(self.hash(&[purpose, 0]), self.hash(&[purpose, 1]))
    }

    /// Returns a number that only who has the key can tell from the words (SipHash-2-4, of their bytes in little-endian order).
    pub(crate) fn hash(self, words: &[u64]) -> u64 {
        let mut state = SipState::new(self);
        for word in words {
            state.take(*word);
        }
        // The last block bears the length in bytes, modulo 256, and what is left over of them, which is nothing.
        let bytes = 8 * words.len() as u64;
        state.take(bytes << 56);
        state.finish()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// SipHash's state, in the names of its authors: v0 to v3.
struct SipState([u64; 4]);

impl SipState {
    fn new(Secret(k0, k1): Secret) -> SipState {
        SipState([
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ])
    }

    fn take(&mut self, block: u64) {
        self.0[3] ^= block;
        self.round();
        self.round();
        self.0[0] ^= block;
    }

    fn finish(mut self) -> u64 {
        self.0[2] ^= 0xff;
        for _ in 0..4 {
            self.round();
        }
        self.0.into_iter().fold(0, |all, v| all ^ v)
    }

    fn round(&mut self) {
        let [v0, v1, v2, v3] = &mut self.0;
        *v0 = v0.wrapping_add(*v1);
        *v1 = v1.rotate_left(13) ^ *v0;
        *v0 = v0.rotate_left(32);
        *v2 = v2.wrapping_add(*v3);
        *v3 = v3.rotate_left(16) ^ *v2;
        *v0 = v0.wrapping_add(*v3);
        *v3 = v3.rotate_left(21) ^ *v0;
        *v2 = v2.wrapping_add(*v1);
        *v1 = v1.rotate_left(17) ^ *v2;
        *v2 = v2.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counting() -> [u8; RANDOM_BYTES] {
        std::array::from_fn(|at| at as u8)
    }

    /// From the authors' `vectors.h`: the key 00 01 .. 0f, messages of 0 and 8 bytes that count up as well.
    #[test]
    fn the_hash_is_the_one_of_its_authors() {
        let key = Secret(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        assert_eq!(key.hash(&[]), 0x726f_db47_dd0e_0e31);
        assert_eq!(key.hash(&[0x0706_0504_0302_0100]), 0x93f5_f579_9a93_2462);
    }

    #[test]
    fn no_secret_tells_of_another() {
        let secrets = Secrets::split(counting());
        let seen = secrets.dhcp_numbers.hash(&[1]);
        assert_ne!(seen, secrets.loop_nonces.hash(&[1]));
        let mut other = counting();
        other[16..].fill(0);
        let same_key = Secrets::split(other);
        assert_eq!(
            seen,
            same_key.dhcp_numbers.hash(&[1]),
            "no key depends on what is seen"
        );
        other[0] ^= 1;
        assert_ne!(seen, Secrets::split(other).dhcp_numbers.hash(&[1]));
    }

    #[test]
    fn a_secret_is_not_shown() {
        let shown = format!("{:?}", Secrets::split(counting()).loop_nonces);
        assert_eq!(shown, "<redacted>");
    }
}
