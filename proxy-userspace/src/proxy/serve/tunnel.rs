//! A WebSocket after its handshake (RFC 6455): bytes both ways until one side ends, nothing moves for too long, or the listener
//! is gone. Started by [`super::exchange`]; holds the client's seat, so that limits and a drain count it.

use std::io;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::time::{Instant, sleep_until};

use super::accept::Phase;
use super::exchange::Entry;
use super::upstream::Lease;

/// Passes bytes between the two, once both have switched.
pub(super) async fn run(mut entry: Box<Entry>, client: OnUpgrade, upstream: OnUpgrade, lease: Option<Lease>) {
    let mut phases = entry.connection.phases.clone();
    let ended = async move { phases.wait_for(|phase| *phase == Phase::Ended).await.map(|_| ()) };
    entry.connection.shared.counts.tunnel_begins();
    let (progress, patience) = (entry.connection.progress.clone(), entry.tunnel_patience());
    let idle = async {
        loop {
            let until = progress.moved() + patience;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    };
    let outcome = tokio::select! {
        outcome = pass(client, upstream) => outcome,
        () = idle => Err("nothing moved for too long".to_owned()),
        _ = ended => Err("the listener has ended".to_owned()),
    };
    match outcome {
        Ok((received, sent)) => (entry.received, entry.sent) = (received, sent),
        Err(why) => log::debug!("{}: tunnel: {why}", entry.client.peer),
    }
    // However it ended: neither side is owed anything more.
    entry.complete = true;
    entry.connection.shared.counts.tunnel_ends();
    drop(lease);
}

async fn pass(client: OnUpgrade, upstream: OnUpgrade) -> Result<(u64, u64), String> {
    let (client, upstream) = tokio::try_join!(client, upstream).map_err(|error| error.to_string())?;
    let (mut client, mut upstream) = (TokioIo::new(client), TokioIo::new(upstream));
    copy_bidirectional(&mut client, &mut upstream).await.map_err(|error: io::Error| error.to_string())
}
