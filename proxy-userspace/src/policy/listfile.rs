//! Lists of prefixes: one a line, `#` or `;` begins a comment, empty lines are nothing.
//!
//! Called by [`super::validate`] for zones with a `file`, and by the commands that ban whole lists. Streams: a million lines are read in one pass with one
//! buffer, and a file that is not a list is given up after a few lines.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::diagnostic::{Diagnostic, Place};
use super::source::{self, Unreadable};
use super::units::UnitError;

/// Most bytes of a list.
pub(super) const MOST_BYTES: u64 = 256 << 20;
/// Most bytes of a line; more is no list.
const LONGEST_LINE: u64 = 4096;
/// Errors of one list that are reported.
const MOST_ERRORS: usize = 10;

/// What stands in a line: a prefix, or what else is written like one.
pub(super) trait Entry: FromStr<Err = UnitError> {}

impl<T: FromStr<Err = UnitError>> Entry for T {}

/// Why a list can't be used.
#[derive(Debug)]
pub(super) enum ListError {
    /// It can't be read at all.
    Unreadable(Unreadable),
    /// Lines of it are wrong.
    Lines(Vec<Diagnostic>),
}

/// Reads a list and adds its bytes to `hash`.
pub(super) fn read<T: Entry>(path: &Path, hash: &mut Sha256) -> Result<Vec<T>, ListError> {
    read_from(source::open(path, "list", MOST_BYTES).map_err(ListError::Unreadable)?, path, hash)
}

/// The same of a file that is open, or of bytes in its place; `path` is for errors.
pub(super) fn read_from<T: Entry>(
    file: impl Read,
    path: &Path,
    hash: &mut Sha256,
) -> Result<Vec<T>, ListError> {
    // A file that grows meanwhile ends one byte after the limit.
    let mut reader = BufReader::with_capacity(1 << 16, file.take(MOST_BYTES + 1));
    let mut list = List { path, entries: Vec::new(), errors: Vec::new() };
    let mut line = Vec::new();
    let mut number = 0;
    let mut bytes = 0;
    loop {
        line.clear();
        let got = (&mut reader).take(LONGEST_LINE + 1).read_until(b'\n', &mut line);
        let got = got.map_err(|error| ListError::Unreadable(Unreadable::from_io("list", &error)))?;
        if got == 0 {
            break;
        }
        number += 1;
        bytes += got as u64;
        if bytes > MOST_BYTES {
            return Err(ListError::Unreadable(Unreadable::too_long("list", MOST_BYTES)));
        }
        hash.update(&line);
        let too_long = got as u64 > LONGEST_LINE;
        if too_long {
            list.too_long(number, &line);
        } else {
            list.add(number, line.strip_suffix(b"\n").unwrap_or(&line));
        }
        if too_long || list.errors.len() >= MOST_ERRORS {
            break;
        }
    }
    if list.errors.is_empty() { Ok(list.entries) } else { Err(ListError::Lines(list.errors)) }
}

/// A list while it is read.
struct List<'a, T> {
    path: &'a Path,
    entries: Vec<T>,
    errors: Vec<Diagnostic>,
}

impl<T: Entry> List<'_, T> {
    fn add(&mut self, number: usize, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // A byte order mark, as some editors leave.
        let start = if number == 1 && line.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let end = line.iter().position(|b| matches!(b, b'#' | b';')).unwrap_or(line.len()).max(start);
        let entry = &line[start..end];
        let start = start + entry.len() - entry.trim_ascii_start().len();
        let entry = entry.trim_ascii();
        if entry.is_empty() {
            return;
        }
        let span = start..start + entry.len();
        let Ok(text) = str::from_utf8(entry) else {
            self.wrong(
                number,
                line,
                span,
                "this line is not UTF-8",
                "write one prefix a line, such as 192.0.2.0/24; # begins a comment",
            );
            return;
        };
        match text.parse::<T>() {
            Ok(entry) => self.entries.push(entry),
            Err(error) => self.wrong(number, line, span, &error.message, &error.help),
        }
    }

    fn too_long(&mut self, number: usize, line: &[u8]) {
        let message = format!("this line has more than {LONGEST_LINE} bytes");
        self.wrong(number, line, 0..32, &message, "write one prefix a line, such as 192.0.2.0/24");
    }

    fn wrong(&mut self, number: usize, line: &[u8], span: std::ops::Range<usize>, message: &str, help: &str) {
        let place = Place::in_line(number, line, span);
        self.errors.push(Diagnostic::at(self.path, place, message, help));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::units::Prefix;
    use std::fs;

    fn read_bytes(bytes: &[u8]) -> Result<Vec<Prefix>, ListError> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("list.txt");
        fs::write(&path, bytes).expect("a file");
        read(&path, &mut Sha256::new())
    }

    #[test]
    fn comments_spaces_line_ends_and_marks_are_nothing() {
        let list = read_bytes(b"\xef\xbb\xbf192.0.2.0/24\r\n# all\n\n  2001:db8::/32 # doc\n198.51.100.7 ; SBL1\n203.0.113.0/24");
        let list: Vec<String> = list.expect("a list").iter().map(ToString::to_string).collect();
        assert_eq!(list, ["192.0.2.0/24", "2001:db8::/32", "198.51.100.7/32", "203.0.113.0/24"]);
    }

    #[test]
    fn a_bad_line_is_named() {
        let Err(ListError::Lines(errors)) = read_bytes(b"192.0.2.0/24\n  192.0.2.1/24 # x\nfoo\n\xff\xfe\n")
        else {
            panic!("three bad lines");
        };
        let found: Vec<_> = errors
            .iter()
            .map(|e| {
                let place = e.place.as_ref().expect("a place");
                (place.line, place.column, place.text.as_str())
            })
            .collect();
        assert_eq!(found[..2], [(2, 3, "192.0.2.1/24"), (3, 1, "foo")]);
        assert_eq!((found[2].0, found[2].1), (4, 1));
        assert!(errors[0].help.contains("192.0.2.0/24"));
    }

    #[test]
    fn what_is_no_list_is_given_up_early() {
        let Err(ListError::Lines(errors)) = read_bytes(&b"junk\n".repeat(1 << 20)) else {
            panic!("not a list");
        };
        assert_eq!(errors.len(), MOST_ERRORS);
        let Err(ListError::Lines(errors)) = read_bytes(&vec![b'1'; 8 << 20]) else {
            panic!("not a list");
        };
        assert_eq!(errors.len(), 1);
        assert!(errors[0].message.contains("more than 4096 bytes"), "{}", errors[0]);
    }

    #[test]
    fn a_comment_of_two_buffers_is_a_line() {
        let line = format!("192.0.2.0/24 #{}\n198.51.100.0/24\n", "x".repeat(4000));
        assert_eq!(read_bytes(line.as_bytes()).expect("a list").len(), 2);
    }
}
