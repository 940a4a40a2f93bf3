//! The policy: from a TOML file to checked values ([`model`]), and from those to tables.
//!
//! [`load`] and [`parse`] are the way in: `text → document (serde) → validate → Policy`. Nothing here touches a BPF
//! map or asks the machine for its interfaces. The language is described in `docs/policy.md`.

pub mod compile;
mod diagnostic;
mod difference;
mod difference_proxy;
mod document;
mod explain;
mod listfile;
pub mod model;
mod names;
mod report;
mod schema;
mod schema_proxy;
mod source;
pub mod units;
mod validate;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use sha2::{Digest, Sha256};

pub use diagnostic::{Diagnostic, Note, Place, PolicyError, Severity};
pub use difference::difference;
pub use model::Policy;

use listfile::ListError;
use report::Report;
use source::Unreadable;
use units::{Prefix, Target};

/// Most bytes of a policy file. Long lists of addresses have files of their own.
pub const MOST_BYTES: u64 = 1 << 20;

/// Files that stand in for the lists of a policy, by the names that it has for them: those of an earlier revision.
pub type Lists = BTreeMap<String, PathBuf>;

/// Every list is where the policy says.
static NO_LISTS: Lists = Lists::new();

/// Reads and checks a policy file and the lists that it names.
///
/// # Errors
/// Everything that is wrong with it, as far as one run can tell.
pub fn load(path: &Path) -> Result<Policy, PolicyError> {
    parse(&read(path)?, path)
}

/// Reads the text of a policy file.
///
/// # Errors
/// If it can't be read, is too long, or is no text.
pub fn read(path: &Path) -> Result<String, PolicyError> {
    let whole = |Unreadable { message, help }| Diagnostic::of_file(path, message, help);
    let file = source::open(path, "policy", MOST_BYTES).map_err(whole)?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| whole(Unreadable::from_io("policy", &error)))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(whole(Unreadable::too_long("policy", MOST_BYTES)).into());
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        not_utf8(path, error.as_bytes(), at).into()
    })
}

/// Checks the text of a policy. List files are sought from the folder of `path` on.
///
/// # Errors
/// Everything that is wrong with it, as far as one run can tell.
pub fn parse(text: &str, path: &Path) -> Result<Policy, PolicyError> {
    parse_with(text, path, &NO_LISTS)
}

/// The same with other files in the place of its lists.
///
/// # Errors
/// As [`parse`].
pub fn parse_with(text: &str, path: &Path, lists: &Lists) -> Result<Policy, PolicyError> {
    let mut report = Report::new(path, text, lists);
    let mut hash = Sha256::new();
    hash.update(text.as_bytes());
    let document = document::read(&mut report);
    match document.and_then(|document| validate::policy(&mut report, document, hash)) {
        Some(policy) => Ok(policy),
        None => Err(report.into_error()),
    }
}

/// Checks the contents of a list file; `path` is for errors.
///
/// # Errors
/// Everything that is wrong with it, up to ten lines.
pub fn parse_list(contents: impl Read, path: &Path) -> Result<Vec<IpNet>, PolicyError> {
    let list: Vec<Prefix> =
        listfile::read_from(contents, path, &mut Sha256::new()).map_err(|error| of_list(error, path))?;
    Ok(list.into_iter().map(|prefix| prefix.0).collect())
}

/// Reads a list of what is to be banned, in the format of list files; `path` is for errors.
///
/// # Errors
/// Everything that is wrong with it, up to ten lines.
pub fn parse_targets(contents: impl Read, path: &Path) -> Result<Vec<Target>, PolicyError> {
    listfile::read_from(contents, path, &mut Sha256::new()).map_err(|error| of_list(error, path))
}

/// The same of a file.
///
/// # Errors
/// Likewise, and if it is no file that can be read.
pub fn load_targets(path: &Path) -> Result<Vec<Target>, PolicyError> {
    listfile::read(path, &mut Sha256::new()).map_err(|error| of_list(error, path))
}

fn of_list(error: ListError, path: &Path) -> PolicyError {
    match error {
        ListError::Unreadable(Unreadable { message, help }) => {
            Diagnostic::of_file(path, message, help).into()
        }
        ListError::Lines(errors) => PolicyError(errors),
    }
}

fn not_utf8(path: &Path, bytes: &[u8], at: usize) -> Diagnostic {
    let line_start = bytes[..at].iter().rposition(|b| *b == b'\n').map_or(0, |newline| newline + 1);
    let line_end = bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |newline| at + newline);
    let number = 1 + bytes[..at].iter().filter(|b| **b == b'\n').count();
    let place = Place::in_line(number, &bytes[line_start..line_end], at - line_start..at - line_start + 1);
    let value = bytes[at];
    let message = format!("this is not UTF-8: byte {} of the file is 0x{value:02x}", at + 1);
    Diagnostic::at(path, place, message, "write the file in UTF-8 (`iconv -t UTF-8` converts)")
}
