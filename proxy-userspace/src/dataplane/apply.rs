//! Puts a policy to work: candidate, tests, atomic replacement on each hook, and back again if one of them fails.
//!
//! Called by the daemon, at its start and for each `tollgate apply`. Until the first replacement nothing that is enforced
//! has changed; when an interface fails, those before it get their old program back.

use std::time::Duration;

use aya::Ebpf;

use super::adopt::{self, Role};
use super::attach::{self, Placed};
use super::candidate::Candidate;
use super::counters;
use super::error::DataplaneError;
use super::hook::{Attachment, Direction};
use super::interfaces::{self, HostInterface, own_addresses};
use super::live;
use super::object;
use super::pins::{Pins, remove};
use super::selftest::{self, Passed};
use super::shadow;
use super::shared::Shared;
use super::stacked;
use super::took::{Stopwatch, Took};
use super::unconfirmed::{self, Unconfirmed};
use crate::policy::Policy;
use crate::policy::compile::{RuleIds, compile_for_host, entry_for};
use crate::policy::model::HookChoice;
use crate::policy::units::InterfacePattern;
use crate::simulate::test_interfaces;

/// Why an interface has TC, whatever its driver can do.
pub const TC_TO_REJECT: &str = "TC instead of native XDP, because the policy rejects";

/// What an apply has done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The interfaces that are enforced now.
    pub interfaces: Vec<AppliedInterface>,
    /// How many of the policy's own tests were run, and passed.
    pub tests: usize,
    /// What the operator should know, and did not ask.
    pub notes: Vec<String>,
    /// How long it took; reading the file and the total are the caller's.
    pub took: Took,
}

/// One of the interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedInterface {
    /// Its name.
    pub name: String,
    /// The hook that was taken.
    pub attachment: Attachment,
}

/// How a policy is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// It has to be confirmed within this time, or the kernel goes back to the policy before.
    pub confirm: Option<Duration>,
    /// Interfaces that it names may be missing: they are enforced when they appear.
    pub missing_ok: bool,
    /// It is in force already, and interfaces have appeared: nothing is taken away.
    pub only_add: bool,
}

/// Applies a policy.
///
/// # Errors
/// If the policy does not fit this host, fails its tests, or the kernel refuses something; what was enforced before is
/// then still enforced. Also while another one waits to be confirmed.
pub fn apply(pins: &Pins, shared: &mut Shared, policy: &Policy, how: How) -> Result<Applied, DataplaneError> {
    unconfirmed::tidy(pins)?;
    match unconfirmed::unconfirmed(pins)? {
        Some(Unconfirmed { left: Some(left) }) => return Err(DataplaneError::Waits(left)),
        // Its time is over: the kernel has gone back, and this only tidies up.
        Some(Unconfirmed { left: None }) => unconfirmed::revert(pins)?,
        None => {}
    }
    let shadowed = pins.shadow().exists();
    let result = try_apply(pins, shared, policy, how);
    if result.is_err() {
        if shadowed && !pins.shadow().exists() {
            log::warn!("the shadow run has ended, though the policy in force stays: begin it anew");
        }
        unconfirmed::forget(pins);
        forget_unused(pins);
    }
    result
}

