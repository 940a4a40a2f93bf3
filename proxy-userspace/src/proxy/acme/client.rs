//! The process that talks to the authority: gives up its rights, carries one order through, and ends.
//!
//! Started by [`crate::control`] as `tollgate acme-client`, with the link as its standard input. When the link closes, because the
//! daemon ended or has waited long enough, it ends at once.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::{Context, bail};
use instant_acme::{
    Account as Registered, AccountCredentials, AuthorizationStatus, ChallengeType, Error, Identifier,
    NewAccount, NewOrder, OrderStatus, RetryPolicy,
};
use tokio::sync::mpsc::{self, Receiver};

use super::http::{Https, NotBefore};
use super::{Account, FromClient, Order, Proof, ToClient};
use crate::proxy::link::{self, MOST_TO_WORKER};
use crate::proxy::plan::Challenge;
use crate::proxy::privilege::{self, Files};

/// What the authority may take to look at the answers, and to issue, each. It is asked after half a second, then ever more seldom.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(90));
/// The account is known here, and not to the authority (RFC 8555 section 6.7).
const NO_ACCOUNT: &str = "urn:ietf:params:acme:error:accountDoesNotExist";

/// Carries one order through.
///
/// # Errors
/// If it can't give up its rights, or the link is none.
pub fn run(user: &str) -> anyhow::Result<()> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("the link to the daemon")?;
    let link = UnixStream::from(stdin);
    if link.peer_addr().is_err() {
        bail!("this is started by `tollgate run` for certificates of a policy, not by hand");
    }
    // Before there is a second thread. What a name's address is, and which authorities the host trusts, stands in files.
    for missing in privilege::give_up(user, Files::Readable)? {
        log::warn!("{missing}");
    }
    let reader = link.try_clone().context("the link to the daemon")?;
    let (tell, mut told) = mpsc::channel(1);
    std::thread::spawn(move || {
        while let Ok(Some((message, _))) = link::receive::<ToClient>(&reader, MOST_TO_WORKER, false) {
            if tell.blocking_send(message).is_err() {
                break;
            }
        }
        // Whatever is on its way: nobody waits for it.
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let Some(ToClient::Order(order)) = told.recv().await else { bail!("the daemon ordered nothing") };
        let not_before = NotBefore::default();
        let mut daemon = Daemon { link, told };
        let last = match carry_through(&order, &mut daemon, &not_before).await {
            Ok(chain) => FromClient::Issued { chain },
            Err(why) => {
                let not_before = *not_before.lock().unwrap_or_else(PoisonError::into_inner);
                FromClient::Failed { why, not_before }
            }
        };
        Ok(daemon.tell(&last)?)
    })
}

struct Daemon {
    link: UnixStream,
    told: Receiver<ToClient>,
}

impl Daemon {
    fn tell(&self, message: &FromClient) -> std::io::Result<()> {
        link::send(&self.link, message, &[])
    }

    /// Has answers put in service.
    async fn present(&mut self, proofs: Vec<Proof>) -> Result<(), String> {
        self.tell(&FromClient::Present(proofs)).map_err(|error| error.to_string())?;
        match self.told.recv().await {
            Some(ToClient::Presented) => Ok(()),
            _ => Err("the daemon does not put the answers in service".to_owned()),
        }
    }
}

/// The chain that was issued, or what went wrong, and where.
async fn carry_through(order: &Order, daemon: &mut Daemon, not_before: &NotBefore) -> Result<String, String> {
    let account = account(order, daemon, not_before).await?;
    let identifiers: Vec<_> = order.names.iter().cloned().map(Identifier::Dns).collect();
    let wanted = NewOrder::new(&identifiers);
    let placed = match account.new_order(&wanted).await {
        // It has forgotten: a test's authority that was started again, or one that was set up anew.
        Err(Error::Api(problem)) if problem.r#type.as_deref() == Some(NO_ACCOUNT) => {
            log::warn!("the authority does not know the account any more; a new one is registered");
            register(order, daemon, not_before).await?.new_order(&wanted).await
        }
        placed => placed,
    };
    let mut placed = placed.map_err(|error| format!("ordering: {}", said(&error)))?;
    let proofs =
        proofs(order, &mut placed).await.map_err(|error| format!("reading its challenges: {error}"))?;
    if !proofs.is_empty() {
        daemon.present(proofs).await?;
        answer(order, &mut placed)
            .await
            .map_err(|error| format!("answering its challenges: {}", said(&error)))?;
    }
    match placed.poll_ready(&POLL).await {
        Ok(OrderStatus::Ready) => {}
        outcome => {
            let own = outcome.err().map_or_else(|| "it refuses the order".to_owned(), |error| said(&error));
            return Err(refusal(&mut placed)
                .await
                .unwrap_or(format!("waiting for it to look at the answers: {own}")));
        }
    }
    let finalized = placed.finalize_csr(&order.request).await;
    finalized.map_err(|error| format!("sending the request for the certificate: {}", said(&error)))?;
    placed
        .poll_certificate(&POLL)
        .await
        .map_err(|error| format!("waiting for the certificate: {}", said(&error)))
}

