//! Services that audit: what they would drop passes, and nothing else changes.

use proxy_common::abi::reason::{Reason, Verdict};
use tollgate::policy::model::{Bucket, DefaultAction, Limit, LimitId, Policy, Refusal, Scope, Unit, ZoneId};

use super::super::Reference;
use super::build::*;

const BAD: &str = "203.0.113.200";
const SOURCE: Scope = Scope::Source { v6_len: 64 };

/// The policy with `audit` in every service.
fn audited() -> Policy {
    let mut policy = policy();
    for service in &mut policy.services {
        service.audit = true;
    }
    policy
}

fn reference(policy: &Policy) -> Reference {
    Reference::new(policy, "eth0").expect("enforced")
}

/// With these buckets on `web`.
fn limited(mut policy: Policy, buckets: Vec<Bucket>) -> Reference {
    policy.limits.push(Limit { name: "web".into(), buckets, ban: None });
    policy.services[0].limit = Some(LimitId(1));
    reference(&policy)
}

#[test]
fn what_a_service_does_not_allow_passes_under_its_rule() {
    for (default, refuse) in [
        (DefaultAction::Drop, Refusal::Drop),
        (DefaultAction::Accept, Refusal::Drop),
        (DefaultAction::Reject, Refusal::Reject),
    ] {
        let mut policy = audited();
        policy.interfaces[0].default = default;
        policy.services.iter_mut().for_each(|service| service.refuse = refuse);
        let mut it = reference(&policy);
        let mut syn = |source, port| it.ingress(&tcp(source, HOST, (1024, port), SYN), 0);
        assert_eq!(syn(STRANGER, 80), (Reason::ServiceAllowed, Some("web".into())));
        assert_eq!(syn(BAD, 80), (Reason::AuditDenied, Some("web".into())));
        assert_eq!(syn(STRANGER, 5432), (Reason::AuditRefused, Some("database".into())));
        assert_eq!(syn(OFFICE, 23), (Reason::AuditRefused, Some("closed".into())));
        let unnamed =
            if default == DefaultAction::Accept { Reason::DefaultAccept } else { Reason::NoService };
        assert_eq!(syn(OFFICE, 22), (unnamed, Some("default".into())));
    }
}

#[test]
fn one_service_audits_without_the_others() {
    let mut policy = policy();
    policy.services[1].audit = true;
    let mut it = reference(&policy);
    let mut syn = |port| it.ingress(&tcp(BAD, HOST, (1024, port), SYN), 0).0;
    assert_eq!(syn(80), Reason::ServiceDenied);
    assert_eq!(syn(5432), Reason::AuditRefused);
    assert_eq!(syn(23), Reason::ServiceRefused);
}

#[test]
fn what_is_over_a_limit_passes_with_the_unit_that_was_short() {
    for (unit, burst, expected) in [
        (Unit::Connections, 1, Reason::AuditOverConnections),
        (Unit::Packets, 1, Reason::AuditOverPackets),
        (Unit::Bytes, 60, Reason::AuditOverBytes),
    ] {
        let mut it = limited(audited(), vec![bucket(SOURCE, unit, 1, burst)]);
        let syn = tcp(STRANGER, HOST, (1, 80), SYN);
        assert_eq!(it.ingress(&syn, 0), (Reason::ServiceAllowed, Some("web".into())));
        assert_eq!(it.ingress(&syn, 0), (expected, Some("web".into())));
        assert_eq!(expected.verdict(), Verdict::Pass);
    }
}

/// The unit that was short, whether or not the service audits.
fn short(reason: Reason) -> Option<Unit> {
    match reason {
        Reason::OverLimitConnections | Reason::AuditOverConnections => Some(Unit::Connections),
        Reason::OverLimitPackets | Reason::AuditOverPackets => Some(Unit::Packets),
        Reason::OverLimitBytes | Reason::AuditOverBytes => Some(Unit::Bytes),
        _ => None,
    }
}

#[test]
fn buckets_are_charged_as_without_audit() {
    let buckets = || {
        vec![
            bucket(SOURCE, Unit::Connections, 1, 1),
            bucket(SOURCE, Unit::Packets, 2, 3),
            bucket(Scope::Service, Unit::Bytes, 60, 300),
        ]
    };
    let (mut plain, mut audit) = (limited(policy(), buckets()), limited(audited(), buckets()));
    let mut seen = Vec::new();
    for step in 0..24_u64 {
        // The denied are charged in neither.
        let source = [STRANGER, OFFICE, BAD][step as usize % 3];
        let packet = tcp(source, HOST, (1, 80), if step % 4 == 0 { ACK } else { SYN });
        let now_ns = step * SECOND / 5;
        let expected = short(plain.ingress(&packet, now_ns).0);
        assert_eq!(short(audit.ingress(&packet, now_ns).0), expected, "step {step}");
        seen.push(expected);
    }
    for unit in [None, Some(Unit::Connections), Some(Unit::Bytes)] {
        assert!(seen.contains(&unit), "{unit:?}");
    }
}

