//! Requests with several items: each item becomes an event of its own.
//!
//! The document of an item is the document of its request in which every list on the way to the item has that item only.
//! So a path or a template finds an item in the same place, whether the request had one item or many, and the fields
//! around the item are there as well. Promises: no item is left out, no digit is changed, the order is the order of the
//! document. The number of items and their total size are bounded.

use std::ops::Range;

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use super::document::{ParsedRequest, refusal};
use crate::config::{Located, Problems};
use crate::json::{JsonFault, Scan};
use crate::model::{Received, Refusal, TakenForm, TextNotes, Verified};

/// The most items of a request.
const ITEMS: usize = 2_000;

/// Largest total size of the documents of one request's items, in bytes.
const BYTES: usize = 32 << 20;

/// The longest path to a list.
const STEPS: usize = 16;

/// Paths to the lists whose items become events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ItemLists {
    /// Field of a form that contains the document.
    field: Option<String>,
    paths: Vec<Vec<ListStep>>,
}

/// One step of a path to a list.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ListStep {
    Key(String),
    /// Each item of a list.
    Item,
}

impl ItemLists {
    /// Compiles the paths. An invalid path is reported to `problems`.
    pub(super) fn compile(written: &[Located<String>], problems: &Problems) -> Option<Self> {
        let mut each = Self::default();
        let mut sound = true;
        for (number, path) in written.iter().enumerate() {
            match Self::parse(path) {
                Ok((field, steps)) if number == 0 || field == each.field => {
                    each.field = field;
                    each.paths.push(steps);
                }
                Ok(_) => {
                    problems.error(
                        &path.place,
                        "each: all paths have to lead into the same field of the form",
                    );
                    sound = false;
                }
                Err(what) => {
                    problems.error_hint(
                        &path.place,
                        format!("each: {:?} leads to no list: {what}", path.value),
                        "write a dotted path with * for every item of a list, like \"events.*\" or \
                         \"form:events.*\"",
                    );
                    sound = false;
                }
            }
        }
        sound.then_some(each)
    }

    fn parse(text: &str) -> Result<(Option<String>, Vec<ListStep>), &'static str> {
        let (field, path) = match text.strip_prefix("form:") {
            Some(rest) => rest
                .split_once('.')
                .map(|(field, path)| (Some(field.to_owned()), path))
                .ok_or("it ends at the field")?,
            None => (None, text),
        };
        let steps: Vec<ListStep> = path
            .split('.')
            .map(|part| {
                if part == "*" {
                    ListStep::Item
                } else {
                    ListStep::Key(part.to_owned())
                }
            })
            .collect();
        if steps.contains(&ListStep::Key(String::new())) {
            return Err("a part of it is empty");
        }
        if steps.last() != Some(&ListStep::Item) {
            return Err("it does not end in *");
        }
        if steps.len() > STEPS {
            return Err("it has more than 16 parts");
        }
        Ok((field, steps))
    }

    /// True if no path is configured.
    pub(super) const fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// Splits a request into its items, in order; returns nothing for a request that is one event as it is.
    pub(super) fn of(&self, verified: &Verified) -> Result<Option<Vec<Verified>>, Refusal> {
        let Some((documents, form)) = self.documents(verified.request(), verified.form())? else {
            return Ok(None);
        };
        let items = documents.into_iter().enumerate();
        Ok(Some(
            items
                .map(|(place, document)| verified.item(place, document, form.clone()))
                .collect(),
        ))
    }

    /// First item of a request with several items, and the number of its items.
    pub(super) fn first(&self, request: &Received) -> Result<Option<(Received, usize)>, Refusal> {
        let Some((documents, _)) = self.documents(request, None)? else {
            return Ok(None);
        };
        let count = documents.len();
        let item = documents.into_iter().next().map(|body| {
            let mut item = Received {
                body,
                ..request.clone()
            };
            item.headers
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            (item, count)
        });
        Ok(item)
    }

    /// Documents of a request's items, and the other fields of its form.
    fn documents(
        &self,
        request: &Received,
        form: Option<&TakenForm>,
    ) -> Result<Option<(Vec<Bytes>, TakenForm)>, Refusal> {
        let view = ParsedRequest::read(request, &[], form)?;
        let rest = view
            .form
            .iter()
            .filter(|(name, _)| self.field.as_ref().is_some_and(|field| name != field));
        let rest = rest
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect();
        // Characters that were lost in the request are lost in its items as well.
        let form = TakenForm {
            fields: rest,
            notes: TextNotes {
                query: false,
                ..view.notes()
            },
        };
        let (text, least) = match &self.field {
            // An item is not read as a form again, so a single item gets a document as well.
            Some(field) => match view.in_form(field) {
                Some(text) => (text, 1),
                None => return Ok(None),
            },
            None => (view.document(), 2),
        };
        let outline = outline(text, &self.paths).map_err(refusal)?;
        if outline.count < least {
            return Ok(None);
        }
        if outline.count > ITEMS {
            let cause = format!(
                "the body brings {} items; at most {ITEMS} are taken at once",
                outline.count
            );
            return Err(Refusal::TooManyItems(cause));
        }
        let (mut documents, mut bytes) = (Vec::with_capacity(outline.count), 0);
        for place in 0..outline.count {
            let mut document = String::new();
            outline.write(text, place, &mut document);
            bytes += document.len();
            if bytes > BYTES {
                let cause = format!(
                    "what stands around the items makes them larger than {BYTES} bytes together"
                );
                return Err(Refusal::TooManyItems(cause));
            }
            documents.push(Bytes::from(document));
        }
        Ok(Some((documents, form)))
    }
}