fn try_apply(pins: &Pins, shared: &mut Shared, policy: &Policy, how: How) -> Result<Applied, DataplaneError> {
    let mut notes = Vec::new();
    let (mut took, mut watch) = (Took::default(), Stopwatch::start());
    let targets = targets(policy, how.missing_ok, &mut notes)?;
    // The interfaces to enforce come first; those that only tests name are compiled and never attached.
    let mut names: Vec<_> = targets.iter().map(|interface| interface.name.clone()).collect();
    names.extend(
        test_interfaces(policy).into_iter().filter(|name| !targets.iter().any(|one| one.name == *name)),
    );
    if names.is_empty() {
        // Nothing to enforce yet, and no test to run.
        return Ok(Applied { interfaces: Vec::new(), tests: 0, notes, took: Took::default() });
    }
    let bad_policy = |source| DataplaneError::Compile { policy: policy.path.clone(), source };

    let in_force = live::enforced(pins)?;
    let live_rule = |id| in_force.iter().any(|enforced| enforced.label.has_rule(id));
    let rules = RuleIds::assign(&shared.rules()?, &live_rule, policy).map_err(bad_policy)?;
    let compiled = compile_for_host(policy, &names, &own_addresses()?, &rules).map_err(bad_policy)?;
    took.compile = watch.lap();
    // One that has to be confirmed is verified with a deadline.
    let spare = match how.confirm {
        Some(_) => None,
        None => shared.kept.take_spare(pins, &compiled.tables),
    };
    let mut candidate = Candidate::build(pins, shared, policy, &compiled, spare)?;
    took.tables = watch.lap();
    let Passed { tests, trials } = selftest::run(&mut candidate, policy, &compiled)?;
    took.tests = watch.lap();

    // Whatever it was compared with is about to go. Interfaces that appear change nothing of that: see below.
    if !how.only_add
        && let Some(file) = shadow::stop(pins)?
    {
        notes.push(shadow::ended(&file));
    }
    if how.confirm.is_some() {
        unconfirmed::begin(pins, &targets)?;
    }
    let mut loads = Vec::with_capacity(targets.len());
    for (nth, interface) in targets.iter().enumerate() {
        loads.push(candidate.load(nth, interface)?);
    }
    for rule in rules.recycled() {
        targets.iter().try_for_each(|interface| counters::clear_rule(pins, interface.index, *rule))?;
    }
    name_rules(shared, &rules)?;

    let indices: Vec<u32> = targets.iter().map(|interface| interface.index).collect();
    stacked::refresh(pins, shared, &indices)?;
    let mut placed = Vec::new();
    let hooks = compiled.interfaces.iter().map(|wanted| {
        (policy.interfaces.get(wanted.entry).map_or(HookChoice::Auto, |entry| entry.hook), wanted.rejects)
    });
    let mut loads: Vec<_> = targets
        .iter()
        .zip(loads)
        .zip(hooks)
        .map(|((interface, ebpf), (hook, rejects))| Load { interface, ebpf, hook, rejects })
        .collect();
    // Every program is verified before the first of them goes live: what is left then takes no time, and can hardly fail.
    loads.iter_mut().try_for_each(verify)?;
    took.verify = watch.lap();
    let result = match how.confirm {
        // From here on the kernel goes back by itself, whatever becomes of this process.
        Some(wait) => unconfirmed::start(pins, wait),
        None => Ok(()),
    };
    let result = result.and_then(|()| go_live(pins, shared, &mut loads, &mut placed, &mut notes)).and_then(
        |interfaces| {
            let mut both = targets.iter().zip(&interfaces);
            both.try_for_each(|(target, now)| unconfirmed::same_hook(pins, target, now.attachment))?;
            Ok(interfaces)
        },
    );
    took.replace = watch.lap();
    match result {
        Ok(interfaces) => {
            // What the policy before enforced besides is let go when this one is confirmed.
            if how.confirm.is_none() && !how.only_add {
                // The policy is live: what fails from here on is told, and undoes nothing.
                if let Err(error) = release(pins, &targets, &interfaces) {
                    notes.push(format!("what only the policy before enforced is enforced still: {error}"));
                }
            }
            if let Err(error) = stacked::refresh(pins, shared, &[]) {
                notes.push(format!("which interfaces lie on which is not told to the programs: {error}"));
            }
            if how.only_add {
                notes.extend(shadow::resume(pins));
            }
            let programs = loads.into_iter().map(|load| load.ebpf).collect();
            let instance = candidate.live(programs, trials);
            shared.kept.went_live(how.confirm.is_none().then_some(instance));
            Ok(Applied { interfaces, tests, notes, took })
        }
        Err(error) => {
            for step in placed.into_iter().rev() {
                if let Err(undo) = step.undo() {
                    log::error!("going back to the policy before: {undo}");
                }
            }
            for (id, _) in rules.added() {
                shared.name_rule(*id, "")?;
            }
            Err(error)
        }
    }
}

