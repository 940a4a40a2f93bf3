//! Who is connected, and what each source has of it: connections, and requests in flight. Taken by [`super::accept`] and
//! [`super::exchange`], held by [`super::connection`].
//!
//! An HTTP/2 connection has as many requests as it has streams: counted by connections alone, a source could have the upstream's and
//! this host's resources a hundred times over.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::threads::Place;
use crate::proxy::decide::host_of;

/// Requests in flight of a source, for each connection that it may have.
const REQUESTS: u32 = 4;

/// Who is connected.
#[derive(Debug, Default)]
pub(super) struct Seats {
    open: AtomicU32,
    /// By [`host_of`].
    sources: Mutex<HashMap<[u64; 2], Source>>,
}

#[derive(Debug, Default)]
struct Source {
    connections: u32,
    /// In flight.
    requests: Arc<AtomicU32>,
}

impl Seats {
    pub(super) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    /// A seat, if there is one. Without `per_source` the source may have as many as there are.
    pub(super) fn take(self: &Arc<Self>, peer: IpAddr, most: u32, per_source: Option<u32>) -> Option<Seat> {
        if self.open.fetch_add(1, Ordering::Relaxed) >= most {
            self.open.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        let key = host_of(peer);
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let source = sources.entry(key).or_default();
        source.connections += 1;
        let fits = per_source.is_none_or(|most| source.connections <= most);
        let requests = Arc::clone(&source.requests);
        drop(sources);
        let most_requests = per_source.map_or(u32::MAX, |most| most.saturating_mul(REQUESTS));
        let seat = Seat { seats: Arc::clone(self), source: key, requests, most_requests, place: None };
        fits.then_some(seat)
    }
}

/// A connection's place; free again when it is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    source: [u64; 2],
    requests: Arc<AtomicU32>,
    most_requests: u32,
    /// Where it is served.
    pub(super) place: Option<Place>,
}

impl Seat {
    /// Counts a request.
    pub(super) fn request(&self) -> Share {
        let before = self.requests.fetch_add(1, Ordering::Relaxed);
        Share { requests: Arc::clone(&self.requests), is_too_much: before >= self.most_requests }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut sources = self.seats.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = sources.get_mut(&self.source) {
            source.connections -= 1;
            if source.connections == 0 {
                sources.remove(&self.source);
            }
        }
        drop(sources);
        self.seats.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request's share of what its source may have; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Share {
    requests: Arc<AtomicU32>,
    is_too_much: bool,
}

impl Share {
    /// It is beyond what the source may have.
    pub(super) fn is_too_much(&self) -> bool {
        self.is_too_much
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn seats_are_counted_in_total_and_by_source() {
        let seats = Arc::<Seats>::default();
        let first = seats.take(address("192.0.2.1"), 3, Some(1)).expect("a seat");
        assert!(seats.take(address("192.0.2.1"), 3, Some(1)).is_none());
        assert!(seats.take(address("::ffff:192.0.2.1"), 3, Some(1)).is_none());
        let _second = seats.take(address("2001:db8::1"), 3, Some(1)).expect("a seat");
        assert!(seats.take(address("2001:db8::ffff:1"), 3, Some(1)).is_none());
        let third = seats.take(address("2001:db8:0:1::1"), 3, Some(1)).expect("another /64");
        assert!(seats.take(address("198.51.100.1"), 3, None).is_none());
        assert_eq!(seats.open(), 3);
        drop((first, third));
        assert!(seats.open() == 1 && seats.take(address("192.0.2.1"), 3, Some(1)).is_some());
    }

    #[test]
    fn requests_are_counted_by_source_over_all_its_connections() {
        let seats = Arc::<Seats>::default();
        let take = |peer, most| seats.take(address(peer), 10, most).expect("a seat");
        let (first, second, other) =
            (take("192.0.2.1", Some(2)), take("192.0.2.1", Some(2)), take("192.0.2.2", Some(2)));
        let shares: Vec<_> = (0..2 * REQUESTS).map(|_| first.request()).collect();
        assert!(!shares.iter().any(Share::is_too_much));
        assert!(second.request().is_too_much() && !other.request().is_too_much());
        drop(shares);
        assert!(!second.request().is_too_much());
        let trusted = take("192.0.2.3", None);
        let shares: Vec<_> = (0..1000).map(|_| trusted.request()).collect();
        assert!(!shares.iter().any(Share::is_too_much));
    }
}
