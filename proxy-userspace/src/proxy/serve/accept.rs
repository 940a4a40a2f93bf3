//! Takes connections: limits in total and per source, the TLS handshake and its time limit. Started by [`super::Service`], one task
//! for each socket; hands on to [`super::connection`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, ProtocolVersion, ServerConfig, ServerConnection};

use super::challenge::ACME_TLS;
use super::connection::{Connection, serve};
use super::seats::Seat;
use super::threads::Crew;
use super::watch::{Progress, Watched};
use super::{Shared, State};
use crate::proxy::decide::{Client, Reason, TlsInfo};

/// Without descriptors or memory: clients that leave give theirs back.
const PAUSE: Duration = Duration::from_millis(100);

/// What a listener's connections are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Go on.
    Serving,
    /// Finish what they do.
    Draining,
    /// End now.
    Ended,
}

/// A socket that takes connections, and a hand on those that it took.
pub(super) struct Door {
    phase: watch::Sender<Phase>,
}

impl Door {
    pub(super) fn open(address: SocketAddr, socket: TcpListener, shared: Arc<Shared>, crew: Crew) -> Self {
        let (phase, phases) = watch::channel(Phase::Serving);
        tokio::spawn(listen(socket, address, phases, shared, crew));
        Self { phase }
    }

    pub(super) fn turn(&self, phase: Phase) {
        self.phase.send_replace(phase);
    }

    /// Closes the socket, and the connections after `patience` at the latest.
    pub(super) fn leave(&self, patience: Duration) {
        self.turn(Phase::Draining);
        let phase = self.phase.clone();
        tokio::spawn(async move {
            sleep(patience).await;
            phase.send_replace(Phase::Ended);
        });
    }
}

async fn listen(
    socket: TcpListener,
    bound: SocketAddr,
    mut phases: watch::Receiver<Phase>,
    shared: Arc<Shared>,
    crew: Crew,
) {
    let mut troubled = false;
    loop {
        let accepted = tokio::select! {
            accepted = socket.accept() => accepted,
            // Also when the service is gone.
            _ = phases.changed() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                troubled = false;
                admit(stream, peer, bound, &phases, &shared, &crew);
            }
            Err(error) if left(&error) => {}
            // The daemon wants nobody to connect here any more, and says so next, or has said so to another worker.
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {
                log::debug!("{bound}: closed: {error}");
                return;
            }
            Err(error) => {
                // Once, not ten times a second.
                if !troubled {
                    log::error!("{bound}: no connections can be taken: {error}");
                }
                troubled = true;
                sleep(PAUSE).await;
            }
        }
    }
}

