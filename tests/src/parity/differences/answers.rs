//! What clients see of an answer otherwise than from nginx. Read by [`super::differences`].

use super::{Difference, Shows};

/// In the order of the documents.
pub(super) const ANSWERS: &[Difference] = &[
    Difference {
        name: "Server",
        nginx: "`Server: nginx`",
        here: "none",
        why: "says nothing that a client needs",
        shows: Shows::Anywhere(&["header:server"]),
    },
    Difference {
        name: "headers of the policy",
        nginx: "`add_header` only on some statuses, and added to the upstream's",
        here: "on all answers, unless the upstream has it",
        why: "security headers matter on errors most; two contradict each other",
        shows: Shows::Anywhere(&[
            "header:x-frame-options",
            "header:x-content-type-options",
            "header:x-xss-protection",
        ]),
    },
    Difference {
        name: "error pages",
        nginx: "errors and redirects are pages of HTML that name nginx",
        here: "the status and a sentence in plain text; errors with `Cache-Control: no-store`",
        why: "programs read it too, and nothing may keep it",
        shows: Shows::Anywhere(&["page"]),
    },
    Difference {
        name: "HTTP/1.0 answers",
        nginx: "HTTP/1.0 is answered in HTTP/1.1",
        here: "in HTTP/1.0",
        why: "a client of old may know no other",
        shows: Shows::Only(&[(
            &[
                "HTTP/1.0 with a host",
                "HTTP/1.0 without a host",
                "HTTP/1.0 without a host on plain HTTP",
                "HTTP/1.0 that keeps its connection",
                "HTTP/1.0 gets a stream",
            ],
            &["version"],
        )]),
    },
    Difference {
        name: "no body, no length",
        nginx: "the `Content-Length` of a 204 or 304 is passed on",
        here: "removed",
        why: "a 204 must not have one (RFC 9110 8.6), and that of a 304 is often wrong: Django says 0",
        shows: Shows::Only(&[(
            &[
                "204",
                "204 of the development server",
                "304 by an entity tag",
                "304 by a date",
                "204 with a length",
                "304 with a length",
            ],
            &["header:content-length"],
        )]),
    },
    Difference {
        name: "X-Accel and X-Sendfile",
        nginx: "`X-Accel-Redirect` sends a file, `X-Sendfile` is passed on",
        here: "dropped",
        why: "nothing here serves files",
        shows: Shows::Only(&[
            (&["headers that speak to a proxy"], &["header:x-sendfile"]),
            (&["X-Accel-Redirect"], &["body", "header:content-length", "seen"]),
        ]),
    },
    Difference {
        name: "Location",
        nginx: "`Location` and `Refresh` that name the upstream's address are rewritten",
        here: "as the upstream sent them",
        why: "upstreams get the client's `Host` and make their links of it",
        shows: Shows::Only(&[
            (&["a redirect that names the upstream"], &["header:location"]),
            (&["a refresh that names the upstream"], &["header:refresh"]),
        ]),
    },
    Difference {
        name: "streams that break off",
        nginx: "a chunked answer that breaks off ends as if it were whole",
        here: "it breaks off for the client too",
        why: "half a file must not look like a file; HTTP/1.0 to upstreams can't tell",
        shows: Shows::Only(&[(
            &["a stream that breaks off", "HTTP/2: a stream that breaks off"],
            &["end", "whole"],
        )]),
    },
    Difference {
        name: "trailers",
        nginx: "trailers of answers are dropped",
        here: "those that are announced go on, to HTTP/2 and to whoever sends `TE: trailers`",
        why: "gRPC has its status there",
        shows: Shows::Only(&[
            (&["HTTP/2: trailers of an answer"], &["header:trailer:x-last"]),
            (&["trailers of an answer for whoever takes them"], &["header:trailer", "header:trailer:x-last"]),
        ]),
    },
    Difference {
        name: "interim answers",
        nginx: "an upstream's 100 or 103 is taken for the answer",
        here: "dropped, and the answer is awaited",
        why: "it is what the client asked for",
        shows: Shows::Only(&[
            (&["HTTP/2: early hints"], &["end", "status"]),
            (&["early hints", "100 that nobody asked for"], &["status"]),
        ]),
    },
    Difference {
        name: "long answer heads",
        nginx: "an answer's head beyond one buffer (4 KiB) is 502",
        here: "it passes",
        why: "cookies of single sign-on are as long",
        shows: Shows::Only(&[(
            &["an answer with a header of 20 kB", "an answer with six kB of cookies"],
            &["status"],
        )]),
    },
    Difference {
        name: "answers that are none",
        nginx: "answers with two lengths, a length and chunks, another coding, lines without a colon, a version or status that nobody has, \
                an unasked 101, or no head pass",
        here: "502",
        why: "what can be read in two ways is how answers are smuggled",
        shows: Shows::Only(&[
            (
                &[
                    "an upstream that speaks no HTTP",
                    "an upstream with a length twice",
                    "an upstream with a length and chunks",
                    "an upstream with another coding",
                    "an answer with a line without a colon",
                    "an answer of a version that nobody has",
                    "a status of 600",
                    "a status of 099",
                    "101 that nobody asked for",
                ],
                &["status"],
            ),
            (&["an upstream with two lengths"], &["end", "status"]),
        ]),
    },
];
