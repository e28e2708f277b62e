//! A container manager that knows which nodes there are, and nothing else: for tests and demonstrations.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use commissaire_api::container::{Cordoned, FailureKind, Node};
use serde_json::{Value, json};

use crate::{
    fault::Fault,
    manager::{Eviction, Manager},
    pod::Pod,
};

/// Nodes in memory, and in a file where they are to outlive the service. A node is cordoned by the operation of that name.
#[derive(Debug)]
pub(crate) struct Trivial {
    nodes: Mutex<BTreeMap<String, String>>,
    file: Option<PathBuf>,
}

impl Trivial {
    pub(crate) fn open(name: &str, persistent: bool, dir: &Path) -> Result<Self, Fault> {
        let file = persistent.then(|| dir.join(format!("trivial {name}.json")));
        let nodes = match &file {
            None => BTreeMap::new(),
            Some(path) => read(path).map_err(|error| kept(path, &error))?,
        };
        Ok(Self { nodes: Mutex::new(nodes), file })
    }

    /// Changes the nodes, and keeps them; what cannot be kept is not changed.
    fn change<T>(&self, edit: impl FnOnce(&mut BTreeMap<String, String>) -> T) -> Result<T, Fault> {
        let mut nodes = self.lock();
        let mut changed = nodes.clone();
        let told = edit(&mut changed);
        if let Some(path) = self.file.as_ref().filter(|_| *nodes != changed) {
            write(path, &changed).map_err(|error| kept(path, &error))?;
        }
        *nodes = changed;
        Ok(told)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Manager for Trivial {
    async fn status(&self, name: &str) -> Result<Option<Value>, Fault> {
        Ok(self.lock().contains_key(name).then(|| json!({"node": name, "status": "ok"})))
    }

    async fn node(&self, name: &str) -> Result<Option<Node>, Fault> {
        Ok(self.lock().get(name).map(|owner| node(name, owner)))
    }

    async fn nodes(&self) -> Result<Vec<Node>, Fault> {
        Ok(self.lock().iter().map(|(name, owner)| node(name, owner)).collect())
    }

    async fn register(&self, name: &str) -> Result<bool, Fault> {
        self.change(|nodes| {
            let new = !nodes.contains_key(name);
            nodes.entry(name.to_owned()).or_default();
            new
        })
    }

    async fn remove(&self, name: &str) -> Result<bool, Fault> {
        self.change(|nodes| nodes.remove(name).is_some())
    }

    async fn cordon(&self, name: &str, operation: &str) -> Result<Cordoned, Fault> {
        let told = self.change(|nodes| {
            let owner = nodes.get_mut(name)?;
            let changed = owner.is_empty();
            if changed {
                operation.clone_into(owner);
            }
            Some(Cordoned { changed, cordoned: true, cordoned_by: owner.clone() })
        })?;
        told.ok_or_else(|| Fault::not_registered(name))
    }

    async fn uncordon(&self, name: &str, operation: &str) -> Result<Cordoned, Fault> {
        let told = self.change(|nodes| {
            let owner = nodes.get_mut(name)?;
            let changed = owner == operation;
            if changed {
                owner.clear();
            }
            Some(Cordoned { changed, cordoned: !owner.is_empty(), cordoned_by: owner.clone() })
        })?;
        told.ok_or_else(|| Fault::not_registered(name))
    }

    async fn pods(&self, _: &str) -> Result<Vec<Pod>, Fault> {
        Ok(Vec::new())
    }

    async fn evict(&self, _: &Pod, _: Option<u32>) -> Result<Eviction, Fault> {
        Ok(Eviction::Gone)
    }

    async fn delete(&self, _: &Pod, _: Option<u32>) -> Result<(), Fault> {
        Ok(())
    }
}

fn node(name: &str, owner: &str) -> Node {
    Node {
        name: name.to_owned(),
        ours: true,
        ready: true,
        cordoned: !owner.is_empty(),
        cordoned_by: owner.to_owned(),
        ..Node::default()
    }
}

fn read(path: &Path) -> io::Result<BTreeMap<String, String>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(Into::into),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

/// Replaces the file in one step.
fn write(path: &Path, nodes: &BTreeMap<String, String>) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    let draft = path.with_extension(format!("new-{}", std::process::id()));
    fs::write(&draft, serde_json::to_vec(nodes)?)?;
    fs::rename(draft, path)
}

fn kept(path: &Path, error: &io::Error) -> Fault {
    Fault::new(FailureKind::Config, format!("its nodes cannot be kept in {}: {error}", path.display()))
}
