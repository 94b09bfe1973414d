//! Which fields of the event flow into which fields of the document, read off a program's text.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use vrl::parser::ast::{
    Assignment, AssignmentTarget, Block, Container, Expr, FunctionCall, IfStatement, Node, Op, Opcode, Predicate,
    Query, QueryTarget, RootExpr, Unary,
};
use vrl::parser::parse;
use vrl::path::{OwnedValuePath, PathPrefix};

/// One field of the document that a program sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The field: `total`, `copies[].shelf`; empty for the whole document.
    pub field: String,
    /// Where it is set, in the program.
    pub span: Range<usize>,
    /// What flows into it: `%data.total`, `.total`. Nothing where it is a constant.
    pub from: BTreeSet<String>,
    /// What decides whether it is set.
    pub when: BTreeSet<String>,
    /// What it is set to, as it is written.
    pub text: String,
    /// It is taken away.
    pub deleted: bool,
}

/// All that a program sets, in the order of the text. A program that doesn't parse sets nothing.
#[must_use]
pub fn flows(source: &str) -> Vec<Flow> {
    let Ok(program) = parse(source) else { return Vec::new() };
    let mut walk = Walk { source, variables: BTreeMap::new(), when: Vec::new(), flows: Vec::new() };
    for root in program {
        if let RootExpr::Expr(expr) = root.into_inner() {
            walk.expr(&expr);
        }
    }
    walk.flows
}

/// Where a value comes from, as far as possible part by part: `.name` a field, `[]` what a list holds.
#[derive(Clone, Debug, Default)]
struct Origin {
    from: BTreeSet<String>,
    parts: BTreeMap<String, Origin>,
}

impl Origin {
    fn one(source: String) -> Self {
        Self { from: BTreeSet::from([source]), parts: BTreeMap::new() }
    }

    fn part(&self, name: &str) -> Self {
        let mut part = self.parts.get(name).cloned().unwrap_or_default();
        // Of what has no parts that we know, the part is just as well known by its name.
        part.from.extend(self.from.iter().map(|source| join(source, name)));
        part
    }

    fn at(&self, path: &OwnedValuePath) -> Self {
        steps(path).iter().fold(self.clone(), |origin, step| origin.part(step))
    }

    fn merge(mut self, other: Self) -> Self {
        self.from.extend(other.from);
        for (name, part) in other.parts {
            let merged = self.parts.remove(&name).unwrap_or_default().merge(part);
            self.parts.insert(name, merged);
        }
        self
    }

    /// Everything that it comes from.
    fn all(&self) -> BTreeSet<String> {
        self.from.iter().cloned().chain(self.parts.values().flat_map(Self::all)).collect()
    }

    fn flat(&self) -> Self {
        Self { from: self.all(), parts: BTreeMap::new() }
    }
}

fn join(source: &str, step: &str) -> String {
    match (source, step.strip_prefix('.')) {
        ("%" | ".", Some(name)) => format!("{source}{name}"),
        _ => format!("{source}{step}"),
    }
}

/// A path's steps: `.name`, or `[]` for any index.
fn steps(path: &OwnedValuePath) -> Vec<String> {
    let step = |segment: &vrl::path::OwnedSegment| match segment {
        vrl::path::OwnedSegment::Field(name) => format!(".{name}"),
        vrl::path::OwnedSegment::Index(_) => "[]".to_owned(),
    };
    path.segments.iter().map(step).collect()
}

struct Walk<'a> {
    source: &'a str,
    variables: BTreeMap<String, Origin>,
    when: Vec<BTreeSet<String>>,
    flows: Vec<Flow>,
}

