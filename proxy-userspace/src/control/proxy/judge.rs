//! Whether a client that the worker wants banned is: the worker parses what strangers send, so its word alone bans nobody.
//!
//! What it asks for must be what the policy in force says, for a source that can be banned. That the source is who it says needs no
//! look at the kernel here: HTTP and TLS come after a completed handshake. A worker that was taken over could still have clients
//! banned, for the time that the policy names and no faster than [`A_SECOND`]; protected addresses and trusted proxies never.
//!
//! Called by the daemon's loop.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::child;
use crate::bans::Protected;
use crate::control::daemon::Daemon;
use crate::control::lock;
use crate::policy::units::{Target, TimeSpan};
use crate::proxy::decide::Ban;
use crate::proxy::plan::Plan;

/// So many are banned within a second at most.
pub(in crate::control) const A_SECOND: u32 = 20;
/// Longest reason that is kept, bytes.
const LONGEST_WHY: usize = 200;

impl Daemon {
    /// Bans an offender, if the policy in force says so.
    pub(in crate::control) async fn judge(self: &Arc<Self>, offender: Ban) {
        let daemon = Arc::clone(self);
        let source = offender.address;
        let outcome = tokio::task::spawn_blocking(move || daemon.judge_now(&offender)).await;
        let outcome = outcome.unwrap_or_else(|error| Err(error.to_string()));
        if let Err(why) = outcome {
            log::warn!("{source} offends against the proxy and is not banned: {why}");
        }
    }

    fn judge_now(&self, offender: &Ban) -> Result<(), String> {
        let plan = self.proxy.plan().ok_or("there is no proxy")?;
        let (net, time, why) = sentence(&plan, offender)?;
        let protected = Protected::without_session().map_err(|error| error.to_string())?;
        let net = protected.resolve(&Target { net, bare: false }, false)?.net();
        let _change = lock::change(&self.places.run_dir).map_err(|error| error.to_string())?;
        self.bans.ban(&[net], Some(time), &why).map_err(|error| error.to_string())?;
        log::info!("banned {net} for {time}: {why}");
        Ok(())
    }
}

/// Who is banned, for how long, and what for.
fn sentence(plan: &Plan, offender: &Ban) -> Result<(IpNet, TimeSpan, String), String> {
    let routes = plan.routes.iter().filter_map(|route| route.limit.as_ref()?.exceed);
    let mut allowed = plan.common.abuse.into_iter().chain(routes);
    if !allowed.any(|one| one.ban_ms == offender.ms) {
        return Err("the policy bans nobody for such a time".to_owned());
    }
    let source = offender.address.to_canonical();
    if is_never_banned(source) {
        return Err("it is an address of this host or of no host".to_owned());
    }
    if plan.common.trusted.iter().any(|net| net.contains(&source)) {
        return Err("it is a trusted proxy".to_owned());
    }
    let time = TimeSpan { ns: offender.ms.saturating_mul(1_000_000) };
    let why = child::in_one_line(&offender.why, LONGEST_WHY);
    Ok((Target::accountable(source), time, format!("proxy: {why}")))
}

fn is_never_banned(source: IpAddr) -> bool {
    source.is_loopback() || source.is_unspecified() || source.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::plan::Escalation;

    fn plan() -> Plan {
        let mut plan = Plan::default();
        plan.common.abuse = Some(Escalation { ban_ms: 600_000, after: 20 });
        plan.common.trusted = vec!["192.0.2.0/24".parse().expect("a prefix")];
        plan
    }

    fn judged(source: &str, ms: u64, why: &str) -> Result<(IpNet, TimeSpan, String), String> {
        let offender = Ban { address: source.parse().expect("an address"), ms, why: why.to_owned() };
        sentence(&plan(), &offender)
    }

    #[test]
    fn only_for_the_time_that_the_policy_names() {
        let (net, time, why) = judged("203.0.113.9", 600_000, "bad requests").expect("banned");
        assert_eq!((net.to_string().as_str(), time.ns), ("203.0.113.9/32", 600_000_000_000));
        assert_eq!(why, "proxy: bad requests");
        assert!(judged("203.0.113.9", u64::MAX, "bad requests").is_err());
    }

    #[test]
    fn never_this_host_nor_a_trusted_proxy_in_whatever_form() {
        for source in
            ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0.0.0.0", "192.0.2.7", "::ffff:192.0.2.7", "ff02::1"]
        {
            assert!(judged(source, 600_000, "x").is_err(), "{source}");
        }
        let (net, ..) = judged("2001:db8::1", 600_000, "x").expect("banned");
        assert_eq!(net.to_string(), "2001:db8::/64");
    }

    #[test]
    fn a_reason_is_one_line_and_not_too_long() {
        let (.., why) = judged("203.0.113.9", 600_000, "a\n\u{1b}[2Jb").expect("banned");
        assert_eq!(why, "proxy: a  [2Jb");
        let (.., why) = judged("203.0.113.9", 600_000, &"é".repeat(500)).expect("banned");
        assert!(why.len() <= LONGEST_WHY + "proxy: ".len());
    }
}
