//! Events: what is told of a packet that was dropped, or would have been if its service did not audit, while somebody listens.
//! Written by `proxy-ebpf` (`report.rs`), read by `dataplane::events`.

/// First bytes of a frame that an event carries: link, network and transport header of nearly every packet.
pub const SNAP_LEN: usize = 128;
/// Bytes of the ring that events wait in.
pub const EVENTS_BYTES: u32 = 1 << 20;
/// Mean time between events of one reason on one CPU, nanoseconds: 500 a second.
pub const EVENT_INTERVAL_NS: u64 = 2_000_000;
/// Events of one reason on one CPU that may come at once.
pub const EVENT_BURST: u64 = 64;

/// Bytes of the ring that offences wait in: events of packets over a limit, for the daemon.
pub const OFFENCES_BYTES: u32 = 1 << 18;

/// A packet that was dropped or audited.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When, the engine's clock in nanoseconds.
    pub time_ns: u64,
    /// Packets of the same reason on the same CPU that were dropped since the last event and had none of their own.
    pub skipped: u64,
    /// Index of the interface.
    pub interface: u32,
    /// Length of the frame.
    pub frame_len: u32,
    /// Rule id, if the reason has one.
    pub rule: u16,
    /// Number of the [`super::reason::Reason`].
    pub reason: u8,
    /// Bytes of `bytes` in use.
    pub snap_len: u8,
    /// Zero.
    pub _pad: u32,
    /// The frame's first bytes.
    pub bytes: [u8; SNAP_LEN],
}

/// How often events may come, of one reason on one CPU: a token bucket (GCRA), and what it held back.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttle {
    /// When the bucket is full again.
    pub full_ns: u64,
    /// Packets without an event since the last one.
    pub skipped: u64,
}

impl Throttle {
    /// Takes a token at `now_ns`; gives how many packets had none since the last that had, or `None` if this has none either.
    #[inline(always)]
    pub const fn admit(&mut self, now_ns: u64) -> Option<u64> {
        let from_ns = if self.full_ns > now_ns { self.full_ns } else { now_ns };
        if from_ns - now_ns > EVENT_INTERVAL_NS * (EVENT_BURST - 1) {
            self.skipped += 1;
            return None;
        }
        self.full_ns = from_ns + EVENT_INTERVAL_NS;
        let skipped = self.skipped;
        self.skipped = 0;
        Some(skipped)
    }
}

const _: () = assert!(size_of::<Event>() == 32 + SNAP_LEN);
const _: () = assert!(size_of::<Throttle>() == 16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_rate_and_nothing_is_lost_from_the_sum() {
        let mut throttle = Throttle::default();
        let (mut events, mut packets) = (0, 0);
        // 100,000 packets in a second.
        for n in 0..100_000u64 {
            if let Some(skipped) = throttle.admit(5_000_000_000 + n * 10_000) {
                events += 1;
                packets += 1 + skipped;
            }
        }
        assert!((EVENT_BURST + 499..=EVENT_BURST + 501).contains(&events), "{events}");
        assert_eq!(packets + throttle.skipped, 100_000);
        // A quiet while fills it again, and a clock that another CPU has read a little earlier does not matter.
        assert!(throttle.admit(9_000_000_000).is_some());
        assert!(throttle.admit(8_999_999_999).is_some());
    }
}
