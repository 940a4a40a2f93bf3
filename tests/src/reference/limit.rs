//! Token buckets in whole numbers: a level is kept in tokens times the period, so that nothing is ever rounded.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tollgate::policy::model::{Bucket, Limit, LimitId, Scope, Unit};

/// Where a limit is used: its total buckets belong to that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Index of a service in the policy.
    Service(usize),
    /// Echo requests have total buckets of their own, as a service has.
    Ping,
}

/// What a packet takes from the buckets.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Bytes of the frame.
    pub bytes: usize,
    /// TCP SYN without ACK.
    pub opens: bool,
}

/// Whose bucket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Owner {
    /// First address of a network and its length, of all places that use the limit.
    Network(IpAddr, u8),
    Total(Place),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct BucketKey {
    limit: LimitId,
    /// Index in [`Limit::buckets`].
    bucket: usize,
    owner: Owner,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    /// Tokens times [`Bucket::per_ns`].
    scaled: u128,
    at_ns: u64,
}

/// Every bucket that a packet ever touched. One that none did is full.
#[derive(Debug, Default)]
pub struct Buckets(HashMap<BucketKey, Level>);

impl Buckets {
    /// Charges the buckets of a limit in the order of the page. The unit of the first that is short ends it: those
    /// before it stay charged, those after it are not touched.
    pub fn charge(
        &mut self,
        id: LimitId,
        limit: &Limit,
        place: Place,
        source: IpAddr,
        cost: Cost,
        now_ns: u64,
    ) -> Option<Unit> {
        let mut order: Vec<(usize, &Bucket)> = limit.buckets.iter().enumerate().collect();
        order.sort_by_key(|(_, bucket)| (scope_rank(bucket.scope), unit_rank(bucket.unit)));
        for (index, bucket) in order {
            let owner = match bucket.scope {
                Scope::Source { v6_len } => network(source, 32, v6_len),
                Scope::Prefix { v4_len, v6_len } => network(source, v4_len, v6_len),
                Scope::Service => Owner::Total(place),
            };
            let tokens = match bucket.unit {
                Unit::Connections => u128::from(cost.opens),
                Unit::Packets => 1,
                Unit::Bytes => cost.bytes as u128,
            };
            if !self.take(BucketKey { limit: id, bucket: index, owner }, bucket, tokens, now_ns) {
                return Some(bucket.unit);
            }
        }
        None
    }

    /// Refills a bucket to now and takes `tokens` if it has as many. One that is short loses nothing.
    fn take(&mut self, key: BucketKey, bucket: &Bucket, tokens: u128, now_ns: u64) -> bool {
        let period = u128::from(bucket.per_ns);
        let full = u128::from(bucket.burst) * period;
        let level = self.0.entry(key).or_insert(Level { scaled: full, at_ns: now_ns });
        let passed_ns = u128::from(now_ns.saturating_sub(level.at_ns));
        let refill = passed_ns.saturating_mul(u128::from(bucket.tokens));
        level.scaled = level.scaled.saturating_add(refill).min(full);
        level.at_ns = level.at_ns.max(now_ns);
        match level.scaled.checked_sub(tokens * period) {
            Some(left) => {
                level.scaled = left;
                true
            }
            None => false,
        }
    }
}

/// Per source, per prefix, in total.
fn scope_rank(scope: Scope) -> u8 {
    match scope {
        Scope::Source { .. } => 0,
        Scope::Prefix { .. } => 1,
        Scope::Service => 2,
    }
}

/// Connections, packets, bytes.
fn unit_rank(unit: Unit) -> u8 {
    match unit {
        Unit::Connections => 0,
        Unit::Packets => 1,
        Unit::Bytes => 2,
    }
}

fn network(source: IpAddr, v4_len: u8, v6_len: u8) -> Owner {
    match source {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(v4_len)).unwrap_or(0);
            Owner::Network(Ipv4Addr::from(u32::from(address) & mask).into(), v4_len)
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(v6_len)).unwrap_or(0);
            Owner::Network(Ipv6Addr::from(u128::from(address) & mask).into(), v6_len)
        }
    }
}
