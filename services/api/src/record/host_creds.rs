//! `HostCreds`: how to get onto a host. Secret.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    model::{Field, Kept, Model},
    record::Record,
};

/// The row of [`HostCreds`].
pub static HOST_CREDS: Model = Model {
    name: "HostCreds",
    list: None,
    key: Some("address"),
    fields: &[
        Field::text("address"),
        Field::text("ssh_priv_key").or("").hidden(),
        Field::text("remote_user").or("root"),
    ],
    rules: &[],
    kept: Kept::Sealed,
};

/// How to get onto a host. The key is wiped from memory when this is dropped, and `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCreds {
    /// The host's address: the key of the record.
    pub address: String,
    /// The private SSH key, in base64.
    #[serde(default)]
    pub ssh_priv_key: Zeroizing<String>,
    /// Whom to log in as.
    #[serde(default = "root")]
    pub remote_user: String,
}

impl Record for HostCreds {
    const MODEL: &'static Model = &HOST_CREDS;

    fn key(&self) -> &str {
        &self.address
    }
}

impl fmt::Debug for HostCreds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostCreds {{ address: {:?}, remote_user: {:?}, .. }}", self.address, self.remote_user)
    }
}

fn root() -> String {
    "root".into()
}
