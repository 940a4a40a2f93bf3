//! Two clocks at one moment: the kernel programs' own, which begins anew with each boot, and the wall's.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use proxy_common::abi::ban::FOR_EVER;

use crate::dataplane::{DataplaneError, now_ns};

/// Which boot this is, as the kernel names it.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Of which boot `mono_ns` is; all zero if the kernel does not tell.
    pub boot: [u8; 16],
    /// The clock that bans end by, nanoseconds.
    pub mono_ns: u64,
    /// The wall clock, nanoseconds since 1970.
    pub unix_ns: u64,
}

impl Clock {
    /// This moment.
    ///
    /// # Errors
    /// If there is no clock.
    pub fn now() -> Result<Self, DataplaneError> {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let boot = fs::read_to_string(BOOT_ID).map(|text| boot_id(&text)).unwrap_or_default();
        let unix_ns = u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX);
        Ok(Self { boot, mono_ns: now_ns()?, unix_ns })
    }

    /// An end that was noted at another moment, as this moment's kernel counts. Within one boot it is the same number,
    /// whatever became of the wall clock meanwhile; after another boot the wall clock says how much of it is left.
    pub fn here(&self, noted: &Self, until_ns: u64) -> u64 {
        if until_ns == FOR_EVER || (self.boot == noted.boot && self.boot != [0; 16]) {
            return until_ns;
        }
        let passed = i128::from(self.unix_ns) - i128::from(noted.unix_ns);
        let left = i128::from(until_ns) - i128::from(noted.mono_ns) - passed;
        // Not FOR_EVER by accident.
        u64::try_from((i128::from(self.mono_ns) + left).max(0)).unwrap_or(u64::MAX).min(FOR_EVER - 1)
    }

    /// A moment of the wall clock on the kernel's; before the boot is at the boot.
    pub fn mono_of(&self, unix_ns: u64) -> u64 {
        self.mono_ns.saturating_sub(self.unix_ns.saturating_sub(unix_ns))
    }

    /// A moment of the kernel's clock on the wall's.
    pub fn unix_of(&self, mono_ns: u64) -> u64 {
        let at = i128::from(self.unix_ns) + i128::from(mono_ns) - i128::from(self.mono_ns);
        u64::try_from(at.max(0)).unwrap_or(u64::MAX)
    }
}

/// The 32 hexadecimal digits of a UUID; zero if there are not so many.
fn boot_id(text: &str) -> [u8; 16] {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let number = if digits.len() == 32 { u128::from_str_radix(&digits, 16).unwrap_or_default() } else { 0 };
    number.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTED: Clock = Clock { boot: [1; 16], mono_ns: 1_000, unix_ns: 50_000 };

    #[test]
    fn a_wall_clock_that_is_set_changes_nothing_within_a_boot() {
        let now = Clock { mono_ns: 1_500, unix_ns: 9_000_000, ..NOTED };
        assert_eq!(now.here(&NOTED, 2_000), 2_000);
    }

    #[test]
    fn what_is_left_is_left_after_another_boot() {
        // It was noted with 1,000 to go; 400 have passed by the wall clock.
        let now = Clock { boot: [2; 16], mono_ns: 7, unix_ns: 50_400 };
        assert_eq!(now.here(&NOTED, 2_000), 607);
        let late = Clock { unix_ns: 60_000, ..now };
        assert!(late.here(&NOTED, 2_000) < late.mono_ns);
        assert_eq!(now.here(&NOTED, FOR_EVER), FOR_EVER);
        assert_ne!(now.here(&NOTED, FOR_EVER - 1), FOR_EVER);
    }

    #[test]
    fn boots_without_a_name_are_not_the_same() {
        let noted = Clock { boot: [0; 16], ..NOTED };
        let now = Clock { unix_ns: 50_400, ..noted };
        assert_eq!(now.here(&noted, 2_000), 1_600);
    }

    #[test]
    fn the_kernel_names_its_boot() {
        assert_ne!(Clock::now().expect("a clock").boot, [0; 16]);
        assert_eq!(boot_id("4dd8a3e2-33c2-4e0c-a1d3-0123456789ab\n")[..2], [0x4d, 0xd8]);
        assert_eq!(boot_id("none"), [0; 16]);
    }
}
