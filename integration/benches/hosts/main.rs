//! How many hosts the services can look after. The figures in the README come from here:
//!
//! ```sh
//! cargo build --release --workspace --all-features --bins
//! cargo bench --workspace --all-features --bench hosts
//! ```
//!
//! Words after `--` choose: `watch` (10,000 hosts on the loopback, each a server of SSH in one process of ours, one of
//! twenty of which says nothing, looked at once a minute), `facts` (200 real machines, looked over in one run; needs root).
//! Numbers change them: `watch 2000 60 3` is 2,000 hosts, 60 s, three intervals; `facts 50` is 50 machines.

mod crowd;

use std::{
    fs,
    time::{Duration, Instant},
};

use commissaire::Client;
use commissaire_api::{Host, HostCreds, StorageClient, record::ACTIVE};
use commissaire_integration::{Failure, Fleet, Order, Outcome, Place, ensure, join, resident_kib};
use serde_json::{Value, json};

use crate::crowd::{Crowd, address};

#[tokio::main]
async fn main() -> Outcome {
    // `cargo bench` says that it does.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", count] => crowd::serve(number(count)?).await,
        ["watch", count, seconds, intervals] => {
            watch(number(count)?, number(seconds)?, number(intervals)?).await
        }
        ["watch"] => watch(10_000, 60, 3).await,
        ["facts", count] => facts(number(count)?).await,
        ["facts"] => facts(200).await,
        [] => {
            watch(10_000, 60, 3).await?;
            facts(200).await
        }
        _ => Err(Failure::new(format!("{words:?} is nothing to measure"))),
    }
}

fn number<T: std::str::FromStr>(word: &str) -> Outcome<T> {
    word.parse().map_err(|_| Failure::new(format!("{word:?} is no number")))
}

/// How much of a processor a process has used so far.
fn cpu(pid: u32) -> Outcome<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default();
    // In hundredths of a second on every Linux that there is.
    Ok(Duration::from_millis(10 * (ticks(11) + ticks(12))))
}

/// Whether each of very many hosts is looked at once an interval, when some of them say nothing.
async fn watch(count: usize, seconds: u64, intervals: u32) -> Outcome {
    let mut crowd = Crowd::start(count)?;
    let place = Place::new()?;
    let file = place.path().join("up.conf");
    let watcher = json!({"interval_seconds": seconds, "ssh": {"port": crowd.port}});
    fs::write(&file, json!({"watcher": watcher}).to_string())?;
    let config = file.display().to_string();
    let up = place.up(&["-c", &config, "--only", "storage"]).await?;
    add(&place, &crowd).await?;
    up.terminate().await?.expect(0)?;

    let up = place.up(&["-c", &config, "--only", "storage,watcher"]).await?;
    // In the first two intervals those that say nothing are found.
    let interval = Duration::from_secs(seconds);
    tokio::time::sleep(interval * 5 / 2).await;
    crowd.seen()?;
    let (before, began, (_, first)) = (cpu(up.pid())?, Instant::now(), status(&place).await?);
    tokio::time::sleep(interval * intervals).await;
    let (used, took) = (cpu(up.pid())? - before, began.elapsed());
    let mut seen = crowd.seen()?;
    let memory = resident_kib(up.pid())? / 1024;
    let (down, last) = status(&place).await?;
    up.terminate().await?.expect(0)?;

    seen.gaps.sort_by(f64::total_cmp);
    let part = |of: f64| seen.gaps.get((seen.gaps.len() as f64 * of) as usize).copied().unwrap_or_default();
    let (used, took) = (used.as_secs_f64(), took.as_secs_f64());
    println!(
        "{count} hosts, {} of which say nothing, each looked at every {seconds} s, for {took:.0} s:",
        seen.silent
    );
    println!("  hosts that are well: {} looks at {}, with {} logins", seen.looks, seen.hosts, seen.logins);
    println!(
        "  from one look to the next: p50 {:.2} s, p99 {:.2} s; never longer than {:.2} s",
        part(0.5),
        part(0.99),
        seen.longest
    );
    println!("  hosts that are down: {down}; looks at all: {}", last - first);
    println!(
        "  processor: {used:.1} s, {:.0} % of one core, {:.2} ms a look; memory: {memory} MiB",
        100.0 * used / took,
        1000.0 * used / (last - first) as f64
    );
    ensure!(seen.hosts == count - seen.silent, "only {} hosts were looked at", seen.hosts);
    ensure!(seen.longest <= 1.2 * seconds as f64, "a healthy host was not looked at for {} s", seen.longest);
    ensure!(down == seen.silent, "{} hosts say nothing, and {down} are down", seen.silent);
    Ok(())
}

