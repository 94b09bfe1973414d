//! What is done to a program between its text and the engine's compiler.
//!
//! - `.field ?? default`, where the field can't fail but may be null or missing, gives the default. The engine refuses it, as
//!   it means errors only; here it is how a field that may not be there is asked for on purpose.
//! - For checking only, each read of a field gets a probe, which notes the type of what the field is read from: with the types
//!   of closures' items and of variables known there, a field that doesn't exist is found wherever it is read.

use std::ops::Range;
use vrl::parser::Program;
use vrl::parser::ast::{
    Abort, Array, Assignment, Block, Container, Expr, FunctionArgument, FunctionCall, FunctionClosure, Group, Ident,
    IfStatement, Literal, Node, Not, Object, Op, Opcode, Predicate, Query, QueryTarget, Return, RootExpr, Unary,
};
use vrl::path::{OwnedValuePath, PathPrefix};

/// The function that gives its second argument where the first is null.
pub(super) const DEFAULT: &str = "__default";
/// The function that notes its argument's type.
pub(super) const PROBE: &str = "__probe";
/// Functions whose argument must stay the path that it is.
const BY_PATH: [&str; 3] = ["del", "exists", "unnest"];

/// A read of a field.
#[derive(Clone, Debug)]
pub(super) struct Read {
    /// Where it stands.
    pub(super) span: Range<usize>,
    /// From what.
    pub(super) of: Subject,
    /// The field in there.
    pub(super) path: OwnedValuePath,
    /// By a function that takes the path itself; there is no probe then.
    pub(super) by_path: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Document,
    Event,
    Variable,
}

/// Rewrites a program for running.
pub(super) fn for_running(program: Program) -> Program {
    Rewrite { reads: None }.program(program)
}

/// Rewrites a program for checking; gives its reads, by the number that their probes have.
pub(super) fn for_checking(program: Program) -> (Program, Vec<Read>) {
    let mut rewrite = Rewrite { reads: Some(Vec::new()) };
    let program = rewrite.program(program);
    (program, rewrite.reads.unwrap_or_default())
}

struct Rewrite {
    /// Probes are set while there is a list.
    reads: Option<Vec<Read>>,
}

impl Rewrite {
    fn program(&mut self, program: Program) -> Program {
        let root = |node: Node<RootExpr>| {
            node.map(|root| match root {
                RootExpr::Expr(expr) => RootExpr::Expr(self.expr(expr)),
                error @ RootExpr::Error(_) => error,
            })
        };
        Program(program.into_iter().map(root).collect())
    }

    fn boxed(&mut self, expr: Box<Node<Expr>>) -> Box<Node<Expr>> {
        Box::new(self.expr(*expr))
    }

    fn expr(&mut self, node: Node<Expr>) -> Node<Expr> {
        let span = node.span();
        node.map(|expr| match expr {
            Expr::Container(container) => Expr::Container(container.map(|c| self.container(c))),
            Expr::IfStatement(statement) => Expr::IfStatement(statement.map(|s| self.if_statement(s))),
            Expr::Op(op) => self.op(op),
            Expr::Assignment(assignment) => Expr::Assignment(assignment.map(|a| self.assignment(a))),
            Expr::Query(query) => Expr::Query(query.map(|q| self.query(range(span), q))),
            Expr::FunctionCall(call) => Expr::FunctionCall(call.map(|c| self.call(c))),
            Expr::Unary(unary) => Expr::Unary(unary.map(|Unary::Not(not)| {
                Unary::Not(not.map(|not| {
                    let (mark, expr) = not.take();
                    Not::new(mark.span(), self.expr(*expr))
                }))
            })),
            Expr::Abort(abort) => {
                Expr::Abort(abort.map(|abort| Abort { message: abort.message.map(|message| self.boxed(message)) }))
            }
            Expr::Return(value) => Expr::Return(value.map(|value| Return { expr: self.boxed(value.expr) })),
            same @ (Expr::Literal(_) | Expr::Variable(_) | Expr::Break(_)) => same,
        })
    }

    fn container(&mut self, container: Container) -> Container {
        match container {
            Container::Group(group) => {
                Container::Group(Box::new(group.map(|group| Group(self.expr(group.into_inner())))))
            }
            Container::Block(block) => Container::Block(self.block(block)),
            Container::Array(array) => {
                Container::Array(array.map(|items| items.into_iter().map(|item| self.expr(item)).collect::<Array>()))
            }
            Container::Object(object) => Container::Object(
                object
                    .map(|fields| fields.into_iter().map(|(name, value)| (name, self.expr(value))).collect::<Object>()),
            ),
        }
    }

    fn block(&mut self, block: Node<Block>) -> Node<Block> {
        block.map(|block| Block(block.into_iter().map(|expr| self.expr(expr)).collect()))
    }

    fn if_statement(&mut self, statement: IfStatement) -> IfStatement {
        let predicate = statement.predicate.map(|predicate| match predicate {
            Predicate::One(expr) => Predicate::One(self.boxed(expr)),
            Predicate::Many(exprs) => Predicate::Many(exprs.into_iter().map(|expr| self.expr(expr)).collect()),
        });
        let if_node = self.block(statement.if_node);
        IfStatement { predicate, if_node, else_node: statement.else_node.map(|block| self.block(block)) }
    }

    fn assignment(&mut self, assignment: Assignment) -> Assignment {
        match assignment {
            Assignment::Single { target, op, expr } => Assignment::Single { target, op, expr: self.boxed(expr) },
            Assignment::Infallible { ok, err, op, expr } => {
                Assignment::Infallible { ok, err, op, expr: self.boxed(expr) }
            }
        }
    }

