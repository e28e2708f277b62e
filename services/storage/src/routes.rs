//! Routes: which model is kept in which place.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use commissaire::{Error, Result};
use commissaire_api::{
    model::{Kept, MODELS, Model},
    sealed::SealKey,
    storage::StoreHandler,
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    config::{Kind, Secrets, StorageConfig},
    handler::{
        Handler, Query, Sealer,
        custodia::Custodia,
        embedded::{Store, StoreOptions},
        etcd::Etcd,
        finish_rotation, hashed_id,
        openbao::OpenBao,
    },
};

/// The places of one service, open.
#[derive(Debug)]
pub struct Routes {
    /// Those of records in the order of the configuration, then that of secrets.
    places: Vec<Place>,
}

/// A place where records are kept.
#[derive(Debug)]
pub struct Place {
    /// What it is called.
    pub name: String,
    /// What it does the work with.
    pub handler: Arc<dyn Handler>,
    /// What sort of place it is, how it is configured, and which models it keeps.
    pub about: StoreHandler,
    models: Vec<&'static Model>,
}

impl Routes {
    /// Opens all places. Every failure is an error that names the place.
    pub async fn open(config: &StorageConfig) -> Result<Self> {
        let mut places = Vec::new();
        let mut own: Option<(_, Arc<dyn Handler>)> = None;
        for place in config.members.storage_handlers.all() {
            let failed = |error: Error| {
                Error::new(error.kind().clone(), format!("storage handler {:?}: {error}", place.name))
            };
            let (kind, sealed, about, handler): (_, _, _, Arc<dyn Handler>) = match &place.kind {
                Kind::Embedded(dir) => {
                    let dir = dir.as_deref().unwrap_or(&config.data_dir);
                    let store = open_store(dir, config).await?;
                    ("EmbeddedStoreHandler", "EmbeddedSecretHandler", embedded(dir), Arc::new(store))
                }
                Kind::Etcd(machines) => {
                    let etcd = Etcd::open(machines.clone(), &config.data_dir).await.map_err(failed)?;
                    let about = place.shown.clone();
                    ("EtcdStoreHandler", "EtcdSecretHandler", about, Arc::new(Arc::new(etcd)))
                }
            };
            own = own.or_else(|| Some((sealed, handler.clone())));
            places.push(Place::new(place.name.clone(), kind, about, handler, place.models.clone()));
        }
        let secret = MODELS.into_iter().filter(|model| model.kept == Kept::Sealed).collect();
        let keeps = config.secrets()?;
        if let (Secrets::Custodia(socket), Some((_, own)), true) = (&keeps, &own, config.is_custodia_found())
        {
            agree(config, socket, own.as_ref()).await?;
        }
        let mut about = keeps.shown();
        let (kind, handler): (_, Arc<dyn Handler>) = match (keeps, own) {
            (Secrets::Custodia(socket), _) => ("CustodiaStoreHandler", Arc::new(Custodia::new(&socket))),
            (Secrets::OpenBao(options), _) => ("OpenBaoSecretHandler", Arc::new(OpenBao::new(*options)?)),
            (Secrets::Sealed, Some(own)) => {
                // Where the key lies, not what it is.
                about = places.first().map(|first| first.about.config.clone()).unwrap_or_default();
                let first = config.members.storage_handlers.all().first().map(|first| &first.kind);
                let dir = match first {
                    Some(Kind::Embedded(Some(dir))) => dir,
                    _ => &config.data_dir,
                };
                about.insert("master_key".to_owned(), dir.join("master.key").display().to_string().into());
                own
            }
            (Secrets::Sealed, None) => return Ok(Self { places }),
        };
        places.push(Place::new("secrets".to_owned(), kind, about, handler, secret));
        Ok(Self { places })
    }

    /// All places.
    pub fn all(&self) -> &[Place] {
        &self.places
    }

    /// The place of `model`, if it has one.
    pub fn of(&self, model: &Model) -> Option<&Place> {
        self.places.iter().find(|place| place.models.iter().any(|kept| kept.name == model.name))
    }

    /// The place of this name that keeps records.
    pub fn named(&self, name: &str) -> Option<&Place> {
        self.plain().find(|place| place.name == name)
    }

