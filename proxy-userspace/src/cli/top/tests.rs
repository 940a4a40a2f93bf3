//! The view without a terminal: what is drawn, and what keys do.

use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use jiff::Timestamp;
use proxy_common::abi::reason::Reason;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::app::{Action, App, Banned, Mode, Pane};
use super::screen::draw;
use crate::observe::drops::Dropped;
use crate::observe::stats::{Counters, InterfaceStats, ReasonStats, RuleStats, Stats, Total};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/top.txt");

fn total(packets: u64) -> Total {
    Total { packets, bytes: packets * 60 }
}

fn reason(name: &'static str, verdict: &'static str, packets: u64) -> ReasonStats {
    ReasonStats { name, verdict, total: total(packets) }
}

/// After `n` readings: a service that is used, and more and more that is refused.
fn reading(n: u64) -> Stats {
    let outcomes = vec![
        reason("service-allowed", "pass", 1_000 + 120 * n),
        reason("over-limit-packets", "drop", 5_000 * n * n),
    ];
    let counters = Counters {
        seen: total(0),
        reasons: [outcomes.clone(), vec![reason("no-service", "drop", 7 * n), reason("arp", "pass", 12)]]
            .concat(),
        rules: vec![
            RuleStats {
                name: "default".to_owned(),
                active: true,
                total: total(0),
                outcomes: vec![reason("no-service", "drop", 7 * n)],
            },
            RuleStats { name: "web".to_owned(), active: true, total: total(0), outcomes },
            RuleStats { name: "gone".to_owned(), active: false, total: total(9), outcomes: vec![] },
        ],
        ..Counters::default()
    };
    let interfaces = vec![InterfaceStats { name: "eth0".to_owned(), counters: Counters::default() }];
    Stats { all: counters, interfaces, ..Stats::default() }
}

fn dropped(source: &str, reason: Reason, skipped: u64) -> Dropped {
    Dropped {
        time: Timestamp::UNIX_EPOCH,
        interface: "eth0".to_owned(),
        reason,
        rule: None,
        vlans: Vec::new(),
        ethertype: None,
        protocol: None,
        source: source.parse().ok(),
        source_port: None,
        destination: None,
        destination_port: None,
        detail: None,
        length: 60,
        skipped,
    }
}

fn app() -> App {
    let mut app = App::default();
    for n in 0..9 {
        app.note_counters(&reading(n), Duration::from_secs(n));
    }
    app.note_drop(&dropped("198.51.100.77", Reason::OverLimitPackets, 319_999));
    app.note_drop(&dropped("203.0.113.9", Reason::NoService, 40));
    app.note_drop(&dropped("2001:db8:113:7::9", Reason::NoService, 0));
    app.note_drop(&dropped("2001:db8:113:7::a", Reason::ServiceRefused, 1));
    app.note_drop(&dropped("no address", Reason::UnknownEthertype, 5));
    let ban = |source: &str, left: Option<u64>| Banned {
        source: source.parse().expect("a prefix"),
        left: left.map(Duration::from_secs),
    };
    app.note_bans(vec![
        ban("192.0.2.0/24", None),
        ban("198.51.100.7/32", Some(599)),
        ban("2001:db8::/64", Some(90_000)),
    ]);
    app
}

fn screen(app: &App, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal in memory");
    terminal.draw(|frame| draw(frame, app)).expect("drawn");
    let buffer = terminal.backend().buffer();
    let mut text = String::new();
    for row in buffer.content().chunks(width.into()) {
        let row: String = row.iter().map(|cell| cell.symbol()).collect();
        text.push_str(row.trim_end());
        text.push('\n');
    }
    text
}

fn press(app: &mut App, code: KeyCode) -> Option<Action> {
    app.press(KeyEvent::new(code, KeyModifiers::NONE))
}

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

#[test]
fn the_screen_is_as_it_should_be() {
    let drawn = screen(&app(), 100, 26);
    if std::env::var_os("TOLLGATE_BLESS").is_some() {
        std::fs::write(Path::new(GOLDEN), &drawn).expect("written");
    }
    let golden = std::fs::read_to_string(GOLDEN).expect("the golden screen");
    assert_eq!(drawn, golden, "\n{drawn}");
}

