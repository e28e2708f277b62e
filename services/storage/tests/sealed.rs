//! Secrets on the bus: nobody who reads it reads them, whoever keeps them.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use commissaire::{
    Bus, Client, ConnectionWatch, Guarantees, Message, Metrics, Result, RpcError, Source, Subscription,
    Survey, Token,
    app::{Failure, Instance},
};
use commissaire_api::{
    ContainerManagerConfig, HostCreds, StorageClient,
    record::HOST_CREDS,
    sealed::{Purpose, SealKey, Unopened},
    storage::UNOPENED,
};
use commissaire_storage::start;
use serde_json::{Value, json};

use crate::{
    common::{Kept, Place, Served, memory_bus},
    kept_secrets::creds,
};

/// A bus that reads all that is sent over it.
#[derive(Debug)]
struct Tapped {
    bus: Arc<dyn Bus>,
    read: Mutex<Vec<u8>>,
}

impl Tapped {
    fn has_read(&self, text: &str) -> bool {
        let read = self.read.lock().unwrap();
        read.windows(text.len()).any(|part| part == text.as_bytes())
    }
}

#[async_trait]
impl Bus for Tapped {
    async fn publish(&self, message: Message) -> Result<()> {
        self.read.lock().unwrap().extend_from_slice(message.body());
        self.bus.publish(message).await
    }

    async fn subscribe(&self, source: Source, prefetch: u16) -> Result<Subscription> {
        self.bus.subscribe(source, prefetch).await
    }

    async fn close(&self) -> Result<()> {
        self.bus.close().await
    }

    async fn survey(&self) -> Result<Survey> {
        self.bus.survey().await
    }

    async fn remove_durable(&self, name: &Token, idle: Option<Duration>) -> Result<bool> {
        self.bus.remove_durable(name, idle).await
    }

    fn guarantees(&self) -> Guarantees {
        self.bus.guarantees()
    }

    fn connection(&self) -> ConnectionWatch {
        self.bus.connection()
    }
}

