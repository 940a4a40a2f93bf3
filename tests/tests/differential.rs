//! The meaning of a policy, the engine on the host and the program in the kernel say the same of random packets: see
//! `tollgate_tests::differential`. These are small runs, with overflow checks in the engine on the host; the binary of the
//! same name does large ones.

use tollgate_tests::differential::{Options, Summary, run};
use tollgate_tests::lab::require_root;

fn agreed(options: Options) -> Summary {
    let summary = run(options).expect("a run");
    let found: Vec<String> = summary.disagreements.iter().take(3).map(ToString::to_string).collect();
    assert!(
        found.is_empty(),
        "{} policies are not judged alike:\n{}",
        summary.disagreements.len(),
        found.join("\n")
    );
    summary
}

#[test]
fn reference_engine_and_kernel_agree() {
    require_root().expect("root");
    let options = Options { policies: 60, packets: 400, seed: 1_000_000, kernel_every: 1, threads: 2 };
    let summary = agreed(options);
    assert_eq!(summary.packets + summary.sent, 24_000);
    // What the kernel takes for no test-run are frames too short for a header.
    assert!(summary.xdp * 100 > summary.packets * 95 && summary.tc * 100 > summary.packets * 90, "{summary}");
}

#[test]
fn reference_and_engine_agree_and_every_reason_occurs() {
    let options = Options { policies: 400, packets: 1000, seed: 2_000_000, kernel_every: 0, threads: 2 };
    let summary = agreed(options);
    assert!(summary.uncovered().is_empty(), "{summary}");
}

#[test]
fn a_seed_repeats_a_policy_and_its_packets() {
    let sums = |policies, seed| {
        let mut reasons = [0; 64];
        let options = Options { policies, packets: 200, seed, kernel_every: 0, threads: 1 };
        agreed(options).reasons.iter().zip(&mut reasons).for_each(|(count, sum)| *sum = *count);
        reasons
    };
    // 39 and 40 are of two families.
    let both = sums(2, 39);
    let (first, second) = (sums(1, 39), sums(1, 40));
    assert!(both.iter().zip(first.iter().zip(second)).all(|(both, (first, second))| *both == first + second));
    assert_ne!(first, second);
}
