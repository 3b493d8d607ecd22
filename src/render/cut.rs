//! Cutting a text into messages at the best places.

use unicode_segmentation::UnicodeSegmentation as _;

use super::Rendering;
use super::styled::{Mark, MarkStyle, Styled};
use super::write::{plain, write};

/// Cuts a text into at most so many pieces, each of which fits when it is written. False: some of the text is left.
pub(super) fn cut(styled: &Styled, rendering: &Rendering, most: usize) -> (Vec<Styled>, bool) {
    let mut pieces = Vec::new();
    let mut at = 0;
    loop {
        at = begin(styled, at);
        if at >= styled.text.len() {
            return (pieces, true);
        }
        if pieces.len() == most {
            return (pieces, false);
        }
        let window = Window::new(styled, at, rendering);
        let (end, piece) = window.piece();
        let kept = piece.text.trim_end().len();
        let marks = piece.marks.clone();
        pieces.push(piece.slice(0..kept, &marks));
        at = end;
    }
}

/// The place where the next piece begins: behind the blanks of a cut, but not behind the indent of code.
fn begin(styled: &Styled, at: usize) -> usize {
    let rest = &styled.text[at..];
    let behind_lines = at + (rest.len() - rest.trim_start_matches('\n').len());
    let rest = &styled.text[behind_lines..];
    if at == 0 || styled.is_code(behind_lines) {
        return behind_lines;
    }
    behind_lines + (rest.len() - rest.trim_start().len())
}

/// The part of a text that one message may hold at most.
struct Window<'a> {
    styled: &'a Styled,
    rendering: &'a Rendering,
    start: usize,
    /// Marks that reach into it.
    marks: Vec<Mark>,
    /// Ends of graphemes in it, in order.
    ends: Vec<usize>,
}

impl<'a> Window<'a> {
    fn new(styled: &'a Styled, start: usize, rendering: &'a Rendering) -> Self {
        // Each character counts for one at least.
        let rest = &styled.text[start..];
        let end = rest
            .char_indices()
            .nth(rendering.limits.length.max(1))
            .map_or(styled.text.len(), |(place, _)| start + place);
        let reaching = styled
            .marks
            .iter()
            .filter(|mark| mark.range.start < end && mark.range.end > start);
        let marks: Vec<Mark> = reaching.cloned().collect();
        let graphemes = styled.text[start..end].grapheme_indices(true);
        let mut ends: Vec<usize> = graphemes
            .map(|(place, grapheme)| start + place + grapheme.len())
            .collect();
        // The last one may go on behind the window.
        if end < styled.text.len() && ends.len() > 1 {
            ends.pop();
        }
        Self {
            styled,
            rendering,
            start,
            marks,
            ends,
        }
    }

    fn fits(&self, end: usize, marks: &[Mark]) -> bool {
        let limits = &self.rendering.limits;
        let piece = self.styled.slice(self.start..end, marks);
        let written = write(&piece, self.rendering.dialect, self.rendering.mentions);
        let measured = match limits.is_after_parsing {
            true => &piece.text,
            false => &written.text,
        };
        let html = written.html.as_deref().unwrap_or_default();
        // The channel may refuse the markup.
        let plain = plain(&piece, self.rendering.dialect, self.rendering.mentions);
        limits.unit.length(measured) <= limits.length
            && limits.unit.length(html) <= limits.length
            && limits.unit.length(&plain) <= limits.length
            && limits
                .entities
                .is_none_or(|most| written.entities.len() <= most)
    }

    /// The next piece, and the place where it ends. It holds one character at least.
    fn piece(&self) -> (usize, Styled) {
        for marks in [&*self.marks, &[]] {
            if let Some(longest) = self.longest(marks) {
                let mut end = self.best(longest, marks);
                while !self.fits(end, marks) {
                    let shorter = self.ends.iter().rev().find(|shorter| **shorter < end);
                    match shorter {
                        Some(shorter) => end = *shorter,
                        None => break,
                    }
                }
                return (end, self.styled.slice(self.start..end, marks));
            }
        }
        // Not even one grapheme fits: as many of its characters as do.
        let rest = &self.styled.text[self.start..];
        let ends = rest
            .char_indices()
            .skip(1)
            .map(|(place, _)| self.start + place);
        let fitting = ends.take_while(|end| self.fits(*end, &[])).last();
        let first = rest.chars().next().map_or(1, char::len_utf8);
        let end = fitting.unwrap_or(self.start + first);
        (end, self.styled.slice(self.start..end, &[]))
    }

    /// The last end of a grapheme up to which the text fits.
    fn longest(&self, marks: &[Mark]) -> Option<usize> {
        let fitting = self.ends.partition_point(|end| self.fits(*end, marks));
        fitting.checked_sub(1).map(|last| self.ends[last])
    }

    /// The best place to cut, not behind the last one that fits.
    fn best(&self, longest: usize, marks: &[Mark]) -> usize {
        if longest == self.styled.text.len() {
            return longest;
        }
        let text = &self.styled.text[self.start..longest];
        let (half, third) = (text.len() / 2, text.len() / 3);
        let behind = |place: Option<usize>, sign: &str, least: usize| {
            let end = place? + sign.len();
            (end > least).then_some(end)
        };
        let found = behind(text.rfind("\n\n"), "\n\n", half)
            .or_else(|| behind(text.rfind('\n'), "\n", third))
            .or_else(|| sentence(text).filter(|end| *end > third))
            .or_else(|| behind(text.rfind(' '), " ", 0))
            .unwrap_or(text.len());
        let end = self.start + found;
        // A link or a piece of code goes whole into the next message, where it does not begin this one.
        let whole = marks
            .iter()
            .filter(|mark| matches!(mark.style, MarkStyle::Link(_) | MarkStyle::Code))
            .find(|mark| mark.range.start < end && mark.range.end > end);
        match whole {
            Some(mark) if mark.range.start > self.start => mark.range.start,
            _ => end,
        }
    }
}

/// The end of the last whole sentence, with the blank behind it.
fn sentence(text: &str) -> Option<usize> {
    let signs = [". ", "! ", "? ", ".\n", "。", "！", "？"];
    let ends = signs
        .iter()
        .filter_map(|sign| Some(text.rfind(sign)? + sign.len()));
    ends.max()
}
