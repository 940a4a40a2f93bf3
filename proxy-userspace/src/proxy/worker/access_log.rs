//! The access log: lines are made where requests are served, and written by a thread of their own, so that a file system that is slow
//! or full holds up nobody's request. What it can't take in time is left out, and counted.
//!
//! Used by [`super`]: [`AccessLog::line`] by all threads that serve, the rest by what the daemon says.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::proxy::decide::log::line;
use crate::proxy::plan::LogFormat;
use crate::proxy::serve::Record;

/// Bytes of lines that are worth a write.
const ENOUGH: usize = 64 << 10;
/// A line waits so long for others at most.
const DELAY: Duration = Duration::from_millis(200);
/// Bytes of lines that wait for a slow file system, or for a file.
const MOST: usize = 4 << 20;

/// The formats, by the number that stands for each.
const FORMATS: [LogFormat; 2] = [LogFormat::Json, LogFormat::Combined];
/// No format.
const NONE: u8 = u8::MAX;

/// A log, and the thread that writes it.
pub(super) struct AccessLog {
    common: Arc<Common>,
    writer: JoinHandle<()>,
}

/// A hand on it for whoever has lines.
#[derive(Clone)]
pub(super) struct Lines(Arc<Common>);

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Common {
    /// A place in [`FORMATS`], or [`NONE`].
    format: AtomicU8,
    waiting: Mutex<Waiting>,
    /// There is enough to write, or something else to do.
    more: Condvar,
}

#[derive(Default)]
struct Waiting {
    file: Option<Arc<File>>,
    lines: Vec<u8>,
    /// Lines for which there was no room.
    lost: u64,
    ended: bool,
}

impl Common {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: no log is wanted.
    fn format(&self) -> Option<LogFormat> {
        FORMATS.get(usize::from(self.format.load(Ordering::Relaxed))).copied()
    }

    /// Adds a line; says whether there is enough to write now, and was not before.
    fn add(&self, line: &[u8]) -> bool {
        let mut waiting = self.lock();
        let before = waiting.lines.len();
        if before >= MOST {
            waiting.lost += 1;
            return false;
        }
        waiting.lines.extend_from_slice(line);
        before < ENOUGH && waiting.lines.len() >= ENOUGH
    }
}

impl AccessLog {
    /// Starts the thread. Nothing is logged yet.
    ///
    /// # Errors
    /// If the system has no more threads.
    pub(super) fn start() -> std::io::Result<Self> {
        let common =
            Arc::new(Common { format: AtomicU8::new(NONE), waiting: Mutex::default(), more: Condvar::new() });
        let writers = Arc::clone(&common);
        let writer =
            std::thread::Builder::new().name("access-log".to_owned()).spawn(move || write(&writers))?;
        Ok(Self { common, writer })
    }

    pub(super) fn lines(&self) -> Lines {
        Lines(Arc::clone(&self.common))
    }

    /// How lines look from now on; `None`: none are made.
    pub(super) fn write_as(&self, format: Option<LogFormat>) {
        let place = format.and_then(|format| FORMATS.iter().position(|one| *one == format));
        let place = place.and_then(|place| u8::try_from(place).ok()).unwrap_or(NONE);
        self.common.format.store(place, Ordering::Relaxed);
    }

    /// Where lines go from now on.
    pub(super) fn write_to(&self, file: File) {
        self.common.lock().file = Some(Arc::new(file));
    }

    /// Writes what is left.
    pub(super) fn end(self) {
        self.common.lock().ended = true;
        self.common.more.notify_one();
        if self.writer.join().is_err() {
            log::error!("the thread that writes the access log has panicked");
        }
    }
}

impl Lines {
    /// Adds a line. Never waits for a file.
    pub(super) fn line(&self, record: &Record<'_>) {
        let Some(format) = self.0.format() else { return };
        LINE.with_borrow_mut(|one| {
            // Made before the lock is taken: others have lines too.
            one.clear();
            line(format, record, one);
            if self.0.add(one) {
                self.0.more.notify_one();
            }
        });
    }
}

