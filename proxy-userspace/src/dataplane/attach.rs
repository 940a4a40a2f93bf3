//! Puts a candidate's programs on an interface's hooks, in place of what is there or beside it, and can take that back.
//!
//! Called by `apply` for each interface. A program that is there is replaced by one atomic update of its link
//! (`bpf_link_update`: XDP Linux 5.9, tcx 6.6), or of its clsact filter: no packet passes in between.

use std::io;
use std::mem;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, Link, LinkError, LinkOrder, PinnedLink};
use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
};
use aya::programs::xdp::{XdpError, XdpLink, XdpMode};
use aya::programs::{ProgramError, ProgramInfo, SchedClassifier, TcAttachType, Xdp, loaded_programs};
use aya::sys::SyscallError;
use aya_obj::programs::XdpAttachType;

use super::error::{Context, DataplaneError, at, missing};
use super::hook::{Attachment, Direction};
use super::interfaces::HostInterface;
use super::pins::unpin;

/// Our filter's place in clsact: before all others, and known, so that a later process finds it.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 0x7467);

/// A program that now is on a hook.
#[derive(Debug)]
pub struct Placed {
    /// Where.
    pub attachment: Attachment,
    undo: Undo,
}

/// How to get back to what was before.
#[derive(Debug)]
enum Undo {
    /// Nothing was there.
    Remove { interface: HostInterface, pin: PathBuf, attachment: Attachment, direction: Direction },
    /// The link had this program.
    RestoreXdp { pin: PathBuf, program: Xdp },
    /// The link had this program.
    RestoreTcx { pin: PathBuf, program: SchedClassifier },
    /// The filter had this program.
    RestoreClsact { interface: HostInterface, pin: PathBuf, direction: Direction, program: SchedClassifier },
}

impl Placed {
    /// Puts back what was there before.
    ///
    /// # Errors
    /// If the kernel refuses; the new program is still enforcing then.
    pub fn undo(self) -> Result<(), DataplaneError> {
        match self.undo {
            Undo::Remove { interface, pin, attachment, direction } => {
                remove(&interface, &pin, attachment, direction)
            }
            Undo::RestoreXdp { pin, mut program } => replace_xdp(&mut program, &pin),
            Undo::RestoreTcx { pin, mut program } => replace_tcx(&mut program, &pin),
            Undo::RestoreClsact { interface, pin, direction, mut program } => {
                replace_clsact(&mut program, &interface, &pin, direction)
            }
        }
    }
}

/// Attaches an XDP program, or replaces the one that is pinned. `Ok(Err(why))`: the driver or another program is in the
/// way, and another hook may be taken instead.
///
/// # Errors
/// If anything else fails.
pub fn xdp(
    program: &mut Xdp,
    interface: &HostInterface,
    folder: &Path,
    attachment: Attachment,
) -> Result<Result<Placed, String>, DataplaneError> {
    let pin = attachment.pin(folder, Direction::Ingress);
    if let Some(old) = linked_program(&pin)? {
        let old = xdp_of(old)?;
        replace_xdp(program, &pin)?;
        return Ok(Ok(Placed { attachment, undo: Undo::RestoreXdp { pin, program: old } }));
    }
    let mode = if attachment == Attachment::XdpGeneric { XdpMode::Skb } else { XdpMode::Driver };
    let link = match program.attach_to_if_index(interface.index, mode) {
        Ok(link) => program.take_link(link).context(|| "the new link")?,
        Err(error) => {
            return match refusal(&error) {
                Some(why) => Ok(Err(why)),
                None => Err(error).context(|| format!("attaching {attachment} to {}", interface.name)),
            };
        }
    };
    // Old kernels have no XDP links; what could not be pinned would end with this process.
    let link = FdLink::try_from(link).context(|| format!("a link for {attachment} on {}", interface.name))?;
    link.pin(&pin).context(at(&pin))?;
    let undo = Undo::Remove { interface: interface.clone(), pin, attachment, direction: Direction::Ingress };
    Ok(Ok(Placed { attachment, undo }))
}

