//! What a shape came to on one side, and in what two sides differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::Value;

/// A request as an application saw it, field by field: `method`, `body`, `header:accept`.
pub type Seen = BTreeMap<String, String>;

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `HTTP/1.1`; empty for an answer without a head.
    pub version: String,
    /// The status; 0 for an answer without a head.
    pub status: u16,
    /// Its phrase.
    pub reason: String,
    /// Names in lower case, in the order of the answer.
    pub headers: Vec<(String, String)>,
    /// Without its framing.
    pub body: Vec<u8>,
    /// It has the length that its head says.
    pub whole: bool,
}

impl Answer {
    /// The values of a header.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let of_name = self.headers.iter().filter(|(found, _)| found == name);
        of_name.map(|(_, value)| value.as_str()).collect()
    }

    /// Whether a comma-separated header has this word.
    pub fn says(&self, name: &str, word: &str) -> bool {
        self.values(name)
            .iter()
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(word))
    }

    /// nginx speaks for itself: one of its pages.
    fn is_of_nginx(&self) -> bool {
        self.body.windows(16).any(|window| window == b"<center>nginx/1." as &[u8])
    }
}

/// How the connection was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Another request could follow.
    Open,
    /// It was closed, or said to be.
    Closed,
    /// Nothing came within the time that a client has.
    Silent,
}

/// All that a shape came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The handshake: version, protocol of ALPN and a hash of the certificate, or why there was none.
    pub handshake: String,
    /// Interim answers too, in their order.
    pub answers: Vec<Answer>,
    /// What came through a tunnel.
    pub tunnel: Vec<u8>,
    /// How the connection was left.
    pub end: End,
    /// What applications saw.
    pub seen: Vec<Seen>,
}

impl Outcome {
    /// The statuses, as the table shows them: those in a row that are the same once, with their number.
    pub fn statuses(&self) -> String {
        let mut all: Vec<(String, usize)> = Vec::new();
        for answer in &self.answers {
            let status = format!("{}{}", answer.status, if answer.whole { "" } else { " cut" });
            match all.last_mut() {
                Some((last, count)) if *last == status => *count += 1,
                _ => all.push((status, 1)),
            }
        }
        let mut words: Vec<String> = all
            .into_iter()
            .map(|(status, count)| if count == 1 { status } else { format!("{count} x {status}") })
            .collect();
        match self.end {
            End::Open => {}
            End::Closed => words.push("closed".to_owned()),
            End::Silent => words.push("silent".to_owned()),
        }
        words.join(", ")
    }
}

/// One thing in which two sides differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aspect {
    /// What: `status`, `header:etag`, `seen:header:host`.
    pub what: String,
    /// On the side of nginx.
    pub nginx: String,
    /// On this one.
    pub here: String,
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |text: &str| text.chars().take(160).collect::<String>();
        write!(f, "{}: nginx {:?}, here {:?}", self.what, short(&self.nginx), short(&self.here))
    }
}

/// Headers that belong to a connection or a moment: what they mean for the client is compared as [`End`] and framing.
const NOT_COMPARED: [&str; 3] = ["connection", "date", "keep-alive"];

/// In what the outcomes differ. If a status does, headers and body are not looked at: they follow from it.
pub fn compare(nginx: &Outcome, here: &Outcome) -> Vec<Aspect> {
    let mut found = Vec::new();
    let mut note = |what: String, nginx: String, here: String| {
        if nginx != here {
            found.push(Aspect { what, nginx, here });
        }
    };
    note("handshake".to_owned(), nginx.handshake.clone(), here.handshake.clone());
    let statuses = |outcome: &Outcome| -> Vec<u16> { outcome.answers.iter().map(|a| a.status).collect() };
    let (theirs, ours) = (statuses(nginx), statuses(here));
    note("status".to_owned(), format!("{theirs:?}"), format!("{ours:?}"));
    note("end".to_owned(), format!("{:?}", nginx.end), format!("{:?}", here.end));
    note("tunnel".to_owned(), text(&nginx.tunnel), text(&here.tunnel));
    if theirs == ours {
        // A page of the proxy's own, also where HEAD leaves it out.
        let nobody_was_asked = nginx.seen.is_empty();
        for (nginx, here) in nginx.answers.iter().zip(&here.answers) {
            answers(nginx, here, nobody_was_asked, &mut note);
        }
    }
    note(
        "seen".to_owned(),
        format!("{} requests", nginx.seen.len()),
        format!("{} requests", here.seen.len()),
    );
    for (nginx, here) in nginx.seen.iter().zip(&here.seen) {
        let names: BTreeSet<&String> = nginx.keys().chain(here.keys()).collect();
        for name in names {
            let value =
                |seen: &Seen| seen.get(name).map_or("(none)".to_owned(), |text| without_session(text));
            note(format!("seen:{name}"), value(nginx), value(here));
        }
    }
    // Two answers that differ in the same thing differ in it once.
    found.sort_by(|a, b| a.what.cmp(&b.what));
    found.dedup_by(|a, b| a.what == b.what);
    found
}

