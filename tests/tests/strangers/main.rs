//! Packet tools that nobody here wrote (hping3, thc-ipv6, scapy, trafgen) against the shipped policy, from the outside and
//! from the server's own link, by both hooks. Whatever they send, what should not pass does not, a closed port says nothing,
//! each frame is counted once and under a reason that fits, and the services stay up.
//!
//! One file a tool; `scene` says what must hold after each run.

mod hping3;
mod routers;
mod scapy;
mod scene;
mod thc_ipv6;
mod trafgen;
