//! Who is banned, until when and why. Called by `tollgate bans`.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::bans::{List, Listed};

/// The whole of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BansStatus {
    /// False if no policy is enforced: the bans wait for one.
    pub enforced: bool,
    /// In order of families and addresses.
    pub bans: Vec<BanStatus>,
}

/// One ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanStatus {
    /// Who: always with its length.
    pub prefix: String,
    /// When it began, RFC 3339.
    pub since: String,
    /// When it ends, RFC 3339; `None` without end.
    pub until: Option<String>,
    /// Whole seconds until then, rounded up.
    pub seconds_left: Option<u64>,
    /// Why; empty if nobody said.
    pub why: String,
}

impl From<&List> for BansStatus {
    fn from(list: &List) -> Self {
        Self { enforced: list.enforced, bans: list.bans.iter().map(BanStatus::from).collect() }
    }
}

impl From<&Listed> for BanStatus {
    fn from(one: &Listed) -> Self {
        Self {
            prefix: one.net.to_string(),
            since: time(one.since_unix_ns),
            until: one.until_unix_ns.map(time),
            seconds_left: one.left_ns.map(|left| left.div_ceil(1_000_000_000)),
            why: one.why.to_string(),
        }
    }
}

/// To the second: nobody bans by nanoseconds.
fn time(unix_ns: u64) -> String {
    Timestamp::from_second((unix_ns / 1_000_000_000).cast_signed()).unwrap_or_default().to_string()
}
