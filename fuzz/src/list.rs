//! List files: block lists come from elsewhere, over networks and scripts.

use std::fmt::Write;
use std::io::{self, Read};
use std::path::Path;

use tollgate::policy::parse_list;

use crate::diagnostics;

/// Errors that are reported of one list.
const MOST_ERRORS: usize = 10;

/// Reads any bytes as a list.
///
/// # Panics
/// If a prefix is not a network, if a list does not read as it was written, or if an error names no place.
pub fn run(data: &[u8]) {
    let path = Path::new("list.txt");
    let read = parse_list(data, path);
    // Bytes come as they come: what is read does not depend on the pieces.
    assert_eq!(parse_list(Trickle(data), path), read, "a slow list is another list");
    match read {
        Ok(prefixes) => {
            let mut text = String::new();
            for prefix in &prefixes {
                assert_eq!(prefix.trunc(), *prefix, "a prefix with host bits was accepted");
                writeln!(text, "{prefix} ; again").expect("text takes any length");
            }
            let lines = data.split(|byte| *byte == b'\n').count();
            assert!(prefixes.len() <= lines, "{} prefixes in {lines} lines", prefixes.len());
            assert_eq!(parse_list(text.as_bytes(), path), Ok(prefixes), "a list reads as it was written");
        }
        Err(error) => {
            assert!(error.0.len() <= MOST_ERRORS, "{} errors are too many to read", error.0.len());
            diagnostics::check(&error, data, path);
        }
    }
}

/// Gives one byte at a time.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(1);
        self.0.read(&mut buffer[..most])
    }
}
