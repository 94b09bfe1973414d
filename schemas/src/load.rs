//! Reading the folder of schemas: `<aggregate>/<Event>.v<major>[.<minor>].avsc`.

use apache_avro::Schema;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

/// One schema file.
#[derive(Clone, Debug)]
pub struct SchemaFile {
    /// Where it was read from.
    pub path: PathBuf,
    /// The aggregate type (the folder's name).
    pub aggregate: String,
    /// The event type.
    pub event: String,
    /// The major version, from 1.
    pub major: u32,
    /// The minor version, 0 by default.
    pub minor: u32,
    /// The parsed schema, a record.
    pub schema: Schema,
    /// The file's text, which the registry gets: parsing drops what it doesn't know.
    pub text: String,
}

impl SchemaFile {
    /// The subject in the registry: the record's full name, as several event types share a topic.
    #[must_use]
    pub fn subject(&self) -> String {
        self.schema.name().map(|name| name.fullname(None)).unwrap_or_default()
    }

    /// The version as people write it, such as `1.0`.
    #[must_use]
    pub fn version(&self) -> String {
        format!("{}.{}", self.major, self.minor)
    }
}

/// What is wrong with a schema file.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct LoadError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// Loads a folder of schemas, sorted by aggregate, event and rising version.
///
/// # Errors
/// The first file that is wrong, or the folder when it is missing or holds no schema.
pub fn load(folder: &Path) -> Result<Vec<SchemaFile>, LoadError> {
    let mut files = Vec::new();
    for entry in entries(folder)? {
        if is_schema(&entry) {
            return Err(fail(
                &entry,
                "expected in a folder named for its aggregate: <aggregate>/<Event>.v<major>.avsc",
            ));
        }
        if entry.is_dir() {
            for path in entries(&entry)?.into_iter().filter(|path| is_schema(path)) {
                files.push(read(&entry, path)?);
            }
        }
    }
    if files.is_empty() {
        return Err(fail(folder, "no schemas in it: expected <aggregate>/<Event>.v<major>.avsc"));
    }
    files.sort_by(|a, b| (&a.aggregate, &a.event, a.major, a.minor).cmp(&(&b.aggregate, &b.event, b.major, b.minor)));
    refuse_doubles(&files)?;
    Ok(files)
}

fn fail(path: &Path, reason: impl Into<String>) -> LoadError {
    LoadError { path: path.into(), reason: reason.into() }
}

/// Sorted, so that of several mistakes the same is told first on every machine.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let read = fs::read_dir(folder).map_err(|e| fail(folder, format!("can't read the folder: {e}")))?;
    let mut paths = read
        .map(|entry| entry.map(|entry| entry.path()).map_err(|e| fail(folder, e.to_string())))
        .collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    Ok(paths)
}

fn is_schema(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "avsc")
}

fn read(folder: &Path, path: PathBuf) -> Result<SchemaFile, LoadError> {
    let aggregate = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let (event, major, minor) = file_name(&path)
        .ok_or_else(|| fail(&path, "expected a name such as <Event>.v<major>.avsc or <Event>.v<major>.<minor>.avsc"))?;
    let text = fs::read_to_string(&path).map_err(|e| fail(&path, format!("can't read the file: {e}")))?;
    // JSON first: its errors have a line and a column.
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| fail(&path, format!("not JSON: {e}")))?;
    let schema = Schema::parse(&json).map_err(|e| fail(&path, format!("not an Avro schema: {}", chain(&e))))?;
    let Schema::Record(record) = &schema else { return Err(fail(&path, "expected a record")) };

    let namespace = record.name.namespace().unwrap_or_default();
    let ending = format!("{aggregate}.v{major}");
    let fits = namespace == ending || namespace.strip_suffix(&ending).is_some_and(|before| before.ends_with('.'));
    if !fits {
        return Err(fail(
            &path,
            format!("the record's namespace is `{namespace}`; by the file's folder and name it must end in `{ending}`"),
        ));
    }
    if record.name.name() != event {
        return Err(fail(
            &path,
            format!("the record's name is `{}`; by the file's name it must be `{event}`", record.name.name()),
        ));
    }
    Ok(SchemaFile { path, aggregate, event, major, minor, schema, text })
}

/// `OrderPlaced.v1.2.avsc` → (`OrderPlaced`, 1, 2).
fn file_name(path: &Path) -> Option<(String, u32, u32)> {
    let (event, version) = path.file_stem()?.to_str()?.split_once(".v")?;
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    // One spelling a number: `v01` and `v1` would be two files of one version.
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| number.to_string() == text);
    let major = number(major).filter(|major| *major > 0)?;
    (!event.is_empty()).then_some((event.to_owned(), major, number(minor)?))
}

/// Events travel under their bare names, so a name must belong to one aggregate and a version to one file.
fn refuse_doubles(files: &[SchemaFile]) -> Result<(), LoadError> {
    for (index, file) in files.iter().enumerate() {
        let Some(other) = files[..index].iter().find(|other| other.event == file.event) else { continue };
        if other.aggregate != file.aggregate {
            return Err(fail(
                &file.path,
                format!("{} is an event of `{}` already: {}", file.event, other.aggregate, other.path.display()),
            ));
        }
        if let Some(twin) = files[..index]
            .last()
            .filter(|twin| (&twin.event, twin.major, twin.minor) == (&file.event, file.major, file.minor))
        {
            return Err(fail(&file.path, format!("the same version as {}", twin.path.display())));
        }
        if other.subject_prefix() != file.subject_prefix() {
            return Err(fail(
                &file.path,
                format!("its namespace begins otherwise than that of {}", other.path.display()),
            ));
        }
    }
    Ok(())
}

