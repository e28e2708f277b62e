//! The member `secret_handler`: what keeps secrets.

use std::{fmt, fs, path::PathBuf};

use commissaire::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use url::Url;
use zeroize::Zeroizing;

use crate::handler::openbao::{Login, OpenBaoOptions};

/// Where an OpenBao is when nobody says so.
const OPENBAO: &str = "https://127.0.0.1:8200";

/// What keeps secrets.
#[derive(Debug, Clone)]
pub enum Secrets {
    /// The first place that keeps records, sealed.
    Sealed,
    /// The Custodia that listens on this socket.
    Custodia(PathBuf),
    /// An OpenBao.
    OpenBao(Box<OpenBaoOptions>),
}

/// The member as it was written down, and what it means.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct SecretHandler {
    given: Given,
    #[serde(skip)]
    pub(super) secrets: Secrets,
}

#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Given {
    r#type: String,
    socket_path: Option<PathBuf>,
    server_url: Option<String>,
    token: Option<String>,
    token_path: Option<PathBuf>,
    role_id: Option<String>,
    secret_id: Option<String>,
    secret_id_path: Option<PathBuf>,
    mount: Option<String>,
    path: Option<String>,
    namespace: Option<String>,
    certificate_ca_path: Option<PathBuf>,
}

impl Given {
    fn read(&self) -> Result<Secrets> {
        let others = [
            ("socket_path", self.socket_path.is_some(), "custodia"),
            ("server_url", self.server_url.is_some(), "openbao"),
            ("token", self.token.is_some(), "openbao"),
            ("token_path", self.token_path.is_some(), "openbao"),
            ("role_id", self.role_id.is_some(), "openbao"),
            ("secret_id", self.secret_id.is_some(), "openbao"),
            ("secret_id_path", self.secret_id_path.is_some(), "openbao"),
            ("mount", self.mount.is_some(), "openbao"),
            ("path", self.path.is_some(), "openbao"),
            ("namespace", self.namespace.is_some(), "openbao"),
            ("certificate_ca_path", self.certificate_ca_path.is_some(), "openbao"),
        ];
        let known = ["sealed", "custodia", "openbao"];
        let kind = self.r#type.as_str();
        if kind.is_empty() {
            return Err(Error::config(format!("type is missing: it takes {}", known.join(", "))));
        }
        if !known.contains(&kind) {
            let near = commissaire::nearest(kind, known);
            let near = near.map_or_else(String::new, |near| format!(": did you mean {near}?"));
            return Err(Error::config(format!(
                "type {kind:?} is unknown{near} (known are {})",
                known.join(", ")
            )));
        }
        if let Some((name, ..)) = others.into_iter().find(|(_, given, of)| *given && *of != kind) {
            return Err(Error::config(format!("{name} is no setting of {kind}")));
        }
        Ok(match kind {
            "sealed" => Secrets::Sealed,
            "custodia" => {
                let usual = || PathBuf::from(crate::handler::custodia::SOCKET);
                Secrets::Custodia(self.socket_path.clone().unwrap_or_else(usual))
            }
            _ => Secrets::OpenBao(Box::new(self.openbao()?)),
        })
    }

    fn openbao(&self) -> Result<OpenBaoOptions> {
        let url = self.server_url.as_deref().unwrap_or(OPENBAO);
        let url =
            Url::parse(url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        let url = url.ok_or_else(|| Error::config(format!("server_url: must be a URL such as {OPENBAO}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::config(
                "server_url: names a user; OpenBao takes token, or role_id and secret_id",
            ));
        }
        if self.certificate_ca_path.is_some() && url.scheme() != "https" {
            return Err(Error::config("certificate_ca_path is set, but server_url is not https"));
        }
        let local = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        if url.scheme() == "http" && !local {
            return Err(Error::config("server_url: secrets go over https only, except on this machine"));
        }
        let read = |name: &str, text: &Option<String>, path: &Option<PathBuf>| match (text, path) {
            (Some(_), Some(_)) => Err(Error::config(format!("{name} and {name}_path are both set"))),
            (Some(text), None) => Ok(Some(Zeroizing::new(text.clone()))),
            (None, Some(path)) => match fs::read_to_string(path) {
                Ok(text) => Ok(Some(Zeroizing::new(text.trim().to_owned()))),
                Err(e) => Err(Error::config(format!("{name}_path: cannot read {}: {e}", path.display()))),
            },
            (None, None) => Ok(None),
        };
        let token = read("token", &self.token, &self.token_path)?;
        let secret = read("secret_id", &self.secret_id, &self.secret_id_path)?;
        let login = match (token, self.role_id.clone(), secret) {
            (Some(token), None, None) => Login::Token(token),
            (None, Some(role), Some(secret)) => Login::AppRole { role, secret },
            _ => {
                return Err(Error::config(
                    "needs either token (or token_path), or role_id with secret_id (or secret_id_path)",
                ));
            }
        };
        let word = |name: &str, given: &Option<String>, usual: &str| {
            let word = given.as_deref().unwrap_or(usual).trim_matches('/').to_owned();
            let sound = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
            match !word.is_empty() && word.chars().all(sound) && !word.split('/').any(|part| part == "..") {
                true => Ok(word),
                false => Err(Error::config(format!("{name}: takes letters, digits and -_./"))),
            }
        };
        Ok(OpenBaoOptions {
            url,
            login,
            mount: word("mount", &self.mount, "secret")?,
            path: word("path", &self.path, "commissaire")?,
            namespace: self.namespace.clone(),
            authority: self.certificate_ca_path.clone(),
        })
    }
}

impl Secrets {
    /// How it is configured, without secrets.
    pub(crate) fn shown(&self) -> Map<String, Value> {
        match self {
            Self::Sealed => Map::new(),
            Self::Custodia(socket) => {
                Map::from_iter([("socket_path".to_owned(), socket.display().to_string().into())])
            }
            Self::OpenBao(options) => Map::from_iter([
                ("server_url".to_owned(), options.url.as_str().into()),
                ("mount".to_owned(), options.mount.as_str().into()),
                ("path".to_owned(), options.path.as_str().into()),
            ]),
        }
    }
}

impl<'de> Deserialize<'de> for SecretHandler {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Given::deserialize(deserializer)?;
        match given.read() {
            Ok(secrets) => Ok(Self { given, secrets }),
            Err(error) => Err(serde::de::Error::custom(error)),
        }
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Given").field("type", &self.r#type).finish_non_exhaustive()
    }
}