/// Interfaces that the policy means, that are there, and that are not enforced: they have appeared since.
///
/// # Errors
/// If the policy does not fit this host.
pub fn unenforced(pins: &Pins, policy: &Policy) -> Result<Vec<String>, DataplaneError> {
    let enforced =
        |one: &HostInterface| !Attachment::present(&pins.interface(one.index), Direction::Ingress).is_empty();
    let targets = targets(policy, true, &mut Vec::new())?;
    Ok(targets.into_iter().filter(|one| !enforced(one)).map(|one| one.name).collect())
}

/// Removes what is pinned for interfaces that are gone, and tells the programs which interfaces are stacked on which now.
///
/// # Errors
/// If the kernel does not tell, or something can't be removed.
pub fn follow_interfaces(pins: &Pins, shared: &mut Shared) -> Result<(), DataplaneError> {
    for index in pins.interfaces() {
        if interfaces::with_index(index)?.is_none() {
            remove(&pins.interface(index))?;
            remove(&pins.unconfirmed_interface(index))?;
            remove(&pins.shadow_interface(index))?;
        }
    }
    stacked::refresh(pins, shared, &[])
}

/// Fails if the policy does not fit the interfaces of this host; touches nothing.
///
/// # Errors
/// As [`apply`] for that reason.
pub fn fits_host(policy: &Policy, missing_ok: bool) -> Result<(), DataplaneError> {
    targets(policy, missing_ok, &mut Vec::new()).map(drop)
}

/// The interfaces of this host that the policy means.
pub(super) fn targets(
    policy: &Policy,
    missing_ok: bool,
    notes: &mut Vec<String>,
) -> Result<Vec<HostInterface>, DataplaneError> {
    let present = interfaces::all()?;
    let is_name = |name: &str| name.parse().is_ok_and(|pattern: InterfacePattern| !pattern.is_pattern());
    let is_present = |name: &str| present.iter().any(|interface| interface.name == name);
    let (named, patterns): (Vec<_>, Vec<_>) =
        policy.interfaces.iter().map(|entry| entry.name.clone()).partition(|name| is_name(name));
    let missing: Vec<_> = named.into_iter().filter(|name| !is_present(name)).collect();
    let names = || present.iter().map(|interface| interface.name.clone()).collect();
    if missing_ok {
        notes.extend(missing.iter().map(|name| format!("{name} is not there; enforced as soon as it is")));
    } else if !missing.is_empty() {
        return Err(DataplaneError::NoSuchInterface {
            policy: policy.path.clone(),
            missing,
            present: names(),
        });
    }
    let (mut targets, mut entries) = (Vec::new(), Vec::new());
    for interface in &present {
        let Some(entry) = entry_for(policy, &interface.name) else { continue };
        if interface.ethernet {
            targets.push(interface.clone());
            entries.push(entry);
        } else if patterns
            .iter()
            .any(|name| policy.interfaces.get(entry).is_some_and(|one| one.name == *name))
        {
            notes.push(format!("{} is not enforced: its frames have no Ethernet header", interface.name));
        } else {
            return Err(DataplaneError::NoEthernet {
                policy: policy.path.clone(),
                interface: interface.name.clone(),
            });
        }
    }
    for pattern in &patterns {
        if !entries.iter().any(|entry| policy.interfaces.get(*entry).is_some_and(|one| one.name == *pattern))
        {
            notes.push(format!("no interface is enforced by the pattern {pattern} at present"));
        }
    }
    if targets.is_empty() && !missing_ok {
        return Err(DataplaneError::NoSuchInterface {
            policy: policy.path.clone(),
            missing: patterns,
            present: names(),
        });
    }
    Ok(targets)
}

