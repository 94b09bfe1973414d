//! From a projection's file to what the host runs: programs compiled, the kind and the document's type inferred.

use super::diagnostic::{Diagnosis, Finding, Source};
use super::join::{self, Join};
use super::lookup::{self, LookedUp};
use super::verify;
use super::{Projection, Store};
use crate::event::{Catalog, SeenEvent};
use crate::expr::{Collection, Compiler, Kind, Program, Wanted, distance};
use serde_saphyr::Spanned;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Rounds in which the document's type must settle; each program may widen what the others see.
const INFERENCE_ROUNDS_MAX: usize = 16;

/// How exactness is kept; inferred from the store and from what feeds the read model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadModelKind {
    /// One aggregate a document: its sequence is the document's version.
    Entity,
    /// A part of each of several aggregates in a document, each part with its own sequence; the fields are derived from them.
    Join,
    /// Whole numbers that many aggregates add to: one slice a source partition, guarded by that partition's watermark.
    Rollup,
    /// Rows under stable ids, each added once.
    Facts,
}

impl ReadModelKind {
    /// Its name in messages and status.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Entity => "entity",
            Self::Join => "join",
            Self::Rollup => "rollup",
            Self::Facts => "facts",
        }
    }
}

/// A projection ready to run.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The file's content.
    pub projection: Projection,
    /// How exactness is kept.
    pub kind: ReadModelKind,
    /// The types of the aggregates whose events it takes.
    pub aggregate_types: Vec<String>,
    /// The type of a document, or of a row.
    pub document: Kind,
    /// What a join's documents are made of; none for the other kinds.
    pub join: Option<Arc<Join>>,
    /// What its programs may ask for by key.
    pub lookups: Vec<Arc<LookedUp>>,
    /// Which of these the program of an event type reads.
    asks: BTreeMap<Arc<str>, Vec<usize>>,
    programs: Programs,
}

impl Compiled {
    /// Reads and compiles a file.
    ///
    /// # Errors
    /// Everything that is wrong in it.
    pub fn load(path: &Path, catalog: &Catalog) -> Result<(Self, Source), Vec<Finding>> {
        let name: Arc<str> = path.display().to_string().into();
        let source = match std::fs::read_to_string(path) {
            Ok(text) => Source { name, text: text.into() },
            Err(error) => {
                let source = Source { name, text: "".into() };
                return Err(vec![
                    Finding::at(
                        &source,
                        serde_saphyr::Location::UNKNOWN,
                        error.to_string(),
                        "name a file that can be read",
                    )
                    .of(Diagnosis::Shape),
                ]);
            }
        };
        Ok((Self::new(&source, catalog)?, source))
    }

