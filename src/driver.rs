//! Drivers: which transport serves which scheme of `bus_uri`.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use percent_encoding::percent_decode_str;
use url::Url;

use crate::{
    actor::{Access, Identity, introduce},
    address::Token,
    bus::{Bus, Durability, Guarantees},
    error::{Error, Result},
};

/// One transport: a row in the table of drivers.
#[derive(Clone, Copy)]
pub struct Driver {
    /// What it is called in messages, `redis`.
    pub name: &'static str,
    /// The schemes of `bus_uri` that it serves.
    pub schemes: &'static [&'static str],
    /// An example of a URI, for errors and `--help`.
    pub example: &'static str,
    /// What it promises on a server that is configured as its page says: what [`Bus::guarantees`] reports there. The
    /// table in README is made of these.
    pub promises: Guarantees,
    /// Connects. Returns when the broker has answered and was found fit.
    pub connect: fn(BusUri, BusOptions) -> BoxFuture<'static, Result<Arc<dyn Bus>>>,
}

/// What a connection is made with beside the URI.
#[derive(Debug, Clone)]
pub struct BusOptions {
    /// The name space: buses of different exchanges on one broker never see each other. Default `commissaire`.
    pub exchange: Token,
    /// What to be called in the broker's list of clients.
    pub client_name: String,
    /// After how long without a reader a durable subscription that is made here may be removed, so that a forgotten one
    /// does not stop publishers for ever. Default 7 days. Who makes or reads the subscription last decides.
    pub idle_expiry: Duration,
    /// Who this program is: its name goes on every call, job and event. Default: the name of the client without
    /// `commissaire-`, unsigned.
    pub identity: Identity,
    /// Whose calls and jobs the services of this program take, and which. Default: everybody's, all.
    pub access: Option<Arc<Access>>,
}

/// A `bus_uri`. It may hold a password, so it never shows itself whole: `Debug` and `Display` hide user data after the
/// user's name, and the values of all query options that a transport does not list as public.
#[derive(Clone, PartialEq, Eq)]
pub struct BusUri(Url);

/// Connects to the bus at `uri` with the driver that serves its scheme.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use commissaire::{BusOptions, connect};
/// let bus = connect(&"memory://".parse()?, &BusOptions::default(), commissaire_transports::ALL).await?;
/// bus.close().await
/// # }).unwrap();
/// ```
pub async fn connect(uri: &BusUri, options: &BusOptions, drivers: &[Driver]) -> Result<Arc<dyn Bus>> {
    let driver = drivers.iter().find(|driver| driver.schemes.contains(&uri.scheme())).ok_or_else(|| {
        let known: Vec<&str> = drivers.iter().flat_map(|driver| driver.schemes).copied().collect();
        Error::config(format!(
            "bus_uri has unknown scheme {:?}: known are {}",
            uri.scheme(),
            known.join(", ")
        ))
    })?;
    let bus = (driver.connect)(uri.clone(), options.clone()).await?;
    Ok(introduce(bus, options))
}

impl BusUri {
    /// The scheme, in lower case.
    pub fn scheme(&self) -> &str {
        self.0.scheme()
    }

    /// The whole URI, secrets included: for transports only, never to be shown.
    pub fn expose(&self) -> &Url {
        &self.0
    }

    /// The query as options. An option that stands twice, or that is not among `known`, is an error that names the
    /// known ones: nothing that a user wrote is silently ignored.
    pub fn options(&self, known: &[&str]) -> Result<BTreeMap<String, String>> {
        let mut options = BTreeMap::new();
        for (name, value) in self.0.query_pairs() {
            if !known.contains(&&*name) {
                let shown = if self.may_be_misread() { "***" } else { &*name };
                return Err(Error::config(format!(
                    "bus_uri has unknown option {shown:?}: {} knows {}",
                    self.scheme(),
                    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
                )));
            }
            if options.insert(name.to_string(), value.into_owned()).is_some() {
                return Err(Error::config(format!("bus_uri has option {name:?} twice")));
            }
        }
        Ok(options)
    }

