//! What is enforced now, read from the kernel: pins lead to links, links to programs, programs to their labels.
//!
//! Called by `status`, `stats` and `apply`. No file of ours is asked, so none can be wrong.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData, MapInfo};
use aya::programs::ProgramInfo;
use proxy_common::abi::label::Label;

use super::attach::linked_program;
use super::error::{Context, DataplaneError, at, missing};
use super::hook::{Attachment, Direction};
use super::interfaces::{HostInterface, with_index};
use super::pins::Pins;
use super::shared::check_identity;

/// An interface on which a policy is enforced.
#[derive(Clone, Debug)]
pub struct Enforced {
    /// The interface.
    pub interface: HostInterface,
    /// By which hook.
    pub attachment: Attachment,
    /// Which policy.
    pub label: Box<Label>,
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
    check_identity(pins)?;
    let mut found = Vec::new();
    for index in pins.interfaces() {
        // What is left of an interface that is gone enforces nothing.
        let Some(interface) = with_index(index)? else { continue };
        let folder = pins.interface(index);
        let Some(attachment) = Attachment::present(&folder, Direction::Ingress).first().copied() else {
            continue;
        };
        let program = program(&folder, attachment)?;
        let label = label_of(&program)?;
        found.push(Enforced { interface, attachment, label });
    }
    Ok(found)
}

/// The ingress program of an interface's folder.
pub(super) fn program(folder: &Path, attachment: Attachment) -> Result<ProgramInfo, DataplaneError> {
    let pin = attachment.pin(folder, Direction::Ingress);
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