/// Attaches a TC program by tcx, or by clsact where the kernel has no tcx or it is asked for; or replaces the one that is
/// pinned.
///
/// # Errors
/// If the kernel refuses.
pub fn tc(
    program: &mut SchedClassifier,
    interface: &HostInterface,
    folder: &Path,
    direction: Direction,
    clsact_only: bool,
) -> Result<Placed, DataplaneError> {
    if !clsact_only {
        let pin = Attachment::Tcx.pin(folder, direction);
        if let Some(old) = linked_program(&pin)? {
            let old = classifier_of(old)?;
            replace_tcx(program, &pin)?;
            return Ok(Placed { attachment: Attachment::Tcx, undo: Undo::RestoreTcx { pin, program: old } });
        }
        // First of all programs at this hook: one before ours could accept what ours would drop.
        let order = TcAttachOptions::TcxOrder(LinkOrder::first());
        match program.attach_with_options(&interface.name, kernel_direction(direction), order) {
            Ok(link) => {
                let link = program.take_link(link).context(|| "the new link")?;
                let link = FdLink::try_from(link).context(|| "the new link")?;
                link.pin(&pin).context(at(&pin))?;
                let attachment = Attachment::Tcx;
                let undo = Undo::Remove { interface: interface.clone(), pin, attachment, direction };
                return Ok(Placed { attachment, undo });
            }
            // The kernel does not know this kind of attachment: older than 6.6.
            Err(error) if errno(&error) == Some(libc::EINVAL) => {
                log::info!("{}: this kernel has no tcx, taking clsact", interface.name);
            }
            Err(error) => return Err(error).context(|| format!("attaching tcx to {}", interface.name)),
        }
    }
    clsact(program, interface, folder, direction)
}

/// Takes a program off an interface that is to be enforced by another hook, or no longer.
///
/// # Errors
/// If the kernel refuses.
pub fn remove(
    interface: &HostInterface,
    pin: &Path,
    attachment: Attachment,
    direction: Direction,
) -> Result<(), DataplaneError> {
    if attachment == Attachment::Clsact {
        let what = || format!("removing the filter of {}", interface.name);
        match our_filter(interface, direction).context(what)?.detach() {
            // Somebody else removed the filter or the whole queueing discipline.
            Err(ProgramError::NetlinkError(error))
                if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINVAL)) => {}
            result => result.context(what)?,
        }
    }
    // The pin is all that holds a link.
    unpin(pin)
}

/// Puts a program that was pinned aside back on the hook that another one has now.
///
/// # Errors
/// If the kernel refuses; the other one is still enforcing then.
pub fn put_back(
    interface: &HostInterface,
    program: &Path,
    pin: &Path,
    attachment: Attachment,
    direction: Direction,
) -> Result<(), DataplaneError> {
    // By its descriptor alone, so that the pin stays where it is until all is done.
    let info = ProgramInfo::from_pin(program).context(at(program))?;
    match attachment {
        Attachment::XdpNative | Attachment::XdpGeneric => replace_xdp(&mut xdp_of(info)?, pin),
        Attachment::Tcx => replace_tcx(&mut classifier_of(info)?, pin),
        Attachment::Clsact => replace_clsact(&mut classifier_of(info)?, interface, pin, direction),
    }
}

fn clsact(
    program: &mut SchedClassifier,
    interface: &HostInterface,
    folder: &Path,
    direction: Direction,
) -> Result<Placed, DataplaneError> {
    let attachment = Attachment::Clsact;
    let pin = attachment.pin(folder, direction);
    if pin.exists() {
        let old = SchedClassifier::from_pin(&pin).context(at(&pin))?;
        replace_clsact(program, interface, &pin, direction)?;
        let undo = Undo::RestoreClsact { interface: interface.clone(), pin, direction, program: old };
        return Ok(Placed { attachment, undo });
    }
    match qdisc_add_clsact(&interface.name) {
        // Somebody has made it before us, which is as good.
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {}
        result => result.context(|| format!("adding clsact to {}", interface.name))?,
    }
    program.pin(&pin).context(at(&pin))?;
    let options = TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, handle: HANDLE, classid: None });
    let attached = program
        .attach_with_options(&interface.name, kernel_direction(direction), options)
        .and_then(|link| program.take_link(link));
    match attached {
        Ok(link) => {
            // Dropping it would remove the filter, which is to outlive this process.
            mem::forget(link);
            let undo = Undo::Remove { interface: interface.clone(), pin, attachment, direction };
            Ok(Placed { attachment, undo })
        }
        Err(error) => {
            unpin(&pin)?;
            Err(error).context(|| format!("attaching a filter to clsact of {}", interface.name))
        }
    }
}