/// The thread's work, until the end.
fn write(common: &Common) {
    let (mut lines, mut failed) = (Vec::new(), false);
    loop {
        let waiting = common.lock();
        let idle = |waiting: &mut Waiting| waiting.lines.len() < ENOUGH && !waiting.ended;
        let waited = common.more.wait_timeout_while(waiting, DELAY, idle);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let ended = waiting.ended;
        let file = match common.format() {
            Some(_) => waiting.file.clone(),
            // The last lines, before it is let go.
            None => waiting.file.take(),
        };
        // Before there is a file, lines wait for it.
        let lost = if file.is_some() {
            std::mem::swap(&mut lines, &mut waiting.lines);
            std::mem::take(&mut waiting.lost)
        } else {
            0
        };
        drop(waiting);
        // Whole lines, in one write where the file takes them: another worker may be writing its last ones to the same file.
        if let Some(file) = file.filter(|_| !lines.is_empty()) {
            match (&*file).write_all(&lines) {
                Ok(()) => failed = false,
                Err(error) if !failed => {
                    // Once, not each time.
                    log::error!("the access log can't be written, lines are lost: {error}");
                    failed = true;
                }
                Err(_) => {}
            }
        }
        if lost > 0 {
            log::error!("the access log's file system was too slow: {lost} lines are not in it");
        }
        lines.clear();
        lines.shrink_to(2 * ENOUGH);
        if ended {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;
    use crate::proxy::decide::Client;

    fn client() -> Client {
        let address = "192.0.2.1:1".parse().expect("an address");
        Client { listener: "web".into(), peer: address, local: address, tls: None }
    }

    fn record(client: &Client) -> Record<'_> {
        Record {
            unix_ns: 0,
            client,
            zone: None,
            asked: None,
            status: 400,
            received: 0,
            sent: 0,
            duration_ns: 0,
            upstream_ns: None,
            route: None,
            upstream: None,
            reason: None,
        }
    }

    /// A file that takes no more than a pipe does, until somebody reads.
    fn slow_file() -> (File, UnixStream) {
        let (file, reader) = UnixStream::pair().expect("a pair of sockets");
        (File::from(std::os::fd::OwnedFd::from(file)), reader)
    }

    #[test]
    fn who_serves_does_not_wait_for_a_file_and_what_is_left_out_is_bounded() {
        let log = AccessLog::start().expect("a thread");
        let (file, mut reader) = slow_file();
        log.write_as(Some(LogFormat::Combined));
        log.write_to(file);
        let (client, lines) = (client(), log.lines());
        let mut one = Vec::new();
        line(LogFormat::Combined, &record(&client), &mut one);
        let count = 3 * MOST / one.len();
        let begun = Instant::now();
        for _ in 0..count {
            lines.line(&record(&client));
        }
        // Nobody has read: a write waits since long.
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        let (waiting, lost) = {
            let waiting = log.common.lock();
            (waiting.lines.len(), waiting.lost)
        };
        assert!(waiting < MOST + one.len() && lost > 0, "{waiting} bytes wait, {lost} lines were left out");
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        drop(lines);
        log.end();
        let all = reading.join().expect("no panic").expect("read");
        let written = all.chunks(one.len()).filter(|chunk| **chunk == one[..]).count();
        assert_eq!(written as u64 + lost, count as u64);
        assert_eq!(written * one.len(), all.len());
    }

    #[test]
    fn lines_wait_for_a_file_and_the_last_ones_are_written_when_no_log_is_wanted_any_more() {
        let log = AccessLog::start().expect("a thread");
        let (client, lines) = (client(), log.lines());
        lines.line(&record(&client));
        log.write_as(Some(LogFormat::Json));
        lines.line(&record(&client));
        std::thread::sleep(2 * DELAY);
        let (file, mut reader) = slow_file();
        log.write_to(file);
        log.write_as(None);
        lines.line(&record(&client));
        // Its end is that of the file: it was let go.
        let mut all = String::new();
        reader.read_to_string(&mut all).expect("read");
        assert_eq!(all.lines().count(), 1, "{all}");
        log.end();
    }
}