/// How many hosts are down, and how many looks there were.
async fn status(place: &Place) -> Outcome<(usize, u64)> {
    let order = place.cli(&["call", "watcher.status"])?.env("COMMISSAIRE_BUS_URI", place.socket_uri());
    let told = order.run().await?.expect(0)?.json()?;
    let list = |name: &str| told[name].as_array().cloned().unwrap_or_default();
    let down = list("unwell").iter().filter(|host| host["hard"] == true).count();
    Ok((down, list("shards").iter().filter_map(|shard| shard["checks"].as_u64()).sum()))
}

/// Hosts that were good, with credentials.
async fn add(place: &Place, crowd: &Crowd) -> Outcome {
    let bus = join(&place.socket_uri()).await?;
    let storage = StorageClient::new(Client::new(bus.clone()).with_timeout(Duration::from_secs(60)));
    let all: Vec<String> = (0..crowd.count).map(address).collect();
    for some in all.chunks(500) {
        let host = |address: &String| Host {
            address: address.clone(),
            status: ACTIVE.to_owned(),
            ..Host::default()
        };
        let creds = |address: &String| HostCreds {
            address: address.clone(),
            ssh_priv_key: crowd.key().to_owned().into(),
            remote_user: "root".to_owned(),
        };
        storage.save_all(&some.iter().map(host).collect::<Vec<_>>()).await?;
        storage.save_all(&some.iter().map(creds).collect::<Vec<_>>()).await?;
    }
    bus.close().await?;
    Ok(())
}

/// What it costs to look over real machines, all in one run.
async fn facts(count: usize) -> Outcome {
    let fleet = Fleet::start(&vec!["fedora"; count]).await?;
    let place = Place::new()?;
    let order = place.cli(&["up", "--only", "storage,investigator", "--data-dir"])?.arg(place.data());
    let mut up = fleet.within(order).start()?;
    up.says("ready", |line| line == "ready").await?;
    let key = fleet.key_file().display().to_string();
    let mut arguments = vec!["host", "add", "--key", &key, "--facts-only", "--json"];
    let addresses: Vec<String> = (0..count).map(|at| fleet.address(at)).collect();
    // One bridge joins them all: who looks for one machine's hardware address asks each of them, on this processor. That is
    // the network of these tests, no part of what a host costs.
    let knock = ["-c", "for a; do exec 3<>/dev/tcp/$a/22; exec 3>&-; done", "knock"];
    fleet.within(Order::installed("bash").args(knock).args(&addresses)).run().await?.expect(0)?;
    arguments.extend(addresses.iter().map(String::as_str));
    let again = ["host", "investigate", "--all", "--facts-only", "--json"];
    println!("{count} machines, facts only, in one run:");
    let mut dear = false;
    for (what, arguments) in [("new", &arguments[..]), ("known", &again[..])] {
        let (before, began) = (cpu(up.pid())?, Instant::now());
        let order = place.cli(arguments)?.env("COMMISSAIRE_BUS_URI", place.socket_uri());
        let ended = order.run().await?.expect(0)?;
        let (used, took) = (cpu(up.pid())? - before, began.elapsed());
        let right = ended.out.lines().filter(|line| {
            let one: Value = serde_json::from_str(line).unwrap_or_default();
            one["investigation"]["status"] == "finished" && one["memory"].as_u64() > Some(0)
        });
        let right = right.count();
        println!(
            "  {what}: {right} in {:.1} s; processor of ours: {:.2} ms a host",
            took.as_secs_f64(),
            1000.0 * used.as_secs_f64() / count as f64
        );
        ensure!(right == count, "only {right} of {count} machines were looked over");
        dear |= used > Duration::from_millis(5) * count as u32;
    }
    up.terminate().await?.expect(0)?;
    ensure!(!dear, "a host costs more than 5 ms");
    Ok(())
}
