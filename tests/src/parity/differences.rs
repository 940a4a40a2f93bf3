//! In what the proxy does not do as nginx did, each with the reason: the list of docs/proxy.md, and which shapes show it.

use std::collections::BTreeMap;

use super::outcome::Aspect;

/// Shapes, and all of [`Aspect::what`] that differs in each of them for this reason.
pub type Group = (&'static [&'static str], &'static [&'static str]);

/// Where a difference shows.
#[derive(Clone, Copy, Debug)]
pub enum Shows {
    /// In these aspects with most shapes, and with one at least.
    Anywhere(&'static [&'static str]),
    /// With these shapes, each of them, in all of their aspects.
    Only(&'static [Group]),
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
    pub shows: Shows,
}

impl Difference {
    /// Whether it explains what was found.
    pub fn explains(&self, shape: &str, aspect: &Aspect) -> bool {
        let names = |aspects: &[&str]| aspects.contains(&aspect.what.as_str());
        match self.shows {
            Shows::Anywhere(aspects) => names(aspects),
            Shows::Only(groups) => {
                groups.iter().any(|(shapes, aspects)| shapes.contains(&shape) && names(aspects))
            }
        }
    }

    /// The shapes that it names.
    pub fn shapes(&self) -> Vec<&'static str> {
        match self.shows {
            Shows::Anywhere(_) => Vec::new(),
            Shows::Only(groups) => groups.iter().flat_map(|(shapes, _)| shapes.iter().copied()).collect(),
        }
    }

    /// What of it was not found, where `found` says what differs in a shape: what no longer belongs on the list.
    pub fn gone(&self, found: &BTreeMap<&str, Vec<Aspect>>) -> Vec<String> {
        let differs = |shape: &str, what: &str| {
            found.get(shape).is_some_and(|aspects| aspects.iter().any(|aspect| aspect.what == what))
        };
        let name = self.name;
        match self.shows {
            Shows::Anywhere(aspects) => aspects
                .iter()
                .filter(|what| !found.keys().any(|shape| differs(shape, what)))
                .map(|what| format!("{name}: {what} with any shape"))
                .collect(),
            Shows::Only(groups) => groups
                .iter()
                .flat_map(|(shapes, aspects)| {
                    shapes.iter().flat_map(move |s| aspects.iter().map(move |a| (*s, *a)))
                })
                .filter(|(shape, what)| !differs(shape, what))
                .map(|(shape, what)| format!("{name}: {shape}: {what}"))
                .collect(),
        }
    }
}

/// All of them.
pub const DIFFERENCES: &[Difference] = &[
    // What applications see of a request.
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
            (
                &["a host in capitals", "chunks to this host's own listener"],
                &["body", "seen:header:host", "seen:host"],
            ),
            (&["a body to this host's own listener"], &["seen:header:host", "seen:host"]),
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
        here: "they stream; without a length they go on as chunked",
        why: "memory; an upstream that takes no chunked bodies answers so itself",
        shows: Shows::Only(&[
            (
                &[
                    "chunks",
                    "chunks to the development server",
                    "HTTP/2: a body without a length",
                    "chunks to this host's own listener",
                ],
                &["body", "seen:body", "seen:header:content-length", "seen:header:transfer-encoding"],
            ),
            (
                &[
                    "chunks to what reads chunks",
                    "chunks with extensions",
                    "chunks with a trailer",
                    "no chunk but the last",
                ],
                &["seen:header:content-length", "seen:header:transfer-encoding"],
            ),
            (
                &["a form in chunks"],
                &[
                    "body",
                    "seen:body",
                    "seen:form",
                    "seen:header:content-length",
                    "seen:header:transfer-encoding",
                ],
            ),
        ]),
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
        shows: Shows::Only(&[(&["an upgrade to h2c where WebSockets are"], &["seen:header:upgrade"])]),
    },
    // What is refused.
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
            (&["TRACE"], &["end", "header:allow"]),
            (&["TRACK"], &["seen", "status"]),
            (&["CONNECT"], &["end", "status"]),
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
    // Which route, and how often.
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
        shows: Shows::Only(&[(&["sixty requests to what allows twenty at once"], &["seen", "status"])]),
    },
    // What clients see of an answer.
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
        name: "phrases",
        nginx: "the upstream's phrase after the status is passed on",
        here: "the registered one, or `<none>`",
        why: "HTTP/2 has none, and nobody may rely on it (RFC 9112 4)",
        shows: Shows::Only(&[(
            &[
                "418",
                "599",
                "a status of the application's own with its phrase",
                "a range beyond the end",
                "an answer without a phrase",
                "an answer with a phrase of its own",
            ],
            &["reason"],
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
    Difference {
        name: "asked twice",
        nginx: "an upstream whose answer can't be read is not asked again",
        here: "GET and the like are asked once more, on a new connection, if the connection was used before",
        why: "it looks like a connection that has just been closed",
        shows: Shows::Only(&[(
            &["an answer with a folded line, on a connection that was used before"],
            &["seen"],
        )]),
    },
];

/// What a race decides: gunicorn answers and closes while a body that nobody has read still arrives.
pub const RACES: &[Group] =
    &[(&["chunks", "a form in chunks", "chunks to this host's own listener"], &["end"])];

/// What of the aspects of a shape no difference explains.
pub fn unexplained<'a>(shape: &str, aspects: &'a [Aspect]) -> Vec<&'a Aspect> {
    let is_race = |aspect: &Aspect| {
        let of =
            |(shapes, aspects): &Group| shapes.contains(&shape) && aspects.contains(&aspect.what.as_str());
        RACES.iter().any(of)
    };
    let is_listed = |aspect: &Aspect| DIFFERENCES.iter().any(|one| one.explains(shape, aspect));
    aspects.iter().filter(|aspect| !is_race(aspect) && !is_listed(aspect)).collect()
}

/// The table of docs/proxy.md.
pub fn table() -> String {
    let rows: String =
        DIFFERENCES.iter().map(|one| format!("| {} | {} | {} |\n", one.nginx, one.here, one.why)).collect();
    format!("| nginx | here | why |\n|---|---|---|\n{rows}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aspect(what: &str) -> Aspect {
        Aspect { what: what.to_owned(), nginx: "1".to_owned(), here: "2".to_owned() }
    }

    #[test]
    fn a_difference_is_for_its_shapes_and_aspects_alone() {
        let listed = [aspect("seen:header:proxy"), aspect("header:server")];
        assert_eq!(unexplained("Proxy", &listed), [&aspect("header:server"); 0]);
        assert_eq!(unexplained("Via", &listed), [&listed[0]]);
        assert_eq!(unexplained("Proxy", &[aspect("status")]), [&aspect("status")]);
    }

    #[test]
    fn what_no_longer_differs_is_gone() {
        let of = |name: &str| DIFFERENCES.iter().find(|one| one.name == name).expect("a difference");
        let found =
            BTreeMap::from([("Proxy", vec![aspect("seen:header:proxy")]), ("Via", vec![aspect("status")])]);
        assert_eq!(of("Proxy").gone(&found), [""; 0]);
        assert_eq!(of("Server").gone(&found), ["Server: header:server with any shape"]);
        assert_eq!(of("fragment").gone(&found).len(), 2);
    }
}
