//! `commissaire container-manager add` and `rm`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use commissaire::{Error, RpcError, app::Exit};
use commissaire_api::{Cluster, ContainerManagerConfig, ContainerManagerKind};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::{
    Failed,
    asking::Asking,
    input::confirm,
    output::{complain, print},
};

/// Add a container manager, or replace how it is reached
#[derive(Debug, Args)]
#[command(after_help = "\
Secrets are read from files, so that they are on no command line: with --token-file and --kubeconfig the file is read now,
and what is in it is kept in storage, sealed. The paths of --token-path, --kubeconfig-path, --ca, --certificate and
--certificate-key are those of a machine that runs the container managers' service, which reads them whenever they change.

Clusters name it: `commissaire cluster create CLUSTER --container-manager NAME`.")]
pub(super) struct Add {
    /// Its name
    name: String,
    /// What it is
    #[arg(long = "type", value_name = "TYPE", value_enum, default_value = "kubernetes")]
    kind: Kind,
    /// Its API server, https://HOST:PORT
    #[arg(long, value_name = "URL")]
    server_url: Option<String>,
    /// A file with the bearer token
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Where the service finds the token; it may be replaced there
    #[arg(long, value_name = "PATH")]
    token_path: Option<String>,
    /// A kubeconfig
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Where the service finds a kubeconfig
    #[arg(long, value_name = "PATH")]
    kubeconfig_path: Option<String>,
    /// Where the service finds a client certificate
    #[arg(long, value_name = "PATH")]
    certificate: Option<String>,
    /// Where the service finds its key
    #[arg(long, value_name = "PATH")]
    certificate_key: Option<String>,
    /// Where the service finds the authority of the server's certificate; else those of its system
    #[arg(long, value_name = "PATH")]
    ca: Option<String>,
    /// Of a trivial one: keep its nodes when the service ends
    #[arg(long)]
    persistent: bool,
    #[command(flatten)]
    asking: Asking,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    Kubernetes,
    Openshift,
    /// Keeps nodes in memory, for tests and demonstrations
    Trivial,
}

/// Remove container managers; their nodes stay as they are
#[derive(Debug, Args)]
pub(super) struct Rm {
    /// Their names
    #[arg(required = true)]
    names: Vec<String>,
    /// Do not ask; needed where there is no terminal to ask on
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    asking: Asking,
}

impl Add {
    pub(super) async fn run(self) -> Result<(), Failed> {
        let config = self.config()?;
        // What is wrong with it is better said now than when it is first needed.
        commissaire_containermgr::check(&config).map_err(|failure| Error::invalid(failure.text))?;
        let (client, storage) = self.asking.client().await?;
        storage.save(&config).await?;
        print(&format!("{} added", config.name))?;
        client.bus().close().await?;
        Ok(())
    }

    fn config(&self) -> Result<ContainerManagerConfig, Failed> {
        let mut options = Map::new();
        let secret = |option: &str, path: &Option<PathBuf>| {
            let read = |path: &PathBuf| {
                let text = std::fs::read_to_string(path).map(Zeroizing::new);
                let text = text.map_err(|e| Error::invalid(format!("{option} {}: {e}", path.display())))?;
                Ok::<_, Error>(Some(text.trim().to_owned()))
            };
            path.as_ref().map_or(Ok(None), read)
        };
        let texts = [
            ("server_url", self.server_url.clone()),
            ("token", secret("--token-file", &self.token_file)?),
            ("token_path", self.token_path.clone()),
            ("kubeconfig", secret("--kubeconfig", &self.kubeconfig)?),
            ("kubeconfig_path", self.kubeconfig_path.clone()),
            ("certificate_path", self.certificate.clone()),
            ("certificate_key_path", self.certificate_key.clone()),
            ("certificate_ca_path", self.ca.clone()),
        ];
        for (name, text) in texts {
            if let Some(text) = text {
                options.insert(name.to_owned(), text.into());
            }
        }
        if self.persistent {
            options.insert("persistent".to_owned(), Value::Bool(true));
        }
        let kind = match self.kind {
            Kind::Kubernetes => ContainerManagerKind::Kubernetes,
            Kind::Openshift => ContainerManagerKind::Openshift,
            Kind::Trivial => ContainerManagerKind::Trivial,
        };
        Ok(ContainerManagerConfig { name: self.name.clone(), kind, options })
    }
}

impl Rm {
    pub(super) async fn run(self) -> Result<(), Failed> {
        if !self.yes {
            confirm(&format!("remove {}; their nodes stay as they are", self.names.join(", ")))?;
        }
        let (client, storage) = self.asking.client().await?;
        let clusters = storage.list::<Cluster>().await?;
        let mut missing = 0;
        for name in &self.names {
            for cluster in clusters.iter().filter(|cluster| cluster.container_manager == *name) {
                complain(&format!(
                    "cluster {} still names it: its hosts will fail at `register`",
                    cluster.name
                ));
            }
            match storage.delete::<ContainerManagerConfig>(name).await {
                Ok(()) => print(&format!("{name} removed"))?,
                Err(error) if error.remote().is_some_and(|e| e.code == RpcError::STORAGE_LOOKUP) => {
                    missing += 1;
                    complain(&format!("there is no container manager {name}"));
                }
                Err(error) => return Err(error.into()),
            }
        }
        client.bus().close().await?;
        if missing == self.names.len() { Err(Failed::Said(Exit::Nothing)) } else { Ok(()) }
    }
}
