//! What is enforced where, by which hook, since when. Called by `tollgate status`.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use proxy_common::abi::settings::{
    PLUMBING_DHCP, PLUMBING_DHCPV6, PLUMBING_MDNS, PLUMBING_MEMBERSHIP, PLUMBING_PING, PLUMBING_RA,
};
use serde::{Deserialize, Serialize};

use super::shadow::ShadowStatus;
use super::words::{self, Word};

use crate::control::{lock, lockdown, server};
use crate::dataplane::{DataplaneError, Enforced, Pins, enforced, shadow_running, unconfirmed};

/// What passes without being a service and can't be turned off.
const ALWAYS: [&str; 3] = ["arp", "link-control", "neighbour-discovery"];
/// What a policy can turn off.
const SWITCHED: [(u32, &str); 6] = [
    (PLUMBING_RA, "router-advertisements"),
    (PLUMBING_DHCP, "dhcp"),
    (PLUMBING_DHCPV6, "dhcpv6"),
    (PLUMBING_MEMBERSHIP, "multicast-membership"),
    (PLUMBING_MDNS, "mdns"),
    (PLUMBING_PING, "ping"),
];

/// Words of both.
pub(super) const PLUMBING: [Word; 9] = {
    let ([a, b, c], [d, e, f, g, h, i]) = (ALWAYS, SWITCHED);
    [a, b, c, d.1, e.1, f.1, g.1, h.1, i.1]
};

/// The whole of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// True if a policy is enforced anywhere.
    pub enforcing: bool,
    /// The policy, if one is.
    pub policy: Option<PolicyStatus>,
    /// It is the lock-down: nothing new passes, because a start had no policy.
    pub locked_down: bool,
    /// Where.
    pub interfaces: Vec<InterfaceStatus>,
    /// Seconds that a policy has left to be confirmed in, if one waits; then the one before is in force again.
    pub confirm_within_s: Option<u64>,
    /// The candidate beside the policy in force, if a shadow runs.
    #[serde(default)]
    pub shadow: Option<ShadowStatus>,
    /// What passes without being a service, by that policy.
    #[serde(deserialize_with = "words::many")]
    pub plumbing: Vec<Word>,
    /// The daemon. Enforcement does not need it.
    pub daemon: DaemonStatus,
}

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Its file.
    pub file: PathBuf,
    /// SHA-256 of the file and its lists.
    pub hash: String,
    /// When it was applied, RFC 3339.
    pub since: String,
}

/// An interface that is enforced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// `xdp` or `tc`.
    #[serde(deserialize_with = "words::one")]
    pub hook: Word,
    /// `native`, `generic`, `tcx` or `clsact`.
    #[serde(deserialize_with = "words::one")]
    pub mode: Word,
    /// The policy in force here: the same everywhere, unless an apply was cut short.
    pub policy: PolicyStatus,
    /// What passes here without being a service: the same everywhere too, unless the policies are not.
    #[serde(deserialize_with = "words::many")]
    pub plumbing: Vec<Word>,
}

/// The daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// True if one runs for this run directory.
    pub running: bool,
    /// Where it listens.
    pub socket: PathBuf,
}

/// Looks at everything.
///
/// # Errors
/// If what is pinned can't be read.
pub fn read(pins: &Pins, run_dir: &Path) -> Result<Status, DataplaneError> {
    let enforced = enforced(pins)?;
    Ok(Status {
        enforcing: !enforced.is_empty(),
        policy: enforced.first().map(policy),
        locked_down: enforced.first().is_some_and(|one| one.policy().as_os_str() == lockdown::NAME),
        confirm_within_s: unconfirmed(pins)?.and_then(|waits| waits.left).map(|left| left.as_secs()),
        shadow: shadow_running(pins)?.as_ref().map(ShadowStatus::from),
        plumbing: enforced.first().map(plumbing).unwrap_or_default(),
        interfaces: enforced.iter().map(interface).collect(),
        daemon: DaemonStatus { running: lock::daemon_runs(run_dir), socket: server::socket(run_dir) },
    })
}

fn interface(enforced: &Enforced) -> InterfaceStatus {
    InterfaceStatus {
        name: enforced.interface.name.clone(),
        index: enforced.interface.index,
        hook: enforced.attachment.hook(),
        mode: enforced.attachment.mode(),
        policy: policy(enforced),
        plumbing: plumbing(enforced),
    }
}

fn plumbing(enforced: &Enforced) -> Vec<&'static str> {
    let on = SWITCHED.iter().filter(|(bit, _)| enforced.label.plumbing & bit != 0).map(|(_, name)| *name);
    ALWAYS.into_iter().chain(on).collect()
}

fn policy(enforced: &Enforced) -> PolicyStatus {
    let since = Timestamp::from_nanosecond(i128::from(enforced.label.applied_unix_ns)).unwrap_or_default();
    PolicyStatus { file: enforced.policy(), hash: enforced.hash(), since: since.to_string() }
}
