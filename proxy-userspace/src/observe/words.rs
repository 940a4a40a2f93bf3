//! The fixed words of `--json`, read back by a command that the daemon answers. Called by the derived readers of `stats` and
//! `status`.
//!
//! A word that this program does not know is an error: the daemon is another version then, and the numbers may mean something
//! else.

use proxy_common::abi::reason::Reason;
use serde::de::{Deserialize, Deserializer, Error};

use super::status::PLUMBING;

/// A word of this program. By this name, since a reader of plain references would borrow them from what it reads.
pub type Word = &'static str;

const OTHERS: [Word; 8] = ["pass", "drop", "xdp", "tc", "native", "generic", "tcx", "clsact"];

fn known(text: &str) -> Option<Word> {
    let reasons = Reason::ALL.iter().map(|reason| reason.name());
    OTHERS.into_iter().chain(PLUMBING).chain(reasons).find(|word| *word == text)
}

/// Reads a word.
///
/// # Errors
/// If it is none.
pub fn one<'de, D: Deserializer<'de>>(input: D) -> Result<Word, D::Error> {
    let text = String::deserialize(input)?;
    known(&text)
        .ok_or_else(|| D::Error::custom(format!("the word {text:?} is of another version of Tollgate")))
}

/// Reads words.
///
/// # Errors
/// If one is none.
pub fn many<'de, D: Deserializer<'de>>(input: D) -> Result<Vec<Word>, D::Error> {
    #[derive(serde::Deserialize)]
    struct One(#[serde(deserialize_with = "one")] Word);

    Ok(Vec::<One>::deserialize(input)?.into_iter().map(|One(word)| word).collect())
}
