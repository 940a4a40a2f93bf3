//! Tables of faults: a good policy, what of it is changed, and what must be said of that. Used by the tests of the policy's errors.

use std::path::Path;

use tollgate::policy::{self, PolicyError};

/// What is changed, into what, and what must be said: line, column, offending text, message, help.
pub type Case = (&'static str, &'static str, (usize, usize), &'static str, &'static str, &'static str);

/// Makes each fault in a good policy, and fails with all that were not located and put right.
pub fn each_is_located_and_put_right(good_policy: &str, cases: &[Case]) {
    let mut wrong = String::new();
    for (good, bad, (line, column), text, message, help) in cases {
        assert!(good_policy.contains(good), "the good policy has no {good}");
        let changed = good_policy.replacen(good, bad, 1);
        let Err(PolicyError(found)) = policy::parse(&changed, Path::new("dir/policy.toml")) else {
            wrong += &format!("{good:?} as {bad:?} is taken\n");
            continue;
        };
        let hit = found.iter().any(|d| {
            d.place.as_ref().is_some_and(|p| (p.line, p.column, p.text.as_str()) == (*line, *column, *text))
                && d.message.contains(message)
                && d.help == *help
                && d.file == Path::new("dir/policy.toml")
                && d.to_string().contains(&format!("--> dir/policy.toml:{line}:{column}\n"))
        });
        // Leaving a word out or misspelling a name may rightly be wrong in a second place.
        if !hit || found.len() > 2 {
            wrong +=
                &format!("{good:?} as {bad:?} should say {line}:{column} {text:?}, {message:?}, {help:?}\n");
            wrong += &PolicyError(found).to_string();
            wrong.push('\n');
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}
