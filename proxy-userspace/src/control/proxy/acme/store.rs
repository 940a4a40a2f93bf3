//! What is kept of certificates by ACME, in the daemon's state directory:
//!
//! ```text
//! <state-dir>/acme/<authority>/<first name>.pem      key and chain, in one file: they go together or not at all
//! <state-dir>/acme/<authority>/<first name>.retry    attempts that failed
//! <state-dir>/acme/<authority>/<directory>.account   the account's key
//! ```
//!
//! For root alone. Files appear whole or not at all. Used by [`super::Acme`] and [`super::order`].

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::schedule::{Life, Retry};
use crate::control::private;
use crate::proxy::acme::Account;
use crate::proxy::serve::tls;

/// The line by which a file says who issued its certificate. PEM has room for such lines (RFC 7468 section 2).
const DIRECTORY: &str = "Directory: ";
/// Bytes of a directory's hash that are part of a name.
const HASH_BYTES: usize = 8;

/// The folder of all of it.
#[derive(Clone, Debug)]
pub(super) struct Store {
    state_dir: PathBuf,
}

impl Store {
    /// Names the folder; touches nothing.
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { state_dir: state_dir.to_owned() }
    }

    /// Key and chain in a file of the plan, if there is one that is good.
    pub(super) fn issued(&self, file: &Path) -> Option<(String, Life)> {
        let path = self.state_dir.join(file);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                log::error!("{}: {error}", path.display());
                return None;
            }
        };
        match read(&text) {
            Ok(life) => Some((text, life)),
            Err(why) => {
                log::error!("{}: {why}; another certificate is ordered", path.display());
                None
            }
        }
    }

    /// Keeps what was issued for these names. Gives what it says of itself.
    ///
    /// # Errors
    /// If it is not good, or can't be written; what was kept before is then as it was.
    pub(super) fn keep(
        &self,
        file: &Path,
        directory: &str,
        names: &[String],
        key: &str,
        chain: &str,
    ) -> io::Result<Life> {
        let text = format!("{DIRECTORY}{directory}\n{key}{chain}");
        let life = read(&text).map_err(io::Error::other)?;
        if let Some(missing) = names.iter().find(|name| !life.names.contains(name)) {
            return Err(io::Error::other(format!("it is not for {missing}")));
        }
        self.write(file, text.as_bytes())?;
        Ok(life)
    }

    /// Attempts that failed.
    pub(super) fn retry(&self, file: &Path) -> Retry {
        let path = self.state_dir.join(file).with_extension("retry");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(_) => return Retry::default(),
        };
        serde_json::from_slice(&bytes).unwrap_or_else(|error| {
            log::warn!("{}: {error}", path.display());
            Retry::default()
        })
    }

    /// Keeps them, or forgets that there were any.
    ///
    /// # Errors
    /// If it can't be written.
    pub(super) fn keep_retry(&self, file: &Path, retry: Option<&Retry>) -> io::Result<()> {
        let file = file.with_extension("retry");
        match retry {
            Some(retry) => self.write(&file, &serde_json::to_vec(retry)?),
            None => match fs::remove_file(self.state_dir.join(file)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }

    /// The account with a directory.
    ///
    /// # Errors
    /// If there is one that can't be read: another one is not registered in its place.
    pub(super) fn account(&self, authority: &str, directory: &str) -> io::Result<Option<Account>> {
        match fs::read(self.state_dir.join(account_file(authority, directory))) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps it.
    ///
    /// # Errors
    /// If it can't be written.
    pub(super) fn keep_account(&self, authority: &str, directory: &str, account: &Account) -> io::Result<()> {
        self.write(&account_file(authority, directory), &serde_json::to_vec(account)?)
    }

    fn write(&self, file: &Path, bytes: &[u8]) -> io::Result<()> {
        let path = self.state_dir.join(file);
        let folder = path.parent().unwrap_or(&self.state_dir);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(named)?;
        let mut staging = path.clone().into_os_string();
        staging.push(".new");
        private::write(Path::new(&staging), bytes).map_err(named)?;
        fs::rename(&staging, &path).map_err(named)?;
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(named)
    }
}

/// Accounts are kept by directory: who tries an authority's test directory and then its real one has two.
fn account_file(authority: &str, directory: &str) -> PathBuf {
    let hash = Sha256::digest(directory.as_bytes());
    let hash: String = hash.iter().take(HASH_BYTES).map(|byte| format!("{byte:02x}")).collect();
    PathBuf::from(format!("acme/{authority}/{hash}.account"))
}

fn read(text: &str) -> Result<Life, String> {
    let directory = text.lines().next().and_then(|line| line.strip_prefix(DIRECTORY)).unwrap_or_default();
    let facts = tls::facts_of(text)?;
    Ok(Life {
        directory: directory.to_owned(),
        names: facts.names,
        not_before: facts.not_before,
        not_after: facts.not_after,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const FILE: &str = "acme/le/a.example.pem";
    const DIRECTORY_URL: &str = "https://ca.example/dir";

    #[test]
    fn what_was_issued_is_read_back_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(folder.path());
        let file = Path::new(FILE);
        assert_eq!(store.issued(file), None);
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).expect("a certificate");
        let (key, chain) = (made.signing_key.serialize_pem(), made.cert.pem());
        let names = ["a.example".to_owned()];
        let life = store.keep(file, DIRECTORY_URL, &names, &key, &chain).expect("kept");
        assert_eq!(
            (life.directory.as_str(), &life.names[..]),
            (DIRECTORY_URL, &["a.example".to_owned()][..])
        );
        let (text, again) = store.issued(file).expect("read");
        assert!(again == life && text.contains(&key) && text.contains(&chain));
        let mode =
            |path: &str| fs::metadata(folder.path().join(path)).expect("there").permissions().mode() & 0o777;
        assert_eq!([mode(FILE), mode("acme/le"), mode("acme")], [0o600, 0o700, 0o700]);
        // What does not go together is not kept, and what was kept stays.
        let other = rcgen::generate_simple_self_signed(["a.example".to_owned()]).expect("a certificate");
        assert!(store.keep(file, DIRECTORY_URL, &names, &key, &other.cert.pem()).is_err());
        assert!(store.keep(file, DIRECTORY_URL, &names, &key, "<html>").is_err());
        assert!(store.keep(file, DIRECTORY_URL, &["b.example".to_owned()], &key, &chain).is_err());
        assert_eq!(store.issued(file).map(|(_, life)| life), Some(life));
        fs::write(folder.path().join(FILE), "half").expect("written");
        assert_eq!(store.issued(file), None);
    }

    #[test]
    fn attempts_and_accounts_are_kept_by_what_they_are_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::new(folder.path());
        let file = Path::new(FILE);
        assert_eq!(store.retry(file), Retry::default());
        let retry = Retry::default().failed(1_700_000_000, "down", None);
        store.keep_retry(file, Some(&retry)).expect("kept");
        assert_eq!(store.retry(file), retry);
        store.keep_retry(file, None).expect("forgotten");
        store.keep_retry(file, None).expect("forgotten already");
        assert_eq!(store.retry(file), Retry::default());
        let account =
            Account { contact: vec!["mailto:a@b".to_owned()], credentials: serde_json::json!({ "id": "1" }) };
        store.keep_account("le", DIRECTORY_URL, &account).expect("kept");
        assert_eq!(store.account("le", DIRECTORY_URL).expect("read"), Some(account));
        assert_eq!(store.account("le", "https://staging.example/dir").expect("read"), None);
        fs::write(folder.path().join(account_file("le", DIRECTORY_URL)), "half").expect("written");
        assert!(store.account("le", DIRECTORY_URL).is_err());
    }
}
