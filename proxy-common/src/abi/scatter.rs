//! The random sources of the benchmark's packets: what its programs write into a frame, and what the host knows of them.

/// The first address that [`next`] gives; the last is `FIRST + (COUNT - 1)`.
pub const FIRST: u32 = 0x2000_0000;
/// How many addresses there are.
pub const COUNT: u32 = 1 << 30;

/// The address after this one: a linear congruential generator over all [`COUNT`] of them. An address outside counts as the
/// one of them that has the same low bits.
#[inline(always)]
pub const fn next(source: u32) -> u32 {
    let mixed = source.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
    FIRST + mixed % COUNT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_comes_twice_before_all_have_come() {
        // Hull and Dobell: so it is if the addend is odd, and the multiplier one more than a multiple of four. The difference
        // of both shows them, as `FIRST` is a multiple of `COUNT / 2`.
        let (at_zero, at_one) = (next(0) % COUNT, next(1) % COUNT);
        assert_eq!(at_zero % 2, 1);
        assert_eq!(at_one.wrapping_sub(at_zero) % 4, 1);
    }

    #[test]
    fn stays_within_its_addresses() {
        let mut source = 0;
        for _ in 0..100_000 {
            source = next(source);
            assert!((FIRST..FIRST + COUNT).contains(&source), "{source:#x}");
        }
    }
}
