//! Numbers in templates: they print with the digits that the sender wrote, and calculate as numbers.
//!
//! The engine's own numbers are integers of 128 bits and doubles. A number that they would print in another way (19.90,
//! 1e400, -0) is an object that knows its spelling. The engine cannot calculate with objects, so a template is given a
//! hidden filter at each operand of an operator, of a test and of a filter for numbers: it turns such an object into the
//! nearest number. The places are found in the template's tree ([`super::syntax`]).

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use minijinja::machinery::ast::{BinOpKind, Expr, UnaryOpKind};
use minijinja::value::{DynObject, Object, ObjectRepr, Value, ValueKind};
use minijinja::{Environment, Error, State};

use super::syntax::{argument, children, expressions};

/// The hidden filter.
const FILTER: &str = "__number";

/// Filters that want numbers. What they give back prints as the engine prints it.
const FOR_NUMBERS: [&str; 14] = [
    "abs",
    "bool",
    "float",
    "format",
    "int",
    "max",
    "min",
    "reject",
    "rejectattr",
    "round",
    "select",
    "selectattr",
    "sort",
    "sum",
];

/// A number whose spelling the engine would change.
#[derive(Debug)]
pub(super) struct SpelledNumber {
    digits: String,
    near: f64,
}

impl Object for SpelledNumber {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        self.near != 0.0
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        let other = other.downcast_ref::<Self>()?;
        Some(
            self.near
                .total_cmp(&other.near)
                .then_with(|| self.digits.cmp(&other.digits)),
        )
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.digits)
    }
}

/// The digits of a number that is spelled in its own way.
pub(super) fn digits(value: &Value) -> Option<&str> {
    value
        .downcast_object_ref::<SpelledNumber>()
        .map(|number| number.digits.as_str())
}

/// A number of a document, by its spelling there.
pub(super) fn number(spelled: &str) -> Value {
    let whole = spelled
        .parse::<i64>()
        .map(Value::from)
        .or_else(|_| spelled.parse::<i128>().map(Value::from))
        .ok();
    let double = || {
        spelled
            .parse::<f64>()
            .ok()
            .filter(|double| double.is_finite())
            .map(Value::from)
    };
    match whole
        .or_else(double)
        .filter(|value| value.to_string() == spelled)
    {
        Some(value) => value,
        None => {
            let near = spelled.parse().unwrap_or(f64::NAN);
            Value::from_object(SpelledNumber {
                digits: spelled.to_owned(),
                near,
            })
        }
    }
}

/// Adds the hidden filter.
pub(super) fn add_filter(environment: &mut Environment<'_>) {
    environment.add_filter(FILTER, |state: &mut State<'_, '_>, value: &Value| {
        counted(state, value, 0)
    });
}

/// A value with numbers that can be calculated with, also inside lists and objects.
fn counted(state: &mut State<'_, '_>, value: &Value, depth: u32) -> Result<Value, Error> {
    if let Some(number) = value.downcast_object_ref::<SpelledNumber>() {
        return Ok(Value::from(number.near));
    }
    if depth > crate::json::DEPTH || !holds_spelled(state, value, depth)? {
        return Ok(value.clone());
    }
    Ok(match value.kind() {
        ValueKind::Seq => {
            let items: Vec<Value> = value.try_iter()?.collect();
            let items: Result<Vec<Value>, Error> = items
                .iter()
                .map(|item| counted(state, item, depth + 1))
                .collect();
            Value::from(items?)
        }
        ValueKind::Map => {
            let mut pairs = Vec::new();
            for key in value.try_iter()? {
                let item = value.get_item(&key)?;
                pairs.push((key, counted(state, &item, depth + 1)?));
            }
            Value::from_pairs(pairs)
        }
        _ => value.clone(),
    })
}

