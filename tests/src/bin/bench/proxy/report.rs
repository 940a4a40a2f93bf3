//! Tables of what was measured, and their places in `docs/performance.md`. Called by `mod.rs`.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};
use tollgate_tests::tollgate::workspace;

use super::goals::Line;
use super::profile::Profile;
use super::reloads::{HTTP1, HTTP2, Losses, RELOADS, SOCKETS};
use super::stage::{Contender, versions};

/// The file, from the top of the source tree.
const FILE: &str = "docs/performance.md";

/// What the machine is.
pub fn machine(rounds: usize, seconds: f64, load: &str) -> Result<String> {
    let info = fs::read_to_string("/proc/cpuinfo")?;
    let model = info.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches(['\t', ':', ' ']).split_whitespace().collect::<Vec<_>>().join(" ");
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let [ours, nginx, haproxy] = versions()?;
    let cores = std::thread::available_parallelism()?;
    Ok(format!(
        "{cores} processors ({model}), Linux {}; Tollgate {ours}, nginx {nginx}, HAProxy {haproxy}. Medians of {rounds} rounds, \
         {seconds} s for each turn. Load of the machine before: {load}.\n",
        kernel.trim()
    ))
}

/// The goals and whether they are met.
pub fn table(lines: &[Line]) -> String {
    let mut table = "| | goal | Tollgate | nginx | HAProxy | |\n|---|---|---|---|---|---|\n".to_owned();
    for line in lines {
        let met = match line.met {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "",
        };
        let [ours, nginx, haproxy] = &line.values;
        let _ = writeln!(table, "| {} | {} | {ours} | {nginx} | {haproxy} | {met} |", line.what, line.goal);
    }
    table
}

/// What reloads cost clients.
pub fn reloads(losses: &[(Contender, Losses)]) -> String {
    let mut table = format!(
        "{RELOADS} reloads while {HTTP1} clients of HTTP/1.1 and {HTTP2} of HTTP/2 ask, and {SOCKETS} WebSockets are open:\n\n\
         | | answered | failed | connections closed | WebSockets lost |\n|---|---|---|---|---|\n"
    );
    for (contender, Losses { answered, failed, closed, sockets }) in losses {
        let _ = writeln!(table, "| {} | {answered} | {failed} | {closed} | {sockets} |", contender.name());
    }
    table
}

/// Where the time goes in what was missed.
pub fn profiles(profiles: &[Profile]) -> String {
    let mut text = String::new();
    for Profile { work, top, objects } in profiles {
        let share = |share: &super::profile::Share| format!("{} {:.1} %", share.symbol, share.percent);
        let objects: Vec<_> = objects.iter().filter(|object| object.percent >= 1.0).map(share).collect();
        let _ = writeln!(text, "{}: {}.\n", work.name(), objects.join(", "));
        let _ = writeln!(text, "| share | symbol |\n|---|---|");
        for top in top {
            let _ = writeln!(text, "| {:.1} % | `{}` |", top.percent, top.symbol.replace('|', "\\|"));
        }
        text.push('\n');
    }
    text
}

/// Puts text in the place that the file has for it.
pub fn write(place: &str, text: &str) -> Result<()> {
    let path = workspace().join(FILE);
    let file = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let replaced =
        replaced(&file, place, text).with_context(|| format!("{FILE} has no place for {place}"))?;
    fs::write(&path, replaced).with_context(|| path.display().to_string())
}

/// The file with something else between the two marks of a place.
fn replaced(file: &str, place: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {place}: begin -->\n"), format!("<!-- {place}: end -->"));
    let (before, rest) = file.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let file = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n<!-- y: begin -->\n<!-- y: end -->\n";
        let new = replaced(file, "x", "new\n").expect("a place");
        assert_eq!(
            new,
            "a\n<!-- x: begin -->\n\nnew\n\n<!-- x: end -->\nb\n<!-- y: begin -->\n<!-- y: end -->\n"
        );
        assert_eq!(replaced(&new, "x", "new"), Some(new.clone()));
        assert_eq!(replaced(file, "z", "new"), None);
    }

    #[test]
    fn the_file_has_both_places() {
        let file = fs::read_to_string(workspace().join(FILE)).expect(FILE);
        for place in ["measured", "profiled"] {
            assert!(replaced(&file, place, "").is_some(), "{place}");
        }
    }
}