    /// Compiles a file's text.
    ///
    /// # Errors
    /// Everything that is wrong in it.
    pub fn new(source: &Source, catalog: &Catalog) -> Result<Self, Vec<Finding>> {
        let projection = Projection::parse(source)?;
        let mut findings = check_name(source, &projection.name);
        findings.extend(check_limits(source, &projection));
        let kind = kind_of(&projection);
        let lookups = lookup::read(source, &projection, kind).unwrap_or_else(|found| {
            findings.extend(found);
            Vec::new()
        });
        let mut events = BTreeMap::new();
        for (name, program) in &projection.on {
            match catalog.event(name) {
                Some(event) => {
                    let found = lookups.iter().filter_map(|lookup| Some((&*lookup.name, lookup.seen(event)?)));
                    let seen = SeenEvent::kind_with(event.kind.clone(), found);
                    events.insert(name.as_str(), (event, seen, program));
                }
                None => findings.push(unknown_event(source, name, catalog)),
            }
        }
        let mut aggregates: Vec<_> = events.values().map(|(event, ..)| event.aggregate_type.clone()).collect();
        aggregates.sort_unstable();
        aggregates.dedup();
        findings.extend(check_kind(source, &projection, kind, &aggregates));
        if !findings.is_empty() {
            if !events.is_empty() && kind != ReadModelKind::Join {
                // All errors at once: those of the programs whose events there are, too.
                let found = infer(&Compiler::default(), source, kind, &events).err().unwrap_or_default();
                // A lookup that is wrong is named once, not wherever it is read.
                let of_lookup = |finding: &Finding| {
                    projection.lookup.keys().any(|name| finding.message().contains(&format!("`%{name}")))
                };
                findings.extend(found.into_iter().filter(|finding| !of_lookup(finding)));
            }
            return Err(findings);
        }
        let compiler = Compiler::default();
        let (programs, document, join) = if kind == ReadModelKind::Join {
            let (programs, document, join) = join::compile(&compiler, source, &projection, &events)?;
            (programs, document, Some(Arc::new(join)))
        } else {
            let (programs, document) = infer(&compiler, source, kind, &events)?;
            (programs, document, None)
        };
        let asks = asks(&programs, &lookups);
        let mut wrong = verify::document(source, &projection, kind, &document);
        wrong.extend(lookup::check(source, &projection, &asks, &lookups));
        if !wrong.is_empty() {
            return Err(wrong);
        }
        if let Store::Clickhouse(store) = &projection.store {
            check_day(source, &store.day, &document)?;
        }
        if kind == ReadModelKind::Rollup {
            check_sums(source, &projection, &document)?;
        }
        check_ttl(source, &projection, kind, &document)?;
        Ok(Self { kind, aggregate_types: aggregates, document, join, lookups, asks, programs, projection })
    }

    /// The topics that feed it.
    #[must_use]
    pub fn topics(&self) -> Vec<String> {
        self.aggregate_types.iter().map(|aggregate_type| format!("events.{aggregate_type}")).collect()
    }

    /// The program for an event type; none where the projection doesn't take it.
    #[must_use]
    pub fn program(&self, event_type: &str) -> Option<&Program> {
        self.programs.get(event_type)
    }

    /// What is read of each event's data, where that isn't all of it: a join and a lookup find ids in there, too.
    #[must_use]
    pub fn wants(&self) -> BTreeMap<Arc<str>, Wanted> {
        if self.kind == ReadModelKind::Join {
            return BTreeMap::new();
        }
        let programs = self.programs.iter().filter(|(event_type, _)| self.asks(event_type).is_empty());
        programs.map(|(event_type, program)| (Arc::clone(event_type), program.wants(SeenEvent::DATA))).collect()
    }

    /// The lookups that the program of an event type reads.
    #[must_use]
    pub fn asks(&self, event_type: &str) -> &[usize] {
        self.asks.get(event_type).map_or(&[], Vec::as_slice)
    }

    /// Tells whether another file gives the same documents in the same place: all but prose, queries, limits and masks goes in, and
    /// the engine's version with it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut hasher = DefaultHasher::new();
        let p = &self.projection;
        let programs: Vec<_> = p.on.iter().map(|(event, program)| (event, &program.value)).collect();
        let parents: Vec<_> = p.join.iter().map(|(name, ids)| (name, format!("{:?}", ids.value))).collect();
        let derive = p.derive.as_ref().map(|program| &program.value);
        (&p.name.value, format!("{:?}", p.store), &p.sum_by, programs).hash(&mut hasher);
        if derive.is_some() {
            (parents, derive).hash(&mut hasher);
        }
        if let Some(ttl) = &p.ttl {
            (&ttl.value.span, &ttl.value.after).hash(&mut hasher);
        }
        p.facts.then_some("facts").hash(&mut hasher);
        for lookup in &self.lookups {
            // How long an answer is kept says nothing of what it is.
            let mut lookup = LookedUp::clone(lookup);
            lookup.cache = Duration::ZERO;
            format!("{lookup:?}").hash(&mut hasher);
        }
        format!("vrl-0.38:{:016x}", hasher.finish())
    }
}

pub(super) type Programs = BTreeMap<Arc<str>, Program>;
pub(super) type Events<'a> = BTreeMap<&'a str, (&'a crate::event::EventType, Kind, &'a Spanned<String>)>;

