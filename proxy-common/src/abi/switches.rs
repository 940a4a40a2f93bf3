//! What can be switched while programs run: one element, read by the programs before they look at tables that are mostly empty.

/// The one element of the `SWITCHES` map. Written by `dataplane::switches`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Switches {
    /// Until when somebody listens to events, the engine's clock in nanoseconds: a listener that dies is forgotten. 0: nobody.
    pub listening_until_ns: u64,
    /// `BANS_*` of [`super::ban`].
    pub bans: u32,
    /// Zero.
    pub _pad: u32,
}

const _: () = assert!(size_of::<Switches>() == 16);
