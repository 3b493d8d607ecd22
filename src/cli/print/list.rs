//! Lists: as a table where it fits the sheet; where it does not, each row on two lines or more, with what matters most on
//! the first.

use std::io;

use serde_json::Value;

use super::super::sheet::{Paper, Style, Tone, columns_of, wrap};
use super::{each, text};

/// Between two columns.
const GAP: usize = 2;

/// Indent of the later lines of a row.
const INDENT: usize = 2;

/// One cell of a table.
#[derive(Clone, Debug)]
pub(in crate::cli) struct TableCell {
    text: String,
    tone: Tone,
}

impl TableCell {
    /// A text with a colour.
    pub(in crate::cli) const fn new(text: String, tone: Tone) -> Self {
        Self { text, tone }
    }

    fn is_empty(&self) -> bool {
        self.text.is_empty() || self.text == "-"
    }

    fn painted(&self, look: &Style, width: usize) -> String {
        let pad = width.saturating_sub(columns_of(&self.text));
        format!("{}{}", look.paint(&self.text, self.tone), " ".repeat(pad))
    }
}

impl From<String> for TableCell {
    fn from(text: String) -> Self {
        Self::new(text, Tone::Plain)
    }
}

/// Prints above a list that something is paused; prints nothing if nothing is.
pub(in crate::cli) fn banner(out: &mut impl Paper, page: &Value) -> io::Result<()> {
    let look = *out.look();
    for paused in each(&page["paused"]) {
        let what = text(&paused["what"]);
        let (what, resume) = match paused["kind"].as_str() {
            Some("all") => ("every run".to_owned(), "sluicegate resume".to_owned()),
            Some("source") => (
                format!("the source {what}"),
                format!("sluicegate source resume {what}"),
            ),
            _ => (
                what.clone(),
                format!("sluicegate destination resume {what}"),
            ),
        };
        let since = look.time(&paused["since"]);
        let sentence = format!("PAUSED: {what}, since {since}; let it go on with: {resume}");
        for part in wrap(&sentence, look.width, look.width) {
            writeln!(out, "{}", look.paint(&part, Tone::Busy))?;
        }
    }
    Ok(())
}

/// A list of a page's items. False when there is nothing in it. A column in which no row has anything is left out.
pub(in crate::cli) fn list(
    out: &mut impl Paper,
    page: &Value,
    head: &[&str],
    row: impl Fn(&Value) -> Vec<TableCell>,
) -> io::Result<bool> {
    let Some(items) = page["items"].as_array().filter(|items| !items.is_empty()) else {
        return Ok(false);
    };
    rows(out, Some(head), head, items.iter().map(row).collect())?;
    Ok(true)
}

/// Rows under a head, or without one. `names` are the words for cells that find no place on the first line.
pub(in crate::cli) fn rows(
    out: &mut impl Paper,
    head: Option<&[&str]>,
    names: &[&str],
    rows: Vec<Vec<TableCell>>,
) -> io::Result<()> {
    let look = *out.look();
    let kept: Vec<usize> = (0..names.len())
        .filter(|at| {
            rows.iter()
                .any(|row| row.get(*at).is_some_and(|cell| !cell.is_empty()))
        })
        .collect();
    let widths: Vec<usize> = kept
        .iter()
        .map(|at| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(*at))
                .map(|cell| columns_of(&cell.text));
            cells
                .max()
                .unwrap_or(0)
                .max(head.map_or(0, |_| columns_of(names[*at])))
        })
        .collect();
    // As many columns as fit; the first in any case.
    let mut taken = 0;
    let mut room = look.width + GAP;
    while taken < kept.len() && (taken == 0 || widths[taken] + GAP <= room) {
        room = room.saturating_sub(widths[taken] + GAP);
        taken += 1;
    }
    if head.is_some() {
        let cells: Vec<TableCell> = kept[..taken]
            .iter()
            .map(|at| TableCell::new(names[*at].to_owned(), Tone::Head))
            .collect();
        writeln!(out, "{}", first_line(&cells, &widths, &look))?;
    }
    for row in rows {
        let cells: Vec<TableCell> = kept
            .iter()
            .map(|at| {
                row.get(*at)
                    .cloned()
                    .unwrap_or_else(|| "-".to_owned().into())
            })
            .collect();
        writeln!(out, "{}", first_line(&cells[..taken], &widths, &look))?;
        let later = kept[taken..]
            .iter()
            .zip(&cells[taken..])
            .filter(|(_, cell)| !cell.is_empty());
        let pairs: Vec<String> = later
            .map(|(at, cell)| format!("{}: {}", names[*at].to_lowercase(), cell.text))
            .collect();
        for line in packed(&pairs, look.width.saturating_sub(INDENT)) {
            writeln!(out, "{:INDENT$}{line}", "")?;
        }
    }
    Ok(())
}

fn first_line(cells: &[TableCell], widths: &[usize], look: &Style) -> String {
    let gap = " ".repeat(GAP);
    let last = cells.len().saturating_sub(1);
    let mut line = String::new();
    for (number, (cell, width)) in cells.iter().zip(widths).enumerate() {
        line.push_str(&cell.painted(look, if number == last { 0 } else { *width }));
        line.push_str(if number == last { "" } else { &gap });
    }
    // The first may be longer than the sheet is wide.
    match cells {
        [one] if columns_of(&one.text) > look.width => {
            wrap(&one.text, look.width, look.width).join("\n")
        }
        _ => line.trim_end().to_owned(),
    }
}

/// Short texts beside each other, long ones broken.
fn packed(pairs: &[String], width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for pair in pairs {
        let beside = lines
            .last()
            .map(|line| columns_of(line) + GAP + columns_of(pair));
        match (lines.last_mut(), beside) {
            (Some(line), Some(needs)) if needs <= width => {
                line.push_str(&" ".repeat(GAP));
                line.push_str(pair);
            }
            _ => lines.extend(wrap(pair, width, width)),
        }
    }
    lines
}