/// How exactness is kept, as the file's sections say.
fn kind_of(projection: &Projection) -> ReadModelKind {
    match &projection.store {
        Store::Clickhouse(_) => ReadModelKind::Facts,
        _ if projection.facts => ReadModelKind::Facts,
        _ if !projection.sum_by.is_empty() => ReadModelKind::Rollup,
        _ if !projection.join.is_empty() => ReadModelKind::Join,
        _ => ReadModelKind::Entity,
    }
}

/// Which lookups each program reads.
fn asks(programs: &Programs, lookups: &[Arc<LookedUp>]) -> BTreeMap<Arc<str>, Vec<usize>> {
    let of = |program: &Program| {
        let reads = program.reads();
        (0..lookups.len()).filter(|&n| reads.contains(&*lookups[n].name)).collect::<Vec<_>>()
    };
    programs
        .iter()
        .map(|(name, program)| (Arc::clone(name), of(program)))
        .filter(|(_, asks)| !asks.is_empty())
        .collect()
}

/// Compiles all programs until the document's type no longer widens: what one event sets, another may find or not find.
pub(super) fn infer(
    compiler: &Compiler,
    source: &Source,
    kind: ReadModelKind,
    events: &Events<'_>,
) -> Result<(Programs, Kind), Vec<Finding>> {
    let nothing = Kind::object(Collection::empty());
    let mut before = nothing.clone();
    let mut document = None;
    for _ in 0..INFERENCE_ROUNDS_MAX {
        let mut findings = Vec::new();
        let mut programs = BTreeMap::new();
        for (name, (_, event, program)) in events {
            match compiler.compile(&program.value, &before, event) {
                Ok(compiled) => _ = programs.insert(Arc::from(*name), compiled),
                Err(found) => findings.extend(found.iter().map(|d| Finding::in_program(source, program, d))),
            }
        }
        let after = programs
            .values()
            .map(|p| if kind == ReadModelKind::Entity { p.document().clone() } else { row_kind(p.document()) })
            .reduce(|a, b| a.union(b))
            .unwrap_or_else(|| nothing.clone());
        // A row starts empty each time; a document starts as any program may have left it.
        let next = if kind != ReadModelKind::Entity { nothing.clone() } else { after.union(nothing.clone()) };
        let settled = next == before && document.as_ref() == Some(&after);
        if settled {
            return if findings.is_empty() { Ok((programs, after)) } else { Err(without_cascades(findings)) };
        }
        // Findings of an early round may come from types that aren't known yet; but if nothing compiles, nothing will change.
        if programs.is_empty() {
            return Err(without_cascades(findings));
        }
        before = next;
        document = Some(after);
    }
    let (_, _, program) = events.values().next().ok_or_else(Vec::new)?;
    Err(vec![
        Finding::at(
            source,
            program.defined,
            "the document's type doesn't settle",
            "a program nests the document in itself",
        )
        .of(Diagnosis::Unsettled),
    ])
}

/// What no program sets may be set by one that doesn't compile: that one is named alone.
fn without_cascades(findings: Vec<Finding>) -> Vec<Finding> {
    let unset = |finding: &Finding| finding.rule() == Some(Diagnosis::UnsetField);
    let all = findings.iter().all(unset);
    findings.into_iter().filter(|finding| all || !unset(finding)).collect()
}

