//! Reads the counters: sums over CPUs, by reason and by rule.
//!
//! Called by `stats`; needs no daemon. One increment a packet serves both totals, see `abi::counter`.

use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use proxy_common::abi::counter::{Answers, Counter, index};
use proxy_common::abi::reason::Reason;

use super::error::{Context, DataplaneError, at, missing};
use super::pins::{ANSWERS, COUNTERS, Pins};

/// Packets and bytes of one reason, and of one rule if the reason belongs to rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Why.
    pub reason: Reason,
    /// Under which rule.
    pub rule: Option<u16>,
    /// How many.
    pub counter: Counter,
}

/// Reads an interface's counters, those that are zero left out. `rules` are the ids to look at.
///
/// # Errors
/// If there are none, or they can't be read.
pub fn read(pins: &Pins, interface: u32, rules: &[u16]) -> Result<Vec<Count>, DataplaneError> {
    let map = open(pins, interface)?;
    let mut counts = Vec::new();
    let mut note = |reason: Reason, rule: Option<u16>| -> Result<(), DataplaneError> {
        let values = map.get(&index(reason, rule.unwrap_or_default()), 0).context(|| "reading COUNTERS")?;
        let counter = sum(values.iter());
        if counter != Counter::default() {
            counts.push(Count { reason, rule, counter });
        }
        Ok(())
    };
    for reason in Reason::ALL {
        if reason.has_rule() {
            rules.iter().try_for_each(|rule| note(*reason, Some(*rule)))?;
        } else {
            note(*reason, None)?;
        }
    }
    Ok(counts)
}

/// Reads what became of an interface's answers to rejected packets.
///
/// # Errors
/// If it can't be read.
pub fn read_answers(pins: &Pins, interface: u32) -> Result<Answers, DataplaneError> {
    let path = pins.interface(interface).join(ANSWERS);
    if !path.exists() {
        return Err(missing(path.display()));
    }
    let map = MapData::from_pin(&path).context(at(&path))?;
    let map: PerCpuArray<_, Answers> = PerCpuArray::try_from(Map::PerCpuArray(map)).context(at(&path))?;
    let values = map.get(&0, 0).context(|| "reading ANSWERS")?;
    Ok(values.iter().fold(Answers::default(), |sum, one| Answers {
        sent: sum.sent.wrapping_add(one.sent),
        throttled: sum.throttled.wrapping_add(one.throttled),
        failed: sum.failed.wrapping_add(one.failed),
    }))
}

/// Sets a rule's counters to zero, before its id goes to another rule.
///
/// # Errors
/// If they can't be written.
pub fn clear_rule(pins: &Pins, interface: u32, rule: u16) -> Result<(), DataplaneError> {
    let mut map = open(pins, interface)?;
    let cpus = nr_cpus().map_err(|(path, error)| DataplaneError::Kernel {
        what: format!("counting processors in {path}"),
        source: Box::new(error),
    })?;
    for reason in Reason::ALL.iter().filter(|reason| reason.has_rule()) {
        let zero = PerCpuValues::try_from(vec![Counter::default(); cpus]).context(|| "zeros")?;
        map.set(index(*reason, rule), zero, 0).context(|| "clearing COUNTERS")?;
    }
    Ok(())
}

fn open(pins: &Pins, interface: u32) -> Result<PerCpuArray<MapData, Counter>, DataplaneError> {
    let path = pins.interface(interface).join(COUNTERS);
    if !path.exists() {
        return Err(missing(path.display()));
    }
    let map = MapData::from_pin(&path).context(at(&path))?;
    PerCpuArray::try_from(Map::PerCpuArray(map)).context(at(&path))
}

/// The sum over CPUs.
pub(super) fn sum<'a>(counters: impl Iterator<Item = &'a Counter>) -> Counter {
    counters.fold(Counter::default(), |sum, one| Counter {
        packets: sum.packets.wrapping_add(one.packets),
        bytes: sum.bytes.wrapping_add(one.bytes),
    })
}
