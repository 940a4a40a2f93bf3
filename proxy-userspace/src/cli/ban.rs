//! `tollgate ban`: nothing passes from these sources any more, whatever the policy says.

use std::io::stdin;
use std::path::{Path, PathBuf};

use super::{Failure, Global, Outcome, require_root};
use crate::bans::{BanError, LONGEST_WHY, Protected, Registry, Resolved};
use crate::policy::units::{Target, TimeSpan};
use crate::policy::{load_targets, parse_targets};

/// Of so many refused prefixes of a list it is said why.
const MOST_REFUSALS: usize = 10;

/// Ban sources: nothing passes from them, whatever the policy says, until the time is over
///
/// The ban is in force when the command returns, on every interface, and its end is decided in the kernel: it needs no
/// daemon, and it outlives the daemon, changes of the policy and reboots. A source that is banned already is banned for the
/// new time from now on. Connections that exist are cut as well.
///
/// An IPv6 address without a length stands for its /64, which one host has for itself; write /128 for that address alone.
///
/// Refused without --force: this host's own addresses, its gateways, the other end of the SSH session that you are in, and
/// prefixes wider than /16 (IPv4) or /32 (IPv6). If one prefix of a list is refused, or wrong, none is banned.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate ban 203.0.113.9 --for 10m --why \"scans\"
  tollgate ban 198.51.100.0/24 2001:db8:bad::/48
  zcat blocklist.gz | tollgate ban --from - --for 1d")]
pub struct Args {
    /// Addresses and prefixes
    #[arg(value_name = "ADDR|PREFIX", required_unless_present = "from")]
    targets: Vec<Target>,
    /// A list of them, one a line, or - for standard input; # begins a comment
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,
    /// How long, such as 10m, 4h or 5d; without it until `tollgate unban`
    #[arg(long = "for", value_name = "DURATION")]
    time: Option<TimeSpan>,
    /// Why, for whoever reads `tollgate bans`: at most 200 bytes
    #[arg(long, value_name = "TEXT", default_value = "", value_parser = why)]
    why: String,
    /// Ban also what you may need yourself
    #[arg(long)]
    force: bool,
}

pub fn run(global: &Global, args: &Args) -> Outcome {
    if args.time.is_some_and(|time| time.ns == 0) {
        return Err(Failure::Input("a ban for no time is none: write --for 10m, or leave it out".to_owned()));
    }
    let targets = gather(&args.targets, args.from.as_deref())?;
    require_root("tollgate ban")?;
    let protected = Protected::of_host()?;
    let (mut resolved, mut refused) = (Vec::with_capacity(targets.len()), Vec::new());
    for target in &targets {
        match protected.resolve(target, args.force) {
            Ok(one) => resolved.push(one),
            Err(why) => refused.push(why),
        }
    }
    if !refused.is_empty() {
        return Err(refusal(&refused));
    }
    let nets: Vec<_> = resolved.iter().map(Resolved::net).collect();
    let done = {
        let _change = global.change()?;
        Registry::new(&global.pins(), &global.state_dir).ban(&nets, args.time, &args.why)
    };
    done?;
    let time = args.time.map_or_else(|| "until it is unbanned".to_owned(), |time| format!("for {time}"));
    match (targets.as_slice(), resolved.as_slice()) {
        ([target], [Resolved::Whole(net)]) if target.net == *net => println!("banned {target} {time}"),
        ([target], [Resolved::Whole(net)]) => println!("banned {net}, the network of {target}, {time}"),
        ([target], [Resolved::Alone(_, has)]) => {
            println!("banned {target} {time}, without the rest of its /64, which has {has}");
        }
        _ => println!("banned {} prefixes {time}", nets.len()),
    }
    Ok(())
}

/// The targets of the arguments and of a list.
pub fn gather(targets: &[Target], from: Option<&Path>) -> Result<Vec<Target>, Failure> {
    let mut all = targets.to_vec();
    if let Some(path) = from {
        let list = if path == Path::new("-") {
            parse_targets(stdin().lock(), Path::new("standard input"))
        } else {
            load_targets(path)
        };
        all.extend(list.map_err(|error| Failure::Input(error.to_string()))?);
    }
    if all.is_empty() {
        return Err(Failure::Input(
            "the list has no prefix: it is more often a failed download than a wish".to_owned(),
        ));
    }
    Ok(all)
}

fn refusal(why: &[String]) -> Failure {
    let mut text = String::from("nothing was banned:\n");
    why.iter().take(MOST_REFUSALS).for_each(|one| text.push_str(&format!("  {one}\n")));
    if why.len() > MOST_REFUSALS {
        text.push_str(&format!("  and {} more\n", why.len() - MOST_REFUSALS));
    }
    Failure::Refused(text + "leave that out, or ban it all the same with --force")
}

fn why(text: &str) -> Result<String, String> {
    if text.len() > LONGEST_WHY {
        return Err(format!("it has {} bytes, and {LONGEST_WHY} are kept", text.len()));
    }
    // One line of a table.
    Ok(text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect())
}

impl From<BanError> for Failure {
    fn from(error: BanError) -> Self {
        match error {
            BanError::Kernel(error) => error.into(),
            other => Self::Refused(other.to_string()),
        }
    }
}
