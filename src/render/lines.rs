//! Marks of a text, line by line: clipped to each line, without crossings.

use std::ops::Range;

use super::styled::{Mark, MarkStyle, Styled};

/// Marks of a text, line by line.
pub(super) struct LineMarks<'a> {
    styled: &'a Styled,
    /// Quotes in order; they do not overlap.
    quotes: Vec<Range<usize>>,
    /// Marks within lines, in order of their beginnings.
    marks: Vec<&'a Mark>,
    /// Number of the first mark that has not begun.
    next: usize,
    /// Marks that have begun and may reach into the next line. There is one of each style at most.
    open: Vec<&'a Mark>,
}

impl<'a> LineMarks<'a> {
    /// The marks of a text.
    pub(super) fn new(styled: &'a Styled) -> Self {
        let is_inline =
            |mark: &&Mark| !matches!(mark.style, MarkStyle::Block(_) | MarkStyle::Quote);
        let quotes = styled
            .marks
            .iter()
            .filter(|mark| mark.style == MarkStyle::Quote);
        Self {
            styled,
            quotes: quotes.map(|mark| mark.range.clone()).collect(),
            marks: styled.marks.iter().filter(is_inline).collect(),
            next: 0,
            open: Vec::new(),
        }
    }

    /// True if a place is within a quote.
    pub(super) fn is_quote(&self, at: usize) -> bool {
        let behind = self.quotes.partition_point(|quote| quote.start <= at);
        behind > 0 && self.quotes[behind - 1].contains(&at)
    }

    /// The marks of a line, without blanks at their ends. LineMarks are asked for in order.
    pub(super) fn marks(&mut self, line: Range<usize>) -> Vec<Mark> {
        self.open.retain(|mark| mark.range.end > line.start);
        while let Some(mark) = self.marks.get(self.next) {
            if mark.range.start >= line.end {
                break;
            }
            self.next += 1;
            if mark.range.end > line.start {
                self.open.push(mark);
            }
        }
        let mut clipped: Vec<Mark> = self
            .open
            .iter()
            .filter_map(|mark| self.clipped(mark, &line))
            .collect();
        clipped.sort_by_key(|mark| (mark.range.start, usize::MAX - mark.range.end));
        let mut found: Vec<Mark> = Vec::with_capacity(clipped.len());
        // Those around the next mark, the innermost last.
        let mut around: Vec<usize> = Vec::new();
        for mark in clipped {
            around.retain(|number| found[*number].range.end > mark.range.start);
            let crosses = |number: &usize| found[*number].range.end < mark.range.end;
            let excludes = |number: &usize| {
                let style = &found[*number].style;
                let same = std::mem::discriminant(style) == std::mem::discriminant(&mark.style);
                same || *style == MarkStyle::Code
            };
            if !around.iter().any(crosses) && !around.iter().any(excludes) {
                around.push(found.len());
                found.push(mark);
            }
        }
        found
    }

    fn clipped(&self, mark: &Mark, line: &Range<usize>) -> Option<Mark> {
        let start = mark.range.start.max(line.start);
        let words = &self.styled.text[start..mark.range.end.min(line.end)];
        let front = words.len() - words.trim_start().len();
        let range = start + front..start + words.trim_end().len();
        (range.start < range.end).then(|| Mark {
            range,
            style: mark.style.clone(),
        })
    }
}