/// True if a value contains a number with its own spelling.
fn holds_spelled(state: &mut State<'_, '_>, value: &Value, depth: u32) -> Result<bool, Error> {
    state.consume_fuel(1)?;
    if depth > crate::json::DEPTH {
        return Ok(false);
    }
    match value.kind() {
        ValueKind::Plain => Ok(digits(value).is_some()),
        ValueKind::Seq => {
            for item in value.try_iter()? {
                if holds_spelled(state, &item, depth + 1)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        ValueKind::Map => {
            for key in value.try_iter()? {
                if holds_spelled(state, &value.get_item(&key)?, depth + 1)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Ok(false),
    }
}

/// A template with the hidden filter where it calculates. One that cannot be parsed is left alone.
pub(super) fn calculating(source: String) -> String {
    let mut places = Insertions::default();
    if !expressions(&source, &mut |expr| places.walk(expr)) {
        return source;
    }
    let Insertions(mut places) = places;
    if places.is_empty() {
        return source;
    }
    // Insertions at one place keep their order.
    places.sort_by_key(|(at, _)| *at);
    let mut whole = String::with_capacity(source.len() + places.len() * 12);
    let mut from = 0;
    for (at, what) in places {
        // A place outside the text would be the parser's mistake.
        let Some(piece) = source.get(from..at) else {
            return source;
        };
        whole.push_str(piece);
        whole.push_str(what);
        from = at;
    }
    whole.push_str(source.get(from..).unwrap_or_default());
    whole
}

/// Texts to insert into a template, each with its offset.
#[derive(Default)]
struct Insertions(Vec<(usize, &'static str)>);

impl Insertions {
    /// Looks for operators in an expression.
    fn walk(&mut self, expr: &Expr<'_>) {
        match expr {
            Expr::UnaryOp(unary) => match unary.op {
                UnaryOpKind::Not => self.walk(&unary.expr),
                UnaryOpKind::Neg => {
                    self.walk(&unary.expr);
                    if is_value(&unary.expr) {
                        // A filter behind it would be one of the negated value.
                        self.0.push((unary.span().start_offset as usize + 1, "("));
                        self.0.push((end(&unary.expr), "|__number)"));
                    }
                }
            },
            Expr::BinOp(binary) => {
                let is_operator = !matches!(
                    binary.op,
                    BinOpKind::ScAnd | BinOpKind::ScOr | BinOpKind::Concat
                );
                for side in [&binary.left, &binary.right] {
                    if is_operator {
                        self.operand(side)
                    } else {
                        self.walk(side)
                    }
                }
            }
            Expr::Compare(compare) => {
                self.operand(&compare.expr);
                compare.ops.iter().for_each(|op| self.operand(&op.expr));
            }
            Expr::Filter(filter) => {
                let is_for_numbers = FOR_NUMBERS.contains(&filter.name);
                for expr in filter.expr.iter().chain(filter.args.iter().map(argument)) {
                    if is_for_numbers {
                        self.operand(expr)
                    } else {
                        self.walk(expr)
                    }
                }
            }
            Expr::Test(test) => {
                if matches!(test.name, "defined" | "undefined" | "none") {
                    self.walk(&test.expr);
                } else {
                    self.operand(&test.expr);
                }
                test.args
                    .iter()
                    .for_each(|one| self.argument(argument(one)));
            }
            _ => children(expr, &mut |expr| self.walk(expr)),
        }
    }

    /// An expression whose value is calculated with.
    fn operand(&mut self, expr: &Expr<'_>) {
        match expr {
            Expr::IfExpr(choice) => {
                self.operand(&choice.true_expr);
                self.walk(&choice.test_expr);
                choice.false_expr.iter().for_each(|expr| self.operand(expr));
            }
            Expr::BinOp(binary) if matches!(binary.op, BinOpKind::ScAnd | BinOpKind::ScOr) => {
                self.operand(&binary.left);
                self.operand(&binary.right);
            }
            Expr::List(list) => list.items.iter().for_each(|expr| self.operand(expr)),
            Expr::Tuple(tuple) => tuple.items.iter().for_each(|expr| self.operand(expr)),
            _ => {
                self.walk(expr);
                if is_value(expr) {
                    self.0.push((end(expr), "|__number"));
                }
            }
        }
    }

    /// The argument of a test, which may stand there without brackets, where no filter can follow it.
    fn argument(&mut self, expr: &Expr<'_>) {
        match start(expr) {
            Some(start) => {
                self.walk(expr);
                self.0.push((start, "("));
                self.0.push((end(expr), "|__number)"));
            }
            None => self.walk(expr),
        }
    }
}

/// True if an expression can have a number of the event as its value.
const fn is_value(expr: &Expr<'_>) -> bool {
    matches!(
        expr,
        Expr::Var(_)
            | Expr::GetAttr(_)
            | Expr::GetItem(_)
            | Expr::Filter(_)
            | Expr::Call(_)
            | Expr::Slice(_)
    )
}

fn end(expr: &Expr<'_>) -> usize {
    expr.span().end_offset as usize
}

/// Offset at which a chain of names begins.
fn start(expr: &Expr<'_>) -> Option<usize> {
    match expr {
        Expr::Var(variable) => Some(variable.span().start_offset as usize),
        Expr::GetAttr(get) => start(&get.expr),
        Expr::GetItem(get) => start(&get.expr),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a13_a_number_prints_as_it_was_sent() {
        for spelled in [
            "19.90",
            "1e400",
            "-0",
            "0",
            "12345678901234567890",
            "1E5",
            "1.0",
            "0.1",
            "-0.0",
            "1e-400",
            "5.00",
        ] {
            assert_eq!(number(spelled).to_string(), spelled);
        }
        let long = "9".repeat(60);
        assert_eq!(number(&long).to_string(), long);
        assert!(number("0.5").is_number() && number("7").is_integer());
        assert!(!number("0.00").is_true() && number("1e400").is_true());
    }

    #[test]
    fn operands_are_found_wherever_they_stand() {
        for (written, wanted) in [
            ("{{ a.b }}", "{{ a.b }}"),
            ("{{ a > 5 }}", "{{ a|__number > 5 }}"),
            (
                "{{ a.b[0] + (c | default(0)) * -d.e }}",
                "{{ a.b[0]|__number + (c | default(0)|__number) * -(d.e|__number) }}",
            ),
            (
                "{% if 1 < a <= b and c %}{% endif %}",
                "{% if 1 < a|__number <= b|__number and c %}{% endif %}",
            ),
            (
                "{{ (a if b else c) == d }}",
                "{{ (a|__number if b else c|__number) == d|__number }}",
            ),
            ("{{ (a or b) > 1 }}", "{{ (a|__number or b|__number) > 1 }}"),
            ("{{ a ~ b | round(2) }}", "{{ a ~ b|__number | round(2) }}"),
            (
                "{{ a is number }}{{ a is gt b.c }}{{ a is defined }}",
                "{{ a|__number is number }}{{ a|__number is gt (b.c|__number) }}{{ a is defined }}",
            ),
            ("{{ a in [b, 2] }}", "{{ a|__number in [b|__number, 2] }}"),
            (
                "{% for x in a if x > 1 %}{{ x }}{% endfor %}",
                "{% for x in a if x|__number > 1 %}{{ x }}{% endfor %}",
            ),
            (
                "{{ \"%.2f\" | format(a) }}",
                "{{ \"%.2f\" | format(a|__number) }}",
            ),
            ("{{ a >", "{{ a >"),
        ] {
            assert_eq!(calculating(written.to_owned()), wanted);
        }
    }
}