/// That the sections of the file go together.
fn check_kind(source: &Source, p: &Projection, kind: ReadModelKind, aggregates: &[String]) -> Vec<Finding> {
    let found = |message: &str, help: &str| Finding::at(source, p.name.defined, message, help);
    let mut findings = Vec::new();
    if aggregates.is_empty() {
        // Where an event is unknown, that says it.
        if p.on.is_empty() {
            findings
                .push(found("no event feeds this read model", "name at least one under `on:`").of(Diagnosis::NoEvent));
        }
    }
    if kind == ReadModelKind::Facts && !p.sum_by.is_empty() {
        findings.push(
            found(
                "`sum_by` with ClickHouse or `facts`",
                "leave it out: rows are kept as they are, and a query sums them up; or choose another store",
            )
            .of(Diagnosis::SumBy),
        );
    }
    if kind != ReadModelKind::Join && !p.join.is_empty() {
        findings.push(
            found(
                "`join` with ClickHouse, `facts` or `sum_by`",
                "rows and sums have no parents: leave it out, or choose another store",
            )
            .of(Diagnosis::Join),
        );
    }
    match (&p.derive, p.join.is_empty()) {
        (Some(derive), true) => findings.push(
            Finding::at(
                source,
                derive.defined,
                "`derive` without `join`",
                "a document of one aggregate is what its programs leave; name the other aggregates under `join:`",
            )
            .of(Diagnosis::Join),
        ),
        (None, false) => findings.push(
            found(
                "`join` without `derive`",
                "write the program that makes the document of its parts, for example `.name = %member.name`",
            )
            .of(Diagnosis::Join),
        ),
        _ => {}
    }
    if aggregates.len() > 1 && kind == ReadModelKind::Entity {
        findings.push(found(
            &format!("fed by several aggregates: {}", aggregates.join(", ")),
            "say under `join:` where a document holds the others' ids, add up with `sum_by`, or make a read model for each",
        ).of(Diagnosis::Feed));
    }
    findings
}

/// That settings are within their range.
fn check_limits(source: &Source, p: &Projection) -> Vec<Finding> {
    let limits = &p.limits;
    let wrong = [
        ("lag_ms_max", limits.lag_ms_max == 0, "at least 1 ms"),
        ("lag_ms_critical", limits.lag_ms_critical < limits.lag_ms_max, "at least `lag_ms_max`"),
        ("batch_max", !(1..=10_000).contains(&limits.batch_max), "1 to 10,000 events"),
        ("batch_wait_ms", limits.batch_wait_ms > 5_000, "at most 5,000 ms: queries that carry a token wait as long"),
    ];
    let finding = |(name, _, help): (&str, bool, &str)| {
        Finding::at_entry(source, name, format!("`{name}` is out of its range"), format!("write {help}"))
            .of(Diagnosis::Limits)
    };
    wrong.into_iter().filter(|(_, is_wrong, _)| *is_wrong).map(finding).collect()
}

fn check_name(source: &Source, name: &Spanned<String>) -> Vec<Finding> {
    let good = name.value.starts_with(|c: char| c.is_ascii_lowercase())
        && name.value.len() <= 48
        && name.value.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let found = || {
        Finding::at(
            source,
            name.defined,
            format!("`{}` can't name a read model", name.value),
            "use a-z, 0-9 and _, a letter first, at most 48",
        )
        .of(Diagnosis::Name)
    };
    if good { Vec::new() } else { vec![found()] }
}

/// A row's type: the program's document, or what the array that it leaves holds.
fn row_kind(document: &Kind) -> Kind {
    let Some(rows) = document.as_array() else { return document.clone() };
    let known = rows.known().values().cloned();
    let one = known.chain([rows.unknown_kind().without_undefined()]).filter(|kind| !kind.is_never());
    let rows = one.reduce(|a, b| a.union(b)).unwrap_or_else(|| Kind::object(Collection::empty()));
    if document.contains_object() { rows.union(document.clone().without_array()) } else { rows }
}

/// Whether values of this type can be added up. What may be anything (`set!`, a closure's) is looked at when it comes.
fn adds(kind: &Kind) -> bool {
    let kind = kind.without_undefined();
    let is_integer_or_anything = |kind: &Kind| kind.without_undefined().contains_integer();
    let fields = |fields: &Collection<_>| {
        // The type of anything is made of itself: no deeper than here.
        let unknown = fields.unknown_kind().without_undefined();
        fields.known().values().all(adds) && (unknown.is_never() || is_integer_or_anything(&unknown))
    };
    kind.is_integer() || kind.as_object().is_some_and(fields)
}

