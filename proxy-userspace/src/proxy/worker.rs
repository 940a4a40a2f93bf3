//! The worker process of the L7 proxy: gives up its rights, then serves what the daemon sends it.
//!
//! Started by [`crate::control`] as `tollgate proxy-worker`, with the link as its standard input. When the link closes, because the
//! daemon ended or wants another worker, it finishes what is in flight and ends: sockets that the daemon or systemd keeps hold new
//! connections meanwhile.

use std::fs::File;
use std::io::Write;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::mpsc;

use super::decide::log::line;
use super::link::{self, FromWorker, MOST_TO_WORKER, ToWorker};
use super::plan::LogFormat;
use super::privilege::{self, Files};
use super::serve::tls::Certificates;
use super::serve::{Ban, Record, Service, Sink};

/// Bytes of log lines that are written at once.
const LOG_BUFFER: usize = 64 << 10;
/// A log line waits so long to be written at most.
const LOG_DELAY: Duration = Duration::from_millis(200);

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
    let said = Arc::new(Said { link: Mutex::new(link), log: Mutex::default() });
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
    let mut flush = tokio::time::interval(LOG_DELAY);
    let mut service: Option<Service> = None;
    let mut drain = Duration::ZERO;
    loop {
        let message = tokio::select! {
            message = told.recv() => message,
            _ = flush.tick() => {
                said.flush();
                continue;
            }
        };
        match message {
            Some((ToWorker::Serve { plan, secrets, sockets }, fds)) => {
                drain = Duration::from_millis(plan.common.timeouts.drain_ms);
                let sockets = sockets.into_iter().zip(fds.into_iter().map(TcpListener::from)).collect();
                said.write_as(plan.common.access_log.as_ref().map(|log| log.format));
                let certificates = Certificates::from(secrets);
                let served = match &service {
                    Some(service) => service.replace(*plan, &certificates, sockets),
                    None => {
                        let sink: Arc<dyn Sink> = Arc::clone(&said) as _;
                        let started = Service::start(*plan, &certificates, sockets, sink);
                        started.map(|started| service = Some(started))
                    }
                };
                said.tell(&match served {
                    Ok(()) => FromWorker::Serving,
                    Err(why) => FromWorker::Failed { why: why.to_string() },
                });
            }
            Some((ToWorker::Log, fds)) => said.log_to(fds),
            Some((ToWorker::Present { proofs }, _)) => {
                let presented = match &service {
                    Some(service) => service.present(proofs),
                    None => Err("there is nothing that it serves".to_owned()),
                };
                said.tell(&FromWorker::Presented(presented));
            }
            Some((ToWorker::Measure, _)) => {
                let metrics = service.as_ref().map(Service::snapshot).unwrap_or_default();
                said.tell(&FromWorker::Metrics(Box::new(metrics)));
            }
            Some((ToWorker::Drain, _)) | None => break,
        }
    }
    if let Some(service) = service {
        service.drain(drain).await;
    }
    said.flush();
    Ok(())
}

/// Where what happens is told: the daemon, and the log.
struct Said {
    link: Mutex<UnixStream>,
    log: Mutex<Log>,
}

/// The access log. Lines are made where requests are served, and written a little later.
#[derive(Default)]
struct Log {
    /// `None`: none is wanted.
    format: Option<LogFormat>,
    file: Option<File>,
    lines: Vec<u8>,
}

impl Said {
    fn tell(&self, message: &FromWorker) {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        // A daemon that is gone closes the link, and that ends this process.
        if let Err(error) = link::send(&link, message, &[]) {
            log::debug!("the daemon can't be told: {error}");
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_as(&self, format: Option<LogFormat>) {
        let mut log = self.log();
        log.flush();
        log.format = format;
        if format.is_none() {
            log.file = None;
        }
    }

    fn log_to(&self, fds: Vec<OwnedFd>) {
        let mut log = self.log();
        log.flush();
        log.file = fds.into_iter().next().map(File::from);
    }

    fn flush(&self) {
        self.log().flush();
    }
}

impl Log {
    fn flush(&mut self) {
        // Whole lines, in one write: another worker may be writing its last ones to the same file. Before there is a file, they
        // wait for it.
        let Some(file) = &mut self.file else { return };
        if !self.lines.is_empty()
            && let Err(error) = file.write_all(&self.lines)
        {
            log::error!("the access log can't be written: {error}");
        }
        self.lines.clear();
    }
}

impl Sink for Said {
    fn access(&self, record: &Record<'_>) {
        let mut log = self.log();
        let Some(format) = log.format else { return };
        if log.lines.len() >= LOG_BUFFER {
            log.flush();
        }
        if log.lines.len() < 2 * LOG_BUFFER {
            line(format, record, &mut log.lines);
        }
    }

    fn offence(&self, ban: Ban) {
        self.tell(&FromWorker::Ban(ban));
    }
}
