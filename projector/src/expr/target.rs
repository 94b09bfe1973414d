//! What a run touches: the document, which it changes, and the event, which it only reads.

use super::{KeyString, Value};
use std::fmt::Debug;
use vrl::compiler::{SecretTarget, Target};
use vrl::path::{OwnedSegment, OwnedTargetPath, PathPrefix};

/// What a program reads as `%`: its fields, wherever they lie, so that none has to be copied for a run that doesn't read it.
pub trait Fields: Debug {
    /// A field of it.
    fn field(&self, name: &str) -> Option<&Value>;

    /// All of it, as an object.
    fn whole(&self) -> &Value;
}

impl Fields for Value {
    fn field(&self, name: &str) -> Option<&Value> {
        self.as_object()?.get(name)
    }

    fn whole(&self) -> &Value {
        self
    }
}

/// Both sides of a run.
#[derive(Debug)]
pub(super) struct Sides<'a> {
    pub(super) document: &'a mut Value,
    pub(super) event: &'a dyn Fields,
    /// Set once something of the document was changed in another way than by setting a field.
    pub(super) changed_otherwise: bool,
}

/// The compiler lets no program come here; see [`super::compile::config`].
const READ_ONLY: &str = "the event can't be changed";

impl Target for Sides<'_> {
    fn target_insert(&mut self, path: &OwnedTargetPath, value: Value) -> Result<(), String> {
        match path.prefix {
            PathPrefix::Event => {
                self.changed_otherwise |= field(path).is_none();
                self.document.insert(&path.path, value);
            }
            PathPrefix::Metadata => return Err(READ_ONLY.to_owned()),
        }
        Ok(())
    }

    fn target_get(&self, path: &OwnedTargetPath) -> Result<Option<&Value>, String> {
        Ok(match (path.prefix, path.path.segments.as_slice()) {
            (PathPrefix::Event, _) => self.document.get(&path.path),
            (PathPrefix::Metadata, [OwnedSegment::Field(name), rest @ ..]) => {
                self.event.field(name.as_str()).and_then(|field| within(field, rest))
            }
            (PathPrefix::Metadata, path) => within(self.event.whole(), path),
        })
    }

    fn target_get_mut(&mut self, path: &OwnedTargetPath) -> Result<Option<&mut Value>, String> {
        match path.prefix {
            PathPrefix::Event => {
                self.changed_otherwise = true;
                Ok(self.document.get_mut(&path.path))
            }
            PathPrefix::Metadata => Err(READ_ONLY.to_owned()),
        }
    }

    fn target_remove(&mut self, path: &OwnedTargetPath, compact: bool) -> Result<Option<Value>, String> {
        match path.prefix {
            PathPrefix::Event => {
                self.changed_otherwise = true;
                Ok(self.document.remove(&path.path, compact))
            }
            PathPrefix::Metadata => Err(READ_ONLY.to_owned()),
        }
    }
}

/// Programs have no secrets.
impl SecretTarget for Sides<'_> {
    fn get_secret(&self, _: &str) -> Option<&str> {
        None
    }

    fn insert_secret(&mut self, _: &str, _: &str) {}

    fn remove_secret(&mut self, _: &str) {}
}

/// The first field on the way; none where all of it is meant.
pub(super) fn field(path: &OwnedTargetPath) -> Option<&KeyString> {
    match path.path.segments.first() {
        Some(OwnedSegment::Field(name)) => Some(name),
        _ => None,
    }
}

fn within<'a>(value: &'a Value, path: &[OwnedSegment]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, segment| match segment {
        OwnedSegment::Field(name) => value.as_object()?.get(name.as_str()),
        OwnedSegment::Index(at) => {
            let items = value.as_array()?;
            // From its end, where it is negative.
            let at = if *at < 0 { items.len().checked_add_signed(*at)? } else { at.unsigned_abs() };
            items.get(at)
        }
    })
}
