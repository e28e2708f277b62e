//! Archives: all records in a file, and from one set of places to another, without a service.
//!
//! An archive is text, an object of JSON a line: first what it is, then a record each, and at the end how many these
//! are, so that one that was cut short is known as such. What was changed while it was written stands behind: of several
//! lines about one record the last holds. Secrets are in it only sealed, to a key that whoever makes it names.

mod check;
mod copy;
mod read;
mod walk;
mod write;

use std::collections::BTreeMap;

use commissaire::Error;
use commissaire_api::{
    model::{MODELS, Model},
    sealed::Sealed,
    storage::Data,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

pub use check::{Difference, Fault, check, compare};
pub use copy::{Copied, copy, import};
pub use read::read;
pub use write::export;

use crate::handler::StoreError;

/// The version of the format.
const FORMAT: u32 = 1;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    commissaire_archive: u32,
    /// When it was begun: UTC, ISO 8601.
    at: String,
    /// Which places it is of.
    places: String,
    /// Whether secrets are in it.
    secrets: bool,
}

/// One record.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    model: String,
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    record: Option<Data>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sealed: Option<Sealed>,
    /// It is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct End {
    /// How many lines of records there are.
    end: u64,
}

/// What there is, by model (its place in the table of models, so that what others refer to comes first) and key.
pub type Records = BTreeMap<(usize, String), Zeroizing<Vec<u8>>>;

/// Told from time to time how many records are done.
pub type Progress<'a> = dyn FnMut(u64) + 'a;

/// The place of a model in the table.
fn number(model: &Model) -> usize {
    MODELS.iter().position(|known| known.name == model.name).unwrap_or(MODELS.len())
}

/// What a place said, as an error of the program.
fn failed(place: &str, error: &StoreError) -> Error {
    Error::unavailable(format!("storage handler {place:?}: {error}"))
}
