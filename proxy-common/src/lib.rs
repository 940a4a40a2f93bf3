//! What Tollgate's kernel programs and its daemon both mean: the layout of shared tables ([`abi`]), the
//! packet parser ([`packet`]) and the decisions ([`engine`]).
//!
//! Called by `proxy-ebpf` in the kernel and by `proxy-userspace` and the tests on the host: the same code in
//! both. There is no I/O here, no clock and no map; those come in through [`packet::PacketView`] and
//! [`engine::Tables`].
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

pub mod abi;
pub mod engine;
pub mod packet;