fn name_rules(shared: &mut Shared, rules: &RuleIds) -> Result<(), DataplaneError> {
    rules.added().iter().try_for_each(|(id, name)| shared.name_rule(*id, name))
}

/// An interface and its programs, verified and not attached.
struct Load<'a> {
    interface: &'a HostInterface,
    ebpf: Ebpf,
    hook: HookChoice,
    /// Some of what arrives is to be answered, which XDP can't.
    rejects: bool,
}

impl Load<'_> {
    /// How XDP is to be attached, if it is to be tried.
    const fn xdp(&self) -> Option<Attachment> {
        match self.hook {
            HookChoice::Auto if self.rejects => None,
            HookChoice::Auto | HookChoice::Native => Some(Attachment::XdpNative),
            HookChoice::Generic => Some(Attachment::XdpGeneric),
            HookChoice::Tc | HookChoice::Clsact => None,
        }
    }
}

/// Has the kernel verify the programs that an interface is to get. Where XDP turns out to be impossible, TC's is verified then.
fn verify(load: &mut Load<'_>) -> Result<(), DataplaneError> {
    object::classifier(&mut load.ebpf, object::TC_EGRESS)?;
    if load.xdp().is_some() {
        object::xdp(&mut load.ebpf, object::xdp_for_kernel()).map(drop)
    } else {
        object::classifier(&mut load.ebpf, object::TC_INGRESS).map(drop)
    }
}

/// Puts all programs on their hooks; what was placed is noted for the way back.
fn go_live(
    pins: &Pins,
    shared: &mut Shared,
    loads: &mut [Load<'_>],
    placed: &mut Vec<Placed>,
    notes: &mut Vec<String>,
) -> Result<Vec<AppliedInterface>, DataplaneError> {
    let enforced = |index| !Attachment::present(&pins.interface(index), Direction::Ingress).is_empty();
    let (before, new): (Vec<_>, Vec<_>) = loads
        .iter()
        .map(|load| (load.interface.index, load.interface.name.clone()))
        .partition(|(index, _)| enforced(*index));
    // Egress first: a flow that begins between the two is then known when its answer arrives.
    for load in loads.iter_mut() {
        let folder = pins.make_interface(load.interface.index)?;
        let egress = object::classifier(&mut load.ebpf, object::TC_EGRESS)?;
        let clsact = load.hook == HookChoice::Clsact;
        placed.push(attach::tc(egress, load.interface, &folder, Direction::Egress, clsact)?);
    }
    if !new.is_empty() {
        let has = |list: &[(u32, String)], name: &str| list.iter().any(|(_, one)| one == name);
        notes.extend(adopt::adopt(shared, |name| {
            if has(&new, name) {
                Role::New
            } else if has(&before, name) {
                Role::Before
            } else {
                Role::Other
            }
        })?);
    }
    let enforce = |load: &mut Load<'_>| {
        let attachment = enforce(pins, load, placed, notes)?;
        Ok(AppliedInterface { name: load.interface.name.clone(), attachment })
    };
    loads.iter_mut().map(enforce).collect()
}