#[test]
fn a_reply_is_a_reply() {
    let mut it = reference(&audited());
    it.egress(&tcp(HOST, BAD, (80, 443), SYN), 0);
    assert_eq!(it.ingress(&tcp(BAD, HOST, (443, 80), SYN | ACK), 0), (Reason::Reply, None));
    assert_eq!(it.ingress(&tcp(BAD, HOST, (443, 80), SYN), 0).0, Reason::AuditDenied);
    // Established by the SYN-ACK, which was seen as a reply.
    assert_eq!(it.ingress(&tcp(BAD, HOST, (443, 80), ACK), 200 * SECOND).0, Reason::Reply);
}

#[test]
fn what_is_over_a_limit_is_no_reply() {
    let mut it = limited(audited(), vec![bucket(SOURCE, Unit::Packets, 1, 1)]);
    it.egress(&tcp(HOST, STRANGER, (80, 443), SYN), 0);
    let answer = tcp(STRANGER, HOST, (443, 80), SYN | ACK);
    assert_eq!(it.ingress(&answer, 0).0, Reason::ServiceAllowed);
    assert_eq!(it.ingress(&answer, 0).0, Reason::AuditOverPackets);
}

#[test]
fn datagrams_begin_what_they_begin_without_audit() {
    let asks = udp(HOST, STRANGER, (53, 9));
    let again = udp(STRANGER, HOST, (9, 53));
    for policy in [policy(), audited()] {
        let mut it = reference(&policy);
        it.egress(&asks, 0);
        assert_eq!(it.ingress(&again, 0).0, Reason::Reply);
    }
}

#[test]
fn icmp_errors_about_answers_to_whoever_pass() {
    let about = |receiver: &str, port: u16| {
        icmp("192.0.2.77", HOST, 3, 0, &tcp(HOST, receiver, (port, 5555), ACK)[14..])
    };
    let mut policy = audited();
    let mut it = reference(&policy);
    for (receiver, port) in [(STRANGER, 80), (BAD, 80), (STRANGER, 5432), (STRANGER, 23)] {
        assert_eq!(it.ingress(&about(receiver, port), 0).0, Reason::IcmpError, "{receiver} {port}");
    }
    assert_eq!(it.ingress(&about(STRANGER, 81), 0).0, Reason::IcmpErrorUnknown);
    // Steps 3 and 4 are asked of the receiver all the same.
    policy.interfaces[0].deny = vec![ZoneId(2)];
    assert_eq!(reference(&policy).ingress(&about(BAD, 80), 0).0, Reason::IcmpErrorUnknown);
    assert_eq!(reference(&policy).ingress(&about("127.0.0.1", 80), 0).0, Reason::IcmpErrorUnknown);
}

#[test]
fn other_steps_drop_as_always() {
    let mut policy = audited();
    policy.zones.push(zone("bound", &["10.0.0.0/8"], &["br-*"]));
    policy.zones.push(zone("containers", &["172.17.0.0/16"], &[]));
    policy.interfaces[0].deny = vec![ZoneId(2)];
    policy.interfaces[0].isolate = vec![ZoneId(4)];
    let mut it = reference(&policy);
    for (source, destination, flags, expected) in [
        ("127.0.0.1", HOST, SYN, Reason::SourceInvalid),
        (STRANGER, "127.0.0.1", SYN, Reason::DestinationInvalid),
        ("10.0.0.1", HOST, SYN, Reason::SourceSpoofed),
        (BAD, HOST, SYN, Reason::SourceDenied),
        (STRANGER, "172.17.0.2", SYN, Reason::DestinationIsolated),
        (STRANGER, HOST, 0, Reason::TcpFlags),
    ] {
        assert_eq!(it.ingress(&tcp(source, destination, (1024, 80), flags), 0).0, expected);
    }
}

#[test]
fn the_rest_of_an_audited_datagram_passes() {
    let mut it = reference(&audited());
    let mut datagram = udp_datagram(1024, 53, &[0; 8]);
    datagram[5] = 116;
    let part = |flags, data: &[u8]| ethernet(0x0800, &ipv4(STRANGER, HOST, 17, 64, 7, flags, data));
    assert_eq!(it.ingress(&part(2, &[0; 100]), 0).0, Reason::FragmentOrphan);
    assert_eq!(it.ingress(&part(0x2000, &datagram), 0).0, Reason::AuditRefused);
    assert_eq!(it.ingress(&part(2, &[0; 100]), 0).0, Reason::FragmentKnown);
}
