//! Names that a policy gives: which are allowed, and which one a misspelt one may have meant.
//!
//! Called by [`super::document`] for keys and by [`super::validate`] for zones, limits and services.

/// Longest name, bytes: with what reports add it stays below the 64 bytes of a rule's name in the kernel maps.
pub(super) const LONGEST: usize = 48;

/// What is wrong with a name, if anything.
pub(super) fn fault(name: &str, reserved: &[&str]) -> Option<(String, String)> {
    let quoted = super::units::quote(name);
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    if reserved.contains(&name) {
        return Some((
            format!("the name {quoted} is taken: it stands for something built in"),
            format!("write another name, such as \"my-{name}\""),
        ));
    }
    if name.len() > LONGEST {
        return Some((
            format!("the name {quoted} has {} bytes, names have at most {LONGEST}", name.len()),
            "write a shorter name".to_owned(),
        ));
    }
    if name.starts_with(|c: char| c.is_ascii_lowercase()) && name.chars().all(plain) {
        return None;
    }
    let mut better: String = name
        .to_lowercase()
        .chars()
        .map(|c| if plain(c) { c } else { '-' })
        .skip_while(|c| !c.is_ascii_lowercase())
        .collect();
    if better.is_empty() {
        better = format!("x{name}").chars().filter(|c| plain(*c)).collect();
    }
    Some((
        format!("{quoted} is not a name: names have a-z, 0-9, _ and -, and begin with a letter"),
        format!("write \"{better}\""),
    ))
}

/// The candidate that is most like `word`, if any is like it.
pub(super) fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let most = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| candidate.len() <= 64)
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= most)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b` (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

/// Names as a list in a sentence: `a, b or c`.
pub(super) fn listed(names: &[&str]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_the_nearest_name() {
        assert_eq!(nearest("lann", ["wan", "lan"]), Some("lan"));
        assert_eq!(nearest("prots", ["deny", "ports"]), Some("ports"));
        assert_eq!(nearest("x", ["lan"]), None);
        assert_eq!(nearest("completely", ["lan", "any"]), None);
    }

    #[test]
    fn names_are_plain() {
        for name in ["a", "web", "stripe-dashboard", "x_1"] {
            assert_eq!(fault(name, &["any"]), None, "{name}");
        }
        for (name, better) in
            [("Web", "\"web\""), ("my zone", "\"my-zone\""), ("1st", "\"st\""), ("9", "\"x9\"")]
        {
            let (_, help) = fault(name, &["any"]).expect(name);
            assert!(help.contains(better), "{name}: {help}");
        }
        assert!(fault("any", &["any"]).is_some());
        assert!(fault("", &[]).is_some());
        assert!(fault(&"a".repeat(49), &[]).is_some());
    }
}