/// Puts an interface's ingress program on its hook.
fn enforce(
    pins: &Pins,
    load: &mut Load<'_>,
    placed: &mut Vec<Placed>,
    notes: &mut Vec<String>,
) -> Result<Attachment, DataplaneError> {
    let asked = load.xdp();
    let Load { interface, ebpf, hook, rejects } = load;
    let hook = *hook;
    let folder = pins.interface(interface.index);
    let clsact = hook == HookChoice::Clsact;
    if hook == HookChoice::Auto && *rejects {
        notes.push(format!("{}: {TC_TO_REJECT}", interface.name));
    }
    if let Some(attachment) = asked {
        let other = match attachment {
            Attachment::XdpNative => Attachment::XdpGeneric,
            _ => Attachment::XdpNative,
        };
        if other.pin(&folder, Direction::Ingress).exists() && hook != HookChoice::Auto {
            return Err(DataplaneError::Hook {
                interface: interface.name.clone(),
                why: format!(
                    "it is enforced by {other}, and the kernel can't change the mode of XDP without a gap; apply the \
                     policy with hook = \"tc\" first, then with this one"
                ),
            });
        }
        let program = object::xdp(ebpf, object::xdp_for_kernel())?;
        match attach::xdp(program, interface, &folder, attachment)? {
            Ok(done) => return Ok(note(placed, done)),
            Err(_) if hook == HookChoice::Auto && other.pin(&folder, Direction::Ingress).exists() => {
                notes.push(format!(
                    "{}: TC instead of {other}, without a gap; apply the policy once more for native XDP",
                    interface.name
                ));
            }
            Err(why) if hook == HookChoice::Auto => {
                notes.push(format!("{}: TC instead of native XDP, because {why}", interface.name));
            }
            Err(why) => {
                let why = format!("{attachment} can't be had: {why}; write hook = \"tc\" or \"auto\"");
                return Err(DataplaneError::Hook { interface: interface.name.clone(), why });
            }
        }
    }
    let ingress = object::classifier(ebpf, object::TC_INGRESS)?;
    let done = attach::tc(ingress, interface, &folder, Direction::Ingress, clsact)?;
    Ok(note(placed, done))
}

fn note(placed: &mut Vec<Placed>, done: Placed) -> Attachment {
    let attachment = done.attachment;
    placed.push(done);
    attachment
}

/// Takes away what the policy before enforced and this one does not: other hooks of its interfaces, other interfaces.
fn release(
    pins: &Pins,
    targets: &[HostInterface],
    applied: &[AppliedInterface],
) -> Result<(), DataplaneError> {
    for (interface, now) in targets.iter().zip(applied) {
        let folder = pins.interface(interface.index);
        for attachment in Attachment::present(&folder, Direction::Ingress) {
            if attachment != now.attachment {
                let pin = attachment.pin(&folder, Direction::Ingress);
                attach::remove(interface, &pin, attachment, Direction::Ingress)?;
            }
        }
        let egress = Attachment::present(&folder, Direction::Egress);
        // By tcx and by clsact both: only after a change between the two.
        if egress.len() > 1 {
            let unused =
                if now.attachment == Attachment::Clsact { Attachment::Tcx } else { Attachment::Clsact };
            let pin = unused.pin(&folder, Direction::Egress);
            attach::remove(interface, &pin, unused, Direction::Egress)?;
        }
    }
    for index in pins.interfaces() {
        if !targets.iter().any(|interface| interface.index == index) {
            detach_interface(pins, index)?;
        }
    }
    Ok(())
}

/// Removes the folders of interfaces on which nothing is attached: an apply that failed has made them.
fn forget_unused(pins: &Pins) {
    for index in pins.interfaces() {
        let folder = pins.interface(index);
        let attached = [Direction::Ingress, Direction::Egress]
            .iter()
            .any(|direction| !Attachment::present(&folder, *direction).is_empty());
        if !attached && let Err(error) = remove(&folder) {
            log::warn!("{error}");
        }
    }
}

/// Ends enforcement on one interface and forgets its counters.
pub(super) fn detach_interface(pins: &Pins, index: u32) -> Result<(), DataplaneError> {
    let folder = pins.interface(index);
    // The links and filters of an interface that is gone are gone with it.
    if let Some(interface) = interfaces::with_index(index)? {
        for direction in [Direction::Ingress, Direction::Egress] {
            for attachment in Attachment::present(&folder, direction) {
                attach::remove(&interface, &attachment.pin(&folder, direction), attachment, direction)?;
            }
        }
    }
    remove(&folder)
}
