//! Draws [`App`] on a terminal of any size. Called by `top`, and by its tests on a terminal in memory.

use std::time::Duration;

use ipnet::IpNet;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Table, TableState};

use super::app::{App, Banned, Mode, Pane, RuleRow, drops};
use crate::cli::table::grouped;

/// For how long a source is banned by a key.
pub const BAN_FOR: &str = "10m";
/// Columns of a plot.
const PLOT: u16 = 10;

const KEYS: [(&str, &str); 8] = [
    ("tab, ←, →", "go to the next or the previous part"),
    ("↑, ↓", "choose a row"),
    ("b", "ban the chosen source for 10 minutes, after a question"),
    ("u", "end the chosen ban, or that of the chosen source"),
    ("c", "forget the sources so far"),
    ("p", "pause: nothing changes; and go on"),
    ("?", "this"),
    ("q", "end; what is enforced goes on"),
];

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, app: &App) {
    let [title, rates, sources, bans, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Fill(2),
        Constraint::Fill(2),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let halves = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(2);
    let [by_reason, by_rule] = halves.areas(rates);
    let [dropped, limited] = halves.areas(sources);

    frame.render_widget(heading(app), title);
    reasons(frame, app, by_reason);
    rules(frame, app, by_rule);
    heavy(frame, app, Pane::Dropped, dropped);
    heavy(frame, app, Pane::Limited, limited);
    banned(frame, app, bans);
    frame.render_widget(footer(app), foot);
    if app.mode == Mode::Help {
        help(frame);
    }
}

fn heading(app: &App) -> Line<'static> {
    let place = match app.interfaces.as_slice() {
        [] => "nothing is enforced".to_owned(),
        some => some.join(", "),
    };
    let rate = |drop| format!("{}/s", whole(app.rate(drop)));
    let mut spans = vec![
        Span::from(format!("tollgate · {place} · ")).bold(),
        Span::from(format!("{} passed", rate(false))).fg(Color::Green),
        Span::from(" · "),
        Span::from(format!("{} dropped", rate(true))).fg(Color::Yellow),
    ];
    if app.paused {
        spans.push(Span::from(" · paused").bold().reversed());
    }
    Line::from(spans)
}

fn footer(app: &App) -> Line<'static> {
    match app.mode {
        Mode::Confirm(source) => {
            Line::from(format!("ban {} for {BAN_FOR}? y: yes, any other key: no", name(source)))
                .bold()
                .reversed()
        }
        Mode::View | Mode::Help if app.message.is_empty() => {
            Line::from("tab ↑ ↓ go   b ban   u unban   c clear   p pause   ? help   q end").dim()
        }
        Mode::View | Mode::Help => Line::from(app.message.clone()),
    }
}

fn reasons(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let rows = app.reasons.fastest().into_iter().map(|(name, series)| {
        let colour = if drops(name) { Color::Yellow } else { Color::Green };
        let cells =
            [Cell::from(*name), number(whole(series.rate)), Cell::from(series.plot(PLOT.into())).fg(colour)];
        Row::new(cells)
    });
    let widths = [Constraint::Fill(1), Constraint::Length(9), Constraint::Length(PLOT)];
    list(frame, app, Pane::Reasons, area, ["reason", "packets/s", ""], widths, rows.collect());
}

fn rules(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let rows = app.rules(PLOT.into()).into_iter().map(|RuleRow { name, passed, dropped, plot }| {
        let cells = [
            Cell::from(name.to_owned()),
            number(whole(passed)),
            number(whole(dropped)),
            Cell::from(plot).fg(Color::Yellow),
        ];
        Row::new(cells)
    });
    let lengths =
        [Constraint::Fill(1), Constraint::Length(8), Constraint::Length(9), Constraint::Length(PLOT)];
    list(frame, app, Pane::Rules, area, ["rule", "passed/s", "dropped/s", ""], lengths, rows.collect());
}

