//! The lock-down: what is enforced when a start has no policy, and nothing may pass because of that (`run --on-failure
//! closed`).
//!
//! It lets nothing new in: only what a host needs to keep its place on the link (ARP, neighbour discovery, router
//! advertisements, DHCP) and answers to what the host itself begins. Its interfaces are those of the last policy that was in
//! force, which [`remember`] writes down at each apply, names, patterns and hooks as the policy had them:
//!
//! ```text
//! <state-dir>/interfaces.json   {"version":1,"interfaces":[{"name":"enp1s0","hook":"auto"}]}
//! ```
//!
//! Called by `start` and `change`. A file that can't be read is as good as none: a policy is never guessed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::private;
use crate::policy::model::HookChoice;
use crate::policy::{self, Policy};

/// What stands in the place of a policy's file; absolute, since the kernel is told absolute paths.
pub const NAME: &str = "/built-in lock-down";
const FILE: &str = "interfaces.json";
const VERSION: u32 = 1;
/// A policy has no more.
const MOST: usize = 256;
/// Everything but the interfaces. No service: what the host does not begin itself is dropped.
const TEXT: &str = "version = 1\n[plumbing]\nrouter-advertisements = true\ndhcp = true\ndhcpv6 = true\n\
                    multicast-membership = true\nmdns = false\nping = false\n";

#[derive(Debug, Serialize, Deserialize)]
struct Known {
    version: u32,
    interfaces: Vec<Entry>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    name: String,
    hook: HookChoice,
}

/// Writes down where a policy is enforced. The file is there whole or not at all, and not written if nothing is new.
///
/// # Errors
/// If it can't be written.
pub fn remember(state_dir: &Path, policy: &Policy) -> io::Result<()> {
    let entries = policy.interfaces.iter().map(|one| Entry { name: one.name.clone(), hook: one.hook });
    let bytes = serde_json::to_vec(&Known { version: VERSION, interfaces: entries.collect() })?;
    let file = state_dir.join(FILE);
    if fs::read(&file).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir)?;
    let next = file.with_extension("json.new");
    private::write(&next, &bytes)?;
    fs::rename(&next, &file)?;
    File::open(state_dir)?.sync_all()
}

/// The lock-down for the interfaces that were written down; `None` if none were.
pub fn policy(state_dir: &Path) -> Option<Policy> {
    let file = state_dir.join(FILE);
    let bytes = match fs::read(&file) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            log::error!("{}: {error}", file.display());
            return None;
        }
    };
    let known = serde_json::from_slice::<Known>(&bytes).map_err(|error| error.to_string());
    let built = known.and_then(|known| match known {
        Known { version: VERSION, interfaces } if (1..=MOST).contains(&interfaces.len()) => build(interfaces),
        Known { version: VERSION, .. } => Err("no interfaces, or too many".to_owned()),
        Known { version, .. } => Err(format!("written by another version ({version})")),
    });
    match built {
        Ok(policy) => Some(policy),
        Err(why) => {
            log::error!("{}: {why}", file.display());
            None
        }
    }
}

/// By way of the policy language, so that names mean what they mean there.
fn build(interfaces: Vec<Entry>) -> Result<Policy, String> {
    let mut table = toml::Table::new();
    for Entry { name, hook } in interfaces {
        let hook = toml::Value::try_from(hook).map_err(|error| error.to_string())?;
        table.insert(name, toml::Table::from_iter([("hook".to_owned(), hook)]).into());
    }
    let tables = toml::Table::from_iter([("interfaces".to_owned(), table.into())]);
    let text = format!("{TEXT}{}", toml::to_string(&tables).map_err(|error| error.to_string())?);
    policy::parse(&text, Path::new(NAME)).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Policy {
        policy::parse(text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn it_has_the_interfaces_of_the_last_policy_and_nothing_passes_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        assert_eq!(policy(&state), None);
        let first = of(
            "version = 1\n[interfaces.eth0]\ndefault = \"accept\"\n[interfaces.\"br-*\"]\nhook = \"tc\"\n\
                        [services.ssh]\nports = [\"tcp/22\"]\nallow = \"any\"\n",
        );
        remember(&state, &first).expect("written");
        remember(&state, &first).expect("written again");
        let lockdown = policy(&state).expect("a lock-down");
        let names: Vec<_> = lockdown.interfaces.iter().map(|one| (one.name.as_str(), one.hook)).collect();
        // In order of their names.
        assert_eq!(names, [("br-*", HookChoice::Tc), ("eth0", HookChoice::Auto)]);
        assert!(lockdown.interfaces.iter().all(|one| one.default == policy::model::DefaultAction::Drop));
        assert!(lockdown.services.is_empty() && lockdown.plumbing.dhcp && !lockdown.plumbing.ping);
        assert_eq!(policy(&state).map(|again| again.hash), Some(lockdown.hash));
        assert!(!state.join("interfaces.json.new").exists());
    }

    #[test]
    fn a_damaged_file_is_as_good_as_none() {
        let folder = tempfile::tempdir().expect("a folder");
        for text in [
            "",
            "{",
            r#"{"version":1,"interfaces":[]}"#,
            r#"{"version":2,"interfaces":[{"name":"eth0","hook":"auto"}]}"#,
            r#"{"version":1,"interfaces":[{"name":"a name that none has","hook":"auto"}]}"#,
            r#"{"version":1,"interfaces":[{"name":"eth0\"]\n[services.x]","hook":"auto"}]}"#,
        ] {
            fs::write(folder.path().join(FILE), text).expect("a file");
            assert_eq!(policy(folder.path()), None, "{text}");
        }
    }
}
