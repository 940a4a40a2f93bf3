//! How the demo shows things: colours and lines on a terminal, plain text in a pipe.

use std::fmt::Display;
use std::io::{IsTerminal, Write, stdout};

/// A colour of the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// As the terminal writes.
    Plain,
    /// What went well.
    Green,
    /// What went wrong.
    Red,
    /// What was dropped, as it should be.
    Yellow,
    /// What is less important.
    Dim,
    /// A title.
    Bold,
}

impl Colour {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Green => "32",
            Self::Red => "1;31",
            Self::Yellow => "33",
            Self::Dim => "2",
            Self::Bold => "1",
        }
    }
}

/// A piece of text of one colour.
#[derive(Clone, Debug)]
pub struct Cell {
    text: String,
    colour: Colour,
}

impl Cell {
    /// A text in a colour.
    pub fn new(text: impl Display, colour: Colour) -> Self {
        Self { text: text.to_string(), colour }
    }

    /// A text as the terminal writes it.
    pub fn plain(text: impl Display) -> Self {
        Self::new(text, Colour::Plain)
    }
}

/// How a column's texts are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// At its left edge.
    Left,
    /// At its right edge: numbers.
    Right,
}

/// Where the demo writes.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    terminal: bool,
    colours: bool,
}

/// A table whose rows appear as they come; its columns have fixed widths.
#[derive(Clone, Debug)]
pub struct Table {
    screen: Screen,
    columns: Vec<(usize, Align)>,
}

impl Screen {
    /// The standard output. `NO_COLOR` is honoured (no-color.org).
    pub fn new() -> Self {
        let terminal = stdout().is_terminal();
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { terminal, colours: terminal && wanted }
    }

    /// A mark for what was as expected or not.
    pub fn mark(&self, as_expected: bool) -> Cell {
        let (text, colour) = match (as_expected, self.terminal) {
            (true, true) => ("✓", Colour::Green),
            (false, true) => ("✗", Colour::Red),
            (true, false) => ("ok", Colour::Green),
            (false, false) => ("NO", Colour::Red),
        };
        Cell::new(text, colour)
    }

    /// An arrow.
    pub const fn arrow(&self) -> &'static str {
        if self.terminal { "→" } else { "->" }
    }

    /// Writes a line at once.
    pub fn line(&self, cell: &Cell) {
        self.write(&format!("{}\n", self.paint(cell, &cell.text)));
    }

    /// Begins a table: title, width and alignment of each column.
    pub fn table(&self, columns: &[(&str, usize, Align)]) -> Table {
        let table = Table {
            screen: *self,
            columns: columns.iter().map(|(_, width, align)| (*width, *align)).collect(),
        };
        table.rule('┌', '┬', '┐');
        table.row(&columns.iter().map(|(title, ..)| Cell::new(title, Colour::Bold)).collect::<Vec<_>>());
        table.rule('├', '┼', '┤');
        table
    }

    fn paint(&self, cell: &Cell, text: &str) -> String {
        if self.colours && cell.colour != Colour::Plain && !text.is_empty() {
            format!("\x1b[{}m{text}\x1b[0m", cell.colour.code())
        } else {
            text.to_owned()
        }
    }

    /// A reader that went away is no reason to leave the lab standing: errors are swallowed.
    fn write(&self, text: &str) {
        let mut out = stdout().lock();
        let _ = out.write_all(text.as_bytes());
        let _ = out.flush();
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    /// Writes a row at once. A text that is too long for its column is kept whole: nothing is worth more than it.
    pub fn row(&self, cells: &[Cell]) {
        let mut painted = Vec::new();
        for (cell, (width, align)) in cells.iter().zip(&self.columns) {
            let space = " ".repeat(width.saturating_sub(cell.text.chars().count()));
            let text = self.screen.paint(cell, &cell.text);
            painted.push(match align {
                Align::Left => text + &space,
                Align::Right => space + &text,
            });
        }
        let line = if self.screen.terminal {
            format!("│ {} │", painted.join(" │ "))
        } else {
            painted.join("  ").trim_end().to_owned()
        };
        self.screen.write(&format!("{line}\n"));
    }

    /// Ends the table.
    pub fn end(self) {
        self.rule('└', '┴', '┘');
    }

    fn rule(&self, left: char, middle: char, right: char) {
        if self.screen.terminal {
            let parts: Vec<_> = self.columns.iter().map(|(width, _)| "─".repeat(width + 2)).collect();
            let text = format!("{left}{}{right}", parts.join(&middle.to_string()));
            let line = self.screen.paint(&Cell::new("", Colour::Dim), &text);
            self.screen.write(&format!("{line}\n"));
        } else if left == '├' {
            let parts: Vec<_> = self.columns.iter().map(|(width, _)| "-".repeat(*width)).collect();
            self.screen.write(&format!("{}\n", parts.join("  ")));
        }
    }
}
