//! Where a program can be attached, how that is called, and what is attached now: read from the pins, never guessed.

use std::fmt;
use std::path::{Path, PathBuf};

/// A hook and its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// XDP in the driver, before the kernel makes an skb.
    XdpNative,
    /// XDP in the kernel's generic form, which copies packets to make headroom.
    XdpGeneric,
    /// TC by a link of its own (Linux 6.6).
    Tcx,
    /// TC by a filter of the clsact queueing discipline (Linux 4.5).
    Clsact,
}

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Towards this host.
    Ingress,
    /// Away from it.
    Egress,
}

impl Attachment {
    const ALL: [Self; 4] = [Self::XdpNative, Self::XdpGeneric, Self::Tcx, Self::Clsact];

    /// The hook, as `status` names it.
    pub const fn hook(self) -> &'static str {
        match self {
            Self::XdpNative | Self::XdpGeneric => "xdp",
            Self::Tcx | Self::Clsact => "tc",
        }
    }

    /// The mode, as `status` names it.
    pub const fn mode(self) -> &'static str {
        match self {
            Self::XdpNative => "native",
            Self::XdpGeneric => "generic",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }

    /// Where it is pinned in an interface's folder: the link, or for clsact, which has none, the program.
    pub fn pin(self, folder: &Path, direction: Direction) -> PathBuf {
        let direction = match direction {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        };
        folder.join(format!("{direction}-{}-{}", self.hook(), self.mode()))
    }

    /// What is attached in this direction by the pins of an interface's folder. More than one only while, or after, a
    /// change of hooks was cut short: both enforce then.
    pub fn present(folder: &Path, direction: Direction) -> Vec<Self> {
        Self::ALL.into_iter().filter(|attachment| attachment.pin(folder, direction).exists()).collect()
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.mode(), self.hook())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_tell_what_is_attached() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        assert!(Attachment::present(folder, Direction::Ingress).is_empty());
        for attachment in Attachment::ALL {
            let pin = attachment.pin(folder, Direction::Ingress);
            // The BPF file system refuses dots.
            assert!(!pin.file_name().is_some_and(|name| name.to_string_lossy().contains('.')));
            std::fs::write(&pin, "").expect("a file");
            assert_eq!(Attachment::present(folder, Direction::Ingress), [attachment]);
            assert!(Attachment::present(folder, Direction::Egress).is_empty());
            std::fs::remove_file(&pin).expect("a file");
        }
    }
}
