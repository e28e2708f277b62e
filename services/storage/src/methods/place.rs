//! In which places the records of a call are.

use std::sync::Arc;

use commissaire::RpcError;
use commissaire_api::{model::Model, storage::Fence};

use super::{Storage, refuse::faulty};
use crate::routes::Place;

/// The field of hosts that names the place of one.
const SOURCE: &str = "source";

impl Storage {
    /// The place of `model`.
    pub(super) fn place(&self, model: &Model) -> Result<&Place, RpcError> {
        self.routes.of(model).ok_or_else(|| {
            faulty(
                "model_type_name",
                format!("no storage handler keeps {}: see storage_handlers", model.name),
            )
        })
    }

    /// The place that `source` names, for a record of a model that has such a field; without, that of the model.
    pub(super) fn source(&self, model: &Model, source: Option<&str>) -> Result<&Place, RpcError> {
        match source.filter(|source| !source.is_empty()) {
            Some(source) if is_scattered(model) => self.routes.named(source).ok_or_else(|| {
                let shown: String = source.chars().take(64).collect();
                let known: Vec<_> = self.routes.plain().map(|place| place.name.as_str()).collect();
                faulty(
                    SOURCE,
                    format!(
                        "is {shown:?}: no storage handler has that name (known are {})",
                        known.join(", ")
                    ),
                )
            }),
            _ => self.place(model),
        }
    }

    /// Refuses a fence where no lease can guard: leases are in the first place.
    pub(super) fn check_fence(&self, place: &Place, fence: Option<&Fence>) -> Result<(), RpcError> {
        let first = self.routes.all().first();
        match first.filter(|first| !Arc::ptr_eq(&first.handler, &place.handler)) {
            Some(first) if fence.is_some() => {
                let (first, place) = (&first.name, &place.name);
                Err(faulty("fence", format!("guards what is kept in {first:?}, and this is in {place:?}")))
            }
            _ => Ok(()),
        }
    }

    /// The places where a record of `model` may be: first that of the model.
    pub(super) fn places(&self, model: &Model) -> Result<Vec<&Place>, RpcError> {
        let own = self.place(model)?;
        let others = self.routes.plain().filter(|place| is_scattered(model) && place.name != own.name);
        Ok(std::iter::once(own).chain(others).collect())
    }
}

/// Whether the records of `model` may be in several places.
pub(super) fn is_scattered(model: &Model) -> bool {
    model.field(SOURCE).is_some()
}
