//! What systemd is told, if it has started us (`Type=notify`, `WatchdogSec=`): ready, reloading, ending, alive. Called by the
//! daemon; without systemd nothing here does anything.

use std::time::Duration;

use sd_notify::NotifyState;

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

/// Errors of a policy have several lines; the protocol has one.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        log::warn!("systemd could not be told: {error}");
    }
}
