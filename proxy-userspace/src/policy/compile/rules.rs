//! Which id each service has in the counters: stable as long as its name stays.
//!
//! Called by the loader with what the pinned `RULES` map holds, before a policy is compiled.

use std::collections::{HashMap, HashSet};

use proxy_common::abi::counter::{MAX_RULES, RULE_DEFAULT};

use super::CompileError;
use crate::policy::model::Policy;

/// Name of the rule of what no service names.
pub const DEFAULT_NAME: &str = "default";

/// The rule ids of a policy's services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleIds {
    ids: HashMap<String, u16>,
    added: Vec<(u16, String)>,
    recycled: Vec<u16>,
}

impl RuleIds {
    /// Gives each service of a policy an id.
    ///
    /// `present` is the name of each id as the `RULES` map has it (index: id; `None`: free), `live` says whether
    /// the policy in force uses an id. A name that is present keeps its id, so its counters go on. New names take
    /// free ids, the lowest first, and when there are none, ids that neither the policy in force nor this one uses.
    ///
    /// # Errors
    /// More services than ids.
    pub fn assign(
        present: &[Option<String>],
        live: &dyn Fn(u16) -> bool,
        policy: &Policy,
    ) -> Result<Self, CompileError> {
        let wanted: HashSet<&str> = policy.services.iter().map(|service| service.name.as_str()).collect();
        let name_of = |id: u16| present.get(usize::from(id)).and_then(Option::as_deref);
        let all = RULE_DEFAULT + 1..MAX_RULES as u16;
        let mut ids = HashMap::with_capacity(wanted.len());
        // Should a damaged map have a name twice, the id in use is the one that counts.
        for in_use in [true, false] {
            for id in all.clone().filter(|id| live(*id) == in_use) {
                if let Some(name) = name_of(id).filter(|name| wanted.contains(name)) {
                    ids.entry(name.to_owned()).or_insert(id);
                }
            }
        }
        let kept: HashSet<u16> = ids.values().copied().collect();
        let idle = |id: &u16| !live(*id) && !kept.contains(id);
        let free = all.clone().filter(|id| name_of(*id).is_none()).filter(idle).map(|id| (id, false));
        let unused = all.clone().filter(|id| name_of(*id).is_some()).filter(idle).map(|id| (id, true));
        let mut next = free.chain(unused);
        let mut added = Vec::new();
        let mut recycled = Vec::new();
        let mut missing = 0;
        if name_of(RULE_DEFAULT) != Some(DEFAULT_NAME) {
            added.push((RULE_DEFAULT, DEFAULT_NAME.to_owned()));
        }
        for service in &policy.services {
            if ids.contains_key(&service.name) {
                continue;
            }
            let Some((id, used_before)) = next.next() else {
                missing += 1;
                continue;
            };
            if used_before {
                recycled.push(id);
            }
            ids.insert(service.name.clone(), id);
            added.push((id, service.name.clone()));
        }
        if missing > 0 {
            return Err(CompileError::TooManyRules { missing });
        }
        Ok(Self { ids, added, recycled })
    }

    /// The id of a service.
    pub fn id(&self, service: &str) -> Option<u16> {
        self.ids.get(service).copied()
    }

    /// Ids and names that are not present yet: to be written into `RULES` before the policy goes live.
    pub fn added(&self) -> &[(u16, String)] {
        &self.added
    }

