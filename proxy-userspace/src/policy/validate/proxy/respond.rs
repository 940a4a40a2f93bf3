//! `respond`: an answer that is always the same, its body from the policy or from a file beside it.
//!
//! Called by [`super::routes`].

use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};
use toml::Spanned;

use crate::policy::report::Report;
use crate::policy::schema_proxy::Respond;
use crate::policy::source::{self, Unreadable};
use crate::policy::units::quote;
use crate::proxy::plan::Action;

use super::headers::value_fault;
use super::number;

/// Most bytes of a body: it is held in memory, and sent with the plan.
const MOST_BYTES: u64 = 1 << 20;
const TEXT: &str = "text/plain; charset=utf-8";

/// Checks the table. A file's bytes are added to `hash` and its name to `files`.
pub(super) fn check(
    report: &mut Report<'_>,
    given: Spanned<Respond>,
    hash: &mut Sha256,
    files: &mut Vec<String>,
) -> Action {
    let value = given.into_inner();
    let status = number(report, value.status.as_ref(), (200, 599), 200);
    if let (Some(body), Some(file)) = (&value.body, &value.file) {
        report.error_with_note(
            &file.span(),
            "there are two bodies: `body` and `file`",
            "leave one of them out",
            &body.span(),
            "the first one is here",
        );
    }
    let mut content_type = TEXT;
    let mut body = String::new();
    let mut span = None;
    if let Some(file) = value.file {
        content_type = by_name(file.get_ref());
        body = read(report, &file, hash).unwrap_or_default();
        span = Some(file.span());
        files.push(file.into_inner());
    } else if let Some(given) = value.body {
        span = Some(given.span());
        body = given.into_inner();
    }
    // RFC 9110 sections 15.3.5, 15.3.6 and 15.4.5.
    if matches!(status, 204 | 205 | 304)
        && !body.is_empty()
        && let Some(span) = span
    {
        report.error(
            &span,
            format!("an answer with status {status} has no body"),
            "leave the body out, or write another status",
        );
    }
    let content_type = match value.content_type {
        None => content_type.to_owned(),
        Some(given) => {
            let is_type = given.get_ref().split(';').next().is_some_and(|essence| {
                essence.split('/').count() == 2 && essence.split('/').all(|part| !part.trim().is_empty())
            });
            if !is_type || value_fault(given.get_ref()) {
                report.error(
                    &given.span(),
                    format!("{} is not a media type", quote(given.get_ref())),
                    format!("write one such as \"{TEXT}\""),
                );
            }
            given.into_inner()
        }
    };
    Action::Respond { status, content_type, body }
}

/// The media type that a file's name speaks for.
fn by_name(file: &str) -> &'static str {
    match Path::new(file).extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("json") => "application/json",
        _ => TEXT,
    }
}

fn read(report: &mut Report<'_>, file: &Spanned<String>, hash: &mut Sha256) -> Option<String> {
    let path = report.list(file.get_ref());
    let bytes = source::open(&path, "body", MOST_BYTES).and_then(|open| {
        let mut bytes = Vec::new();
        let got = open.take(MOST_BYTES + 1).read_to_end(&mut bytes);
        got.map_err(|error| Unreadable::from_io("body", &error))?;
        if bytes.len() as u64 > MOST_BYTES {
            Err(Unreadable::too_long("body", MOST_BYTES))
        } else {
            Ok(bytes)
        }
    });
    let text = match bytes {
        Ok(bytes) => {
            hash.update(&bytes);
            String::from_utf8(bytes).map_err(|_| {
                (
                    "this body is not UTF-8".to_owned(),
                    "write text in UTF-8; what is not text needs an upstream".to_owned(),
                )
            })
        }
        Err(Unreadable { message, help }) => Err((message, help)),
    };
    text.map_err(|(message, help)| {
        report.error(&file.span(), format!("{}: {message}", quote(&path.to_string_lossy())), help);
    })
    .ok()
}
