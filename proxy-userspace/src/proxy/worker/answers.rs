//! What the daemon is told: sent by a thread of its own, so that a daemon that does not read holds up nobody's request. Used by
//! [`super`].

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::proxy::link::{self, FromWorker};
use crate::proxy::serve::Ban;

/// Offenders of whom the daemon is still to be told. Beyond it the next offence tells.
const OFFENDERS: usize = 64;

/// Tells the daemon.
pub(super) struct Answers {
    /// As long as the daemon's questions, of which there is one at a time, and offenders.
    tell: Sender<FromWorker>,
    offenders: Arc<AtomicUsize>,
}

impl Answers {
    /// Starts the thread; it ends with the link.
    ///
    /// # Errors
    /// If the system has no more threads.
    pub(super) fn start(link: UnixStream) -> io::Result<Self> {
        let (tell, told) = channel();
        let offenders = Arc::<AtomicUsize>::default();
        let waiting = Arc::clone(&offenders);
        std::thread::Builder::new()
            .name("proxy-link".to_owned())
            .spawn(move || send(&link, &told, &waiting))?;
        Ok(Self { tell, offenders })
    }

    /// Answers a question.
    pub(super) fn tell(&self, answer: FromWorker) {
        // Nobody is there to be told: a daemon that is gone closes the link, and that ends this process.
        let _ = self.tell.send(answer);
    }

    /// Tells of an offender, unless many wait already.
    pub(super) fn offence(&self, ban: Ban) {
        let claimed = self.offenders.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
            (waiting < OFFENDERS).then_some(waiting + 1)
        });
        if claimed.is_ok() {
            self.tell(FromWorker::Ban(ban));
        }
    }
}

fn send(link: &UnixStream, told: &Receiver<FromWorker>, offenders: &AtomicUsize) {
    for message in told {
        let is_ban = matches!(message, FromWorker::Ban(_));
        if let Err(error) = link::send(link, &message, &[]) {
            log::debug!("the daemon can't be told: {error}");
        }
        if is_ban {
            offenders.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proxy::link::MOST_FROM_WORKER;

    #[test]
    fn a_daemon_that_does_not_read_holds_up_nobody_and_hears_of_some_offenders_later() {
        let (here, there) = UnixStream::pair().expect("a pair of sockets");
        let answers = Answers::start(here).expect("a thread");
        let ban = |ms| Ban { address: [192, 0, 2, 1].into(), ms, why: "x".repeat(10_000) };
        // Far more than a socket takes that nobody reads.
        (0..2_000).for_each(|ms| answers.offence(ban(ms)));
        answers.tell(FromWorker::Serving);
        there.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let mut bans = 0;
        loop {
            let (message, _) = link::receive::<FromWorker>(&there, MOST_FROM_WORKER, false)
                .expect("read")
                .expect("a message");
            match message {
                FromWorker::Ban(_) => bans += 1,
                FromWorker::Serving => break,
                other => panic!("{other:?}"),
            }
        }
        assert!((1..1_000).contains(&bans), "told of {bans}");
        // There is room again.
        answers.offence(ban(7));
        let message = link::receive::<FromWorker>(&there, MOST_FROM_WORKER, false).expect("read");
        assert!(matches!(message, Some((FromWorker::Ban(ban), _)) if ban.ms == 7));
    }
}
