//! Certificates and private keys from their files: read by the daemon, which may, for the worker, which may not.
//!
//! Called by [`crate::control`] before a policy goes live and whenever a file has changed. What stands in them is judged where TLS
//! is configured.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::link::Secrets;
use super::plan::{Certificate, Plan};

/// Most bytes of such a file.
const MOST_BYTES: u64 = 256 << 10;

/// A file that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener}: {what} {path}: {why}")]
pub struct SecretError {
    /// The listener's name.
    pub listener: String,
    /// `certificate` or `key`.
    pub what: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub why: String,
}

/// Reads all that a plan names. With it, what an operator should be warned of. `issued` gives key and chain of certificates that an
/// authority issues.
///
/// # Errors
/// The first file that can't be read.
pub fn read(
    plan: &Plan,
    issued: impl Fn(&Certificate) -> Result<String, String>,
) -> Result<(Secrets, Vec<String>), SecretError> {
    let (mut secrets, mut warnings) = (Secrets::default(), Vec::new());
    for (name, listener) in &plan.listeners {
        for one in listener.tls.iter().flat_map(|tls| &tls.certificates) {
            let failed = |what, path: &Path| {
                let (listener, path) = (name.clone(), path.to_owned());
                move |error: io::Error| SecretError { listener, what, path, why: why(&error) }
            };
            if one.authority.is_some() {
                let failed = |why| SecretError {
                    listener: name.clone(),
                    what: "certificate",
                    path: one.chain.clone(),
                    why,
                };
                secrets.0.insert(one.chain.clone(), issued(one).map_err(failed)?);
                continue;
            }
            let (chain, _) = text(&one.chain).map_err(failed("certificate", &one.chain))?;
            let (key, mode) = text(&one.key).map_err(failed("key", &one.key))?;
            secrets.0.insert(one.chain.clone(), chain);
            let is_new = secrets.0.insert(one.key.clone(), key).is_none();
            if is_new && mode & 0o077 != 0 {
                warnings.push(format!(
                    "private key {} can be read by more than its owner (mode {:03o}): chmod 600",
                    one.key.display(),
                    mode & 0o777
                ));
            }
        }
    }
    Ok((secrets, warnings))
}

/// Every file of the operator's that a plan names.
pub fn files(plan: &Plan) -> Vec<PathBuf> {
    let tls = plan.listeners.values().filter_map(|listener| listener.tls.as_ref());
    let theirs = tls.flat_map(|tls| &tls.certificates).filter(|one| one.authority.is_none());
    let both = theirs.flat_map(|one| [one.chain.clone(), one.key.clone()]);
    let mut files: Vec<_> = both.collect();
    files.sort();
    files.dedup();
    files
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::InvalidData => "it is no PEM file".to_owned(),
        _ => error.to_string(),
    }
}

/// The text of a regular file, and its mode. Opened without waiting: it may be a pipe.
///
/// # Errors
/// If it is none, too large, or can't be read.
pub fn text(path: &Path) -> io::Result<(String, u32)> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    if meta.len() > MOST_BYTES {
        return Err(io::Error::other(format!("it has more than {} KiB", MOST_BYTES >> 10)));
    }
    let mut text = String::new();
    file.take(MOST_BYTES).read_to_string(&mut text)?;
    Ok((text, meta.mode()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::plan::{Listener, Tls, TlsVersion};
    use super::*;

    fn plan(chain: &Path, key: &Path) -> Plan {
        let certificate =
            Certificate { chain: chain.to_owned(), key: key.to_owned(), names: Vec::new(), authority: None };
        let tls = Tls { certificates: vec![certificate], min_version: TlsVersion::V1_2, ciphers: Vec::new() };
        let listener = Listener { bind: Vec::new(), tls: Some(tls), http2: true };
        Plan { listeners: BTreeMap::from([("https".to_owned(), listener)]), ..Plan::default() }
    }

    #[test]
    fn what_others_may_read_is_warned_of_and_what_is_no_file_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        fs::write(&chain, "chain").expect("written");
        fs::write(&key, "key").expect("written");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a mode");
        let plan = plan(&chain, &key);
        let (secrets, warnings) = read(&plan, |_| Err("nobody issues it".to_owned())).expect("read");
        assert_eq!([&secrets.0[&chain], &secrets.0[&key]], ["chain", "key"]);
        assert_eq!(warnings, [""; 0]);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).expect("a mode");
        let (_, warnings) = read(&plan, |_| Err("nobody issues it".to_owned())).expect("read");
        assert!(warnings[0].contains("key.pem") && warnings[0].contains("640"), "{warnings:?}");
        fs::remove_file(&key).expect("removed");
        let error = read(&plan, |_| Err("nobody issues it".to_owned())).expect_err("gone").to_string();
        assert!(error.starts_with("listener https: key ") && error.ends_with("no such file"), "{error}");
        nix::unistd::mkfifo(&key, nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
        assert!(
            read(&plan, |_| Err("nobody issues it".to_owned()))
                .expect_err("a pipe")
                .to_string()
                .contains("no regular file")
        );
        assert_eq!(files(&plan), [chain, key]);
    }
}
