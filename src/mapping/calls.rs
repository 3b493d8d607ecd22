//! Names of filters, tests and methods that a template calls, checked when the configuration is read. The engine looks
//! names up while it renders, which is too late: every event would fail. So the names are taken from the template's tree
//! ([`super::syntax`]).

use std::collections::BTreeSet;

use minijinja::machinery::ast::{CallArg, Expr};
use minijinja::value::Value;
use minijinja::{Environment, ErrorKind};

use super::syntax::{children, expressions};
use crate::config::section::nearest;

/// Names that a template calls.
#[derive(Debug, Default, PartialEq, Eq)]
struct Calls {
    filters: BTreeSet<String>,
    tests: BTreeSet<String>,
    methods: BTreeSet<String>,
}

/// Objects of the engine that have methods.
const WITH_METHODS: [&str; 2] = ["loop", "self"];

/// Filters of the engine and of Jinja, to suggest one for a mistyped name.
const FILTERS: [&str; 37] = [
    "abs",
    "batch",
    "bool",
    "capitalize",
    "count",
    "default",
    "dictsort",
    "escape",
    "first",
    "float",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "upper",
];

/// Tests of the engine.
const TESTS: [&str; 20] = [
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "even",
    "false",
    "float",
    "in",
    "integer",
    "iterable",
    "lower",
    "mapping",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "string",
    "true",
];

/// Finds the names that a template calls and that do not exist, each with a hint. A template that cannot be parsed gives
/// no names; its mistake is reported elsewhere.
pub(super) fn unknown(environment: &Environment<'_>, source: &str) -> Vec<(String, String)> {
    let mut calls = Calls::default();
    if !expressions(source, &mut |expr| calls.walk(expr)) {
        return Vec::new();
    }
    let near = |name: &str, known: &[&'static str], whole: &str| {
        let known = nearest(name, known.iter().copied().filter(|known| *known != name));
        known.map_or_else(|| whole.to_owned(), |near| format!("did you mean {near}?"))
    };
    let filters = calls
        .filters
        .iter()
        .filter(|name| is_missing(environment, name, true));
    let filters = filters.map(|name| {
        let hint = near(
            name,
            &FILTERS,
            "there are default, tojson, lower, upper, trim, replace, join, length, first and others",
        );
        (format!("there is no filter {name}"), hint)
    });
    let tests = calls
        .tests
        .iter()
        .filter(|name| is_missing(environment, name, false));
    let tests = tests.map(|name| {
        let hint = near(
            name,
            &TESTS,
            "there are defined, none, string, number, sequence, mapping, startingwith and others",
        );
        (format!("there is no test {name}"), hint)
    });
    let methods = calls.methods.iter().map(|name| {
        let hint = match FILTERS.contains(&name.as_str()) {
            true => format!("write the filter instead: value | {name}"),
            false => "values have no methods: use filters, for example value | lower".to_owned(),
        };
        (format!("there is no method .{name}()"), hint)
    });
    filters.chain(tests).chain(methods).collect()
}

/// True if the engine has no filter (or test) with this name.
fn is_missing(environment: &Environment<'_>, name: &str, is_filter: bool) -> bool {
    let (expression, kind) = match is_filter {
        true => (format!("x|{name}"), ErrorKind::UnknownFilter),
        false => (format!("x is {name}"), ErrorKind::UnknownTest),
    };
    // Any other error, such as a missing argument, shows that the name is known.
    let tried = environment
        .compile_expression(&expression)
        .and_then(|call| call.eval(Value::UNDEFINED));
    tried.is_err_and(|error| error.kind() == kind)
}

impl Calls {
    fn walk(&mut self, expr: &Expr<'_>) {
        match expr {
            Expr::Filter(filter) => {
                self.filters.insert(filter.name.to_owned());
                self.arguments(filter.name, &filter.args);
            }
            Expr::Test(test) => drop(self.tests.insert(test.name.to_owned())),
            Expr::Call(call) => {
                if let Expr::GetAttr(get) = &call.expr
                    && !matches!(&get.expr, Expr::Var(of) if WITH_METHODS.contains(&of.id))
                {
                    self.methods.insert(get.name.to_owned());
                }
            }
            _ => {}
        }
        children(expr, &mut |expr| self.walk(expr));
    }

    /// Collects names of filters and tests that a filter takes as a string.
    fn arguments(&mut self, filter: &str, arguments: &[CallArg<'_>]) {
        let text = |at: usize| match arguments.get(at) {
            Some(CallArg::Pos(expr)) => expr
                .as_const()
                .and_then(|value| value.as_str().map(str::to_owned)),
            _ => None,
        };
        match filter {
            "map" => self.filters.extend(text(0)),
            "select" | "reject" => self.tests.extend(text(0)),
            "selectattr" | "rejectattr" => self.tests.extend(text(1)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(source: &str) -> Vec<String> {
        let environment = Environment::new();
        unknown(&environment, source)
            .into_iter()
            .map(|(what, hint)| format!("{what}: {hint}"))
            .collect()
    }

    #[test]
    fn a16_unknown_filters_tests_and_methods_are_found_wherever_they_stand() {
        for (source, wanted) in [
            ("{{ body.x | foo }}", "no filter foo"),
            ("{{ body.x | lowr }}", "did you mean lower?"),
            (
                "{{ 'a' if body.x is strng else 'b' }}",
                "did you mean string?",
            ),
            ("{% if body.x is not seen %}a{% endif %}", "no test seen"),
            (
                "{% for x in body.list | sortd %}{{ x }}{% endfor %}",
                "did you mean sort?",
            ),
            ("{% filter uper %}a{% endfilter %}", "did you mean upper?"),
            ("{% set a = body.x | foo(1) %}{{ a }}", "no filter foo"),
            ("{{ [1, {'a': body.x | foo}] }}", "no filter foo"),
            (
                "{{ body.list | map('uppr') | join }}",
                "did you mean upper?",
            ),
            (
                "{{ body.list | select('odds') | list }}",
                "did you mean odd?",
            ),
            (
                "{{ body.list | selectattr('a', 'eqq', 1) | list }}",
                "did you mean eq?",
            ),
            ("{{ body.x.upper() }}", "value | upper"),
            ("{{ body.x.strip() }}", "no method .strip()"),
        ] {
            let said = said(source);
            assert!(
                said.len() == 1 && said[0].contains(wanted),
                "{source}: {said:?}"
            );
        }
    }

    #[test]
    fn a16_what_the_engine_knows_is_not_complained_of() {
        for source in [
            "{{ body.x | default('') | upper | replace('A', 'b') }}",
            "{{ body.list | map(attribute='a') | join(', ') }}",
            "{% for x in body.list %}{{ loop.cycle('a', 'b') }}{% endfor %}",
            "{% if body.x is defined and body.x is not none and body.y is divisibleby 3 %}a{% endif %}",
            "{{ body.list | batch(2) | list }}{{ range(3) }}{{ body.x | slice(2) | list }}",
            "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1) }}",
            "{{ broken",
        ] {
            assert_eq!(said(source), Vec::<String>::new(), "{source}");
        }
        for (names, is_filter) in [(&FILTERS[..], true), (&TESTS[..], false)] {
            let environment = Environment::new();
            let missing: Vec<&&str> = names
                .iter()
                .filter(|name| **name != "tojson" && is_missing(&environment, name, is_filter))
                .collect();
            assert!(missing.is_empty(), "{missing:?}");
        }
    }
}
