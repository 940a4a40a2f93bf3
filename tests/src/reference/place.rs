//! Which entry of a policy means an interface.

use tollgate::policy::model::{Interface, Policy};

/// The entry that applies: the one of the interface's own name, else the first pattern that matches.
pub fn entry<'a>(policy: &'a Policy, interface: &str) -> Option<&'a Interface> {
    let own = policy.interfaces.iter().find(|entry| entry.name == interface);
    own.or_else(|| policy.interfaces.iter().find(|entry| means(&entry.name, interface)))
}

/// True if a name or pattern means an interface. Open: that no pattern matches `lo` is said of enforcement; it is taken
/// to hold for the interfaces of zones too.
pub fn means(pattern: &str, interface: &str) -> bool {
    if interface == "lo" || !pattern.contains('*') {
        return pattern == interface;
    }
    // The places in the name that the pattern can have come to.
    let name = interface.as_bytes();
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for wanted in pattern.bytes() {
        let mut next = vec![false; name.len() + 1];
        for at in (0..=name.len()).filter(|at| reached[*at]) {
            if wanted == b'*' {
                next[at..].fill(true);
            } else if name.get(at) == Some(&wanted) {
                next[at + 1] = true;
            }
        }
        reached = next;
    }
    reached[name.len()]
}
