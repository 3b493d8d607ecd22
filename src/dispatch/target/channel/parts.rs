//! The parts of an answer, in the dialect and within the bounds of its channel.

use crate::channel::{ChannelSpec, ReplyPart};
use crate::config::reply::{LengthUnit, SourceReply};

/// The parts of an answer.
pub(super) fn of(spec: &ChannelSpec, rules: &SourceReply, text: &str) -> Vec<ReplyPart> {
    let _ = rules;
    cut(
        text,
        spec.limits().length,
        spec.limits().unit,
        spec.limits().max_parts,
    )
}

/// The parts of one part that was too long.
pub(super) fn smaller(
    spec: &ChannelSpec,
    rules: Option<&SourceReply>,
    text: &str,
    length: usize,
) -> Vec<ReplyPart> {
    let _ = rules;
    cut(text, length, spec.limits().unit, usize::MAX)
}

fn cut(text: &str, length: usize, unit: LengthUnit, most: usize) -> Vec<ReplyPart> {
    let size = |c: char| match unit {
        LengthUnit::Utf16 => c.len_utf16(),
        LengthUnit::Chars => 1,
        LengthUnit::Bytes => c.len_utf8(),
    };
    let mut parts = vec![String::new()];
    let mut used = 0;
    for c in text.chars() {
        if used + size(c) > length && parts.len() < most {
            parts.push(String::new());
            used = 0;
        }
        if used + size(c) <= length {
            used += size(c);
            parts.last_mut().map(|part| part.push(c));
        }
    }
    parts
        .into_iter()
        .filter(|part| !part.trim().is_empty())
        .map(|part| ReplyPart {
            text: part.clone(),
            plain: part.clone(),
            source: part,
            ..ReplyPart::default()
        })
        .collect()
}
