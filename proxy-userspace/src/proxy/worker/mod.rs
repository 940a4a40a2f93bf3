//! The worker process of the L7 proxy: gives up its rights, then serves what the daemon sends it.
//!
//! Started by [`crate::control`] as `tollgate proxy-worker`, with the link as its standard input. When the link closes, because the
//! daemon ended or wants another worker, it finishes what is in flight and ends: sockets that the daemon or systemd keeps hold new
//! connections meanwhile.

mod access_log;
mod answers;

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::mpsc;

use access_log::{AccessLog, Lines};
use answers::Answers;

use super::link::{self, FromWorker, MOST_TO_WORKER, ToWorker};
use super::privilege::{self, Files};
use super::serve::tls::Certificates;
use super::serve::{Ban, Record, Service, Sink};

/// Serves until the daemon says otherwise.
///
/// # Errors
/// If it can't give up its rights, or the link is none.
pub fn run(user: &str) -> anyhow::Result<()> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("the link to the daemon")?;
    let link = UnixStream::from(stdin);
    if link.peer_addr().is_err() {
        bail!("this is started by `tollgate run` for the routes of a policy, not by hand");
    }
    // Before there is a second thread: what is given up holds for all that come after.
    for missing in privilege::give_up(user, Files::None)? {
        log::warn!("{missing}");
    }
    // For the link, the log and new connections; [`Service`] has threads of its own for what is on these.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the proxy's worker")?;
    runtime.block_on(serve(link))
}

async fn serve(link: UnixStream) -> anyhow::Result<()> {
    let reader = link.try_clone().context("the link to the daemon")?;
    let log = AccessLog::start().context("a thread for the access log")?;
    let answers = Answers::start(link).context("a thread for what the daemon is told")?;
    let said = Arc::new(Said { answers, log: log.lines() });
    let (tell, mut told) = mpsc::channel(16);
    std::thread::spawn(move || {
        loop {
            match link::receive::<ToWorker>(&reader, MOST_TO_WORKER, true) {
                Ok(Some(message)) => {
                    if tell.blocking_send(message).is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    log::error!("the daemon says what nobody understands: {error}");
                    return;
                }
            }
        }
    });
    let mut service: Option<Service> = None;
    let mut drain = Duration::ZERO;
    loop {
        match told.recv().await {
            Some((ToWorker::Serve { plan, secrets, sockets }, fds)) => {
                drain = Duration::from_millis(plan.common.timeouts.drain_ms);
                let sockets = sockets.into_iter().zip(fds.into_iter().map(TcpListener::from)).collect();
                log.write_as(plan.common.access_log.as_ref().map(|log| log.format));
                let certificates = Certificates::from(secrets);
                let served = match &service {
                    Some(service) => service.replace(*plan, &certificates, sockets),
                    None => {
                        let sink: Arc<dyn Sink> = Arc::clone(&said) as _;
                        let started = Service::start(*plan, &certificates, sockets, sink);
                        started.map(|started| service = Some(started))
                    }
                };
                said.answers.tell(match served {
                    Ok(()) => FromWorker::Serving,
                    Err(why) => FromWorker::Failed { why: why.to_string() },
                });
            }
            Some((ToWorker::Log, fds)) => {
                if let Some(fd) = fds.into_iter().next() {
                    log.write_to(File::from(fd));
                }
            }
            Some((ToWorker::Present { proofs }, _)) => {
                let presented = match &service {
                    Some(service) => service.present(proofs),
                    None => Err("there is nothing that it serves".to_owned()),
                };
                said.answers.tell(FromWorker::Presented(presented));
            }
            Some((ToWorker::Measure, _)) => {
                let metrics = service.as_ref().map(Service::snapshot).unwrap_or_default();
                said.answers.tell(FromWorker::Metrics(Box::new(metrics)));
            }
            Some((ToWorker::Drain, _)) | None => break,
        }
    }
    if let Some(service) = service {
        service.drain(drain).await;
    }
    log.end();
    Ok(())
}

/// Where what happens is told: the daemon, and the log.
struct Said {
    answers: Answers,
    log: Lines,
}

impl Sink for Said {
    fn access(&self, record: &Record<'_>) {
        self.log.line(record);
    }

    fn offence(&self, ban: Ban) {
        self.answers.offence(ban);
    }
}
