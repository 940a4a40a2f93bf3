//! The access log: lines are made where requests are served, and written by a thread of their own, so that a file system that is slow
//! or full holds up nobody's request. What it can't take in time is left out, and counted.
//!
//! Used by [`super`]: [`Lines::line`] by all threads that serve, the rest by what the daemon says.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::proxy::decide::log::line;
use crate::proxy::plan::LogFormat;
use crate::proxy::serve::Record;

/// Bytes of lines that are worth a write.
const ENOUGH: usize = 64 << 10;
/// A line waits so long for others at most.
const DELAY: Duration = Duration::from_millis(200);
/// Between two words of what is not in it.
const TELL: Duration = Duration::from_secs(60);
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
    /// How often the writer has looked.
    #[cfg(test)]
    turns: u32,
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
    pub(super) fn start() -> io::Result<Self> {
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
    let (mut lines, mut is_broken, mut losses) = (Vec::new(), false, Losses::default());
    loop {
        let waiting = common.lock();
        let idle = |waiting: &mut Waiting| {
            // Without a file there is nothing to do, however much waits.
            (waiting.lines.len() < ENOUGH || waiting.file.is_none()) && !waiting.ended
        };
        let waited = common.more.wait_timeout_while(waiting, DELAY, idle);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let ended = waiting.ended;
        #[cfg(test)]
        {
            waiting.turns += 1;
        }
        let file = match common.format() {
            Some(_) => waiting.file.clone(),
            // The last lines, before it is let go.
            None => waiting.file.take(),
        };
        // Before there is a file, lines wait for it, if a log is wanted.
        if file.is_some() || common.format().is_none() {
            std::mem::swap(&mut lines, &mut waiting.lines);
            losses.lines += std::mem::take(&mut waiting.lost);
        }
        drop(waiting);
        if let Some(file) = file.filter(|_| !lines.is_empty()) {
            match write_all(&file, &lines, &mut is_broken) {
                Ok(()) => losses.why = None,
                Err((error, lost)) => {
                    losses.lines += lost;
                    losses.why = Some(error);
                }
            }
        }
        losses.tell(ended);
        lines.clear();
        lines.shrink_to(2 * ENOUGH);
        if ended {
            return;
        }
    }
}

/// Lines that are not in the log, and not told of yet.
#[derive(Default)]
struct Losses {
    lines: u64,
    /// What the file system says, if it says anything.
    why: Option<io::Error>,
    told: Option<Instant>,
}

impl Losses {
    /// Says how many there are: at once, then once a minute, and when it is over.
    fn tell(&mut self, ended: bool) {
        if self.lines == 0 || (!ended && self.told.is_some_and(|told| told.elapsed() < TELL)) {
            return;
        }
        let why = match &self.why {
            Some(error) => error.to_string(),
            None => "the file system was too slow or full".to_owned(),
        };
        log::error!("{} lines are not in the access log: {why}", self.lines);
        self.lines = 0;
        self.told = Some(Instant::now());
    }
}

/// Writes whole lines, in one write where the file takes them: another worker may be writing its last ones to the same file. After an
/// attempt that ended in the middle of a line, which `is_broken` says, the next begins a new one.
///
/// # Errors
/// With the number of lines that were not written, or not to their end.
fn write_all(mut file: &File, lines: &[u8], is_broken: &mut bool) -> Result<(), (io::Error, u64)> {
    let mut rest = lines;
    let mut outcome = Ok(());
    if *is_broken {
        outcome = file.write_all(b"\n");
        *is_broken = outcome.is_err();
    }
    while outcome.is_ok() && !rest.is_empty() {
        match file.write(rest) {
            Ok(0) => outcome = Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                *is_broken = rest.get(..written).is_some_and(|part| !part.ends_with(b"\n"));
                rest = rest.get(written..).unwrap_or_default();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => outcome = Err(error),
        }
    }
    let lost = rest.iter().filter(|byte| **byte == b'\n').count() as u64;
    outcome.map_err(|error| (error, lost))
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

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
    fn what_a_full_file_system_does_not_take_is_counted_and_the_next_line_is_whole() {
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let mut is_broken = false;
        let (error, lost) = write_all(&full, b"one\ntwo\nthree\n", &mut is_broken).expect_err("full");
        assert!(error.kind() == io::ErrorKind::StorageFull && lost == 3 && !is_broken, "{error} {lost}");
        let path = tempfile::NamedTempFile::new().expect("a file");
        is_broken = true;
        write_all(path.as_file(), b"four\n", &mut is_broken).expect("written");
        assert!(!is_broken);
        assert_eq!(std::fs::read_to_string(path.path()).expect("read"), "\nfour\n");
        // In the middle of a line: a socket that takes some, and whose other end goes then.
        let (file, reader) = slow_file();
        let long = vec![b'x'; 8 << 20];
        let reading = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(reader);
        });
        let (_, lost) =
            write_all(&file, &[&long[..], b"\nlast\n"].concat(), &mut is_broken).expect_err("gone");
        reading.join().expect("no panic");
        assert!(lost == 2 && is_broken);
    }

    #[test]
    fn many_lines_without_a_file_cost_nothing_and_go_when_no_log_is_wanted() {
        let log = AccessLog::start().expect("a thread");
        log.write_as(Some(LogFormat::Combined));
        let (client, lines) = (client(), log.lines());
        (0..10_000).for_each(|_| lines.line(&record(&client)));
        std::thread::sleep(3 * DELAY);
        assert!(log.common.lock().turns < 20, "{} turns", log.common.lock().turns);
        log.write_as(None);
        let until = Instant::now() + Duration::from_secs(30);
        while !log.common.lock().lines.is_empty() {
            assert!(Instant::now() < until, "lines of a log that nobody wants stay");
            std::thread::sleep(DELAY / 4);
        }
        log.end();
    }

    #[test]
    fn losses_are_told_at_once_and_then_together() {
        let mut losses = Losses { lines: 3, ..Losses::default() };
        losses.tell(false);
        assert_eq!(losses.lines, 0);
        losses.lines += 2;
        losses.tell(false);
        assert_eq!(losses.lines, 2);
        losses.told = Instant::now().checked_sub(TELL);
        losses.tell(false);
        assert_eq!(losses.lines, 0);
        losses.lines += 1;
        losses.tell(true);
        assert_eq!(losses.lines, 0);
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
