//! How commands print: tables that fit a terminal and are plain in a pipe, numbers that people can read.

use std::io::{IsTerminal, Write, stdout};

use comfy_table::presets::{NOTHING, UTF8_BORDERS_ONLY};
use comfy_table::{Cell, CellAlignment, Table};

/// Prints text; a reader that has gone away is no error.
pub fn print(text: &str) {
    let mut out = stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// True if a person reads the output.
pub fn is_terminal() -> bool {
    stdout().is_terminal()
}

/// A table with a title line. Columns whose title begins with `#` are numbers, and set to the right.
pub fn table(titles: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(if is_terminal() { UTF8_BORDERS_ONLY } else { NOTHING });
    table.set_header(titles.iter().map(|title| title.trim_start_matches('#')));
    for (index, title) in titles.iter().enumerate() {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, 2));
            if title.starts_with('#') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
    }
    table
}

/// A count with its thousands apart, for people.
pub fn count(number: u64) -> Cell {
    Cell::new(grouped(number))
}

/// Bytes in the unit that fits, for people.
pub fn bytes(number: u64) -> Cell {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];

    let (mut value, mut unit) = (number as f64, 0);
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    Cell::new(if unit == 0 { format!("{number} B") } else { format!("{value:.1} {}", UNITS[unit]) })
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The rows of a table, without blanks at the ends of lines.
pub fn rendered(table: &Table) -> String {
    let lines = table.lines().map(|line| line.trim_end().to_owned() + "\n");
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
        for (number, text) in [(1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")] {
            assert_eq!(bytes(number).content(), text);
        }
    }
}
