//! A hostile request, what must come of it here, and why that is otherwise at nginx, if it is.

use std::ops::RangeInclusive;

use crate::frames::{HEADERS, WHOLE, block, frame, hello};

/// Follows each case of HTTP/1 at once. It arrives at the upstream only if the case leaves no doubt where its own request ends;
/// whatever else makes it arrive has smuggled it in.
pub const NEXT: &str = "GET /next HTTP/1.1\r\nHost: a.example\r\n\r\n";

/// On what a case is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Bytes of HTTP/1 in TLS.
    Http1,
    /// Frames of HTTP/2 in TLS.
    Http2,
    /// Bytes on the port without TLS.
    Plain,
    /// Bytes without TLS on the port that wants TLS.
    PlainToTls,
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub over: Over,
    pub bytes: Vec<u8>,
    /// The client ends its side after them.
    pub half_closes: bool,
    /// What must come of it: see [`crate::client::Outcome`]; alternatives are separated by `|`.
    pub wanted: &'static str,
    /// How many whole requests the upstream may see of it.
    pub arrives: RangeInclusive<usize>,
    pub why: Option<Why>,
    /// Of a flood it depends on the moment what was answered before it was cut off: nginx is asked, but not compared.
    pub floods: bool,
}

impl Case {
    /// It is a flood, of which so many requests may arrive.
    pub fn flood(self, arrives: RangeInclusive<usize>) -> Self {
        Self { arrives, floods: true, ..self }
    }

    /// For this reason nginx does it in another way.
    pub fn unlike(self, why: Why) -> Self {
        Self { why: Some(why), ..self }
    }

    /// The client ends its side after it.
    pub fn then_half_closes(self) -> Self {
        Self { half_closes: true, ..self }
    }

    /// The same over another way.
    pub fn over(self, over: Over) -> Self {
        Self { over, ..self }
    }
}

/// These bytes, then [`NEXT`].
pub fn raw(name: &str, bytes: impl AsRef<[u8]>, wanted: &'static str, arrives: usize) -> Case {
    let bytes = [bytes.as_ref(), NEXT.as_bytes()].concat();
    Case {
        name: name.to_owned(),
        over: Over::Http1,
        bytes,
        half_closes: false,
        wanted,
        arrives: arrives..=arrives,
        why: None,
        floods: false,
    }
}

/// A POST with these header lines and this body.
pub fn post(lines: &str, body: &str, wanted: &'static str, arrives: usize) -> Case {
    let name = if lines.len() > 60 { &lines[..60] } else { lines };
    let text = format!("POST /case HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n\r\n{body}");
    raw(&format!("{name:?}"), text, wanted, arrives)
}

/// A GET with these header lines.
pub fn get(lines: &str, wanted: &'static str, arrives: usize) -> Case {
    let text = format!("GET /case HTTP/1.1\r\nHost: a.example\r\n{lines}\r\n\r\n");
    raw(&format!("{lines:?}"), text, wanted, arrives)
}

/// A first line with a `Host` and nothing more.
pub fn line(line: &str, wanted: &'static str, arrives: usize) -> Case {
    raw(&format!("{line:?}"), format!("{line}\r\nHost: a.example\r\n\r\n"), wanted, arrives)
}

/// What a request of HTTP/2 must have.
pub const FIELDS: [(&str, &str); 4] =
    [(":method", "GET"), (":scheme", "https"), (":path", "/case"), (":authority", "a.example")];

/// Frames of HTTP/2, then a good request on stream 3.
pub fn frames(name: &str, frames: &[Vec<u8>], wanted: &'static str, arrives: usize) -> Case {
    let next = FIELDS.map(|(name, value)| (name, if name == ":path" { "/next" } else { value }));
    let bytes = [hello(), frames.concat(), frame(HEADERS, WHOLE, 3, &block(&next))].concat();
    Case { over: Over::Http2, bytes, ..raw(name, "", wanted, arrives) }
}

/// A request of HTTP/2 with exactly these fields.
pub fn fields(name: &str, fields: &[(&str, &str)], wanted: &'static str, arrives: usize) -> Case {
    frames(name, &[frame(HEADERS, WHOLE, 1, &block(fields))], wanted, arrives)
}

/// One with a value of [`FIELDS`] replaced.
pub fn with(pseudo: &str, value: &str, wanted: &'static str, arrives: usize) -> Case {
    let changed = FIELDS.map(|(name, old)| (name, if name == pseudo { value } else { old }));
    let short = if value.len() > 50 { &value[..50] } else { value };
    fields(&format!("{pseudo} {short:?}"), &changed, wanted, arrives)
}

/// One with a field more.
pub fn plus(name: &str, value: &str, wanted: &'static str, arrives: usize) -> Case {
    let all = [&FIELDS[..], &[(name, value)]].concat();
    let short = if value.len() > 50 { &value[..50] } else { value };
    fields(&format!("{name:?} {short:?}"), &all, wanted, arrives)
}

macro_rules! reasons {
    ($($variant:ident = $name:literal;)*) => {
        /// Why the proxy does otherwise than nginx: each is explained under its name in docs/proxy.md.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Why { $($variant,)* }

        impl Why {
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    Authority = "authority";
    Chunks = "chunks";
    CodingStatus = "coding-status";
    ConnectionHeaders = "connection-headers";
    Continue = "continue";
    Expect = "expect";
    Farewell = "farewell";
    FieldBytes = "field-bytes";
    FirstLine = "first-line";
    Fragment = "fragment";
    Frames = "frames";
    HeaderLines = "header-lines";
    HostAsSent = "host-as-sent";
    HostBesideAuthority = "host-beside-authority";
    HostSyntax = "host-syntax";
    LengthDropped = "length-dropped";
    LengthRepeated = "length-repeated";
    Limits = "limits";
    Lingers = "lingers";
    Methods = "methods";
    NoHost = "no-host";
    Preface = "preface";
    Scheme = "scheme";
    StreamReset = "stream-reset";
    Tabs = "tabs";
    TargetBytes = "target-bytes";
    TlsWanted = "tls-wanted";
    TrailerEnd = "trailer-end";
    Trailers = "trailers";
    Unfinished = "unfinished";
    Versions = "versions";
}
