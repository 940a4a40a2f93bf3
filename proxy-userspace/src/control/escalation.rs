//! Who is banned for exceeding a limit: counts what the kernel tells of packets over limits that say so, and bans a source once
//! it is proven to be who it says.
//!
//! Whoever forges a source address could have anybody banned. So a count is not enough: the kernel must know connections of the
//! source that have completed TCP's handshake. What is over the limit is then either part of one of them, which a forger
//! would have to guess, or the source has opened so many that what it opens in excess is its own.
//!
//! Called by the daemon's loop. Without a daemon limits hold all the same, and nobody is banned for them.

use std::collections::HashMap;
use std::future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use proxy_common::abi::event::Event;
use proxy_common::packet::protocol;
use proxy_common::packet::transport::{ACK, SYN};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::daemon::Daemon;
use super::lock;
use crate::bans::Protected;
use crate::dataplane::{DataplaneError, Offences, Pins, completed, read_rules};
use crate::observe::drops::{ip, packet_of};
use crate::observe::heavy::Heavy;
use crate::policy::Policy;
use crate::policy::model::{Escalation, Scope, Service, Transport, Unit};
use crate::policy::units::{Target, TimeSpan};

/// Offences are counted within windows of so long.
const WINDOW: Duration = Duration::from_secs(60);
/// So many sources are counted at a time: those that offend most.
const ROOM: usize = 1024;
/// Offences that are read before the daemon looks at anything else.
const MOST_AT_ONCE: usize = 1000;

/// A source, and the rule whose limit it exceeds.
type Key = (IpNet, u16);

/// A source that has offended often enough to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Suspect {
    source: IpNet,
    rule: u16,
    /// The other end of a connection that its last offence says it belongs to.
    of: Option<(IpAddr, u16)>,
}

/// The policy in force, if it bans who exceeds a limit.
#[derive(Debug)]
pub(super) struct Watched {
    policy: Arc<Policy>,
    /// By rule id: the service, by its place in the policy, and what its limit says.
    rules: HashMap<u16, (usize, Escalation)>,
}

impl Watched {
    /// With the ids that the rules have in the kernel.
    fn new(policy: Arc<Policy>, pins: &Pins) -> Result<Self, DataplaneError> {
        let names = read_rules(pins)?;
        let id = |name: &str| names.iter().position(|one| one.as_deref() == Some(name));
        let services = policy.services.iter().enumerate().filter_map(|(place, service)| {
            let escalation = policy.escalation(service)?;
            Some((u16::try_from(id(&service.name)?).ok()?, (place, escalation)))
        });
        let rules = services.collect();
        Ok(Self { policy, rules })
    }
}

/// What the kernel tells of, and the counts of it.
#[derive(Debug)]
pub(super) struct Counts {
    offences: Option<AsyncFd<Offences>>,
    tally: Tally,
}

/// How often who has offended within the window.
#[derive(Debug)]
struct Tally {
    watched: Option<Arc<Watched>>,
    heavy: Heavy<Key, ()>,
    since: Instant,
}

impl Counts {
    pub(super) fn new() -> Self {
        Self { offences: None, tally: Tally::new() }
    }

    /// Takes note of the policy in force, and opens the ring that its programs write to. Called again and again; nearly always
    /// nothing is new.
    pub(super) fn follow(&mut self, daemon: &Daemon) {
        let pins = &daemon.places.pins;
        let bans = |policy: &Arc<Policy>| policy.services.iter().any(|one| policy.escalation(one).is_some());
        let Some(policy) = daemon.last_applied().filter(bans) else {
            self.tally.watched = None;
            return;
        };
        let is_known = self.tally.watched.as_ref().is_some_and(|known| Arc::ptr_eq(&known.policy, &policy));
        if is_known && self.offences.as_ref().is_some_and(|one| one.get_ref().is_in_force(pins)) {
            return;
        }
        match Watched::new(policy, pins).and_then(|watched| Ok((watched, Offences::open(pins)?))) {
            Ok((watched, offences)) => {
                self.tally.watched = Some(Arc::new(watched));
                self.offences = offences.and_then(|one| {
                    // SAFETY: the ring owns its descriptor, which stays the same and open until the ring is dropped.
                    let fd = unsafe { AsyncFd::register_with_interest(one, Interest::READABLE) };
                    fd.inspect_err(|error| log::warn!("waiting for offences: {error}")).ok()
                });
            }
            Err(error) => log::warn!("nobody is banned for exceeding a limit: {error}"),
        }
    }

