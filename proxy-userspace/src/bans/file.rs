//! The state file, `<state-dir>/bans.tgs`: what outlives a reboot. A change is appended, in one write that is on the disk when
//! the command returns; when most of the file is history it is written anew beside itself and renamed.
//!
//! Called by [`super`] with the lock for changes held, but for [`read`], which may meet an append in the middle and takes it
//! for not done.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::Entry;
use super::clock::Clock;
use super::frame::{self, HEAD, Head, Record};

const NAME: &str = "bans.tgs";
const TEMPORARY: &str = "bans.tgs.new";
/// History up to this length is never in the way.
const SLACK: u64 = 4 << 20;

/// Why the state can't be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The system refuses.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is of another version of this program.
    #[error(
        "{path} is of another version of Tollgate (format {found}): it was left alone; use that version, or move the file away",
        path = .path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// What is in the file.
#[derive(Debug, Default)]
pub struct State {
    /// Bans, those that are over too; ends as this boot counts them.
    pub entries: HashMap<IpNet, Entry>,
    /// Bytes that could not be read.
    pub damaged: usize,
}

/// The file's path.
pub fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

/// Reads the file; none is an empty state. Changes nothing.
///
/// # Errors
/// If it can't be read, or is of another version.
pub fn read(state_dir: &Path, now: &Clock) -> Result<State, StateError> {
    let path = path(state_dir);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
        Err(source) => return Err(StateError::Io { path, source }),
    };
    if let Head::Other(found) = frame::read_head(&bytes) {
        return Err(StateError::Version { path, found });
    }
    let mut entries = HashMap::new();
    let damaged = frame::decode(&bytes, now, |record| match record {
        Record::Ban(net, entry) => drop(entries.insert(net, entry)),
        Record::Unban(net) => drop(entries.remove(&net)),
        Record::Clear => entries.clear(),
    });
    Ok(State { entries, damaged })
}

/// Reads the file; a damaged one is set aside under another name, and what could be read of it is written anew. Gives where
/// the damaged one is.
///
/// # Errors
/// As [`read`] and [`rewrite`].
pub fn read_and_mend(state_dir: &Path, now: &Clock) -> Result<(State, Option<PathBuf>), StateError> {
    let state = read(state_dir, now)?;
    if state.damaged == 0 {
        return Ok((state, None));
    }
    let path = path(state_dir);
    let aside = (0..).map(|n| match n {
        0 => path.with_extension("tgs.damaged"),
        n => path.with_extension(format!("tgs.damaged-{n}")),
    });
    // An earlier one is somebody's evidence.
    let aside =
        aside.into_iter().find(|aside| !aside.exists()).unwrap_or_else(|| path.with_extension("tgs.damaged"));
    // A copy: at no time is there no state.
    fs::copy(&path, &aside).map_err(|source| StateError::Io { path: aside.clone(), source })?;
    rewrite(state_dir, &state.entries, now)?;
    Ok((state, Some(aside)))
}

/// Adds what happened to the end of the file; on the disk when this returns. True if most of the file is history now.
///
/// # Errors
/// If it can't be written; then nothing was added.
pub fn append(state_dir: &Path, records: &[Record], now: &Clock) -> Result<bool, StateError> {
    let path = path(state_dir);
    let failed = |source| StateError::Io { path: path.clone(), source };
    let mut file = match OpenOptions::new().read(true).append(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            rewrite(state_dir, &HashMap::new(), now)?;
            OpenOptions::new().read(true).append(true).open(&path).map_err(failed)?
        }
        Err(error) => return Err(failed(error)),
    };
    let mut head = [0; HEAD];
    let written = match file.read_exact(&mut head).map(|()| frame::read_head(&head)) {
        Ok(Head::Ours(written)) => written,
        Ok(Head::Other(found)) => return Err(StateError::Version { path, found }),
        // A reader finds the frames all the same, and sets the file aside.
        Ok(Head::Damaged) | Err(_) => 0,
    };
    let before = file.metadata().map_err(failed)?.len();
    let bytes = frame::encode(records.iter(), now);
    if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_data()) {
        // Half a frame would be called damage; what could not be taken back is.
        let _ = file.set_len(before);
        return Err(failed(error));
    }
    Ok(before + bytes.len() as u64 > 2 * written + SLACK)
}

