//! Lint of a provider's file: gaps that its signature could close, and the reasons that the file gives for them.
//!
//! Each gap is a warning unless `weak` gives a reason: an id or a type that the signature does not cover, a time that is
//! signed and not checked, mechanisms whose signed texts may be the same.

mod coverage;
mod text_overlap;

use std::cell::RefCell;

use crate::config::{Located, Place, Problems, Section, Table, Value as Toml};
use crate::model::Strength;
use crate::verify::lint::text_overlap::{Known, may_be_same};
use crate::verify::request::body_kinds::BodyKinds;
use crate::verify::request::condition::FieldCondition;
use crate::verify::request::field::{DocumentPlace, Field};
use crate::verify::request::inflate::Compressed;
use crate::verify::scheme::Scheme;
use crate::verify::scheme::mechanism::Mechanism;
use crate::verify::scheme::signed::Signed;
use crate::verify::template::{ContentTemplate, Placeholder};

/// The words of `weak`.
const WORDS: [&str; 5] = ["body", "id", "time", "type", "variants"];

/// The reasons why a file leaves something open, by word.
#[derive(Debug, Default)]
pub(crate) struct WeakReasons {
    reasons: Vec<(Located<String>, Located<String>)>,
    asked: RefCell<Vec<&'static str>>,
}

impl WeakReasons {
    /// Reads the table `weak`.
    pub(crate) fn read(section: &Section<'_>) -> Option<Self> {
        let reasons = section.text_table("weak").unwrap_or_default();
        let mut sound = true;
        for (word, reason) in &reasons {
            let what = match (WORDS.contains(&word.as_str()), reason.trim().is_empty()) {
                (false, _) => format!(
                    "nothing that may be left open is called {}",
                    word.escape_debug()
                ),
                (true, true) => format!("{} needs a reason", word.value),
                (true, false) => continue,
            };
            sound = false;
            section.problems().error_hint(
                &word.place,
                what,
                format!("known are {}", WORDS.join(", ")),
            );
        }
        sound.then(|| Self {
            reasons,
            asked: RefCell::default(),
        })
    }

    /// The reason for one of them.
    fn reason(&self, word: &'static str) -> Option<&str> {
        self.asked.borrow_mut().push(word);
        self.reasons
            .iter()
            .find(|(known, _)| known.value == word)
            .map(|(_, reason)| reason.as_str())
    }
}

/// Lints a compiled scheme. False: it must not be used.
pub(crate) fn look(
    scheme: &Scheme,
    weak: &WeakReasons,
    place: &Place,
    problems: &Problems,
) -> bool {
    if let Some(what) = scheme.same_texts()
        && weak.reason("variants").is_none()
    {
        problems.error_hint(
            place,
            what,
            "tell them apart: body_kind = \"json-object\" parts a body from a time, and equal or when with a fixed text \
             parts what holds it; or say why it does no harm: weak = { variants = \"…\" }",
        );
        return false;
    }
    let warn = |what: String, word: &'static str| {
        if weak.reason(word).is_none() {
            let hint = format!(
                "name what is signed, or say why it cannot be: weak = {{ {word} = \"…\" }}"
            );
            problems.warn(place, what, hint);
        }
    };
    for (written, word) in [(&scheme.event_id, "id"), (&scheme.event_type, "type")] {
        if let Some(open) = written.iter().find(|text| !scheme.signs_over(text)) {
            let text = open.escape_debug();
            warn(
                format!("the event's {word} stands in {text}, which the signature does not cover"),
                word,
            );
        }
    }
    if let Some(from) = scheme.unchecked_time() {
        warn(
            format!(
                "the time in {from} is signed and not checked: a captured request is good for ever"
            ),
            "time",
        );
    }
    for (word, _) in &weak.reasons {
        if word.value != "body" && !weak.asked.borrow().contains(&word.value.as_str()) {
            problems.warn(
                &word.place,
                format!("weak.{} excuses nothing", word.value),
                "take it out",
            );
        }
    }
    true
}

