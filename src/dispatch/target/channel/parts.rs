//! The parts of an answer, in the dialect and within the bounds of its channel.

use crate::channel::{ChannelSpec, ReplyPart};
use crate::config::reply::SourceReply;
use crate::render::{Dialect, MessageLimits, RenderedPart, Rendering};

/// The parts of an answer.
pub(super) fn of(spec: &ChannelSpec, rules: &SourceReply, text: &str) -> Vec<ReplyPart> {
    let parts = rendering(spec, Some(rules)).parts(text);
    parts.into_iter().map(part).collect()
}

/// The pieces of a part that was too long.
pub(super) fn smaller(
    spec: &ChannelSpec,
    rules: Option<&SourceReply>,
    source: &str,
    length: usize,
) -> Vec<ReplyPart> {
    let pieces = rendering(spec, rules).smaller(source, length);
    pieces.into_iter().map(part).collect()
}

fn rendering(spec: &ChannelSpec, rules: Option<&SourceReply>) -> Rendering {
    let limits = spec.limits();
    Rendering {
        // The words of the configuration are those of the renderer, which a test compares.
        dialect: Dialect::parse(spec.format()).unwrap_or(Dialect::Plain),
        limits: MessageLimits {
            length: limits.length,
            unit: limits.unit,
            is_after_parsing: limits.is_after_parsing,
            entities: limits.entities,
            parts: limits.max_parts,
        },
        mentions: rules.is_some_and(|rules| rules.mentions),
    }
}

fn part(rendered: RenderedPart) -> ReplyPart {
    ReplyPart {
        text: rendered.text,
        plain: rendered.plain,
        entities: rendered.entities,
        html: rendered.html,
        source: rendered.source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reply::FORMATS;

    #[test]
    fn every_format_of_a_provider_file_has_a_dialect() {
        for word in FORMATS {
            assert!(Dialect::parse(word).is_some(), "{word}");
        }
        assert_eq!(Dialect::WORDS.len(), FORMATS.len());
    }
}
