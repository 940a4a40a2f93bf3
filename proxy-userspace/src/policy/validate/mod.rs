//! From the file's tables to a [`Policy`]: every name resolved, every number in range.
//!
//! Called by [`super::parse`]. One file a section; each reports what is wrong and goes on, so that one run shows the
//! errors of all sections. The policy is handed out only if nothing was reported.

mod interfaces;
mod limits;
mod narrowed;
mod plumbing;
mod proxy;
mod rate;
mod reject;
mod services;
mod tests;
mod zones;

use sha2::{Digest, Sha256};

use super::document::Document;
use super::model::Policy;
use super::report::Report;
use limits::Limits;
use zones::Zones;

/// Checks a document; `None` if anything was reported.
pub(super) fn policy(report: &mut Report<'_>, document: Document, mut hash: Sha256) -> Option<Policy> {
    let rejecting = reject::Places::of(&document);
    let narrowed = narrowed::Switches::of(&document.plumbing);
    let mut zones = Zones::new(report, document.zones, &mut hash);
    let mut limits = Limits::new(report, document.limits);
    let interfaces = interfaces::check(report, document.interfaces, &mut zones);
    let services = services::check(report, document.services, &mut zones, &limits);
    let plumbing = plumbing::check(report, document.plumbing, &mut limits);
    let timeouts = plumbing::timeouts(report, &document.timeouts);
    let sections = proxy::Sections {
        proxy: document.proxy,
        acme: document.acme,
        listeners: document.listeners,
        upstreams: document.upstreams,
        routes: document.routes,
    };
    let filter = proxy::Filter { interfaces: &interfaces, services: &services };
    let (plan, bodies) = proxy::check(report, sections, &mut zones, &filter, &mut hash);
    let tests = tests::check(report, document.tests, &interfaces);
    let mut policy = Policy {
        path: report.path().to_owned(),
        hash: hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
        interfaces,
        zones: zones.into_list(),
        limits: limits.into_list(),
        services,
        plumbing,
        timeouts,
        proxy: plan,
        bodies,
        tests,
        warnings: Vec::new(),
    };
    rejecting.check(report, &policy);
    if !report.is_clean() {
        return None;
    }
    narrowed.warn(report, &policy);
    policy.warnings = report.take_warnings();
    Some(policy)
}
