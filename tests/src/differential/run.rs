//! Runs families of policies side by side.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use proxy_common::abi::reason::MAX_REASONS;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::court::Court;
use super::family::{FAMILY, Family, Member};
use super::report::{Disagreement, Summary};
use super::traffic::Traffic;
use super::witness::Witness;

/// How much to test.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Random policies.
    pub policies: u64,
    /// Frames a policy.
    pub packets: u64,
    /// Where everything random comes from.
    pub seed: u64,
    /// Every how many families of [`FAMILY`] policies the kernel is asked too; 0: never.
    pub kernel_every: u64,
    /// How many families are tested at a time; 0: as many as there are processors.
    pub threads: usize,
}

/// Tests as many policies as are asked for, and says after each family what came out so far.
///
/// # Errors
/// If something can't be run at all: the kernel refuses a program, or a policy can't be compiled.
pub fn run(options: Options, progress: impl Fn(&Summary) + Sync) -> Result<Summary> {
    let started = Instant::now();
    let processors = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if options.threads == 0 { processors() } else { options.threads };
    let families = families(options.seed, options.policies);
    let next = AtomicUsize::new(0);
    let total = Mutex::new(Ok(Summary::default()));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seeds) = families.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let number = seeds.start / FAMILY;
                    let kernel = options.kernel_every > 0 && number.is_multiple_of(options.kernel_every);
                    let found = test_family(seeds.clone(), options.packets, kernel)
                        .with_context(|| format!("seeds {seeds:?}"));
                    let Ok(mut total) = total.lock() else { return };
                    match (found, total.as_mut()) {
                        (Ok(summary), Ok(total)) => {
                            total.add(summary);
                            total.elapsed = started.elapsed();
                            progress(total);
                        }
                        (Err(error), Ok(_)) => *total = Err(error),
                        (_, Err(_)) => return,
                    }
                }
            });
        }
    });
    let mut summary = total.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)?;
    summary.elapsed = started.elapsed();
    Ok(summary)
}

/// The seeds of a run, family by family.
fn families(seed: u64, policies: u64) -> Vec<Range<u64>> {
    let end = seed.saturating_add(policies);
    let mut families = Vec::new();
    let mut start = seed;
    while start < end {
        let next = (start / FAMILY + 1).saturating_mul(FAMILY).min(end);
        families.push(start..next);
        start = next;
    }
    families
}

fn test_family(seeds: Range<u64>, packets: u64, kernel: bool) -> Result<Summary> {
    let family = Family::draw(seeds)?;
    let mut witnesses = if kernel { Witness::both(&family)? } else { Vec::new() };
    let mut summary = Summary::default();
    for member in &family.members {
        summary.add(test_one(&family, member, &mut witnesses, packets)?);
    }
    for witness in &witnesses {
        let (judged, answers) = witness.totals()?;
        let sum = if witness.is_xdp() { &mut summary.xdp } else { &mut summary.tc };
        *sum += judged;
        summary.answers += answers;
    }
    Ok(summary)
}

/// One policy and its frames, up to the first disagreement. `kernel` are the programs of its family, or none.
///
/// # Errors
/// If something can't be run at all.
pub fn test_one(family: &Family, member: &Member, kernel: &mut [Witness], packets: u64) -> Result<Summary> {
    let mut court = Court::open(family, member, kernel)?;
    // Of its own, so that a policy that is drawn in another way keeps its traffic as far as it can.
    let rng = StdRng::seed_from_u64(member.seed.reverse_bits());
    let mut traffic = Traffic::new(&member.case.policy, rng);
    let mut frame = Vec::with_capacity(4096);
    let mut summary = Summary { policies: 1, reasons: vec![0; MAX_REASONS as usize], ..Summary::default() };
    for packet in 0..packets {
        let step = traffic.next_into(&mut frame);
        if step.egress {
            court.send(&frame, step.now_ns)?;
            summary.sent += 1;
            continue;
        }
        match court.judge(&frame, step.now_ns)? {
            Ok(reason) => summary.reasons[reason as usize] += 1,
            Err(said) => {
                let (seed, interface, policy) =
                    (member.seed, member.case.interface, member.case.text.clone());
                let found = Disagreement { seed, policy, interface, packet, step, frame, said };
                summary.disagreements.push(found);
                break;
            }
        }
        summary.packets += 1;
    }
    Ok(summary)
}