/// Writes the file anew: these bans and no history.
///
/// # Errors
/// If it can't be written; the old file is there then.
pub fn rewrite(state_dir: &Path, entries: &HashMap<IpNet, Entry>, now: &Clock) -> Result<(), StateError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| StateError::Io { path, source }
    };
    // Who is banned, and why, is nobody else's business.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(at(state_dir))?;
    let temporary = state_dir.join(TEMPORARY);
    let options = || OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary);
    let write = || {
        let mut file = options()?;
        let mut length = HEAD as u64;
        file.write_all(&frame::head(0))?;
        let records: Vec<_> = entries.iter().map(|(net, entry)| Record::Ban(*net, entry.clone())).collect();
        for chunk in records.chunks(1 << 16) {
            let bytes = frame::encode(chunk.iter(), now);
            length += bytes.len() as u64;
            file.write_all(&bytes)?;
        }
        file.write_all_at(&frame::head(length), 0)?;
        file.sync_all()
    };
    write().map_err(at(&temporary))?;
    fs::rename(&temporary, path(state_dir)).map_err(at(&temporary))?;
    // The name is in the folder, which has to be on the disk too.
    File::open(state_dir).and_then(|folder| folder.sync_all()).map_err(at(state_dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Clock = Clock { boot: [7; 16], mono_ns: 1_000, unix_ns: 1_700_000_000_000_000_000 };

    fn net(text: &str) -> IpNet {
        text.parse().expect(text)
    }

    fn ban(text: &str, until_ns: u64) -> Record {
        Record::Ban(net(text), Entry { since_unix_ns: 3, until_ns, why: "why".into() })
    }

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let state_dir = folder.path().join("state");
        (folder, state_dir)
    }

    #[test]
    fn what_was_appended_is_there_and_the_last_word_counts() {
        let (_folder, dir) = folder();
        assert!(read(&dir, &NOW).expect("no file").entries.is_empty());
        append(&dir, &[ban("192.0.2.1/32", 5), ban("192.0.2.2/32", 6)], &NOW).expect("written");
        append(&dir, &[Record::Unban(net("192.0.2.1/32")), ban("192.0.2.2/32", 7)], &NOW).expect("written");
        let state = read(&dir, &NOW).expect("a state");
        let found: Vec<_> = state.entries.iter().map(|(net, entry)| (*net, entry.until_ns)).collect();
        assert_eq!(found, [(net("192.0.2.2/32"), 7)]);
        append(&dir, &[Record::Clear, ban("192.0.2.9/32", 8)], &NOW).expect("written");
        let state = read(&dir, &NOW).expect("a state");
        assert_eq!(state.entries.keys().collect::<Vec<_>>(), [&net("192.0.2.9/32")]);
    }

    #[test]
    fn history_is_dropped_when_it_is_most_of_the_file() {
        let (_folder, dir) = folder();
        let many: Vec<_> = (0..60_000).map(|_| ban("192.0.2.1/32", 5)).collect();
        assert!(!append(&dir, &many, &NOW).expect("written"));
        assert!((0..10).any(|_| append(&dir, &many, &NOW).expect("written")));
        let length = || fs::metadata(path(&dir)).expect("a file").len();
        let state = read(&dir, &NOW).expect("a state");
        assert!(length() > SLACK);
        rewrite(&dir, &state.entries, &NOW).expect("written anew");
        assert_eq!(read(&dir, &NOW).expect("a state").entries, state.entries);
        assert!(length() < 300, "{}", length());
        assert!(!append(&dir, &[ban("192.0.2.2/32", 5)], &NOW).expect("written"));
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_the_rest_is_kept() {
        let (_folder, dir) = folder();
        for n in 0..3 {
            append(&dir, &[ban(&format!("192.0.2.{n}/32"), 5)], &NOW).expect("written");
        }
        let mut bytes = fs::read(path(&dir)).expect("a file");
        let second = HEAD + (bytes.len() - HEAD) / 3 + 60;
        bytes[second] ^= 1;
        fs::write(path(&dir), &bytes).expect("written");
        let (state, aside) = read_and_mend(&dir, &NOW).expect("a state");
        assert_eq!(state.entries.len(), 2);
        let aside = aside.expect("a name");
        assert_eq!(fs::read(&aside).expect("the damaged one"), bytes);
        let (anew, none) = read_and_mend(&dir, &NOW).expect("a state");
        assert_eq!((anew.entries, none), (state.entries, None));
        // A second one does not take the place of the first.
        fs::write(path(&dir), b"nothing of ours").expect("written");
        let (state, other) = read_and_mend(&dir, &NOW).expect("a state");
        assert!(state.entries.is_empty() && other.is_some() && other != Some(aside.clone()));
        assert!(aside.exists());
    }

    #[test]
    fn a_file_of_another_version_is_left_alone() {
        let (_folder, dir) = folder();
        append(&dir, &[ban("192.0.2.1/32", 5)], &NOW).expect("written");
        let mut bytes = fs::read(path(&dir)).expect("a file");
        let mut head = frame::head(0);
        head[8] = 2;
        let sum = <sha2::Sha256 as sha2::Digest>::digest(&head[..24]);
        head[24..].copy_from_slice(&sum[..8]);
        bytes[..HEAD].copy_from_slice(&head);
        fs::write(path(&dir), &bytes).expect("written");
        for result in [
            read(&dir, &NOW).map(drop),
            read_and_mend(&dir, &NOW).map(drop),
            append(&dir, &[ban("192.0.2.2/32", 5)], &NOW).map(drop),
        ] {
            assert!(matches!(result, Err(StateError::Version { found: 2, .. })), "{result:?}");
        }
        assert_eq!(fs::read(path(&dir)).expect("a file"), bytes);
    }

    #[test]
    fn an_append_in_the_middle_is_not_done() {
        let (_folder, dir) = folder();
        append(&dir, &[ban("192.0.2.1/32", 5)], &NOW).expect("written");
        let whole = fs::read(path(&dir)).expect("a file");
        append(&dir, &[ban("192.0.2.2/32", 5)], &NOW).expect("written");
        let longer = fs::read(path(&dir)).expect("a file");
        fs::write(path(&dir), &longer[..whole.len() + 20]).expect("written");
        let state = read(&dir, &NOW).expect("a state");
        assert_eq!((state.entries.len(), state.damaged), (1, 20));
        // What is appended behind it is found.
        append(&dir, &[ban("192.0.2.3/32", 5)], &NOW).expect("written");
        assert_eq!(read(&dir, &NOW).expect("a state").entries.len(), 2);
    }
}