fn heavy(frame: &mut Frame<'_>, app: &App, pane: Pane, area: Rect) {
    let sources = app.sources(pane);
    // An address that is cut is none: what is left is the reason's.
    let longest = sources.iter().map(|entry| name(entry.key).chars().count()).max().unwrap_or_default();
    let longest = longest.clamp(19, 23) as u16;
    let rows = sources.into_iter().map(|entry| {
        // What it may be too high by is told where it matters.
        let about = if entry.error * 10 > entry.count { "≤ " } else { "" };
        let cells = [
            Cell::from(name(entry.key)),
            number(format!("{about}{}", grouped(entry.count))),
            Cell::from(entry.note.name()),
        ];
        Row::new(cells)
    });
    let title = if pane == Pane::Limited { "source over a limit" } else { "source dropped" };
    let widths = [Constraint::Length(longest), Constraint::Length(11), Constraint::Fill(1)];
    list(frame, app, pane, area, [title, "packets", "last reason"], widths, rows.collect());
}

fn banned(frame: &mut Frame<'_>, app: &App, area: Rect) {
    let rows = app.bans.iter().map(|Banned { source, left }| {
        Row::new([Cell::from(name(*source)), Cell::from(left.map_or_else(|| "for ever".to_owned(), span))])
    });
    let title = format!("banned ({})", app.bans.len());
    let widths = [Constraint::Length(44), Constraint::Fill(1)];
    list(frame, app, Pane::Bans, area, [&title, "ends in"], widths, rows.collect());
}

/// A table under its titles, with the chosen row of the pane that has the keys marked.
fn list<const N: usize>(
    frame: &mut Frame<'_>,
    app: &App,
    pane: Pane,
    area: Rect,
    titles: [&str; N],
    widths: [Constraint; N],
    rows: Vec<Row<'static>>,
) {
    let has_keys = app.focus == pane;
    let style = if has_keys { Style::new().fg(Color::Cyan) } else { Style::new().dim() };
    let heads = titles.iter().enumerate().map(|(at, title)| {
        let is_number = at > 0 && (title.ends_with("/s") || *title == "packets");
        if is_number { number((*title).to_owned()) } else { Cell::from((*title).to_owned()) }
    });
    let table = Table::new(rows, widths)
        .header(Row::new(heads).style(style.add_modifier(Modifier::BOLD)))
        .block(Block::new().borders(Borders::TOP).border_style(style))
        .row_highlight_style(if has_keys { Style::new().reversed() } else { Style::new() });
    let mut state = TableState::new().with_selected(app.selected(pane));
    frame.render_stateful_widget(table, area, &mut state);
}

fn help(frame: &mut Frame<'_>) {
    let width = KEYS.iter().map(|(key, what)| key.chars().count().max(10) + what.chars().count()).max();
    let wanted = Rect::new(0, 0, width.unwrap_or_default() as u16 + 6, KEYS.len() as u16 + 6);
    let area = frame.area();
    let area = area.centered(Constraint::Length(wanted.width), Constraint::Length(wanted.height));
    let lines = KEYS.iter().map(|(key, what)| Line::from(format!(" {key:<10}  {what}")));
    let notes = [
        Line::default(),
        Line::from(" Counts of sources are estimates from samples; `≤`: at most so many."),
        Line::from(" Rates by reason and rule are exact."),
        Line::default(),
    ];
    let text: Vec<Line<'_>> = lines.chain(notes).collect();
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(text).block(Block::bordered().title(" keys ")), area);
}

fn number(text: String) -> Cell<'static> {
    Cell::from(Line::from(text).alignment(Alignment::Right))
}

fn whole(rate: f64) -> String {
    grouped(rate.round() as u64)
}

/// A source, as `ban` takes it: of an IPv6 address the length matters.
pub fn name(source: IpNet) -> String {
    match source {
        IpNet::V4(one) if one.prefix_len() == one.max_prefix_len() => one.addr().to_string(),
        source => source.to_string(),
    }
}

/// A time that is left, in its two largest units.
fn span(left: Duration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];

    let mut rest = left.as_secs();
    let mut words = Vec::new();
    for (seconds, unit) in UNITS {
        if rest >= seconds || !words.is_empty() {
            words.push(format!("{}{unit}", rest / seconds));
        }
        rest %= seconds;
    }
    words.truncate(2);
    if words.is_empty() { "0s".to_owned() } else { words.join(" ") }
}
