//! The network side of the L7 proxy: serves a [`Plan`] on sockets and with certificates that it is given. Called by the worker
//! process; it opens no file and binds no address.
//!
//! A request is served under the plan that was in force when its head was complete. A new plan closes nothing: connections go
//! on and have their next request under it, listeners that stay keep their sockets, those that go are drained.

mod accept;
mod challenge;
mod connection;
mod exchange;
mod metrics;
mod paced;
mod seats;
mod state;
mod threads;
pub mod tls;
mod tunnel;
mod upstream;
mod watch;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderValue;
use tokio_rustls::rustls::crypto::aws_lc_rs;

use accept::{Door, Phase};
use challenge::Challenges;
use metrics::Counts;
use seats::Seats;
use state::{State, States, prepare, thread_count};
use threads::Threads;
use tls::{Certificates, Tickets};
use upstream::Memory;

pub use crate::proxy::decide::Ban;
pub use crate::proxy::decide::log::Record;
pub use metrics::{CertificateLife, LatencyBucket, Metrics, RouteCounts, ServerHealth};

use super::acme::Proof;
use super::decide::{Client, Reason, RouteState};
use super::plan::Plan;

/// How often idle connections to upstreams are looked through.
const SWEEP: Duration = Duration::from_secs(1);
/// Certificates that expire within so many days are told of.
const SOON_DAYS: i64 = 14;
/// How often a drain looks whether everybody has left.
const LOOK: Duration = Duration::from_millis(10);
/// What was cut is gone in this time.
const CUT: Duration = Duration::from_secs(1);

/// Where answered requests and bans go.
pub trait Sink: Send + Sync + 'static {
    /// A request was answered, or came to nothing. Called on a thread that serves connections: it must not block.
    fn access(&self, record: &Record<'_>);
    /// A peer is to be banned. It must not block either.
    fn offence(&self, ban: Ban);
}

/// A plan that can't be served. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A certificate or key.
    #[error(transparent)]
    Certificate(#[from] tls::Invalid),
    /// An address of a listener has no socket.
    #[error("listener {listener}: no socket was given for {address}")]
    NoSocket {
        /// Its name.
        listener: String,
        /// Where it should listen.
        address: SocketAddr,
    },
    /// A socket can't be used.
    #[error("listener {listener}: {error}")]
    Socket {
        /// Its name.
        listener: String,
        /// What the system says.
        error: io::Error,
    },
    /// Something else that the plan needs is not there.
    #[error("{0}")]
    Other(String),
}

/// What all connections share.
struct Shared {
    states: States,
    sink: Arc<dyn Sink>,
    counts: Counts,
    seats: Arc<Seats>,
    /// For bodies that are read ahead.
    memory: Arc<Memory>,
    tickets: Tickets,
    challenges: Arc<Challenges>,
    begun: Instant,
    /// Ids of requests: random for each process, and a number of each thread.
    id: u64,
}

thread_local! {
    /// How many requests this thread has had.
    static REQUESTS: Cell<u64> = const { Cell::new(0) };
}

impl Shared {
    /// What is served, for this thread.
    fn state(&self) -> Arc<State> {
        self.states.of_this_thread()
    }

    /// A clock that only goes forward.
    fn now_ns(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Gives requests the memory that the plan in force says.
    fn allow(&self) {
        self.memory.allow(self.states.common().plan.common.buffer_memory);
    }

    fn request_id(&self) -> HeaderValue {
        let count = REQUESTS.replace(REQUESTS.get().wrapping_add(1));
        let thread = threads::number() as u64 & 0xffff;
        let number =
            u128::from(self.id) << 64 | u128::from(thread) << 48 | u128::from(count & 0xffff_ffff_ffff);
        let mut text = [b'0'; 32];
        for (place, digit) in text.iter_mut().rev().enumerate() {
            *digit = b"0123456789abcdef"[(number >> (4 * place) & 15) as usize];
        }
        // Hexadecimal digits are good for a header.
        HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("0"))
    }

    /// Counts why something was refused, and hands on who is to be banned for it.
    fn offence(&self, state: &State, client: &Client, reason: Reason, route: Option<&RouteState>) {
        self.counts.reason(reason);
        if let Some(ban) = state.router.offence(client, reason, route, self.now_ns()) {
            self.sink.offence(ban);
        }
    }
}

/// Nanoseconds since 1970.
fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A plan that is being served. Dropped, it ends all connections at once.
pub struct Service {
    shared: Arc<Shared>,
    threads: Threads,
    doors: Mutex<BTreeMap<SocketAddr, Door>>,
}

