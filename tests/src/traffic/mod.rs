//! Attempts that a client makes, and how they end. Every one is bounded in time.

mod attempts;
mod dialogue;
mod download;
mod steady;
mod stream;

use std::fmt;
use std::io;

pub use attempts::{http_get, ping, psql_select_1, tcp_connect, udp_round_trip};
pub use dialogue::{Answers, Dialogue};
pub use download::{Download, Progress};
pub use steady::{Echoes, SteadyClient};
pub use stream::{Stream, Streamed};

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered; with what.
    Answered(String),
    /// Nothing came back: what a silent drop looks like.
    TimedOut,
    /// Someone said that nobody listens there.
    Refused,
    /// Someone said that there is no way there.
    Unreachable,
    /// Something else; in words.
    Failed(String),
}

impl Outcome {
    /// True if it was answered.
    pub const fn is_answered(&self) -> bool {
        matches!(self, Self::Answered(_))
    }

    /// True if it was answered by what calls itself port `port`.
    pub fn is_answered_by_port(&self, port: u16) -> bool {
        *self == Self::Answered(format!("this is port {port}\n"))
    }

    fn from_error(error: &io::Error) -> Self {
        match error.kind() {
            // A socket with a timeout says WouldBlock.
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::TimedOut,
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Self::Unreachable,
            _ => Self::Failed(error.to_string()),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered(body) => write!(f, "answered: {}", body.trim()),
            Self::TimedOut => f.write_str("timed out"),
            Self::Refused => f.write_str("refused"),
            Self::Unreachable => f.write_str("unreachable"),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}
