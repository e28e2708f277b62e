//! The options of a container manager.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use commissaire_api::{
    ContainerManagerConfig, ContainerManagerKind,
    container::{FailureKind, ManagerFailure},
    record::CONTAINER_MANAGER_OPTIONS,
};
use kube::config::Kubeconfig;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use url::Url;
use zeroize::Zeroizing;

use crate::fault::Fault;

/// How a container manager is reached. `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Options {
    /// Its API server.
    pub(crate) server_url: Option<String>,
    /// The bearer token.
    pub(crate) token: Option<Zeroizing<String>>,
    /// A file with the token, which may be replaced at any time.
    pub(crate) token_path: Option<PathBuf>,
    /// A client certificate, its key, and who signs the server's.
    pub(crate) certificate_path: Option<PathBuf>,
    pub(crate) certificate_key_path: Option<PathBuf>,
    pub(crate) certificate_ca_path: Option<PathBuf>,
    /// Whether the server may be anybody.
    pub(crate) insecure_skip_tls_verify: bool,
    /// A kubeconfig, as its text or in a file, in the place of all that.
    pub(crate) kubeconfig: Option<Zeroizing<String>>,
    pub(crate) kubeconfig_path: Option<PathBuf>,
    /// Of a trivial one: whether its nodes outlive the service.
    pub(crate) persistent: bool,
}

/// Whether `config` can be used, as far as can be told without the files that it names.
///
/// # Errors
///
/// What is wrong with it.
pub fn check(config: &ContainerManagerConfig) -> Result<(), ManagerFailure> {
    Options::read(config).map(drop).map_err(|fault| fault.of(&config.name))
}

impl Options {
    /// Those of `config`, checked.
    pub(crate) fn read(config: &ContainerManagerConfig) -> Result<Self, Fault> {
        let given = config.options.iter().filter(|(_, value)| !is_nothing(value));
        let given: Map<String, Value> =
            given.map(|(name, value)| (name.replace('-', "_"), value.clone())).collect();
        if let Some(unknown) = given.keys().find(|name| !CONTAINER_MANAGER_OPTIONS.contains(&name.as_str())) {
            let shown: String = unknown.chars().take(64).collect();
            let near = commissaire::nearest(unknown, CONTAINER_MANAGER_OPTIONS);
            let near = near.map_or_else(String::new, |near| format!(": did you mean {near}?"));
            return Err(wrong(format!(
                "{shown:?} is not an option{near} (known are {})",
                CONTAINER_MANAGER_OPTIONS.join(", ")
            )));
        }
        for (name, value) in &given {
            let is_switch = ["insecure_skip_tls_verify", "persistent"].contains(&name.as_str());
            if is_switch != value.is_boolean() || !(value.is_boolean() || value.is_string()) {
                let takes = if is_switch { "true or false" } else { "text" };
                return Err(wrong(format!("{name}: it takes {takes}")));
            }
        }
        // The parser's error may quote a value.
        let options: Self = serde_json::from_value(Value::Object(given))
            .map_err(|_| wrong("the options cannot be read".to_owned()))?;
        match config.kind {
            ContainerManagerKind::Trivial => Ok(options),
            ContainerManagerKind::Kubernetes | ContainerManagerKind::Openshift => options.checked(),
        }
    }