    fn op(&mut self, op: Node<Op>) -> Expr {
        let span = op.span();
        let Op(left, code, right) = op.into_inner();
        if *code.inner() == Opcode::Err {
            // `a ?? b ?? c` is `(a ?? b) ?? c`; where `a` can't fail, it means `a ?? (b ?? c)`.
            let (mut first, mut rest) = (left, vec![right]);
            while let Expr::Op(inner) = first.inner()
                && *inner.inner().1.inner() == Opcode::Err
            {
                let Op(left, _, right) = inner.inner().clone();
                rest.push(right);
                first = left;
            }
            if is_plain(first.inner()) {
                let mut rest = rest.into_iter();
                let mut default = rest.next();
                for before in rest {
                    let Some(after) = default else { break };
                    let (start, end) = (before.start(), after.end());
                    let code = Node::new(code.span(), Opcode::Err);
                    let both = Op(before, code, after);
                    let both_span = vrl::diagnostic::Span::new(start, end);
                    default = Some(Box::new(Node::new(both_span, Expr::Op(Node::new(both_span, both)))));
                }
                let arguments = [*first].into_iter().chain(default.map(|default| self.expr(*default)));
                return call(span, DEFAULT, arguments);
            }
            rest.reverse();
            let mut folded = first;
            for right in rest {
                let both_span = vrl::diagnostic::Span::new(folded.start(), right.end());
                let both = Op(self.boxed(folded), Node::new(code.span(), Opcode::Err), self.boxed(right));
                folded = Box::new(Node::new(both_span, Expr::Op(Node::new(both_span, both))));
            }
            return folded.into_inner();
        }
        Expr::Op(Node::new(span, Op(self.boxed(left), code, self.boxed(right))))
    }

    fn query(&mut self, span: Range<usize>, query: Query) -> Query {
        let Query { target, path } = query;
        let target_span = target.span();
        let target = target.map(|target| match target {
            QueryTarget::FunctionCall(call) => QueryTarget::FunctionCall(self.call(call)),
            QueryTarget::Container(container) => QueryTarget::Container(self.container(container)),
            same @ (QueryTarget::Internal(_) | QueryTarget::External(_)) => same,
        });
        let (Some(reads), false) = (&mut self.reads, path.is_root()) else { return Query { target, path } };
        let (of, subject) = match target.inner() {
            QueryTarget::Internal(name) => (Subject::Variable, Expr::Variable(Node::new(target_span, name.clone()))),
            QueryTarget::External(prefix) => {
                let of = if *prefix == PathPrefix::Event { Subject::Document } else { Subject::Event };
                let root = Query { target: target.clone(), path: Node::new(path.span(), OwnedValuePath::root()) };
                (of, Expr::Query(Node::new(target_span, root)))
            }
            _ => return Query { target, path },
        };
        let number = i64::try_from(reads.len()).unwrap_or(i64::MAX);
        reads.push(Read { span, of, path: path.inner().clone(), by_path: false });
        let number = Expr::Literal(Node::new(target_span, Literal::Integer(number)));
        let arguments = [Node::new(target_span, subject), Node::new(target_span, number)];
        let Expr::FunctionCall(probe) = call(target_span, PROBE, arguments) else { return Query { target, path } };
        Query { target: Node::new(target_span, QueryTarget::FunctionCall(probe.into_inner())), path }
    }

    fn call(&mut self, call: FunctionCall) -> FunctionCall {
        let by_path = BY_PATH.contains(&&**call.ident.inner());
        let on_purpose = **call.ident.inner() == *"exists";
        let argument = |argument: Node<FunctionArgument>| {
            argument.map(|FunctionArgument { ident, expr }| match (by_path, expr.inner()) {
                (true, Expr::Query(query)) => {
                    if let (Some(reads), false, QueryTarget::External(prefix)) =
                        (&mut self.reads, on_purpose, query.target.inner())
                    {
                        let of = if *prefix == PathPrefix::Event { Subject::Document } else { Subject::Event };
                        let span = range(query.span());
                        reads.push(Read { span, of, path: query.path.inner().clone(), by_path: true });
                    }
                    FunctionArgument { ident, expr }
                }
                _ => FunctionArgument { ident, expr: self.expr(expr) },
            })
        };
        let arguments = call.arguments.into_iter().map(argument).collect();
        let closure = call.closure.map(|closure| {
            closure.map(|FunctionClosure { variables, block }| FunctionClosure { variables, block: self.block(block) })
        });
        FunctionCall { ident: call.ident, abort_on_error: call.abort_on_error, arguments, closure }
    }
}

/// Whether an expression can't fail, and may well be null.
fn is_plain(expr: &Expr) -> bool {
    match expr {
        Expr::Query(query) => matches!(query.target.inner(), QueryTarget::Internal(_) | QueryTarget::External(_)),
        Expr::Variable(_) => true,
        _ => false,
    }
}

fn call(span: vrl::diagnostic::Span, name: &str, arguments: impl IntoIterator<Item = Node<Expr>>) -> Expr {
    let argument = |expr: Node<Expr>| Node::new(expr.span(), FunctionArgument { ident: None, expr });
    Expr::FunctionCall(Node::new(
        span,
        FunctionCall {
            ident: Node::new(span, Ident::new(name)),
            abort_on_error: false,
            arguments: arguments.into_iter().map(argument).collect(),
            closure: None,
        },
    ))
}

fn range(span: vrl::diagnostic::Span) -> Range<usize> {
    span.start()..span.end()
}