impl SchemaFile {
    /// What stands before `<aggregate>.v<major>.<Event>`: the same in all versions, or minors would be apart subjects.
    fn subject_prefix(&self) -> String {
        let subject = self.subject();
        let tail = format!("{}.v{}.{}", self.aggregate, self.major, self.event);
        subject.strip_suffix(&tail).unwrap_or_default().to_owned()
    }
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let source_text = source.to_string();
        if !text.contains(&source_text) {
            text = format!("{text}: {source_text}");
        }
        next = source.source();
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// A folder of its own, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str, files: &[(&str, &str)]) -> Self {
            let root = std::env::temp_dir().join(format!("schemas-load-{}-{name}", std::process::id()));
            _ = fs::remove_dir_all(&root);
            fs::create_dir_all(&root).unwrap();
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Self(root)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            _ = fs::remove_dir_all(&self.0);
        }
    }

    fn record(full_name: &str) -> String {
        format!(r#"{{"type": "record", "name": "{full_name}", "fields": [{{"name": "id", "type": "string"}}]}}"#)
    }

    fn error(name: &str, files: &[(&str, &str)]) -> String {
        load(&Folder::new(name, files).0).unwrap_err().to_string()
    }

    #[test]
    fn files_come_by_aggregate_event_and_rising_version() {
        let (a1, a2, b) = (record("x.y.a.v1.E"), record("x.y.a.v2.E"), record("x.y.b.v1.F"));
        let files = [
            ("b/F.v1.avsc", &*b),
            ("a/E.v2.avsc", &a2),
            ("a/E.v1.10.avsc", &a1),
            ("a/E.v1.9.avsc", &a1),
            ("a/E.v1.avsc", &a1),
            ("upcasters/E.v1.yaml", "not looked at"),
        ];
        let folder = Folder::new("order", &files);
        let loaded = load(&folder.0).unwrap();
        let names: Vec<_> = loaded.iter().map(|f| format!("{} {}", f.subject(), f.version())).collect();
        assert_eq!(names, ["x.y.a.v1.E 1.0", "x.y.a.v1.E 1.9", "x.y.a.v1.E 1.10", "x.y.a.v2.E 2.0", "x.y.b.v1.F 1.0"]);
        assert_eq!(loaded[0].text, a1);
    }

    #[test]
    fn a_namespace_of_nothing_but_aggregate_and_version_will_do() {
        let folder = Folder::new("short", &[("loan/Lent.v3.avsc", &record("loan.v3.Lent"))]);
        assert_eq!(load(&folder.0).unwrap()[0].subject(), "loan.v3.Lent");
    }

    #[test]
    fn a_missing_or_empty_folder_is_named() {
        let missing = load(Path::new("no/such/folder")).unwrap_err().to_string();
        assert!(missing.starts_with("no/such/folder: can't read the folder: "), "{missing}");
        assert!(error("empty", &[]).contains("no schemas in it"));
    }

    #[test]
    fn bad_json_has_a_line_and_bad_avro_a_reason() {
        let json = error("json", &[("a/E.v1.avsc", "{\n  \"type\": record\n}")]);
        assert!(json.contains("a/E.v1.avsc: not JSON: ") && json.contains("line 2"), "{json}");
        let avro = error("avro", &[("a/E.v1.avsc", r#"{"type": "recrod", "name": "a.v1.E"}"#)]);
        assert!(avro.contains("a/E.v1.avsc: not an Avro schema: ") && avro.contains("recrod"), "{avro}");
        assert!(error("text", &[("a/E.v1.avsc", r#""string""#)]).contains("expected a record"));
    }

    #[test]
    fn file_and_record_must_say_the_same() {
        let cases = [
            ("a/E.v2.avsc", "x.a.v1.E", "must end in `a.v2`"),
            ("a/E.v1.avsc", "x.b.v1.E", "must end in `a.v1`"),
            ("a/E.v1.avsc", "xa.v1.E", "must end in `a.v1`"),
            ("a/E.v1.avsc", "E", "namespace is ``"),
            ("a/E.v1.avsc", "x.a.v1.F", "must be `E`"),
        ];
        for (path, name, expected) in cases {
            let error = error("names", &[(path, &record(name))]);
            assert!(error.contains(path) && error.contains(expected), "{name}: {error}");
        }
    }

    #[test]
    fn file_names_are_strict() {
        for path in ["a/E.avsc", "a/E.v.avsc", "a/E.v0.avsc", "a/E.v01.avsc", "a/E.v1.x.avsc", "a/.v1.avsc"] {
            let error = error("strict", &[(path, &record("a.v1.E"))]);
            assert!(error.contains("expected a name such as"), "{path}: {error}");
        }
        assert!(error("root", &[("E.v1.avsc", &record("a.v1.E"))]).contains("a folder named for its aggregate"));
    }

    #[test]
    fn a_version_is_one_file_and_an_event_one_aggregates() {
        let a = record("x.a.v1.E");
        let twin = error("twin", &[("a/E.v1.avsc", &a), ("a/E.v1.0.avsc", &a)]);
        assert!(twin.contains("the same version as"), "{twin}");
        let two = error("two", &[("a/E.v1.avsc", &a), ("b/E.v1.avsc", &record("x.b.v1.E"))]);
        assert!(two.contains("b/E.v1.avsc: E is an event of `a` already"), "{two}");
        let apart = error("apart", &[("a/E.v1.avsc", &a), ("a/E.v1.1.avsc", &record("y.a.v1.E"))]);
        assert!(apart.contains("its namespace begins otherwise"), "{apart}");
    }
}
