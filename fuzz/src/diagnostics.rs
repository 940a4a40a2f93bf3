//! What holds for every error of a policy or a list. Called by `policy` and `list`.

use std::path::Path;

use tollgate::policy::{Diagnostic, Place, PolicyError};

/// Most errors of one run, and the one that says that there may be more.
const MOST: usize = 51;
/// What a character that may not be shown, or a text that goes on, is shown as.
const STAND_INS: [char; 3] = ['\u{fffd}', ' ', '…'];

/// Checks the errors of a file with these contents.
pub fn check(error: &PolicyError, contents: &[u8], path: &Path) {
    assert!(!error.0.is_empty(), "an error says at least one thing");
    assert!(error.0.len() <= MOST, "{} errors are too many to read", error.0.len());
    let lines: Vec<&[u8]> = contents.split(|byte| *byte == b'\n').collect();
    for diagnostic in &error.0 {
        assert_eq!(diagnostic.file, path, "an error names its file");
        sentences(diagnostic);
        diagnostic.place.iter().for_each(|place| within(place, &lines));
        diagnostic.notes.iter().for_each(|note| within(&note.place, &lines));
    }
    let shown = error.to_string();
    let steers = shown.chars().find(|c| c.is_control() && *c != '\n');
    assert_eq!(steers, None, "a file can steer the terminal by its errors: {shown:?}");
    serde_json::to_string(&error.0).expect("errors can be written as JSON");
}

fn sentences(diagnostic: &Diagnostic) {
    assert!(!diagnostic.message.trim().is_empty(), "an error says what is wrong: {diagnostic:?}");
    assert!(!diagnostic.help.trim().is_empty(), "an error says what to write: {diagnostic:?}");
}

/// The place is in the file, and what is said to stand there does.
fn within(place: &Place, lines: &[&[u8]]) {
    assert!((1..=lines.len()).contains(&place.line), "line {} of {}", place.line, lines.len());
    let line = String::from_utf8_lossy(lines[place.line - 1]);
    let length = line.chars().count();
    assert!((1..=length + 1).contains(&place.column), "column {} of {length} in {line:?}", place.column);
    for (shown, there) in place.text.chars().zip(line.chars().skip(place.column - 1)) {
        assert!(shown == there || STAND_INS.contains(&shown), "{:?} does not stand in {line:?}", place.text);
    }
    assert!(!place.source_line.contains(char::is_control), "{:?}", place.source_line);
}
