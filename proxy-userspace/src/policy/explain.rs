//! What serde and the TOML parser say, in the words of a policy: what is wrong and what to write instead.
//!
//! Called by [`super::document`].

use super::names::{listed, nearest};
use super::units::{HELP, quote};

/// What serde says, in the words of this file: message and help. `text` is what is wrong.
pub(super) fn explain(message: &str, text: &str) -> (String, String) {
    if let Some((message, help)) = message.rsplit_once(HELP) {
        return (message.to_owned(), help.to_owned());
    }
    if let Some(rest) =
        message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "))
        && let Some((found, expected)) = rest.rsplit_once(", expected ")
    {
        let (expected, help) = match expected {
            "a boolean" => ("true or false", "write true or false, without quotes".to_owned()),
            "i64" => ("a number", "write a whole number, without quotes".to_owned()),
            "a string" => ("text", "write text in quotes: \"…\"".to_owned()),
            "a sequence" if found.starts_with("string") => ("a list", format!("write a list: [{text}]")),
            "a sequence" => ("a list", "write a list: [\"…\"]".to_owned()),
            other => (other, format!("write {other}")),
        };
        // The text of a string is underlined; its type is what matters here.
        let found = match found.split(' ').next().unwrap_or_default() {
            "map" => "a table",
            "sequence" => "a list",
            "string" => "text",
            "boolean" => "true or false",
            "floating" => "a number with a point",
            _ => "a number",
        };
        return (format!("expected {expected}, found {found}"), help);
    }
    let kind = if message.starts_with("unknown field") { "key" } else { "word" };
    if message.starts_with("unknown ")
        && let Some((_, known)) = message.rsplit_once(", expected ")
    {
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        let name = text.trim_matches(['"', '\'']);
        let quoted: Vec<String> =
            known.iter().map(|k| if kind == "key" { format!("`{k}`") } else { format!("\"{k}\"") }).collect();
        let help = match nearest(name, known.iter().copied()) {
            Some(near) if kind == "key" => format!("write `{near}` instead"),
            Some(near) => format!("write \"{near}\" instead"),
            None => format!("write {}", listed(&quoted.iter().map(String::as_str).collect::<Vec<_>>())),
        };
        return (format!("unknown {kind} {}", quote(name)), help);
    }
    if message == "wanted string or table" {
        return ("expected text".to_owned(), "write text in quotes: \"…\"".to_owned());
    }
    (message.to_owned(), "docs/policy.md lists every key and what may stand there".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_serde_become_words_of_a_policy() {
        for (said, text, message, help) in [
            ("a\nhelp: b", "", "a", "b"),
            (
                "invalid type: integer `3`, expected a string",
                "3",
                "expected text, found a number",
                "write text in quotes: \"…\"",
            ),
            (
                "invalid type: map, expected a sequence",
                "{}",
                "expected a list, found a table",
                "write a list: [\"…\"]",
            ),
            ("unknown field `x`, expected `ping`", "x", "unknown key \"x\"", "write `ping`"),
            (
                "unknown variant `dorp`, expected `pass` or `drop`",
                "\"dorp\"",
                "unknown word \"dorp\"",
                "write \"drop\" instead",
            ),
            ("wanted string or table", "3", "expected text", "write text in quotes: \"…\""),
        ] {
            assert_eq!(explain(said, text), (message.to_owned(), help.to_owned()), "{said}");
        }
    }
}
