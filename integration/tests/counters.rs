//! Records that many change at the same moment, over deaths of whoever keeps them: every change counts once, and who
//! listens hears each in its order.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use commissaire::{Client, Pattern, Source, Token};
use commissaire_api::{Host, StorageClient, StorageEvent};
use commissaire_integration::{
    Failure, Kind, Outcome, Process, Server, Site, alone, ensure, long, seed, until, within,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use tokio::{task::JoinHandle, time::sleep};

const WRITERS: usize = 8;

/// A storage service whose records are in `etcd`, with the data folder of the site.
async fn on_etcd(site: &Site, etcd: &Server) -> Outcome<Process> {
    let file = site.place.path().join("storage.conf");
    let handler = json!({"storage_handlers": {"type": "etcd", "server_url": etcd.uri()}});
    std::fs::write(&file, handler.to_string())?;
    let data = site.place.data().display().to_string();
    site.service("storage", &["--config", &file.display().to_string(), "--data-dir", &data]).await
}

async fn embedded(site: &Site) -> Outcome<Process> {
    site.service("storage", &["--data-dir", &site.place.data().display().to_string()]).await
}

async fn storage(site: &Site) -> Outcome<StorageClient> {
    Ok(StorageClient::new(Client::new(site.join().await?).with_timeout(Duration::from_secs(3))))
}

fn name(at: usize) -> String {
    format!("10.0.0.{at}")
}

/// Writers that increment the memory of `hosts` hosts in turn, `each` times in all.
struct Writers {
    done: Arc<AtomicUsize>,
    tasks: Vec<JoinHandle<Outcome>>,
    all: usize,
}

impl Writers {
    async fn start(site: &Site, hosts: usize, each: usize) -> Outcome<Self> {
        let first = storage(site).await?;
        for at in 0..hosts {
            first.save(&Host { address: name(at), ..Host::default() }).await?;
        }
        let done = Arc::<AtomicUsize>::default();
        let mut tasks = Vec::new();
        for writer in 0..WRITERS {
            let (storage, done) = (storage(site).await?, done.clone());
            tasks.push(tokio::spawn(async move {
                for turn in 0..each {
                    storage.update::<Host>(&name((writer + turn) % hosts), |host| host.memory += 1).await?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }));
        }
        Ok(Self { done, tasks, all: WRITERS * each })
    }

    fn is_done(&self) -> bool {
        self.tasks.iter().all(JoinHandle::is_finished)
    }

    /// Waits until the next of `parts` parts is done, or all are.
    async fn part(&self, parts: usize) -> Outcome {
        let next = self.done.load(Ordering::Relaxed) + self.all / parts;
        let reached = async || self.done.load(Ordering::Relaxed) >= next || self.is_done();
        until("more is written", Duration::from_secs(120), reached).await
    }

    async fn end(self) -> Outcome {
        for task in self.tasks {
            task.await??;
        }
        Ok(())
    }
}

async fn sum(site: &Site) -> Outcome<u64> {
    let hosts = storage(site).await?.list::<Host>().await?;
    Ok(hosts.iter().map(|host| host.memory).sum())
}

#[tokio::test]
async fn no_increment_is_lost_over_two_services_on_one_etcd() -> Outcome {
    let _machine = alone().await;
    let (each, kills) = long("increments of each of 8 writers, and kills", (50, 3), (1_000, 30));
    let mut random = StdRng::seed_from_u64(seed()?);
    let site = Site::on(Kind::Redis).await?;
    let mut etcd = Server::etcd(&[]).await?;
    let mut services = [on_etcd(&site, &etcd).await?, on_etcd(&site, &etcd).await?].map(Some);
    let writers = Writers::start(&site, 1, each).await?;
    for kill in 0..kills {
        writers.part(kills + 1).await?;
        sleep(Duration::from_micros(random.random_range(0..20_000))).await;
        if kill % 3 == 2 {
            etcd.restart().await?;
        } else if let Some(service) = services[0].take() {
            service.kill().await?;
            services[0] = Some(on_etcd(&site, &etcd).await?);
        }
    }
    let all = writers.all as u64;
    writers.end().await?;
    let found = sum(&site).await?;
    ensure!(found == all, "{found} of {all} increments are there");
    for service in services.into_iter().flatten() {
        service.terminate().await?.expect(0)?;
    }
    Ok(())
}

#[tokio::test]
async fn no_increment_is_lost_on_an_embedded_store() -> Outcome {
    let _machine = alone().await;
    let (each, kills) = long("increments of each of 8 writers, and kills", (50, 3), (1_000, 30));
    let mut random = StdRng::seed_from_u64(seed()?);
    let site = Site::on(Kind::Redis).await?;
    let mut service = embedded(&site).await?;
    let writers = Writers::start(&site, 1, each).await?;
    for _ in 0..kills {
        writers.part(kills + 1).await?;
        sleep(Duration::from_micros(random.random_range(0..20_000))).await;
        service.kill().await?;
        service = embedded(&site).await?;
    }
    let all = writers.all as u64;
    writers.end().await?;
    let found = sum(&site).await?;
    ensure!(found == all, "{found} of {all} increments are there");
    service.terminate().await?.expect(0).map(drop)
}

#[tokio::test]
async fn a_durable_listener_hears_every_change_of_each_record_in_order() -> Outcome {
    const HOSTS: usize = 20;
    let _machine = alone().await;
    let (each, rounds) = long("changes of each of 8 writers, and rounds of kills", (75, 1), (1_250, 5));
    let mut site = Site::on(Kind::Redis).await?;
    let mut etcd = Server::etcd(&[]).await?;
    let mut services = [on_etcd(&site, &etcd).await?, on_etcd(&site, &etcd).await?].map(Some);
    let listening = site.join().await?;
    let patterns = vec![Pattern::new("notify.storage.Host.*")?];
    let mut events = listening.subscribe(Source::Durable(Token::new("picture")?, patterns), 64).await?;
    let all = WRITERS * each;
    let listener = tokio::spawn(async move {
        let mut known: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        let (mut heard, mut again) = (0, 0);
        // Each host is created as well.
        while heard < all + HOSTS {
            let delivery = events.next_delivery().await.ok_or_else(|| Failure::new("the bus has closed"))?;
            let event: StorageEvent =
                serde_json::from_slice(delivery.message().body()).map_err(std::io::Error::from)?;
            delivery.ack().await?;
            let host: Host = event.model.to().map_err(std::io::Error::from)?;
            let seen = (event.revision.unwrap_or(0), host.memory);
            let known = known.entry(host.address.clone()).or_default();
            if known.contains(&seen) {
                again += 1;
                continue;
            }
            let next = known.last().map_or(0, |(_, memory)| memory + 1);
            ensure!(seen.1 == next, "{} had {next} next, and this is {seen:?}", host.address);
            ensure!(
                known.last().is_none_or(|(revision, _)| *revision < seen.0),
                "{}: {seen:?}",
                host.address
            );
            known.push(seen);
            heard += 1;
        }
        println!("{heard} changes heard, {again} of them twice");
        Ok(())
    });
    let writers = Writers::start(&site, HOSTS, each).await?;
    let parts = 4 * rounds + 1;
    for _ in 0..rounds {
        // Both in turn, so that it is the one that announces as well.
        for running in &mut services {
            writers.part(parts).await?;
            if let Some(service) = running.take() {
                service.kill().await?;
                *running = Some(on_etcd(&site, &etcd).await?);
            }
        }
        writers.part(parts).await?;
        etcd.restart().await?;
        writers.part(parts).await?;
        site.broker.server()?.restart().await?;
    }
    writers.end().await?;
    within("all is heard", Duration::from_secs(60), listener).await???;
    let found = sum(&site).await?;
    ensure!(found == all as u64, "{found} of {all} increments are there");
    for service in services.into_iter().flatten() {
        service.terminate().await?.expect(0)?;
    }
    listening.close().await?;
    Ok(())
}