impl Service {
    /// Serves a plan. `sockets` listen already; each address of each listener needs one. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// If a certificate is not good, or a socket is missing or can't be used.
    pub fn start(
        plan: Plan,
        certificates: &Certificates,
        sockets: Vec<(String, TcpListener)>,
        sink: Arc<dyn Sink>,
    ) -> Result<Self, Refused> {
        let tickets = Tickets::new().map_err(Refused::Other)?;
        let mut id = [0; 8];
        let random = aws_lc_rs::default_provider().secure_random;
        random.fill(&mut id).map_err(|_| Refused::Other("no random numbers to be had".to_owned()))?;
        let challenges = Arc::<Challenges>::default();
        let state = prepare(plan, certificates, &tickets, &challenges, None)?;
        let opened = assign(&state.plan, sockets, &BTreeMap::new())?;
        let count = thread_count(&state.plan);
        let shared = Arc::new(Shared {
            states: States::new(state, count),
            sink,
            counts: Counts::new(count),
            seats: Arc::default(),
            memory: Arc::default(),
            tickets,
            challenges,
            begun: Instant::now(),
            id: u64::from_ne_bytes(id),
        });
        shared.allow();
        let threads = Threads::start(count)
            .map_err(|error| Refused::Other(format!("no threads to serve with: {error}")))?;
        let doors = opened.into_iter().map(|(address, socket)| {
            (address, Door::open(address, socket, Arc::clone(&shared), threads.crew()))
        });
        let doors = Mutex::new(doors.collect());
        let swept = Arc::downgrade(&shared);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(shared) = swept.upgrade() else { return };
                shared.states.sweep();
            }
        });
        Ok(Self { shared, threads, doors })
    }

    /// Serves another plan from now on. `sockets` are for addresses that are not open yet; one for an address that is open is closed
    /// again. Also the way to take renewed certificates: with the same plan and no sockets.
    ///
    /// # Errors
    /// As [`Self::start`]; the plan before stays in force then.
    pub fn replace(
        &self,
        plan: Plan,
        certificates: &Certificates,
        sockets: Vec<(String, TcpListener)>,
    ) -> Result<(), Refused> {
        // One change at a time: the lock is held to the end.
        let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.shared.states.common();
        let state =
            prepare(plan, certificates, &self.shared.tickets, &self.shared.challenges, Some(&before))?;
        let opened = assign(&state.plan, sockets, &doors)?;
        let state = self.shared.states.replace(state);
        self.shared.allow();
        let drained = Duration::from_millis(before.plan.common.timeouts.drain_ms);
        doors.retain(|address, door| {
            let stays = state.addresses.contains_key(address);
            if !stays {
                door.leave(drained);
            }
            stays
        });
        for (address, socket) in opened {
            doors.insert(address, Door::open(address, socket, Arc::clone(&self.shared), self.threads.crew()));
        }
        Ok(())
    }

    /// Takes no more connections, lets those that are open finish what they do, and cuts what is left after `deadline`. Says how many
    /// connections were cut.
    pub async fn drain(&self, deadline: Duration) -> u32 {
        let doors: Vec<Door> = {
            let mut doors = self.doors.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut *doors).into_values().collect()
        };
        doors.iter().for_each(|door| door.turn(Phase::Draining));
        let until = tokio::time::Instant::now() + deadline;
        while self.shared.seats.open() > 0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
        let cut = self.shared.seats.open();
        doors.iter().for_each(|door| door.turn(Phase::Ended));
        // What was cut is noted as its tasks end.
        let until = tokio::time::Instant::now() + CUT;
        while self.shared.seats.open() > 0 && tokio::time::Instant::now() < until {
            tokio::time::sleep(LOOK).await;
        }
        cut
    }

    /// Answers the challenges of authorities by these from now on, and by no others.
    ///
    /// # Errors
    /// If an answer can't be made; nothing is changed then.
    pub fn present(&self, proofs: Vec<Proof>) -> Result<(), String> {
        self.shared.challenges.present(proofs)
    }

    /// What was counted, and what is open now.
    pub fn snapshot(&self) -> Metrics {
        self.shared.counts.snapshot(&self.shared)
    }
}

/// Whether certificates and keys of a plan can be served, without serving them. Gives what an operator should know of them.
///
/// # Errors
/// The first one that is not good.
pub fn check(plan: &Plan, certificates: &Certificates) -> Result<Vec<String>, Refused> {
    let tickets = Tickets::new().map_err(Refused::Other)?;
    let now = i64::try_from(unix_ns() / 1_000_000_000).unwrap_or(i64::MAX);
    let (_, expiries) = tls::listeners(plan, certificates, &tickets, &Arc::default(), now)?;
    // Those that authorities issue are renewed by then, or live no longer.
    let tls = plan.listeners.values().filter_map(|listener| listener.tls.as_ref());
    let issued = tls.flat_map(|tls| &tls.certificates).filter(|one| one.authority.is_some());
    let issued: Vec<_> = issued.map(|one| one.chain.as_path()).collect();
    let soon = expiries.into_iter().filter_map(|one| {
        let (days, file) = ((one.not_after - now).div_euclid(86_400), one.file.display());
        match days {
            ..0 => Some(format!("the certificate {file} has expired")),
            0..SOON_DAYS if !issued.contains(&one.file.as_path()) => {
                Some(format!("the certificate {file} expires in {days} days"))
            }
            _ => None,
        }
    });
    Ok(soon.collect())
}

type Opened = BTreeMap<SocketAddr, tokio::net::TcpListener>;

/// Which socket is for which address that is not open yet.
fn assign(
    plan: &Plan,
    sockets: Vec<(String, TcpListener)>,
    doors: &BTreeMap<SocketAddr, Door>,
) -> Result<Opened, Refused> {
    let mut given = BTreeMap::new();
    for (listener, socket) in sockets {
        let usable = socket
            .set_nonblocking(true)
            .and_then(|()| socket.local_addr())
            .and_then(|address| tokio::net::TcpListener::from_std(socket).map(|socket| (address, socket)));
        let (address, socket) =
            usable.map_err(|error| Refused::Socket { listener: listener.clone(), error })?;
        given.insert(address, socket);
    }
    let mut opened = BTreeMap::new();
    for (name, listener) in &plan.listeners {
        for address in listener.bind.iter().filter(|address| !doors.contains_key(address)) {
            let no_socket = || Refused::NoSocket { listener: name.clone(), address: *address };
            opened.insert(*address, given.remove(address).ok_or_else(no_socket)?);
        }
    }
    Ok(opened)
}
