//! What is said over the control socket: one line of JSON each way, then the connection ends.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::history::Revision;
use crate::dataplane::{Attachment, Took};
use crate::observe::bans::BansStatus;
use crate::observe::stats::Stats;
use crate::observe::status::Status;
use crate::session::Peer;

/// Version of the protocol; both sides name it, and a request of another one is refused by name.
pub const VERSION: u32 = 2;
/// Most bytes of a request, the newline included.
pub const MOST_BYTES: u64 = 1 << 20;
/// Most bytes of a request of somebody who may only ask.
pub const MOST_QUESTION: u64 = 4096;
/// Most bytes of an answer, the newline included.
pub const MOST_ANSWER: u64 = 16 << 20;

/// What a command asks of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// [`VERSION`].
    pub version: u32,
    /// What to do.
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Put the policy in this file to work.
    Apply {
        /// An absolute path.
        file: PathBuf,
        /// How.
        #[serde(flatten)]
        how: Caution,
    },
    /// Put an earlier policy to work again.
    ApplyRevision {
        /// Its number in the history.
        revision: u64,
        /// How.
        #[serde(flatten)]
        how: Caution,
    },
    /// Go back to the policy before the one in force.
    Rollback {
        /// How.
        #[serde(flatten)]
        how: Caution,
    },
    /// What is enforced where.
    Status,
    /// The counters.
    Stats,
    /// Who is banned.
    Bans,
    /// The policies that were in force.
    History,
}

impl Command {
    /// True if it changes nothing.
    pub const fn only_asks(&self) -> bool {
        match self {
            Self::Apply { .. } | Self::ApplyRevision { .. } | Self::Rollback { .. } => false,
            Self::Status | Self::Stats | Self::Bans | Self::History => true,
        }
    }
}

/// With what caution a policy is applied.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caution {
    /// It has to be confirmed within so many seconds, or the kernel goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_s: Option<u64>,
    /// Connections that it must not cut.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<Peer>,
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Response {
    /// It is done.
    Applied(Report),
    /// The input is wrong; nothing has changed.
    BadInput(String),
    /// It could not be done; what was enforced is still enforced.
    Refused(String),
    /// What is enforced where.
    Status(Status),
    /// The counters.
    Stats(Box<Stats>),
    /// Who is banned.
    Bans(BansStatus),
    /// The policies that were in force.
    History(Vec<Revision>),
}

/// What an apply has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The policy file.
    pub file: PathBuf,
    /// Its hash.
    pub hash: String,
    /// Interface, hook and mode of each interface that is enforced.
    pub interfaces: Vec<Enforcing>,
    /// How many of the policy's own tests passed.
    pub tests: usize,
    /// What it changes, a line each.
    #[serde(default)]
    pub changes: Vec<String>,
    /// What the operator should know.
    pub notes: Vec<String>,
    /// It has to be confirmed within so many seconds.
    #[serde(default)]
    pub confirm_s: Option<u64>,
    /// Its number in the history, if it could be written.
    #[serde(default)]
    pub revision: Option<u64>,
    /// What the policy's author should know of it, each with its place in the file. An older daemon says none.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Why something else than the file is enforced; only at the start of a daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// How long its steps took.
    #[serde(default)]
    pub took_us: Took,
}

/// An interface that is enforced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforcing {
    /// Its name.
    pub name: String,
    /// `xdp` or `tc`.
    pub hook: String,
    /// `native`, `generic`, `tcx` or `clsact`.
    pub mode: String,
}

impl Enforcing {
    /// An interface and where it is enforced.
    pub fn new(name: &str, attachment: Attachment) -> Self {
        Self { name: name.to_owned(), hook: attachment.hook().to_owned(), mode: attachment.mode().to_owned() }
    }
}

impl Report {
    /// What the supervisor shows of the start: the sentence, and what was wrong before it.
    pub fn headline(&self) -> String {
        match &self.fallback {
            Some(why) => format!("{}: {why}", self.sentence()),
            None => self.sentence(),
        }
    }

    /// The one line that says what is enforced.
    pub fn sentence(&self) -> String {
        let interfaces: Vec<_> =
            self.interfaces.iter().map(|one| format!("{} ({} {})", one.name, one.mode, one.hook)).collect();
        let tests = match self.tests {
            0 => String::new(),
            1 => "; its own test passed".to_owned(),
            many => format!("; its {many} own tests passed"),
        };
        let confirm = match self.confirm_s {
            Some(seconds) => format!("; `tollgate confirm` within {seconds} s, or the kernel goes back"),
            None => String::new(),
        };
        let interfaces =
            if interfaces.is_empty() { "no interface yet".to_owned() } else { interfaces.join(", ") };
        format!("enforcing {} on {interfaces}{tests}{confirm}", self.file.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_is_stable() {
        let request = Request {
            version: 2,
            command: Command::Apply { file: "/etc/a.toml".into(), how: Caution::default() },
        };
        let line = serde_json::to_string(&request).expect("JSON");
        assert_eq!(line, r#"{"version":2,"command":{"apply":{"file":"/etc/a.toml"}}}"#);
        assert_eq!(serde_json::from_str::<Request>(&line).expect("a request"), request);
        let question = Request { version: 2, command: Command::Stats };
        assert_eq!(serde_json::to_string(&question).expect("JSON"), r#"{"version":2,"command":"stats"}"#);
        assert!(serde_json::from_str::<Request>(r#"{"version":2,"command":{"fly":{}}}"#).is_err());
        assert!(
            serde_json::from_str::<Request>(r#"{"version":2,"command":{"apply":{"file":"/a"}},"x":1}"#)
                .is_err()
        );
    }
}
