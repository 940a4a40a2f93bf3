//! Headers that are set on answers: names and values of RFC 9110, and none by which messages are framed.

use std::collections::BTreeMap;

use hyper::header::{HeaderName, HeaderValue};

use crate::policy::report::Report;
use crate::policy::schema_proxy::Headers;
use crate::policy::units::quote;

/// Most headers of a table.
const MOST: usize = 50;
/// Most bytes of a value.
const LONGEST: usize = 4096;
/// What says where a message ends and how the connection goes on (RFC 9110 section 7.6.1, RFC 9112 section 6) is the
/// proxy's own affair.
const FRAMING: [&str; 10] = [
    "connection",
    "content-length",
    "date",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "host",
];

/// The headers, names in lower case.
pub(super) fn check(report: &mut Report<'_>, given: Option<Headers>) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    let given = given.unwrap_or_default();
    if given.len() > MOST
        && let Some(name) = given.keys().map(toml::Spanned::span).max_by_key(|span| span.start)
    {
        report.error(&name, format!("these are more than {MOST} headers"), "write those that clients need");
    }
    for (name, value) in given {
        let Ok(known) = HeaderName::from_bytes(name.get_ref().as_bytes()) else {
            report.error(
                &name.span(),
                format!("{} is not the name of a header", quote(name.get_ref())),
                "write a name such as X-Frame-Options: letters, digits and -",
            );
            continue;
        };
        if FRAMING.contains(&known.as_str()) {
            report.error(
                &name.span(),
                format!("the header {} is the proxy's own affair", quote(name.get_ref())),
                "leave it out",
            );
        }
        if value_fault(value.get_ref()) {
            report.error(
                &value.span(),
                "this is not the value of a header",
                format!(
                    "write up to {LONGEST} printable ASCII characters, on one line, no space at either end"
                ),
            );
        }
        if headers.insert(known.as_str().to_owned(), value.into_inner()).is_some() {
            report.error(
                &name.span(),
                format!("the header {} is given twice: case is no difference", quote(name.get_ref())),
                "write it once",
            );
        }
    }
    headers
}

/// True if a text can't be the value of a header (RFC 9110 section 5.5). Bytes beyond ASCII are obsolete there.
pub(super) fn value_fault(value: &str) -> bool {
    !value.is_ascii()
        || value.len() > LONGEST
        || value.trim() != value
        || HeaderValue::from_str(value).is_err()
}
