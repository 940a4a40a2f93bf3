//! `tollgate detach`: the end of enforcement.

use super::{Global, Outcome, require_root};
use crate::dataplane;

/// End all enforcement: take the programs off their hooks and forget counters, limits and flows
///
/// This is the only command that ends enforcement, and it needs no daemon. A daemon that runs goes on running and enforces
/// nothing until the next `tollgate apply`. Bans stay in the state directory and come back with the next policy.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(global: &Global, _: &Args) -> Outcome {
    require_root("tollgate detach")?;
    let _change = global.change()?;
    let interfaces = dataplane::detach(&global.pins())?;
    if interfaces.is_empty() {
        println!("nothing was enforced");
    } else {
        println!("not enforced any more: {}", interfaces.join(", "));
    }
    Ok(())
}
