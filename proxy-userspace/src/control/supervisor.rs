//! What systemd is told, if it has started us (`Type=notify`, `WatchdogSec=`): ready, reloading, ending, alive. Called by the
//! daemon; without systemd nothing here does anything.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::time::Duration;

use sd_notify::NotifyState;

use crate::proxy::bind::Sockets;

/// A policy is enforced, or what was asked is done; with the line that `systemctl status` shows, if there is a new one.
pub(super) fn ready(status: Option<&str>) {
    let status = status.map(one_line);
    match &status {
        Some(status) => notify(&[NotifyState::Ready, NotifyState::Status(status)]),
        None => notify(&[NotifyState::Ready]),
    }
}

/// The line that `systemctl status` shows.
pub(super) fn status(status: &str) {
    notify(&[NotifyState::Status(&one_line(status))]);
}

/// A policy is read anew; [`ready`] follows, whatever comes of it. With the time, as `Type=notify-reload` wants it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => log::warn!("the clock can't be read for systemd: {error}"),
    }
}

/// The daemon ends.
pub(super) fn stopping() {
    notify(&[NotifyState::Stopping]);
}

/// The loop goes round.
pub(super) fn alive() {
    notify(&[NotifyState::Watchdog]);
}

/// How often the watchdog wants to hear of us, with a margin: four times in its period. `None` if there is no watchdog.
pub(super) fn watchdog() -> Option<Duration> {
    let mut period = 0;
    let enabled = sd_notify::watchdog_enabled(false, &mut period);
    enabled.then(|| Duration::from_micros((period / 4).max(1)))
}

/// Sockets that systemd has kept for us since a daemon before, or was told to bind (`LISTEN_FDS`, sd_listen_fds(3)).
pub(super) fn sockets() -> Sockets {
    match sd_notify::listen_fds() {
        Ok(fds) => {
            // SAFETY: systemd has opened these descriptors for this process, which has not looked at them before.
            let owned = fds.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
            Sockets::inherited(owned.collect())
        }
        Err(error) => {
            log::warn!("what systemd has kept can't be had: {error}");
            Sockets::default()
        }
    }
}

/// Has systemd keep sockets, for a daemon that comes after this one (`FileDescriptorStoreMax=`).
pub(super) fn store<'a>(sockets: impl Iterator<Item = (&'a SocketAddr, &'a TcpListener)>) {
    for (address, socket) in sockets {
        let name = name(address);
        let state = [NotifyState::FdStore, NotifyState::FdName(&name)];
        if let Err(error) = sd_notify::notify_with_fds(false, &state, &[socket.as_fd()]) {
            log::warn!("systemd could not be given the socket of {address}: {error}");
        }
    }
}

/// Has systemd close what it keeps.
pub(super) fn forget(addresses: &[SocketAddr]) {
    for address in addresses {
        notify(&[NotifyState::FdStoreRemove, NotifyState::FdName(&name(address))]);
    }
}

/// The name of a socket: systemd takes no colons.
fn name(address: &SocketAddr) -> String {
    format!("listener-{}", address.to_string().replace(':', "_"))
}

/// Errors of a policy have several lines; the protocol has one.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        log::warn!("systemd could not be told: {error}");
    }
}