    fn checked(self) -> Result<Self, Fault> {
        let alone = self.kubeconfig.is_some() || self.kubeconfig_path.is_some();
        let Some(server) = &self.server_url else {
            if alone {
                return self.kubeconfig_alone();
            }
            return Err(wrong("server_url is missing: a URL, such as https://10.0.0.1:6443".to_owned()));
        };
        if alone {
            return Err(wrong("kubeconfig says where the server is: take server_url out".to_owned()));
        }
        let url = Url::parse(server).map_err(|e| wrong(format!("server_url is no URL: {e}")))?;
        let host = url.host_str().unwrap_or_default();
        if !["http", "https"].contains(&url.scheme()) || host.is_empty() {
            return Err(wrong("server_url must be https://HOST:PORT".to_owned()));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("server_url must hold no password: say token".to_owned()));
        }
        if self.certificate_path.is_some() != self.certificate_key_path.is_some() {
            return Err(wrong("certificate_path and certificate_key_path go together".to_owned()));
        }
        let plain = url.scheme() == "http";
        if plain && self.certificate_path.is_some() {
            return Err(wrong("a client certificate needs a server_url with https".to_owned()));
        }
        let has_token = self.token.is_some() || self.token_path.is_some();
        if plain && has_token && !["127.0.0.1", "localhost", "[::1]"].contains(&host) {
            return Err(wrong("a token would go in the clear: server_url must be https".to_owned()));
        }
        if self.token.is_some() && self.token_path.is_some() {
            return Err(wrong("token and token_path are both set: one is".to_owned()));
        }
        Ok(self)
    }

    fn kubeconfig_alone(self) -> Result<Self, Fault> {
        let others = [&self.token_path, &self.certificate_path, &self.certificate_key_path];
        let others = others.iter().any(|other| other.is_some()) || self.certificate_ca_path.is_some();
        if others || self.token.is_some() || self.insecure_skip_tls_verify {
            return Err(wrong(
                "kubeconfig stands in the place of all other options: take them out".to_owned(),
            ));
        }
        if self.kubeconfig.is_some() && self.kubeconfig_path.is_some() {
            return Err(wrong("kubeconfig and kubeconfig_path are both set: one is".to_owned()));
        }
        Ok(self)
    }

    /// The files that are read, which may be replaced at any time.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let files = [
            &self.token_path,
            &self.certificate_path,
            &self.certificate_key_path,
            &self.certificate_ca_path,
            &self.kubeconfig_path,
        ];
        files.into_iter().filter_map(|path| path.as_deref())
    }

    /// All that as a kubeconfig; files are read.
    pub(crate) fn as_kubeconfig(&self) -> Result<Kubeconfig, Fault> {
        if let Some(path) = &self.kubeconfig_path {
            let failed = |e: &dyn fmt::Display| wrong(format!("kubeconfig_path {}: {e}", path.display()));
            return Kubeconfig::read_from(path).map_err(|e| failed(&e));
        }
        if let Some(text) = &self.kubeconfig {
            // The parser's error may quote the text.
            let unreadable = |_| wrong("kubeconfig is no kubeconfig".to_owned());
            let config = Kubeconfig::from_yaml(text).map_err(unreadable)?;
            let users = config.auth_infos.iter().filter_map(|named| named.auth_info.as_ref());
            if users.clone().any(|user| user.exec.is_some() || user.auth_provider.is_some()) {
                let why = "kubeconfig names a program to be run: that is taken from a file of this machine only, kubeconfig_path";
                return Err(wrong(why.to_owned()));
            }
            return Ok(config);
        }
        let mut user = Map::new();
        if let Some(token) = self.token()? {
            user.insert("token".to_owned(), token.as_str().into());
        }
        let mut cluster = Map::from_iter([
            ("server".to_owned(), json!(self.server_url)),
            ("insecure-skip-tls-verify".to_owned(), self.insecure_skip_tls_verify.into()),
        ]);
        let put = |of: &mut Map<String, Value>, name: &str, path: &Option<PathBuf>| {
            if let Some(path) = path {
                of.insert(name.to_owned(), path.display().to_string().into());
            }
        };
        put(&mut user, "client-certificate", &self.certificate_path);
        put(&mut user, "client-key", &self.certificate_key_path);
        put(&mut cluster, "certificate-authority", &self.certificate_ca_path);
        let config = json!({
            "clusters": [{"name": "one", "cluster": cluster}],
            "users": [{"name": "one", "user": user}],
            "contexts": [{"name": "one", "context": {"cluster": "one", "user": "one"}}],
            "current-context": "one",
        });
        serde_json::from_value(config).map_err(|_| wrong("the options cannot be used".to_owned()))
    }

    /// The token, of the file as it is now.
    fn token(&self) -> Result<Option<Zeroizing<String>>, Fault> {
        let Some(path) = &self.token_path else { return Ok(self.token.clone()) };
        let text = std::fs::read_to_string(path).map(Zeroizing::new);
        let text = text.map_err(|e| wrong(format!("token_path {}: {e}", path.display())))?;
        let token = text.trim();
        if token.is_empty() || token.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(wrong(format!("token_path {}: it does not hold one token", path.display())));
        }
        Ok(Some(Zeroizing::new(token.to_owned())))
    }
}

/// A value that says nothing.
fn is_nothing(value: &Value) -> bool {
    value.is_null() || value == ""
}

pub(crate) fn wrong(text: String) -> Fault {
    Fault::new(FailureKind::Config, text)
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("server_url", &self.server_url).finish_non_exhaustive()
    }
}
