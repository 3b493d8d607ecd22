//! Filters on the event type and on the sender of an event. The third filter, `when`, is an expression and belongs to the
//! templates.

use super::document::ParsedRequest;
use super::path::{Path, Paths};
use super::value::{Text, head, text};
use crate::config::{Located, Problems};
use crate::model::Refusal;

/// Longest part of a sender's name in a reason, in bytes.
const LONGEST: usize = 128;

/// Patterns of wanted and unwanted event types. Without a wanted pattern every type is wanted.
#[derive(Clone, Debug, Default)]
pub(super) struct TypeFilter {
    wanted: Vec<String>,
    unwanted: Vec<String>,
}

/// Takes over patterns as they are written. A pattern that can match nothing is reported to `problems`.
fn patterns(written: &[Located<String>], what: &str, problems: &Problems) -> Vec<String> {
    for pattern in written
        .iter()
        .filter(|pattern| pattern.trim() != pattern.value || pattern.is_empty())
    {
        problems.error_hint(
            &pattern.place,
            format!("{:?} matches no {what}", pattern.value),
            format!("write a {what} as the provider names it, without blanks around it; * stands for anything"),
        );
    }
    written
        .iter()
        .map(|pattern| pattern.value.clone())
        .collect()
}

impl TypeFilter {
    /// Compiles the patterns.
    pub(super) fn compile(
        wanted: &[Located<String>],
        unwanted: &[Located<String>],
        problems: &Problems,
    ) -> Self {
        Self {
            wanted: patterns(wanted, "event type", problems),
            unwanted: patterns(unwanted, "event type", problems),
        }
    }

    /// Reason why an event of this type is not wanted; nothing for a wanted event.
    pub(super) fn unwanted(&self, event_type: Option<&str>) -> Option<String> {
        if let Some(name) = event_type
            && self.unwanted.iter().any(|pattern| matches(pattern, name))
        {
            return Some(format!("not_events: {name:?} is not wanted"));
        }
        if self.wanted.is_empty() {
            return None;
        }
        match event_type {
            Some(name) if self.wanted.iter().any(|pattern| matches(pattern, name)) => None,
            Some(name) => Some(format!("events: {name:?} is not wanted")),
            None => Some("events: an event without a type is not wanted".into()),
        }
    }
}

/// Patterns of unwanted senders, and the paths at which an event names its sender.
#[derive(Clone, Debug, Default)]
pub(super) struct SenderFilter {
    unwanted: Vec<String>,
    places: Vec<Path>,
}

impl SenderFilter {
    /// Compiles the patterns and the places.
    pub(super) fn compile(
        unwanted: &[Located<String>],
        places: &[Located<String>],
        paths: &mut Paths,
        problems: &Problems,
    ) -> Self {
        if let (Some(first), []) = (unwanted.first(), places) {
            problems.error_hint(
                &first.place,
                "not_senders has nothing to compare: nothing says where events of this provider name their sender",
                "add sender = \"path.in.the.body\" to the source; a list of paths takes the first that says something",
            );
        }
        Self {
            unwanted: patterns(unwanted, "sender", problems),
            places: places
                .iter()
                .filter_map(|place| Path::compile(place, paths, problems))
                .collect(),
        }
    }

    /// Reason why an event of this sender is not wanted; nothing for a wanted event, or one that names no sender.
    pub(super) fn unwanted(&self, view: &ParsedRequest<'_>) -> Result<Option<String>, Refusal> {
        if self.unwanted.is_empty() {
            return Ok(None);
        }
        for place in &self.places {
            if let Some(Text::One(sender)) = view.find(place)?.as_deref().map(text) {
                let is_unwanted = self
                    .unwanted
                    .iter()
                    .any(|pattern| matches(pattern, &sender));
                return Ok(is_unwanted
                    .then(|| format!("not_senders: {:?} is not wanted", head(&sender, LONGEST))));
            }
        }
        Ok(None)
    }
}

/// True if a text matches a pattern, in which `*` stands for any run of characters.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Position of the last star and of the text behind its match: the only place to go back to.
    let mut star = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p, t));
            p += 1;
        } else if pattern.get(p) == Some(&text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, swallowed)) = star {
            star = Some((at, swallowed + 1));
            p = at + 1;
            t = swallowed + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_run() {
        for (pattern, text, right) in [
            ("*", "", true),
            ("*", "anything.at.all", true),
            ("issues.opened", "issues.opened", true),
            ("issues.opened", "issues.Opened", false),
            ("issues.opened", "issues.opened2", false),
            ("pull_request.*", "pull_request.closed", true),
            ("pull_request.*", "pull_request", false),
            ("*.created", "a.b.created", true),
            ("a*b*c", "abbbcbc", true),
            ("a*b*c", "abbbcb", false),
            ("é*", "éa", true),
        ] {
            assert_eq!(matches(pattern, text), right, "{pattern} {text}");
        }
        assert!(!matches(&"*a".repeat(60), &"a".repeat(59)));
    }

    #[test]
    fn the_reason_names_the_rule_and_the_type() {
        let events = TypeFilter {
            wanted: vec!["issues.opened".into()],
            unwanted: Vec::new(),
        };
        assert_eq!(events.unwanted(Some("issues.opened")), None);
        assert_eq!(
            events.unwanted(Some("issues.closed")).unwrap(),
            "events: \"issues.closed\" is not wanted"
        );
        assert_eq!(
            events.unwanted(None).unwrap(),
            "events: an event without a type is not wanted"
        );
        assert_eq!(TypeFilter::default().unwanted(None), None);
        let but = TypeFilter {
            wanted: vec!["issues.*".into()],
            unwanted: vec!["*.deleted".into()],
        };
        assert_eq!(but.unwanted(Some("issues.opened")), None);
        assert_eq!(
            but.unwanted(Some("issues.deleted")).unwrap(),
            "not_events: \"issues.deleted\" is not wanted"
        );
        assert_eq!(
            but.unwanted(Some("push")).unwrap(),
            "events: \"push\" is not wanted"
        );
    }
}
