//! `commissaire host add` and `rm`.

use std::path::PathBuf;

use base64ct::{Base64, Encoding};
use clap::Args;
use commissaire::{Error, app::Exit};
use commissaire_api::{Cluster, Host, HostCreds, HostState, StorageClient, investigator::InvestigateParams};
use commissaire_ssh::{Credentials, file_text, host_key};
use zeroize::Zeroizing;

use super::{forget_all, investigate::investigate};
use crate::{
    Failed,
    asking::Asking,
    input::confirm,
    output::{complain, print},
};

/// Add hosts: keep how to log in to them, find out what they are, and bring them in order
#[derive(Debug, Args)]
#[command(after_help = "\
The key goes to the storage service sealed, and is on no disk in the clear. Without --key the agent of the services is used
(ssh.agent), or the key that is stored already. A cluster that does not exist is made.

A host that is there already keeps what is not said anew, and is looked over again.")]
pub(super) struct Add {
    /// Their addresses, with a port where that is not 22
    #[arg(required = true)]
    addresses: Vec<String>,
    /// The private SSH key; a certificate in FILE-cert.pub goes with it
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Whom to log in as; others than root become root by sudo
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// The cluster to put them in
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// The host's key as a line of OpenSSH's, `ssh-ed25519 AAAA…`; without, the first one that it shows is pinned
    #[arg(long, value_name = "KEY")]
    host_key: Option<String>,
    /// Only find out what they are
    #[arg(long)]
    facts_only: bool,
    /// Do not wait until they are looked over
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    asking: Asking,
}

/// Remove hosts, with all that is known of them; nothing is done on the hosts
#[derive(Debug, Args)]
pub(super) struct Rm {
    /// Their addresses
    #[arg(required = true)]
    addresses: Vec<String>,
    /// Do not ask; needed where there is no terminal to ask on
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Add {
    pub(super) async fn run(self) -> Result<(), Failed> {
        let key = self.key.as_deref().map(|path| {
            Credentials::of_file(path).map_err(|e| Error::invalid(format!("--key: {e}")))?;
            let text = file_text(path).map_err(|e| Error::invalid(format!("--key: {e}")))?;
            Ok::<_, Error>(Zeroizing::new(Base64::encode_string(text.as_bytes())))
        });
        let key = key.transpose()?;
        let host_key = self.host_key.as_deref().map(host_key).transpose();
        let host_key = host_key.map_err(|e| Error::invalid(format!("--host-key: {e}")))?;
        let (client, storage) = self.asking.client().await?;
        for address in &self.addresses {
            self.keep(&storage, address, key.as_ref(), host_key.as_ref()).await?;
        }
        if let Some(name) = &self.cluster {
            let cluster: Cluster = serde_json::from_value(serde_json::json!({"name": name}))
                .map_err(|e| Error::malformed("a new cluster").because(e))?;
            let saved = storage.update_or_create(&cluster, |cluster| {
                for address in &self.addresses {
                    if !cluster.hostset.contains(address) {
                        cluster.hostset.push(address.clone());
                    }
                }
            });
            saved.await?;
            // A host is in one cluster.
            for other in storage.list::<Cluster>().await?.iter().filter(|other| other.name != *name) {
                if other.hostset.iter().any(|host| self.addresses.contains(host)) {
                    complain(&format!("they leave cluster {}", other.name));
                    let leave =
                        |cluster: &mut Cluster| cluster.hostset.retain(|host| !self.addresses.contains(host));
                    storage.update::<Cluster>(&other.name, leave).await?;
                }
            }
        }
        let wanted = InvestigateParams { facts_only: self.facts_only, ..InvestigateParams::default() };
        investigate(&client, &storage, &self.addresses, &wanted, &self.asking, self.no_wait).await
    }

    async fn keep(
        &self,
        storage: &StorageClient,
        address: &str,
        key: Option<&Zeroizing<String>>,
        host_key: Option<&String>,
    ) -> Result<(), Failed> {
        if key.is_some() || self.user.is_some() {
            let known = storage.find::<HostCreds>(address).await?.map(|found| found.record);
            let mut creds = known.unwrap_or_else(|| HostCreds {
                address: address.to_owned(),
                ssh_priv_key: Zeroizing::default(),
                remote_user: "root".to_owned(),
            });
            if let Some(key) = key {
                creds.ssh_priv_key = key.clone();
            }
            if let Some(user) = &self.user {
                creds.remote_user.clone_from(user);
            }
            storage.save(&creds).await?;
        }
        if let Some(line) = host_key {
            let new = HostState { address: address.to_owned(), ..HostState::default() };
            storage.update_or_create(&new, |state| state.host_keys = vec![line.clone()]).await?;
        }
        // Last, so that whoever sees the host finds the rest.
        let new = Host { address: address.to_owned(), ..Host::default() };
        storage.update_or_create(&new, |_| {}).await?;
        Ok(())
    }
}

impl Rm {
    pub(super) async fn run(self) -> Result<(), Failed> {
        if !self.yes {
            confirm(&format!("remove {} with all that is known of them", self.addresses.join(", ")))?;
        }
        let (client, storage) = self.asking.client().await?;
        let mut missing = 0;
        for address in &self.addresses {
            if forget_all(&storage, address).await? {
                print(&format!("{address} removed"))?;
            } else {
                missing += 1;
                complain(&format!("there is no host {address}"));
            }
        }
        client.bus().close().await?;
        if missing == self.addresses.len() { Err(Failed::Said(Exit::Nothing)) } else { Ok(()) }
    }
}