#[tokio::test]
async fn what_a_typed_client_saves_and_gets_is_on_no_bus_in_the_clear() {
    let kept = Kept::new(Place::Embedded).await;
    let bus = Arc::new(Tapped { bus: memory_bus().await, read: Mutex::default() });
    let shared: Arc<dyn Bus> = bus.clone();
    let service = start(shared.clone(), kept.config(), Metrics::default(), Failure::default()).await.unwrap();
    let storage = StorageClient::new(Client::new(shared));
    let secret = creds("10.0.0.7", "c4n4ry");
    assert_eq!(storage.save(&secret).await.unwrap(), secret);
    assert_eq!(storage.get::<HostCreds>("10.0.0.7").await.unwrap(), secret);
    assert_eq!(storage.get_many::<HostCreds>(&["10.0.0.7"]).await.unwrap()[0].record, secret);
    storage.save_all(&[secret.clone(), creds("10.0.0.8", "c4n4ry")]).await.unwrap();
    let found = storage.find::<HostCreds>("10.0.0.8").await.unwrap().unwrap();
    storage.update::<HostCreds>("10.0.0.8", |creds| creds.remote_user = "us3r".into()).await.unwrap();
    assert!(storage.get_versioned::<HostCreds>("10.0.0.8").await.unwrap().revision > found.revision);
    assert!(bus.has_read("HostCreds") && bus.has_read("sealed"), "it was read at all");
    for secret in ["c4n4ry", "us3r", "fedora"] {
        assert!(!bus.has_read(secret), "{secret}");
    }
    Box::new(service).finish(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn the_secrets_of_container_managers_are_in_the_clear_neither_on_the_bus_nor_at_rest() {
    for place in [Place::Embedded, Place::Etcd] {
        let kept = Kept::new(place).await;
        let bus = Arc::new(Tapped { bus: memory_bus().await, read: Mutex::default() });
        let shared: Arc<dyn Bus> = bus.clone();
        let service =
            start(shared.clone(), kept.config(), Metrics::default(), Failure::default()).await.unwrap();
        let storage = StorageClient::new(Client::new(shared));
        let options = json!({"server_url": "https://kn0wn", "token": "c4n4ry", "kubeconfig": "c4n4ry: too"});
        let config: ContainerManagerConfig =
            serde_json::from_value(json!({"name": "k", "type": "kubernetes", "options": options})).unwrap();
        assert_eq!(storage.save(&config).await.unwrap(), config);
        assert_eq!(storage.get::<ContainerManagerConfig>("k").await.unwrap(), config);
        assert_eq!(storage.list::<ContainerManagerConfig>().await.unwrap(), std::slice::from_ref(&config));
        let changed = storage.update::<ContainerManagerConfig>("k", |config| {
            config.options.insert("certificate_ca_path".to_owned(), "/ca".into());
        });
        assert_eq!(changed.await.unwrap().record.options["token"], "c4n4ry");
        let told = storage.changes_of::<ContainerManagerConfig>(0).await.unwrap();
        assert!(told.changes.iter().all(|change| change.record.is_some()), "{told:?}");
        assert!(bus.has_read("ContainerManagerConfig") && bus.has_read("sealed"), "it was read at all");
        assert!(!bus.has_read("c4n4ry"), "{place:?}: it is on the bus");
        // Who knows nothing of sealing is served.
        let asked = json!({"model_type_name": "ContainerManagerConfig", "model_json_data": {"name": "k"}});
        let raw = serde_json::value::to_raw_value(&asked).unwrap();
        let key = commissaire::Key::new("storage.get").unwrap();
        let told = Client::new(bus.clone()).call_raw(key, Some(raw)).await.unwrap();
        assert!(told.get().contains("c4n4ry"), "{told}");
        Box::new(service).finish(Duration::from_secs(5)).await;
        let folder = kept.etcd.as_ref().map_or(kept.dir.path(), |etcd| etcd.dir());
        assert!(holds(folder, "kn0wn"), "{place:?}: not even its URL is found in {}", folder.display());
        assert!(!holds(folder, "c4n4ry"), "{place:?}: it is in {}", folder.display());
    }
}

/// Whether a file below `folder` holds `text`.
fn holds(folder: &std::path::Path, text: &str) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()).any(|path| {
        if path.is_dir() {
            return holds(&path, text);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes.windows(text.len()).any(|part| part == text.as_bytes())
    })
}

#[tokio::test]
async fn what_is_sealed_opens_for_what_it_is_for_only() {
    let served = Served::new().await;
    let told = served.call("storage.store", json!({})).await.unwrap();
    let key: commissaire_api::sealed::PublicSealKey =
        serde_json::from_value(told["seal_key"].clone()).unwrap();
    let record = json!({"address": "a", "ssh_priv_key": "c4n4ry"}).to_string();
    let sealed =
        |purpose| serde_json::to_value(key.seal(purpose, &HOST_CREDS, record.as_bytes()).unwrap()).unwrap();
    let save = async |data: Value| {
        let params = json!({"model_type_name": "HostCreds", "model_json_data": data});
        served.call("storage.save", params).await
    };
    let good = sealed(Purpose::Save);
    assert_eq!(save(good.clone()).await.unwrap()["address"], "a");
    let mut later = good.clone();
    later["until"] = json!(good["until"].as_u64().unwrap() + 1);
    let mut changed = good.clone();
    let text = changed["sealed"].as_str().unwrap().replacen(|c: char| c.is_ascii_lowercase(), "A", 1);
    changed["sealed"] = json!(text);
    let stranger = SealKey::random();
    let foreign = stranger.public().seal(Purpose::Save, &HOST_CREDS, record.as_bytes()).unwrap();
    for wrong in [sealed(Purpose::Answer), later, changed, serde_json::to_value(foreign).unwrap()] {
        let refused = save(wrong).await.unwrap_err();
        assert_eq!(refused.code, UNOPENED, "{}", refused.message);
        assert!(!format!("{refused:?}").contains("c4n4ry"));
    }
    // Faults of what was sealed are told like others.
    let bad =
        key.seal(Purpose::Save, &HOST_CREDS, br#"{"address": "a/b", "ssh_priv_key": "c4n4ry"}"#).unwrap();
    let refused = save(serde_json::to_value(bad).unwrap()).await.unwrap_err();
    assert_eq!(refused.code, RpcError::INVALID_PARAMS);
    assert!(!format!("{refused:?}").contains("c4n4ry"));
    let asked =
        json!({"model_type_name": "Host", "model_json_data": {"address": "a"}, "seal_to": stranger.public()});
    assert_eq!(served.call("storage.get", asked).await.unwrap_err().code, RpcError::INVALID_PARAMS);
    served.finish().await;
}

#[tokio::test]
async fn a_client_learns_when_the_service_has_another_key() {
    let bus = memory_bus().await;
    let storage = StorageClient::new(Client::new(bus.clone()));
    for address in ["a", "b"] {
        let kept = Kept::new(Place::Embedded).await;
        let service =
            start(bus.clone(), kept.config(), Metrics::default(), Failure::default()).await.unwrap();
        storage.save(&creds(address, "c4n4ry")).await.unwrap();
        assert_eq!(*storage.get::<HostCreds>(address).await.unwrap().ssh_priv_key, "c4n4ry");
        Box::new(service).finish(Duration::from_secs(5)).await;
    }
}

#[test]
fn keys_are_told_apart_and_made_anew_of_one_secret() {
    let (one, again, other) = (SealKey::of(b"one"), SealKey::of(b"one"), SealKey::of(b"other"));
    assert_eq!(one.public(), again.public());
    assert_ne!(one.public(), other.public());
    let sealed = one.public().seal(Purpose::Save, &HOST_CREDS, b"plain").unwrap();
    assert_eq!(&**again.open(Purpose::Save, &HOST_CREDS, &sealed).unwrap(), b"plain");
    assert_eq!(other.open(Purpose::Save, &HOST_CREDS, &sealed), Err(Unopened::OtherKey));
    assert!(!format!("{one:?} {sealed:?}").contains("plain"));
    let twice = one.public().seal(Purpose::Save, &HOST_CREDS, b"plain").unwrap();
    assert_ne!(sealed.sealed, twice.sealed);
}
