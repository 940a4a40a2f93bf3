//! Follows the policy file: whether it, or a list beside it, is another one than before. Called by the daemon each second.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::policy;

/// What a file looks like from outside: device, inode, size, time of change; nothing, if it is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Look(Option<(u64, u64, u64, i64, i64)>);

impl Look {
    /// Looks at one.
    pub(super) fn at(path: &Path) -> Self {
        let meta = fs::metadata(path).ok();
        Self(meta.map(|meta| (meta.dev(), meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec())))
    }
}

/// A policy file and its lists.
#[derive(Debug)]
pub struct Watch {
    policy: PathBuf,
    files: Vec<(PathBuf, Look)>,
    /// A change was seen: it counts once the file has been left alone for one look.
    moved: bool,
}

impl Watch {
    /// Looks at the files as they are now.
    pub fn new(policy: &Path) -> Self {
        let mut watch = Self { policy: policy.to_owned(), files: Vec::new(), moved: false };
        watch.files = watch.look();
        watch
    }

    /// True once after a change, when whoever writes seems to be done.
    pub fn has_changed(&mut self) -> bool {
        // The files as they were known: to read which lists there are takes as long as the lists are.
        let differs = self.files.iter().any(|(path, before)| Look::at(path) != *before);
        if differs {
            self.files = self.look();
        }
        let settled = self.moved && !differs;
        self.moved = differs;
        settled
    }

    fn look(&self) -> Vec<(PathBuf, Look)> {
        let folder = self.policy.parent().unwrap_or(Path::new(""));
        // The lists of a file that is wrong can't be told; its own change will be.
        let lists = policy::load(&self.policy).map(|policy| policy.zones).unwrap_or_default();
        let lists = lists.into_iter().filter_map(|zone| zone.list).map(|name| folder.join(name));
        std::iter::once(self.policy.clone())
            .chain(lists)
            .map(|path| (path.clone(), Look::at(&path)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_counts_once_and_when_it_is_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("p.toml");
        let text = "version = 1\n[interfaces.eth0]\n[zones]\nbad = { file = \"bad.txt\" }\n";
        fs::write(&path, text).expect("a file");
        fs::write(folder.path().join("bad.txt"), "192.0.2.1\n").expect("a list");
        let mut watch = Watch::new(&path);
        assert!(!watch.has_changed() && !watch.has_changed());
        fs::write(&path, format!("{text}# more\n")).expect("a file");
        assert_eq!([watch.has_changed(), watch.has_changed(), watch.has_changed()], [false, true, false]);
        fs::write(folder.path().join("bad.txt"), "192.0.2.1\n192.0.2.9\n").expect("a list");
        assert_eq!([watch.has_changed(), watch.has_changed(), watch.has_changed()], [false, true, false]);
        // Replaced by another file of the same size, as editors do.
        let other = folder.path().join("other");
        fs::write(&other, format!("{text}# MORE\n")).expect("a file");
        fs::rename(&other, &path).expect("renamed");
        assert_eq!([watch.has_changed(), watch.has_changed(), watch.has_changed()], [false, true, false]);
    }
}
