//! Bans: sources from which nothing is to pass until a time, added while a policy is in force and kept over changes of it.
//!
//! `BANS` holds single IPv4 addresses and IPv6 prefixes of 64 bits, `BAN_PREFIXES` all other lengths, and `BAN_FILTER` says of
//! most sources at the price of one read that they are not in `BANS`. All are written by `dataplane::bans` alone and read by
//! the engine (`engine::ban`), which compares the time: a ban ends by itself. Times are the engine's clock,
//! nanoseconds.

use crate::packet::Addr;

/// [`Ban::until_ns`] of a ban without end.
pub const FOR_EVER: u64 = u64::MAX;

/// Bans of single addresses at most, and of IPv6 prefixes of 64 bits.
pub const BANS_LEN: u32 = 2 << 20;
/// Bans of other prefixes at most.
pub const BAN_PREFIXES_LEN: u32 = 16384;
/// Words of the filter: 2 MiB, with a million bans four of them a word.
pub const BAN_FILTER_LEN: u32 = 1 << 18;

/// [`super::switches::Switches::bans`]: there are bans of single addresses.
pub const BANS_SINGLE: u32 = 1;
/// [`super::switches::Switches::bans`]: there are bans of prefixes.
pub const BANS_PREFIX: u32 = 2;

/// Who is banned: an IPv4 address, or an IPv6 prefix of 64 bits.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BanKey {
    /// As [`Addr::hi`].
    pub hi: u64,
    /// 4 or 6.
    pub family: u64,
}

impl BanKey {
    /// The key that a source is looked up by.
    #[inline(always)]
    pub const fn of(source: Addr, v6: bool) -> Self {
        Self { hi: source.hi, family: if v6 { 6 } else { 4 } }
    }

    /// Its word of the filter, and the bits there that are all set if it is banned: a Bloom filter (Bloom, 1970) within one
    /// word, four bits a key. Of sources that are not banned, one in some hundred has them too while a million others are.
    #[inline(always)]
    pub const fn filter(&self) -> (u32, u64) {
        // Who bans is trusted, so the hash needs no key; neighbours must not crowd, though.
        let mut h = (self.hi ^ self.family).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        h ^= h >> 32;
        h = h.wrapping_mul(0xd6e8_feb8_6659_fd93);
        h ^= h >> 32;
        let bits = 1 << (h >> 20 & 63) | 1 << (h >> 26 & 63) | 1 << (h >> 32 & 63) | 1 << (h >> 38 & 63);
        (h as u32 & (BAN_FILTER_LEN - 1), bits)
    }
}

/// A prefix as the kernel's LPM trie takes it: the family, then the address, most significant bits first.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BanPrefix {
    /// 4 or 6.
    pub family: u32,
    /// The address; the first four bytes for IPv4.
    pub address: [u8; 16],
}

impl BanPrefix {
    /// Bits of [`BanPrefix::family`]: what a prefix is longer by.
    pub const FAMILY_BITS: u32 = 32;

    /// The whole address of a source.
    #[inline(always)]
    pub const fn of(source: Addr, v6: bool) -> Self {
        let (hi, lo) = (source.hi.to_be_bytes(), source.lo.to_be_bytes());
        let address = [
            hi[0], hi[1], hi[2], hi[3], hi[4], hi[5], hi[6], hi[7], lo[0], lo[1], lo[2], lo[3], lo[4], lo[5],
            lo[6], lo[7],
        ];
        Self { family: if v6 { 6 } else { 4 }, address }
    }
}

/// What is known of a ban.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ban {
    /// When it ends; [`FOR_EVER`].
    pub until_ns: u64,
    /// When it began.
    pub since_ns: u64,
}

const _: () = assert!(size_of::<BanKey>() == 16);
const _: () = assert!(size_of::<BanPrefix>() == 20);
const _: () = assert!(size_of::<Ban>() == 16);
