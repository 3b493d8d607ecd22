//! Check of the event types that a source keeps against the types that its provider has. A pattern that no event fits keeps
//! nothing, silently. A provider's file may be older than the provider's types, so a mistake is a warning only.

use crate::config::section::nearest;
use crate::config::{Located, Problems, Provider, SourceConfig};

/// Most known types that a hint names.
const NAMED: usize = 8;

/// Notes patterns of `events` that no event of the provider fits.
pub(super) fn doubt(
    source: &SourceConfig,
    provider: Option<&Provider>,
    parts: &[Located<String>],
    problems: &Problems,
) {
    let Some(first) = source.events.first() else {
        return;
    };
    if parts.is_empty() {
        problems.warn(
            &first.place,
            format!(
                "source {} keeps nothing: it lists events, and nothing says where an event's type stands",
                source.name
            ),
            "say it in the verify table, for example event_type = \"json:type\", or use when instead of events",
        );
        return;
    }
    let title = provider.map_or("this source", |provider| provider.name.as_str());
    let known = known(provider, parts);
    let samples: Vec<&str> = provider.map_or_else(Vec::new, |provider| {
        provider
            .samples
            .iter()
            .map(|sample| sample.name.as_str())
            .collect()
    });
    let least = parts
        .iter()
        .filter(|part| !part.starts_with("json?:"))
        .count();
    for pattern in &source.events {
        let meant = if known.is_empty() {
            match other_spelling(pattern, samples.iter().copied()) {
                Some(meant) => Some(Some(meant)),
                None if !pattern.contains('*') && pattern.split('.').count() < least => Some(None),
                None => None,
            }
        } else if known
            .iter()
            .any(|type_| meet(pattern.as_bytes(), type_.as_bytes()))
        {
            None
        } else {
            Some(meant(pattern, &known))
        };
        let Some(meant) = meant else { continue };
        let hint = match meant {
            Some(meant) => format!("did you mean {meant}?"),
            None if known.is_empty() => {
                format!(
                    "its types have {least} words with dots between them; {}.* stands for all of a kind",
                    pattern.value
                )
            }
            None => {
                let more = known.len().checked_sub(NAMED).filter(|more| *more > 0);
                let more = more.map_or_else(String::new, |more| format!(" and {more} more"));
                let some: Vec<&str> = known.iter().take(NAMED).map(String::as_str).collect();
                format!("known are {}{more}", some.join(", "))
            }
        };
        problems.warn(
            &pattern.place,
            format!(
                "no known event type of {title} matches \"{}\": this entry keeps nothing",
                pattern.value.escape_debug()
            ),
            hint,
        );
    }
}

/// The types of a provider's events, as patterns; empty where nobody has written them down.
fn known(provider: Option<&Provider>, parts: &[Located<String>]) -> Vec<String> {
    let listed = provider.map_or(&[][..], |provider| &provider.types);
    match parts {
        [part] if listed.is_empty() => match part.strip_prefix("json-key:") {
            Some(keys) => keys.split('|').map(str::to_owned).collect(),
            None => Vec::new(),
        },
        _ => listed.to_vec(),
    }
}

/// The type that an operator probably meant.
fn meant(pattern: &str, known: &[String]) -> Option<String> {
    let fits = |wanted: &str| {
        known
            .iter()
            .any(|type_| meet(wanted.as_bytes(), type_.as_bytes()))
    };
    let whole = known
        .iter()
        .map(String::as_str)
        .filter(|type_| !type_.contains('*'));
    if let Some(meant) = other_spelling(pattern, whole.clone()) {
        return Some(meant);
    }
    let all_of = format!("{pattern}.*");
    if fits(&all_of) {
        return Some(all_of);
    }
    let (word, rest) = pattern
        .split_once('.')
        .map_or((pattern, None), |(word, rest)| (word, Some(rest)));
    let words = || {
        known
            .iter()
            .map(|type_| type_.split('.').next().unwrap_or(type_))
            .filter(|word| !word.contains('*'))
    };
    let near = words()
        .find(|known| plain(known) == plain(word))
        .or_else(|| nearest(word, words()));
    if let Some(near) = near {
        let candidates = [
            rest.map(|rest| format!("{near}.{rest}")),
            Some(near.to_owned()),
            Some(format!("{near}.*")),
        ];
        if let Some(meant) = candidates
            .into_iter()
            .flatten()
            .find(|candidate| fits(candidate))
        {
            return Some(meant);
        }
    }
    nearest(pattern, whole).map(str::to_owned)
}

/// One of these types, where it is the pattern in other letters or with other marks between its words.
fn other_spelling<'t>(pattern: &str, mut types: impl Iterator<Item = &'t str>) -> Option<String> {
    types
        .find(|type_| *type_ != pattern && plain(type_) == plain(pattern))
        .map(str::to_owned)
}

/// A name without what people write in different ways.
fn plain(name: &str) -> String {
    name.chars()
        .filter(|letter| letter.is_alphanumeric() || *letter == '*')
        .flat_map(char::to_lowercase)
        .collect()
}

/// True if some text fits both patterns, in which `*` stands for any run of characters.
fn meet(one: &[u8], other: &[u8]) -> bool {
    // Row by row over all pairs of beginnings: patterns are short, and each pair is looked at once.
    let mut row: Vec<bool> = Vec::with_capacity(other.len() + 1);
    for i in 0..=one.len() {
        let above = std::mem::take(&mut row);
        for j in 0..=other.len() {
            let (star_of_one, star_of_other) =
                (i > 0 && one[i - 1] == b'*', j > 0 && other[j - 1] == b'*');
            // A star ends here, or swallows what the other pattern has, which may be a star as well.
            let up = (star_of_one || star_of_other) && i > 0 && above[j];
            let left = (star_of_one || star_of_other) && j > 0 && row[j - 1];
            let corner = i > 0 && j > 0 && above[j - 1] && one[i - 1] == other[j - 1];
            row.push((i == 0 && j == 0) || up || left || corner);
        }
    }
    row.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a17_two_patterns_meet_where_one_text_fits_both() {
        for (one, other, wanted) in [
            ("issues.opened", "issues.*", true),
            ("issues.*", "issues.*", true),
            ("*", "push", true),
            ("*.opened", "issues.*", true),
            ("*.opened", "push", false),
            ("issue.opened", "issues.*", false),
            ("issue*", "issues.*", true),
            ("pull_request", "pull_request.*", false),
            ("a*c", "*b*", true),
            ("a*c", "ab", false),
            ("", "*", true),
            ("", "a", false),
        ] {
            assert_eq!(
                meet(one.as_bytes(), other.as_bytes()),
                wanted,
                "{one} {other}"
            );
            assert_eq!(
                meet(other.as_bytes(), one.as_bytes()),
                wanted,
                "{other} {one}"
            );
        }
    }

    #[test]
    fn a17_what_was_meant_is_told() {
        let known: Vec<String> = ["issues.*", "pull_request.*", "push", "issue_comment.*"]
            .map(str::to_owned)
            .into_iter()
            .collect();
        for (written, right) in [
            ("issue.opened", "issues.opened"),
            ("pull-request.opened", "pull_request.opened"),
            ("PullRequest.opened", "pull_request.opened"),
            ("pull_request", "pull_request.*"),
            ("Push", "push"),
            ("push.created", "push"),
            ("issuecomment.created", "issue_comment.created"),
        ] {
            assert_eq!(meant(written, &known).as_deref(), Some(right), "{written}");
        }
        assert_eq!(meant("deployment.created", &known), None);
    }
}
