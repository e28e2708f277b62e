//! Copying between places while they change.

use commissaire_api::Model;
use commissaire_storage::{StorageConfig, archive::copy, handler::Transaction, routes::Routes};
use serde_json::Value;
use tokio::{runtime::Handle, task::block_in_place};

use crate::common::{dir, gone, host};

async fn status(routes: &Routes, address: &str) -> Option<String> {
    let model = Model::find("Host").unwrap();
    let found =
        routes.of(model).unwrap().handler.get(model, &[address.to_owned()]).await.unwrap().remove(0)?;
    let record: Value = serde_json::from_slice(&found.json).unwrap();
    Some(record["status"].as_str().unwrap().to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_meanwhile_follows_and_what_is_there_otherwise_is_left() {
    let (here, there) = (dir(), dir());
    let from = Routes::open(&StorageConfig::new(here.path())).await.unwrap();
    let to = Routes::open(&StorageConfig::new(there.path())).await.unwrap();
    let commit = async |routes: &Routes, writes| {
        let handler = routes.of(Model::find("Host").unwrap()).unwrap().handler.clone();
        handler.commit(Transaction::of(writes)).await.unwrap();
    };
    commit(&from, ["a", "b", "c", "d"].map(|address| host(address, "old")).into()).await;
    commit(&to, vec![host("c", "other"), host("d", "other")]).await;
    let mut changed = false;
    let mut progress = |_| {
        // Once the first of it is copied.
        if !std::mem::replace(&mut changed, true) {
            let writes = vec![
                host("a", "new"),
                gone("Host", "b"),
                host("c", "new"),
                gone("Host", "d"),
                host("e", "new"),
            ];
            block_in_place(|| Handle::current().block_on(commit(&from, writes)));
        }
    };
    let copied = copy(&from, &to, false, false, &mut progress).await.unwrap();
    for (address, expected) in
        [("a", Some("new")), ("b", None), ("c", Some("other")), ("d", Some("other")), ("e", Some("new"))]
    {
        assert_eq!(status(&to, address).await.as_deref(), expected, "{address}");
    }
    let left: Vec<_> = copied.left.iter().map(|(_, key)| key.as_str()).collect();
    assert_eq!((left, copied.deleted), (vec!["c", "d"], 1));
    assert!(copy(&from, &from, false, false, &mut |_| {}).await.is_err(), "onto itself");
}