/// That a rollup's rows have their key, and whole numbers otherwise.
fn check_sums(source: &Source, projection: &Projection, document: &Kind) -> Result<(), Vec<Finding>> {
    let found = |message: String, help: &str| {
        Err(vec![Finding::at_entry(source, "sum_by", message, help).of(Diagnosis::SumBy)])
    };
    let Some(fields) = document.as_object() else {
        return found(
            "the rows of a rollup must be objects".to_owned(),
            "give each row the fields of `sum_by` and numbers",
        );
    };
    // What a closure builds has no type here; then each row is looked at when it comes.
    if fields.known().is_empty() {
        return Ok(());
    }
    for name in &projection.sum_by {
        let known = fields.known().get(&name.as_str().into());
        if !known
            .is_some_and(|kind| (kind.is_bytes() || kind.is_integer() || kind.is_boolean()) && !kind.contains_null())
        {
            let message = format!("`sum_by` names `{name}`, which not every row sets to text or a number");
            return found(message, "set it in each program; `string!(…)` turns what may be null into an error");
        }
    }
    let other =
        fields.known().iter().find(|(name, kind)| !projection.sum_by.iter().any(|s| name.as_str() == s) && !adds(kind));
    match other {
        Some((name, kind)) => found(
            format!("`{}` is {kind}, and a rollup can only add whole numbers", name.as_str()),
            "leave it out, name it in `sum_by`, or make it an integer",
        ),
        None => Ok(()),
    }
}

fn check_day(source: &Source, day: &str, document: &Kind) -> Result<(), Vec<Finding>> {
    let known = document.as_object().and_then(|fields| fields.known().get(&day.into()));
    if known.is_some_and(|kind| kind.is_bytes() || kind.is_timestamp()) {
        return Ok(());
    }
    Err(vec![
        Finding::at_entry(
            source,
            "day",
            format!("`store.clickhouse.day` is `{day}`, which not every program sets to text or a time"),
            "set it in each program, for example `.day = format_timestamp!(%occurred_at, \"%F\")`",
        )
        .of(Diagnosis::Day),
    ])
}

/// That documents have what their expiry counts from.
fn check_ttl(source: &Source, p: &Projection, kind: ReadModelKind, document: &Kind) -> Result<(), Vec<Finding>> {
    let Some(ttl) = &p.ttl else { return Ok(()) };
    let found =
        |message: String, help: &str| Err(vec![Finding::at(source, ttl.defined, message, help).of(Diagnosis::Ttl)]);
    if matches!(p.store, Store::Clickhouse(_)) {
        return found("`ttl` with ClickHouse".to_owned(), "leave it out: rows are kept");
    }
    if ttl.value.span().is_none() {
        let message = format!("`{}` is no time to live", ttl.value.span);
        return found(message, "a number with `d`, `h` or `m` behind it, as in `36h`");
    }
    let Some(after) = &ttl.value.after else {
        if matches!(kind, ReadModelKind::Entity | ReadModelKind::Facts) {
            return Ok(());
        }
        return found(
            format!("a {} has no last event that its time to live could count from", kind.name()),
            "name a field that holds a day or a time under `after`",
        );
    };
    let Some(fields) = document.as_object() else { return Ok(()) };
    if kind == ReadModelKind::Rollup && !p.sum_by.contains(after) {
        return found(
            format!("`after` names `{after}`, which `sum_by` doesn't"),
            "a rollup's day or time is part of its key",
        );
    }
    match fields.known().get(&after.as_str().into()) {
        Some(kind) if (kind.contains_bytes() || kind.contains_timestamp()) => Ok(()),
        None if fields.known().is_empty() => Ok(()),
        _ => found(
            format!("`after` names `{after}`, which no program sets to a day or a time"),
            "set it, for example `.day = format_timestamp!(%occurred_at, \"%F\")`",
        ),
    }
}

fn unknown_event(source: &Source, name: &str, catalog: &Catalog) -> Finding {
    let near = catalog.names().min_by_key(|known| distance(known, name)).unwrap_or("none");
    let help = format!("did you mean `{near}`? Schemas are in the folder of schemas, one file an event");
    Finding::at_entry(source, name, format!("no schema has the event `{name}`"), help).of(Diagnosis::UnknownEvent)
}
