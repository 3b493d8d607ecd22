//! Tables: as an aligned block where that is narrow enough, and else as lines of names and values.

use std::fmt::Write as _;

/// Widest table that is aligned, in characters; a phone shows about so many.
const WIDEST: usize = 64;

/// A table as it is read.
#[derive(Debug, Default)]
pub(super) struct AnswerTable {
    rows: Vec<Vec<String>>,
}

impl AnswerTable {
    pub(super) fn begin_row(&mut self) {
        self.rows.push(Vec::new());
    }

    pub(super) fn begin_cell(&mut self) {
        if let Some(row) = self.rows.last_mut() {
            row.push(String::new());
        }
    }

    pub(super) fn text(&mut self, text: &str) {
        let cell = self.rows.last_mut().and_then(|row| row.last_mut());
        if let Some(cell) = cell {
            cell.push_str(&text.replace('\n', " "));
        }
    }

    /// The table with columns of one width, a line below the head; none if it is too wide.
    pub(super) fn aligned(&self) -> Option<String> {
        let columns = self.rows.iter().map(Vec::len).max()?;
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells
                .map(|cell| cell.trim().chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let whole: usize = widths.iter().sum::<usize>() + 3 * columns.saturating_sub(1);
        if whole > WIDEST {
            return None;
        }
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let cells = widths.iter().enumerate().map(|(column, width)| {
                let cell = row.get(column).map_or("", |cell| cell.trim());
                format!("{cell:<width$}")
            });
            let line = cells.collect::<Vec<_>>().join(" | ");
            let _ = writeln!(text, "{}", line.trim_end());
            if number == 0 {
                let dashes: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
                let _ = writeln!(text, "{}", dashes.join("-+-"));
            }
        }
        text.truncate(text.trim_end().len());
        Some(text)
    }

    /// The rows as lines: each cell with the name of its column.
    pub(super) fn lines(&self) -> String {
        let (head, rows) = match self.rows.split_first() {
            Some((head, rows)) if !rows.is_empty() => (Some(head), rows),
            _ => (None, &*self.rows),
        };
        let mut text = String::new();
        for row in rows {
            for (column, cell) in row.iter().enumerate() {
                let cell = cell.trim();
                match head
                    .and_then(|head| head.get(column))
                    .map(|name| name.trim())
                {
                    Some(name) if !name.is_empty() => {
                        let _ = writeln!(text, "{name}: {cell}");
                    }
                    _ => {
                        let _ = writeln!(text, "{cell}");
                    }
                }
            }
            text.push('\n');
        }
        text.truncate(text.trim_end().len());
        text
    }
}
