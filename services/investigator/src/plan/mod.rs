//! What is to be done on a host: steps in their order, each of which looks before it does anything.

mod network;
mod templates;

use commissaire_ssh::os::Os;
use serde_json::json;

use crate::config::{Members, Runtime};

pub(crate) use network::{Wanted, wanted};
pub(crate) use templates::Templates;
use templates::{DOCKER, FLANNELD};

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Action {
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Runs `apply` unless `check` ends with 0. Without `apply` a check that fails cannot be helped.
    Script {
        check: String,
        apply: Option<String>,
        /// What it does, for people.
        shown: String,
        /// What is wrong when it cannot be helped.
        missing: String,
        variables: Vec<(&'static str, String)>,
    },
    /// Writes a file.
    File { path: String, content: Vec<u8>, mode: Option<u32> },
    /// Has a service run, and start with the system; starts it anew when one of these steps has changed something.
    Service { unit: &'static str, after: Vec<String> },
}

/// Where a host notes which packages its package manager says that it has installed.
const NOTES: &str = "/var/lib/commissaire/installed";
/// Where it notes until its next boot what is there only then.
const STAGED: &str = "/run/commissaire.staged";

/// The steps of a host of this kind, or why there can be none.
pub(crate) fn plan(
    members: &Members,
    templates: &Templates,
    os: &Os,
    network: &Wanted,
) -> Result<Vec<Action>, String> {
    let mut actions = Vec::new();
    let flannel = matches!(network, Wanted::FlannelEtcd(_) | Wanted::FlannelServer(_));
    let runtime = members.container_runtime.names();
    if let (Some(check), Some(apply), true) =
        (&os.repositories, &os.enable_repositories, flannel || runtime.is_some())
    {
        let kind = Kind::Script {
            check: check.clone(),
            apply: Some(apply.clone()),
            shown: apply.clone(),
            missing: String::new(),
            variables: Vec::new(),
        };
        actions.push(Action { name: "repositories".to_owned(), kind });
    }
    if let Some((name, daemon, unit)) = runtime {
        actions.push(install(os, name, daemon, unit));
    }
    if flannel {
        actions.push(install(os, "flannel", "flanneld", "flanneld.service"));
        actions.extend(flannel_files(members, templates, os, network)?);
    }
    if members.container_runtime == Runtime::Docker && templates.has(DOCKER) {
        let content = templates.render(DOCKER, json!({"os": os.name}))?;
        actions.push(file("docker-config", "/etc/docker/daemon.json".to_owned(), content.into_bytes(), None));
    }
    let files = |prefix: &str| -> Vec<String> {
        actions.iter().map(|action| action.name.clone()).filter(|name| name.starts_with(prefix)).collect()
    };
    let flannel_changes = [files("flannel-config"), files("etcd-")].concat();
    let mut runtime_changes = files("docker-config");
    if flannel {
        let kind = Kind::Service { unit: "flanneld.service", after: flannel_changes.clone() };
        actions.push(Action { name: "flannel-service".to_owned(), kind });
        // Its containers get their addresses from flannel.
        runtime_changes.extend(flannel_changes);
    }
    if let Some((name, _, unit)) = runtime {
        let kind = Kind::Service { unit, after: runtime_changes };
        actions.push(Action { name: format!("{name}-service"), kind });
    }
    Ok(actions)
}

/// Installs what `name` stands for in the OS table. It is there when its daemon is, when the package manager knows it, or
/// when the package manager has once said that it has installed it and it runs.
fn install(os: &Os, name: &'static str, daemon: &str, unit: &'static str) -> Action {
    let packages = os.packages.get(name).map(Vec::as_slice).unwrap_or_default();
    let installed = os.installed.as_deref().unwrap_or("false");
    // An image may hide its daemon; where nothing can be installed, what is there is what there is.
    let or =
        if os.install.is_none() { format!(" || command -v {name} >/dev/null 2>&1") } else { String::new() };
    let check = format!(
        "{{ command -v {daemon} >/dev/null 2>&1{or}; }} && exit 0\n[ -n \"$PACKAGES\" ] || exit 1\nall() {{\nfor PACKAGE in $PACKAGES; do\n\
         export PACKAGE\nsaid=$( {installed} ) && [ -n \"$said\" ] || return 1\ndone\n}}\nall >/dev/null 2>&1 && exit 0\n\
         for PACKAGE in $PACKAGES; do grep -qxF \"$PACKAGE\" {NOTES} 2>/dev/null || exit 1; done\n( {} )",
        os.active
    );
    let apply = os.install.as_ref().filter(|_| !packages.is_empty()).map(|install| {
        let note = format!(
            "mkdir -p /var/lib/commissaire\nfor PACKAGE in $PACKAGES; do\n\
             grep -qxF \"$PACKAGE\" {NOTES} 2>/dev/null || echo \"$PACKAGE\" >>{NOTES}\ndone"
        );
        match os.needs_reboot.as_deref().filter(|_| os.staged) {
            None => format!("( {install} ) || exit\n{note}"),
            // What is staged already is not asked for again.
            Some(is_staged) => format!(
                "is_staged() {{\n( {is_staged} ) >/dev/null 2>&1\n}}\n\
                 is_staged && grep -qxF \"$PACKAGES\" {STAGED} 2>/dev/null || ( {install} ) || exit\n\
                 command -v {daemon} >/dev/null 2>&1 || ! is_staged || {{\necho \"$PACKAGES\" >>{STAGED}\n\
                 echo \"{name} is there from the next boot on: reboot the host, then investigate it again\" >&2\nexit 1\n}}\n{note}"
            ),
        }
    });
    let missing = match os.install {
        None => {
            format!("the image that it runs has no {daemon}, and nothing can be installed on {}", os.name)
        }
        Some(_) => {
            format!("there is no {daemon}, and the OS table names no package of {name} for {}", os.name)
        }
    };
    let hint = "choose another container_runtime or network, or say in os_file what to do";
    let shown = os.install.as_deref().unwrap_or_default().replace("$PACKAGES", &packages.join(" "));
    let kind = Kind::Script {
        check,
        apply,
        shown: shown.trim().to_owned(),
        missing: format!("{missing}: {hint}"),
        variables: vec![("PACKAGES", packages.join(" ")), ("UNIT", unit.to_owned())],
    };
    Action { name: format!("install-{name}"), kind }
}

fn flannel_files(
    members: &Members,
    templates: &Templates,
    os: &Os,
    network: &Wanted,
) -> Result<Vec<Action>, String> {
    let mut actions = Vec::new();
    let values = match network {
        Wanted::FlannelEtcd(etcd) => {
            for (name, path, content, mode) in etcd.files()? {
                actions.push(file(name, path.to_owned(), content, Some(mode)));
            }
            json!({
                "type": "flannel_etcd",
                "endpoints": etcd.server_url,
                "prefix": members.flannel_etcd_prefix,
                "options": etcd.options(),
            })
        }
        Wanted::FlannelServer(address) => json!({"type": "flannel_server", "address": address}),
        Wanted::Nothing | Wanted::Impossible(_) => return Ok(actions),
    };
    let content = templates.render(FLANNELD, values)?;
    let path = format!("{}/flanneld", os.config_dir);
    actions.push(file("flannel-config", path, content.into_bytes(), None));
    Ok(actions)
}

fn file(name: &str, path: String, content: Vec<u8>, mode: Option<u32>) -> Action {
    Action { name: name.to_owned(), kind: Kind::File { path, content, mode } }
}