    /// The places that keep records, in the order of the configuration.
    pub fn plain(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| !place.is_secret())
    }

    /// All that does the work, each once.
    pub fn handlers(&self) -> impl Iterator<Item = &Arc<dyn Handler>> {
        let before = |at: usize, handler: &Arc<dyn Handler>| {
            self.places[..at].iter().any(|place| Arc::ptr_eq(&place.handler, handler))
        };
        let all = self.places.iter().map(|place| &place.handler).enumerate();
        all.filter(move |(at, handler)| !before(*at, handler)).map(|(_, handler)| handler)
    }

    /// Which places these are, together: the same for all services that share them.
    pub fn id(&self) -> Uuid {
        let mut handlers = self.handlers();
        if let (Some(only), None) = (handlers.next(), handlers.next()) {
            return only.id();
        }
        let mut hash = Sha256::new();
        for place in &self.places {
            hash.update(place.handler.id().as_bytes());
            place.about.model_types.iter().for_each(|model| hash.update(format!("{model}/")));
        }
        hashed_id(hash)
    }

    /// What is sealed on the bus to the services that share these places is opened with it.
    pub(crate) fn bus_key(&self) -> SealKey {
        let first = self.handlers().find_map(|handler| handler.sealer());
        first.map_or_else(SealKey::random, Sealer::bus_key)
    }

    /// Replaces the master key, or keys, of all places. Fails with everything as it was, or to be said again. Returns where
    /// the new ones are.
    pub async fn rotate_keys(&self) -> Result<BTreeSet<PathBuf>> {
        for handler in self.handlers() {
            handler.rewrap().await?;
        }
        let sealers = self.handlers().filter_map(|handler| handler.sealer());
        let dirs: BTreeSet<PathBuf> = sealers.map(|sealer| sealer.dir().to_owned()).collect();
        dirs.iter().try_for_each(|dir| finish_rotation(dir))?;
        Ok(dirs.iter().map(|dir| dir.join("master.key")).collect())
    }

    /// Whether other services may use the same places at the same time.
    pub fn are_shared(&self) -> bool {
        self.handlers().all(|handler| handler.is_shared())
    }
}

impl Place {
    /// The models that are kept there.
    pub fn models(&self) -> &[&'static Model] {
        &self.models
    }

    /// Whether it keeps secrets, and nothing else.
    pub fn is_secret(&self) -> bool {
        self.models.iter().any(|model| model.kept == Kept::Sealed)
    }

    fn new(
        name: String,
        handler_type: &str,
        config: Map<String, Value>,
        handler: Arc<dyn Handler>,
        models: Vec<&'static Model>,
    ) -> Self {
        let mut model_types: Vec<String> = models.iter().map(|model| model.name.to_owned()).collect();
        model_types.sort();
        let about = StoreHandler { handler_type: handler_type.to_owned(), config, model_types };
        Self { name, handler, about, models }
    }
}

/// Whether a Custodia that was merely found is the one that keeps the secrets: not where some are sealed already.
async fn agree(config: &StorageConfig, socket: &Path, own: &dyn Handler) -> Result<()> {
    let Some(secret) = MODELS.into_iter().find(|model| model.kept == Kept::Sealed) else { return Ok(()) };
    let any = Query { prefix: String::new(), after: None, most: 1, bytes: 1 };
    let sealed = own.list(secret, any).await.map_err(|error| Error::unavailable(error.to_string()))?;
    if !sealed.rows.is_empty() {
        return Err(Error::config(format!(
            "secrets are sealed in the first place, and there is a Custodia at {} now: say by secret_handler which of them keeps secrets",
            socket.display()
        )));
    }
    // So that it is waited for where it starts later than this service.
    config.note_custodia()
}

async fn open_store(dir: &Path, config: &StorageConfig) -> Result<Arc<Store>> {
    let options = StoreOptions { dir: dir.to_owned(), change_log: config.members.change_log };
    let opened = tokio::task::spawn_blocking(move || Store::open(&options)).await;
    let store = opened.map_err(|_| Error::config("the store could not be opened: it panicked"))??;
    Ok(Arc::new(store))
}

fn embedded(dir: &Path) -> Map<String, Value> {
    Map::from_iter([("data_dir".to_owned(), dir.display().to_string().into())])
}
