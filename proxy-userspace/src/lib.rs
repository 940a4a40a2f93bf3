//! Tollgate: a packet filter and per-source rate limiter whose rules run in the Linux kernel.
//!
//! [`policy`] turns a file into checked values and those into tables; [`dataplane`] puts tables and programs into the
//! kernel; [`bans`] keeps who is banned; [`control`] is the daemon; [`observe`] reads what the kernel counts; [`simulate`] runs
//! the engine in memory; [`proxy`] serves HTTP routes; [`cli`] is the command line over all of it.

pub mod bans;
pub mod cli;
pub mod control;
pub mod dataplane;
pub mod observe;
pub mod policy;
pub mod proxy;
pub mod session;
pub mod simulate;