/// The client left before it was taken: no trouble of ours.
fn left(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

fn admit(
    stream: TcpStream,
    peer: SocketAddr,
    bound: SocketAddr,
    phases: &watch::Receiver<Phase>,
    shared: &Arc<Shared>,
    crew: &Crew,
) {
    let state = shared.state();
    // Not there: the listener has just gone.
    let Some(listener) = state.addresses.get(&bound).cloned() else { return };
    let common = &state.plan.common;
    let per_source = (!state.router.trusts(peer.ip())).then_some(common.max_connections_per_source);
    let Some(mut seat) = shared.seats.take(peer.ip(), common.max_connections, per_source) else {
        // Closed at once: who waits in the queue instead keeps others out of it.
        shared.counts.reason(Reason::TooManyConnections);
        return;
    };
    shared.counts.accepted();
    // A client that does not read would leave its answer's rest to the kernel, which keeps that for minutes after the connection
    // was cut, uncounted by any limit of ours.
    let patience = u32::try_from(common.timeouts.send_ms).unwrap_or(u32::MAX);
    let patient = setsockopt(&stream, sockopt::TcpUserTimeout, &patience).map_err(io::Error::from);
    if let Err(error) = patient.and_then(|()| stream.set_nodelay(true)) {
        log::debug!("{peer}: {error}");
        return;
    }
    let client = Client { listener, peer, local: stream.local_addr().unwrap_or(bound), tls: None };
    let config = state.tls.get(&*client.listener).cloned();
    let place = seat.place.insert(crew.place());
    let (Some(runtime), Ok(stream)) = (place.runtime(), stream.into_std()) else { return };
    let (phases, shared) = (phases.clone(), Arc::clone(shared));
    runtime.spawn(async move {
        // From here on its events come to this thread.
        match TcpStream::from_std(stream) {
            Ok(stream) => attend(stream, client, bound, seat, config, state, phases, shared).await,
            Err(error) => log::debug!("{peer}: {error}"),
        }
    });
}

#[expect(clippy::too_many_arguments, reason = "what a connection is made of, each of its own type")]
async fn attend(
    stream: TcpStream,
    mut client: Client,
    bound: SocketAddr,
    seat: Seat,
    config: Option<Arc<ServerConfig>>,
    state: Arc<State>,
    phases: watch::Receiver<Phase>,
    shared: Arc<Shared>,
) {
    let progress = Progress::new();
    let stream = Watched::new(stream, Arc::clone(&progress));
    let Some(config) = config else {
        let connection =
            Connection::new(shared, &state, client, bound, progress, seat, false, phases.clone());
        tokio::spawn(serve(stream, connection, phases));
        return;
    };
    let patience = Duration::from_millis(state.plan.common.timeouts.handshake_ms);
    let accepting = TlsAcceptor::from(config).accept(stream).into_fallible();
    let mut stream = match timeout(patience, accepting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((error, stream))) => {
            log::debug!("{}: TLS: {error}", client.peer);
            return shared.offence(&state, &client, why(&error, stream.begins_with()), None);
        }
        Err(_) => return shared.counts.reason(Reason::ClientTimeout),
    };
    if stream.get_ref().1.alpn_protocol() == Some(ACME_TLS) {
        // The handshake was all of it (RFC 8737 section 3).
        let _ = timeout(patience, stream.shutdown()).await;
        return;
    }
    progress.handshaken();
    let session = stream.get_ref().1;
    let http2 = session.alpn_protocol() == Some(b"h2");
    client.tls = Some(info(session));
    let connection = Connection::new(shared, &state, client, bound, progress, seat, http2, phases.clone());
    // What the handshake took ends here.
    tokio::spawn(serve(stream, connection, phases));
}

/// Why a handshake that began with these bytes failed. Whoever left, is too old, or does not like our certificate did nothing wrong,
/// nor did a browser whose user forgot the `s` of `https`.
fn why(error: &io::Error, begins_with: &[u8]) -> Reason {
    use rustls::Error as E;
    match error.get_ref().and_then(|error| error.downcast_ref::<E>()) {
        Some(E::InvalidMessage(_)) if is_http(begins_with) => Reason::HandshakeFailed,
        Some(
            E::InvalidMessage(_)
            | E::InappropriateMessage { .. }
            | E::InappropriateHandshakeMessage { .. }
            | E::PeerMisbehaved(_)
            | E::DecryptError,
        ) => Reason::TlsInvalid,
        _ => Reason::HandshakeFailed,
    }
}

/// Whether it is the beginning of a request without TLS.
fn is_http(begins_with: &[u8]) -> bool {
    let begins = |method: &&[u8]| begins_with.starts_with(method) || method.starts_with(begins_with);
    [&b"GET "[..], b"HEAD ", b"POST ", b"PUT ", b"PATCH ", b"DELETE ", b"OPTIONS "].iter().any(begins)
}

fn info(session: &ServerConnection) -> TlsInfo {
    TlsInfo {
        sni: session.server_name().map(str::to_ascii_lowercase),
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        cipher: session
            .negotiated_cipher_suite()
            .and_then(|suite| suite.suite().as_str())
            .unwrap_or_default(),
    }
}
