//! Where what lies in etcd: the layout of the first Commissaire, below `/commissaire/`, and what is ours alone.

use commissaire_api::model::{Kept, Model};

/// Below this are records, and what tells of their changes.
pub(super) const ROOT: &str = "/commissaire/";
/// Written with every change of ours: who wanted it, and when. Of the same revision as the change.
pub(super) const NOTE: &str = "/commissaire/last_change";
/// The id of this place.
pub(super) const ID: &str = "/commissaire-service/id";
/// The key that secrets are sealed with, wrapped by the master key.
pub(super) const KEY: &str = "/commissaire-service/key";
/// Who announces changes, as long as its lease holds.
pub(super) const RELAY: &str = "/commissaire-service/relay/leader";
/// The revision up to which all changes were announced.
pub(super) const ANNOUNCED: &str = "/commissaire-service/relay/announced";

/// Where the records of a model are: what comes before the key and what comes behind it.
const PLACES: [(&str, &str, &str); 11] = [
    ("Host", "/commissaire/hosts/", ""),
    ("HostCreds", "/commissaire/secrets/hosts/", ""),
    ("Cluster", "/commissaire/clusters/", ""),
    ("ClusterDeploy", "/commissaire/cluster/", "/deploy"),
    ("ClusterRestart", "/commissaire/cluster/", "/restart"),
    ("ClusterUpgrade", "/commissaire/cluster/", "/upgrade"),
    ("Network", "/commissaire/networks/", ""),
    ("ContainerManagerConfig", "/commissaire/container_managers/", ""),
    ("HostState", "/commissaire/host_states/", ""),
    ("Investigation", "/commissaire/investigations/", ""),
    ("WatchShard", "/commissaire/watch_shards/", ""),
];

/// What comes before and behind the key of a record of `model`.
pub(super) fn around(model: &Model) -> (&'static str, &'static str) {
    let place = PLACES.iter().find(|(name, ..)| *name == model.name);
    place.map_or(("/commissaire/others/", ""), |(_, before, behind)| (before, behind))
}

/// Where the record `key` of `model` is.
pub(super) fn path(model: &Model, key: &str) -> String {
    let (before, behind) = around(model);
    format!("{before}{key}{behind}")
}

/// The key of the record of `model` at `path`.
pub(super) fn key<'a>(model: &Model, path: &'a [u8]) -> Option<&'a str> {
    let (before, behind) = around(model);
    let key = str::from_utf8(path).ok()?.strip_prefix(before)?.strip_suffix(behind)?;
    (!key.is_empty() && !key.contains('/')).then_some(key)
}

/// The model and the key of the record at `path`, if one is kept there.
pub(super) fn record(path: &[u8]) -> Option<(&'static Model, &str)> {
    PLACES.iter().find_map(|(name, ..)| {
        let model = Model::find(name).filter(|model| model.kept != Kept::Nowhere)?;
        Some((model, key(model, path)?))
    })
}

/// Where the lease `name` is.
pub(super) fn lease(name: &str) -> String {
    format!("/commissaire-service/leases/{name}")
}

#[cfg(test)]
mod tests {
    use commissaire_api::model::MODELS;

    use super::*;

    #[test]
    fn every_record_is_found_where_it_was_put() {
        for model in MODELS.into_iter().filter(|model| model.kept != Kept::Nowhere) {
            assert!(PLACES.iter().any(|(name, ..)| *name == model.name), "{} has no place", model.name);
            for key in ["10.0.0.7", "a b", "deploy", "hosts", "ü:*"] {
                let path = path(model, key);
                assert!(path.starts_with(ROOT));
                assert_eq!(
                    record(path.as_bytes()).map(|(model, key)| (model.name, key)),
                    Some((model.name, key))
                );
            }
        }
        for foreign in [NOTE, "/commissaire/hosts/", "/commissaire/config/storage", "/commissaire/hosts/a/b"]
        {
            assert_eq!(record(foreign.as_bytes()).map(|(_, key)| key), None, "{foreign}");
        }
    }
}
