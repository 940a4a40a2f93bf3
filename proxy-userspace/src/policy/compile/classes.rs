//! From sets of zones to source classes, and the table of decisions.
//!
//! Called by [`super::compile`]. Two sources are of one class if every decision on them is the same, on every
//! interface and port: so the table has a row for each *treatment*, however many zones and lists there are.

use std::collections::HashMap;

use proxy_common::abi::counter::RULE_DEFAULT;
use proxy_common::abi::decision::{AUDIT, Decision, FINAL, GUARDED, ISOLATED, REJECT, REPLIES};
use proxy_common::abi::reason::Reason;

use super::contexts::Context;
use super::runs::{Run, put};
use super::zoneset::{INVALID, Pool, SetId, ZoneSet};
use super::{CompileError, MOST_DECISIONS};
use crate::policy::model::{DefaultAction, Refusal, Service};

/// What the table says of one service.
pub(super) struct ServiceRule {
    /// Rule id.
    pub(super) id: u16,
    /// First of its buckets.
    pub(super) first_bucket: u16,
    /// How many; 0: not limited.
    pub(super) buckets: u8,
    /// What it does with those it does not allow.
    pub(super) refuse: Refusal,
    /// What it would drop passes.
    pub(super) audit: bool,
}

/// How a context takes a source, before any port is looked at. In the order in which they are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Standing {
    Invalid,
    Spoofed,
    Denied,
    Open,
}

/// How a service takes a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Answer {
    Denied,
    Allowed,
    Refused,
}

/// What sets a class of addresses apart: as sources, where it stands in each context, and the answer of each different pair of
/// `allow` and `deny`. No answers where no context lets it get as far as a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Treatment {
    standings: Vec<Standing>,
    answers: Vec<Answer>,
    /// As a destination: isolated from each context or not.
    isolated: Vec<bool>,
}

/// Gives sets of zones their classes.
pub(super) struct Classes<'a> {
    contexts: &'a [Context],
    /// The different pairs of `allow` and `deny`.
    audiences: Vec<(ZoneSet, ZoneSet)>,
    /// Which of them each service has.
    audience_of: Vec<usize>,
    treatments: Vec<Treatment>,
    ids: HashMap<Treatment, u32>,
    of_set: Vec<Option<u32>>,
}

impl<'a> Classes<'a> {
    pub(super) fn new(contexts: &'a [Context], services: &[Service]) -> Self {
        let mut audiences: Vec<(ZoneSet, ZoneSet)> = Vec::new();
        let mut known = HashMap::new();
        let mut audience_of = Vec::with_capacity(services.len());
        for service in services {
            let audience = (ZoneSet::of(&service.allow), ZoneSet::of(&service.deny));
            audience_of.push(*known.entry(audience).or_insert_with(|| {
                audiences.push(audience);
                audiences.len() - 1
            }));
        }
        Self {
            contexts,
            audiences,
            audience_of,
            treatments: Vec::new(),
            ids: HashMap::new(),
            of_set: Vec::new(),
        }
    }

    /// Puts classes in the place of sets; neighbours of one class become one run.
    pub(super) fn classify(&mut self, runs: &[Run], pool: &Pool) -> Result<Vec<Run>, CompileError> {
        self.of_set.resize(pool.sets().len(), None);
        let mut classed = Vec::with_capacity(runs.len());
        for run in runs {
            put(&mut classed, run.start, self.class_of(run.value, pool)?);
        }
        Ok(classed)
    }

    fn class_of(&mut self, id: SetId, pool: &Pool) -> Result<u32, CompileError> {
        let at = id as usize;
        if let Some(class) = self.of_set[at] {
            return Ok(class);
        }
        let treatment = self.treatment(&pool.sets()[at]);
        let class = match self.ids.get(&treatment) {
            Some(known) => *known,
            None => {
                let class = self.treatments.len() as u32;
                self.treatments.push(treatment.clone());
                self.ids.insert(treatment, class);
                self.check_size()?;
                class
            }
        };
        self.of_set[at] = Some(class);
        Ok(class)
    }

