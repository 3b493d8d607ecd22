//! Evaluation of a query within a number of steps.

use std::cmp::Ordering;

use jsonpath_rust::parser::model::{
    Comparable, Comparison, Filter, FilterAtom, FnArg, Literal, Segment, Selector, SingularQuery,
    SingularQuerySegment, Test, TestFunction,
};
use jsonpath_rust::query::state::State;
use serde_json::Value;

use super::children::{children, element, slice};
use super::{Step, TooCostly};

/// Steps that one try of a pattern counts for, because the pattern is built anew each time.
const PATTERN: u32 = 1_000;

/// A query while it goes through a document, with the steps that are left.
pub(super) struct Evaluation<'v> {
    root: &'v Value,
    left: u32,
}

/// Value of one side of a comparison.
enum Side<'v> {
    Nothing,
    Node(&'v Value),
    Made(Value),
}

impl Side<'_> {
    const fn value(&self) -> Option<&Value> {
        match self {
            Self::Nothing => None,
            Self::Node(value) => Some(value),
            Self::Made(value) => Some(value),
        }
    }
}

impl<'v> Evaluation<'v> {
    /// Evaluation that may take a number of steps.
    pub(super) const fn new(root: &'v Value, steps: u32) -> Self {
        Self { root, left: steps }
    }

    fn spend(&mut self, steps: u32) -> Step<()> {
        self.left = self.left.checked_sub(steps).ok_or(TooCostly)?;
        Ok(())
    }

