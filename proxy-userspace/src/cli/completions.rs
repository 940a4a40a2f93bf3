//! `tollgate completions`: for the shell.

use clap_complete::{Shell, generate};

use super::Outcome;

/// Print a completion script for a shell
///
/// Put the output where your shell looks for completions, and it completes commands and flags of tollgate.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tollgate completions bash > /etc/bash_completion.d/tollgate
  tollgate completions zsh > \"${fpath[1]}/_tollgate\"
  tollgate completions fish > ~/.config/fish/completions/tollgate.fish")]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &Args, command: &mut clap::Command) -> Outcome {
    let mut script = Vec::new();
    generate(args.shell, command, "tollgate", &mut script);
    super::table::print(&String::from_utf8_lossy(&script));
    Ok(())
}
