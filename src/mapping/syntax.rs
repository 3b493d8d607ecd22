//! Templates as a tree, for those who look for something in them before they are rendered.
//!
//! The tree is that of the engine's own parser, which it offers without a promise of stability: its version is fixed, and
//! tests of those who use it hold what they find.

use minijinja::machinery::ast::{CallArg, Expr, Stmt};
use minijinja::machinery::parse;

/// Hands on each expression that stands by itself in a template, but not those inside of it ([`children`]). False: the
/// template cannot be parsed.
pub(super) fn expressions(source: &str, each: &mut impl FnMut(&Expr<'_>)) -> bool {
    let Ok(root) = parse(source, "", Default::default()) else {
        return false;
    };
    statement(&root, each);
    true
}

fn statements(list: &[Stmt<'_>], each: &mut impl FnMut(&Expr<'_>)) {
    for one in list {
        statement(one, each);
    }
}

fn statement(one: &Stmt<'_>, each: &mut impl FnMut(&Expr<'_>)) {
    match one {
        Stmt::Template(template) => statements(&template.children, each),
        Stmt::EmitExpr(emit) => each(&emit.expr),
        Stmt::ForLoop(all) => {
            each(&all.iter);
            all.filter_expr.iter().for_each(&mut *each);
            statements(&all.body, each);
            statements(&all.else_body, each);
        }
        Stmt::IfCond(condition) => {
            each(&condition.expr);
            statements(&condition.true_body, each);
            statements(&condition.false_body, each);
        }
        Stmt::WithBlock(with) => {
            with.assignments.iter().for_each(|(_, expr)| each(expr));
            statements(&with.body, each);
        }
        Stmt::Set(set) => each(&set.expr),
        Stmt::SetBlock(set) => {
            set.filter.iter().for_each(&mut *each);
            statements(&set.body, each);
        }
        Stmt::AutoEscape(block) => statements(&block.body, each),
        Stmt::FilterBlock(block) => {
            each(&block.filter);
            statements(&block.body, each);
        }
        Stmt::Macro(called) => statements(&called.body, each),
        Stmt::CallBlock(block) => {
            block.call.args.iter().map(argument).for_each(&mut *each);
            statements(&block.macro_decl.body, each);
        }
        Stmt::Do(call) => call.call.args.iter().map(argument).for_each(each),
        Stmt::EmitRaw(_) => {}
    }
}

/// Hands on the expressions that an expression is made of.
pub(super) fn children(expr: &Expr<'_>, each: &mut impl FnMut(&Expr<'_>)) {
    match expr {
        Expr::Var(_) | Expr::Const(_) => {}
        Expr::Slice(slice) => {
            each(&slice.expr);
            [&slice.start, &slice.stop, &slice.step]
                .into_iter()
                .flatten()
                .for_each(each);
        }
        Expr::UnaryOp(unary) => each(&unary.expr),
        Expr::BinOp(binary) => [&binary.left, &binary.right].into_iter().for_each(each),
        Expr::Compare(compare) => {
            each(&compare.expr);
            compare.ops.iter().for_each(|op| each(&op.expr));
        }
        Expr::IfExpr(choice) => {
            each(&choice.true_expr);
            each(&choice.test_expr);
            choice.false_expr.iter().for_each(each);
        }
        Expr::Filter(filter) => filter
            .expr
            .iter()
            .chain(filter.args.iter().map(argument))
            .for_each(each),
        Expr::Test(test) => {
            each(&test.expr);
            test.args.iter().map(argument).for_each(each);
        }
        Expr::GetAttr(get) => each(&get.expr),
        Expr::GetItem(get) => {
            each(&get.expr);
            each(&get.subscript_expr);
        }
        Expr::Call(call) => {
            each(&call.expr);
            call.args.iter().map(argument).for_each(each);
        }
        Expr::List(list) => list.items.iter().for_each(each),
        Expr::Tuple(tuple) => tuple.items.iter().for_each(each),
        Expr::Map(map) => map.keys.iter().chain(&map.values).for_each(each),
    }
}

/// The expression of an argument, however it is passed.
pub(super) const fn argument<'e, 's>(argument: &'e CallArg<'s>) -> &'e Expr<'s> {
    match argument {
        CallArg::Pos(expr)
        | CallArg::Kwarg(_, expr)
        | CallArg::PosSplat(expr)
        | CallArg::KwargSplat(expr) => expr,
    }
}