    /// Follows the segments of a query from a value.
    pub(super) fn segments(
        &mut self,
        segments: &[Segment],
        from: &'v Value,
    ) -> Step<Vec<&'v Value>> {
        let mut nodes = vec![from];
        for segment in segments {
            let mut next = Vec::new();
            for node in nodes {
                self.segment(segment, node, &mut next)?;
            }
            nodes = next;
        }
        Ok(nodes)
    }

    fn segment(
        &mut self,
        segment: &Segment,
        node: &'v Value,
        out: &mut Vec<&'v Value>,
    ) -> Step<()> {
        match segment {
            Segment::Selector(selector) => self.selector(selector, node, out),
            Segment::Selectors(list) => {
                for selector in list {
                    self.selector(selector, node, out)?;
                }
                Ok(())
            }
            Segment::Descendant(inner) => {
                self.segment(inner, node, out)?;
                for child in children(node) {
                    self.spend(1)?;
                    self.segment(segment, child, out)?;
                }
                Ok(())
            }
        }
    }

    fn selector(
        &mut self,
        selector: &Selector,
        node: &'v Value,
        out: &mut Vec<&'v Value>,
    ) -> Step<()> {
        self.spend(1)?;
        match selector {
            Selector::Name(name) => out.extend(node.as_object().and_then(|map| map.get(name))),
            Selector::Index(index) => out.extend(element(node, *index)),
            Selector::Wildcard => {
                for child in children(node) {
                    self.spend(1)?;
                    out.push(child);
                }
            }
            Selector::Slice(start, end, step) => {
                for index in slice(
                    node.as_array().map_or(0, Vec::len),
                    *start,
                    *end,
                    step.unwrap_or(1),
                ) {
                    self.spend(1)?;
                    out.extend(node.get(index));
                }
            }
            Selector::Filter(filter) => {
                for child in children(node) {
                    self.spend(1)?;
                    if self.holds(filter, child)? {
                        out.push(child);
                    }
                }
            }
        }
        Ok(())
    }

    fn holds(&mut self, filter: &Filter, node: &'v Value) -> Step<bool> {
        self.spend(1)?;
        match filter {
            Filter::Or(list) => {
                for filter in list {
                    if self.holds(filter, node)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Filter::And(list) => {
                for filter in list {
                    if !self.holds(filter, node)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Filter::Atom(FilterAtom::Filter { expr, not }) => Ok(self.holds(expr, node)? != *not),
            Filter::Atom(FilterAtom::Test { expr, not }) => {
                let holds = match &**expr {
                    Test::Function(function) => {
                        matches!(
                            self.function(function, node)?.value(),
                            Some(Value::Bool(true))
                        )
                    }
                    query => !self.query(query, node)?.is_empty(),
                };
                Ok(holds != *not)
            }
            Filter::Atom(FilterAtom::Comparison(comparison)) => {
                let (left, right) = comparison.vals();
                let (left, right) = (self.side(left, node)?, self.side(right, node)?);
                self.compare(comparison, left.value(), right.value())
            }
        }
    }

    fn compare(
        &mut self,
        comparison: &Comparison,
        left: Option<&Value>,
        right: Option<&Value>,
    ) -> Step<bool> {
        let order = match (left, right) {
            (None, None) => Some(Ordering::Equal),
            (Some(Value::Number(left)), Some(Value::Number(right))) => number_order(left, right),
            (Some(Value::String(left)), Some(Value::String(right))) => {
                self.spend(length(left))?;
                Some(left.cmp(right))
            }
            // Other values have no order, but `<=` and `>=` hold for equal ones.
            (Some(left), Some(right)) => self.equal(left, right)?.then_some(Ordering::Equal),
            _ => None,
        };
        Ok(match comparison {
            Comparison::Eq(..) => order == Some(Ordering::Equal),
            Comparison::Ne(..) => order != Some(Ordering::Equal),
            Comparison::Lt(..) => order == Some(Ordering::Less),
            Comparison::Gt(..) => order == Some(Ordering::Greater),
            Comparison::Lte(..) => order.is_some_and(Ordering::is_le),
            Comparison::Gte(..) => order.is_some_and(Ordering::is_ge),
        })
    }

    fn equal(&mut self, left: &Value, right: &Value) -> Step<bool> {
        self.spend(1)?;
        match (left, right) {
            (Value::Number(left), Value::Number(right)) => {
                Ok(number_order(left, right) == Some(Ordering::Equal))
            }
            (Value::String(left), Value::String(right)) => {
                self.spend(length(left))?;
                Ok(left == right)
            }
            (Value::Array(left), Value::Array(right)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                for (left, right) in left.iter().zip(right) {
                    if !self.equal(left, right)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Value::Object(left), Value::Object(right)) => {
                if left.len() != right.len() {
                    return Ok(false);
                }
                for (key, left) in left {
                    match right.get(key) {
                        Some(right) if self.equal(left, right)? => {}
                        _ => return Ok(false),
                    }
                }
                Ok(true)
            }
            _ => Ok(left == right),
        }
    }

    fn query(&mut self, query: &Test, node: &'v Value) -> Step<Vec<&'v Value>> {
        match query {
            Test::RelQuery(segments) => self.segments(segments, node),
            Test::AbsQuery(query) => self.segments(&query.segments, self.root),
            Test::Function(_) => Ok(Vec::new()),
        }
    }

    fn side(&mut self, side: &Comparable, node: &'v Value) -> Step<Side<'v>> {
        self.spend(1)?;
        Ok(match side {
            Comparable::Literal(literal) => Side::Made(value(literal)),
            Comparable::Function(function) => self.function(function, node)?,
            Comparable::SingularQuery(query) => {
                let (mut at, segments) = match query {
                    SingularQuery::Current(segments) => (node, segments),
                    SingularQuery::Root(segments) => (self.root, segments),
                };
                for segment in segments {
                    let next = match segment {
                        SingularQuerySegment::Name(name) => {
                            at.as_object().and_then(|map| map.get(name))
                        }
                        SingularQuerySegment::Index(index) => element(at, *index),
                    };
                    match next {
                        Some(next) => at = next,
                        None => return Ok(Side::Nothing),
                    }
                }
                Side::Node(at)
            }
        })
    }

    fn function(&mut self, function: &TestFunction, node: &'v Value) -> Step<Side<'v>> {
        Ok(match function {
            TestFunction::Length(of) => {
                let mut spent = 0;
                let count = match self.argument(of, node)?.value() {
                    Some(Value::String(text)) => {
                        spent = length(text);
                        Some(text.chars().count())
                    }
                    Some(Value::Array(list)) => Some(list.len()),
                    Some(Value::Object(map)) => Some(map.len()),
                    _ => None,
                };
                self.spend(spent)?;
                count.map_or(Side::Nothing, |count| Side::Made(count.into()))
            }
            TestFunction::Count(FnArg::Test(query)) => {
                Side::Made(self.query(query, node)?.len().into())
            }
            TestFunction::Value(FnArg::Test(query)) => match self.query(query, node)?[..] {
                [only] => Side::Node(only),
                _ => Side::Nothing,
            },
            TestFunction::Match(of, pattern) | TestFunction::Search(of, pattern) => {
                self.spend(PATTERN)?;
                let Some(Value::String(text)) = self.argument(of, node)?.value().cloned() else {
                    return Ok(Side::Made(false.into()));
                };
                self.spend(u32::try_from(text.len()).unwrap_or(u32::MAX))?;
                let text = FnArg::Literal(Literal::String(text));
                let function = match function {
                    TestFunction::Match(..) => TestFunction::Match(text, pattern.clone()),
                    _ => TestFunction::Search(text, pattern.clone()),
                };
                Side::Made(
                    function
                        .apply(State::root(self.root))
                        .ok_val()
                        .unwrap_or_default(),
                )
            }
            TestFunction::Count(_) | TestFunction::Value(_) | TestFunction::Custom(..) => {
                Side::Nothing
            }
        })
    }

    fn argument(&mut self, argument: &FnArg, node: &'v Value) -> Step<Side<'v>> {
        Ok(match argument {
            FnArg::Literal(literal) => Side::Made(value(literal)),
            FnArg::Filter(filter) => Side::Made(self.holds(filter, node)?.into()),
            FnArg::Test(test) => match &**test {
                Test::Function(function) => self.function(function, node)?,
                query => self
                    .query(query, node)?
                    .first()
                    .map_or(Side::Nothing, |value| Side::Node(value)),
            },
        })
    }
}

fn value(literal: &Literal) -> Value {
    match literal {
        Literal::Int(number) => (*number).into(),
        Literal::Float(number) => (*number).into(),
        Literal::String(text) => text.clone().into(),
        Literal::Bool(yes) => (*yes).into(),
        Literal::Null => Value::Null,
    }
}

/// Steps that reading a text counts for.
fn length(text: &str) -> u32 {
    u32::try_from(text.len() / 64).unwrap_or(u32::MAX)
}

/// Order of two numbers: whole numbers by all their digits, others as doubles.
fn number_order(left: &serde_json::Number, right: &serde_json::Number) -> Option<Ordering> {
    match (
        left.as_str().parse::<i128>(),
        right.as_str().parse::<i128>(),
    ) {
        (Ok(left), Ok(right)) => Some(left.cmp(&right)),
        _ => left
            .as_str()
            .parse::<f64>()
            .ok()?
            .partial_cmp(&right.as_str().parse::<f64>().ok()?),
    }
}
