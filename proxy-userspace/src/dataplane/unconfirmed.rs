//! A policy that has to be confirmed: what is kept of the one before it, until it is confirmed or its time is over.
//!
//! ```text
//! <bpffs>/unconfirmed/DEADLINE                    when, by the kernel's clock; there exactly while a policy waits
//! <bpffs>/unconfirmed/interface-<index>/          an interface of the policy that waits
//!     <hook>                                      the program before, by the name of its hook; none: it was not enforced
//!     PREVIOUS_XDP, PREVIOUS_TC, PREVIOUS_EGRESS  how the new program finds it
//! ```
//!
//! Called by `apply` (begin), `confirm`, `rollback` and the daemon. The kernel's programs go back by themselves when the
//! time is over (`proxy-ebpf/src/deadline.rs`); what is done here then only tidies up behind them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{Map, MapData, ProgramArray};
use aya::programs::ProgramInfo;
use proxy_common::abi::settings::{DEADLINE_NONE, DEADLINE_OPEN, DEADLINE_PREVIOUS};

use super::apply::detach_interface;
use super::attach;
use super::error::{Context, DataplaneError, at, missing};
use super::hook::{Attachment, Direction};
use super::interfaces::{HostInterface, with_index};
use super::live;
use super::memory::fill;
use super::pins::{Pins, make, remove};
use super::shared::now_ns;

/// When the policy is to be confirmed by.
pub const DEADLINE: &str = "DEADLINE";
/// The programs before, by kind. A load has one of the first two in use.
pub const PREVIOUS: [&str; 3] = ["PREVIOUS_XDP", "PREVIOUS_TC", "PREVIOUS_EGRESS"];

/// A deadline that never comes: the policy is confirmed, and what was kept is being let go.
const CONFIRMED: u64 = u64::MAX;

/// A policy that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unconfirmed {
    /// How long it may wait; `None`: its time is over, and the policy before is in force again.
    pub left: Option<Duration>,
}

/// Looks whether a policy waits to be confirmed.
///
/// # Errors
/// If its deadline can't be read.
pub fn unconfirmed(pins: &Pins) -> Result<Option<Unconfirmed>, DataplaneError> {
    let path = pins.unconfirmed().join(DEADLINE);
    if !path.exists() {
        return Ok(None);
    }
    let deadline_ns = read_deadline(&path)?;
    if deadline_ns == CONFIRMED {
        return Ok(None);
    }
    let left_ns = deadline_ns.saturating_sub(now_ns()?);
    // 0 is before the first program went live: an apply that was cut short, and nothing has changed.
    Ok(Some(Unconfirmed { left: (left_ns > 0).then(|| Duration::from_nanos(left_ns)) }))
}

/// Notes what is enforced before the programs of a policy that is to be confirmed are loaded.
///
/// # Errors
/// If an interface is enforced by two hooks, or something can't be pinned.
pub(super) fn begin(pins: &Pins, targets: &[HostInterface]) -> Result<(), DataplaneError> {
    make(&pins.unconfirmed())?;
    for interface in targets {
        let folder = folder(pins, interface.index);
        make(&folder)?;
        for direction in [Direction::Ingress, Direction::Egress] {
            let present = Attachment::present(&pins.interface(interface.index), direction);
            if present.len() > 1 {
                return Err(DataplaneError::Hook {
                    interface: interface.name.clone(),
                    why: "an earlier change of its hook was cut short; apply once without --confirm"
                        .to_owned(),
                });
            }
            for attachment in present {
                let info = live::program(&pins.interface(interface.index), attachment, direction)?;
                pin_program(info, attachment, &attachment.pin(&folder, direction))?;
            }
        }
    }
    Ok(())
}

/// What a program of the waiting policy does when its time is over: a `DEADLINE_*`.
pub(super) fn on_deadline(pins: &Pins, interface: u32) -> u32 {
    if !pins.unconfirmed().exists() {
        return DEADLINE_NONE;
    }
    let before = Attachment::present(&folder(pins, interface), Direction::Ingress);
    if before.is_empty() { DEADLINE_OPEN } else { DEADLINE_PREVIOUS }
}