    /// Ids among [`RuleIds::added`] that stood for other services: their counters must be zeroed before use.
    pub fn recycled(&self) -> &[u16] {
        &self.recycled
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    /// A policy with services of these names.
    fn policy<'a>(names: impl IntoIterator<Item = &'a str>) -> Policy {
        let services: String = names
            .into_iter()
            .enumerate()
            .map(|(at, name)| format!("[services.{name}]\nports = [\"tcp/{}\"]\nallow = \"any\"\n", at + 1))
            .collect();
        let text = format!("version = 1\n[interfaces.eth0]\n{services}");
        crate::policy::parse(&text, Path::new("p.toml")).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Does what the loader does with what was added.
    fn write(present: &mut Vec<Option<String>>, ids: &RuleIds) {
        present.resize(MAX_RULES as usize, None);
        for (id, name) in ids.added() {
            present[usize::from(*id)] = Some(name.clone());
        }
    }

    #[test]
    fn names_that_stay_keep_their_ids() {
        let mut present = Vec::new();
        let first = RuleIds::assign(&present, &|_| false, &policy(["a", "b", "c"])).expect("ids");
        assert_eq!(first.added()[0], (RULE_DEFAULT, DEFAULT_NAME.to_owned()));
        assert_eq!(["a", "b", "c"].map(|name| first.id(name)), [Some(1), Some(2), Some(3)]);
        write(&mut present, &first);
        let second = RuleIds::assign(&present, &|id| id <= 3, &policy(["d", "c", "b"])).expect("ids");
        assert_eq!(["d", "c", "b", "a"].map(|name| second.id(name)), [Some(4), Some(3), Some(2), None]);
        assert_eq!(second.added(), [(4, "d".to_owned())]);
        assert!(second.recycled().is_empty());
        // A service that was gone for a while finds its counters again.
        write(&mut present, &second);
        let third = RuleIds::assign(&present, &|id| id > 1, &policy(["a"])).expect("ids");
        assert_eq!((third.id("a"), third.added()), (Some(1), [].as_slice()));
    }

    #[test]
    fn the_idle_are_recycled_when_nothing_is_free() {
        let mut present: Vec<_> = (0..MAX_RULES).map(|id| Some(format!("old{id}"))).collect();
        present[0] = Some(DEFAULT_NAME.to_owned());
        let live = |id: u16| id != 5 && id != 7;
        let ids = RuleIds::assign(&present, &live, &policy(["new", "old7", "old9"])).expect("ids");
        assert_eq!((ids.id("old7"), ids.id("old9")), (Some(7), Some(9)));
        assert_eq!((ids.id("new"), ids.recycled()), (Some(5), [5].as_slice()));
        assert_eq!(ids.added(), [(5, "new".to_owned())]);
        let error = RuleIds::assign(&present, &live, &policy(["new", "newer", "newest"])).err();
        assert_eq!(error, Some(CompileError::TooManyRules { missing: 1 }));
    }

    proptest! {
        #[test]
        fn ids_are_never_shared_and_never_taken_from_the_living(
            steps in prop::collection::vec(prop::collection::hash_set(0..60u8, 0..20), 1..8),
            present_until in 0..MAX_RULES as usize,
        ) {
            // Few ids are free from the start, so that some are recycled.
            let mut present: Vec<_> = (0..MAX_RULES as usize)
                .map(|id| (id >= 40 || id < present_until % 40).then(|| format!("old{id}")))
                .collect();
            let mut live: HashSet<u16> = (60..MAX_RULES as u16).collect();
            let idle: HashSet<u16> = live.clone();
            for names in steps {
                let names: Vec<String> = names.iter().map(|n| format!("s{n}")).collect();
                let policy = policy(names.iter().map(String::as_str));
                let ids = RuleIds::assign(&present, &|id| live.contains(&id), &policy).expect("ids");
                let given: HashSet<u16> = names.iter().filter_map(|name| ids.id(name)).collect();
                prop_assert_eq!(given.len(), names.len());
                prop_assert!(!given.contains(&RULE_DEFAULT) && given.iter().all(|id| u32::from(*id) < MAX_RULES));
                for name in &names {
                    let before = present.iter().position(|present| present.as_ref() == Some(name));
                    prop_assert!(before.is_none_or(|id| ids.id(name) == Some(id as u16)));
                }
                for (id, _) in ids.added() {
                    let was = present[usize::from(*id)].is_some();
                    prop_assert!(*id == RULE_DEFAULT || !live.contains(id));
                    prop_assert_eq!(was && *id != RULE_DEFAULT, ids.recycled().contains(id));
                }
                write(&mut present, &ids);
                live = idle.union(&given).copied().collect();
            }
        }
    }
}