fn replace_xdp(program: &mut Xdp, pin: &Path) -> Result<(), DataplaneError> {
    let link = XdpLink::try_from(pinned(pin)?).context(at(pin))?;
    let link = program.attach_to_link(link).context(|| format!("replacing {}", pin.display()))?;
    // Dropped without harm: the pin holds it.
    program.take_link(link).map(drop).context(at(pin))
}

fn replace_tcx(program: &mut SchedClassifier, pin: &Path) -> Result<(), DataplaneError> {
    let link = SchedClassifierLink::try_from(pinned(pin)?).context(at(pin))?;
    let link = program.attach_to_link(link).context(|| format!("replacing {}", pin.display()))?;
    program.take_link(link).map(drop).context(at(pin))
}

fn replace_clsact(
    program: &mut SchedClassifier,
    interface: &HostInterface,
    pin: &Path,
    direction: Direction,
) -> Result<(), DataplaneError> {
    let what = || format!("replacing the filter of {}", interface.name);
    // Pinned before it goes live, and under its final name after: at any time the pin is that of a live program.
    let next = pin.with_file_name("next");
    unpin(&next)?;
    program.pin(&next).context(at(&next))?;
    let link = program.attach_to_link(our_filter(interface, direction).context(what)?).context(what)?;
    mem::forget(program.take_link(link).context(what)?);
    std::fs::rename(&next, pin).context(at(pin))
}

fn our_filter(interface: &HostInterface, direction: Direction) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(&interface.name, kernel_direction(direction), PRIORITY, HANDLE, None)
}

const fn kernel_direction(direction: Direction) -> TcAttachType {
    match direction {
        Direction::Ingress => TcAttachType::Ingress,
        Direction::Egress => TcAttachType::Egress,
    }
}

fn pinned(pin: &Path) -> Result<FdLink, DataplaneError> {
    PinnedLink::from_pin(pin).map(FdLink::from).context(at(pin))
}

/// The program of a pinned link; `None` if there is no such pin, or if its interface is gone: then the pin is removed.
pub(super) fn linked_program(pin: &Path) -> Result<Option<ProgramInfo>, DataplaneError> {
    let link = match PinnedLink::from_pin(pin) {
        Ok(link) => FdLink::from(link),
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error).context(at(pin)),
    };
    let id = link.info().context(at(pin))?.program_id();
    program_with_id(id).map(Some)
}

fn program_with_id(id: u32) -> Result<ProgramInfo, DataplaneError> {
    let found = loaded_programs().filter_map(Result::ok).find(|info| info.id() == id);
    found.ok_or_else(|| missing(format!("program {id}")))
}

pub(super) fn xdp_of(info: ProgramInfo) -> Result<Xdp, DataplaneError> {
    Xdp::from_program_info(info, super::object::XDP_INGRESS.into(), XdpAttachType::Interface)
        .context(|| "the program in force")
}

pub(super) fn classifier_of(info: ProgramInfo) -> Result<SchedClassifier, DataplaneError> {
    SchedClassifier::from_program_info(info, super::object::TC_INGRESS.into())
        .context(|| "the program in force")
}

/// Why native or generic XDP can't be had here, if that is what an error says.
fn refusal(error: &ProgramError) -> Option<String> {
    Some(match errno(error)? {
        libc::EOPNOTSUPP => "the driver has no native XDP".to_owned(),
        libc::EBUSY | libc::EEXIST => {
            "another XDP program is attached (`ip link` shows it, `ip link set … xdp off` or its own tool removes it)"
                .to_owned()
        }
        libc::ERANGE | libc::ENOSPC | libc::EINVAL => {
            "the driver refuses XDP with its present settings (MTU, LRO or queues)".to_owned()
        }
        _ => return None,
    })
}

fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(SyscallError { io_error, .. }) => io_error.raw_os_error(),
        ProgramError::NetlinkError(error) | ProgramError::XdpError(XdpError::NetlinkError(error)) => {
            error.raw_os_error()
        }
        _ => None,
    }
}
