//! The engine: a host that sends and receives for a while, under a policy with something of everything.
//!
//! Asked of each packet that arrives: the sentences of [`crate::rules`], and what the reference interpreter of the tests,
//! which was written from docs/policy.md alone, says of the same packet.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use arbitrary::{Result, Unstructured};
use proxy_common::abi::counter::{COUNTERS_LEN, index};
use proxy_common::abi::reason::{MAX_REASONS, RULE_REASONS, Reason, Verdict};
use proxy_common::engine::Outcome;
use proxy_common::packet::{Fragment, PacketInfo, Slice, parse};
use tollgate::policy::Policy;
use tollgate::policy::compile::{Compiled, RuleIds, compile, entry_for};
use tollgate::policy::model::DefaultAction;
use tollgate::simulate::Simulation;

use crate::frame;
use crate::reference::Reference;
use crate::rules::{self, Past};

/// The interfaces of the policy, one of them by a pattern.
pub const INTERFACES: [&str; 3] = ["eth0", "wan0", "br-7"];
/// Packets of a run.
const MOST_PACKETS: usize = 128;
/// The limiter forgets nothing within this time, and says nothing of more.
const LONGEST_NS: u64 = 4 * 3600 * SECOND;
const SECOND: u64 = 1_000_000_000;
/// What a packet that can't be parsed is dropped for.
const BROKEN: [Reason; 8] = [
    Reason::MalformedIpv4,
    Reason::MalformedIpv6,
    Reason::MalformedTcp,
    Reason::MalformedUdp,
    Reason::MalformedIcmp,
    Reason::TcpFlags,
    Reason::Ipv6HeaderChain,
    Reason::FragmentMalformed,
];
/// IPv6 headers that the engine walks on from and the reference does not, or not always: short authentication headers, HIP, Shim6.
const READ_OTHERWISE: [u8; 3] = [51, 139, 140];
/// What may pass between two packets: around rates, timeouts and the life of a fragment.
const STEPS_NS: [u64; 16] = [
    0,
    1,
    1_000,
    10_000_000,
    99_999_999,
    100_000_000,
    500_000_000,
    SECOND - 1,
    SECOND,
    2 * SECOND + 1,
    5 * SECOND,
    10 * SECOND + 1,
    30 * SECOND,
    30 * SECOND + 1,
    600 * SECOND,
    1800 * SECOND,
];

/// Runs the history that the bytes stand for.
///
/// # Panics
/// If a packet is decided otherwise than the policy says.
pub fn run(data: &[u8]) {
    let mut u = Unstructured::new(data);
    // Running out of bytes ends the history.
    let _ = history(&mut u);
}

struct World {
    policy: Policy,
    compiled: Compiled,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let text = include_str!("../engine.toml");
        let policy = tollgate::policy::parse(text, Path::new("engine.toml")).expect("a good policy");
        let rules = RuleIds::assign(&[], &|_| false, &policy).expect("rule ids");
        let compiled = compile(&policy, &INTERFACES.map(str::to_owned), &rules).expect("tables");
        World { policy, compiled }
    })
}

fn history(u: &mut Unstructured<'_>) -> Result<()> {
    let World { policy, compiled } = world();
    let at = usize::from(u.arbitrary::<u8>()?) % INTERFACES.len();
    let entry = entry_for(policy, INTERFACES[at]).expect("an entry");
    let entry = &policy.interfaces[entry];
    let mut simulation = Simulation::new(compiled, at);
    let mut reference = Reference::new(policy, INTERFACES[at]).expect("an entry");
    let mut counters = Counters::default();
    let mut past = Past::default();
    let mut last = Vec::new();
    let mut now_ns = SECOND;

    for _ in 0..MOST_PACKETS {
        if u.is_empty() {
            break;
        }
        let what: u8 = u.arbitrary()?;
        now_ns += STEPS_NS[usize::from(what >> 4)];
        if now_ns > LONGEST_NS {
            break;
        }
        let frame = match what & 7 {
            0..=3 => frame::built(u, &last)?,
            4 => {
                let len = u.arbitrary::<u8>()?;
                u.bytes(usize::from(len).min(u.len()))?.to_vec()
            }
            5 => last.clone(),
            _ => frame::answer(u, &last)?,
        };
        let packet = parse(&Slice(&frame));
        if what & 8 != 0 {
            simulation.egress(&frame, now_ns);
            if let Ok(p) = packet {
                // It may begin a flow that the reference does not see.
                if extensions(&frame, &p).any(|header| READ_OTHERWISE.contains(&header)) {
                    break;
                }
                past.sends(&p, now_ns);
                reference.egress(&frame, now_ns);
            }
        } else {
            let outcome = simulation.ingress(&frame, now_ns);
            counters.note(outcome, frame.len());
            match packet {
                Ok(p) => {
                    rules::check(policy, entry, &past, &p, outcome.reason);
                    if !arrives(entry.default, compiled, &mut reference, &p, (&frame, now_ns), outcome, &past)
                    {
                        break;
                    }
                    past.first_fragment |= p.fragment == Fragment::First && passes(outcome);
                }
                Err(reason) => assert_eq!(outcome, Outcome::plain(reason), "no packet, and yet decided on"),
            }
        }
        last = frame;
    }
    counters.check();
    Ok(())
}

fn passes(outcome: Outcome) -> bool {
    matches!(outcome.verdict(), Verdict::Pass)
}

