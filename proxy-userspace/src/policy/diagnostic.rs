//! Errors and warnings of a policy: where, what is wrong, what to write instead.
//!
//! [`PolicyError`] is what the commands print of a policy that is refused, [`super::Policy`]'s warnings of one that is not;
//! [`super::report`] makes both.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Most characters of a source line that are shown.
const WIDEST: usize = 120;
/// Most characters of the offending text that are kept.
const LONGEST_TEXT: usize = 80;

/// Everything that is wrong with a policy; not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError(pub Vec<Diagnostic>);

/// Whether a policy can be applied in spite of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// No.
    Error,
    /// Yes, and its author should know what it brings.
    Warning,
}

/// One error or warning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Which of the two.
    pub severity: Severity,
    /// The file that it is in: the policy or a list that it names.
    pub file: PathBuf,
    /// Where in the file; `None` if it concerns the file as a whole.
    pub place: Option<Place>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: String,
    /// Other places that have to do with it.
    pub notes: Vec<Note>,
}

/// Another place that has to do with an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// What is there.
    pub message: String,
    /// Where, in the same file.
    pub place: Place,
}

impl Note {
    /// What is at another place.
    pub(super) fn at(place: Place, message: &str) -> Self {
        Self { message: clean(message, usize::MAX), place }
    }
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1, in characters.
    pub column: usize,
    /// The offending text: what the underline is under.
    pub text: String,
    /// The line as it is shown: no control characters, not endless.
    pub source_line: String,
    /// Characters of `source_line` before the underline.
    #[serde(skip)]
    before: usize,
    /// Length of the underline, characters.
    #[serde(skip)]
    underline: usize,
}

impl Place {
    /// The bytes `span` of a line. Bytes that are not UTF-8 count as one character each run.
    pub(super) fn in_line(line_number: usize, line: &[u8], span: Range<usize>) -> Self {
        let end = line.len();
        let (start, stop) = (span.start.min(end), span.end.clamp(span.start.min(end), end));
        let before = String::from_utf8_lossy(&line[..start]);
        let text = String::from_utf8_lossy(&line[start..stop]);
        let after = String::from_utf8_lossy(&line[stop..]);
        let column = before.chars().count() + 1;

        let mut shown = Shown::default();
        let short = before.chars().count() + text.chars().count() <= WIDEST;
        shown.tail(&before, if short { WIDEST } else { WIDEST / 3 });
        let before_width = shown.width();
        shown.head(&text, WIDEST - before_width);
        let text_width = shown.width() - before_width;
        shown.head(&after, WIDEST.saturating_sub(shown.width()));
        Self {
            line: line_number,
            column,
            text: clean(&text, LONGEST_TEXT),
            source_line: shown.0.trim_end().to_owned(),
            before: before_width,
            underline: text_width.max(1),
        }
    }
}

/// A line made ready for a terminal.
#[derive(Default)]
struct Shown(String);

impl Shown {
    fn width(&self) -> usize {
        self.0.chars().count()
    }

    /// Appends the beginning of `text`.
    fn head(&mut self, text: &str, most: usize) {
        self.0.push_str(&clean(text, most));
    }

    /// Appends the end of `text`.
    fn tail(&mut self, text: &str, most: usize) {
        let count = text.chars().count();
        if count > most {
            self.0.push('…');
        }
        let kept: String = text.chars().skip(count.saturating_sub(most)).collect();
        self.0.push_str(&clean(&kept, usize::MAX));
    }
}

/// Text without control characters (a file must not steer the terminal), cut to `most` characters.
fn clean(text: &str, most: usize) -> String {
    let mut out: String = text
        .chars()
        .take(most)
        .map(|c| {
            if c == '\t' {
                ' '
            } else if steers(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    if text.chars().nth(most).is_some() {
        out.push('…');
    }
    out
}

/// Control characters, and those that change the direction of text.
fn steers(c: char) -> bool {
    c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

impl Diagnostic {
    /// An error about a file as a whole.
    pub(super) fn of_file(file: &Path, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: file.to_owned(),
            place: None,
            // Both quote the file: a TOML string can hold an escape character without one standing in its text.
            message: clean(&message.into(), usize::MAX),
            help: clean(&help.into(), usize::MAX),
            notes: Vec::new(),
        }
    }

    /// An error at a place.
    pub(super) fn at(file: &Path, place: Place, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { place: Some(place), ..Self::of_file(file, message, help) }
    }

    /// All of it in one line, for logs.
    pub fn in_one_line(&self) -> String {
        let place = self.place.as_ref().map(|place| format!(":{}:{}", place.line, place.column));
        format!("{}{}: {}; {}", self.shown_file(), place.unwrap_or_default(), self.message, self.help)
    }

    fn shown_file(&self) -> String {
        clean(&self.file.to_string_lossy(), usize::MAX)
    }

    fn fmt_place(&self, f: &mut fmt::Formatter<'_>, place: Option<&Place>, margin: usize) -> fmt::Result {
        let file = self.shown_file();
        let Some(place) = place else {
            return writeln!(f, "{:margin$}--> {file}", "");
        };
        writeln!(f, "{:margin$}--> {file}:{}:{}", "", place.line, place.column)?;
        writeln!(f, "{:margin$} |", "")?;
        writeln!(f, "{:>margin$} | {}", place.line, place.source_line)?;
        writeln!(f, "{:margin$} | {:before$}{}", "", "", "^".repeat(place.underline), before = place.before)
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = self.place.iter().chain(self.notes.iter().map(|note| &note.place));
        let margin = places.map(|place| place.line.to_string().len()).max().unwrap_or(1);
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        writeln!(f, "{severity}: {}", self.message)?;
        self.fmt_place(f, self.place.as_ref(), margin)?;
        for note in &self.notes {
            writeln!(f, "note: {}", note.message)?;
            self.fmt_place(f, Some(&note.place), margin)?;
        }
        writeln!(f, "help: {}", self.help)
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.iter().enumerate() {
            if i != 0 {
                writeln!(f)?;
            }
            diagnostic.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyError {}

impl From<Diagnostic> for PolicyError {
    fn from(diagnostic: Diagnostic) -> Self {
        Self(vec![diagnostic])
    }
}
