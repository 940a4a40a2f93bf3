//! The engine's tables in memory.
//!
//! Used by [`super::Simulation`]. An index past the end of a table is `None`, as it is in the kernel.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use proxy_common::abi::ban::{BANS_PREFIX, BANS_SINGLE, BanKey, BanPrefix};
use proxy_common::abi::decision::Decision;
use proxy_common::abi::flow::{FlowKey, FlowValue, FragmentKey, FragmentValue};
use proxy_common::abi::limit::{Bucket, LINES, WAYS};
use proxy_common::abi::reason::Reason;
use proxy_common::abi::settings::Settings;
use proxy_common::abi::trie::Node;
use proxy_common::engine::limiter::{self, CellLine, Charge};
use proxy_common::engine::{self, Tables};
use proxy_common::packet::Addr;
use proxy_common::packet::view::Plain;

use crate::policy::compile::CompiledTables;

/// A policy's tables, its constants, and what the host remembers.
#[derive(Debug)]
pub struct HostTables<'a> {
    tables: &'a CompiledTables,
    settings: Settings,
    now_ns: u64,
    flows: RefCell<HashMap<FlowKey, FlowValue>>,
    fragments: RefCell<HashMap<FragmentKey, FragmentValue>>,
    /// Until when who is banned: singles, then prefixes with their length.
    bans: HashMap<BanKey, u64>,
    prefix_bans: HashMap<(BanPrefix, u8), u64>,
    /// Lines that were ever asked for; the others are zero.
    lines: RefCell<HashMap<u32, HostLine>>,
}

/// A line of limiter cells.
#[derive(Clone, Debug, Default)]
pub struct HostLine(Rc<[Cell<u64>; WAYS as usize]>);

impl<'a> HostTables<'a> {
    /// Tables with nothing remembered, at time 0.
    pub fn new(tables: &'a CompiledTables, settings: Settings) -> Self {
        Self {
            tables,
            settings,
            now_ns: 0,
            flows: RefCell::default(),
            fragments: RefCell::default(),
            bans: HashMap::new(),
            prefix_bans: HashMap::new(),
            lines: RefCell::default(),
        }
    }

    /// The constants.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Sets the clock.
    pub fn set_now_ns(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// Puts other tables and constants in place and keeps what is remembered.
    pub fn replace(&mut self, tables: &'a CompiledTables, settings: Settings) {
        self.tables = tables;
        self.settings = settings;
    }

    /// Bans a single address or an IPv6 prefix of 64 bits.
    pub fn ban(&mut self, key: BanKey, until_ns: u64) {
        self.bans.insert(key, until_ns);
    }

    /// Bans a prefix of another length; `length` as the policy writes it.
    pub fn ban_prefix(&mut self, prefix: BanPrefix, length: u8, until_ns: u64) {
        self.prefix_bans.insert((prefix, length), until_ns);
    }

    /// Forgets everything but bans.
    pub fn reset(&mut self) {
        self.flows.get_mut().clear();
        self.fragments.get_mut().clear();
        self.lines.get_mut().clear();
    }
}

impl CellLine for HostLine {
    fn load(&self, way: u32) -> u64 {
        self.0[(way % WAYS) as usize].get()
    }

    fn replace(&self, way: u32, old: u64, new: u64) -> bool {
        let cell = &self.0[(way % WAYS) as usize];
        let same = cell.get() == old;
        if same {
            cell.set(new);
        }
        same
    }
}

impl Tables for HostTables<'_> {
    type Line = HostLine;

    fn setting<R: Copy>(&self, field: impl FnOnce(&Settings) -> &R) -> R {
        *field(&self.settings)
    }

    fn root(&self, index: u32) -> Option<u32> {
        self.tables.root.get(index as usize).copied()
    }

    fn node(&self, index: u32) -> Option<&Node> {
        self.tables.nodes.get(index as usize)
    }

    fn entry(&self, index: u32) -> Option<u32> {
        self.tables.entries.get(index as usize).copied()
    }

    fn port_class(&self, index: u32) -> Option<u32> {
        self.tables.ports.get(index as usize).map(|class| u32::from(*class))
    }

    fn decision(&self, index: u32) -> Option<Decision> {
        self.tables.decisions.get(index as usize).copied()
    }

    fn bucket(&self, index: u32) -> Option<&Bucket> {
        self.tables.buckets.get(index as usize)
    }

    fn line(&self, index: u32) -> Option<HostLine> {
        (index < LINES).then(|| self.lines.borrow_mut().entry(index).or_default().clone())
    }

    fn charge(&self, charge: Charge) -> Option<Reason> {
        limiter::charge(&Plain, self, charge)
    }

    fn isolates(&self, destination: Addr, v6: bool) -> Option<bool> {
        engine::is_isolated(self, destination, v6)
    }

    fn bans(&self) -> u32 {
        let single = if self.bans.is_empty() { 0 } else { BANS_SINGLE };
        single | if self.prefix_bans.is_empty() { 0 } else { BANS_PREFIX }
    }

    fn ban_filter(&self, _index: u32) -> Option<u64> {
        None
    }

    fn ban(&self, key: &BanKey) -> Option<u64> {
        self.bans.get(key).copied()
    }

    fn prefix_ban(&self, source: &BanPrefix) -> Option<u64> {
        let value = u128::from_be_bytes(source.address);
        (0..=128u8).rev().find_map(|length| {
            let masked = value & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
            let prefix = BanPrefix { family: source.family, address: masked.to_be_bytes() };
            self.prefix_bans.get(&(prefix, length)).copied()
        })
    }

    fn now_ns(&self) -> u64 {
        self.now_ns
    }

    fn with_flow<R>(&self, key: &FlowKey, f: impl FnOnce(&mut FlowValue) -> R) -> Option<R> {
        self.flows.borrow_mut().get_mut(key).map(f)
    }

    fn put_flow(&self, key: &FlowKey, value: &FlowValue) {
        self.flows.borrow_mut().insert(*key, *value);
    }

    fn fragment(&self, key: &FragmentKey) -> Option<FragmentValue> {
        self.fragments.borrow().get(key).copied()
    }

    fn put_fragment(&self, key: &FragmentKey, value: &FragmentValue) {
        self.fragments.borrow_mut().insert(*key, *value);
    }

    fn drop_fragment(&self, key: &FragmentKey) {
        self.fragments.borrow_mut().remove(key);
    }
}
