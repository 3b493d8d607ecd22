//! Marks of a text as entities: a list beside the text, with offsets and lengths in units of UTF-16.

use std::ops::Range;

use serde_json::{Value, json};

use super::styled::{MarkStyle, Styled};

/// The entities of a text (Bot API, MessageEntity). Code lies in no other mark, and no other in it.
pub(super) fn entities(styled: &Styled) -> Vec<Value> {
    let code: Vec<Range<usize>> = styled
        .marks
        .iter()
        .filter(|mark| matches!(mark.style, MarkStyle::Code | MarkStyle::Block(_)))
        .map(|mark| mark.range.clone())
        .collect();
    let mut found: Vec<(Range<usize>, &MarkStyle)> = Vec::new();
    for mark in &styled.marks {
        if matches!(mark.style, MarkStyle::Code | MarkStyle::Block(_)) {
            found.push((mark.range.clone(), &mark.style));
            continue;
        }
        let mut at = mark.range.start;
        let first = code.partition_point(|range| range.end <= at);
        let within = code[first..].iter();
        for range in within.take_while(|range| range.start < mark.range.end) {
            found.push((at..range.start.max(at), &mark.style));
            at = range.end;
        }
        found.push((at..mark.range.end.max(at), &mark.style));
    }
    found.retain(|(range, _)| !styled.text[range.clone()].trim().is_empty());
    found.sort_by_key(|(range, _)| (range.start, usize::MAX - range.end));
    let mut offsets = Offsets::new(&styled.text);
    found
        .into_iter()
        .map(|(range, style)| {
            let (offset, end) = (offsets.of(range.start), offsets.of(range.end));
            let mut entity =
                json!({ "type": kind(style), "offset": offset, "length": end - offset });
            match style {
                MarkStyle::Link(address) => entity["url"] = Value::from(address.as_str()),
                MarkStyle::Block(language) if !language.is_empty() => {
                    entity["language"] = Value::from(language.as_str());
                }
                _ => {}
            }
            entity
        })
        .collect()
}

const fn kind(style: &MarkStyle) -> &'static str {
    match style {
        MarkStyle::Bold => "bold",
        MarkStyle::Italic => "italic",
        MarkStyle::Strike => "strikethrough",
        MarkStyle::Code => "code",
        MarkStyle::Block(_) => "pre",
        MarkStyle::Quote => "blockquote",
        MarkStyle::Link(_) => "text_link",
    }
}

/// Places of a text in units of UTF-16. Asked mostly in order, so it goes on from the last place.
struct Offsets<'a> {
    text: &'a str,
    bytes: usize,
    units: usize,
}

impl<'a> Offsets<'a> {
    const fn new(text: &'a str) -> Self {
        Self {
            text,
            bytes: 0,
            units: 0,
        }
    }

    fn of(&mut self, place: usize) -> usize {
        if place < self.bytes {
            (self.bytes, self.units) = (0, 0);
        }
        self.units += self.text[self.bytes..place].encode_utf16().count();
        self.bytes = place;
        self.units
    }
}