    /// Waits for offences, and gives the sources that have offended often enough. Never ready while there is no ring. To be
    /// dropped before it is ready loses nothing.
    pub(super) async fn suspects(&mut self) -> Option<(Arc<Watched>, Vec<Suspect>)> {
        let Some(offences) = &mut self.offences else { return future::pending().await };
        let mut ready = offences.readable_mut().await.ok()?;
        self.tally.turn();
        let mut suspects = Vec::new();
        for _ in 0..MOST_AT_ONCE {
            let Some(event) = ready.get_inner_mut().next() else {
                ready.clear_ready();
                break;
            };
            suspects.extend(self.tally.judge(&event));
        }
        let watched = self.tally.watched.clone().filter(|_| !suspects.is_empty())?;
        Some((watched, suspects))
    }
}

impl Tally {
    fn new() -> Self {
        Self { watched: None, heavy: Heavy::new(ROOM), since: Instant::now() }
    }

    /// Begins another window, if it is time to.
    fn turn(&mut self) {
        if self.since.elapsed() >= WINDOW {
            self.heavy.clear();
            self.since = Instant::now();
        }
    }

    /// Counts an offence; gives its source if that has offended so often.
    fn judge(&mut self, event: &Event) -> Option<Suspect> {
        let (_, escalation) = *self.watched.as_ref()?.rules.get(&event.rule)?;
        // UDP proves nobody, so nobody is banned for it, whatever connections are open.
        let offence = packet_of(event).filter(|packet| packet.protocol == protocol::TCP)?;
        let source = ip(offence.source, offence.v6);
        // A packet that opens a connection is of none yet.
        let opens = offence.tcp_flags & (SYN | ACK) == SYN;
        let of = (!opens).then_some((source, offence.source_port));
        let suspect = Suspect { source: Target::accountable(source), rule: event.rule, of };
        self.note(suspect, escalation.after).then_some(suspect)
    }

    /// Counts an offence; true at each `after`th of a source. The kernel's throttle and the bounded memory make counts too
    /// low, never too high.
    fn note(&mut self, suspect: Suspect, after: u64) -> bool {
        let key = (suspect.source, suspect.rule);
        self.heavy.add(key, 1, ());
        self.heavy.get(&key).is_some_and(|entry| (entry.count - entry.error).is_multiple_of(after))
    }
}

impl Daemon {
    /// Bans those of the suspects that are who they say.
    pub(super) async fn escalate(self: &Arc<Self>, watched: Arc<Watched>, suspects: Vec<Suspect>) {
        let daemon = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            for suspect in suspects {
                if let Err(why) = daemon.escalate_one(&watched, suspect) {
                    log::warn!("{} exceeds a limit and is not banned: {why}", suspect.source);
                }
            }
        });
        if let Err(error) = done.await {
            log::warn!("banning who exceeds a limit: {error}");
        }
    }

    fn escalate_one(&self, watched: &Watched, suspect: Suspect) -> Result<(), String> {
        let Watched { policy, rules } = watched;
        let found = rules.get(&suspect.rule);
        let found = found.and_then(|(place, ban)| Some((policy.services.get(*place)?, *ban)));
        let Some((service, escalation)) = found else { return Ok(()) };
        if !is_proven(policy, service, suspect).map_err(|error| error.to_string())? {
            log::debug!("{} exceeds the limit of {}, and may be forged", suspect.source, service.name);
            return Ok(());
        }
        let target = Target { net: suspect.source, bare: false };
        let protected = Protected::without_session().map_err(|error| error.to_string())?;
        let net = protected.resolve(&target, false)?.net();
        let why = why(policy, service, escalation);
        let _change = lock::change(&self.places.run_dir).map_err(|error| error.to_string())?;
        let time = TimeSpan { ns: escalation.for_ns };
        self.bans.ban(&[net], Some(time), &why).map_err(|error| error.to_string())?;
        log::info!("banned {net} for {time}: {why}");
        Ok(())
    }
}

/// True if the suspect has done itself what it is suspected of.
fn is_proven(policy: &Policy, service: &Service, suspect: Suspect) -> std::io::Result<bool> {
    let is_port = |port| {
        let mut ports = service.ports.iter();
        ports.any(|range| range.transport == Transport::Tcp && (range.first..=range.last).contains(&port))
    };
    let completed = completed(&suspect.source, is_port)?;
    let is_part = suspect.of.is_some_and(|of| completed.contains(&of));
    Ok(is_part || completed.len() as u64 >= many(policy, service))
}

/// So many connections at a time are more than others could have a source open: half of what the limit lets in at once.
fn many(policy: &Policy, service: &Service) -> u64 {
    let buckets = policy.limit_of(service).map(|limit| limit.buckets.as_slice()).unwrap_or_default();
    let own = buckets.iter().filter(|bucket| matches!(bucket.scope, Scope::Source { .. }));
    let bursts = own.filter(|bucket| bucket.unit != Unit::Bytes).map(|bucket| bucket.burst);
    bursts.min().map_or(u64::MAX, |burst| (burst / 2).max(2))
}

