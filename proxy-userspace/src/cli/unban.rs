//! `tollgate unban`: the end of bans before their time.

use std::path::PathBuf;

use super::ban::gather;
use super::{Global, Outcome, require_root};
use crate::bans::{Registry, Unbanned};
use crate::policy::units::Target;

/// End bans before their time
///
/// It names what was banned: an address within a banned prefix stays banned, and the command says so. An IPv6 address
/// without a length ends the ban of its /64 and that of the address. What is not banned is no error: a ban that has ended by
/// itself is ended.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate unban 203.0.113.9
  tollgate unban --from old-list.txt
  tollgate unban --all")]
pub struct Args {
    /// Addresses and prefixes
    #[arg(value_name = "ADDR|PREFIX", required_unless_present_any = ["from", "all"])]
    targets: Vec<Target>,
    /// A list of them, one a line, or - for standard input; # begins a comment
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// End all bans
    #[arg(long, conflicts_with_all = ["targets", "from"])]
    all: bool,
}

pub fn run(global: &Global, args: &Args) -> Outcome {
    let targets = if args.all { Vec::new() } else { gather(&args.targets, args.from.as_deref())? };
    require_root("tollgate unban")?;
    let registry = Registry::new(&global.pins(), &global.state_dir);
    if args.all {
        let ended = {
            let _change = global.change()?;
            registry.clear()
        }?;
        println!("ended all {ended} bans");
        return Ok(());
    }
    let done = {
        let _change = global.change()?;
        registry.unban(&targets)
    }?;
    println!("{}", sentence(&targets, &done));
    for (net, wider) in &done.within {
        println!("{net} is still banned, with all of {wider}");
    }
    Ok(())
}

fn sentence(targets: &[Target], done: &Unbanned) -> String {
    match (targets, done.ended.as_slice()) {
        ([target], []) => format!("{target} was not banned"),
        ([target], [net]) if target.net == *net => format!("unbanned {target}"),
        ([target], [net]) => format!("unbanned {net}, the network of {target}"),
        (_, ended) => format!("ended {} bans", ended.len()),
    }
}