/// Warns of a source whose provider does not sign the body.
pub(crate) fn say_open(
    scheme: &Scheme,
    verify: &Table,
    source: (&str, &Place),
    problems: &Problems,
) {
    if scheme.ways().any(Mechanism::leaves_body_open) {
        let weak = reasons(verify);
        let reason = weak
            .iter()
            .find(|(word, _)| word == "body")
            .map(|(_, reason)| reason.as_str());
        let what = format!(
            "the requests of source {} prove who sends and not the body",
            source.0
        );
        let why = reason.unwrap_or("its signature leaves out the body or a part of it");
        problems.warn(
            source.1,
            what,
            format!("{why}; let nothing depend on it that a stranger must not say"),
        );
    }
}

/// The gaps of a `[verify]` table, each with its reason.
pub fn reasons(verify: &Table) -> Vec<(String, String)> {
    let Some(Toml::Table(weak)) = verify.get("weak").map(|node| &node.value) else {
        return Vec::new();
    };
    let text = |value: &Toml| match value {
        Toml::Text(text) => Some(text.clone()),
        _ => None,
    };
    weak.entries
        .iter()
        .filter_map(|(word, _, node)| Some((word.clone(), text(&node.value)?)))
        .collect()
}

impl Scheme {
    /// True if every mechanism covers the text at a place, as `event_id` writes it. A mechanism without a signature could
    /// cover nothing, so it counts as covering.
    fn signs_over(&self, written: &str) -> bool {
        let (kind, name) = written.split_once(':').unwrap_or((written, ""));
        let field = match kind {
            "json-key" => Field::Json(Vec::new()),
            "claim" | "config" => return true,
            kind => match Field::read(&format!("{}:{name}", kind.trim_end_matches('?'))) {
                Some(field) => field,
                None => return true,
            },
        };
        self.ways().all(|way| match way {
            Mechanism::Signed(signed) => signed.signs_field(&field, &self.document),
            Mechanism::Jwt(jwt) => match field {
                Field::Json(_) | Field::Form(_) | Field::Body => jwt.strength == Strength::Signed,
                _ => false,
            },
            Mechanism::Token(..)
            | Mechanism::Basic(_)
            | Mechanism::Certificate(_)
            | Mechanism::Ask(_)
            | Mechanism::Open => true,
        })
    }

    /// The place of a time that is signed and not checked.
    fn unchecked_time(&self) -> Option<String> {
        self.ways().find_map(|way| match way {
            Mechanism::Signed(signed) => signed.unchecked_time(),
            _ => None,
        })
    }