#[test]
fn a_terminal_of_any_size_is_drawn_on() {
    let mut app = app();
    for mode in [Mode::View, Mode::Help, Mode::Confirm(net("192.0.2.1/32"))] {
        app.mode = mode;
        for (width, height) in [(1, 1), (3, 40), (20, 5), (80, 24), (300, 90)] {
            assert!(!screen(&app, width, height).is_empty());
        }
    }
    let nothing = screen(&App::default(), 80, 24);
    assert!(nothing.contains("nothing is enforced"), "{nothing}");
}

#[test]
fn a_source_is_banned_after_a_question_alone() {
    let mut app = app();
    assert_eq!(app.focus, Pane::Dropped);
    // The heaviest is chosen, and IPv6 goes by what a customer has.
    assert_eq!(press(&mut app, KeyCode::Down), None);
    assert_eq!(press(&mut app, KeyCode::Char('b')), None);
    assert_eq!(app.mode, Mode::Confirm(net("2001:db8:113:7::/64")));
    assert!(screen(&app, 100, 26).contains("ban 2001:db8:113:7::/64 for 10m?"));
    assert_eq!(press(&mut app, KeyCode::Enter), None);
    assert_eq!(app.mode, Mode::View);
    press(&mut app, KeyCode::Up);
    press(&mut app, KeyCode::Char('b'));
    assert_eq!(press(&mut app, KeyCode::Char('y')), Some(Action::Ban(net("203.0.113.9/32"))));
    press(&mut app, KeyCode::Tab);
    press(&mut app, KeyCode::Char('b'));
    assert_eq!(press(&mut app, KeyCode::Char('y')), Some(Action::Ban(net("198.51.100.77/32"))));
    // No reason and no rule is a source.
    press(&mut app, KeyCode::BackTab);
    press(&mut app, KeyCode::Left);
    assert_eq!((app.focus, press(&mut app, KeyCode::Char('b')), app.mode), (Pane::Rules, None, Mode::View));
    assert!(app.message.contains("choose a source"), "{}", app.message);
}

#[test]
fn a_ban_is_ended_and_rows_that_vanish_are_not_chosen() {
    let mut app = app();
    while app.focus != Pane::Bans {
        press(&mut app, KeyCode::Tab);
    }
    assert_eq!(press(&mut app, KeyCode::Char('u')), Some(Action::Unban(net("198.51.100.7/32"))));
    press(&mut app, KeyCode::End);
    assert_eq!(press(&mut app, KeyCode::Char('u')), Some(Action::Unban(net("192.0.2.0/24"))));
    app.note_bans(vec![app.bans[0]]);
    assert_eq!(press(&mut app, KeyCode::Char('u')), Some(Action::Unban(net("198.51.100.7/32"))));
    app.note_bans(Vec::new());
    assert_eq!((app.selected(Pane::Bans), press(&mut app, KeyCode::Char('u'))), (None, None));
}

#[test]
fn a_pause_holds_everything_and_help_ends_with_any_key() {
    let mut app = app();
    let before = screen(&app, 100, 26);
    press(&mut app, KeyCode::Char('p'));
    app.note_counters(&reading(20), Duration::from_secs(20));
    app.note_drop(&dropped("203.0.113.99", Reason::NoService, 1_000_000));
    app.note_bans(Vec::new());
    let paused = screen(&app, 100, 26);
    assert!(paused.contains("paused") && !paused.contains("203.0.113.99"), "{paused}");
    press(&mut app, KeyCode::Char('p'));
    assert_eq!(screen(&app, 100, 26), before);
    press(&mut app, KeyCode::Char('c'));
    assert!(app.sources(Pane::Dropped).is_empty() && app.sources(Pane::Limited).is_empty());

    press(&mut app, KeyCode::Char('?'));
    assert!(screen(&app, 100, 26).contains("ban the chosen source"));
    assert_eq!(press(&mut app, KeyCode::Char('q')), None);
    assert_eq!(press(&mut app, KeyCode::Char('q')), Some(Action::Quit));
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(app.press(interrupt), Some(Action::Quit));
}
