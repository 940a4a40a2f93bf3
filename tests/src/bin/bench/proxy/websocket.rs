//! WebSockets that stay open through reloads: a server that echoes, and clients that notice when an echo does not come. Used by
//! `stage.rs` and `reloads.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;

use super::client::{NAME, tls};

/// For an echo.
const PATIENCE: Duration = Duration::from_secs(20);
/// The key of RFC 6455 1.3, and what answers it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// A text of five letters, masked with zeros; what echoes is no WebSocket library and sends back the very bytes.
const MESSAGE: &[u8] = b"\x81\x85\0\0\0\0hello";

/// Accepts each upgrade and sends back whatever follows.
pub async fn serve(port: u16) -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream));
        }
    });
    Ok(())
}

async fn echo(mut stream: TcpStream) -> Result<()> {
    head(&mut stream).await?;
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n"
    );
    stream.write_all(answer.as_bytes()).await?;
    let (mut reader, mut writer) = stream.split();
    tokio::io::copy(&mut reader, &mut writer).await?;
    Ok(())
}

/// Reads a head to its empty line and not beyond.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Result<String> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        ensure!(bytes.len() < 16 << 10, "no end of a head");
        bytes.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A WebSocket through a proxy.
pub struct Socket(TlsStream<TcpStream>);

impl Socket {
    /// Connects and upgrades.
    pub async fn open(to: SocketAddr, config: &Arc<ClientConfig>) -> Result<Self> {
        let mut stream = tls(to, config).await?;
        let request = format!(
            "GET /ws HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: {KEY}\r\n\
             Sec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let answer = timeout(PATIENCE, head(&mut stream)).await.context("no answer to an upgrade")??;
        ensure!(answer.starts_with("HTTP/1.1 101 "), "an upgrade was answered by {answer}");
        Ok(Self(stream))
    }

    /// Whether what is sent comes back.
    pub async fn works(&mut self) -> bool {
        let mut back = [0; MESSAGE.len()];
        let said = async {
            self.0.write_all(MESSAGE).await?;
            self.0.read_exact(&mut back).await
        };
        matches!(timeout(PATIENCE, said).await, Ok(Ok(_))) && back == *MESSAGE
    }
}
