//! The daemon's end of the control socket: who may say what, bounded in size, in time and in number, so that no client can
//! stall the daemon or keep others from it.
//!
//! ```text
//! accept ── peer: who is it ── seats: is there room ── one line in ── desk (questions) or daemon (changes) ── one line out
//! ```

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Gid, Group};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::answer::Desk;
use super::daemon::Daemon;
use super::peer::{Peer, Role};
use super::protocol::{MOST_ANSWER, MOST_BYTES, MOST_QUESTION, Request, Response, VERSION};
use super::seats::Seats;

/// How long a client may take to say what it wants, or to read the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The socket of a run directory.
pub fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("control.sock")
}

/// Makes the socket, for root and for the members of `readers`. The caller holds the daemon's lock, so one that exists belongs
/// to nobody.
///
/// # Errors
/// If it can't be made.
pub fn listen(run_dir: &Path, readers: Option<Gid>) -> io::Result<UnixListener> {
    if let Some(group) = readers {
        super::peer::let_through(run_dir, group)?;
    }
    super::socket::listen_at(&socket(run_dir), readers)
}

/// Serves clients until the daemon ends.
pub async fn serve(listener: UnixListener, daemon: Arc<Daemon>, readers: Option<Gid>) {
    let door = Arc::new(Door { desk: Desk::new(Arc::clone(&daemon)), daemon, readers });
    let seats = Seats::default();
    loop {
        let accepted = match listener.accept().await {
            Ok((stream, _)) => Peer::of(stream.as_fd()).map(|peer| (stream, peer)),
            Err(error) => {
                // Out of descriptors, most likely: clients that leave give theirs back.
                tokio::time::sleep(Duration::from_millis(100)).await;
                Err(error)
            }
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                log::warn!("control socket: {error}");
                continue;
            }
        };
        let role = peer.role(readers);
        match seats.take(peer.uid, role) {
            Some(seat) => {
                let door = Arc::clone(&door);
                tokio::spawn(async move {
                    if let Err(error) = door.attend(stream, role).await {
                        log::debug!("control socket: {error}");
                    }
                    drop(seat);
                });
            }
            None => turn_away(&stream, &peer, role),
        }
    }
}

/// Says why nobody listens, without waiting: one short line fits into any fresh socket.
fn turn_away(stream: &UnixStream, peer: &Peer, role: Role) {
    let why = match role {
        Role::Stranger => format!("user {} may not command this firewall, nor ask it", peer.uid),
        Role::Reader | Role::Commander => {
            format!("too many connections at once, of user {} or of all: try again", peer.uid)
        }
    };
    if let Ok(line) = line(&Response::Refused(why)) {
        // Who has gone away meanwhile does not miss it.
        let _ = stream.try_write(&line);
    }
}

/// What a connection needs.
struct Door {
    desk: Desk,
    daemon: Arc<Daemon>,
    readers: Option<Gid>,
}

impl Door {
    async fn attend(&self, stream: UnixStream, role: Role) -> io::Result<()> {
        let (reading, mut writing) = stream.into_split();
        let most = if role == Role::Commander { MOST_BYTES } else { MOST_QUESTION };
        let response = match timeout(PATIENCE, request(reading, most)).await {
            Ok(request) => match request? {
                Ok(request) => self.handle(request, role).await,
                Err(why) => Response::BadInput(why),
            },
            Err(_) => Response::BadInput(format!("no whole request within {PATIENCE:?}")),
        };
        let mut answer = line(&response)?;
        if answer.len() as u64 > MOST_ANSWER {
            answer = line(&Response::Refused("the answer is too long for this socket".to_owned()))?;
        }
        timeout(PATIENCE, writing.write_all(&answer)).await?
    }

    async fn handle(&self, request: Request, role: Role) -> Response {
        if request.command.only_asks() {
            return self.desk.answer(request.command).await;
        }
        if role == Role::Commander {
            return self.daemon.handle(request.command).await;
        }
        let name =
            self.readers.and_then(|group| Group::from_gid(group).ok().flatten()).map(|group| group.name);
        let name = name.unwrap_or_else(|| self.readers.map_or_else(String::new, |group| group.to_string()));
        Response::Refused(format!(
            "members of the group {name} may ask this firewall, and change nothing: run it as root"
        ))
    }
}

/// Reads one request of at most so many bytes.
async fn request(reading: impl AsyncRead + Unpin, most: u64) -> io::Result<Result<Request, String>> {
    let mut line = Vec::new();
    BufReader::new(reading.take(most)).read_until(b'\n', &mut line).await?;
    if line.len() as u64 == most && !line.ends_with(b"\n") {
        return Ok(Err(format!("a request has at most {most} bytes")));
    }
    Ok(parse(&line))
}

fn line(response: &Response) -> serde_json::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(response)?;
    line.push(b'\n');
    Ok(line)
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
        for line in [&b""[..], b"{}", b"[]", b"\xff\xfe", b"{\"version\":2}", b"{\"version\":-1}"] {
            assert!(parse(line).is_err_and(|why| why.contains("not a request")), "{line:?}");
        }
        for version in [1, 3] {
            let line = format!(r#"{{"version":{version},"command":{{"dance":1}}}}"#);
            let why = parse(line.as_bytes()).expect_err("another version");
            assert!(why.contains(&format!("version {version} ")) && why.contains("version 2:"), "{why}");
        }
        assert!(parse(br#"{"version":2,"command":{"apply":{"file":"/x"}}}"#).is_ok());
        assert!(parse(br#"{"version":2,"command":"stats"}"#).is_ok());
    }

    #[tokio::test]
    async fn a_request_is_bounded() {
        let read = |bytes: Vec<u8>| async move { request(bytes.as_slice(), 64).await.expect("read") };
        assert!(read(br#"{"version":2,"command":"stats"}"#.to_vec()).await.is_ok());
        assert!(read(vec![b'{'; 63]).await.is_err_and(|why| why.contains("not a request")));
        assert!(read(vec![b'{'; 64]).await.is_err_and(|why| why.contains("at most 64 bytes")));
        assert!(read(vec![b'{'; 1 << 20]).await.is_err_and(|why| why.contains("at most 64 bytes")));
    }
}
