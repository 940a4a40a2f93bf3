//! In what the proxy does not do as nginx did, each with the reason: the list of docs/proxy.md, and which shapes show it.

use super::outcome::Aspect;

/// Where a difference shows.
#[derive(Clone, Copy, Debug)]
pub enum Where {
    /// With most shapes; with one at least.
    Anywhere,
    /// With these shapes, each of them.
    Only(&'static [&'static str]),
}

/// One of the differences.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// For the table of shapes.
    pub name: &'static str,
    /// What nginx does: the first cell of the row in docs/proxy.md.
    pub nginx: &'static str,
    /// What this proxy does: the second.
    pub here: &'static str,
    /// Why: the third.
    pub why: &'static str,
    /// Which shapes show it.
    pub shapes: Where,
    /// In what they show it: names of [`Aspect::what`], `*` at the end for any that begins so.
    pub aspects: &'static [&'static str],
}

impl Difference {
    /// Whether it explains what was found.
    pub fn explains(&self, shape: &str, aspect: &Aspect) -> bool {
        let here = match self.shapes {
            Where::Anywhere => true,
            Where::Only(names) => names.contains(&shape),
        };
        here && self.aspects.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => aspect.what.starts_with(beginning),
            None => aspect.what == *pattern,
        })
    }
}

/// All of them.
pub const DIFFERENCES: &[Difference] = &[
    Difference {
        name: "Server",
        nginx: "`Server: nginx`",
        here: "none",
        why: "says nothing that a client needs",
        shapes: Where::Anywhere,
        aspects: &["header:server"],
    },
    Difference {
        name: "headers of the policy",
        nginx: "`add_header` only on some statuses, and added to the upstream's",
        here: "on all answers, unless the upstream has it",
        why: "security headers matter on errors most; two contradict each other",
        shapes: Where::Anywhere,
        aspects: &["header:x-frame-options", "header:x-content-type-options", "header:x-xss-protection"],
    },
    Difference {
        name: "HTTP/1.1 upstream",
        nginx: "HTTP/1.0 to upstreams, with `Connection: close`",
        here: "HTTP/1.1, or 2",
        why: "connections are kept",
        shapes: Where::Anywhere,
        aspects: &["seen:version", "seen:header:connection"],
    },
    Difference {
        name: "X-Request-ID",
        nginx: "upstreams get no `X-Request-ID`, or the client's",
        here: "one that is made here",
        why: "a request is found in both logs; a client's could be anybody's",
        shapes: Where::Anywhere,
        aspects: &["seen:header:x-request-id"],
    },
    Difference {
        name: "error pages",
        nginx: "errors are pages of HTML that name nginx",
        here: "the status and a sentence of plain text, `Cache-Control: no-store`",
        why: "programs read it too, and nothing may keep it",
        shapes: Where::Anywhere,
        aspects: &["page"],
    },
];

/// What of the aspects of a shape no difference explains.
pub fn unexplained<'a>(shape: &str, aspects: &'a [Aspect]) -> Vec<&'a Aspect> {
    aspects.iter().filter(|aspect| !DIFFERENCES.iter().any(|one| one.explains(shape, aspect))).collect()
}

/// The table of docs/proxy.md.
pub fn table() -> String {
    let rows: String =
        DIFFERENCES.iter().map(|one| format!("| {} | {} | {} |\n", one.nginx, one.here, one.why)).collect();
    format!("| nginx | here | why |\n|---|---|---|\n{rows}")
}
