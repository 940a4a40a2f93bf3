//! The lab: a server, its container, two LAN hosts, a router and an outside host as network namespaces of this
//! machine, with real services and real traffic. The integration tests and the demo are written on it.
//!
//! Everything happens in namespaces that the lab makes itself: no packet leaves the machine, no interface of
//! the machine is touched, and dropping a [`Lab`] takes everything away again.
//!
//! ```text
//!  lan  192.168.0.50 ──┐
//!  lan2 192.168.0.51 ──┤ br0 ── router ── wan0 ── out 203.0.113.9
//!  srv  192.168.0.104 ─┘        192.168.0.1       2001:db8:113::9
//!   │ wlp2s0               2001:db8:0:1::/64
//!   └ docker0 172.17.0.1 ── ctr 172.17.0.2
//! ```

pub mod alternate;
pub mod bans;
pub mod capture;
pub mod certificates;
pub mod counters;
pub mod deployment;
pub mod differential;
pub mod docker;
pub mod evasion;
pub mod expect;
pub mod frames;
pub mod holdings;
pub mod lab;
pub mod machine;
pub mod monitor;
pub mod parity;
pub mod pcap;
pub mod proxied;
pub mod recorder;
pub mod reference;
pub mod routes;
pub mod scrape;
pub mod sender;
pub mod services;
pub mod shared;
pub mod slow;
pub mod soak;
pub mod terminal;
pub mod tmux;
pub mod tollgate;
pub mod traffic;
pub mod witness;

pub use self::tollgate::Tollgate;
pub use counters::Stats;
pub use deployment::{Deployment, Hook};
pub use lab::{Host, Lab, Ns};
pub use monitor::Monitor;
pub use tmux::Tmux;
pub use traffic::Outcome;
