//! The threads that serve: each has a runtime of its own, and a connection stays where it began, together with the connections to
//! upstreams that its requests use. Started by [`super::Service`]; [`super::accept`] gives them connections.
//!
//! In one runtime for all threads tasks wander: to wake another processor for each part of a request cost more than the rest of it.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Which of the threads this is; all others have one number in common.
pub(super) fn number() -> usize {
    NUMBER.get()
}

/// All of them. Dropped, they end, and what they serve with them.
pub(super) struct Threads {
    crew: Crew,
    _ends: Vec<oneshot::Sender<()>>,
}

/// A hand on them that does not keep them.
#[derive(Clone)]
pub(super) struct Crew(Arc<[Thread]>);

struct Thread {
    runtime: Handle,
    /// Places that are taken.
    connections: AtomicU32,
}

impl Threads {
    /// # Errors
    /// If the system has no more threads or descriptors.
    pub(super) fn start(count: usize) -> io::Result<Self> {
        let (mut all, mut ends) = (Vec::new(), Vec::new());
        for number in 0..count {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            all.push(Thread { runtime: runtime.handle().clone(), connections: AtomicU32::new(0) });
            let (end, ended) = oneshot::channel::<()>();
            ends.push(end);
            std::thread::Builder::new().name(format!("serve-{number}")).spawn(move || {
                NUMBER.set(number);
                // Nothing is ever sent: it ends when the sender is gone. What is still served ends with the runtime, here.
                let _ = runtime.block_on(ended);
            })?;
        }
        Ok(Self { crew: Crew(all.into()), _ends: ends })
    }

    pub(super) fn crew(&self) -> Crew {
        self.crew.clone()
    }
}

impl Crew {
    /// A place for a connection, where the fewest are.
    pub(super) fn place(&self) -> Place {
        let threads = self.0.iter().enumerate();
        let fewest = threads.min_by_key(|(_, thread)| thread.connections.load(Ordering::Relaxed));
        let number = fewest.map_or(0, |(number, _)| number);
        if let Some(thread) = self.0.get(number) {
            thread.connections.fetch_add(1, Ordering::Relaxed);
        }
        Place { crew: self.clone(), number }
    }
}

/// A connection's place at a thread; free again when it is dropped.
pub(super) struct Place {
    crew: Crew,
    number: usize,
}

impl Place {
    /// Where its tasks are to run.
    pub(super) fn runtime(&self) -> Option<Handle> {
        self.crew.0.get(self.number).map(|thread| thread.runtime.clone())
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Place").field(&self.number).finish()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(thread) = self.crew.0.get(self.number) {
            thread.connections.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_go_where_the_fewest_are_and_stay_there() {
        let threads = Threads::start(2).expect("threads");
        let crew = threads.crew();
        let mut places: Vec<Place> = (0..5).map(|_| crew.place()).collect();
        let numbers = |places: &[Place]| places.iter().map(|place| place.number).collect::<Vec<_>>();
        assert_eq!(numbers(&places), [0, 1, 0, 1, 0]);
        places.retain(|place| place.number == 1);
        places.extend((0..3).map(|_| crew.place()));
        assert_eq!(numbers(&places), [1, 1, 0, 0, 0]);
        for place in places {
            let (tell, told) = oneshot::channel();
            place.runtime().expect("a runtime").spawn(async move { tell.send(number()) });
            assert_eq!(told.blocking_recv(), Ok(place.number));
        }
        assert_eq!(number(), usize::MAX);
    }

    #[test]
    fn what_is_served_ends_with_them() {
        let threads = Threads::start(1).expect("threads");
        let (tell, told) = oneshot::channel::<()>();
        let task = async move {
            let _held = tell;
            std::future::pending::<()>().await;
        };
        threads.crew().place().runtime().expect("a runtime").spawn(task);
        drop(threads);
        assert!(told.blocking_recv().is_err());
    }
}
