//! Upstreams that are down, break off, or answer what HTTP does not know.

use super::super::{Shape, Step};
use super::{DOWN, ODD, get, once, request, steps, to, with_body};

pub(super) fn shapes() -> Vec<Shape> {
    let odd = |name, path: &str| get(name, ODD, path, &[]);
    vec![
        get("an upstream that is not there", DOWN, "/", &[]),
        once("a body for an upstream that is not there", to(DOWN), with_body("POST /", DOWN, &[], b"abc")),
        once("HEAD of an upstream that is not there", to(DOWN), request("HEAD /", DOWN, &[], b"")),
        get("an upstream that does not answer in time", "slow.example", "/late", &[]),
        get("an upstream that can't be reached in time", "away.example", "/", &[]),
        odd("an upstream that closes at once", "/close"),
        once(
            "a body for an upstream that closes at once",
            to(ODD),
            with_body("POST /close", ODD, &[], b"abc"),
        ),
        odd("an upstream that speaks no HTTP", "/garbage"),
        odd("an upstream that closes within its head", "/half-a-head"),
        odd("an upstream that closes within its body", "/cut"),
        odd("an upstream that closes within its chunks", "/cut-chunks"),
        odd("an upstream with two lengths", "/two-lengths"),
        odd("an upstream with a length twice", "/length-twice"),
        odd("an upstream with a length and chunks", "/length-and-chunks"),
        odd("an upstream with another coding", "/coded"),
        odd("trailers of an answer", "/trailers"),
        get(
            "trailers of an answer for whoever takes them",
            ODD,
            "/trailers",
            &["Connection: TE", "TE: trailers"],
        ),
        odd("chunks of an answer with extensions", "/chunks"),
        odd("early hints", "/early-hints"),
        odd("100 that nobody asked for", "/continue"),
        odd("hop-by-hop headers of an answer", "/hop-by-hop"),
        odd("an answer with a header of 20 kB", "/long-header"),
        odd("an answer with six kB of cookies", "/many-cookies"),
        steps(
            "an answer with a folded line, on a connection that was used before",
            to(ODD),
            vec![
                Step::Send(request("GET /", ODD, &[], b"")),
                Step::Read { head: false },
                Step::Send(request("GET /folded", ODD, &[], b"")),
                Step::Read { head: false },
            ],
        ),
        odd("an answer with a line without a colon", "/no-colon"),
        odd("an answer with lines that end with LF", "/bare-lf"),
        odd("an answer without a phrase", "/no-reason"),
        odd("an answer with a phrase of its own", "/reason"),
        odd("an answer that ends with its connection", "/until-the-end"),
        odd("an answer of HTTP/1.0", "/http10"),
        odd("an answer of a version that nobody has", "/701-times"),
        odd("204 with a length", "/204"),
        odd("205", "/205"),
        odd("304 with a length", "/304"),
        odd("a status of 600", "/600"),
        odd("a status of 099", "/099"),
        odd("101 that nobody asked for", "/unasked"),
        odd("X-Accel-Redirect", "/accel-redirect"),
        odd("a redirect that names the upstream", "/to-itself"),
        odd("a refresh that names the upstream", "/refresh"),
        odd("names of headers in mixed case", "/mixed-case"),
        odd("an answer with Latin-1", "/latin-1"),
        once("HEAD of what has a length", to(ODD), request("HEAD /", ODD, &[], b"")),
    ]
}