    /// The least that stored messages must survive, as the option `durability` says: `relaxed` (or nothing) asks for
    /// nothing, `strict` for the death of the broker, `strict-power` for a loss of power as well.
    pub fn demanded(&self) -> Result<Durability> {
        let asked = self.0.query_pairs().find(|(name, _)| name == "durability");
        match asked.as_ref().map(|(_, value)| &**value) {
            None | Some("relaxed") => Ok(Durability::None),
            Some("strict") => Ok(Durability::Kill),
            Some("strict-power") => Ok(Durability::Power),
            Some(other) => Err(Error::config(format!(
                "bus_uri has durability={other:?}: write relaxed, strict or strict-power"
            ))),
        }
    }

    /// A part of what [`expose`](Self::expose) shows, percent-decoded. `what` names it in the error: `password`.
    pub fn decoded(part: &str, what: &str) -> Result<String> {
        let text = percent_decode_str(part).decode_utf8();
        Ok(text.map_err(|_| Error::config(format!("the {what} in bus_uri is not UTF-8")))?.into_owned())
    }

    /// With a slash too few or too many before the user, a password stands in what is read as a path or an option.
    fn may_be_misread(&self) -> bool {
        let at = |text: &str| text.contains('@');
        !self.0.has_host() && (at(self.0.path()) || self.0.query().is_some_and(at))
    }
}

impl Default for BusOptions {
    fn default() -> Self {
        let exchange = Token::new("commissaire").expect("the default exchange is a token");
        Self {
            exchange,
            client_name: "commissaire".into(),
            idle_expiry: Duration::from_secs(7 * 24 * 3600),
            identity: Identity::default(),
            access: None,
        }
    }
}

impl FromStr for BusUri {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // The parser's error is a fixed sentence and holds nothing of the input.
        let url = Url::parse(text.trim())
            .map_err(|e| Error::config(format!("bus_uri cannot be read: {e}: write it as SCHEME://…")))?;
        // A password with a bare `/`, `?` or `#` ends the host early: what follows would be shown, or sent elsewhere.
        // Looked for in what was written, too: `/../` in it may have taken the '@' away.
        let written: String = text.chars().filter(|c| !c.is_ascii_control()).collect();
        let at = |text: &str| text.contains('@');
        let behind = if url.has_host() {
            let rest = written.split_once(':').map_or("", |(_, rest)| rest.trim_start_matches(['/', '\\']));
            at(url.path())
                || url.query().is_some_and(at)
                || rest.split_once(['/', '?']).is_some_and(|(_, end)| at(end))
        } else {
            written.matches('@').count() != url.as_str().matches('@').count()
        };
        if behind || url.fragment().is_some() {
            return Err(Error::config(
                "bus_uri has an '@' behind its host, or a '#': in a password write '/' as %2F, '?' as %3F, '#' as %23, \
                 and '@' as %40 everywhere but before the host",
            ));
        }
        Ok(Self(url))
    }
}

impl<'de> serde::Deserialize<'de> for BusUri {
    fn deserialize<D: serde::Deserializer<'de>>(parser: D) -> Result<Self, D::Error> {
        String::deserialize(parser)?.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for BusUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = &self.0;
        write!(f, "{}:", url.scheme())?;
        // Without `//` everything behind the scheme is opaque and may be anything.
        if url.cannot_be_a_base() {
            return f.write_str("***");
        }
        f.write_str("//")?;
        if url.password().is_some() {
            write!(f, "{}:***@", url.username())?;
        } else if !url.username().is_empty() {
            // A lone user part may be a token.
            f.write_str("***@")?;
        }
        if let Some(host) = url.host_str() {
            f.write_str(host)?;
        }
        if let Some(port) = url.port() {
            write!(f, ":{port}")?;
        }
        if self.may_be_misread() {
            return f.write_str("/***");
        }
        f.write_str(url.path())?;
        for (at, (name, _)) in url.query_pairs().enumerate() {
            write!(f, "{}{name}=***", if at == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl fmt::Debug for BusUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.schemes.join(", "))
    }
}
