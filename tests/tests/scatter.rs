//! The programs that give the benchmark's packets random sources: what they write, read back from the kernel.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use aya::Ebpf;
use aya::programs::{SchedClassifier, TestRun, TestRunOptions, Xdp};
use proxy_common::abi::scatter::next;
use tollgate::dataplane::kernel_programs;
use tollgate_tests::frames::{ACK, Link, Path};
use tollgate_tests::lab::require_root;

const LINK: Link = Link { source: [2, 0, 0, 0, 0, 1], destination: [2, 0, 0, 0, 0, 2] };
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 104);
const FIRST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);

#[test]
fn each_run_has_the_next_source_and_nothing_else_changes() -> Result<()> {
    require_root()?;
    let object = kernel_programs();
    let frame = |source| LINK.ip(&Path::new(source, SERVER).tcp(40_000, 83, ACK, 1, b"data"));
    for name in ["xdp_scatter", "xdp_scatter_linear", "tc_scatter"] {
        let mut ebpf = Ebpf::load(object)?;
        let program = ebpf.program_mut(name).context(name)?;
        for repeat in [1, 2, 1000] {
            let given = frame(FIRST);
            let mut seen = vec![0; given.len()];
            let options = TestRunOptions {
                data_in: Some(&given),
                data_out: Some(&mut seen),
                repeat,
                ..Default::default()
            };
            if name == "tc_scatter" {
                let program: &mut SchedClassifier = (&mut *program).try_into()?;
                if program.fd().is_err() {
                    program.load().context(name)?;
                }
                program.test_run(options)?;
            } else {
                let program: &mut Xdp = (&mut *program).try_into()?;
                if program.fd().is_err() {
                    program.load().context(name)?;
                }
                program.test_run(options)?;
            }
            let source = (0..repeat).fold(u32::from(FIRST), |source, _| next(source));
            // The checksums are those of the first source: nothing here reads them.
            let mut expected = given.clone();
            expected.splice(26..30, source.to_be_bytes());
            ensure!(seen == expected, "{name} after {repeat} runs: {seen:x?}, and not {expected:x?}");
        }
    }
    Ok(())
}