/// The account of before, with the contacts of now, or a new one.
async fn account(order: &Order, daemon: &Daemon, not_before: &NotBefore) -> Result<Registered, String> {
    let Some(known) = &order.account else { return register(order, daemon, not_before).await };
    let credentials = serde_json::from_value::<AccountCredentials>(known.credentials.clone());
    let credentials = credentials.map_err(|error| format!("the account in the state directory: {error}"))?;
    let https = Https::new(order.roots.as_deref(), NotBefore::clone(not_before))?;
    let account = Registered::builder_with_http(Box::new(https)).from_credentials(credentials).await;
    let account = account.map_err(|error| format!("asking for its directory: {}", said(&error)))?;
    if known.contact != order.contact {
        let contact: Vec<_> = order.contact.iter().map(String::as_str).collect();
        match account.update_contacts(&contact).await {
            Ok(()) => {
                let changed = Account { contact: order.contact.clone(), ..known.clone() };
                daemon.tell(&FromClient::Account(changed)).map_err(|error| error.to_string())?;
            }
            // Not what certificates hang on; it is tried again with the next one.
            Err(error) => log::warn!("the account's contact could not be changed: {}", said(&error)),
        }
    }
    Ok(account)
}

async fn register(order: &Order, daemon: &Daemon, not_before: &NotBefore) -> Result<Registered, String> {
    let https = Https::new(order.roots.as_deref(), NotBefore::clone(not_before))?;
    let contact: Vec<_> = order.contact.iter().map(String::as_str).collect();
    // The policy says so, or there is no authority in the plan.
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let registered =
        Registered::builder_with_http(Box::new(https)).create(&new, order.directory.clone(), None).await;
    let (account, credentials) =
        registered.map_err(|error| format!("registering an account: {}", said(&error)))?;
    let credentials = serde_json::to_value(&credentials).map_err(|error| error.to_string())?;
    let kept = Account { contact: order.contact.clone(), credentials };
    daemon.tell(&FromClient::Account(kept)).map_err(|error| error.to_string())?;
    Ok(account)
}

fn kind(challenge: Challenge) -> ChallengeType {
    match challenge {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
    }
}

/// Answers to the challenges of all names that the authority has not seen to be ours before.
async fn proofs(order: &Order, placed: &mut instant_acme::Order) -> Result<Vec<Proof>, String> {
    let mut proofs = Vec::new();
    let mut authorizations = placed.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(|error| said(&error))?;
        let name = authorization.identifier().to_string();
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            status => return Err(format!("that for {name} is {status:?}")),
        }
        let challenge = authorization.challenge(kind(order.challenge));
        let challenge =
            challenge.ok_or_else(|| format!("it offers no challenge for {name} that the policy names"))?;
        let key = challenge.key_authorization();
        proofs.push(match order.challenge {
            Challenge::Http01 => {
                Proof::Http { token: challenge.token.clone(), content: key.as_str().to_owned() }
            }
            Challenge::TlsAlpn01 => {
                let digest =
                    key.digest().as_ref().try_into().map_err(|_| "SHA-256 has 32 bytes".to_owned())?;
                Proof::Tls { name, digest }
            }
        });
    }
    Ok(proofs)
}

/// Tells the authority that the answers are in service.
async fn answer(order: &Order, placed: &mut instant_acme::Order) -> Result<(), Error> {
    let mut authorizations = placed.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        if authorization.status == AuthorizationStatus::Pending
            && let Some(mut challenge) = authorization.challenge(kind(order.challenge))
        {
            challenge.set_ready().await?;
        }
    }
    Ok(())
}

/// What the authority says of challenges that it found unanswered.
async fn refusal(placed: &mut instant_acme::Order) -> Option<String> {
    let mut whys = Vec::new();
    let mut authorizations = placed.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            continue;
        }
        let name = authorization.identifier().to_string();
        let problems = authorization.challenges.iter().filter_map(|challenge| challenge.error.as_ref());
        whys.extend(problems.map(|problem| printable(&format!("{name}: {problem}"))));
    }
    (!whys.is_empty()).then(|| format!("it could not see that the name is ours: {}", whys.join("; ")))
}

/// What went wrong, in one line: the authority's words end up in logs.
fn said(error: &Error) -> String {
    match error {
        Error::Timeout(_) => "it took too long".to_owned(),
        error => printable(&error.to_string()),
    }
}

fn printable(text: &str) -> String {
    // instant-acme's own words before those of the authority.
    let text = text.replacen("API error: ", "", 1);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