/// Where an interface's arrays of previous programs are pinned.
pub(super) fn previous(pins: &Pins, interface: u32, name: &str) -> PathBuf {
    folder(pins, interface).join(name)
}

/// Tells an interface's new programs which ones were before them.
///
/// # Errors
/// If the kernel refuses: the old programs were made by a version that these can't go back to.
pub(super) fn introduce(pins: &Pins, interface: u32, ebpf: &mut Ebpf) -> Result<(), DataplaneError> {
    let folder = folder(pins, interface);
    for direction in [Direction::Ingress, Direction::Egress] {
        for attachment in Attachment::present(&folder, direction) {
            let name = match (direction, attachment.hook()) {
                (Direction::Egress, _) => "PREVIOUS_EGRESS",
                (_, "xdp") => "PREVIOUS_XDP",
                _ => "PREVIOUS_TC",
            };
            let map = ebpf.map_mut(name).ok_or_else(|| missing(name))?;
            let mut map = ProgramArray::try_from(map).context(|| name)?;
            let pin = attachment.pin(&folder, direction);
            let program = ProgramInfo::from_pin(&pin).context(at(&pin))?;
            map.set(0, &program.fd().context(at(&pin))?, 0).context(|| {
                format!("the new program can't go back to {}; apply without --confirm", pin.display())
            })?;
        }
    }
    Ok(())
}

/// Starts the time: from now on the kernel goes back by itself.
///
/// # Errors
/// If the deadline can't be written.
pub(super) fn start(pins: &Pins, wait: Duration) -> Result<(), DataplaneError> {
    let wait_ns = u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX);
    write_deadline(&pins.unconfirmed().join(DEADLINE), now_ns()?.saturating_add(wait_ns).max(1))
}

/// Fails if an interface has another hook now than before: the kernel could not go back.
///
/// # Errors
/// As said.
pub(super) fn same_hook(
    pins: &Pins,
    interface: &HostInterface,
    now: Attachment,
) -> Result<(), DataplaneError> {
    match Attachment::present(&folder(pins, interface.index), Direction::Ingress).first() {
        Some(before) if *before != now => Err(DataplaneError::Hook {
            interface: interface.name.clone(),
            why: format!(
                "the policy changes its hook from {before} to {now}, and the kernel can't undo that by itself; apply without \
                 --confirm, or write the hook that it has"
            ),
        }),
        _ => Ok(()),
    }
}

/// Forgets what was kept: the apply did not work out and is undone already.
pub(super) fn forget(pins: &Pins) {
    if let Err(error) = remove(&pins.unconfirmed()) {
        log::warn!("{error}");
    }
}

/// Confirms the policy that waits; what only the one before enforced is let go.
///
/// # Errors
/// [`DataplaneError::NothingWaits`], also if its time is over.
pub fn confirm(pins: &Pins) -> Result<(), DataplaneError> {
    match unconfirmed(pins)? {
        Some(Unconfirmed { left: Some(_) }) => {}
        Some(_) => {
            return Err(DataplaneError::NothingWaits("its time is over, and the policy before is in force"));
        }
        None => return Err(DataplaneError::NothingWaits("no policy waits to be confirmed")),
    }
    let path = pins.unconfirmed().join(DEADLINE);
    write_deadline(&path, CONFIRMED)?;
    let deadline = MapData::from_pin(&path).context(at(&path))?;
    let_go(pins)?;
    // The kernel need not look at the clock any more.
    fill(&deadline, DEADLINE, &[0u64])
}

/// Finishes what a confirmation, or an apply before it went live, has left when it was cut short.
///
/// # Errors
/// If something can't be removed.
pub fn tidy(pins: &Pins) -> Result<(), DataplaneError> {
    let folder = pins.unconfirmed();
    let deadline = folder.join(DEADLINE);
    if !folder.exists() {
        Ok(())
    } else if !deadline.exists() {
        // Nothing has gone live yet.
        remove(&folder)
    } else if read_deadline(&deadline)? == CONFIRMED {
        let_go(pins)
    } else {
        Ok(())
    }
}