    fn treatment(&self, zones: &ZoneSet) -> Treatment {
        let standing = |context: &Context| {
            if zones.has(INVALID) {
                Standing::Invalid
            } else if zones.meets(&context.spoofed) {
                Standing::Spoofed
            } else if zones.meets(&context.denied) {
                Standing::Denied
            } else {
                Standing::Open
            }
        };
        let standings: Vec<Standing> = self.contexts.iter().map(standing).collect();
        let answer = |(allow, deny): &(ZoneSet, ZoneSet)| {
            if zones.meets(deny) {
                Answer::Denied
            } else if zones.meets(allow) {
                Answer::Allowed
            } else {
                Answer::Refused
            }
        };
        let heard = standings.contains(&Standing::Open);
        let answers = if heard { self.audiences.iter().map(answer).collect() } else { Vec::new() };
        let isolated = self.contexts.iter().map(|context| zones.meets(&context.isolated)).collect();
        Treatment { standings, answers, isolated }
    }

    /// Source classes so far.
    pub(super) fn count(&self) -> u32 {
        self.treatments.len() as u32
    }

    /// Class 0 is what is no service, then one for each service.
    pub(super) fn port_classes(&self) -> u32 {
        self.audience_of.len() as u32 + 1
    }

    fn check_size(&self) -> Result<(), CompileError> {
        let source_classes = u64::from(self.count());
        let port_classes = u64::from(self.port_classes());
        let contexts = self.contexts.len() as u64;
        match source_classes.checked_mul(port_classes).and_then(|cells| cells.checked_mul(contexts)) {
            Some(cells) if cells <= MOST_DECISIONS => Ok(()),
            _ => Err(CompileError::TooManyDecisions { source_classes, port_classes, contexts }),
        }
    }

    /// The table: for each context a block with a row for each class. `rules` are those of the services.
    pub(super) fn decisions(&self, rules: &[ServiceRule]) -> Vec<Decision> {
        let cells = self.contexts.len() * self.treatments.len() * (rules.len() + 1);
        let mut table = Vec::with_capacity(cells);
        for (nth, context) in self.contexts.iter().enumerate() {
            for treatment in &self.treatments {
                let row = table.len();
                self.put_row(&mut table, context, treatment, nth, rules);
                if treatment.isolated[nth] {
                    table[row].flags |= ISOLATED;
                }
            }
        }
        table
    }

    /// Appends what a context says to the sources of a treatment, for each port class.
    fn put_row(
        &self,
        table: &mut Vec<Decision>,
        context: &Context,
        treatment: &Treatment,
        nth: usize,
        rules: &[ServiceRule],
    ) {
        let fixed = match treatment.standings[nth] {
            Standing::Invalid => Some(Reason::SourceInvalid),
            Standing::Spoofed => Some(Reason::SourceSpoofed),
            Standing::Denied => Some(Reason::SourceDenied),
            Standing::Open => None,
        };
        if let Some(reason) = fixed {
            let cell = cell(RULE_DEFAULT, reason, FINAL);
            table.extend(std::iter::repeat_n(cell, rules.len() + 1));
            return;
        }
        let guarded = if context.isolated == ZoneSet::default() { 0 } else { GUARDED };
        table.push(match context.default {
            DefaultAction::Drop => cell(RULE_DEFAULT, Reason::NoService, REPLIES | guarded),
            DefaultAction::Accept => cell(RULE_DEFAULT, Reason::DefaultAccept, REPLIES | guarded),
            DefaultAction::Reject => cell(RULE_DEFAULT, Reason::NoService, REPLIES | REJECT | guarded),
        });
        table.extend(rules.iter().zip(&self.audience_of).map(|(rule, audience)| {
            let audited = |reason: Reason| if rule.audit { reason.audited() } else { reason };
            let audit = if rule.audit { AUDIT } else { 0 };
            let flags = match rule.refuse {
                // Nobody is told of a packet that passes.
                Refusal::Reject if !rule.audit => REPLIES | REJECT | guarded,
                _ => REPLIES | guarded | audit,
            };
            match treatment.answers[*audience] {
                Answer::Denied => cell(rule.id, audited(Reason::ServiceDenied), flags),
                Answer::Refused => cell(rule.id, audited(Reason::ServiceRefused), flags),
                Answer::Allowed => Decision {
                    first_bucket: rule.first_bucket,
                    buckets: rule.buckets,
                    ..cell(rule.id, Reason::ServiceAllowed, guarded | audit)
                },
            }
        }));
    }
}

fn cell(rule: u16, reason: Reason, flags: u8) -> Decision {
    Decision { rule, reason: reason as u8, flags, first_bucket: 0, buckets: 0, _pad: 0 }
}
