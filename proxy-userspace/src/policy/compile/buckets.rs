//! From limits to the buckets of [`proxy_common::abi::limit`].
//!
//! Called by [`super::compile`]. Buckets of sources and prefixes belong to the limit, so services with the same
//! limit point to the same buckets; a bucket for everyone belongs to the service, which then has a range of its own.

use std::collections::HashMap;

use proxy_common::abi::limit::{
    Bucket, MAX_BUCKETS, MAX_DEPTH_NS, UNIT_BYTES, UNIT_CONNECTIONS, UNIT_PACKETS,
};
use sha2::{Digest, Sha256};

use super::CompileError;
use crate::policy::model::{self, Limit, LimitId, Scope, Unit};

/// More tokens than one frame takes: its bytes, also of a merged one (BIG TCP ends at 512 KiB).
const MOST_TOKENS: u64 = 1 << 20;

/// What limits answers, to a source and in total.
const ANSWERS: [model::Bucket; 2] =
    [answers(Scope::Source { v6_len: 64 }, 10, 20), answers(Scope::Service, 1000, 1000)];

const fn answers(scope: Scope, tokens: u64, burst: u64) -> model::Bucket {
    model::Bucket { scope, unit: Unit::Packets, tokens, per_ns: 1_000_000_000, burst }
}

/// Whose packets a limit is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Owner<'a> {
    /// A service, by name.
    Service(&'a str),
    /// Echo requests.
    Ping,
    /// Answers to what is rejected.
    Answers,
}

/// Where a limit's buckets are in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) count: u8,
}

/// The table of buckets, as far as it is filled.
pub(super) struct Buckets<'a> {
    limits: &'a [Limit],
    table: Vec<Bucket>,
    /// Ranges by limit, and by owner where the limit has a bucket for everyone.
    ranges: HashMap<(LimitId, Option<Owner<'a>>), Range>,
}

impl<'a> Buckets<'a> {
    pub(super) fn new(limits: &'a [Limit]) -> Self {
        Self { limits, table: Vec::new(), ranges: HashMap::new() }
    }

    /// The buckets of a limit for an owner; none for no limit.
    pub(super) fn range(&mut self, limit: Option<LimitId>, owner: Owner<'a>) -> Result<Range, CompileError> {
        let Some((id, limit)) = limit.and_then(|id| Some((id, self.limits.get(id.0)?))) else {
            return Ok(Range::default());
        };
        let own = limit.buckets.iter().any(|bucket| bucket.scope == Scope::Service);
        let key = (id, own.then_some(owner));
        if let Some(range) = self.ranges.get(&key) {
            return Ok(*range);
        }
        let too_many = |buckets: usize| CompileError::TooManyBuckets { buckets };
        let first = u16::try_from(self.table.len()).map_err(|_| too_many(self.table.len()))?;
        let count = u8::try_from(limit.buckets.len()).ok().filter(|count| u32::from(*count) <= MAX_BUCKETS);
        let count = count.ok_or_else(|| too_many(limit.buckets.len()))?;
        self.table.extend(limit.buckets.iter().map(|bucket| compile(&limit.name, bucket, owner)));
        let range = Range { first, count };
        self.ranges.insert(key, range);
        Ok(range)
    }

    /// The buckets of answers to rejected packets, which no policy changes: so many a second that a port scan by hand or a
    /// misconfigured client is answered, and so few that nobody gains by sending under a forged source.
    pub(super) fn of_answers(&mut self) -> Result<Range, CompileError> {
        let too_many = CompileError::TooManyBuckets { buckets: self.table.len() };
        let first = u16::try_from(self.table.len()).map_err(|_| too_many)?;
        self.table.extend(ANSWERS.iter().map(|bucket| compile("answers", bucket, Owner::Answers)));
        Ok(Range { first, count: ANSWERS.len() as u8 })
    }

    pub(super) fn into_table(self) -> Vec<Bucket> {
        self.table
    }
}

fn compile(limit: &str, bucket: &model::Bucket, owner: Owner<'_>) -> Bucket {
    let (mask_v4, mask_v6) = match bucket.scope {
        Scope::Source { v6_len } => (upper(32), upper(v6_len)),
        Scope::Prefix { v4_len, v6_len } => (upper(v4_len), upper(v6_len)),
        Scope::Service => (0, 0),
    };
    let (cost, shift) = cost(bucket.tokens, bucket.per_ns);
    Bucket {
        cost,
        depth_ns: depth_ns(bucket),
        mask_v4,
        mask_v6,
        salt: salt(limit, bucket, owner),
        shift,
        unit: match bucket.unit {
            Unit::Packets => UNIT_PACKETS,
            Unit::Bytes => UNIT_BYTES,
            Unit::Connections => UNIT_CONNECTIONS,
        },
        _pad: [0; 3],
    }
}

/// The upper bits of a number.
fn upper(bits: u8) -> u64 {
    !u64::MAX.checked_shr(u32::from(bits)).unwrap_or(0)
}

/// Nanoseconds a token times 2^shift, and the shift: the largest with which the cost of [`MOST_TOKENS`] still is a
/// number of 64 bits. So what is lost by rounding down is below one part in 2^40 of any rate that is allowed.
fn cost(tokens: u64, per_ns: u64) -> (u64, u32) {
    let most = u64::MAX / MOST_TOKENS;
    let at = |shift: u32| (u128::from(per_ns) << shift) / u128::from(tokens.max(1));
    let fitting = (0..u64::BITS).rev().find_map(|shift| {
        let cost = u64::try_from(at(shift)).ok().filter(|cost| *cost <= most)?;
        Some((cost, shift))
    });
    // Nothing fits at more than 4.8 hours a token; the bucket is then as deep as can be and as slow.
    fitting.unwrap_or((most, 0))
}

