//! The endpoints of an API server that the services use, as kube-apiserver answers them: the same tests run on both.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex, PoisonError},
};

use commissaire::testkit::{Certificates, Failure, Outcome};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, body::Bytes, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use rustls::{RootCertStore, ServerConfig, pki_types::pem::PemObject, server::WebPkiClientVerifier};
use serde_json::{Map, Value, json};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};
use tokio_rustls::TlsAcceptor;

use super::Cluster;

/// An API server.
pub(super) struct Fake {
    acceptor: TlsAcceptor,
    objects: Arc<Mutex<Objects>>,
    task: Option<JoinHandle<()>>,
}

/// All objects by their paths.
#[derive(Default)]
struct Objects {
    by_path: BTreeMap<String, Value>,
    count: u64,
}

type Answer = (u16, Value);

impl Fake {
    pub(super) fn new(files: &Certificates, certificate: &str) -> Outcome<Self> {
        let odd = |error: &dyn std::fmt::Display| Failure::new(format!("a fake API server: {error}"));
        let read = |name: &str| {
            let all =
                rustls::pki_types::CertificateDer::pem_file_iter(files.of(name)).map_err(|e| odd(&e))?;
            all.collect::<Result<Vec<_>, _>>().map_err(|e| odd(&e))
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(read("ca")?);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let clients = clients.allow_unauthenticated().build().map_err(|e| odd(&e))?;
        let key =
            rustls::pki_types::PrivateKeyDer::from_pem_file(files.key(certificate)).map_err(|e| odd(&e))?;
        let shown = read(certificate)?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|config| config.with_client_cert_verifier(clients).with_single_cert(shown, key));
        let config = config.map_err(|e| odd(&e))?;
        let mut objects = Objects::default();
        objects
            .by_path
            .insert("/api/v1/namespaces/default".to_owned(), json!({"metadata": {"name": "default"}}));
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            objects: Arc::new(Mutex::new(objects)),
            task: None,
        })
    }

    pub(super) fn down(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }

    pub(super) async fn up(&mut self, port: u16) -> Outcome {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let (acceptor, objects) = (self.acceptor.clone(), self.objects.clone());
        self.task = Some(tokio::spawn(async move {
            // Dropped with all connections when it is to be down.
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, objects) = (acceptor.clone(), objects.clone());
                connections.spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let known = stream.get_ref().1.peer_certificates().is_some();
                    let serve = service_fn(move |request| answer(objects.clone(), known, request));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), serve).await;
                });
            }
        }));
        Ok(())
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.down();
    }
}

async fn answer(
    objects: Arc<Mutex<Objects>>,
    known: bool,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let body: Value = serde_json::from_slice(&body.collect().await?.to_bytes()).unwrap_or_default();
    let shown = head.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let path = head.uri.path().to_owned();
    let query = head.uri.query().unwrap_or_default().replace("%3D", "=");
    let (status, value) = match shown.strip_prefix("Bearer ") {
        Some(Cluster::TOKEN) => {
            objects.lock().unwrap_or_else(PoisonError::into_inner).act(&head.method, &path, &query, &body)
        }
        Some(Cluster::READER) => refused(403, "Forbidden", "User \"none\" cannot do that"),
        None if known => {
            objects.lock().unwrap_or_else(PoisonError::into_inner).act(&head.method, &path, &query, &body)
        }
        _ => refused(401, "Unauthorized", "Unauthorized"),
    };
    let response = Response::builder().status(status).header("content-type", "application/json");
    let bytes = Full::new(Bytes::from(value.to_string()));
    Ok(response.body(bytes).unwrap_or_default())
}

impl Objects {
    fn act(&mut self, method: &Method, path: &str, query: &str, body: &Value) -> Answer {
        if let Some(pod) = path.strip_suffix("/eviction") {
            return self.evict(pod, body);
        }
        let path = path.trim_end_matches("/status");
        match *method {
            Method::GET => match self.by_path.get(path) {
                Some(found) => (200, found.clone()),
                None if is_list(path) => (200, self.list(path, query)),
                None => missing(path),
            },
            Method::POST => self.create(path, body),
            Method::PATCH => self.patch(path, body),
            Method::DELETE => self.delete(path, body),
            _ => refused(405, "MethodNotAllowed", "not here"),
        }
    }

    fn create(&mut self, path: &str, body: &Value) -> Answer {
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        let place = format!("{path}/{name}");
        if self.by_path.contains_key(&place) {
            return refused(409, "AlreadyExists", &format!("{name:?} already exists"));
        }
        let mut object = body.clone();
        object["metadata"]["uid"] = json!(format!("uid-{}", self.count));
        if path.ends_with("/pods") {
            object["metadata"]["namespace"] = json!("default");
        }
        self.keep(place, object, 201)
    }

