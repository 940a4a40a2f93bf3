//! The whole of the deployment in a lab: its services, its policy, and the firewall that enforces it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::lab::Lab;
use crate::services::{Postgres, Services, TEMP_PREFIX};
use crate::tollgate::{Tollgate, binary, workspace};

/// Which hook a test asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// What the policy file says: native XDP on the lab's interfaces.
    AsWritten,
    /// TC, as on an interface whose driver has no native XDP.
    Tc,
}

impl Hook {
    /// A policy that asks for it.
    pub fn of(self, text: &str) -> Result<String> {
        match self {
            Self::AsWritten => Ok(text.to_owned()),
            Self::Tc => with_hook(text, "tc"),
        }
    }

    /// The hook that `status` must report in the lab.
    pub const fn expected(self) -> &'static str {
        match self {
            Self::AsWritten => "xdp",
            Self::Tc => "tc",
        }
    }
}

/// A lab in which the policy is enforced. Fields are dropped in this order.
#[derive(Debug)]
pub struct Deployment {
    /// The firewall.
    pub tollgate: Tollgate,
    /// The database, if the test wants one.
    pub postgres: Option<Postgres>,
    /// Everything else that listens.
    pub services: Services,
    /// The namespaces.
    pub lab: Lab,
    _policies: TempDir,
}

impl Deployment {
    /// `policies/platform.toml` with all services.
    pub fn platform(hook: Hook) -> Result<Self> {
        binary()?;
        let lab = Lab::new()?;
        let postgres = Some(Postgres::start(&lab)?);
        Self::start(lab, postgres, &packets_of("platform")?, hook)
    }

    /// A policy that the test wrote, without a database.
    pub fn with_policy(text: &str, hook: Hook) -> Result<Self> {
        binary()?;
        Self::start(Lab::new()?, None, text, hook)
    }

    /// The same with more arguments of `tollgate run`.
    pub fn with_arguments(text: &str, extra: &[&str]) -> Result<Self> {
        binary()?;
        let lab = Lab::new()?;
        let services = Services::start(&lab)?;
        Self::enforce_with(lab, None, services, text, extra)
    }

    fn start(lab: Lab, postgres: Option<Postgres>, text: &str, hook: Hook) -> Result<Self> {
        let services = Services::start(&lab)?;
        Self::enforce(lab, postgres, services, text, hook)
    }

    /// The first policy of a lab in which everything runs already.
    pub fn enforce(
        lab: Lab,
        postgres: Option<Postgres>,
        services: Services,
        text: &str,
        hook: Hook,
    ) -> Result<Self> {
        Self::enforce_with(lab, postgres, services, &hook.of(text)?, &[])
    }

    fn enforce_with(
        lab: Lab,
        postgres: Option<Postgres>,
        services: Services,
        text: &str,
        extra: &[&str],
    ) -> Result<Self> {
        let directory = policy_directory()?;
        let path = directory.path().join("policy.toml");
        fs::write(&path, text)?;
        let tollgate = Tollgate::start(&lab, &path, extra)?;
        Ok(Self { tollgate, postgres, services, lab, _policies: directory })
    }

    /// Writes a policy file beside the one in force.
    pub fn write_policy(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self._policies.path().join(name);
        fs::write(&path, text).with_context(|| path.display().to_string())?;
        Ok(path)
    }
}

/// One of the policies that ship with Tollgate.
pub fn policy(name: &str) -> PathBuf {
    workspace().join("policies").join(format!("{name}.toml"))
}

/// A policy that ships, without the sections of the L7 proxy: in whose place servers of the lab stand.
pub fn packets_of(name: &str) -> Result<String> {
    let text = fs::read_to_string(policy(name))?;
    let of_the_proxy = |line: &str| {
        let section = line.trim_start_matches('[');
        ["proxy]", "listeners.", "upstreams.", "routes."].iter().any(|one| section.starts_with(one))
    };
    let mut is_left_out = false;
    let mut rest = String::new();
    for line in text.lines() {
        if line.starts_with('[') {
            is_left_out = of_the_proxy(line);
        }
        if !is_left_out {
            rest.push_str(line);
            rest.push('\n');
        }
    }
    Ok(rest)
}

/// The policy with another hook on every interface.
pub fn with_hook(text: &str, hook: &str) -> Result<String> {
    let is_hook = |line: &str| {
        line.trim_start().strip_prefix("hook").is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    let written = text.lines().any(is_hook);
    let mut changed = String::new();
    for line in text.lines() {
        if is_hook(line) {
            changed.push_str(&format!("hook = \"{hook}\"\n"));
            continue;
        }
        changed.push_str(line);
        changed.push('\n');
        if !written && line.starts_with("[interfaces.") {
            changed.push_str(&format!("hook = \"{hook}\"\n"));
        }
    }
    ensure!(changed.contains(&format!("hook = \"{hook}\"")), "the policy names no interface");
    Ok(changed)
}

/// A directory with what policies read besides themselves.
fn policy_directory() -> Result<TempDir> {
    let prefix = format!("{TEMP_PREFIX}{}-policy-", std::process::id());
    let directory = tempfile::Builder::new().prefix(&prefix).tempdir()?;
    for entry in fs::read_dir(workspace().join("policies")).into_iter().flatten() {
        let path = entry?.path();
        let is_list = path.is_file() && path.extension() != Some("toml".as_ref());
        if let (true, Some(name)) = (is_list, path.file_name()) {
            fs::copy(&path, Path::new(directory.path()).join(name))?;
        }
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ships_without_its_routes_is_a_policy() -> Result<()> {
        let text = packets_of("platform")?;
        let policy = tollgate::policy::parse(&text, Path::new("platform.toml"))?;
        ensure!(policy.proxy.is_none(), "routes are left:\n{text}");
        let whole = tollgate::policy::load(&super::policy("platform"))?;
        ensure!(whole.proxy.is_some(), "no routes ship");
        ensure!(
            whole.services == policy.services && whole.tests.len() == policy.tests.len(),
            "packets have changed"
        );
        Ok(())
    }

    #[test]
    fn the_hook_is_replaced_or_added() -> Result<()> {
        let asked = with_hook("[interfaces.a]\nhook = \"auto\" # x\n", "tc")?;
        assert_eq!(asked, "[interfaces.a]\nhook = \"tc\"\n");
        assert_eq!(with_hook("[interfaces.a]\n", "tc")?, "[interfaces.a]\nhook = \"tc\"\n");
        assert!(with_hook("version = 1\n", "tc").is_err());
        Ok(())
    }
}
