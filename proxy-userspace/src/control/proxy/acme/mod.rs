//! Certificates by ACME, as the daemon sees to them: which are due, one order at a time in a thread of its own, what is served until
//! there is one.
//!
//! ```text
//! each second: tend ── due? ── order (thread) ── client process ── authority
//!                                └── store: the file, which `look` reads again and the worker serves
//! ```
//!
//! Neither an apply nor a start waits for an authority, and none fails for it. Called by [`super::Proxy`].

mod order;
mod schedule;
mod store;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use order::{Failure, Job};
use schedule::{Life, Retry};
use store::Store;

pub(super) use order::Present;

use crate::policy::units::TimeSpan;
use crate::proxy::acme::{Issuing, certificate};
use crate::proxy::plan::{Authority, Certificate, Plan};

/// Certificates by ACME.
#[derive(Debug)]
pub(super) struct Acme {
    store: Store,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By file.
    known: BTreeMap<PathBuf, Known>,
    running: Option<Running>,
}

/// What is known of a certificate.
#[derive(Debug)]
struct Known {
    life: Option<Life>,
    /// What was issued, as it was last read: a file that can't be read for once takes no good certificate out of service.
    issued: Option<(String, Life)>,
    retry: Retry,
    /// What stands in for it, and for which names; made when it is asked for.
    stand_in: Option<(Vec<String>, String)>,
}

#[derive(Debug)]
struct Running {
    job: Job,
    thread: JoinHandle<Result<Life, Failure>>,
}

