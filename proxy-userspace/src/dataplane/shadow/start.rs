//! How a shadow run begins: the candidate's programs are verified beside those in force, which are then replaced by the same
//! with a shadow. Called by `tollgate apply --shadow`, with the lock for changes held.

use std::path::Path;

use aya::Ebpf;
use aya::maps::{Array, MapData};
use proxy_common::abi::RuleName;
use proxy_common::abi::flow::{FragmentKey, FragmentValue};
use proxy_common::abi::shadow::{PAIRS_LEN, SOURCES_LEN};

use super::{ANSWER, CARRY, InForce, ended, stop};
use crate::dataplane::apply::targets;
use crate::dataplane::attach::Placed;
use crate::dataplane::candidate::Candidate;
use crate::dataplane::error::{Context, DataplaneError, at, missing};
use crate::dataplane::interfaces::own_addresses;
use crate::dataplane::live::{self, Enforced};
use crate::dataplane::object::{self, Plan};
use crate::dataplane::pins::{Pins, make, remove};
use crate::dataplane::shared::Shared;
use crate::dataplane::unconfirmed::{self, Unconfirmed};
use crate::dataplane::{again, selftest};
use crate::policy::Policy;
use crate::policy::compile::{Compiled, RuleIds, compile_for_host, entry_for};
use crate::simulate::test_interfaces;

/// What a shadow reads of the state that outlives policies, and never writes.
const READ_ONLY: [&str; 7] =
    ["FLOWS", "ESTABLISHED", "STACKED", "BANS", "BAN_PREFIXES", "BAN_FILTER", "SWITCHES"];

/// A shadow that has begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    /// Names of the interfaces whose packets it judges.
    pub interfaces: Vec<String>,
    /// How many of the candidate's own tests were run, and passed.
    pub tests: usize,
    /// What the operator should know.
    pub notes: Vec<String>,
}

/// Begins a shadow run of a policy. One that runs already ends once this one is known to be sound.
///
/// # Errors
/// If nothing is enforced that it could be compared with, a policy waits to be confirmed, the candidate does not fit this host
/// or fails its tests, or the kernel refuses something. What is enforced is enforced as before then.
pub fn start(pins: &Pins, shared: &Shared, policy: &Policy) -> Result<Begun, DataplaneError> {
    unconfirmed::tidy(pins)?;
    match unconfirmed::unconfirmed(pins)? {
        Some(Unconfirmed { left: Some(left) }) => return Err(DataplaneError::Waits(left)),
        Some(Unconfirmed { left: None }) => unconfirmed::revert(pins)?,
        None => {}
    }
    let in_force = live::enforced(pins)?;
    let mut notes = Vec::new();
    let judged = choose(policy, &in_force, &mut notes)?;
    let mut names: Vec<_> = judged.iter().map(|one| one.interface.name.clone()).collect();
    let interfaces = names.clone();
    names.extend(test_interfaces(policy).into_iter().filter(|name| !interfaces.contains(name)));

    let bad_policy = |source| DataplaneError::Compile { policy: policy.path.clone(), source };
    let live_rule = |id| in_force.iter().any(|enforced| enforced.label.has_rule(id));
    let rules = RuleIds::assign(&shared.rules()?, &live_rule, policy).map_err(bad_policy)?;
    let compiled = compile_for_host(policy, &names, &own_addresses()?, &rules).map_err(bad_policy)?;
    let mut candidate = Candidate::build(pins, shared, policy, &compiled, None)?;
    let tests = selftest::run(&mut candidate, policy, &compiled)?.tests;

    if let Some(file) = stop(pins)? {
        notes.push(ended(&file));
    }
    let mut placed = Vec::new();
    match begin(pins, &candidate, &compiled, judged, &mut placed) {
        Ok(()) => Ok(Begun { interfaces, tests, notes }),
        Err(error) => {
            for step in placed.into_iter().rev() {
                if let Err(undo) = step.undo() {
                    log::error!("going back to the programs before: {undo}");
                }
            }
            remove(&pins.shadow())?;
            Err(error)
        }
    }
}

/// The interfaces that both policies enforce.
fn choose(
    policy: &Policy,
    in_force: &[Enforced],
    notes: &mut Vec<String>,
) -> Result<Vec<Enforced>, DataplaneError> {
    if in_force.is_empty() {
        return Err(DataplaneError::NoShadow(
            "nothing is enforced that the candidate could be compared with".to_owned(),
        ));
    }
    for wanted in targets(policy, true, &mut Vec::new())? {
        if !in_force.iter().any(|one| one.interface.index == wanted.index) {
            notes.push(format!(
                "{} is not enforced now, and what the candidate would drop there is not seen",
                wanted.name
            ));
        }
    }
    let (judged, others): (Vec<_>, Vec<_>) =
        in_force.iter().cloned().partition(|one| entry_for(policy, &one.interface.name).is_some());
    notes.extend(others.iter().map(|one| {
        format!("{} is not enforced by the candidate: everything would pass there", one.interface.name)
    }));
    if judged.is_empty() {
        let names: Vec<_> = in_force.iter().map(|one| one.interface.name.as_str()).collect();
        let why = format!("{} enforces none of {}", policy.path.display(), names.join(", "));
        return Err(DataplaneError::NoShadow(why));
    }
    Ok(judged)
}