/// The reference says the same of the packet. False if it holds the packet for broken: what the page leaves open there
/// it may read more strictly, and from then on the two remember different things.
fn arrives(
    default: DefaultAction,
    compiled: &Compiled,
    reference: &mut Reference,
    p: &PacketInfo,
    (frame, now_ns): (&[u8], u64),
    outcome: Outcome,
    past: &Past,
) -> bool {
    let rule = if outcome.reason.has_rule() { compiled.rule_name(outcome.rule) } else { None };
    assert_eq!(rule.is_some(), outcome.reason.has_rule(), "{outcome:?} counts under no rule");
    let (reason, expected) = reference.ingress(frame, now_ns);
    let answers = ((outcome.reason, rule), (reason, expected.as_deref()));
    if answers.0 == answers.1 {
        return true;
    }
    if BROKEN.contains(&reason) || left_open(default, frame, p, (outcome.reason, reason), past, now_ns) {
        return false;
    }
    assert_eq!(answers.0, answers.1, "engine, then reference, at {now_ns} ns: {p:?}");
    true
}

/// Where the page can be read in two ways, and engine and reference do, or where the engine is coarser than the page.
fn left_open(
    default: DefaultAction,
    frame: &[u8],
    p: &PacketInfo,
    (engine, reference): (Reason, Reason),
    past: &Past,
    now_ns: u64,
) -> bool {
    // HIP and Shim6: the engine takes them for extension headers and walks on, the reference for what the packet carries.
    if p.v6 && extensions(frame, p).any(|header| [139, 140].contains(&header)) {
        return true;
    }
    // A whole packet with a fragment header (RFC 6946): whether step 2 is for it.
    let discovery = [
        Reason::NeighbourDiscovery,
        Reason::NeighbourDiscoveryForged,
        Reason::RouterAdvertisement,
        Reason::MulticastMembership,
    ];
    if discovery.contains(&engine) && !discovery.contains(&reference) && extensions(frame, p).any(|h| h == 44)
    {
        return true;
    }
    // A quoted packet with extension headers: the engine does not walk them, and drops the error.
    let quoted = frame.get(p.transport_at + 8 + 6).copied();
    if p.v6 && engine == Reason::IcmpErrorUnknown && reference == Reason::IcmpError {
        return quoted.is_some_and(|next| ![6, 17, 58].contains(&next));
    }
    // Where the default is to accept, the engine takes what no service names for an answer too; the page speaks of services.
    if engine == Reason::IcmpError && reference == Reason::IcmpErrorUnknown {
        return default == DefaultAction::Accept;
    }
    // The engine takes note of a flow's packets once a second, and of TCP that this host sends only what opens and closes: a
    // flow may end earlier than the page says. The shortest timeout of the policy is two seconds.
    let aged = past.first_sent_ns.is_some_and(|first_ns| now_ns - first_ns >= SECOND);
    if [Reason::Reply, Reason::IcmpError].contains(&reference) && aged {
        return !matches!(engine.verdict(), Verdict::Pass) || engine == Reason::DefaultAccept;
    }
    // A FIN of this host brings a flow back that has timed out, for the time of one that closes.
    engine == Reason::Reply && past.has_closed(p)
}

/// The kinds of the IPv6 headers between the first and what the packet carries.
fn extensions<'a>(frame: &'a [u8], p: &'a PacketInfo) -> impl Iterator<Item = u8> + 'a {
    let tags = frame
        .chunks(2)
        .skip(6)
        .step_by(2)
        .take(2)
        .take_while(|kind| **kind == [0x81, 0] || **kind == [0x88, 0xa8] || **kind == [0x91, 0]);
    let network_at = 14 + 4 * tags.count();
    let mut at = network_at + 40;
    let mut next = frame.get(network_at + 6).copied().unwrap_or_default();
    std::iter::from_fn(move || {
        if !p.v6 || at >= p.transport_at {
            return None;
        }
        let kind = next;
        let units = usize::from(*frame.get(at + 1)?);
        next = *frame.get(at)?;
        at += match kind {
            44 => 8,
            51 => (units + 2) * 4,
            _ => (units + 1) * 8,
        };
        Some(kind)
    })
}

/// The counters as the kernel program keeps them: packets and bytes by index.
#[derive(Default)]
struct Counters {
    cells: BTreeMap<u32, (u64, u64)>,
    seen: (u64, u64),
    passed: u64,
}

impl Counters {
    fn note(&mut self, outcome: Outcome, bytes: usize) {
        for sum in [self.cells.entry(index(outcome.reason, outcome.rule)).or_default(), &mut self.seen] {
            sum.0 += 1;
            sum.1 += bytes as u64;
        }
        self.passed += u64::from(passes(outcome));
    }

    /// The sum over reasons is what was seen, and what passed is the sum over reasons that pass.
    fn check(&self) {
        let (mut sum, mut passed) = ((0, 0), 0);
        for (index, (packets, bytes)) in &self.cells {
            assert!(*index < COUNTERS_LEN, "there is no counter {index}");
            let number = if *index < MAX_REASONS { *index } else { (index - MAX_REASONS) % RULE_REASONS };
            let reason = Reason::from_number(number as u8);
            assert_eq!(reason as u32, number, "counter {index} is of no reason");
            sum = (sum.0 + packets, sum.1 + bytes);
            passed += if matches!(reason.verdict(), Verdict::Pass) { *packets } else { 0 };
        }
        assert_eq!(
            (sum, passed),
            (self.seen, self.passed),
            "the counters of all reasons are not what was seen"
        );
    }
}
