//! How fast it is. Runs when COMMISSAIRE_BENCH is set, best in a release build, and prints what it measured.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use commissaire_api::{Host, Model, storage::MAX_ANSWER};

use crate::common::{Served, all, commit, host, open};

fn wanted() -> bool {
    let wanted = std::env::var_os("COMMISSAIRE_BENCH").is_some();
    if !wanted {
        println!("not run: set COMMISSAIRE_BENCH");
    }
    wanted
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap_or_default().to_owned();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_by_itself() {
    if !wanted() {
        return;
    }
    let dir =
        tempfile::tempdir_in(std::env::var_os("COMMISSAIRE_BENCH_DIR").unwrap_or("/var/tmp".into())).unwrap();
    let store = Arc::new(open(dir.path()));
    for writers in [1, 8, 64] {
        let (begun, time) = (Instant::now(), Duration::from_secs(3));
        let tasks: Vec<_> = (0..writers)
            .map(|writer| {
                let store = store.clone();
                tokio::spawn(async move {
                    let mut done = 0_u64;
                    while begun.elapsed() < time {
                        commit(&store, vec![host(&format!("10.{writer}.{done}"), "active")]).await.unwrap();
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        let mut done = 0;
        for task in tasks {
            done += task.await.unwrap();
        }
        println!("{writers} writers: {:.0} saves/s", done as f64 / begun.elapsed().as_secs_f64());
    }
    let model = Model::find("Host").unwrap();
    let keys: Vec<String> = (0..100).map(|at| format!("10.0.{at}")).collect();
    let begun = Instant::now();
    let mut done = 0_u64;
    while begun.elapsed() < Duration::from_secs(1) {
        for key in &keys {
            assert!(store.get(model, std::slice::from_ref(key)).unwrap()[0].is_some());
            done += 1;
        }
    }
    println!("gets on the caller's thread: {:.0}/s", done as f64 / begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let mut done = 0_u64;
    while begun.elapsed() < Duration::from_secs(1) {
        for key in &keys {
            let (store, key) = (store.clone(), key.clone());
            let got = tokio::task::spawn_blocking(move || store.get(model, &[key]).unwrap()[0].is_some());
            assert!(got.await.unwrap());
            done += 1;
        }
    }
    println!("gets by spawn_blocking: {:.0}/s", done as f64 / begun.elapsed().as_secs_f64());
    let begun = Instant::now();
    let rows = store.list(model, &all(1000)).unwrap().rows.len();
    println!("a page of {rows}: {:?}", begun.elapsed());
    let latest = store.changes(0, 1, MAX_ANSWER).map(|log| log.latest).unwrap_or(0);
    println!(
        "resident: {} KiB after {latest} changes; file {} KiB",
        resident(),
        file_size(dir.path()) / 1024
    );
    // What a killed process leaves: the file as it is while the store is open.
    let left = dir.path().join("left");
    std::fs::create_dir(&left).unwrap();
    for file in ["storage.redb", "master.key"] {
        std::fs::copy(dir.path().join(file), left.join(file)).unwrap();
    }
    let begun = Instant::now();
    drop(open(&left));
    println!("opened after a crash in {:?}", begun.elapsed());
    drop(store);
    let begun = Instant::now();
    let store = open(dir.path());
    println!("opened again in {:?}", begun.elapsed());
    drop(store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_on_a_memory_bus() {
    if !wanted() {
        return;
    }
    let served = Served::new().await;
    served.storage.save(&Host { address: "a".into(), ..Host::default() }).await.unwrap();
    for callers in [1, 64] {
        for (what, saves) in [("gets", false), ("saves", true)] {
            let (begun, time) = (Instant::now(), Duration::from_secs(2));
            let tasks: Vec<_> = (0..callers)
                .map(|caller| {
                    let storage = served.storage.clone();
                    tokio::spawn(async move {
                        let mut done = 0_u64;
                        while begun.elapsed() < time {
                            if saves {
                                let host = Host { address: format!("{caller}"), ..Host::default() };
                                storage.save(&host).await.unwrap();
                            } else {
                                storage.get::<Host>("a").await.unwrap();
                            }
                            done += 1;
                        }
                        done
                    })
                })
                .collect();
            let mut done = 0;
            for task in tasks {
                done += task.await.unwrap();
            }
            println!(
                "{callers} callers: {:.0} {what}/s over the bus",
                done as f64 / begun.elapsed().as_secs_f64()
            );
        }
    }
    println!("resident: {} KiB", resident());
    served.finish().await;
}

fn file_size(dir: &std::path::Path) -> u64 {
    std::fs::metadata(dir.join("storage.redb")).map_or(0, |about| about.len())
}
