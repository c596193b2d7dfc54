//! Numbers that look like chance, from a seed, where nothing depends on their being secret; `secrets` has the others.

/// What SplitMix64 counts by: the golden ratio's fraction, which is odd.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Returns the next number of a sequence, whose state begins as any seed: SplitMix64.
pub(crate) fn next(state: &mut u64) -> u64 {
    let number = mix(*state);
    *state = state.wrapping_add(STEP);
    number
}

/// Returns a number that depends on every bit of another: the finishing step of SplitMix64.
pub(crate) fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
