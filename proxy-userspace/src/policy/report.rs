//! Collecting errors, so that one run names as many as is sensible, and warnings.
//!
//! [`super::document`] and [`super::validate`] go through the file with a [`Report`] at hand and go on after an
//! error; [`super::parse`] hands out what it holds. Warnings are of policies without errors.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Lists;
use super::diagnostic::{Diagnostic, Note, Place, PolicyError, Severity};

/// Most errors that one run reports.
const MOST: usize = 50;

/// Where something stands in the policy's text, bytes.
pub(super) type Span = Range<usize>;

/// Collects the errors of one policy file.
pub(super) struct Report<'a> {
    path: &'a Path,
    text: &'a str,
    /// Where lists are read from instead, by the names that the policy has for them.
    lists: &'a Lists,
    /// Each with the place in the policy that it is sorted by.
    found: Vec<(usize, Diagnostic)>,
    /// The same.
    warnings: Vec<(usize, Diagnostic)>,
}

impl<'a> Report<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str, lists: &'a Lists) -> Self {
        Self { path, text, lists, found: Vec::new(), warnings: Vec::new() }
    }

    /// Where a list of the policy is.
    pub(super) fn list(&self, name: &str) -> PathBuf {
        let beside = || self.path.parent().unwrap_or(Path::new("")).join(name);
        self.lists.get(name).cloned().unwrap_or_else(beside)
    }

    /// The policy's file.
    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    /// The policy's text.
    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// Line of a place in the policy.
    pub(super) fn line_of(&self, at: usize) -> usize {
        1 + self.text.as_bytes()[..at.min(self.text.len())].iter().filter(|b| **b == b'\n').count()
    }

    /// True if nothing more will be reported: whoever searches for more errors may stop.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= MOST
    }

    /// True if nothing is wrong so far.
    pub(super) fn is_clean(&self) -> bool {
        self.found.is_empty()
    }

    /// Reports an error at `span` of the policy.
    pub(super) fn error(&mut self, span: &Span, message: impl Into<String>, help: impl Into<String>) {
        if self.is_full() {
            return;
        }
        let diagnostic = Diagnostic::at(self.path, self.place(span), message, help);
        self.found.push((span.start, diagnostic));
    }

    /// Reports an error at `span` that has to do with another place.
    pub(super) fn error_with_note(
        &mut self,
        span: &Span,
        message: impl Into<String>,
        help: impl Into<String>,
        other: &Span,
        note: impl Into<String>,
    ) {
        if self.is_full() {
            return;
        }
        let mut diagnostic = Diagnostic::at(self.path, self.place(span), message, help);
        diagnostic.notes.push(Note::at(self.place(other), &note.into()));
        self.found.push((span.start, diagnostic));
    }

    /// Reports an error of another file that the policy names at `span`.
    pub(super) fn error_elsewhere(&mut self, span: &Span, diagnostic: Diagnostic) {
        if !self.is_full() {
            self.found.push((span.start, diagnostic));
        }
    }

    /// Reports an error of the file as a whole.
    pub(super) fn error_of_file(&mut self, message: impl Into<String>, help: impl Into<String>) {
        self.found.push((0, Diagnostic::of_file(self.path, message, help)));
    }

    /// Reports what makes the policy no worse than its author may want it, at `span` of the policy.
    pub(super) fn warning(&mut self, span: &Span, message: impl Into<String>, help: impl Into<String>) {
        let mut diagnostic = Diagnostic::at(self.path, self.place(span), message, help);
        diagnostic.severity = Severity::Warning;
        self.warnings.push((span.start, diagnostic));
    }

    /// All warnings in the order of the file.
    pub(super) fn take_warnings(&mut self) -> Vec<Diagnostic> {
        self.warnings.sort_by_key(|(at, _)| *at);
        self.warnings.drain(..).map(|(_, diagnostic)| diagnostic).collect()
    }

    fn place(&self, span: &Span) -> Place {
        let bytes = self.text.as_bytes();
        let start = span.start.min(bytes.len());
        let line_start = bytes[..start].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
        let line_end = bytes[start..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| start + at);
        let line = &bytes[line_start..line_end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Place::in_line(self.line_of(start), line, start - line_start..span.end.saturating_sub(line_start))
    }

    /// All errors in the order of the file.
    pub(super) fn into_error(mut self) -> PolicyError {
        let full = self.is_full();
        self.found.sort_by_key(|(at, _)| *at);
        let mut all: Vec<Diagnostic> = self.found.into_iter().map(|(_, diagnostic)| diagnostic).collect();
        if full {
            let message = format!("there may be more errors: only {MOST} are looked for at a time");
            all.push(Diagnostic::of_file(self.path, message, "put the ones above right and check again"));
        }
        PolicyError(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str, span: Span) -> String {
        let mut report = Report::new(Path::new("p.toml"), text, &crate::policy::NO_LISTS);
        report.error(&span, "it is wrong", "write it right");
        report.into_error().to_string()
    }

    #[test]
    fn underlines_the_offending_text() {
        assert_eq!(
            one("a = 1\n  b = \"wörld\" # c\n", 12..20),
            "error: it is wrong\n --> p.toml:2:7\n  |\n2 |   b = \"wörld\" # c\n  |       ^^^^^^^\nhelp: write it right\n"
        );
    }

    #[test]
    fn an_escape_character_of_a_string_does_not_reach_the_terminal() {
        let text =
            "version = 1\n[interfaces.eth0]\n[services.a]\nports = [\"tcp/1\"]\nallow = [\"x\\u001b[2J\"]\n";
        let error =
            super::super::parse(text, Path::new("p.toml")).expect_err("there is no such zone").to_string();
        assert!(error.contains("unknown zone"), "{error}");
        assert!(!error.contains(|c: char| c.is_control() && c != '\n'), "{error:?}");
    }

    #[test]
    fn an_underline_ends_with_its_line() {
        assert_eq!(
            one("a = [\n  1,\n]\n", 4..13),
            "error: it is wrong\n --> p.toml:1:5\n  |\n1 | a = [\n  |     ^\nhelp: write it right\n"
        );
    }

    #[test]
    fn a_place_past_the_end_is_the_end() {
        assert_eq!(
            one("a =", 3..9),
            "error: it is wrong\n --> p.toml:1:4\n  |\n1 | a =\n  |    ^\nhelp: write it right\n"
        );
    }

    #[test]
    fn long_lines_are_cut_around_the_place() {
        let text = format!("{}wrong{}", "x".repeat(5000), "y".repeat(5000));
        let shown = one(&text, 5000..5005);
        assert!(shown.contains("p.toml:1:5001"));
        assert!(shown.lines().all(|line| line.chars().count() < 140), "{shown}");
        assert!(shown.contains("xwrongy"));
    }

    #[test]
    fn a_file_can_not_steer_the_terminal() {
        let shown = one("\u{1b}[31mred\u{202e}", 0..3);
        assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}'), "{shown:?}");
    }

    #[test]
    fn reports_end_and_say_so() {
        let text = "a\n".repeat(500);
        let mut report = Report::new(Path::new("p.toml"), &text, &crate::policy::NO_LISTS);
        for i in 0..500 {
            report.error(&(2 * i..2 * i + 1), "wrong", "right");
        }
        let error = report.into_error();
        assert_eq!(error.0.len(), MOST + 1);
        assert!(error.0[MOST].message.starts_with("there may be more errors"));
    }

    proptest! {
        #[test]
        fn no_place_panics(text in "(\\PC|[\\x00-\\x1f\n])*", a in 0..200usize, b in 0..200usize) {
            one(&text, a..b);
            Place::in_line(1, text.as_bytes(), a..b);
        }
    }
}
