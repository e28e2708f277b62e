//! Clusters of Kubernetes without machines: an API server that tests play controllers and kubelets to.

mod fake;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use ::kube::{
    Api, Client, Config,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    core::{ApiResource, GroupVersionKind},
};
use commissaire::testkit::{Certificates, Failure, Outcome, Process, Server, until};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::fake::Fake;
use crate::{PATIENCE, alone::asked};

/// Names a kube-apiserver, for tests without `--long`.
const VARIABLE: &str = "COMMISSAIRE_KUBE_APISERVER";
/// What makes one.
const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/cluster/apiserver.sh");

/// Which API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterKind {
    /// One of these tests' own, with the endpoints that the services use.
    Fake,
    /// A kube-apiserver 1.20 with an etcd.
    Real,
}

/// An API server on 127.0.0.1, over TLS, in a folder of its own; gone when dropped. No controller and no kubelet runs: a
/// pod that is told to leave stays until a test has it [gone](Cluster::gone).
pub struct Cluster {
    port: u16,
    certificates: Certificates,
    admin: Client,
    serves: Serves,
}

enum Serves {
    Fake(Fake),
    Real(Box<Real>),
}

/// A kube-apiserver.
struct Real {
    program: PathBuf,
    etcd: Server,
    dir: TempDir,
    certificate: String,
    process: Option<Process>,
}

/// A sort of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// Nodes.
    Node,
    /// Pods, in the namespace `default`.
    Pod,
    /// Disruption budgets, there as well.
    Budget,
    /// Who may do what.
    Binding,
}

impl ClusterKind {
    /// Whether tests with it are left out; says so.
    pub fn left_out(self, name: &str) -> bool {
        let there = self == Self::Fake || asked() || std::env::var_os(VARIABLE).is_some();
        if !there {
            // Not by `eprintln!`, which the test harness would swallow.
            let text =
                format!("{name}: excluded: needs a kube-apiserver: COMMISSAIRE_LONG=1 or {VARIABLE}=FILE\n");
            let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
        }
        !there
    }
}

impl Cluster {
    /// The token of who may do everything.
    pub const TOKEN: &str = "c4n4ry-t0ken-of-all";
    /// The token of who may do nothing.
    pub const READER: &str = "c4n4ry-t0ken-of-none";

    /// One that shows a certificate that is valid.
    pub async fn start(kind: ClusterKind) -> Outcome<Self> {
        Self::showing(kind, "server").await
    }

    /// One that shows the certificate of this name, of [`Certificates`].
    pub async fn showing(kind: ClusterKind, certificate: &str) -> Outcome<Self> {
        let certificates = Certificates::new()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let serves = match kind {
            ClusterKind::Fake => Serves::Fake(Fake::new(&certificates, certificate)?),
            ClusterKind::Real => {
                let dir = TempDir::new()?;
                fs::write(
                    dir.path().join("tokens.csv"),
                    format!("{},all,1,\"system:masters\"\n{},none,2\n", Self::TOKEN, Self::READER),
                )?;
                let etcd = Server::etcd(&[]).await?;
                let certificate = certificate.to_owned();
                Serves::Real(Box::new(Real { program: program()?, etcd, dir, certificate, process: None }))
            }
        };
        let admin = admin(port).await?;
        let mut cluster = Self { port, certificates, admin, serves };
        cluster.up().await?;
        Ok(cluster)
    }

    /// Where it is.
    pub fn url(&self) -> String {
        url(self.port)
    }

    /// The authority of its certificate, and client certificates that it takes.
    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// Ends it at once; what it keeps stays.
    pub fn down(&mut self) {
        match &mut self.serves {
            Serves::Fake(fake) => fake.down(),
            Serves::Real(real) => drop(real.process.take()),
        }
    }

