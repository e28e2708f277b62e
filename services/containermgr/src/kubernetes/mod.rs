//! Kubernetes, and OpenShift, which speaks the same.

mod connection;
mod cordon;
mod node;
mod refusal;

use std::time::Duration;

use async_trait::async_trait;
use commissaire_api::container::{Cordoned, Node};
use k8s_openapi::api::core::v1::{Node as CoreNode, Pod as CorePod};
use kube::{
    Api, Error,
    api::{DeleteParams, ListParams, PostParams, Preconditions},
    core::Status,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::{connection::Connection, refusal::fault};
use crate::{
    fault::Fault,
    manager::{Eviction, Manager},
    options::Options,
    pod::Pod,
};

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// How many things are asked for at one time.
const PAGE: u32 = 500;
/// The label of nodes that this system has registered.
const OURS: (&str, &str) = ("commissaire/registered", "true");
/// The annotation that names the operation whose cordon it is.
const CORDONED_BY: &str = "commissaire/cordoned-by";

/// An API server.
#[derive(Debug)]
pub(crate) struct Kubernetes {
    connection: Connection,
}

impl Kubernetes {
    pub(crate) fn new(name: &str, options: Options) -> Self {
        Self { connection: Connection::new(name, options) }
    }

    async fn get(&self, name: &str) -> Result<Option<CoreNode>, Fault> {
        self.connection.ask(|client| async move { Api::<CoreNode>::all(client).get_opt(name).await }).await
    }

    /// All of a kind that `wanted` takes, page by page.
    async fn list<T>(&self, wanted: &ListParams) -> Result<Vec<T>, Fault>
    where
        T: kube::Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    {
        let (mut all, mut token) = (Vec::new(), None::<String>);
        loop {
            let page = &ListParams { continue_token: token, limit: Some(PAGE), ..wanted.clone() };
            let asked =
                self.connection.ask(|client| async move { Api::<T>::all(client).list(page).await }).await;
            let listed = match asked {
                // The pages have grown old: all of them at once.
                Err(fault) if fault.status() == Some(410) && page.continue_token.is_some() => {
                    let whole = &ListParams { limit: None, ..wanted.clone() };
                    let asked = self
                        .connection
                        .ask(|client| async move { Api::<T>::all(client).list(whole).await })
                        .await;
                    return Ok(asked?.items);
                }
                listed => listed?,
            };
            token = listed.metadata.continue_.filter(|token| !token.is_empty());
            all.extend(listed.items);
            if token.is_none() {
                return Ok(all);
            }
        }
    }
}

#[async_trait]
impl Manager for Kubernetes {
    async fn status(&self, name: &str) -> Result<Option<Value>, Fault> {
        let Some(node) = self.get(name).await? else { return Ok(None) };
        let mut node = serde_json::to_value(node).unwrap_or_default();
        // As the first Commissaire passed it on.
        node["kind"] = json!("Node");
        node["apiVersion"] = json!("v1");
        Ok(Some(node))
    }

    async fn node(&self, name: &str) -> Result<Option<Node>, Fault> {
        Ok(self.get(name).await?.map(node::of))
    }

    async fn nodes(&self) -> Result<Vec<Node>, Fault> {
        let mut nodes: Vec<Node> =
            self.list(&ListParams::default()).await?.into_iter().map(node::of).collect();
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(nodes)
    }

    async fn register(&self, name: &str) -> Result<bool, Fault> {
        let new: CoreNode = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {OURS.0: OURS.1}},
        }))
        .map_err(|_| Fault::not_registered(name))?;
        let new = &new;
        let create = |client| async move { Api::all(client).create(&PostParams::default(), new).await };
        match self.connection.ask(create).await {
            Ok(_) => Ok(true),
            Err(fault) if fault.status() == Some(409) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    async fn remove(&self, name: &str) -> Result<bool, Fault> {
        let delete = |client| async move {
            Api::<CoreNode>::all(client).delete(name, &DeleteParams::default()).await.map(drop)
        };
        match self.connection.ask(delete).await {
            Ok(()) => Ok(true),
            Err(fault) if fault.status() == Some(404) => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    async fn cordon(&self, name: &str, operation: &str) -> Result<Cordoned, Fault> {
        cordon::cordon(self, name, operation).await
    }

    async fn uncordon(&self, name: &str, operation: &str) -> Result<Cordoned, Fault> {
        cordon::uncordon(self, name, operation).await
    }

    async fn pods(&self, node: &str) -> Result<Vec<Pod>, Fault> {
        let on = ListParams::default().fields(&format!("spec.nodeName={node}"));
        Ok(self.list::<CorePod>(&on).await?.into_iter().map(Pod::of).collect())
    }

    async fn evict(&self, pod: &Pod, grace: Option<u32>) -> Result<Eviction, Fault> {
        // Without a version: servers before 1.22 know another than those after 1.25. The client's own eviction would lose
        // the options: it misspells them.
        let eviction = &json!({
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": deletion(pod, grace),
        });
        let evict = |client| async move {
            let (pods, options) = (Api::<CorePod>::namespaced(client, &pod.namespace), PostParams::default());
            match pods.create_subresource::<_, Status>("eviction", &pod.name, &options, eviction).await {
                Err(Error::Api(status)) => match refusal::blocked(&status) {
                    Some(why) => Ok(Eviction::Blocked(why)),
                    None => Err(Error::Api(status)),
                },
                told => told.map(|_| Eviction::Told),
            }
        };
        match self.connection.ask(evict).await {
            // 409: there is another of that name.
            Err(fault) if [Some(404), Some(409)].contains(&fault.status()) => Ok(Eviction::Gone),
            told => told,
        }
    }

    async fn delete(&self, pod: &Pod, grace: Option<u32>) -> Result<(), Fault> {
        let options = &deletion(pod, grace);
        let delete = |client| async move {
            Api::<CorePod>::namespaced(client, &pod.namespace).delete(&pod.name, options).await.map(drop)
        };
        match self.connection.ask(delete).await {
            Err(fault) if [Some(404), Some(409)].contains(&fault.status()) => Ok(()),
            told => told,
        }
    }
}

/// Only this pod, not one that has its name later.
fn deletion(pod: &Pod, grace: Option<u32>) -> DeleteParams {
    let uid = Some(pod.uid.clone());
    DeleteParams {
        grace_period_seconds: grace,
        preconditions: Some(Preconditions { uid, resource_version: None }),
        ..DeleteParams::default()
    }
}