fn answers(
    nginx: &Answer,
    here: &Answer,
    nobody_was_asked: bool,
    note: &mut impl FnMut(String, String, String),
) {
    note("version".to_owned(), nginx.version.clone(), here.version.clone());
    note("whole".to_owned(), nginx.whole.to_string(), here.whole.to_string());
    let own_page = nobody_was_asked || nginx.is_of_nginx();
    let body = |answer: &Answer| format!("{} {}", answer.reason, text(&answer.body));
    if own_page {
        note("page".to_owned(), body(nginx), body(here));
    } else {
        note("reason".to_owned(), nginx.reason.clone(), here.reason.clone());
        // How much arrives of one that breaks off is a matter of moments.
        if nginx.whole && here.whole {
            note("body".to_owned(), text(&nginx.body), text(&here.body));
        }
    }
    let of_a_page = ["cache-control", "content-length", "content-type"];
    let names: BTreeSet<&str> =
        nginx.headers.iter().chain(&here.headers).map(|(name, _)| name.as_str()).collect();
    for name in names {
        if NOT_COMPARED.contains(&name) || own_page && of_a_page.contains(&name) {
            continue;
        }
        let values = |answer: &Answer| {
            let values: Vec<String> = answer.values(name).iter().map(|value| lasting(name, value)).collect();
            if values.is_empty() { "(none)".to_owned() } else { values.join(" | ") }
        };
        note(format!("header:{name}"), values(nginx), values(here));
    }
}

/// A value without what is of its moment: ids and the end of cookies.
fn lasting(name: &str, value: &str) -> String {
    if name != "set-cookie" {
        return value.to_owned();
    }
    let parts: Vec<String> = value
        .split(';')
        .map(|part| {
            let trimmed = part.trim();
            let (key, _) = trimmed.split_once('=').unwrap_or((trimmed, ""));
            match key.to_ascii_lowercase().as_str() {
                "sessionid" | "csrftoken" | "expires" => format!("{key}=…"),
                _ => trimmed.to_owned(),
            }
        })
        .collect();
    parts.join("; ")
}

/// A session's id is of its moment.
fn without_session(text: &str) -> String {
    let Some((before, id)) = text.split_once("sessionid") else { return text.to_owned() };
    let rest = id.trim_start_matches(['=', '"', ':']).trim_start_matches(|c: char| c.is_ascii_alphanumeric());
    format!("{before}sessionid…{rest}")
}

/// As far as it can be read, with its length, so that two bodies with the same beginning are two.
fn text(bytes: &[u8]) -> String {
    use std::hash::{DefaultHasher, Hash, Hasher};
    if bytes.len() < 1000 {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    format!("{} bytes {:x}", bytes.len(), hasher.finish())
}

/// What Django noted, field by field.
pub fn flat(noted: &Value) -> Seen {
    let mut seen = Seen::new();
    for (name, value) in noted.as_object().into_iter().flatten() {
        match (name.as_str(), value) {
            // gunicorn leaves an empty length out, the development server does not.
            ("header", Value::Object(headers)) => {
                for (name, value) in headers {
                    seen.insert(format!("header:{name}"), value.as_str().unwrap_or_default().to_owned());
                }
            }
            (_, Value::String(text)) => drop(seen.insert(name.clone(), text.clone())),
            _ => drop(seen.insert(name.clone(), value.to_string())),
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: u16, headers: &[(&str, &str)], body: &str) -> Outcome {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let answer = Answer {
            version: "HTTP/1.1".to_owned(),
            status,
            reason: String::new(),
            headers,
            body: body.as_bytes().to_vec(),
            whole: true,
        };
        Outcome {
            handshake: String::new(),
            answers: vec![answer],
            tunnel: Vec::new(),
            end: End::Open,
            seen: vec![Seen::from([("method".to_owned(), "GET".to_owned())])],
        }
    }

    fn whats(nginx: &Outcome, here: &Outcome) -> Vec<String> {
        compare(nginx, here).into_iter().map(|aspect| aspect.what).collect()
    }

    #[test]
    fn what_differs_is_named() {
        let one = outcome(200, &[("etag", "a"), ("date", "now")], "x");
        assert_eq!(whats(&one, &one), [""; 0]);
        assert_eq!(
            whats(&one, &outcome(200, &[("etag", "b"), ("date", "then")], "y")),
            ["body", "header:etag"]
        );
        assert_eq!(whats(&one, &outcome(200, &[("etag", "a"), ("etag", "a")], "x")), ["header:etag"]);
        // What follows from another status is not named.
        assert_eq!(whats(&one, &outcome(404, &[], "")), ["status"]);
        let mut other = one.clone();
        other.end = End::Closed;
        other.answers[0].whole = false;
        other.tunnel = b"x".to_vec();
        other.seen[0].insert("header:x".to_owned(), "1".to_owned());
        assert_eq!(whats(&one, &other), ["end", "seen:header:x", "tunnel", "whole"]);
        other.seen.clear();
        other.answers.clear();
        assert_eq!(whats(&one, &other), ["end", "seen", "status", "tunnel"]);
    }

    #[test]
    fn long_bodies_with_the_same_beginning_differ() {
        let (one, other) = ("x".repeat(5000), "x".repeat(4999) + "y");
        assert_eq!(whats(&outcome(200, &[], &one), &outcome(200, &[], &other)), ["body"]);
    }

    #[test]
    fn pages_of_the_proxies_differ_as_pages() {
        let page = "<html><center>nginx/1.22.1</center>";
        let nginx = outcome(404, &[("content-type", "text/html"), ("x-a", "1")], page);
        assert_eq!(
            whats(&nginx, &outcome(404, &[("content-type", "text/plain")], "no")),
            ["header:x-a", "page"]
        );
    }

    #[test]
    fn cookies_of_a_moment_are_the_same() {
        let one = outcome(200, &[("set-cookie", "sessionid=a; expires=x; Path=/")], "");
        let other = outcome(200, &[("set-cookie", "sessionid=b; expires=y; Path=/")], "");
        assert_eq!(whats(&one, &other), [""; 0]);
        let third = outcome(200, &[("set-cookie", "sessionid=b; expires=y; Path=/x")], "");
        assert_eq!(whats(&one, &third), ["header:set-cookie"]);
    }
}