impl Walk<'_> {
    fn expr(&mut self, node: &Node<Expr>) -> Origin {
        match node.inner() {
            Expr::Literal(_) | Expr::Break(_) => Origin::default(),
            Expr::Container(container) => self.container(container),
            Expr::IfStatement(statement) => self.if_statement(statement),
            Expr::Op(op) => self.op(op),
            Expr::Assignment(assignment) => self.assignment(assignment),
            Expr::Query(query) => self.query(query),
            Expr::FunctionCall(call) => self.call(call),
            Expr::Variable(name) => self.variables.get(&***name).cloned().unwrap_or_default(),
            Expr::Unary(unary) => {
                let Unary::Not(not) = unary.inner();
                let (_, expr) = not.inner().clone().take();
                self.expr(&expr).flat()
            }
            Expr::Abort(abort) => abort.message.as_ref().map(|message| self.expr(message)).unwrap_or_default(),
            Expr::Return(value) => self.expr(&value.expr),
        }
    }

    fn container(&mut self, container: &Container) -> Origin {
        match container {
            Container::Group(group) => self.expr(&group.inner().clone().into_inner()),
            Container::Block(block) => self.block(block),
            Container::Array(items) => {
                let items = items.inner().clone().into_iter().map(|item| self.expr(&item));
                let items = items.reduce(Origin::merge).unwrap_or_default();
                Origin { from: BTreeSet::new(), parts: BTreeMap::from([("[]".to_owned(), items)]) }
            }
            Container::Object(fields) => {
                let fields = fields.inner().clone().into_iter();
                let parts = fields.map(|(name, value)| (format!(".{}", name.inner()), self.expr(&value))).collect();
                Origin { from: BTreeSet::new(), parts }
            }
        }
    }

    fn block(&mut self, block: &Block) -> Origin {
        block.0.iter().map(|expr| self.expr(expr)).last().unwrap_or_default()
    }

    fn if_statement(&mut self, statement: &IfStatement) -> Origin {
        let predicate = match statement.predicate.inner() {
            Predicate::One(expr) => self.expr(expr),
            Predicate::Many(exprs) => {
                exprs.iter().map(|expr| self.expr(expr)).reduce(Origin::merge).unwrap_or_default()
            }
        };
        self.when.push(predicate.all());
        let then = self.block(&statement.if_node);
        let otherwise = statement.else_node.as_ref().map(|block| self.block(block)).unwrap_or_default();
        self.when.pop();
        then.merge(otherwise)
    }

    fn op(&mut self, op: &Op) -> Origin {
        let (left, right) = (self.expr(&op.0), self.expr(&op.2));
        match op.1.inner() {
            Opcode::Err | Opcode::Or | Opcode::Merge => left.merge(right),
            _ => left.merge(right).flat(),
        }
    }

    fn query(&mut self, query: &Query) -> Origin {
        let target = match query.target.inner() {
            QueryTarget::External(PathPrefix::Event) => Origin::one(".".to_owned()),
            QueryTarget::External(PathPrefix::Metadata) => Origin::one("%".to_owned()),
            QueryTarget::Internal(name) => self.variables.get(&**name).cloned().unwrap_or_default(),
            QueryTarget::FunctionCall(call) => self.call(call),
            QueryTarget::Container(container) => self.container(container),
        };
        target.at(query.path.inner())
    }

    fn assignment(&mut self, assignment: &Assignment) -> Origin {
        let (targets, expr) = match assignment {
            Assignment::Single { target, expr, .. } => (vec![target], expr),
            Assignment::Infallible { ok, err, expr, .. } => (vec![ok, err], expr),
        };
        let origin = self.expr(expr);
        let text = self.source.get(expr.start()..expr.end()).unwrap_or_default().to_owned();
        for target in targets {
            let span = target.start()..target.end();
            match target.inner() {
                AssignmentTarget::Internal(name, None) => _ = self.variables.insert(name.to_string(), origin.clone()),
                AssignmentTarget::Internal(name, Some(_)) => {
                    let known = self.variables.remove(&**name).unwrap_or_default();
                    self.variables.insert(name.to_string(), known.merge(origin.clone()));
                }
                AssignmentTarget::External(None) => self.set(String::new(), &span, &origin, &text),
                AssignmentTarget::External(Some(path)) if path.prefix == PathPrefix::Event => {
                    self.set(steps(&path.path).concat(), &span, &origin, &text);
                }
                AssignmentTarget::Query(query)
                    if matches!(query.target.inner(), QueryTarget::External(PathPrefix::Event)) =>
                {
                    self.set(steps(query.path.inner()).concat(), &span, &origin, &text);
                }
                _ => {}
            }
        }
        origin
    }

    fn set(&mut self, field: String, span: &Range<usize>, origin: &Origin, text: &str) {
        for (name, part) in &origin.parts {
            self.set(format!("{field}{name}"), span, part, text);
        }
        if origin.parts.is_empty() || !origin.from.is_empty() {
            self.flow(field, span.clone(), origin.from.clone(), text, false);
        }
    }

    fn flow(&mut self, field: String, span: Range<usize>, from: BTreeSet<String>, text: &str, deleted: bool) {
        let field = field.strip_prefix('.').unwrap_or(&field).to_owned();
        let when = self.when.iter().flatten().cloned().collect();
        let flow = Flow { field, span, from, when, text: text.to_owned(), deleted };
        if !self.flows.contains(&flow) {
            self.flows.push(flow);
        }
    }

    fn call(&mut self, call: &FunctionCall) -> Origin {
        let name: &str = call.ident.inner();
        if let ("del", Some(Expr::Query(query))) = (name, call.arguments.first().map(|a| a.expr.inner()))
            && let QueryTarget::External(PathPrefix::Event) = query.target.inner()
        {
            let field = steps(query.path.inner()).concat();
            self.flow(field, query.start()..query.end(), BTreeSet::new(), "", true);
        }
        let arguments: Vec<Origin> = call.arguments.iter().map(|argument| self.expr(&argument.expr)).collect();
        let first = arguments.first().cloned().unwrap_or_default();
        let body = call.closure.as_ref().map(|closure| {
            let item = first.part("[]");
            let names: Vec<String> = closure.variables.iter().map(|v| v.to_string()).collect();
            let before = self.variables.clone();
            if let Some(last) = names.last() {
                self.variables.insert(last.clone(), item);
            }
            let body = self.block(&closure.block);
            for name in names {
                match before.get(&name) {
                    Some(origin) => _ = self.variables.insert(name, origin.clone()),
                    None => _ = self.variables.remove(&name),
                }
            }
            body
        });
        let list = |item| Origin { from: BTreeSet::new(), parts: BTreeMap::from([("[]".to_owned(), item)]) };
        match (name, body) {
            ("map_values", Some(body)) => list(body),
            ("filter", _) => first,
            ("push", _) => first.merge(list(arguments.get(1).cloned().unwrap_or_default())),
            ("zip", _) if arguments.len() == 2 => {
                list(list(arguments.iter().map(|items| items.part("[]")).reduce(Origin::merge).unwrap_or_default()))
            }
            ("append" | "merge", _) => arguments.into_iter().reduce(Origin::merge).unwrap_or_default(),
            // These give what they are given.
            (
                "array" | "object" | "string" | "int" | "integer" | "float" | "bool" | "boolean" | "timestamp"
                | "slice" | "unique" | "compact" | "sort",
                _,
            ) => first,
            (_, body) => arguments.into_iter().chain(body).reduce(Origin::merge).unwrap_or_default().flat(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(source: &str) -> Vec<String> {
        let line = |flow: &Flow| {
            let from = flow.from.iter().cloned().collect::<Vec<_>>().join(" ");
            let when = flow.when.iter().map(|w| format!(" if {w}")).collect::<String>();
            format!("{} <- {from}{when}", flow.field)
        };
        flows(source).iter().map(line).collect()
    }

    #[test]
    fn fields_are_followed_through_variables_closures_and_conditions() {
        let source = "
            n = %data.days * 2
            if %data.kind == \"x\" { .days = n + int!(.days) }
            .copies = map_values(%data.copies) -> |c| { { \"at\": c.shelf, \"fee\": int!(c.fee) + %data.fee } }
            .first = slice!(map_values(array!(.copies)) -> |c| { c.at }, 0, 3)
            .pairs = map_values(zip(%data.notes, .seen)) -> |pair| { pair[0] }
            .state = \"lent\"
            del(.note)";
        assert_eq!(
            lines(source),
            [
                "days <- %data.days .days if %data.kind",
                "copies[].at <- %data.copies[].shelf",
                "copies[].fee <- %data.copies[].fee %data.fee",
                "first[] <- .copies[].at",
                "pairs[] <- %data.notes[] .seen[]",
                "state <- ",
                "note <- ",
            ]
        );
    }

    #[test]
    fn rows_that_a_loop_collects_keep_their_fields() {
        let source = "rows = []\nfor_each(%data.copies) -> |_i, c| { rows = push(rows, {\"shelf\": c.shelf, \"n\": 1}) }\n. = rows";
        assert_eq!(lines(source), ["[].n <- ", "[].shelf <- %data.copies[].shelf"]);
    }
}
