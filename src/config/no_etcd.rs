//! No etcd: a program that was built without it.

use std::env;

use super::layer::Layer;
use crate::error::{Error, Result};

/// The key of one program in etcd. This build has none.
#[derive(Debug, Clone)]
pub enum EtcdKey {}

impl EtcdKey {
    /// `None`. Fails where `ETCD_MACHINES` says that there is one, or it is `required`.
    pub fn from_env(_name: &str, required: bool) -> Result<Option<Self>> {
        if required || env::var_os("ETCD_MACHINES").is_some_and(|machines| !machines.is_empty()) {
            return Err(Error::config(
                "ETCD_MACHINES or --require-etcd asks for etcd, which this program was built without: build it with the feature `etcd`",
            ));
        }
        Ok(None)
    }

    #[allow(clippy::unused_async)] // as its other one
    pub(super) async fn read(&self) -> Result<Option<Layer>> {
        match *self {}
    }

    #[allow(clippy::unused_async)]
    pub(crate) async fn changed(&self) {
        match *self {}
    }
}