    /// Two mechanisms whose signed texts may be the same.
    fn same_texts(&self) -> Option<String> {
        let open = BodyKinds::default();
        let bodies = if self.compressed == Some(Compressed::AsReceived) {
            &open
        } else {
            &self.bodies
        };
        let none: &[(Field, FieldCondition)] = &[];
        let whens =
            std::iter::once(none).chain(self.variants.iter().map(|(when, _)| when.as_slice()));
        let signed: Vec<(usize, &Signed, Known<'_>)> = self
            .ways()
            .zip(whens)
            .enumerate()
            .filter_map(|(number, (way, when))| match way {
                Mechanism::Signed(signed) => Some((number, &**signed, signed.known(when, bodies))),
                _ => None,
            })
            .collect();
        for (at, (number, way, known)) in signed.iter().enumerate() {
            for (_, other, known_too) in &signed[..at] {
                let same = |a: &ContentTemplate, b: &ContentTemplate| {
                    may_be_same((a, known), (b, known_too))
                };
                if way
                    .contents
                    .iter()
                    .any(|a| other.contents.iter().any(|b| same(a, b)))
                {
                    let what = "may sign the very text that another way signs, so whoever sends it chooses how it is read";
                    return Some(format!("variant {number} {what}"));
                }
            }
        }
        None
    }
}

impl Mechanism {
    fn leaves_body_open(&self) -> bool {
        match self {
            Self::Signed(signed) => {
                let of_form = |value: &Placeholder| {
                    matches!(
                        value,
                        Placeholder::FormSorted | Placeholder::Field(Field::Form(_))
                    )
                };
                signed.strength == Strength::Origin
                    && !signed.contents.iter().all(|content| content.any(&of_form))
            }
            Self::Jwt(jwt) => jwt.strength == Strength::Origin,
            Self::Token(..) | Self::Basic(_) | Self::Certificate(_) | Self::Ask(_) | Self::Open => {
                false
            }
        }
    }
}

impl Signed {
    /// The known parts of its texts, where `when` chose it.
    fn known<'k>(&self, when: &[(Field, FieldCondition)], bodies: &'k BodyKinds) -> Known<'k> {
        let mut fixed = Vec::new();
        for (field, want) in when {
            if let FieldCondition::Is(text) = want {
                fixed.push((field.clone(), text.clone().into_bytes()));
            }
        }
        for (a, b) in &self.equal {
            for (a, b) in [(a, b), (b, a)] {
                if let (Some(field), Some(text)) = (a.as_field(), b.fixed()) {
                    fixed.push((field.clone(), text.into_bytes()));
                }
            }
        }
        let timed = self
            .stamp
            .as_ref()
            .is_some_and(|stamp| stamp.window.is_checked());
        Known {
            bodies,
            timed,
            fixed,
        }
    }

    fn signs_field(&self, field: &Field, document: &DocumentPlace) -> bool {
        let held = |value: &Placeholder| self.contents.iter().all(|content| content.holds(value));
        let is_stamp = self
            .stamp
            .as_ref()
            .is_some_and(|stamp| stamp.from == *field)
            && held(&Placeholder::Ts);
        let equals = self.equal.iter().any(|(a, b)| {
            (a.as_field() == Some(field) && b.fixed().is_some())
                || (b.as_field() == Some(field) && a.fixed().is_some())
        });
        // In a list of items every one is proved by itself, and the path is the item's own.
        let in_item = match (&self.each, field) {
            (Some(each), Field::Json(path)) => path
                .strip_prefix(each.list.as_slice())
                .and_then(|rest| rest.get(1..))
                .and_then(|rest| rest.strip_prefix(each.rest.as_slice())),
            _ => None,
        };
        let held_field = |field: &Field| {
            held(&Placeholder::Field(field.clone()))
                || held(&Placeholder::FieldOrEmpty(field.clone()))
        };
        let whole = self.strength == Strength::Signed && self.each.is_none();
        let placed = match field {
            Field::Json(_) | Field::Body => whole || self.holds_document(field, document),
            Field::Form(_) => whole || held(&Placeholder::FormSorted),
            Field::Query(_) => [
                Placeholder::Url,
                Placeholder::UrlWithPort,
                Placeholder::Path,
                Placeholder::QuerySorted,
            ]
            .iter()
            .any(held),
            Field::Header(_) | Field::Signature(_) => false,
        };
        placed
            || is_stamp
            || equals
            || held_field(field)
            || in_item.is_some_and(|rest| held_field(&Field::Json(rest.to_vec())))
    }

    /// True if the document of a field is signed as the text of a form's field.
    fn holds_document(&self, field: &Field, document: &DocumentPlace) -> bool {
        let payload = |part: &Placeholder| matches!(part, Placeholder::Field(Field::Form(name)) if name == "payload");
        matches!((field, document), (Field::Json(_), DocumentPlace::Body))
            && self.contents.iter().all(|content| content.any(&payload))
    }

    fn unchecked_time(&self) -> Option<String> {
        let checked = self
            .stamp
            .as_ref()
            .is_some_and(|stamp| stamp.window.is_checked());
        if checked {
            return None;
        }
        if let Some(stamp) = &self.stamp
            && self
                .contents
                .iter()
                .any(|content| content.any(&|value| *value == Placeholder::Ts))
        {
            return Some(stamp.from.to_string());
        }
        let is_time = |name: &str| {
            let name = name.to_ascii_lowercase();
            ["timestamp", "time", "date"]
                .iter()
                .any(|end| name.ends_with(end))
        };
        self.contents
            .iter()
            .flat_map(ContentTemplate::fields)
            .find_map(|field| match field {
                Field::Header(name) if is_time(name.as_str()) => Some(field.to_string()),
                Field::Json(path) if path.last().is_some_and(|last| is_time(last)) => {
                    Some(field.to_string())
                }
                Field::Query(name) | Field::Form(name) | Field::Signature(name)
                    if is_time(name) =>
                {
                    Some(field.to_string())
                }
                _ => None,
            })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Problem;
    use crate::model::{OriginFault, Verify as _};
    use crate::verify::compile_source;
    use crate::verify::keys::mac::{Algorithm, RunningDigest};
    use crate::verify::tests::support::{Case, NOW, cases, compile, fault, post, shipped, source};

    /// What is said of a shipped file beside the weight of a test's secrets.
    fn said(name: &str) -> Vec<Problem> {
        let provider = shipped(name);
        let good = cases(name).into_iter().find(Case::is_good).unwrap();
        let problems = Problems::default();
        let (scheme, challenges) = compile_source(&good.source(), Some(&provider), true, &problems);
        assert!(
            scheme.is_some() && challenges.is_some(),
            "{name}: {:#?}",
            problems.into_sorted()
        );
        let said = problems.into_sorted().into_iter();
        said.filter(|problem| !problem.what.starts_with("the secret literal"))
            .collect()
    }

    #[test]
    fn s9_every_shipped_file_uses_what_is_signed_or_says_why_not() {
        let (mut open, mut seen) = (Vec::new(), 0);
        for (name, _) in crate::config::shipped_providers() {
            let unexplained = said(name)
                .into_iter()
                .filter(|problem| !problem.what.contains("prove who sends"));
            open.extend(unexplained.map(|problem| format!("{name}: {}", problem.what)));
            seen += 1;
        }
        assert!(open.is_empty() && seen >= 270, "{seen} seen: {open:#?}");
    }

    #[test]
    fn s9_a_checksum_of_the_body_is_not_taken_for_a_digest() {
        for name in ["paypal", "paypal-sandbox"] {
            let said: Vec<String> = said(name).iter().map(ToString::to_string).collect();
            assert!(
                said.len() == 1 && said[0].contains("prove who sends and not the body"),
                "{said:#?}"
            );
            assert!(said[0].contains("CRC-32"), "{said:#?}");
        }
        assert_eq!(said("stripe"), []);
    }

    #[test]
    fn s9_what_is_left_open_without_a_reason_is_a_warning() {
        let said = |verify: &str| -> String {
            let problems = Problems::default();
            let source = source(&["a-long-secret"], &[], verify);
            compile_source(&source, None, true, &problems);
            let said = problems.into_sorted();
            said.iter()
                .filter(|it| !it.what.starts_with("the secret"))
                .map(|it| format!("{it}\n"))
                .collect()
        };
        let timed = "signature = 'header:s'\nsigned_content = '{ts}.{body}'\n";
        for (verify, expected) in [
            (
                "signature = 'header:s'\nevent_id = 'header:x-id'",
                "the event's id stands in header:x-id",
            ),
            (
                "signature = 'header:s'\nevent_type = ['json:a', 'query:b']",
                "the event's type stands in query:b",
            ),
            (
                &format!("{timed}timestamp = {{ from = 'header:t' }}"),
                "header:t is signed and not checked",
            ),
            (
                "signature = 'header:s'\nsigned_content = '{json:id}{json:time}'\nevent_id = 'json:id'",
                "json:time is",
            ),
            (
                "signature = 'header:s'\nsigned_content = '{json:id}'\nevent_id = 'json:id'",
                "not the body",
            ),
            (
                "signature = 'header:s'\nsigned_content = '{json:id}'\nevent_type = 'json:t'",
                "the event's type stands",
            ),
            (
                "signature = 'header:s'\nweak = { id = 'so' }",
                "weak.id excuses nothing",
            ),
            (
                "signature = 'header:s'\nweak = { idd = 'so' }",
                "known are body, id",
            ),
            (
                "signature = 'header:s'\nweak = { id = ' ' }",
                "needs a reason",
            ),
        ] {
            let found = said(verify);
            assert!(
                found.contains(expected),
                "{verify}: {expected} is not in\n{found}"
            );
        }
        for quiet in [
            "signature = 'header:s'\nevent_id = ['json:id', 'json?:b']\nevent_type = 'json-key:a|b'",
            "signature = 'header:s'\nevent_id = 'header:x-id'\nweak = { id = 'the body has none' }",
            "signature = 'header:s'\nsigned_content = '{header:x-id}{body}'\nevent_id = 'header:x-id'",
            &format!("{timed}timestamp = {{ from = 'header:t', tolerance = 300 }}"),
            "scheme = 'token'\nsignature = 'header:s'\nevent_id = 'header:x-id'",
        ] {
            assert_eq!(said(quiet), "", "{quiet}");
        }
    }

    #[test]
    fn s13_a_time_moved_into_the_body_is_no_body() {
        let scheme = compile(
            &source(&["a-long-secret"], &[], ""),
            Some(&shipped("grafana")),
        )
        .unwrap()
        .0;
        let body = r#"{"status":"firing"}"#;
        let mut timed = post(&[], body);
        let mut mac = RunningDigest::keyed(Algorithm::Sha256, b"a-long-secret");
        let at = NOW.seconds().to_string();
        mac.take(format!("{at}:{body}").as_bytes());
        let signature = hex::encode(mac.finish().as_bytes());
        timed
            .headers
            .insert("x-grafana-alerting-signature", signature.parse().unwrap());
        let mut moved = timed.clone();
        timed
            .headers
            .insert("x-grafana-alerting-timestamp", at.parse().unwrap());
        assert!(scheme.judge(&timed, NOW).is_ok());
        let late = NOW + Duration::from_secs(7200);
        assert_eq!(fault(scheme.judge(&timed, late)), Some(OriginFault::Stale));
        moved.body = format!("{at}:{body}").into();
        assert_eq!(
            fault(scheme.judge(&moved, late)),
            Some(OriginFault::WrongBodyKind)
        );
    }

    #[test]
    fn s13_the_text_between_signed_fields_stands_in_none_of_them() {
        let verify = "signature = 'header:s'\nsigned_content = 'M\\n{json:m}\\nId\\n{json:id}\\n'\nevent_id = 'json:id'\n";
        let judge = |verify: &str, message: &str, id: &str| {
            let scheme = compile(
                &source(&["a-long-secret"], &[], &verify.replace("\\\\n", "\\n")),
                None,
            )
            .unwrap()
            .0;
            let mut mac = RunningDigest::keyed(Algorithm::Sha256, b"a-long-secret");
            mac.take(format!("M\n{message}\nId\n{id}\n").as_bytes());
            let body = serde_json::json!({ "m": message, "id": id }).to_string();
            let signature = hex::encode(mac.finish().as_bytes());
            fault(scheme.judge(&post(&[("s", &signature)], &body), NOW))
        };
        // A message of a stranger's making is cut, and its rest becomes part of another id.
        let verify = verify.replace('\'', "\"");
        let closed = format!("{verify}without = {{ \"json:id\" = \"\\n\" }}\n");
        assert_eq!(judge(&verify, "hello", "fake\nId\nid-1"), None);
        assert_eq!(
            judge(&closed, "hello", "fake\nId\nid-1"),
            Some(OriginFault::ClaimMismatch)
        );
        assert_eq!(judge(&closed, "hello\nId\nfake", "id-1"), None);
    }

    #[test]
    fn s13_ways_whose_texts_may_be_the_same_are_a_problem() {
        let compiled = |verify: &str| {
            compile(&source(&["a-long-secret"], &[], verify), None)
                .err()
                .unwrap_or_default()
        };
        let timed = "[[variant]]\nwhen = 'header:t'\nsigned_content = '{ts}:{body}'\ntimestamp = { from = 'header:t', tolerance = 300 }\n";
        for wrong in [
            format!("signature = 'header:s'\n{timed}"),
            format!("signature = 'header:s'\nbody_kind = ['json', 'form']\n{timed}"),
            format!(
                "signature = 'header:s'\nbody_kind = 'json'\n{}",
                timed.replace(", tolerance = 300", "")
            ),
            "signature = 'header:s'\nsigned_content = 'a{json:b}c'\n\
             [[variant]]\nwhen = 'json:d'\nsigned_content = 'a{json:b}{json:d}c'"
                .to_owned(),
        ] {
            let problems = compiled(&wrong);
            assert!(
                problems
                    .iter()
                    .any(|it| it.what.contains("may sign the very text")),
                "{wrong}: {problems:#?}"
            );
        }
        for right in [
            format!("signature = 'header:s'\nbody_kind = 'json-object'\n{timed}"),
            format!("signature = 'header:s'\nweak = {{ variants = 'because' }}\n{timed}"),
            "signature = 'header:s'\nsigned_content = 'v0:{body}'\n\
             [[variant]]\nwhen = 'header:d'\nsigned_content = 'v1:{header:d}{body}'"
                .to_owned(),
            "signature = 'header:s'\nsigned_content = '{json:b}{json:k}'\nequal = [['{json:k}', 'one']]\n\
             [[variant]]\nwhen = { 'json:k' = 'two' }\nequal = []\nsigned_content = '{json:d}{json:k}'"
                .to_owned(),
        ] {
            assert_eq!(compiled(&right), [], "{right}");
        }
    }
}
