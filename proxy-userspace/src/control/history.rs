//! The policies that were in force: the last ten, each with its text, its lists and what became of it.
//!
//! ```text
//! <state-dir>/history/<revision>/revision.json   what it was, and what became of it
//! <state-dir>/history/<revision>/policy.toml     its text
//! <state-dir>/history/<revision>/list-<n>        its lists, and the bodies of answers
//! ```
//!
//! Written by the daemon and by `confirm` and `rollback`, read by `history`, `apply --revision` and `rollback`. A revision
//! appears whole or not at all; one that can't be read is passed over, and the others are not lost with it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::private;
use crate::policy::{self, Lists, Policy};

/// Revisions that are kept.
const KEPT: usize = 10;
const FOLDER: &str = "history";
const ABOUT: &str = "revision.json";
const TEXT: &str = "policy.toml";
const STAGING: &str = "new";

/// What became of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It went live.
    Applied,
    /// It went live and waits, or waited, to be confirmed.
    Waiting,
    /// It was confirmed.
    Confirmed,
    /// Nobody confirmed it in time, and the kernel went back.
    NotConfirmed,
    /// Somebody went back from it.
    RolledBack,
}

impl Fate {
    /// True if it may be gone back to.
    pub const fn is_good(self) -> bool {
        matches!(self, Self::Applied | Self::Confirmed)
    }

    /// As people read it.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Waiting => "waiting to be confirmed",
            Self::Confirmed => "confirmed",
            Self::NotConfirmed => "not confirmed in time, taken back",
            Self::RolledBack => "rolled back",
        }
    }
}

/// A policy that was in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// Its number; they grow.
    pub revision: u64,
    /// When it was applied.
    pub time: Timestamp,
    /// The file that it came from.
    pub file: PathBuf,
    /// SHA-256 of the file and its lists.
    pub hash: String,
    /// What became of it.
    pub fate: Fate,
    /// Its lists and bodies of answers: file in the revision's folder, by the name in the policy.
    pub lists: BTreeMap<String, String>,
}

/// The folder of all of them.
#[derive(Clone, Debug)]
pub struct History {
    folder: PathBuf,
}

impl History {
    /// Names the folder; touches nothing.
    pub fn new(state_dir: &Path) -> Self {
        Self { folder: state_dir.join(FOLDER) }
    }

    /// True if this user may not look.
    pub fn is_closed(&self) -> bool {
        fs::read_dir(&self.folder).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }

