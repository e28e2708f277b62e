//! Hosts with one machine id: copies of an image that had one. What tells machines apart by it takes them for one.

use commissaire::Result;
use commissaire_api::{
    HostState,
    storage::{List, ListParams},
};
use serde_json::{Map, Value};

use crate::state::State;

const TOLD: &str = "its machine-id is also that of ";

/// Whether this warning is one of ours.
pub(crate) fn is_told(warning: &str) -> bool {
    warning.starts_with(TOLD)
}

/// Looks for the twins of a host whose state is stored, and warns of them here and there. Of two that are looked over at
/// one moment one finds the other: each is stored before it looks.
pub(crate) async fn tell(state: &State, host: &HostState) -> Result<()> {
    if host.machine_id.is_empty() {
        return Ok(());
    }
    let params = ListParams {
        model_type_name: "HostState".to_owned(),
        filter: Some(Map::from_iter([("machine_id".to_owned(), Value::from(host.machine_id.as_str()))])),
        fields: Some(vec!["address".to_owned()]),
        limit: Some(5),
        ..ListParams::default()
    };
    let listed = state.client.call(List, &params).await?;
    let page: Value = listed.to().unwrap_or_default();
    let all = page["records"].as_array().into_iter().flatten();
    let all = all.filter_map(|record| record["address"].as_str());
    let twins: Vec<&str> = all.filter(|other| *other != host.address).collect();
    if !twins.is_empty() || host.warnings.iter().any(|warning| is_told(warning)) {
        let said = (!twins.is_empty()).then(|| text(&twins.join(", ")));
        let warn = |state: &mut HostState| {
            state.warnings.retain(|warning| !is_told(warning));
            state.warnings.extend(said.clone());
        };
        state.storage.update_or_create(host, warn).await?;
    }
    for twin in twins {
        let new = HostState { address: twin.to_owned(), ..HostState::default() };
        let warn = |state: &mut HostState| {
            if state.machine_id == host.machine_id && !state.warnings.iter().any(|warning| is_told(warning)) {
                state.warnings.push(text(&host.address));
            }
        };
        state.storage.update_or_create(&new, warn).await?;
    }
    Ok(())
}

fn text(others: &str) -> String {
    format!("{TOLD}{others}: it was copied from an image that had one")
}