fn why(policy: &Policy, service: &Service, escalation: Escalation) -> String {
    let limit = policy.limit_of(service).map_or("", |limit| limit.name.as_str());
    format!("{} packets over the limit {limit} of {} within a minute", escalation.after, service.name)
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;
    use proxy_common::abi::event::SNAP_LEN;
    use proxy_common::abi::reason::Reason;

    use super::*;

    fn suspect(source: &str) -> Suspect {
        Suspect { source: Target::accountable(source.parse().expect("an address")), rule: 3, of: None }
    }

    #[test]
    fn a_source_is_suspected_at_each_so_many() {
        let mut counts = Tally::new();
        let told: Vec<bool> = (0..9).map(|_| counts.note(suspect("192.0.2.1"), 4)).collect();
        assert_eq!(told, [false, false, false, true, false, false, false, true, false]);
        // All of a /64 is one source, and a rule is by itself.
        assert!(!counts.note(suspect("2001:db8::1"), 2));
        assert!(counts.note(suspect("2001:db8::2"), 2));
        assert!(!counts.note(Suspect { rule: 4, ..suspect("2001:db8::2") }, 2));
    }

    #[test]
    fn of_tcp_alone_and_what_opens_a_connection_is_of_none() {
        let text = "version = 1\n[interfaces.eth0]\n[limits.l]\nper-source = { packets = \"100/s\" }\n\
                    exceed = { ban = \"10m\", after = 1 }\n\
                    [services.s]\nports = [\"tcp/80\", \"udp/80\"]\nallow = \"any\"\nlimit = \"l\"\n";
        let policy = crate::policy::parse(text, std::path::Path::new("p.toml")).expect("a policy");
        let escalation = policy.escalation(&policy.services[0]).expect("a ban");
        let rules = HashMap::from([(3, (0, escalation))]);
        let mut tally = Tally::new();
        tally.watched = Some(Arc::new(Watched { policy: Arc::new(policy), rules }));
        let from = || PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4([203, 0, 113, 9], [192, 0, 2, 1], 64);
        let mut judged = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut frame = Vec::new();
            write(&mut frame);
            let mut bytes = [0; SNAP_LEN];
            bytes[..frame.len()].copy_from_slice(&frame);
            let (frame_len, snap_len) = (frame.len() as u32, frame.len() as u8);
            let reason = Reason::OverLimitPackets as u8;
            let event = Event {
                time_ns: 0,
                skipped: 0,
                interface: 1,
                frame_len,
                rule: 3,
                reason,
                snap_len,
                _pad: 0,
                bytes,
            };
            tally.judge(&event)
        };
        let source = "203.0.113.9".parse().expect("an address");
        let suspected = |of| Some(Suspect { source: Target::accountable(source), rule: 3, of });
        let syn = judged(&|frame| from().tcp(4000, 80, 1, 100).syn().write(frame, &[]).expect("a frame"));
        assert_eq!(syn, suspected(None));
        let data =
            judged(&|frame| from().tcp(4000, 80, 1, 100).ack(9).write(frame, b"more").expect("a frame"));
        assert_eq!(data, suspected(Some((source, 4000))));
        let udp = judged(&|frame| from().udp(4000, 80).write(frame, b"more").expect("a frame"));
        assert_eq!(udp, None);
    }

    #[test]
    fn sources_that_come_once_make_nobody_suspected() {
        let mut counts = Tally::new();
        for n in 0..20_000u32 {
            let one = Suspect {
                source: Target::accountable(std::net::Ipv4Addr::from(n).into()),
                rule: 3,
                of: None,
            };
            assert!(!counts.note(one, 2), "{n}");
        }
    }

    #[test]
    fn half_a_burst_of_connections_is_more_than_a_forger_could_open() {
        let text = "version = 1\n[interfaces.eth0]\n\
                    [limits.l]\nper-source = { connections = \"50/s\", packets = \"500/s\", bytes = \"1MB/s\" }\n\
                    service = { packets = \"10/s\" }\nexceed = { ban = \"10m\" }\n\
                    [limits.b]\nper-source = { bytes = \"1MB/s\" }\nexceed = { ban = \"1h\", after = 7 }\n\
                    [services.s]\nports = [\"tcp/80\"]\nallow = \"any\"\nlimit = \"l\"\n\
                    [services.t]\nports = [\"tcp/81\"]\nallow = \"any\"\nlimit = \"b\"\n";
        let policy = crate::policy::parse(text, std::path::Path::new("p.toml")).expect("a policy");
        let [s, t] = &policy.services[..] else { panic!("two services") };
        assert_eq!(policy.escalation(s), Some(Escalation { for_ns: 600_000_000_000, after: 100 }));
        assert_eq!(policy.escalation(t).map(|one| one.after), Some(7));
        assert_eq!((many(&policy, s), many(&policy, t)), (25, u64::MAX));
        let said = why(&policy, s, policy.escalation(s).expect("a ban"));
        assert_eq!(said, "100 packets over the limit l of s within a minute");
    }
}
