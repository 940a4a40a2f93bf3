//! Programs whose shadow can't be reached, and what older kernels can't do: neither changes a verdict.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::Path as File;

use anyhow::{Context, Result, ensure};
use aya_obj::Object;
use aya_obj::generated::{BPF_CALL, BPF_JMP};
use tollgate::dataplane::{Trial, TrialHook, kernel_programs};
use tollgate::policy;
use tollgate::policy::compile::{Clock, RuleIds, compile};
use tollgate::simulate::Simulation;
use tollgate_tests::frames::{ACK, Path};
use tollgate_tests::lab::{UPLINK, require_root};

use super::{LAN, LINK, POLICY, SERVER};

const KEYS: [u64; 3] = [1, 2, 3];
/// `bpf_xdp_get_buff_len`, which came with Linux 5.18.
const LENGTH_OF_ALL_BUFFERS: i32 = 188;

/// A tail call into an empty array: the packet is judged, counted and answered as without a shadow.
#[test]
fn a_shadow_that_is_not_there_changes_nothing() -> Result<()> {
    require_root()?;
    for text in [POLICY.to_owned(), POLICY.replace("default = \"drop\"", "default = \"reject\"")] {
        let policy = policy::parse(&text, File::new("policy.toml"))?;
        let rules = RuleIds::assign(&[], &|_| false, &policy)?;
        let compiled = compile(&policy, &[UPLINK.to_owned()], &rules)?;
        let ids = || compiled.rules.iter().map(|rule| rule.id).collect();
        let stranger = Ipv4Addr::new(203, 0, 113, 9);
        let mut frames = Vec::new();
        for port in [7001, 7002, 7003, 9] {
            frames.extend(
                [LAN, stranger].map(|from| LINK.ip(&Path::new(from, SERVER).udp(4000, port, b"data"))),
            );
            frames.push(LINK.ip(&Path::new(LAN, SERVER).tcp(4000, port, ACK, 1, b"data")));
        }
        // Cut short in its IP header, which TC does not test-run.
        let broken = frames.first().and_then(|frame| frame.get(..30)).context("a frame")?.to_vec();
        for hook in [TrialHook::Xdp, TrialHook::XdpLinear, TrialHook::Tc] {
            let mut said = Vec::new();
            for shadowed in [0, 1] {
                let settings = compiled.settings(0, Clock::Given, KEYS);
                let settings = proxy_common::abi::settings::Settings { shadowed, ..settings };
                let mut trial = Trial::with_settings(&compiled.tables, settings, ids(), hook)?;
                let mut host = Simulation::new(&compiled, 0);
                let mut outcomes = Vec::new();
                let broken = (hook != TrialHook::Tc).then_some(&broken);
                for frame in frames.iter().chain(broken) {
                    // Fails if the verdict is not that of the counter.
                    outcomes.push(trial.ingress(frame, host.ingress(frame, 0))?);
                }
                said.push((outcomes, trial.total()?));
            }
            let [without, with] = &said[..] else { unreachable!("two runs") };
            ensure!(without == with, "{hook:?}: {without:?}, and not there {with:?}");
            let reasons: BTreeSet<_> = without.0.iter().map(|outcome| outcome.reason as u8).collect();
            ensure!(reasons.len() >= 3, "{hook:?}: too much alike: {reasons:?}");
            ensure!(without.1.packets == without.0.len() as u64, "{hook:?}: {:?}", without.1);
        }
    }
    Ok(())
}

/// Only the programs that declare frames in several buffers may ask how long all of them are: on kernels that have no such frames
/// nothing else may, nor what it calls.
#[test]
fn only_programs_for_several_buffers_ask_for_the_length_of_all() -> Result<()> {
    let object = kernel_programs();
    let object = Object::parse(object)?;
    let asks = |instructions: &[aya_obj::generated::bpf_insn]| {
        let is_call = |code: u8| u32::from(code) == BPF_JMP | BPF_CALL;
        instructions
            .iter()
            .any(|one| is_call(one.code) && one.src_reg() == 0 && one.imm == LENGTH_OF_ALL_BUFFERS)
    };
    let all = object.functions.values().filter(|function| asks(&function.instructions));
    let names: BTreeSet<_> = all.map(|function| function.name.as_str()).collect();
    ensure!(names == BTreeSet::from(["xdp_ingress", "xdp_shadow"]), "{names:?}");
    Ok(())
}
