//! Check of a parsed query.

use jsonpath_rust::parser::model::{
    Comparable, Filter, FilterAtom, FnArg, Literal, Segment, Selector, Test, TestFunction,
};

/// Refuses queries that the parser takes and the RFC does not, and patterns that come from documents.
pub(super) fn check(segments: &[Segment]) -> Result<(), String> {
    for segment in segments {
        match segment {
            Segment::Descendant(inner) => check(std::slice::from_ref(inner))?,
            Segment::Selector(selector) => check_selector(selector)?,
            Segment::Selectors(list) => list.iter().try_for_each(check_selector)?,
        }
    }
    Ok(())
}

fn check_selector(selector: &Selector) -> Result<(), String> {
    match selector {
        Selector::Filter(filter) => check_filter(filter),
        _ => Ok(()),
    }
}

fn check_filter(filter: &Filter) -> Result<(), String> {
    match filter {
        Filter::Or(list) | Filter::And(list) => list.iter().try_for_each(check_filter),
        Filter::Atom(FilterAtom::Filter { expr, .. }) => check_filter(expr),
        Filter::Atom(FilterAtom::Test { expr, .. }) => match &**expr {
            Test::RelQuery(segments) => check(segments),
            Test::AbsQuery(query) => check(&query.segments),
            Test::Function(function) => {
                if !matches!(
                    **function,
                    TestFunction::Match(..) | TestFunction::Search(..)
                ) {
                    return Err(format!("{function} has to be compared with something"));
                }
                check_function(function)
            }
        },
        Filter::Atom(FilterAtom::Comparison(comparison)) => {
            let (left, right) = comparison.vals();
            for side in [left, right] {
                if let Comparable::Function(function) = side {
                    check_function(function)?;
                }
            }
            Ok(())
        }
    }
}

fn check_function(function: &TestFunction) -> Result<(), String> {
    match function {
        TestFunction::Length(of) => check_value(function, of),
        TestFunction::Count(of) | TestFunction::Value(of) => match of {
            FnArg::Test(test) if !matches!(**test, Test::Function(_)) => check_argument(of),
            _ => Err(format!("{function} takes a query")),
        },
        TestFunction::Match(of, pattern) | TestFunction::Search(of, pattern) => {
            check_value(function, of)?;
            match pattern {
                FnArg::Literal(Literal::String(_)) => Ok(()),
                _ => Err(format!(
                    "{function}: the pattern must be a text in the query itself"
                )),
            }
        }
        TestFunction::Custom(name, _) => Err(format!("there is no function {name}")),
    }
}

/// Checks an argument that has to be one value.
fn check_value(function: &TestFunction, argument: &FnArg) -> Result<(), String> {
    let single = match argument {
        FnArg::Literal(_) => true,
        FnArg::Filter(_) => false,
        FnArg::Test(test) => match &**test {
            Test::RelQuery(segments) => singular(segments),
            Test::AbsQuery(query) => singular(&query.segments),
            Test::Function(inner) => inner.is_comparable(),
        },
    };
    if single {
        check_argument(argument)
    } else {
        Err(format!("{function} takes one value"))
    }
}

fn check_argument(argument: &FnArg) -> Result<(), String> {
    match argument {
        FnArg::Literal(_) => Ok(()),
        FnArg::Filter(filter) => check_filter(filter),
        FnArg::Test(test) => match &**test {
            Test::RelQuery(segments) => check(segments),
            Test::AbsQuery(query) => check(&query.segments),
            Test::Function(function) => check_function(function),
        },
    }
}

fn singular(segments: &[Segment]) -> bool {
    segments.iter().all(|segment| {
        matches!(
            segment,
            Segment::Selector(Selector::Name(_) | Selector::Index(_))
        )
    })
}