/// The parts of a document that lead to items.
#[derive(Debug)]
struct Outline<'t> {
    range: Range<usize>,
    /// Number of items in this value.
    count: usize,
    inner: Inner<'t>,
}

#[derive(Debug)]
enum Inner<'t> {
    Plain,
    /// Keys as the text spells them, with their values.
    Object(Vec<(&'t str, Outline<'t>)>),
    List(Vec<Outline<'t>>),
}

/// Reads the outline of a document.
fn outline<'t>(text: &'t str, paths: &[Vec<ListStep>]) -> Result<Outline<'t>, JsonFault> {
    let mut scan = Scan::new(text);
    let wants: Vec<&[ListStep]> = paths.iter().map(Vec::as_slice).collect();
    let outline = value(&mut scan, &wants)?;
    scan.end()?;
    Ok(outline)
}

/// Reads the next value. `wants` has the rest of each path that leads here.
fn value<'t>(scan: &mut Scan<'t>, wants: &[&[ListStep]]) -> Result<Outline<'t>, JsonFault> {
    let first = scan.begin()?;
    let start = scan.at();
    let mut count = 0;
    let inner = match first {
        b'{' if wants.is_empty() => {
            scan.members(|scan, _| scan.skip())?;
            Inner::Plain
        }
        b'[' if wants.is_empty() => {
            scan.items(|scan, _| scan.skip())?;
            Inner::Plain
        }
        b'{' => {
            let mut members = Vec::new();
            scan.members(|scan, key| {
                let name = key.text();
                let below = further(
                    wants,
                    |step| matches!(step, ListStep::Key(wanted) if *wanted == name),
                );
                let member = value(scan, &below)?;
                count += member.count;
                members.push((key.inner, member));
                Ok(())
            })?;
            Inner::Object(members)
        }
        b'[' => {
            let below = further(wants, |step| *step == ListStep::Item);
            let is_list = wants
                .iter()
                .any(|steps| steps.first() == Some(&ListStep::Item));
            let mut items = Vec::new();
            scan.items(|scan, _| {
                let item = value(scan, &below)?;
                // A value without a list that a path finds is an item itself, so nothing is left out.
                count += if is_list { item.count.max(1) } else { 0 };
                items.push(item);
                Ok(())
            })?;
            Inner::List(items)
        }
        other => {
            scan.scalar(other)?;
            Inner::Plain
        }
    };
    // A value without items is copied as it is.
    let inner = if count == 0 { Inner::Plain } else { inner };
    Ok(Outline {
        range: start..scan.at(),
        count,
        inner,
    })
}

