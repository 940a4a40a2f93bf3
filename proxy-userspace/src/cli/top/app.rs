//! What `top` shows, and what a key does to it. Pure: readings, events and keys come in, actions go out.

use std::time::Duration;

use ipnet::IpNet;
use proxy_common::abi::reason::{Reason, Verdict};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::series::Board;
use crate::observe::drops::Dropped;
use crate::observe::heavy::{Entry, Heavy};
use crate::observe::stats::{Counters, Stats};
use crate::policy::units::Target;

/// Sources that are kept of each kind: who sends more than a 256th of what is dropped is among them.
const SOURCES: usize = 256;

/// A part of the screen that can be gone to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pane {
    /// Rates by reason.
    Reasons,
    /// Rates by rule.
    Rules,
    /// Sources whose packets were dropped, but for limits.
    Dropped,
    /// Sources over a limit.
    Limited,
    /// Bans.
    Bans,
}

/// In the order of the tab key.
pub const PANES: [Pane; 5] = [Pane::Reasons, Pane::Rules, Pane::Dropped, Pane::Limited, Pane::Bans];

/// What keys mean now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Going about.
    View,
    /// The keys are explained.
    Help,
    /// Is this source to be banned?
    Confirm(IpNet),
}

/// What somebody else has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End.
    Quit,
    /// Ban a source.
    Ban(IpNet),
    /// End its ban.
    Unban(IpNet),
}

/// A ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Banned {
    /// Who.
    pub source: IpNet,
    /// How long yet; `None`: for ever.
    pub left: Option<Duration>,
}

/// A rule's rates.
pub struct RuleRow<'a> {
    /// Its name.
    pub name: &'a str,
    /// Packets that passed, a second.
    pub passed: f64,
    /// Packets that were dropped, a second.
    pub dropped: f64,
    /// Those as a plot.
    pub plot: String,
}

/// Everything on the screen.
#[derive(Debug)]
pub struct App {
    /// Interfaces that are enforced.
    pub interfaces: Vec<String>,
    /// Rates by reason.
    pub reasons: Board<&'static str>,
    rules: Board<(String, bool)>,
    all: Board<bool>,
    dropped: Heavy<IpNet, Reason>,
    limited: Heavy<IpNet, Reason>,
    /// Bans, those that end first first.
    pub bans: Vec<Banned>,
    /// Where the keys go.
    pub focus: Pane,
    selected: [usize; PANES.len()],
    /// What they mean.
    pub mode: Mode,
    /// True if nothing changes.
    pub paused: bool,
    /// What is to be known: of the last action, or of what does not work.
    pub message: String,
    read: Option<Duration>,
}

impl Default for App {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            reasons: Board::default(),
            rules: Board::default(),
            all: Board::default(),
            dropped: Heavy::new(SOURCES),
            limited: Heavy::new(SOURCES),
            bans: Vec::new(),
            focus: Pane::Dropped,
            selected: [0; PANES.len()],
            mode: Mode::View,
            paused: false,
            message: String::new(),
            read: None,
        }
    }
}

impl App {
    /// A reading of the counters, at a time since some beginning.
    pub fn note_counters(&mut self, stats: &Stats, now: Duration) {
        if self.paused {
            return;
        }
        let since = self.read.map(|read| now.saturating_sub(read));
        self.read = Some(now);
        self.interfaces = stats.interfaces.iter().map(|one| one.name.clone()).collect();
        let Counters { reasons, rules, .. } = &stats.all;
        let is_drop = |verdict: &str| verdict == "drop";
        let counted = reasons.iter().filter(|one| one.total.packets > 0);
        self.reasons.note(counted.map(|one| (one.name, one.total.packets)), since);
        let sum = |drop: bool, of: &[crate::observe::stats::ReasonStats]| {
            let chosen = of.iter().filter(|one| is_drop(one.verdict) == drop);
            chosen.map(|one| one.total.packets).sum::<u64>()
        };
        let active = rules.iter().filter(|rule| rule.active);
        let both = active.flat_map(|rule| {
            [false, true].map(|drop| ((rule.name.clone(), drop), sum(drop, &rule.outcomes)))
        });
        self.rules.note(both, since);
        let sides = [(false, "pass"), (true, "drop")];
        self.all.note(sides.map(|(drop, verdict)| (drop, stats.all.sum(verdict).packets)), since);
    }

    /// A dropped packet, and those that it stands for.
    pub fn note_drop(&mut self, drop: &Dropped) {
        let (false, Some(source)) = (self.paused, drop.source) else { return };
        // What a service audits is told of, and passes.
        if drop.reason.is_audit() {
            return;
        }
        let sources = if is_limit(drop.reason) { &mut self.limited } else { &mut self.dropped };
        sources.add(Target::accountable(source), drop.weight(), drop.reason);
    }

