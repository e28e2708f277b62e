//! Which network a host gets, and what is needed for it.

use std::fs;

use commissaire::Client;
use commissaire_api::{
    Cluster, Network, NetworkKind, StorageClient,
    storage::{ListStoreHandlers, NoParams},
};
use serde_json::Value;

use crate::config::{HostEtcd, Members, NetworkChoice};

/// What a host needs for its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Nothing.
    Nothing,
    /// Nothing that can be had, for this reason.
    Impossible(String),
    /// flannel, which has its settings from an etcd.
    FlannelEtcd(HostEtcd),
    /// flannel, which asks this server.
    FlannelServer(String),
}

/// Copies of the files that the etcd's client needs, and where they come to lie on hosts.
pub(crate) const HOST_CA: &str = "/etc/commissaire/etcd/ca.pem";
pub(crate) const HOST_CERTIFICATE: &str = "/etc/commissaire/etcd/client.pem";
pub(crate) const HOST_KEY: &str = "/etc/commissaire/etcd/client-key.pem";

/// What a host of `cluster` needs.
pub(crate) async fn wanted(
    members: &Members,
    storage: &StorageClient,
    client: &Client,
    cluster: Option<&Cluster>,
) -> commissaire::Result<Wanted> {
    if members.network == NetworkChoice::None {
        return Ok(Wanted::Nothing);
    }
    let name = cluster.map_or(Network::DEFAULT, |cluster| cluster.network.as_str());
    let Some(network) = storage.find::<Network>(name).await? else {
        return Ok(Wanted::Impossible(format!("there is no network {name:?}")));
    };
    let is_chosen = network.revision > 0;
    let network = network.record;
    if network.kind == NetworkKind::FlannelServer {
        let address = network.options.get("address").and_then(Value::as_str).unwrap_or_default();
        return Ok(Wanted::FlannelServer(address.to_owned()));
    }
    if let Some(etcd) = &members.etcd {
        return Ok(Wanted::FlannelEtcd(etcd.clone()));
    }
    let places = client.call(ListStoreHandlers, &NoParams {}).await?;
    let Some(place) = places.iter().find(|place| place.handler_type == "EtcdStoreHandler") else {
        // Nobody has asked for the network that is always there.
        if !is_chosen {
            return Ok(Wanted::Nothing);
        }
        return Ok(Wanted::Impossible(format!(
            "network {name:?} is of type flannel_etcd, and no etcd is known: set `etcd` of the investigator"
        )));
    };
    let url = place.config.get("server_url").and_then(Value::as_str).unwrap_or_default();
    if ["//127.", "//localhost", "//[::1]"].iter().any(|own| url.contains(own)) {
        if !is_chosen {
            return Ok(Wanted::Nothing);
        }
        return Ok(Wanted::Impossible(format!(
            "network {name:?} is of type flannel_etcd, and the etcd of the storage service, {url}, cannot be reached from \
             hosts: set `etcd` of the investigator"
        )));
    }
    let text = |name: &str| place.config.get(name).and_then(Value::as_str).map(str::to_owned);
    Ok(Wanted::FlannelEtcd(HostEtcd {
        server_url: text("server_url").unwrap_or_default(),
        certificate_path: text("certificate_path").map(Into::into),
        certificate_key_path: text("certificate_key_path").map(Into::into),
        certificate_ca_path: text("certificate_ca_path").map(Into::into),
    }))
}

impl HostEtcd {
    /// The files that hosts get: where from, where to, with which mode.
    pub(crate) fn files(&self) -> Result<Vec<(&'static str, &'static str, Vec<u8>, u32)>, String> {
        let wanted = [
            ("etcd-ca", &self.certificate_ca_path, HOST_CA, 0o644),
            ("etcd-certificate", &self.certificate_path, HOST_CERTIFICATE, 0o644),
            ("etcd-key", &self.certificate_key_path, HOST_KEY, 0o600),
        ];
        let found =
            wanted.into_iter().filter_map(|(name, from, to, mode)| Some((name, from.as_ref()?, to, mode)));
        found
            .map(|(name, from, to, mode)| {
                let content =
                    fs::read(from).map_err(|e| format!("{} cannot be read: {e}", from.display()))?;
                Ok((name, to, content, mode))
            })
            .collect()
    }

    /// What flannel is told of them.
    pub(crate) fn options(&self) -> String {
        let mut options = Vec::new();
        for (path, option, file) in [
            (&self.certificate_ca_path, "--etcd-cafile", HOST_CA),
            (&self.certificate_path, "--etcd-certfile", HOST_CERTIFICATE),
            (&self.certificate_key_path, "--etcd-keyfile", HOST_KEY),
        ] {
            if path.is_some() {
                options.push(format!("{option}={file}"));
            }
        }
        options.join(" ")
    }
}
