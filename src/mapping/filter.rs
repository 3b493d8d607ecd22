//! Which events are kept: patterns on the event type. The other rule, `when`, is an expression and lives with the
//! templates.

use crate::config::{Located, Problems};

/// The event types that are wanted; none given keeps all.
#[derive(Clone, Debug, Default)]
pub(super) struct Events(Vec<String>);

impl Events {
    /// Compiles the patterns.
    pub(super) fn compile(written: &[Located<String>], problems: &Problems) -> Self {
        for pattern in written.iter().filter(|pattern| pattern.trim() != pattern.value || pattern.is_empty()) {
            problems.error_hint(
                &pattern.place,
                format!("{:?} matches no event type", pattern.value),
                "write a type as the provider names it, without blanks around it; * stands for anything",
            );
        }
        Self(written.iter().map(|pattern| pattern.value.clone()).collect())
    }

    /// Why an event of this type is not wanted; none if it is.
    pub(super) fn unwanted(&self, event_type: Option<&str>) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        match event_type {
            Some(name) if self.0.iter().any(|pattern| matches(pattern, name)) => None,
            Some(name) => Some(format!("events: {name:?} is not wanted")),
            None => Some("events: an event without a type is not wanted".into()),
        }
    }
}

/// Whether a pattern, in which `*` stands for any run of characters, is this text.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last star stood, and how much of the text it has swallowed: the only place to go back to.
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
        let events = Events(vec!["issues.opened".into()]);
        assert_eq!(events.unwanted(Some("issues.opened")), None);
        assert_eq!(events.unwanted(Some("issues.closed")).unwrap(), "events: \"issues.closed\" is not wanted");
        assert_eq!(events.unwanted(None).unwrap(), "events: an event without a type is not wanted");
        assert_eq!(Events::default().unwanted(None), None);
    }
}
