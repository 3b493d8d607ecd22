//! JSONPath (RFC 9535), for the operator's configuration only.
//!
//! `jsonpath-rust` parses a query when the configuration is read. The evaluator is our own for two reasons. It is bounded:
//! each value that is looked at is a step, and a query that takes more than [`STEPS`] gives up (`..` below a filter can
//! take quadratically many). And it compares whole numbers by all their digits, where the crate compares every number as a
//! double, so that ids above 2^53 would fall together. A pattern of `match` or `search` must stand in the query; a document
//! never brings its own.

mod check;
mod children;
mod evaluate;

use jsonpath_rust::parser::model::JpQuery;
use jsonpath_rust::parser::parse_json_path;
use serde_json::Value;

use check::check;
use evaluate::Evaluation;

/// Most values that a query may look at.
const STEPS: u32 = 1_000_000;

/// A query, compiled.
#[derive(Clone, Debug)]
pub(super) struct JsonPath(JpQuery);

/// The query took too many steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooCostly;

type Step<T> = Result<T, TooCostly>;

impl JsonPath {
    /// Parses a query. The error says why the query is invalid.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let query = parse_json_path(text).map_err(|error| in_words(text, &error.to_string()))?;
        check(&query.segments)?;
        Ok(Self(query))
    }

    /// Selects values, in the order of the document.
    pub(super) fn select<'v>(&self, root: &'v Value) -> Step<Vec<&'v Value>> {
        Evaluation::new(root, STEPS).segments(&self.0.segments, root)
    }
}

/// Reason why a query is invalid. The parser's own message is a drawing with names of its grammar rules.
fn in_words(text: &str, drawn: &str) -> String {
    let mut open = Vec::new();
    let mut quote = None;
    let mut is_escaped = false;
    for letter in text.chars() {
        match (quote, letter) {
            (Some(_), _) if is_escaped => is_escaped = false,
            (Some(_), '\\') => is_escaped = true,
            (Some(quoted), letter) if letter == quoted => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(letter),
            (None, '[' | '(') => open.push(letter),
            (None, ']' | ')') => match (open.pop(), letter) {
                (Some('['), ']') | (Some('('), ')') => {}
                _ => return format!("a {letter} in it closes nothing"),
            },
            _ => {}
        }
    }
    if let Some(quote) = quote {
        return format!("a text in it that begins with {quote} has no end");
    }
    if let Some(open) = open.pop() {
        return format!("a {open} in it is not closed");
    }
    let at = drawn.lines().find_map(|line| {
        line.trim()
            .strip_prefix("--> 1:")?
            .trim()
            .parse::<usize>()
            .ok()
    });
    let rest = at.map(|at| {
        text.chars()
            .skip(at.saturating_sub(1))
            .take(20)
            .collect::<String>()
    });
    match (at, rest) {
        (Some(_), Some(rest)) if rest.is_empty() => "something is missing at its end".into(),
        (Some(at), Some(rest)) => {
            format!("it cannot be read from character {at} on, where {rest:?} stands")
        }
        _ => "it cannot be read as a JSONPath".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::corpus;
    use super::*;
    use crate::json;

    /// Where the suite and we part, and why.
    const DEVIATIONS: &[(&str, &str)] = &[
        (
            "functions, match, regex from the document",
            "a document brings no pattern",
        ),
        (
            "functions, search, regex from the document",
            "a document brings no pattern",
        ),
        (
            "functions, match, non-string second arg",
            "refused when the configuration is read, not always false",
        ),
        (
            "functions, search, non-string second arg",
            "refused when the configuration is read, not always false",
        ),
    ];

    #[test]
    fn the_suite_is_answered_as_the_rfc_wants() {
        let suite = corpus::cases("jsonpath/cts.json");
        let tests = suite["tests"].as_array().unwrap();
        assert!(tests.len() > 300, "{} tests", tests.len());
        let mut wrong = Vec::new();
        for test in tests {
            let name = test["name"].as_str().unwrap();
            let query = JsonPath::parse(test["selector"].as_str().unwrap());
            let right = if test["invalid_selector"] == true {
                query.is_err()
            } else if let Ok(query) = query {
                let selected = query.select(&test["document"]).unwrap();
                let selected = Value::Array(selected.into_iter().cloned().collect());
                match test.get("results") {
                    Some(results) => results.as_array().unwrap().contains(&selected),
                    None => test["result"] == selected,
                }
            } else {
                false
            };
            if right == DEVIATIONS.iter().any(|(deviant, _)| *deviant == name) {
                wrong.push(name);
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn t64_a_costly_query_gives_up() {
        let wide = format!("[{}1]", "[1,2],".repeat(20_000));
        let tree = json::tree(&wide).unwrap();
        let costly = JsonPath::parse("$..[?count($..*) > 1]").unwrap();
        assert_eq!(costly.select(&tree), Err(TooCostly));
        let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
        let tree = json::tree(&deep).unwrap();
        let costly = JsonPath::parse("$..*..*..*..*..*").unwrap();
        assert_eq!(costly.select(&tree), Err(TooCostly));
    }

    #[test]
    fn t65_a_document_brings_no_pattern() {
        assert!(JsonPath::parse("$[?match(@.a, @.pattern)]").is_err());
        assert!(JsonPath::parse("$[?match(@.a, 'x.*')]").is_ok());
    }

    #[test]
    fn big_numbers_are_compared_by_all_digits() {
        let tree = json::tree("[9007199254740992, 9007199254740993]").unwrap();
        let query = JsonPath::parse("$[?@ > 9007199254740991]").unwrap();
        assert_eq!(query.select(&tree).unwrap().len(), 2);
        let query = JsonPath::parse("$[?@ == $[1]]").unwrap();
        assert_eq!(
            query.select(&tree).unwrap()[0].to_string(),
            "9007199254740993"
        );
    }
}
