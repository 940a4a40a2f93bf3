//! What is enforced now, read from the kernel: pins lead to links, links to programs, programs to their labels.
//!
//! Called by `status`, `stats` and `apply`. No file of ours is asked, so none can be wrong.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData, MapInfo};
use aya::programs::ProgramInfo;
use proxy_common::abi::counter::MAX_RULES;
use proxy_common::abi::label::Label;

use super::attach::linked_program;
use super::error::{Context, DataplaneError, at, missing};
use super::hook::{Attachment, Direction};
use super::interfaces::{HostInterface, with_index};
use super::pins::Pins;
use super::shared::check_identity;
use super::unconfirmed::{concerns, program_before, unconfirmed};

/// An interface on which a policy is enforced.
#[derive(Clone, Debug)]
pub struct Enforced {
    /// The interface.
    pub interface: HostInterface,
    /// By which hook.
    pub attachment: Attachment,
    /// Which policy.
    pub label: Box<Label>,
    /// It was not confirmed in time, and there was none before it: everything passes.
    pub lets_all_pass: bool,
}

impl Enforced {
    /// The policy file.
    pub fn policy(&self) -> PathBuf {
        let path = self.label.path.get(..self.label.path_len as usize).unwrap_or_default();
        PathBuf::from(OsStr::from_bytes(path))
    }

    /// The policy's hash, in hexadecimal.
    pub fn hash(&self) -> String {
        self.label.hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// All interfaces on which a policy is enforced, by index.
///
/// # Errors
/// If the pins are not ours, or a program can't be looked at.
pub fn enforced(pins: &Pins) -> Result<Vec<Enforced>, DataplaneError> {
    Ok(attached(pins)?.into_iter().filter(|one| !one.lets_all_pass).collect())
}

/// All interfaces with a program of ours on their hook, by index: those that are enforced, and those where the kernel went back
/// to no policy and everything passes. Their packets are counted too.
///
/// # Errors
/// As [`enforced`].
pub fn attached(pins: &Pins) -> Result<Vec<Enforced>, DataplaneError> {
    check_identity(pins)?;
    let mut found = Vec::new();
    let is_over = unconfirmed(pins)?.is_some_and(|waits| waits.left.is_none());
    for index in pins.interfaces() {
        // What is left of an interface that is gone enforces nothing.
        let Some(interface) = with_index(index)? else { continue };
        let folder = pins.interface(index);
        let Some(attachment) = Attachment::present(&folder, Direction::Ingress).first().copied() else {
            continue;
        };
        let judging = judging(pins, index, attachment, is_over)?;
        let lets_all_pass = judging.is_none();
        let program = match judging {
            Some(program) => program,
            None => program(&folder, attachment, Direction::Ingress)?,
        };
        let label = label_of(&program)?;
        found.push(Enforced { interface, attachment, label, lets_all_pass });
    }
    Ok(found)
}

/// The program that judges on an interface now; `None`: none does, because the kernel went back to none.
fn judging(
    pins: &Pins,
    index: u32,
    attachment: Attachment,
    is_over: bool,
) -> Result<Option<ProgramInfo>, DataplaneError> {
    if is_over && concerns(pins, index) {
        return program_before(pins, index, attachment);
    }
    program(&pins.interface(index), attachment, Direction::Ingress).map(Some)
}

/// The program that judges on an enforced interface.
pub(super) fn program_in_force(pins: &Pins, enforced: &Enforced) -> Result<ProgramInfo, DataplaneError> {
    let is_over = unconfirmed(pins)?.is_some_and(|waits| waits.left.is_none());
    let program = judging(pins, enforced.interface.index, enforced.attachment, is_over)?;
    program.ok_or_else(|| missing("a program in force"))
}

/// Ids of the rules that a policy has.
pub(super) fn label_rules(label: &Label) -> Vec<u16> {
    (0..MAX_RULES as u16).filter(|id| label.has_rule(*id)).collect()
}

/// A program of an interface's folder.
pub(super) fn program(
    folder: &Path,
    attachment: Attachment,
    direction: Direction,
) -> Result<ProgramInfo, DataplaneError> {
    let pin = attachment.pin(folder, direction);
    if attachment == Attachment::Clsact {
        return ProgramInfo::from_pin(&pin).context(at(&pin));
    }
    linked_program(&pin)?.ok_or_else(|| missing(pin.display()))
}

fn label_of(program: &ProgramInfo) -> Result<Box<Label>, DataplaneError> {
    let map = map_of(program, "LABEL")?.ok_or_else(|| missing("the label of the program in force"))?;
    let map: Array<_, Label> = Array::try_from(Map::Array(map)).context(|| "LABEL")?;
    map.get(&0, 0).map(Box::new).context(|| "reading LABEL")
}

/// A map that a program uses and nothing pins.
pub(super) fn map_of(program: &ProgramInfo, name: &str) -> Result<Option<MapData>, DataplaneError> {
    let ids = program.map_ids().context(|| "the maps of the program in force")?.unwrap_or_default();
    for id in ids {
        let info = MapInfo::from_id(id).context(|| format!("map {id}"))?;
        if info.name_as_str() == Some(name) {
            return MapData::from_id(id).map(Some).context(|| name.to_owned());
        }
    }
    Ok(None)
}
