//! What is wrong with a container manager, or with what was asked of it.

use commissaire::RpcError;
use commissaire_api::container::{Blocker, FailureKind, ManagerFailure};
use serde_json::json;

/// Why a container manager did not do what was asked. Holds nothing secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault(Box<ManagerFailure>);

impl Fault {
    /// Of this kind, in these words.
    pub(crate) fn new(kind: FailureKind, text: impl Into<String>) -> Self {
        Self(Box::new(ManagerFailure { kind, text: text.into(), ..ManagerFailure::default() }))
    }

    /// The node is not registered.
    pub(crate) fn not_registered(address: &str) -> Self {
        Self::new(FailureKind::NotRegistered, format!("node {address} is not registered"))
    }

    /// With what the API server has answered.
    pub(crate) fn answered(mut self, status: u16, reason: &str) -> Self {
        (self.0.status, self.0.reason) = (Some(status), reason.to_owned());
        self
    }

    /// What was asked may have been done.
    pub(crate) fn maybe_executed(mut self) -> Self {
        self.0.maybe_executed = true;
        self
    }

    /// These pods stand in the way.
    pub(crate) fn by(mut self, blockers: Vec<Blocker>) -> Self {
        self.0.blockers = blockers;
        self
    }

    pub(crate) fn status(&self) -> Option<u16> {
        self.0.status
    }

    pub(crate) fn text(&self) -> &str {
        &self.0.text
    }

    pub(crate) fn may_be_executed(&self) -> bool {
        self.0.maybe_executed
    }

    /// Whether asking again may help, without anybody changing anything.
    pub(crate) fn is_temporary(&self) -> bool {
        match self.0.kind {
            FailureKind::Unreachable => true,
            FailureKind::Refused => self.0.status.is_some_and(|status| status == 429 || status >= 500),
            _ => false,
        }
    }

    /// The same as what is told of the container manager `name`.
    pub(crate) fn of(self, name: &str) -> ManagerFailure {
        let failure = *self.0;
        ManagerFailure { container_manager_name: name.to_owned(), ..failure }
    }
}

/// What is answered.
pub(crate) fn rpc(failure: &ManagerFailure) -> RpcError {
    let text = format!("container manager {:?}: {}", failure.container_manager_name, failure.text);
    RpcError::new(RpcError::CONTAINER_MANAGER, text).with_data(json!(failure))
}