    /// Starts it again, where it was.
    pub async fn up(&mut self) -> Outcome {
        match &mut self.serves {
            Serves::Fake(fake) => return fake.up(self.port).await,
            Serves::Real(real) => {
                let Real { program, etcd, dir, certificate, process } = &mut **real;
                let file = |name: &str| dir.path().join(name).display().to_string();
                let (certificates, log) = (&self.certificates, fs::File::create(dir.path().join("log"))?);
                let mut command = Process::command(&*program);
                command
                    .arg(format!("--etcd-servers={}", etcd.uri()))
                    .arg(format!("--secure-port={}", self.port));
                command.args([
                    "--bind-address=127.0.0.1",
                    "--advertise-address=127.0.0.1",
                    "--authorization-mode=RBAC",
                ]);
                command.args(["--service-cluster-ip-range=10.0.0.0/24", "--endpoint-reconciler-type=none"]);
                command.args(["--disable-admission-plugins=ServiceAccount", "--allow-privileged=true"]);
                command.arg("--service-account-issuer=https://kubernetes.default.svc");
                for (name, value) in [
                    ("tls-cert-file", certificates.of(certificate)),
                    ("tls-private-key-file", certificates.key(certificate)),
                    ("client-ca-file", certificates.of("ca")),
                    ("service-account-key-file", certificates.of("ca")),
                    ("service-account-signing-key-file", certificates.key("ca")),
                    ("token-auth-file", file("tokens.csv")),
                    ("cert-dir", file("own")),
                ] {
                    command.arg(format!("--{name}={value}"));
                }
                command.current_dir(dir.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
                *process = Some(Process::spawn("kube-apiserver", command)?);
            }
        }
        // Its namespace is made by itself, a while after the start.
        let namespaces = Api::<DynamicObject>::all_with(self.admin.clone(), &resource("", "v1", "Namespace"));
        let ready = async || namespaces.get_opt("default").await.is_ok_and(|found| found.is_some());
        let waited = until("the API server is ready", 2 * PATIENCE, ready).await;
        waited.map_err(|failure| match &self.serves {
            Serves::Real(real) => {
                let log = fs::read_to_string(real.dir.path().join("log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(3).collect();
                failure.in_step(format!("its log, last line first: {tail:?}"))
            }
            Serves::Fake(_) => failure,
        })
    }

    /// Makes an object; the metadata of a pod or a budget needs no namespace.
    pub async fn create(&self, sort: Sort, object: Value) -> Outcome {
        let object = serde_json::from_value(object).map_err(std::io::Error::from)?;
        self.api(sort).create(&PostParams::default(), &object).await.map(drop).map_err(odd)
    }

    /// An object, if it is there.
    pub async fn get(&self, sort: Sort, name: &str) -> Outcome<Option<Value>> {
        let found = self.api(sort).get_opt(name).await.map_err(odd)?;
        Ok(found.map(|found| serde_json::to_value(found).unwrap_or_default()))
    }

    /// Changes members of an object, and of its status.
    pub async fn patch(&self, sort: Sort, name: &str, patch: Value) -> Outcome {
        let api = self.api(sort);
        let (options, patch) = (PatchParams::default(), Patch::Merge(patch));
        let patched = match &patch {
            Patch::Merge(of) if of.get("status").is_some() => api.patch_status(name, &options, &patch).await,
            patch => api.patch(name, &options, patch).await,
        };
        patched.map(drop).map_err(odd)
    }

    /// A node is as its kubelet says.
    pub async fn kubelet(&self, node: &str, ready: bool, boot_id: &str) -> Outcome {
        let status = if ready { "True" } else { "False" };
        let ready = json!({"type": "Ready", "status": status, "reason": "Test", "message": "as the test says",
            "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let info = json!({"bootID": boot_id, "kubeletVersion": "v1.20.2", "osImage": "Debian", "architecture": "amd64",
            "containerRuntimeVersion": "x", "kernelVersion": "6", "kubeProxyVersion": "x", "machineID": "m",
            "operatingSystem": "linux", "systemUUID": "u"});
        self.patch(Sort::Node, node, json!({"status": {"conditions": [ready], "nodeInfo": info}})).await
    }

    /// A pod that runs on a node, with these more members.
    pub async fn pod(&self, name: &str, node: &str, metadata: Value, spec: Value) -> Outcome {
        let mut pod = json!({
            "metadata": {"name": name, "labels": {"app": name}},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": "none"}], "terminationGracePeriodSeconds": 30},
        });
        for (part, more) in [("metadata", metadata), ("spec", spec)] {
            for (member, value) in more.as_object().into_iter().flatten() {
                pod[part][member] = value.clone();
            }
        }
        self.create(Sort::Pod, pod).await?;
        let ready = json!([{"type": "Ready", "status": "True"}]);
        self.patch(Sort::Pod, name, json!({"status": {"phase": "Running", "conditions": ready}})).await
    }

    /// A budget of the pod of this name, that lets so many go.
    pub async fn budget(&self, pod: &str, allowed: u32) -> Outcome {
        let spec = json!({"minAvailable": 1, "selector": {"matchLabels": {"app": pod}}});
        self.create(Sort::Budget, json!({"metadata": {"name": format!("{pod}-budget")}, "spec": spec}))
            .await?;
        self.allow(pod, allowed).await
    }

    /// A budget lets so many go from now on.
    pub async fn allow(&self, pod: &str, allowed: u32) -> Outcome {
        let status = json!({"disruptionsAllowed": allowed, "currentHealthy": 1 + allowed, "desiredHealthy": 1,
            "expectedPods": 1 + allowed, "observedGeneration": 1});
        self.patch(Sort::Budget, &format!("{pod}-budget"), json!({"status": status})).await
    }

    /// A pod has ended: its kubelet takes it away.
    pub async fn gone(&self, pod: &str) -> Outcome {
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        self.api(Sort::Pod).delete(pod, &now).await.map(drop).map_err(odd)
    }

    /// Whether a pod was told to leave.
    pub async fn is_leaving(&self, pod: &str) -> Outcome<bool> {
        let pod = self.get(Sort::Pod, pod).await?;
        Ok(pod.is_some_and(|pod| !pod["metadata"]["deletionTimestamp"].is_null()))
    }

    fn api(&self, sort: Sort) -> Api<DynamicObject> {
        let client = self.admin.clone();
        match sort {
            Sort::Node => Api::all_with(client, &resource("", "v1", "Node")),
            Sort::Binding => {
                Api::all_with(client, &resource("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding"))
            }
            Sort::Pod => Api::namespaced_with(client, "default", &resource("", "v1", "Pod")),
            Sort::Budget => {
                Api::namespaced_with(client, "default", &resource("policy", "v1beta1", "PodDisruptionBudget"))
            }
        }
    }
}

fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

fn url(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}

/// The one who plays controllers, kubelets and people.
async fn admin(port: u16) -> Outcome<Client> {
    let config: Kubeconfig = serde_json::from_value(json!({
        "clusters": [{"name": "t", "cluster": {"server": url(port), "insecure-skip-tls-verify": true}}],
        "users": [{"name": "t", "user": {"token": Cluster::TOKEN}}],
        "contexts": [{"name": "t", "context": {"cluster": "t", "user": "t"}}], "current-context": "t",
    }))
    .map_err(std::io::Error::from)?;
    let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(|e| Failure::new(e.to_string()))?;
    config.read_timeout = Some(Duration::from_secs(10));
    config.reset_reader_on_write = true;
    Client::try_from(config).map_err(odd)
}

/// The kube-apiserver that is named, or that was made before, or is made now.
fn program() -> Outcome<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE) {
        return Ok(named.into());
    }
    static MAKING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = MAKING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // target/PROFILE/deps/integration-HASH
    let tests = std::env::current_exe()?;
    let target = tests.ancestors().nth(3).ok_or_else(|| Failure::new("the tests are in no target folder"))?;
    let path = target.join("tools/kube-apiserver");
    let made = std::process::Command::new("bash").arg(SCRIPT).arg(&path).stdin(Stdio::null()).output()?;
    if made.status.success() {
        return Ok(path);
    }
    Err(Failure::new(format!("no kube-apiserver was made: {}", String::from_utf8_lossy(&made.stderr))))
}

#[expect(clippy::needless_pass_by_value, reason = "it is what map_err gives")]
fn odd(error: ::kube::Error) -> Failure {
    Failure::new(format!("the API server, asked by the test: {error:?}"))
}
