//! Shadow runs: a candidate beside the policy in force, which judges the same packets and counts where the two differ.
//!
//! ```text
//! <bpffs>/shadow/                        there exactly while a shadow runs, or was cut short
//!     LABEL, RULES                       the candidate's, for whoever asks
//!     CELLS                              its limits: its own, so that none of the live ones is charged twice
//!     CARRY                              what both programs hand each other; also what tells a program with a shadow
//!     COMPARED, PAIRS, NEWLY_DROPPED, NEWLY_PASSED   what was counted
//!     interface-<index>/
//!         <hook>                         the program before, by the name of its hook: the one without a shadow
//!         SHADOW_XDP, SHADOW_TC          how the program in force finds its shadow
//!         ANSWER_TC                      and how the shadow finds the rest of the program in force
//! ```
//!
//! `start` begins one, `read` says what it has counted; here is how it ends, and how it goes on when the policy in force is put
//! on the hooks again. No process is needed in between. Called by `tollgate apply --shadow` and `tollgate shadow`, and by
//! `apply` and `detach`, which end it.

mod read;
mod start;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use aya::maps::{Array, Map, MapData, ProgramArray};
use aya::programs::ProgramFd;
use aya::{Ebpf, programs::ProgramInfo};
use proxy_common::abi::label::Label;
use proxy_common::abi::settings::Settings;

use super::again;
use super::attach::{self, Placed};
use super::candidate::loaded;
use super::error::{Context, DataplaneError, at, missing};
use super::hook::{Attachment, Direction};
use super::interfaces::with_index;
use super::live::{self, Enforced};
use super::object;
use super::pins::{ANSWERS, COUNTERS, Pins, Staging, make, remove, unpin};
use super::unconfirmed::pin_program;

pub use read::{Difference, Differences, ShadowRun, Side, read};
pub use start::{Begun, start};

/// What both programs hand each other.
const CARRY: &str = "CARRY";
/// How the program in force finds its shadow. A load has one of the two in use.
const SHADOWS: [&str; 2] = ["SHADOW_XDP", "SHADOW_TC"];
/// How the shadow finds the rest of the program in force.
const ANSWER: &str = "ANSWER_TC";

/// A shadow that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadowing {
    /// The candidate's file.
    pub file: PathBuf,
    /// Its hash, in hexadecimal.
    pub hash: String,
    /// When it began, nanoseconds since 1970.
    pub since_unix_ns: u64,
    /// Names of the interfaces whose packets it judges.
    pub interfaces: Vec<String>,
}

/// The shadow that runs, if one does.
///
/// # Errors
/// If what is pinned can't be read.
pub fn running(pins: &Pins) -> Result<Option<Shadowing>, DataplaneError> {
    let path = pins.shadow().join("LABEL");
    if !path.exists() {
        return Ok(None);
    }
    let map = Map::Array(MapData::from_pin(&path).context(at(&path))?);
    let map: Array<_, Label> = Array::try_from(map).context(at(&path))?;
    let label = map.get(&0, 0).context(at(&path))?;
    let mut interfaces = Vec::new();
    for enforced in live::enforced(pins)? {
        if is_shadowed(pins, &live::program_in_force(pins, &enforced)?)? {
            interfaces.push(enforced.interface.name);
        }
    }
    let bytes = label.path.get(..label.path_len as usize).unwrap_or_default();
    Ok(Some(Shadowing {
        file: PathBuf::from(OsStr::from_bytes(bytes)),
        hash: label.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        since_unix_ns: label.applied_unix_ns,
        interfaces,
    }))
}

/// Ends the shadow that runs: the programs from before it are on their hooks again, and all that it has counted is gone. Gives
/// the candidate's file; `None`: there was no shadow.
///
/// # Errors
/// If the kernel refuses; it can be tried again.
pub fn stop(pins: &Pins) -> Result<Option<PathBuf>, DataplaneError> {
    if !pins.shadow().exists() {
        return Ok(None);
    }
    // One that was cut short while it began has no label.
    let file =
        running(pins).ok().flatten().map_or_else(|| PathBuf::from("a candidate"), |shadow| shadow.file);
    for index in Pins::new(pins.shadow()).interfaces() {
        let Some(interface) = with_index(index)? else { continue };
        let kept = pins.shadow_interface(index);
        for attachment in Attachment::present(&kept, Direction::Ingress) {
            let pin = attachment.pin(&pins.interface(index), Direction::Ingress);
            // What somebody else has put there since is no business of ours.
            if pin.exists()
                && is_shadowed(pins, &live::program(&pins.interface(index), attachment, Direction::Ingress)?)?
            {
                let program = attachment.pin(&kept, Direction::Ingress);
                attach::put_back(&interface, &program, &pin, attachment, Direction::Ingress)?;
            }
        }
    }
    remove(&pins.shadow())?;
    Ok(Some(file))
}

/// The sentence about a shadow that something else has ended.
pub(super) fn ended(file: &Path) -> String {
    format!("the shadow run of {} has ended, and what it has counted is gone", file.display())
}