/// Lets go of what only the policy before needed.
fn let_go(pins: &Pins) -> Result<(), DataplaneError> {
    for index in waiting(pins) {
        for name in PREVIOUS {
            clear(&previous(pins, index, name))?;
        }
    }
    let mut unused = pins.interfaces();
    unused.retain(|index| !waiting(pins).contains(index));
    unused.into_iter().try_for_each(|index| detach_interface(pins, index))?;
    remove(&pins.unconfirmed())
}

/// Goes back to what was enforced before the policy that waits, whether its time is over or not.
///
/// # Errors
/// [`DataplaneError::NothingWaits`]; or if the kernel refuses.
pub fn revert(pins: &Pins) -> Result<(), DataplaneError> {
    if unconfirmed(pins)?.is_none() {
        return Err(DataplaneError::NothingWaits("no policy waits to be confirmed"));
    }
    for index in waiting(pins) {
        let Some(interface) = with_index(index)? else { continue };
        let kept = folder(pins, index);
        if Attachment::present(&kept, Direction::Ingress).is_empty() {
            detach_interface(pins, index)?;
            continue;
        }
        for direction in [Direction::Ingress, Direction::Egress] {
            for attachment in Attachment::present(&kept, direction) {
                let program = attachment.pin(&kept, direction);
                let pin = attachment.pin(&pins.interface(index), direction);
                attach::put_back(&interface, &program, &pin, attachment, direction)?;
            }
        }
    }
    remove(&pins.unconfirmed())
}

/// The program that judges now on an interface of a policy whose time is over; `Ok(None)`: none does.
pub(super) fn program_before(
    pins: &Pins,
    interface: u32,
    attachment: Attachment,
) -> Result<Option<ProgramInfo>, DataplaneError> {
    let pin = attachment.pin(&folder(pins, interface), Direction::Ingress);
    if pin.exists() { ProgramInfo::from_pin(&pin).map(Some).context(at(&pin)) } else { Ok(None) }
}

/// True if an interface is enforced by the policy that waits.
pub(super) fn concerns(pins: &Pins, interface: u32) -> bool {
    folder(pins, interface).exists()
}

fn folder(pins: &Pins, interface: u32) -> PathBuf {
    pins.unconfirmed_interface(interface)
}

/// Indices of the interfaces of the policy that waits.
fn waiting(pins: &Pins) -> Vec<u32> {
    Pins::new(pins.unconfirmed()).interfaces()
}

pub(super) fn pin_program(
    info: ProgramInfo,
    attachment: Attachment,
    pin: &Path,
) -> Result<(), DataplaneError> {
    match attachment {
        Attachment::XdpNative | Attachment::XdpGeneric => attach::xdp_of(info)?.pin(pin).context(at(pin)),
        Attachment::Tcx | Attachment::Clsact => attach::classifier_of(info)?.pin(pin).context(at(pin)),
    }
}

fn clear(path: &Path) -> Result<(), DataplaneError> {
    if !path.exists() {
        return Ok(());
    }
    let map = MapData::from_pin(path).context(at(path))?;
    let mut map = ProgramArray::try_from(Map::ProgramArray(map)).context(at(path))?;
    // What fails is that it is empty.
    let _ = map.clear_index(&0);
    Ok(())
}

fn read_deadline(path: &Path) -> Result<u64, DataplaneError> {
    let map = MapData::from_pin(path).context(at(path))?;
    let map: aya::maps::Array<_, u64> = aya::maps::Array::try_from(Map::Array(map)).context(at(path))?;
    map.get(&0, 0).context(at(path))
}

fn write_deadline(path: &Path, deadline_ns: u64) -> Result<(), DataplaneError> {
    let map = MapData::from_pin(path).context(at(path))?;
    fill(&map, DEADLINE, &[deadline_ns])
}
