//! Tables for people: columns as wide as what stands in them.

use std::time::Duration;

use commissaire::{Declared, time::span};

use crate::{Failed, output::print};

/// Prints `head` and `rows` with two spaces between the columns; nothing where there are no rows.
pub(crate) fn print_table<const N: usize>(head: [&str; N], rows: &[[String; N]]) -> Result<(), Failed> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut widths = head.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    print(&line(&head, &widths))?;
    rows.iter().try_for_each(|row| print(&line(row, &widths)))
}

fn line<const N: usize>(cells: &[impl AsRef<str>; N], widths: &[usize; N]) -> String {
    let cells = cells.iter().zip(widths).map(|(cell, width)| {
        let width = *width;
        format!("{:width$}", cell.as_ref())
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}

/// A number that a broker may not tell.
pub(crate) fn count(known: Option<u64>) -> String {
    known.map_or_else(|| "unknown".to_owned(), |count| count.to_string())
}

/// How long the oldest message has been there; none is there where all is known to be 0.
pub(crate) fn oldest(declared: &Declared) -> String {
    match (declared.oldest, [declared.waiting, declared.in_hand, declared.resting]) {
        (None, [Some(0), Some(0), Some(0)]) => "-".to_owned(),
        (oldest, _) => time(oldest),
    }
}

/// A span of time that a broker may not tell.
pub(crate) fn time(known: Option<Duration>) -> String {
    known.map_or_else(|| "unknown".to_owned(), span)
}

/// What another machine wrote, with nothing in it that a terminal obeys.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