/// Goes on with the shadow that runs, if one does, after the policy in force has been put on the hooks once more; gives what
/// the operator should know. Interfaces that the shadow has not judged before are not judged by it now: the candidate has no
/// program for them.
pub(super) fn resume(pins: &Pins) -> Option<String> {
    let shadow = running(pins).ok().flatten()?;
    let file = shadow.file.display();
    match try_resume(pins) {
        Ok(without) if without.is_empty() => None,
        Ok(without) => Some(format!(
            "{} is not judged by the shadow run of {file}: `tollgate apply --shadow` begins one anew",
            without.join(", ")
        )),
        Err(error) => {
            if let Err(error) = stop(pins) {
                log::error!("the shadow run of {file}: {error}");
            }
            Some(format!("the shadow run of {file} has ended: {error}"))
        }
    }
}

/// Names of enforced interfaces without a shadow.
fn try_resume(pins: &Pins) -> Result<Vec<String>, DataplaneError> {
    let staging = pins.stage()?;
    let mut without = Vec::new();
    for enforced in live::enforced(pins)? {
        let folder = pins.shadow_interface(enforced.interface.index);
        if !folder.exists() {
            without.push(enforced.interface.name);
        } else if !is_shadowed(pins, &live::program_in_force(pins, &enforced)?)? {
            let mut in_force = InForce::load(pins, &staging, enforced)?;
            if let Some(answer) = in_force.answer()? {
                introduce_answer(&folder.join(ANSWER), answer)?;
            }
            in_force.place(pins)?;
        }
    }
    Ok(without)
}

/// The policy in force on one interface, loaded once more with a shadow, and not on its hook yet.
struct InForce {
    enforced: Enforced,
    ebpf: Ebpf,
    rejects: bool,
}

impl InForce {
    /// Loads and verifies it. Counters, limits, flows, bans: all is as it was; the programs go on with it.
    fn load(pins: &Pins, staging: &Staging, enforced: Enforced) -> Result<Self, DataplaneError> {
        let index = enforced.interface.index;
        let program = live::program_in_force(pins, &enforced)?;
        let tables = staging.folder(&format!("in-force-{index}"))?;
        let (plan, settings) = again::plan_of(&program, &tables)?;
        let (folder, shadow) = (pins.interface(index), pins.shadow_interface(index));
        make(&shadow)?;
        let plan = plan.sharing(pins).pinned(COUNTERS, folder.join(COUNTERS));
        let plan = plan.pinned(ANSWERS, folder.join(ANSWERS)).pinned(CARRY, pins.shadow().join(CARRY));
        let plan = SHADOWS.iter().fold(plan, |plan, name| plan.pinned(name, shadow.join(name)));
        let mut ebpf = loaded(&plan, Settings { shadowed: 1, ..settings })?;
        let is_tc = enforced.attachment.hook() == "tc";
        let rejects = is_tc && settings.reject_buckets != 0;
        if is_tc {
            object::classifier(&mut ebpf, object::TC_INGRESS)?;
        } else {
            object::xdp(&mut ebpf, object::xdp_for_kernel())?;
        }
        Ok(Self { enforced, ebpf, rejects })
    }

    /// The end of its program for packets that may be answered; `None`: none may.
    fn answer(&mut self) -> Result<Option<ProgramFd>, DataplaneError> {
        if !self.rejects {
            return Ok(None);
        }
        let answer = object::classifier(&mut self.ebpf, object::TC_ANSWER)?;
        answer.fd().and_then(|fd| Ok(fd.try_clone()?)).map(Some).context(|| object::TC_ANSWER)
    }

    /// Keeps the program that is on the hook, and takes its place.
    fn place(&mut self, pins: &Pins) -> Result<Placed, DataplaneError> {
        let Self { enforced: Enforced { interface, attachment, .. }, ebpf, .. } = self;
        let (attachment, folder) = (*attachment, pins.interface(interface.index));
        let kept = attachment.pin(&pins.shadow_interface(interface.index), Direction::Ingress);
        unpin(&kept)?;
        pin_program(live::program(&folder, attachment, Direction::Ingress)?, attachment, &kept)?;
        if attachment.hook() == "tc" {
            let program = object::classifier(ebpf, object::TC_INGRESS)?;
            let clsact = attachment == Attachment::Clsact;
            return attach::tc(program, interface, &folder, Direction::Ingress, clsact);
        }
        let program = object::xdp(ebpf, object::xdp_for_kernel())?;
        attach::xdp(program, interface, &folder, attachment)?
            .map_err(|why| DataplaneError::Hook { interface: interface.name.clone(), why })
    }
}

/// Tells a shadow where the rest of the program in force is.
fn introduce_answer(path: &Path, answer: ProgramFd) -> Result<(), DataplaneError> {
    let map = Map::ProgramArray(MapData::from_pin(path).context(at(path))?);
    let mut map = ProgramArray::try_from(map).context(at(path))?;
    map.set(0, &answer, 0).context(at(path))
}

/// True if a program hands packets on to the shadow that runs: it uses the map that the two have in common.
fn is_shadowed(pins: &Pins, program: &ProgramInfo) -> Result<bool, DataplaneError> {
    let path = pins.shadow().join(CARRY);
    if !path.exists() {
        return Ok(false);
    }
    let carry = MapData::from_pin(&path).context(at(&path))?.info().context(at(&path))?.id();
    let maps = program.map_ids().context(|| "the maps of the program in force")?;
    Ok(maps.ok_or_else(|| missing("the maps of the program in force"))?.contains(&carry))
}