/// Rests of the paths whose next step fits.
fn further<'w>(
    wants: &[&'w [ListStep]],
    goes_on: impl Fn(&ListStep) -> bool,
) -> Vec<&'w [ListStep]> {
    wants
        .iter()
        .filter_map(|steps| steps.split_first())
        .filter(|(step, _)| goes_on(step))
        .map(|(_, rest)| rest)
        .collect()
}

impl Outline<'_> {
    /// Writes the document of the item with this number.
    fn write(&self, text: &str, mut place: usize, out: &mut String) {
        match &self.inner {
            Inner::Plain => out.push_str(&text[self.range.clone()]),
            Inner::Object(members) => {
                out.push('{');
                let mut is_first = true;
                for (key, member) in members {
                    let skipped = member.count > 0 && place >= member.count;
                    let chosen = member.count > 0 && !skipped;
                    if skipped {
                        place -= member.count;
                        continue;
                    }
                    if !is_first {
                        out.push(',');
                    }
                    is_first = false;
                    out.push('"');
                    out.push_str(key);
                    out.push_str("\":");
                    member.write(text, place, out);
                    if chosen {
                        // The lists behind this one have other items.
                        place = usize::MAX;
                    }
                }
                out.push('}');
            }
            Inner::List(items) => {
                out.push('[');
                for item in items {
                    let count = item.count.max(1);
                    if place < count {
                        item.write(text, place, out);
                        break;
                    }
                    place -= count;
                }
                out.push(']');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::request;
    use super::*;

    fn each(paths: &[&str]) -> ItemLists {
        let place = crate::config::Place {
            file: "f".into(),
            line: 1,
        };
        let written: Vec<_> = paths
            .iter()
            .map(|path| Located {
                value: (*path).to_owned(),
                place: place.clone(),
            })
            .collect();
        ItemLists::compile(&written, &Problems::default()).unwrap()
    }

    fn split(paths: &[&str], body: &str) -> Vec<String> {
        let documents = each(paths)
            .documents(&request("/", &[], body.as_bytes()), None)
            .unwrap();
        let documents = documents
            .map(|(documents, _)| documents)
            .unwrap_or_default();
        documents
            .into_iter()
            .map(|document| String::from_utf8(document.to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn a1_every_item_of_a_list_gets_a_document_of_its_own() {
        assert_eq!(
            split(&["*"], r#"[{"id":1.50}, {"id":2}]"#),
            [r#"[{"id":1.50}]"#, r#"[{"id":2}]"#]
        );
        let body = r#"{"to":"x", "events": [1, [2], "\ud83d"], "n":1e400}"#;
        let documents = split(&["events.*"], body);
        assert_eq!(documents[0], r#"{"to":"x","events":[1],"n":1e400}"#);
        assert_eq!(documents[2], r#"{"to":"x","events":["\ud83d"],"n":1e400}"#);
        assert_eq!(documents.len(), 3);
    }

    #[test]
    fn a1_one_item_or_none_is_the_request_as_it_stands() {
        for body in ["[1]", "[]", "{}", "1", r#"{"events":[1,2]}"#, ""] {
            assert!(split(&["*"], body).is_empty(), "{body}");
        }
    }

    #[test]
    fn a1_lists_in_lists_and_several_lists_are_taken_apart_in_order() {
        let paths = [
            "entry.*.changes.*.value.messages.*",
            "entry.*.changes.*.value.statuses.*",
            "entry.*.messaging.*",
        ];
        let body = r#"{"object":"w","entry":[
            {"id":1,"changes":[{"field":"messages","value":{"meta":7,"messages":["a","b"],"statuses":["s"]}},{"field":"other","value":{"messages":[]}}]},
            {"id":2,"messaging":["m"]},{"id":3}]}"#;
        let documents = split(&paths, body);
        let change = |list: &str| {
            format!(
                r#"{{"object":"w","entry":[{{"id":1,"changes":[{{"field":"messages","value":{{"meta":7,{list}}}}}]}}]}}"#
            )
        };
        assert_eq!(
            documents,
            [
                change(r#""messages":["a"]"#),
                change(r#""messages":["b"]"#),
                change(r#""statuses":["s"]"#),
                // Neither is left out: no list was found in them.
                r#"{"object":"w","entry":[{"id":1,"changes":[{"field":"other","value":{"messages":[]}}]}]}"#.into(),
                r#"{"object":"w","entry":[{"id":2,"messaging":["m"]}]}"#.into(),
                r#"{"object":"w","entry":[{"id":3}]}"#.into(),
            ]
        );
    }

    #[test]
    fn a1_a_list_in_a_field_of_a_form_is_a_document_of_its_own() {
        let body = b"mandrill_events=%5B%7B%22a%22%3A1%7D%5D&b=2";
        let received = request(
            "/",
            &[("content-type", "application/x-www-form-urlencoded")],
            body,
        );
        let (documents, form) = each(&["form:mandrill_events.*"])
            .documents(&received, None)
            .unwrap()
            .unwrap();
        assert_eq!(
            (documents.as_slice(), form.fields),
            (
                &[Bytes::from(r#"[{"a":1}]"#)][..],
                vec![("b".into(), "2".into())]
            )
        );
    }

    #[test]
    fn more_items_than_are_taken_at_once_are_refused() {
        let of = |body: String| each(&["l.*"]).documents(&request("/", &[], body.as_bytes()), None);
        let list = |count: usize| vec!["0"; count].join(",");
        assert_eq!(
            of(format!("{{\"l\":[{}]}}", list(2_000)))
                .unwrap()
                .unwrap()
                .0
                .len(),
            2_000
        );
        assert!(matches!(
            of(format!("{{\"l\":[{}]}}", list(2_001))),
            Err(Refusal::TooManyItems(_))
        ));
        let around = format!(
            "{{\"l\":[{}],\"around\":\"{}\"}}",
            list(1_000),
            "x".repeat(100_000)
        );
        assert!(
            matches!(of(around), Err(Refusal::TooManyItems(_))),
            "what stands around is copied for each"
        );
    }

    proptest! {
        #[test]
        fn a1_whatever_stands_in_a_list_comes_out_of_it_once_and_unchanged(
            items in proptest::collection::vec(any::<String>(), 2..20), around in any::<String>()
        ) {
            let written = |text: &String| serde_json::Value::from(text.as_str()).to_string();
            let list: Vec<_> = items.iter().map(written).collect();
            let body = format!("{{\"a\":[{{\"l\":[{}]}}],\"b\":{}}}", list.join(","), written(&around));
            let documents = split(&["a.*.l.*"], &body);
            prop_assert_eq!(documents.len(), items.len());
            for (document, item) in documents.iter().zip(&list) {
                prop_assert_eq!(document, &format!("{{\"a\":[{{\"l\":[{item}]}}],\"b\":{}}}", written(&around)));
            }
        }

        #[test]
        fn no_text_breaks_the_reading_of_lists(text in "[\\[\\]{}:,\"al0 \\\\]{0,60}") {
            let _ = each(&["a.*.l.*", "l.*", "*"]).documents(&request("/", &[], text.as_bytes()), None);
        }
    }

    #[test]
    fn what_leads_to_no_list_is_a_problem() {
        for path in [
            "",
            "a",
            "a.*.b",
            "*..*",
            "form:f",
            "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.*",
        ] {
            assert!(ItemLists::parse(path).is_err(), "{path}");
        }
    }
}
