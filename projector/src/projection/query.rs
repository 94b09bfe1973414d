//! The shape of a declared query (to be written).

use serde::Deserialize;

/// A declared query.
#[derive(Clone, Debug, Deserialize)]
pub struct Query {}
