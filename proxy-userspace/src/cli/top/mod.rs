//! `tollgate top`: a full-screen view of what happens now.
//!
//! ```text
//! top ── app (what is shown, what keys do) ── series (rates, plots)
//!   ├─── screen (draws it)
//!   └─── bans (lists, bans, unbans)
//! ```

mod app;
mod bans;
mod screen;
mod series;
#[cfg(test)]
mod tests;

use std::io::{IsTerminal, stdin};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{Event, poll, read};

use self::app::{Action, App};
use self::bans::Bans;
use super::table::is_terminal;
use super::{Failure, Global, Outcome, require_root, signals};
use crate::dataplane::DataplaneError;
use crate::observe::feed::{Feed, FeedError};
use crate::observe::stats;

/// How often counters and bans are read.
const READING: Duration = Duration::from_secs(1);
/// How long one wait for a key is.
const TICK: Duration = Duration::from_millis(100);
/// Events that are taken between two looks at the keys.
const EVENTS: usize = 20_000;

/// Watch the firewall on a full screen: rates by reason and rule, who is dropped, who is limited, who is banned
///
/// Rates are those of the counters, and exact. Sources come from a sample of what is dropped (see `tollgate monitor`), in
/// memory that no flood of invented addresses makes grow: whoever sends more than a 256th of it is there. Keys ban the chosen
/// source for 10 minutes, and end bans. A daemon is not needed; what is enforced does not depend on this view.
#[derive(Debug, clap::Args)]
#[command(after_help = "Keys: tab and arrows choose, b bans, u unbans, p pauses, ? explains, q ends")]
pub struct Args {}

pub fn run(global: &Global, _: &Args) -> Outcome {
    require_root("tollgate top")?;
    if !is_terminal() || !stdin().is_terminal() {
        return Err(Failure::Refused(
            "tollgate top draws on a terminal, and this is none; `tollgate stats --watch` and `tollgate monitor` print"
                .to_owned(),
        ));
    }
    signals::hold()?;
    let mut top = Top::new(global);
    // What is wrong from the beginning is said where it can be read.
    top.look()?;
    // It puts the terminal back on a panic, too.
    let mut terminal = ratatui::try_init().context("taking over the terminal")?;
    let outcome = top.watch(&mut terminal);
    ratatui::restore();
    outcome
}

/// The view and what feeds it.
struct Top {
    global: Global,
    app: App,
    bans: Bans,
    feed: Option<Feed>,
    begin: Instant,
    read: Instant,
    /// Why there are no events.
    trouble: Option<String>,
}

impl Top {
    fn new(global: &Global) -> Self {
        let now = Instant::now();
        Self {
            global: global.clone(),
            app: App::default(),
            bans: Bans::new(global.clone()),
            feed: None,
            begin: now,
            read: now,
            trouble: None,
        }
    }

    /// Goes on until it is told to end.
    fn watch(&mut self, terminal: &mut DefaultTerminal) -> Outcome {
        loop {
            self.listen();
            let outcome = self.bans.outcome();
            if self.read.elapsed() >= READING || outcome.is_some() {
                // While enforcement ends or begins, something may not be there: the next look will tell.
                if let Err(error) = self.look() {
                    self.app.message = error.to_string();
                }
            }
            if let Some(outcome) = outcome {
                self.app.message = outcome;
            }
            terminal.draw(|frame| screen::draw(frame, &self.app)).context("drawing")?;
            if signals::is_asked() || self.keys()? {
                return Ok(());
            }
        }
    }

    /// Waits for keys, and does what they say; true if that is to end.
    fn keys(&mut self) -> Result<bool> {
        let mut wait = TICK;
        while poll(wait).context("waiting for a key")? {
            wait = Duration::ZERO;
            let Event::Key(key) = read().context("reading a key")? else { continue };
            match self.app.press(key) {
                Some(Action::Quit) => return Ok(true),
                Some(Action::Ban(source)) => self.bans.ban(source),
                Some(Action::Unban(source)) => self.bans.unban(source),
                None => {}
            }
        }
        Ok(false)
    }

    /// Reads counters and bans.
    fn look(&mut self) -> Result<(), DataplaneError> {
        self.read = Instant::now();
        let pins = self.global.pins();
        self.app.note_counters(&stats::read(&pins)?, self.begin.elapsed());
        self.app.note_bans(self.bans.list()?);
        Ok(())
    }

    /// Takes the events that have come. Somebody else may have them: then the rest of the view goes on without.
    fn listen(&mut self) {
        let trouble = self.take_events().err().map(|error| format!("no sources: {error}"));
        if trouble != self.trouble {
            self.app.message = trouble.clone().unwrap_or_default();
            self.trouble = trouble;
        }
    }

    fn take_events(&mut self) -> Result<(), FeedError> {
        if self.feed.is_none() {
            self.feed = Some(Feed::open(&self.global.pins(), &self.global.run_dir, "tollgate top")?);
        }
        let Some(feed) = &mut self.feed else { return Ok(()) };
        feed.keep()?;
        for _ in 0..EVENTS {
            let Some((_, drop)) = feed.next() else { break };
            self.app.note_drop(&drop);
        }
        Ok(())
    }
}
