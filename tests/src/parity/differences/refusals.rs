//! What nginx takes and this proxy refuses or the reverse, and which route takes a request. Read by [`super::differences`].

use super::{Difference, Shows};

/// In the order of the documents.
pub(super) const REFUSALS: &[Difference] = &[
    Difference {
        name: "host that is none",
        nginx: "a `Host` of almost any characters, `u@a`, `a:` too",
        here: "names, addresses, a port of digits",
        why: "what is routed on and what the upstream reads must be one thing",
        shows: Shows::Only(&[
            (
                &["a host with credentials"],
                &[
                    "body",
                    "end",
                    "header:cache-control",
                    "header:content-length",
                    "header:content-type",
                    "header:referrer-policy",
                    "header:server",
                    "header:transfer-encoding",
                    "header:x-frame-options",
                    "header:x-xss-protection",
                    "seen",
                ],
            ),
            (
                &[
                    "a host with a colon and no port",
                    "a host with a port of letters",
                    "an address of three numbers",
                ],
                &["end", "seen", "status"],
            ),
        ]),
    },
    Difference {
        name: "host and target",
        nginx: "a target with an authority overrides `Host`, whatever that says",
        here: "they must agree",
        why: "no client that means well contradicts itself",
        shows: Shows::Only(&[(&["an absolute target of another host"], &["end", "seen", "status"])]),
    },
    Difference {
        name: "methods",
        nginx: "CONNECT is 400, TRACE 405, TRACK passes; methods in lower case are 400",
        here: "CONNECT, TRACE, TRACK are 405 with `Allow` in any case; every other token passes",
        why: "TRACK is TRACE by another name; which methods there are is the upstream's matter",
        shows: Shows::Only(&[
            (&["a method in lower case"], &["end", "seen", "status"]),
            (&["TRACE"], &["header:allow"]),
            (&["TRACK"], &["end", "seen", "status"]),
            (&["CONNECT"], &["status"]),
        ]),
    },
    Difference {
        name: "expectations",
        nginx: "any `Expect` is ignored",
        here: "417 unless `100-continue`",
        why: "nobody behind the proxy will meet another expectation: it is not passed on",
        shows: Shows::Only(&[(&["another expectation"], &["end", "seen", "status"])]),
    },
    Difference {
        name: "bytes of targets",
        nginx: "non-ASCII and unescaped bytes of targets pass",
        here: "400, but for those that browsers leave as they are",
        why: "RFC 3986",
        shows: Shows::Only(&[(
            &[
                "quotes unescaped in a query",
                "UTF-8 unescaped in a path",
                "UTF-8 unescaped in a query",
                "a byte that is no UTF-8 in a path",
            ],
            &["end", "seen", "status"],
        )]),
    },
    Difference {
        name: "versions",
        nginx: "HTTP/0.9 and 1.2 are answered, later ones are 505, HTTP/2 without TLS is 400",
        here: "400 or nothing, and the end of the connection",
        why: "nobody speaks them, and whoever does can't tell where an answer ends",
        shows: Shows::Only(&[
            (&["HTTP/0.9"], &["seen", "status"]),
            (&["HTTP/1.2"], &["end", "seen", "status"]),
            (
                &["HTTP/2.0 in a line of HTTP/1", "HTTP/9.9", "HTTP/2 by prior knowledge on plain HTTP"],
                &["status"],
            ),
        ]),
    },
    Difference {
        name: "no TLS",
        nginx: "plain HTTP on the port of HTTPS is answered with 400",
        here: "with an alert of TLS",
        why: "there is no connection on which to answer",
        shows: Shows::Only(&[(&["HTTP on the port of HTTPS"], &["status"])]),
    },
    Difference {
        name: "lines that are none",
        nginx: "two spaces in a request line, control characters in a value pass; a line without a colon is dropped",
        here: "400",
        why: "others read something else in them: requests are smuggled so",
        shows: Shows::Only(&[(
            &["two spaces in the request line", "a line without a colon", "a control character in a value"],
            &["end", "seen", "status"],
        )]),
    },
    Difference {
        name: "limits of heads",
        nginx: "a header line or a target of more than 8 KiB, more than 32 KiB of lines: 400, 414, 400; any number of lines",
        here: "`max-target`, `max-headers`, `max-header-count`; 414, 431",
        why: "the policy says it, and the status says what to change",
        shows: Shows::Only(&[
            (&["a header of nine KiB", "150 headers"], &["end", "seen", "status"]),
            (&["forty KiB of headers"], &["status"]),
        ]),
    },
    Difference {
        name: "chunks and a length",
        nginx: "a chunked request with a length is 400",
        here: "400 where the parser shows both; else the length is dropped and the connection ends",
        why: "hyper removes one of the two",
        shows: Shows::Only(&[(&["chunks and a length"], &["seen", "status"])]),
    },
    Difference {
        name: "repeated length",
        nginx: "a repeated `Content-Length` is 400",
        here: "400 if the two differ; else one is dropped",
        why: "likewise",
        shows: Shows::Only(&[(&["a length twice"], &["end", "seen", "status"])]),
    },
    Difference {
        name: "which refusal",
        nginx: "of codings and lengths that are wrong together: `chunked` twice is 400, `identity` 501",
        here: "501 and 400",
        why: "the other way is as good: both end the connection",
        shows: Shows::Only(&[(&["identity as a transfer coding", "chunked twice"], &["status"])]),
    },
    Difference {
        name: "routes of any host",
        nginx: "`server` is chosen first, then `location` within it",
        here: "a route of `*.` or any host is asked if the named host has none for the path",
        why: "a policy says which routes there are, not which servers",
        shows: Shows::Only(&[(&["the rest of a host that has a route"], &["seen", "status"])]),
    },
    Difference {
        name: "limit",
        nginx: "`limit_req` counts milliseconds, rejects with 503",
        here: "nanoseconds, 429 and `Retry-After`",
        why: "programs know when to come back",
        shows: Shows::Only(&[(&["sixty requests to what allows twenty at once"], &["status"])]),
    },
];
