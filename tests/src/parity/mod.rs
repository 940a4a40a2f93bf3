//! The L7 proxy beside a real nginx in the configuration that it stands in the place of, with a real Django behind both: each request
//! shape is sent to both, and answer, connection and what the application saw must be the same, or the difference must be on the
//! list. `tests/parity.rs` runs them all.

mod differences;
mod odd;
mod outcome;
mod shapes;
mod stage;
mod wire;

use std::net::Ipv4Addr;

pub use self::differences::{Difference, Shows, differences, table, unexplained};
pub use self::outcome::{Answer, Aspect, End, Outcome, compare};
pub use self::shapes::shapes;
pub use self::stage::{Side, Stage};

/// Where a request arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// Port 80.
    Http,
    /// Port 443.
    Tls(Tls),
    /// Port 443, without any TLS.
    NoTls,
    /// Port 8006 of this host alone.
    Local,
}

/// A handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// The server name that is sent, if any.
    pub sni: Option<&'static str>,
    /// Protocols of ALPN, in order of preference.
    pub alpn: &'static [&'static str],
    /// TLS 1.2 and nothing newer.
    pub old: bool,
}

/// What a client does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Sends bytes as they are; `{cookie:NAME}` in them is what an answer has set.
    Send(Vec<u8>),
    /// Reads answers up to a final one, or 101.
    Read {
        /// It was asked by HEAD.
        head: bool,
    },
    /// Reads exactly one answer, interim or not.
    ReadOne,
    /// Reads so many bytes of a tunnel.
    Bytes(usize),
    /// Waits until what was sent has got where it goes.
    Pause,
    /// Says that nothing more comes.
    Shut,
    /// Reads until the other side closes.
    End,
}

/// How a shape is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum How {
    /// By HTTP/1, byte by byte.
    Steps(Via, Vec<Step>),
    /// By HTTP/2: arguments of curl, the last of them the URL.
    Http2(Vec<String>),
}

/// One request shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Unique.
    pub name: &'static str,
    /// How it is sent.
    pub how: How,
}

/// The address of Tollgate: the server's.
pub const HERE: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 104);
/// The address of nginx: another one of the server's, so that both have the ports of the deployment.
pub const NGINX: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 105);
