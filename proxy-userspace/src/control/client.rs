//! How a command reaches the daemon. Called by `apply` and `rollback`, and by reading commands
//! that are not root.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::protocol::{Command, MOST_ANSWER, Request, Response, VERSION};
use super::server::socket;

/// An apply verifies programs and fills tables: seconds, with a million prefixes.
const PATIENCE: Duration = Duration::from_secs(120);

/// Asks the daemon of a run directory, and waits for its answer.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` if no daemon listens there.
pub fn ask(run_dir: &Path, command: Command) -> io::Result<Response> {
    let mut stream = UnixStream::connect(socket(run_dir))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(&Request { version: VERSION, command })?;
    line.push(b'\n');
    // Who is turned away at the door finds the answer there before the question is out.
    let written = stream.write_all(&line);
    let mut answer = String::new();
    let read = BufReader::new(stream.take(MOST_ANSWER)).read_line(&mut answer);
    if answer.is_empty() {
        written?;
        read?;
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the daemon closed the connection without an answer",
        ));
    }
    Ok(serde_json::from_str(&answer)?)
}