/// Time in which the burst refills, rounded up so that the whole burst fits.
fn depth_ns(bucket: &model::Bucket) -> u64 {
    let time =
        (u128::from(bucket.burst) * u128::from(bucket.per_ns)).div_ceil(u128::from(bucket.tokens.max(1)));
    u64::try_from(time).unwrap_or(u64::MAX).min(MAX_DEPTH_NS)
}

/// What tells the cells of a bucket from those of others. It follows from names alone, not from rates or from the
/// rest of the policy, so that the state of a bucket outlives a change of either. A change of this text would let
/// every source have one more burst when the daemon is replaced.
fn salt(limit: &str, bucket: &model::Bucket, owner: Owner<'_>) -> u64 {
    let unit = match bucket.unit {
        Unit::Packets => "packets",
        Unit::Bytes => "bytes",
        Unit::Connections => "connections",
    };
    // Names have no spaces, so no two descriptions are the same text.
    let description = match (bucket.scope, owner) {
        (Scope::Service, Owner::Answers) => format!("all answers {unit}"),
        (_, Owner::Answers) => format!("answers of a source {unit}"),
        (Scope::Source { v6_len }, _) => format!("limit {limit} source 32 {v6_len} {unit}"),
        (Scope::Prefix { v4_len, v6_len }, _) => format!("limit {limit} prefix {v4_len} {v6_len} {unit}"),
        (Scope::Service, Owner::Service(service)) => format!("service {service} limit {limit} {unit}"),
        (Scope::Service, Owner::Ping) => format!("plumbing ping limit {limit} {unit}"),
    };
    let digest = Sha256::digest(description.as_bytes());
    digest.iter().take(8).fold(0, |salt, byte| salt << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn bucket(scope: Scope, tokens: u64, per_ns: u64, burst: u64) -> model::Bucket {
        model::Bucket { scope, unit: Unit::Packets, tokens, per_ns, burst }
    }

    #[test]
    fn costs_are_exact_and_never_overflow() {
        for (tokens, per_ns) in [
            (1, 3600 * SECOND),
            (3, SECOND),
            (10, 60 * SECOND),
            (50_000, SECOND),
            (100_000_000, SECOND),
            (1_000_000_000_000, SECOND),
            (16_384, 3600 * SECOND),
        ] {
            let (cost, shift) = cost(tokens, per_ns);
            assert!(cost.checked_mul(MOST_TOKENS).is_some(), "{tokens}");
            let exact = per_ns as f64 / tokens as f64;
            let kept = cost as f64 / 2f64.powi(shift as i32);
            assert!((exact - kept).abs() <= exact / 2f64.powi(40), "{tokens}: {exact} {kept}");
        }
    }

    #[test]
    fn masks_follow_the_scope() {
        let compiled = |scope| compile("web", &bucket(scope, 10, SECOND, 20), Owner::Service("a"));
        let source = compiled(Scope::Source { v6_len: 64 });
        assert_eq!((source.mask_v4, source.mask_v6), (0xffff_ffff << 32, u64::MAX));
        let prefix = compiled(Scope::Prefix { v4_len: 24, v6_len: 48 });
        assert_eq!((prefix.mask_v4, prefix.mask_v6), (0xff_ffff << 40, 0xffff_ffff_ffff << 16));
        let all = compiled(Scope::Service);
        assert_eq!((all.mask_v4, all.mask_v6), (0, 0));
        assert_eq!(all.depth_ns, 2 * SECOND);
    }

    #[test]
    fn services_share_the_buckets_of_their_limit_and_have_their_own_in_total() {
        let source = bucket(Scope::Source { v6_len: 64 }, 10, SECOND, 20);
        let total = bucket(Scope::Service, 10, SECOND, 20);
        let limits = [
            Limit { name: "shared".to_owned(), buckets: vec![source], ban: None },
            Limit { name: "both".to_owned(), buckets: vec![source, total], ban: None },
        ];
        let mut buckets = Buckets::new(&limits);
        let mut range = |limit: usize, owner| buckets.range(Some(LimitId(limit)), owner).expect("a range");
        let [a, b, ping] = [Owner::Service("a"), Owner::Service("b"), Owner::Ping];
        assert_eq!(range(0, a), range(0, b));
        assert_eq!(range(0, a), range(0, ping));
        let both = [range(1, a), range(1, b), range(1, ping)];
        assert_eq!(range(1, a), both[0]);
        let table = buckets.into_table();
        let salts = |nth: usize| both.map(|range| table[usize::from(range.first) + nth].salt);
        assert!(salts(0).iter().all(|salt| *salt == salts(0)[0]), "sources belong to the limit");
        let totals = salts(1);
        assert!(totals[0] != totals[1] && totals[1] != totals[2] && totals[0] != totals[2]);
        assert_eq!(table.len(), 7);
    }

    #[test]
    fn salts_are_pinned() {
        let of = |scope, owner| salt("web", &bucket(scope, 10, SECOND, 20), owner);
        let found = [
            of(Scope::Source { v6_len: 64 }, Owner::Ping),
            of(Scope::Prefix { v4_len: 24, v6_len: 48 }, Owner::Ping),
            of(Scope::Service, Owner::Service("a")),
            of(Scope::Service, Owner::Ping),
            of(Scope::Source { v6_len: 64 }, Owner::Answers),
            of(Scope::Service, Owner::Answers),
        ];
        assert_eq!(
            found.map(|salt| format!("{salt:016x}")),
            [
                "1fe770f33a11da03",
                "651f673d1dbdfe50",
                "23b2e894f95063ef",
                "fc1d50d39fba8ee4",
                "a71347040125ea2f",
                "2da205405edc0394"
            ]
        );
    }
}
