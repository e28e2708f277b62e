//! A disk that is full.

use std::{path::Path, process::Command};

use commissaire_storage::handler::StoreError;

use crate::common::{commit, dir, get, host, open, put};

/// A small file system that is unmounted when dropped.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(at: &'a Path) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(at).output();
        mounted.is_ok_and(|done| done.status.success()).then_some(Self(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[tokio::test]
async fn on_a_full_disk_a_save_fails_whole_and_the_store_lives() {
    let dir = dir();
    let Some(_disk) = SmallDisk::mount(dir.path()) else {
        println!("not run: needs root, to mount a small disk");
        return;
    };
    let store = open(dir.path());
    commit(&store, vec![host("before", "x")]).await.unwrap();
    let ballast = dir.path().join("ballast");
    std::fs::write(&ballast, vec![1; 512 * 1024]).unwrap();
    let large = |at: usize| {
        let hosts: Vec<String> = (0..4000).map(|host| format!("10.{at}.{host}")).collect();
        put("Cluster", serde_json::json!({"name": format!("c{at}"), "hostset": hosts}))
    };
    let mut saved = Vec::new();
    let failed = loop {
        match commit(&store, vec![large(saved.len())]).await {
            Ok(revisions) => saved.push(revisions[0]),
            Err(error) => break error,
        }
        assert!(saved.len() < 1000, "the disk must fill up");
    };
    assert!(
        matches!(&failed, StoreError::Failed { why, uncertain: false, .. } if why.contains("storage.redb")),
        "{failed}"
    );
    // What was acknowledged is there, what failed is not, and reading goes on.
    for (at, revision) in saved.iter().enumerate() {
        assert_eq!(get(&store, "Cluster", &format!("c{at}")).unwrap().1, *revision);
    }
    assert_eq!(get(&store, "Cluster", &format!("c{}", saved.len())), None);
    assert!(get(&store, "Host", "before").is_some());
    std::fs::remove_file(&ballast).unwrap();
    let next = commit(&store, vec![large(saved.len())]).await.expect("there is room again");
    assert_eq!(next[0], saved.last().map_or(2, |last| last + 1), "no revision is left out");
    drop(store);
    let store = open(dir.path());
    assert!(get(&store, "Cluster", &format!("c{}", saved.len())).is_some());
}
