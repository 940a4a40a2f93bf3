//! In what the proxy does not do as nginx did, each with the reason: the list of docs/proxy.md, and which shapes show it.

mod answers;
mod refusals;
mod requests;

use std::collections::BTreeMap;

use self::answers::ANSWERS;
use self::refusals::REFUSALS;
use self::requests::REQUESTS;
use super::outcome::Aspect;

/// Shapes, and all of [`Aspect::what`] that differs in each of them for this reason.
type Group = (&'static [&'static str], &'static [&'static str]);

/// Where a difference shows.
#[derive(Clone, Copy, Debug)]
pub enum Shows {
    /// In these aspects with most shapes, and with one at least.
    Anywhere(&'static [&'static str]),
    /// With these shapes, each of them, in all of their aspects.
    Only(&'static [Group]),
}

/// One of the differences.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// For the table of shapes.
    pub name: &'static str,
    /// What nginx does: the first cell of the row in docs/proxy.md.
    pub nginx: &'static str,
    /// What this proxy does: the second.
    pub here: &'static str,
    /// Why: the third.
    pub why: &'static str,
    /// Which shapes show it.
    pub shows: Shows,
}

impl Difference {
    /// Whether it explains what was found.
    pub fn explains(&self, shape: &str, aspect: &Aspect) -> bool {
        let names = |aspects: &[&str]| aspects.contains(&aspect.what.as_str());
        match self.shows {
            Shows::Anywhere(aspects) => names(aspects),
            Shows::Only(groups) => {
                groups.iter().any(|(shapes, aspects)| shapes.contains(&shape) && names(aspects))
            }
        }
    }

    /// The shapes that it names.
    pub fn shapes(&self) -> Vec<&'static str> {
        match self.shows {
            Shows::Anywhere(_) => Vec::new(),
            Shows::Only(groups) => groups.iter().flat_map(|(shapes, _)| shapes.iter().copied()).collect(),
        }
    }

    /// What of it was not found, where `found` says what differs in a shape: what no longer belongs on the list.
    pub fn gone(&self, found: &BTreeMap<&str, Vec<Aspect>>) -> Vec<String> {
        let differs = |shape: &str, what: &str| {
            found.get(shape).is_some_and(|aspects| aspects.iter().any(|aspect| aspect.what == what))
        };
        let name = self.name;
        match self.shows {
            Shows::Anywhere(aspects) => aspects
                .iter()
                .filter(|what| !found.keys().any(|shape| differs(shape, what)))
                .map(|what| format!("{name}: {what} with any shape"))
                .collect(),
            Shows::Only(groups) => groups
                .iter()
                .flat_map(|(shapes, aspects)| {
                    shapes.iter().flat_map(move |s| aspects.iter().map(move |a| (*s, *a)))
                })
                .filter(|(shape, what)| !differs(shape, what))
                .map(|(shape, what)| format!("{name}: {shape}: {what}"))
                .collect(),
        }
    }
}

/// All of them, in the order of the documents.
pub fn differences() -> impl Iterator<Item = &'static Difference> {
    [REQUESTS, REFUSALS, ANSWERS].into_iter().flatten()
}

/// What time decides: a limit lets one more pass if the requests take longer than a tenth of a second.
const RACES: &[Group] = &[(&["sixty requests to what allows twenty at once"], &["seen"])];

/// What of the aspects of a shape no difference explains.
pub fn unexplained<'a>(shape: &str, aspects: &'a [Aspect]) -> Vec<&'a Aspect> {
    let is_race = |aspect: &Aspect| {
        RACES.iter().any(|(shapes, what)| shapes.contains(&shape) && what.contains(&aspect.what.as_str()))
    };
    let is_listed = |aspect: &Aspect| differences().any(|one| one.explains(shape, aspect));
    aspects.iter().filter(|aspect| !is_race(aspect) && !is_listed(aspect)).collect()
}

/// The table of docs/proxy.md.
pub fn table() -> String {
    let rows: String =
        differences().map(|one| format!("| {} | {} | {} |\n", one.nginx, one.here, one.why)).collect();
    format!("| nginx | here | why |\n|---|---|---|\n{rows}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aspect(what: &str) -> Aspect {
        Aspect { what: what.to_owned(), nginx: "1".to_owned(), here: "2".to_owned() }
    }

    #[test]
    fn a_difference_is_for_its_shapes_and_aspects_alone() {
        let listed = [aspect("seen:header:proxy"), aspect("header:server")];
        assert!(unexplained("Proxy", &listed).is_empty());
        assert_eq!(unexplained("Via", &listed), [&listed[0]]);
        assert_eq!(unexplained("Proxy", &[aspect("status")]), [&aspect("status")]);
    }

    #[test]
    fn what_no_longer_differs_is_gone() {
        let of = |name: &str| differences().find(|one| one.name == name).expect("a difference");
        let found =
            BTreeMap::from([("Proxy", vec![aspect("seen:header:proxy")]), ("Via", vec![aspect("status")])]);
        assert_eq!(of("Proxy").gone(&found), [""; 0]);
        assert_eq!(of("Server").gone(&found), ["Server: header:server with any shape"]);
        assert_eq!(of("fragment").gone(&found).len(), 2);
    }
}
