//! `tollgate history`: the policies that were in force.

use anyhow::Context;

use super::table::{print, rendered, table};
use super::{Global, Outcome, reading};

/// Show the last ten policies that were in force: number, time, hash, and what became of them
///
/// `tollgate apply --revision N` puts one of them to work again as it was then, lists included. Who is not root asks the
/// daemon (`run --read-group`).
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(global: &Global, args: &Args) -> Outcome {
    let revisions = reading::history(global)?;
    if args.json {
        print(&format!("{}\n", serde_json::to_string(&revisions).context("JSON")?));
        return Ok(());
    }
    if revisions.is_empty() {
        print(&format!("no policy has been in force yet (looked in {})\n", global.state_dir.display()));
        return Ok(());
    }
    let mut rows = table(&["#revision", "applied", "result", "hash", "file"]);
    for one in revisions.iter().rev() {
        let hash = one.hash.get(..12).unwrap_or_default();
        rows.add_row([
            &one.revision.to_string(),
            &one.time.to_string(),
            one.fate.sentence(),
            hash,
            &one.file.display().to_string(),
        ]);
    }
    print(&rendered(&rows));
    Ok(())
}
