//! `projector init`: a first projection from an event's schema, to be changed.

use crate::event::Shape;
use anyhow::{Context, bail, ensure};
use apache_avro::Schema;
use schema_registry_converter::async_impl::schema_registry::{SrSettings, get_schema_by_subject};
use schema_registry_converter::schema_registry_common::SubjectNameStrategy;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Arguments of `init`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct InitArgs {
    /// The read model's name
    name: String,
    /// The event that begins a document: its name with `--schemas`, its record's full name with `--registry`
    #[arg(long)]
    from: String,
    /// The store
    #[arg(long, value_enum, default_value = "redis")]
    store: Chosen,
    /// Take the schema from this registry (Confluent's API), and put it into the folder of schemas
    #[arg(long, value_name = "URL")]
    registry: Option<String>,
    /// The folder of Avro schemas
    #[arg(long, env = "SCHEMAS_DIR", default_value = "schemas")]
    schemas: PathBuf,
    /// Where to write it; never over a file that is there
    #[arg(long, env = "PROJECTIONS_DIR", default_value = "projections")]
    projections: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Chosen {
    Redis,
    Elasticsearch,
    Clickhouse,
    Postgres,
}

pub(super) async fn run(args: &InitArgs) -> anyhow::Result<ExitCode> {
    let path = args.projections.join(format!("{}.yaml", args.name));
    ensure!(!path.exists(), "{} is there; give the read model another name", path.display());
    let (event, aggregate, schema) = match &args.registry {
        Some(url) => from_registry(args, url).await?,
        None => from_folder(&args.schemas, &args.from)?,
    };
    let text = projection(args, &event, &aggregate, &schema)?;
    std::fs::create_dir_all(&args.projections).with_context(|| format!("can't make {}", args.projections.display()))?;
    std::fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))?;
    println!("{}: written; `projector check`, then `projector test --update`", path.display());
    Ok(ExitCode::SUCCESS)
}

fn from_folder(folder: &Path, event: &str) -> anyhow::Result<(String, String, Schema)> {
    let files = schemas::load(folder)?;
    let newest = files.iter().filter(|file| file.event == event).max_by_key(|file| (file.major, file.minor));
    let Some(file) = newest else {
        let mut names: Vec<_> = files.iter().map(|file| file.event.as_str()).collect();
        names.dedup();
        bail!("no schema of `{event}` in {}; there are {}", folder.display(), names.join(", "));
    };
    Ok((file.event.clone(), file.aggregate.clone(), file.schema.clone()))
}

async fn from_registry(args: &InitArgs, url: &str) -> anyhow::Result<(String, String, Schema)> {
    let mut settings = SrSettings::new_builder(url.to_owned());
    settings.set_timeout(Duration::from_secs(5));
    let settings = settings.build().with_context(|| format!("{url} can't be used"))?;
    let subject = SubjectNameStrategy::RecordNameStrategy(args.from.clone());
    let found = get_schema_by_subject(&settings, &subject)
        .await
        .with_context(|| format!("the registry at {url} has no subject `{}`", args.from))?;
    let schema = Schema::parse_str(&found.schema).context("the registry's schema isn't Avro")?;
    let (_, event) = args.from.rsplit_once('.').unwrap_or(("", &args.from));
    let steps: Vec<&str> = args.from.split('.').rev().skip(1).collect();
    let version = steps.first().and_then(|step| step.strip_prefix('v')?.parse::<u32>().ok());
    let (Some(version), Some(aggregate)) = (version, steps.get(1)) else {
        bail!("`{}` doesn't say aggregate and version, as in `library.loan.v1.Borrowed`", args.from);
    };
    let path = args.schemas.join(aggregate).join(format!("{event}.v{version}.avsc"));
    if !path.exists() {
        let folder = args.schemas.join(aggregate);
        std::fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
        std::fs::write(&path, format!("{}\n", found.schema))
            .with_context(|| format!("can't write {}", path.display()))?;
        println!("{}: written", path.display());
    }
    Ok((event.to_owned(), (*aggregate).to_owned(), schema))
}

fn projection(args: &InitArgs, event: &str, aggregate: &str, schema: &Schema) -> anyhow::Result<String> {
    let Shape::Record(fields, _) = Shape::new(schema)? else { bail!("the schema of {event} isn't a record") };
    let name = &args.name;
    let store = match args.store {
        Chosen::Redis => format!("  redis:\n    prefix: \"{name}:\"\n"),
        Chosen::Elasticsearch => "  elasticsearch: {}\n".to_owned(),
        Chosen::Clickhouse => "  clickhouse:\n    day: day\n".to_owned(),
        Chosen::Postgres => "  postgres: {}\n".to_owned(),
    };
    let day =
        if args.store == Chosen::Clickhouse { "    .day = format_timestamp!(%occurred_at, \"%F\")\n" } else { "" };
    let id = format!("{aggregate}_id");
    let set: String = fields.iter().map(|(field, _)| format!("    .{field} = %data.{field}\n")).collect();
    let given = if fields.iter().any(|(field, _)| field.as_str() == id) {
        format!("{{ {id}: {aggregate}-1 }}")
    } else {
        "{}".to_owned()
    };
    Ok(format!(
        "name: {name}\ndescription: What this read model is for, in a sentence.\nowner: who answers for it\nstore:\n{store}\non:\n  \
         # `.` is the document, `%` the event. See docs/projections.md.\n  {event}: |\n{day}{set}\ntests:\n  \
         - name: it begins with {event}\n    given:\n      - {event}: {given}\n"
    ))
}