impl Acme {
    /// With what is kept below this folder.
    pub(super) fn new(state_dir: &Path) -> Self {
        Self { store: Store::new(state_dir), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Key and chain of a certificate: what was issued, or what stands in for it.
    ///
    /// # Errors
    /// If nothing can be made that stands in.
    pub(super) fn pem(&self, certificate: &Certificate) -> Result<String, String> {
        let issued = self.store.issued(&certificate.chain);
        let mut state = self.state();
        let known = state.known(&self.store, &certificate.chain);
        let covers =
            |(_, life): &(String, Life)| certificate.names.iter().all(|name| life.names.contains(name));
        known.issued = issued.or_else(|| known.issued.take().filter(covers));
        let (text, life) = known.issued.clone().unzip();
        known.life = life;
        if let Some(text) = text {
            return Ok(text);
        }
        match &known.stand_in {
            Some((names, text)) if *names == certificate.names => Ok(text.clone()),
            _ => {
                let text = certificate::stand_in(&certificate.names).map_err(|error| error.to_string())?;
                known.stand_in = Some((certificate.names.clone(), text.clone()));
                Ok(text)
            }
        }
    }

    /// What an operator should know of a plan's certificates.
    pub(super) fn notes(&self, plan: &Plan) -> Vec<String> {
        let mut state = self.state();
        let without = wanted(plan).filter(|(file, ..)| state.known(&self.store, file).life.is_none());
        without
            .map(|(_, name, _, names)| {
                format!(
                    "{name} has not issued the certificate for {} yet: one that nobody trusts stands in for it",
                    names.join(", ")
                )
            })
            .collect()
    }

    /// Somebody has applied a policy: what waits after a failure is tried at once, and files are looked at again.
    pub(super) fn looked_after(&self) {
        self.state().known.values_mut().for_each(|known| known.retry.looked_after());
    }

    /// What is to be done now and then. True if there is a new certificate. `present`: `None` as long as nothing serves that could
    /// answer a challenge.
    pub(super) fn tend(&self, plan: &Plan, present: Option<&Present>) -> bool {
        let now = now();
        let mut state = self.state();
        let is_new = state.finish(&self.store, now);
        if state.running.is_none()
            && let Some(present) = present
            && let Some(job) = state.next(&self.store, plan, now)
        {
            state.begin(&self.store, job, present, now);
        }
        is_new
    }

    /// Certificates of a plan, for metrics.
    pub(super) fn issuing(&self, plan: &Plan) -> Vec<Issuing> {
        let mut state = self.state();
        let all = wanted(plan).map(|(file, ..)| {
            let known = state.known(&self.store, file);
            let (stands_in, failures) = (known.life.is_none(), known.retry.failures);
            Issuing { file: file.display().to_string(), stands_in, failures }
        });
        let mut all: Vec<_> = all.collect();
        all.dedup();
        all
    }
}

impl State {
    fn known(&mut self, store: &Store, file: &Path) -> &mut Known {
        self.known.entry(file.to_owned()).or_insert_with(|| Known {
            life: store.issued(file).map(|(_, life)| life),
            issued: None,
            retry: store.retry(file),
            stand_in: None,
        })
    }

    /// The certificate that has been due the longest.
    fn next(&mut self, store: &Store, plan: &Plan, now: u64) -> Option<Job> {
        let due = wanted(plan).filter_map(|(file, name, authority, names)| {
            let known = self.known(store, file);
            let due = schedule::due(known.life.as_ref(), names, authority, &known.retry);
            (due <= now).then_some((due, file, name, authority, names))
        });
        let (_, file, name, authority, names) = due.min_by_key(|(due, ..)| *due)?;
        Some(Job {
            user: plan.common.user.clone(),
            name: name.to_owned(),
            authority: authority.clone(),
            file: file.to_owned(),
            names: names.to_vec(),
        })
    }

    fn begin(&mut self, store: &Store, job: Job, present: &Present, now: u64) {
        // Written down before it is tried: a daemon that ends in the middle, again and again, must not order each time it starts, and
        // one that can't write must not order at all.
        let known = self.known(store, &job.file);
        let begun = known.retry.failed(now, "it was broken off", None);
        if let Err(error) = store.keep_retry(&job.file, Some(&begun)) {
            if known.retry.why != error.to_string() {
                log::error!(
                    "no certificate is ordered for {}, it could not be kept: {error}",
                    job.names.join(", ")
                );
            }
            known.retry = known.retry.failed(now, &error.to_string(), None);
            return;
        }
        log::info!("ordering a certificate for {} of {}", job.names.join(", "), job.name);
        let (theirs, store, present) = (job.clone(), store.clone(), Present::clone(present));
        let thread = thread::Builder::new().name("acme-order".to_owned());
        match thread.spawn(move || order::run(&theirs, &store, &present)) {
            Ok(thread) => self.running = Some(Running { job, thread }),
            Err(error) => log::error!("no certificate is ordered: {error}"),
        }
    }

    /// Takes what has come of an order that is over. True if there is a new certificate.
    fn finish(&mut self, store: &Store, now: u64) -> bool {
        let Some(Running { job, thread }) = self.running.take_if(|running| running.thread.is_finished())
        else {
            return false;
        };
        let outcome = thread.join().unwrap_or_else(|_| Err("it ended in the middle".to_owned().into()));
        let known = self.known(store, &job.file);
        let is_new = outcome.is_ok();
        let outcome = outcome.and_then(|life| {
            let again = schedule::due(Some(&life), &job.names, &job.authority, &Retry::default());
            known.life = Some(life);
            // One order after the other until the authority refuses helps nobody.
            if again > now {
                Ok(again)
            } else {
                Err("it is due again already: look at this host's clock".to_owned().into())
            }
        });
        let names = job.names.join(", ");
        let kept = match outcome {
            Ok(again) => {
                let left = span(again - now);
                log::info!("{} has issued a certificate for {names}; it is renewed in {left}", job.name);
                known.retry = Retry::default();
                store.keep_retry(&job.file, None)
            }
            Err(Failure { why, not_before }) => {
                known.retry = known.retry.failed(now, &why, not_before);
                let wait = span(known.retry.not_before.saturating_sub(now));
                log::error!(
                    "{} has issued no certificate for {names}: {why}; it is tried again in {wait}",
                    job.name
                );
                store.keep_retry(&job.file, Some(&known.retry))
            }
        };
        if let Err(error) = kept {
            log::error!("attempts at certificates can't be kept: {error}");
        }
        is_new
    }
}

/// File, authority and names of each certificate that an authority issues.
fn wanted(plan: &Plan) -> impl Iterator<Item = (&Path, &str, &Authority, &[String])> {
    let tls = plan.listeners.values().filter_map(|listener| listener.tls.as_ref());
    tls.flat_map(|tls| &tls.certificates).filter_map(|one| {
        let (name, authority) = plan.authorities.get_key_value(one.authority.as_deref()?)?;
        Some((one.chain.as_path(), name.as_str(), authority, one.names.as_slice()))
    })
}

/// A span of time for people: nobody counts seconds in days.
fn span(seconds: u64) -> TimeSpan {
    let unit = match seconds {
        172_800.. => 86_400,
        7_200.. => 3600,
        120.. => 60,
        _ => 1,
    };
    TimeSpan { ns: (seconds / unit * unit).saturating_mul(1_000_000_000) }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::plan::{Challenge, Listener, Tls, TlsVersion};

    fn plan() -> Plan {
        let file = PathBuf::from("acme/le/a.example.pem");
        let certificate = Certificate {
            chain: file.clone(),
            key: file,
            names: vec!["a.example".to_owned()],
            authority: Some("le".to_owned()),
        };
        let tls = Tls { certificates: vec![certificate], min_version: TlsVersion::V1_2, ciphers: Vec::new() };
        let listener = Listener { bind: Vec::new(), tls: Some(tls), http2: true };
        let authority = Authority {
            directory: "https://ca.example/dir".to_owned(),
            contact: Vec::new(),
            challenge: Challenge::Http01,
            roots: None,
            renew_before_ms: None,
        };
        Plan {
            listeners: BTreeMap::from([("https".to_owned(), listener)]),
            authorities: BTreeMap::from([("le".to_owned(), authority)]),
            ..Plan::default()
        }
    }

    fn certificate(plan: &Plan) -> &Certificate {
        &plan.listeners["https"].tls.as_ref().expect("TLS").certificates[0]
    }

    #[test]
    fn something_stands_in_until_there_is_a_certificate_and_stays_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let (acme, plan) = (Acme::new(folder.path()), plan());
        let first = acme.pem(certificate(&plan)).expect("a certificate");
        assert_eq!(acme.pem(certificate(&plan)).expect("the same"), first);
        assert_eq!(acme.notes(&plan).len(), 1);
        let file = "acme/le/a.example.pem".to_owned();
        assert_eq!(acme.issuing(&plan), [Issuing { file, stands_in: true, failures: 0 }]);
        let made = rcgen::generate_simple_self_signed(["a.example".to_owned()]).expect("a certificate");
        let (key, chain) = (made.signing_key.serialize_pem(), made.cert.pem());
        let names = &certificate(&plan).names;
        acme.store
            .keep(&certificate(&plan).chain, "https://ca.example/dir", names, &key, &chain)
            .expect("kept");
        assert!(acme.pem(certificate(&plan)).expect("issued").contains(&chain));
        assert_eq!(acme.notes(&plan), [""; 0]);
    }

    #[test]
    fn a_wait_is_told_in_the_unit_that_fits() {
        let said = [7, 60, 125, 7_201, 5_183_999].map(|seconds| span(seconds).to_string());
        assert_eq!(said, ["7s", "1m", "2m", "2h", "59d"]);
    }

    #[test]
    fn an_order_that_is_broken_off_counts_as_one_that_failed() {
        let folder = tempfile::tempdir().expect("a folder");
        let (acme, plan) = (Acme::new(folder.path()), plan());
        let mut state = acme.state();
        let job = state.next(&acme.store, &plan, now()).expect("due");
        assert_eq!((job.name.as_str(), &job.names[..]), ("le", &["a.example".to_owned()][..]));
        let waiting = state.known(&acme.store, &job.file).retry.failed(now(), "it was broken off", None);
        acme.store.keep_retry(&job.file, Some(&waiting)).expect("kept");
        drop(state);
        // The next daemon.
        let acme = Acme::new(folder.path());
        assert!(acme.state().next(&acme.store, &plan, now()).is_none());
        assert_eq!(acme.issuing(&plan)[0].failures, 1);
        // An apply tries at once.
        acme.looked_after();
        assert!(acme.state().next(&acme.store, &plan, now()).is_some());
    }
}
