//! Getting and saving: of secret models sealed both ways.

use std::sync::PoisonError;

use commissaire::{Error, Result};
use serde::de::DeserializeOwned;

use super::{StorageClient, data, name, read};
use crate::{
    record::Record,
    sealed::{PublicSealKey, Purpose, SealKey, Sealed},
    storage::{Data, Get, GetParams, NoParams, Save, SaveParams, Store, UNOPENED},
};

impl StorageClient {
    /// What `storage.get` answers to `asked`, keys of `T`.
    pub(super) async fn ask<T: Record, V: DeserializeOwned>(&self, asked: Data) -> Result<V> {
        let mine = is_secret::<T>().then(SealKey::random);
        let params = GetParams {
            model_type_name: name::<T>(),
            model_json_data: asked,
            with_revision: true,
            seal_to: mine.as_ref().map(|mine| mine.public().clone()),
        };
        let answer = self.client.call(Get, &params).await?;
        opened::<T, V>("storage.get", mine.as_ref(), &answer)
    }

    /// What `storage.save` answers to `params`, whose records of `T` are in the clear.
    pub(super) async fn store<T: Record, V: DeserializeOwned>(&self, mut params: SaveParams) -> Result<V> {
        if !is_secret::<T>() {
            return read("storage.save", &self.client.call(Save, &params).await?);
        }
        let mine = SealKey::random();
        let plain = params.model_json_data.clone();
        params.seal_to = Some(mine.public().clone());
        let mut anew = false;
        loop {
            let key = self.seal_key(anew).await?;
            let sealed = key.seal(Purpose::Save, T::MODEL, plain.text().as_bytes());
            let sealed = sealed.ok_or_else(|| Error::malformed("the key of the storage service is none"))?;
            params.model_json_data = data(&sealed)?;
            match self.client.call(Save, &params).await {
                // The service has another key than before.
                Err(error) if !anew && error.remote().is_some_and(|remote| remote.code == UNOPENED) => {
                    anew = true;
                }
                answer => return opened::<T, V>("storage.save", Some(&mine), &answer?),
            }
        }
    }

    /// To whom to seal.
    async fn seal_key(&self, anew: bool) -> Result<PublicSealKey> {
        let known = self.seal_key.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(key) = known.filter(|_| !anew) {
            return Ok(key);
        }
        let told = self.client.call(Store, &NoParams {}).await?;
        let none = "the storage service does not say to whom secrets are sealed: is it of an older version?";
        let key = told.seal_key.ok_or_else(|| Error::malformed(none))?;
        *self.seal_key.lock().unwrap_or_else(PoisonError::into_inner) = Some(key.clone());
        Ok(key)
    }
}

/// Whether they hold secrets: then they travel sealed.
pub(super) fn is_secret<T: Record>() -> bool {
    T::MODEL.holds_secrets()
}

/// The answer of `method`, opened with `key` if it was to be sealed.
pub(super) fn opened<T: Record, V: DeserializeOwned>(
    method: &str,
    key: Option<&SealKey>,
    answer: &Data,
) -> Result<V> {
    let Some(key) = key else { return read(method, answer) };
    let sealed: Sealed = read(method, answer)?;
    let opened = key.open(Purpose::Answer, T::MODEL, &sealed);
    let opened =
        opened.map_err(|why| Error::malformed(format!("the answer of {method}: {why}")).maybe_executed())?;
    let wrong = || Error::malformed(format!("the answer of {method} is not what its contract says"));
    serde_json::from_slice(&opened).map_err(|_| wrong().maybe_executed())
}