fn begin(
    pins: &Pins,
    candidate: &Candidate<'_>,
    compiled: &Compiled,
    judged: Vec<Enforced>,
    placed: &mut Vec<Placed>,
) -> Result<(), DataplaneError> {
    make(&pins.shadow())?;
    let mut loads = Vec::with_capacity(judged.len());
    for (nth, enforced) in judged.into_iter().enumerate() {
        let mut in_force = InForce::load(pins, candidate.staging(), enforced)?;
        let mut shadow = load(pins, candidate, nth, in_force.enforced.interface.index)?;
        verify(&mut shadow, &mut in_force)?;
        loads.push((in_force, shadow));
    }
    if let Some((_, shadow)) = loads.first_mut() {
        describe(pins, candidate, compiled, shadow)?;
        // What sources owe now they would owe after an apply as well, and datagrams that are on their way go on.
        again::copy_cells(pins, shadow)?;
        again::copy_hash::<FragmentKey, FragmentValue>(pins, shadow, "FRAGMENTS")?;
    }
    // Every program is verified and knows the others before the first of them goes live.
    for (in_force, _) in &mut loads {
        placed.push(in_force.place(pins)?);
    }
    Ok(())
}

/// The candidate's programs for an interface. Tables, limits and fragments are its own, what it reads of flows and bans is live.
fn load(pins: &Pins, candidate: &Candidate<'_>, nth: usize, interface: u32) -> Result<Ebpf, DataplaneError> {
    let folder = pins.shadow();
    let plan = READ_ONLY.iter().fold(Plan::new(), |plan, name| plan.pinned(name, pins.shared_map(name)));
    let own = ["RULES", "CELLS", CARRY, "COMPARED", "PAIRS", "NEWLY_DROPPED", "NEWLY_PASSED"];
    let plan = own.iter().fold(plan, |plan, name| plan.pinned(name, folder.join(name)));
    let plan = plan.pinned("FRAGMENTS", candidate.staging().table("FRAGMENTS"));
    let plan = plan.pinned(ANSWER, pins.shadow_interface(interface).join(ANSWER));
    let plan = plan.sized("PAIRS", PAIRS_LEN as usize);
    let plan = plan.sized("NEWLY_DROPPED", SOURCES_LEN as usize).sized("NEWLY_PASSED", SOURCES_LEN as usize);
    candidate.load_shadow(nth, plan)
}

/// Verifies the candidate's program, and tells both which the other is.
fn verify(shadow: &mut Ebpf, in_force: &mut InForce) -> Result<(), DataplaneError> {
    let (name, program) = if in_force.enforced.attachment.hook() == "tc" {
        let program = object::classifier(shadow, object::TC_SHADOW)?;
        ("SHADOW_TC", program.fd().and_then(|fd| Ok(fd.try_clone()?)))
    } else {
        let program = object::xdp(shadow, object::xdp_shadow_for_kernel())?;
        ("SHADOW_XDP", program.fd().and_then(|fd| Ok(fd.try_clone()?)))
    };
    object::introduce(&mut in_force.ebpf, name, &program.context(|| name)?)?;
    match in_force.answer()? {
        Some(answer) => object::introduce(shadow, ANSWER, &answer),
        None => Ok(()),
    }
}

/// Leaves the candidate's label and the names of its rules for whoever asks. The live names are not touched.
fn describe(
    pins: &Pins,
    candidate: &Candidate<'_>,
    compiled: &Compiled,
    shadow: &mut Ebpf,
) -> Result<(), DataplaneError> {
    let map = shadow.map_mut("RULES").ok_or_else(|| missing("RULES"))?;
    let mut names: Array<_, RuleName> = Array::try_from(map).context(|| "RULES")?;
    for rule in &compiled.rules {
        let mut bytes = [0; 64];
        for (to, from) in bytes.iter_mut().zip(rule.name.bytes()) {
            *to = from;
        }
        names.set(u32::from(rule.id), RuleName { bytes }, 0).context(|| "RULES of a shadow")?;
    }
    let (from, to) = (candidate.staging().table("LABEL"), pins.shadow().join("LABEL"));
    pin_again(&from, &to)
}

fn pin_again(from: &Path, to: &Path) -> Result<(), DataplaneError> {
    MapData::from_pin(from).context(at(from))?.pin(to).context(at(to))
}
