//! Interface names and patterns: `"wlp2s0"`, `"br-*"`.

use std::fmt;
use std::str::FromStr;

use super::{Unit, UnitError, quote};

/// The name of an interface, or a pattern in which `*` stands for any run of characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InterfacePattern(String);

/// Longest name of an interface, bytes (`IFNAMSIZ` without its zero byte).
const LONGEST: usize = 15;

impl InterfacePattern {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True if it is a pattern, not the name of one interface.
    pub fn is_pattern(&self) -> bool {
        self.0.contains('*')
    }

    /// True if the interface `name` is meant. The loopback interface `lo` is meant only by its full name: `*`
    /// would else cut the host off from itself.
    pub fn matches(&self, name: &str) -> bool {
        if !self.is_pattern() {
            return self.0 == name;
        }
        name != "lo" && glob(self.0.as_bytes(), name.as_bytes())
    }
}

/// Matches `*` against any run of bytes, going back only to the last one: linear in practice, never worse than
/// pattern × name, and names have 15 bytes.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                back = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match back {
                Some((star, from)) => {
                    back = Some((star, from + 1));
                    p = star + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

impl Unit for InterfacePattern {
    const EXPECTED: &'static str = "the name of an interface such as \"eth0\", or a pattern such as \"br-*\"";

    fn instead_of(_: i64) -> Option<String> {
        None
    }
}

impl FromStr for InterfacePattern {
    type Err = UnitError;

    /// The rules of the kernel's `dev_valid_name`, and no control characters.
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let wrong = |why: &str| {
            UnitError::new(
                format!("{} can't be the name of an interface: {why}", quote(text)),
                format!("write {}; `ip link` lists the names", Self::EXPECTED),
            )
        };
        if text.is_empty() {
            return Err(wrong("it is empty"));
        }
        if text == "." || text == ".." {
            return Err(wrong("the kernel refuses it"));
        }
        if let Some(c) = text.chars().find(|c| *c == '/' || *c == ':' || c.is_whitespace() || c.is_control())
        {
            return Err(wrong(&format!("it has a {c:?} in it")));
        }
        let length = text.bytes().filter(|b| *b != b'*').count();
        if length > LONGEST {
            return Err(wrong(&format!("it has {length} bytes, names have at most {LONGEST}")));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for InterfacePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> InterfacePattern {
        text.parse().expect(text)
    }

    #[test]
    fn matches_names_and_patterns() {
        for (text, name, expected) in [
            ("wlp2s0", "wlp2s0", true),
            ("wlp2s0", "wlp2s01", false),
            ("br-*", "br-0a1b", true),
            ("br-*", "br-", true),
            ("br-*", "br0", false),
            ("*", "eth0", true),
            ("*", "lo", false),
            ("lo", "lo", true),
            ("l*", "lo", false),
            ("*0", "eth0", true),
            ("e*h*0", "enp3h10", true),
            ("e*h*0", "enp30", false),
            ("*aab", "aaab", true),
        ] {
            assert_eq!(pattern(text).matches(name), expected, "{text} {name}");
        }
    }

    #[test]
    fn refuses_what_the_kernel_refuses() {
        for text in ["", ".", "..", "a/b", "a b", "a:1", "a\tb", "a\u{7}", "sixteen-letters-"] {
            assert!(text.parse::<InterfacePattern>().is_err(), "{text:?}");
        }
        for text in ["eth0.100", "fifteen-letters", "fifteen-letters*", "wg\u{e9}"] {
            assert!(text.parse::<InterfacePattern>().is_ok(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_meant_by_itself_and_by_its_parts(name in "[a-z0-9-]{3,15}", cut in 0..3usize) {
            let (head, tail) = name.split_at(cut);
            for text in [name.clone(), format!("{head}*"), format!("*{tail}"), format!("{head}*{tail}")] {
                prop_assert!(pattern(&text).matches(&name));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC*", name in "\\PC{0,15}") {
            if let Ok(pattern) = text.parse::<InterfacePattern>() {
                pattern.matches(&name);
                prop_assert_eq!(pattern.to_string(), text);
            }
        }
    }
}
