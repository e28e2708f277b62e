//! Being let in.

use std::{path::Path, time::Duration};

use russh::{
    MethodSet,
    client::{AuthResult, Handle},
    keys::{
        HashAlg, PrivateKeyWithHashAlg, PublicKey,
        agent::{AgentIdentity, client::AgentClient},
    },
};
use tokio::{net::UnixStream, time::timeout};

use crate::{
    credentials::{Credentials, Way},
    failure::{Failure, FailureKind},
    handshake::{Checker, broken},
};

/// Who asks to be let in where.
pub(crate) struct Asking<'a> {
    pub(crate) address: &'a str,
    pub(crate) user: &'a str,
    /// The socket of the agent, for whoever has no key.
    pub(crate) agent: Option<&'a Path>,
    pub(crate) limit: Duration,
}

/// What came of it with one kind of credentials.
enum Answer {
    LetIn,
    Not {
        /// Why not.
        why: String,
        /// Which methods the host takes.
        takes: String,
    },
}

impl Asking<'_> {
    /// Asks to be let in with `credentials`.
    pub(crate) async fn with(
        self,
        mut handle: Handle<Checker>,
        credentials: &Credentials,
    ) -> Result<Handle<Checker>, Failure> {
        let Self { address, user, limit, .. } = self;
        let answer = match &credentials.0 {
            Way::Key(..) => timeout(limit, self.with_key(&mut handle, credentials)).await,
            Way::Agent => timeout(limit, self.with_agent(&mut handle)).await,
        };
        let late = |_| {
            let text = format!("{address} did not decide within {limit:?} whether to let {user} in");
            Failure::new(FailureKind::TimedOut, text)
        };
        match answer.map_err(late)?? {
            Answer::LetIn => Ok(handle),
            Answer::Not { why, takes } => {
                let takes = if takes.is_empty() { takes } else { format!("; it takes {takes}") };
                let text = format!("{address} does not let {user} in: {why}{takes}");
                Err(Failure::new(FailureKind::Authentication, text))
            }
        }
    }

    async fn with_key(
        &self,
        handle: &mut Handle<Checker>,
        credentials: &Credentials,
    ) -> Result<Answer, Failure> {
        let Way::Key(key, certificate) = &credentials.0 else { return Ok(not("there is no key", "")) };
        if let Some(certificate) = certificate {
            let asked =
                handle.authenticate_openssh_cert(self.user, key.clone(), (**certificate).clone()).await;
            if asked.map_err(|e| self.lost(&e))?.success() {
                return Ok(Answer::LetIn);
            }
        }
        let hash = self.rsa_hash(handle, key.public_key()).await?;
        let asked = PrivateKeyWithHashAlg::new(key.clone(), hash);
        match handle.authenticate_publickey(self.user, asked).await.map_err(|e| self.lost(&e))? {
            AuthResult::Success => Ok(Answer::LetIn),
            AuthResult::Failure { .. } if handle.is_closed() => {
                let text =
                    format!("the connection to {} broke while it was asked to let us in", self.address);
                Err(Failure::new(FailureKind::Lost, text))
            }
            AuthResult::Failure { remaining_methods, .. } => {
                let why = match certificate {
                    Some(_) => "it takes neither this certificate nor this key",
                    None => "it does not take this key",
                };
                Ok(not(why, &methods(&remaining_methods)))
            }
        }
    }

    async fn with_agent(&self, handle: &mut Handle<Checker>) -> Result<Answer, Failure> {
        let address = self.address;
        let unusable = |text: String| Failure::new(FailureKind::Authentication, text);
        let path = self.agent.ok_or_else(|| {
            unusable(format!(
                "there are no credentials for {address}: store a key (`commissaire host add {address} --key FILE`), or name \
                 an agent (ssh.agent)"
            ))
        })?;
        let fails = |e: russh::keys::Error| {
            unusable(format!("the SSH agent at {} cannot be asked: {e}", path.display()))
        };
        let mut agent: AgentClient<UnixStream> = AgentClient::connect_uds(path).await.map_err(fails)?;
        let (mut tried, mut takes) = (0, String::new());
        for identity in agent.request_identities().await.map_err(fails)? {
            let AgentIdentity::PublicKey { key, .. } = identity else { continue };
            tried += 1;
            let hash = self.rsa_hash(handle, &key).await?;
            match handle.authenticate_publickey_with(self.user, key, hash, &mut agent).await {
                Ok(AuthResult::Success) => return Ok(Answer::LetIn),
                Ok(AuthResult::Failure { remaining_methods, .. }) => takes = methods(&remaining_methods),
                Err(error) => tracing::debug!(%error, "the agent does not sign"),
            }
            if handle.is_closed() {
                return Ok(not(&format!("it ended the connection after {tried} keys of the SSH agent"), ""));
            }
        }
        Ok(not(&format!("it takes none of the {tried} keys of the SSH agent"), &takes))
    }

    /// How a signature by `key` is to be hashed: of RSA the host says what it takes.
    async fn rsa_hash(&self, handle: &Handle<Checker>, key: &PublicKey) -> Result<Option<HashAlg>, Failure> {
        if !key.algorithm().is_rsa() {
            return Ok(None);
        }
        // One that says nothing of its own accord is older than the extension (RFC 8308); most of these take SHA-256.
        let said = handle.best_supported_rsa_hash().await.map_err(|e| self.lost(&e))?;
        Ok(said.unwrap_or(Some(HashAlg::Sha256)))
    }

    fn lost(&self, error: &russh::Error) -> Failure {
        broken(self.address, "while it was asked to let us in", error)
    }
}

fn not(why: &str, takes: &str) -> Answer {
    Answer::Not { why: why.to_owned(), takes: takes.to_owned() }
}

fn methods(methods: &MethodSet) -> String {
    methods.iter().map(Into::<&str>::into).collect::<Vec<_>>().join(", ")
}