    /// All revisions that can be read, oldest first.
    pub fn revisions(&self) -> Vec<Revision> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok());
        let mut found: Vec<Revision> = numbers
            .filter_map(|number| match self.about(number) {
                Ok(revision) => Some(revision),
                Err(error) => {
                    log::warn!("revision {number} in {} can't be read: {error}", self.folder.display());
                    None
                }
            })
            .collect();
        found.sort_unstable_by_key(|revision| revision.revision);
        found
    }

    /// Adds a policy with this text, its lists from `lists` or beside it; the oldest beyond [`KEPT`] go. If it is the newest already, it only gets its new fate.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn record(&self, policy: &Policy, text: &str, lists: &Lists, fate: Fate) -> io::Result<u64> {
        let present = self.revisions();
        if let Some(newest) =
            present.last().filter(|newest| newest.hash == policy.hash && newest.fate.is_good())
            && fate.is_good()
        {
            return Ok(newest.revision);
        }
        let number = present.last().map_or(1, |newest| newest.revision + 1);
        let staging = self.folder.join(STAGING);
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&staging)?;
        let mut copies = BTreeMap::new();
        for (nth, name) in policy.files().enumerate() {
            let beside = || policy.path.parent().unwrap_or(Path::new("")).join(name);
            let file = format!("list-{nth}");
            let copy = staging.join(&file);
            fs::copy(lists.get(name).cloned().unwrap_or_else(beside), &copy)?;
            // A copy has the mode of what it was copied from.
            fs::set_permissions(&copy, fs::Permissions::from_mode(private::MODE))?;
            copies.insert(name.clone(), file);
        }
        private::write(&staging.join(TEXT), text.as_bytes())?;
        let about = Revision {
            revision: number,
            time: Timestamp::now(),
            file: std::path::absolute(&policy.path)?,
            hash: policy.hash.clone(),
            fate,
            lists: copies,
        };
        private::write(&staging.join(ABOUT), &serde_json::to_vec_pretty(&about)?)?;
        File::open(&staging)?.sync_all()?;
        fs::rename(&staging, self.of(number))?;
        File::open(&self.folder)?.sync_all()?;
        for old in present.iter().rev().skip(KEPT - 1) {
            fs::remove_dir_all(self.of(old.revision))?;
        }
        Ok(number)
    }

    /// Says what became of the policy that waited to be confirmed. None is fine.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn settle(&self, fate: Fate) -> io::Result<()> {
        match self.revisions().into_iter().rfind(|one| one.fate == Fate::Waiting) {
            Some(waiting) => self.set_fate(&waiting, fate),
            None => Ok(()),
        }
    }

    /// Says what became of a revision.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn set_fate(&self, revision: &Revision, fate: Fate) -> io::Result<()> {
        let folder = self.of(revision.revision);
        let next = folder.join("next.json");
        private::write(&next, &serde_json::to_vec_pretty(&Revision { fate, ..revision.clone() })?)?;
        fs::rename(next, folder.join(ABOUT))
    }

    /// The revision that `rollback` goes back to from the policy with this hash: the newest good one before it.
    pub fn before(&self, hash: &str) -> Option<Revision> {
        let all = self.revisions();
        let now = all.iter().rposition(|one| one.hash == hash).unwrap_or(all.len());
        all.into_iter().take(now).rfind(|one| one.fate.is_good() && one.hash != hash)
    }

    /// The newest revision with this hash.
    pub fn with_hash(&self, hash: &str) -> Option<Revision> {
        self.revisions().into_iter().rfind(|one| one.hash == hash)
    }

    /// Reads a revision's policy as it was, with its text and lists.
    ///
    /// # Errors
    /// A sentence: there is none with this number, or it is not what it was.
    pub fn load(&self, number: u64) -> Result<(Policy, String, Lists), String> {
        let about = self.about(number).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let known: Vec<_> = self.revisions().iter().map(|one| one.revision.to_string()).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                format!("there is no revision {number}; there is {known} (`tollgate history`)")
            }
            _ => format!("revision {number} can't be read: {error}"),
        })?;
        let folder = self.of(number);
        let text = policy::read(&folder.join(TEXT)).map_err(|error| error.to_string())?;
        let lists: Lists = about.lists.iter().map(|(name, file)| (name.clone(), folder.join(file))).collect();
        let policy = policy::parse_with(&text, &about.file, &lists).map_err(|error| error.to_string())?;
        if policy.hash == about.hash {
            Ok((policy, text, lists))
        } else {
            Err(format!("revision {number} is not what it was: {} has changed", folder.display()))
        }
    }

    fn about(&self, number: u64) -> io::Result<Revision> {
        let about: Revision = serde_json::from_slice(&fs::read(self.of(number).join(ABOUT))?)?;
        if about.revision == number { Ok(about) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn of(&self, number: u64) -> PathBuf {
        self.folder.join(number.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT_A: &str = "version = 1\n[interfaces.eth0]\n[zones]\nbad = { file = \"bad.txt\" }\n\
                          [services.a]\nports = [\"tcp/1\"]\nallow = \"any\"\ndeny = [\"bad\"]\n";

    fn policy(folder: &Path, text: &str) -> Policy {
        fs::write(folder.join("bad.txt"), "192.0.2.0/24\n").expect("a list");
        policy::parse(text, &folder.join("p.toml")).unwrap_or_else(|error| panic!("{error}"))
    }

    fn text(number: usize) -> String {
        format!("{TEXT_A}# {number}\n")
    }

    #[test]
    fn a_revision_is_kept_with_its_lists() {
        let folder = tempfile::tempdir().expect("a folder");
        let history = History::new(&folder.path().join("state"));
        assert!(history.revisions().is_empty());
        let first = policy(folder.path(), TEXT_A);
        assert_eq!(history.record(&first, TEXT_A, &Lists::new(), Fate::Applied).expect("recorded"), 1);
        for file in ["policy.toml", "list-0", "revision.json"] {
            let path = folder.path().join("state/history/1").join(file);
            let mode = fs::metadata(path).expect(file).permissions().mode();
            assert_eq!(mode & 0o777, private::MODE, "{file}: {mode:o}");
        }
        // The operator's files change; the revision does not.
        fs::write(folder.path().join("bad.txt"), "198.51.100.0/24\n").expect("a list");
        let (again, text, _) = history.load(1).expect("loaded");
        assert_eq!((again, text.as_str()), (first, TEXT_A));
        assert!(history.load(2).is_err_and(|why| why.contains("there is 1 ")));
        fs::write(folder.path().join("state/history/1/list-0"), "203.0.113.0/24\n").expect("a list");
        assert!(history.load(1).is_err_and(|why| why.contains("not what it was")));
    }

    #[test]
    fn a_revision_keeps_the_bodies_of_answers() {
        let folder = tempfile::tempdir().expect("a folder");
        let history = History::new(&folder.path().join("state"));
        let body = folder.path().join("down.html");
        fs::write(&body, "<p>Later").expect("a body");
        let text = format!(
            "{TEXT_A}[listeners.http]\nbind = \":1\"\n[routes.down]\nlisteners = \"http\"\nrespond = {{ file = \"down.html\" }}\n"
        );
        let first = policy(folder.path(), &text);
        assert_eq!(history.record(&first, &text, &Lists::new(), Fate::Applied).expect("recorded"), 1);
        fs::remove_file(&body).expect("a body");
        let (again, _, lists) = history.load(1).expect("loaded");
        assert_eq!(again, first);
        // What is applied from the history is recorded from there too.
        assert_eq!(history.record(&again, &text, &lists, Fate::RolledBack).expect("recorded"), 2);
        assert_eq!(history.load(2).expect("loaded").0, first);
    }

    #[test]
    fn the_last_ten_are_kept_and_one_that_is_damaged_costs_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let history = History::new(folder.path());
        for number in 1..=13 {
            let text = text(number);
            let policy = policy(folder.path(), &text);
            assert_eq!(
                history.record(&policy, &text, &Lists::new(), Fate::Applied).expect("recorded"),
                number as u64
            );
            // The same once more is the same revision.
            assert_eq!(
                history.record(&policy, &text, &Lists::new(), Fate::Applied).expect("recorded"),
                number as u64
            );
        }
        let numbers = || history.revisions().iter().map(|one| one.revision).collect::<Vec<_>>();
        assert_eq!(numbers(), (4..=13).collect::<Vec<_>>());
        fs::write(folder.path().join("history/7/revision.json"), "{").expect("a file");
        assert_eq!(numbers(), [4, 5, 6, 8, 9, 10, 11, 12, 13]);
    }

    #[test]
    fn rollback_passes_over_what_was_not_good() {
        let folder = tempfile::tempdir().expect("a folder");
        let history = History::new(folder.path());
        let hash = |number: usize| policy(folder.path(), &text(number)).hash;
        for (number, fate) in
            [(1, Fate::Applied), (2, Fate::Confirmed), (3, Fate::Waiting), (4, Fate::Applied)]
        {
            history
                .record(&policy(folder.path(), &text(number)), &text(number), &Lists::new(), fate)
                .expect("recorded");
        }
        history.settle(Fate::NotConfirmed).expect("settled");
        assert_eq!(history.with_hash(&hash(3)).map(|one| one.fate), Some(Fate::NotConfirmed));
        let before = |number| history.before(&hash(number)).map(|one| one.revision);
        assert_eq!((before(4), before(2), before(1)), (Some(2), Some(1), None));
        // Of a policy that is not in the history, it goes back to the newest.
        assert_eq!(history.before("0").map(|one| one.revision), Some(4));
        let newest = history.revisions().pop().expect("a revision");
        history.set_fate(&newest, Fate::RolledBack).expect("set");
        assert_eq!(history.before("0").map(|one| one.revision), Some(2));
    }
}
