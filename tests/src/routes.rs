//! The routes that ship, with certificates of the lab in the place of the deployment's. For tests of the L7 proxy in the lab.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Result, ensure};

use crate::deployment::policy;

/// The address that the CRM's certificate is for.
pub const CRM: &str = "192.168.0.104";
/// The name that the main platform's certificate is for.
pub const DASHBOARD: &str = "dashboard.krystal.technology";

/// Makes a certificate that signs itself, and its key for root alone: `FILE.crt` and `FILE.key`.
pub fn certificate(folder: &Path, file: &str, name: &str) -> Result<()> {
    let made = rcgen::generate_simple_self_signed([name.to_owned()])?;
    fs::write(folder.join(format!("{file}.crt")), made.cert.pem())?;
    let key = folder.join(format!("{file}.key"));
    fs::write(&key, made.signing_key.serialize_pem())?;
    Ok(fs::set_permissions(key, fs::Permissions::from_mode(0o600))?)
}

/// `policies/platform.toml` with the certificates of `folder`, made here, and its log there.
pub fn platform(folder: &Path) -> Result<String> {
    for (file, name) in [("crm", CRM), ("dashboard", DASHBOARD)] {
        certificate(folder, file, name)?;
    }
    let mut text = fs::read_to_string(policy("platform"))?;
    let log = format!("[proxy]\naccess-log = \"{}\"\n", folder.join("access.log").display());
    text = text.replace("[proxy]\n", &log);
    for name in ["crm", "dashboard"] {
        text = text.replace(&format!("\"/etc/ssl/{name}/"), &format!("\"{}/", folder.display()));
    }
    ensure!(!text.contains("/etc/ssl"), "a certificate of the deployment is left:\n{text}");
    Ok(text)
}
