//! The daemon's end of the control socket: bounded in size, in time and in number, so that no client can stall it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::daemon::Daemon;
use super::protocol::{MOST_BYTES, Request, Response, VERSION};

/// Clients served at a time; others wait in the socket's queue.
const CLIENTS: usize = 16;
/// How long a client may take to say what it wants, or to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The socket of a run directory.
pub fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("control.sock")
}

/// Makes the socket. The caller holds the daemon's lock, so one that exists belongs to nobody.
///
/// # Errors
/// If it can't be made.
pub fn listen(run_dir: &Path) -> io::Result<UnixListener> {
    super::socket::listen_at(&socket(run_dir), None)
}

/// Serves clients until the daemon ends.
pub async fn serve(listener: UnixListener, daemon: Arc<Daemon>) {
    let seats = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(seat) = Arc::clone(&seats).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: clients that leave give theirs back.
                log::warn!("control socket: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let daemon = Arc::clone(&daemon);
        tokio::spawn(async move {
            if let Err(error) = attend(stream, daemon).await {
                log::debug!("control socket: {error}");
            }
            drop(seat);
        });
    }
}

async fn attend(stream: UnixStream, daemon: Arc<Daemon>) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let (reading, mut writing) = stream.into_split();
    let response = if peer == 0 || peer == nix::unistd::geteuid().as_raw() {
        let mut line = Vec::new();
        let mut reader = BufReader::new(reading.take(MOST_BYTES));
        timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await??;
        match parse(&line) {
            Ok(request) => daemon.handle(request.command).await,
            Err(why) => Response::BadInput(why),
        }
    } else {
        Response::Refused(format!("user {peer} may not command this firewall"))
    };
    let mut line = serde_json::to_vec(&response)?;
    line.push(b'\n');
    timeout(PATIENCE, writing.write_all(&line)).await?
}

/// Reads a request; whatever comes over the wire gives a request or a sentence.
///
/// # Errors
/// Why it is none.
pub fn parse(line: &[u8]) -> Result<Request, String> {
    // The version first: a newer client's request may not even parse.
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: u32,
    }
    let not_one = |error: serde_json::Error| format!("not a request of the control protocol: {error}");
    let Versioned { version } = serde_json::from_slice(line).map_err(not_one)?;
    if version != VERSION {
        return Err(format!(
            "the command speaks version {version} of the control protocol, the daemon version {VERSION}: use the same \
             tollgate for both"
        ));
    }
    serde_json::from_slice(line).map_err(not_one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_request_gets_a_sentence() {
        for line in [&b""[..], b"{}", b"[]", b"\xff\xfe", b"{\"version\":1}", b"{\"version\":-1}"] {
            assert!(parse(line).is_err_and(|why| why.contains("not a request")), "{line:?}");
        }
        assert!(parse(br#"{"version":2,"command":{"dance":1}}"#).is_err_and(|why| why.contains("version 2")));
        assert!(parse(br#"{"version":1,"command":{"apply":{"file":"/x"}}}"#).is_ok());
    }
}