    /// The bans there are.
    pub fn note_bans(&mut self, mut bans: Vec<Banned>) {
        if self.paused {
            return;
        }
        bans.sort_unstable_by_key(|ban| (ban.left.is_none(), ban.left, ban.source));
        self.bans = bans;
    }

    /// Packets a second, of all interfaces: those that passed, or those that were dropped.
    pub fn rate(&self, dropped: bool) -> f64 {
        self.all.of(&dropped).map_or(0.0, |series| series.rate)
    }

    /// Rules, those that drop most first.
    pub fn rules(&self, plot: usize) -> Vec<RuleRow<'_>> {
        let drops = self.rules.fastest().into_iter().filter(|((_, drop), _)| *drop);
        let rows = drops.map(|((name, _), series)| RuleRow {
            name,
            passed: self.rules.of(&(name.clone(), false)).map_or(0.0, |passed| passed.rate),
            dropped: series.rate,
            plot: series.plot(plot),
        });
        rows.collect()
    }

    /// Sources of a pane, the heaviest first.
    pub fn sources(&self, pane: Pane) -> Vec<Entry<IpNet, Reason>> {
        match pane {
            Pane::Dropped => self.dropped.heaviest(),
            Pane::Limited => self.limited.heaviest(),
            Pane::Reasons | Pane::Rules | Pane::Bans => Vec::new(),
        }
    }

    fn rows(&self, pane: Pane) -> usize {
        match pane {
            Pane::Reasons => self.reasons.fastest().len(),
            Pane::Rules => self.rules(0).len(),
            Pane::Dropped | Pane::Limited => self.sources(pane).len(),
            Pane::Bans => self.bans.len(),
        }
    }

    /// The chosen row of a pane, if it has any.
    pub fn selected(&self, pane: Pane) -> Option<usize> {
        let rows = self.rows(pane);
        let at = self.selected.get(pane as usize).copied().unwrap_or_default();
        rows.checked_sub(1).map(|last| at.min(last))
    }

    /// The source in the chosen row of the pane that has the keys.
    fn chosen(&self) -> Option<IpNet> {
        let at = self.selected(self.focus)?;
        match self.focus {
            Pane::Bans => self.bans.get(at).map(|ban| ban.source),
            pane => self.sources(pane).get(at).map(|entry| entry.key),
        }
    }

    /// What a key does.
    pub fn press(&mut self, key: KeyEvent) -> Option<Action> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Some(Action::Quit);
        }
        match self.mode {
            Mode::Help => self.mode = Mode::View,
            Mode::Confirm(source) => {
                self.mode = Mode::View;
                return matches!(key.code, KeyCode::Char('y' | 'Y')).then_some(Action::Ban(source));
            }
            Mode::View => return self.go(key.code),
        }
        None
    }

    fn go(&mut self, key: KeyCode) -> Option<Action> {
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return Some(Action::Quit),
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('p') => self.paused = !self.paused,
            KeyCode::Char('c') => {
                self.dropped.clear();
                self.limited.clear();
            }
            KeyCode::Tab | KeyCode::Right => self.turn(1),
            KeyCode::BackTab | KeyCode::Left => self.turn(PANES.len() - 1),
            KeyCode::Up | KeyCode::Char('k') => self.step(|at, _| at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.step(|at, last| (at + 1).min(last)),
            KeyCode::Home => self.step(|_, _| 0),
            KeyCode::End => self.step(|_, last| last),
            KeyCode::Char('b') => match self.chosen() {
                Some(source) => self.mode = Mode::Confirm(source),
                None => self.message = "choose a source first: tab, then up and down".to_owned(),
            },
            KeyCode::Char('u') => match self.chosen() {
                Some(source) => return Some(Action::Unban(source)),
                None => self.message = "choose a ban first: tab, then up and down".to_owned(),
            },
            _ => {}
        }
        None
    }

    fn turn(&mut self, by: usize) {
        self.focus = PANES[(self.focus as usize + by) % PANES.len()];
    }

    fn step(&mut self, to: impl FnOnce(usize, usize) -> usize) {
        let last = self.rows(self.focus).saturating_sub(1);
        let at = self.selected(self.focus).unwrap_or_default();
        if let Some(selected) = self.selected.get_mut(self.focus as usize) {
            *selected = to(at, last);
        }
    }
}

/// True if a limit was exceeded.
const fn is_limit(reason: Reason) -> bool {
    reason.is_over_limit() || matches!(reason, Reason::PingOverLimit)
}

/// True if packets with a reason of this name are dropped.
pub fn drops(name: &str) -> bool {
    Reason::ALL.iter().any(|reason| reason.name() == name && reason.verdict() == Verdict::Drop)
}
