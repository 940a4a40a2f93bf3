//! What applications see of a request otherwise than behind nginx. Read by [`super::differences`].

use super::{Difference, Shows};

/// In the order of the documents.
pub(super) const REQUESTS: &[Difference] = &[
    Difference {
        name: "HTTP/1.1 upstream",
        nginx: "HTTP/1.0 to upstreams, `Connection: close`",
        here: "HTTP/1.1, or 2",
        why: "connections are kept",
        shows: Shows::Anywhere(&["seen:version", "seen:header:connection"]),
    },
    Difference {
        name: "X-Request-ID",
        nginx: "no `X-Request-ID`, or the client's",
        here: "one that is made here",
        why: "a request is found in the logs of both sides; a client could send that of another",
        shows: Shows::Anywhere(&["seen:header:x-request-id"]),
    },
    Difference {
        name: "Host as sent",
        nginx: "`$host` is in lower case, without port and without a dot at the end",
        here: "`Host` as the client sent it",
        why: "applications make links of it, and a port that the client used is a part of them",
        shows: Shows::Only(&[
            (
                &[
                    "HTTP/2: a host with a port",
                    "a host with its port",
                    "a host with another port",
                    "an address with its port",
                    "a host with a dot at its end",
                    "this host's own listener",
                ],
                &["body", "header:content-length", "seen:header:host", "seen:host"],
            ),
            (&["a host in capitals"], &["body", "seen:header:host", "seen:host"]),
            (
                &["a body to this host's own listener", "chunks to this host's own listener"],
                &["seen:header:host", "seen:host"],
            ),
        ]),
    },
    Difference {
        name: "no host",
        nginx: "HTTP/1.0 without `Host` gets the first `server_name`, if only `_`, or none",
        here: "the address and port that the client connected to",
        why: "that is what the client asked; frameworks refuse a request without a host",
        shows: Shows::Only(&[
            (&["HTTP/1.0 without a host on plain HTTP"], &["seen:header:host", "seen:host"]),
            (&["plain HTTP without a host"], &["seen:header:host", "seen:host", "status"]),
        ]),
    },
    Difference {
        name: "X-Forwarded-For",
        nginx: "`$proxy_add_x_forwarded_for` appends to what anybody sent",
        here: "only to what trusted proxies sent",
        why: "applications take the left-most address for the client",
        shows: Shows::Only(&[(
            &["X-Forwarded-For of the client's", "HTTP/2: X-Forwarded-For of the client's"],
            &["seen:header:x-forwarded-for"],
        )]),
    },
    Difference {
        name: "Forwarded",
        nginx: "`X-Forwarded-Host`, `-Port` and the like, and `Forwarded` of clients are passed on",
        here: "dropped",
        why: "frameworks make links of them",
        shows: Shows::Only(&[
            (&["X-Forwarded-Host of the client's"], &["seen:header:x-forwarded-host"]),
            (&["X-Forwarded-Port of the client's"], &["seen:header:x-forwarded-port"]),
            (&["Forwarded of the client's"], &["seen:header:forwarded"]),
        ]),
    },
    Difference {
        name: "Proxy",
        nginx: "`Proxy` is passed on",
        here: "dropped",
        why: "CGI programs take it for their proxy",
        shows: Shows::Only(&[(&["Proxy"], &["seen:header:proxy"])]),
    },
    Difference {
        name: "hop by hop",
        nginx: "what `Connection` names, `Proxy-*`, `Trailer`, `HTTP2-Settings` and an answer's `Upgrade` are passed on",
        here: "dropped",
        why: "they end at a proxy (RFC 9110 7.6.1); an answer with them breaks HTTP/2",
        shows: Shows::Only(&[
            (&["chunks with a trailer"], &["seen:header:trailer"]),
            (&["the client names a header in Connection"], &["seen:header:x-mine"]),
            (&["hop-by-hop headers"], &["seen:header:proxy-connection"]),
            (&["credentials for a proxy"], &["seen:header:proxy-authorization"]),
            (
                &["an upgrade to h2c", "an upgrade to h2c where WebSockets are"],
                &["seen:header:http2-settings"],
            ),
            (&["HTTP/2: trailers of an answer", "trailers of an answer"], &["header:trailer"]),
            (&["HTTP/2: hop-by-hop headers of an answer"], &["end", "status"]),
            (
                &["hop-by-hop headers of an answer"],
                &["header:proxy-authenticate", "header:upgrade", "header:x-mine"],
            ),
        ]),
    },
    Difference {
        name: "names of headers",
        nginx: "of names, only letters, digits and `-` are passed on",
        here: "only those with `_` are dropped",
        why: "of the other characters none becomes a `-` on the way to an application",
        shows: Shows::Only(&[(&["a dot in a name"], &["seen:header:x.dot"])]),
    },
    Difference {
        name: "cookies in one line",
        nginx: "two lines of `Cookie` stay two",
        here: "they become one",
        why: "HTTP/2 may split them, and applications would join them with a comma",
        shows: Shows::Only(&[(&["cookies in two lines"], &["seen:header:cookie"])]),
    },
    Difference {
        name: "fragment",
        nginx: "`#fragment` in a target is passed on",
        here: "cut off",
        why: "the parser does it before anything here is asked",
        shows: Shows::Only(&[(&["redirect 302 with query and fragment", "a fragment"], &["seen:target"])]),
    },
    Difference {
        name: "chunks",
        nginx: "request bodies are buffered, and chunked ones get a length",
        here: "they stream; one without a length gets one if it ends within `buffer-requests`, else it goes on in chunks or is answered by 411",
        why: "memory. WSGI servers that know no chunks take such a body for none",
        shows: Shows::Only(&[(
            &["100 KiB in chunks"],
            &["seen:header:content-length", "seen:header:transfer-encoding"],
        )]),
    },
    Difference {
        name: "bodies stream",
        nginx: "a request whose body breaks off never reaches the upstream",
        here: "it has begun by then, and breaks off there too",
        why: "bodies stream: no memory and no file holds them, and the upstream begins at once",
        shows: Shows::Only(&[(&["the client leaves within a body"], &["seen", "status"])]),
    },
    Difference {
        name: "upgrades",
        nginx: "upgrades must be configured by header, and then any passes",
        here: "`websocket` in the route, checked",
        why: "h2c and other upgrades smuggle requests",
        shows: Shows::Only(&[(
            &[
                "an upgrade to h2c where WebSockets are",
                "a WebSocket without a key",
                "a WebSocket of an old version",
                "a WebSocket in capitals, with a protocol",
            ],
            &["seen:header:upgrade"],
        )]),
    },
];