    fn patch(&mut self, path: &str, patch: &Value) -> Answer {
        let Some(mut object) = self.by_path.get(path).cloned() else { return missing(path) };
        let expected = &patch["metadata"]["resourceVersion"];
        if !expected.is_null() && *expected != object["metadata"]["resourceVersion"] {
            return refused(409, "Conflict", "the object has been modified");
        }
        merge(&mut object, patch);
        self.keep(path.to_owned(), object, 200)
    }

    fn delete(&mut self, path: &str, options: &Value) -> Answer {
        let Some(mut object) = self.by_path.get(path).cloned() else { return missing(path) };
        let uid = &options["preconditions"]["uid"];
        if !uid.is_null() && *uid != object["metadata"]["uid"] {
            return refused(409, "Conflict", "the UID in the precondition does not match");
        }
        // A pod on a node is gone when its kubelet says so.
        if path.contains("/pods/") && options["gracePeriodSeconds"] != 0 {
            if object["metadata"]["deletionTimestamp"].is_null() {
                object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            return self.keep(path.to_owned(), object, 200);
        }
        self.by_path.remove(path);
        (200, object)
    }

    fn evict(&mut self, pod: &str, eviction: &Value) -> Answer {
        let Some(object) = self.by_path.get(pod).cloned() else { return missing(pod) };
        let budget = self.by_path.iter().find(|(path, budget)| {
            let labels = budget["spec"]["selector"]["matchLabels"].as_object();
            let labels = labels.filter(|_| path.contains("/poddisruptionbudgets/"));
            labels.is_some_and(|labels| {
                labels.iter().all(|(name, value)| object["metadata"]["labels"][name] == *value)
            })
        });
        if let Some((path, budget)) = budget.map(|(path, budget)| (path.clone(), budget.clone())) {
            let allowed = budget["status"]["disruptionsAllowed"].as_u64().unwrap_or_default();
            if allowed == 0 {
                let name = budget["metadata"]["name"].as_str().unwrap_or_default();
                let why = format!("The disruption budget {name} needs 1 healthy pods and has 1 currently");
                let (status, mut said) = refused(
                    429,
                    "TooManyRequests",
                    "Cannot evict pod as it would violate the pod's disruption budget.",
                );
                said["details"] = json!({"causes": [{"reason": "DisruptionBudget", "message": why}]});
                return (status, said);
            }
            let _ = self.patch(&path, &json!({"status": {"disruptionsAllowed": allowed - 1}}));
        }
        match self.delete(pod, &eviction["deleteOptions"]) {
            (200, _) => (201, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"})),
            other => other,
        }
    }

    fn list(&self, path: &str, query: &str) -> Value {
        let node = query.split('&').find_map(|part| part.strip_prefix("fieldSelector=spec.nodeName="));
        // Those of all namespaces, or directly below the path.
        let kind = path.rsplit('/').next().unwrap_or_default();
        let is_in = |at: &str| {
            at.strip_prefix(path).is_some_and(|rest| rest.matches('/').count() == 1)
                || (!path.contains("/namespaces/") && at.contains(&format!("/namespaces/default/{kind}/")))
        };
        let items = self.by_path.iter().filter(|(at, _)| is_in(at)).map(|(_, item)| item);
        let items = items.filter(|item| node.is_none_or(|node| item["spec"]["nodeName"] == node));
        let items: Vec<&Value> = items.collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items})
    }

    fn keep(&mut self, place: String, mut object: Value, status: u16) -> Answer {
        self.count += 1;
        object["metadata"]["resourceVersion"] = json!(self.count.to_string());
        self.by_path.insert(place, object.clone());
        (status, object)
    }
}

fn is_list(path: &str) -> bool {
    ["/nodes", "/pods", "/poddisruptionbudgets"].iter().any(|end| path.ends_with(end))
}

/// As JSON merge patches are applied: `null` takes a member out.
fn merge(into: &mut Value, patch: &Value) {
    let Value::Object(members) = patch else {
        patch.clone_into(into);
        return;
    };
    if !into.is_object() {
        *into = Value::Object(Map::new());
    }
    for (name, value) in members {
        if value.is_null() {
            if let Some(object) = into.as_object_mut() {
                object.remove(name);
            }
        } else {
            merge(&mut into[name], value);
        }
    }
}

fn missing(path: &str) -> Answer {
    refused(404, "NotFound", &format!("{:?} not found", path.rsplit('/').next().unwrap_or_default()))
}

fn refused(code: u16, reason: &str, message: &str) -> Answer {
    let said = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason,
        "message": message});
    (code, said)
}
