//! Archives of all records, and records from one place to another, with no service at work.

use std::{fs, path::PathBuf, time::Duration};

use commissaire::Client;
use commissaire_api::{Cluster, Host, HostCreds, StorageClient};
use commissaire_integration::{Kind, Outcome, Place, Server, Site, ensure};
use serde_json::{Value, json};

/// How many hosts there are, and credentials.
const HOSTS: usize = 1_200;
const SECRETS: usize = 30;
const SECRET: &str = "c4n4ry-key";

/// The data folder of an embedded store in which a fleet is.
async fn fleet(site: &Site) -> Outcome<PathBuf> {
    let data = site.place.data();
    let service = site.service("storage", &["--data-dir", &data.display().to_string()]).await?;
    let bus = site.join().await?;
    let storage = StorageClient::new(Client::new(bus.clone()));
    let hosts: Vec<Host> = (0..HOSTS)
        .map(|at| Host { address: format!("10.0.{}.{}", at / 250, at % 250), cpus: 4, ..Host::default() })
        .collect();
    for some in hosts.chunks(100) {
        storage.save_all(some).await?;
    }
    for host in &hosts[..SECRETS] {
        let address = host.address.clone();
        let ssh_priv_key = format!("{SECRET}-{address}").into();
        storage.save(&HostCreds { address, ssh_priv_key, remote_user: "fedora".into() }).await?;
    }
    let hostset: Vec<&str> = hosts.iter().map(|host| host.address.as_str()).collect();
    let cluster: Cluster =
        serde_json::from_value(json!({"name": "all", "hostset": hostset})).map_err(std::io::Error::from)?;
    storage.save(&cluster).await?;
    bus.close().await?;
    service.terminate().await?.expect(0)?;
    Ok(data)
}

/// `commissaire storage` with these arguments, whose end has this code. What it printed.
async fn storage(place: &Place, code: i32, arguments: &[&str]) -> Outcome<(String, String)> {
    let order = place.cli(&[&["storage"], arguments].concat())?;
    let ended = order.run().await?.expect(code)?;
    Ok((ended.out, ended.err))
}

#[tokio::test]
async fn all_records_go_into_an_archive_to_an_etcd_and_back() -> Outcome {
    let site = Site::on(Kind::Redis).await?;
    let data = fleet(&site).await?.display().to_string();
    let place = &site.place;
    let path = |name: &str| place.path().join(name).display().to_string();
    let (public, _) = storage(place, 0, &["key", &path("backup.key")]).await?;
    let (again, _) = storage(place, 0, &["key", &path("backup.key")]).await?;
    ensure!(public == again, "one key has two public halves");

    let whole = path("whole.archive");
    let (said, _) =
        storage(place, 0, &["export", &whole, "--data-dir", &data, "--seal-to", public.trim()]).await?;
    let count = HOSTS + SECRETS + 1;
    ensure!(said.contains(&format!("{count} records")), "export said {said}");
    let text = fs::read_to_string(&whole)?;
    ensure!(!text.contains(SECRET), "a secret is in the archive in the clear");
    let (_, err) = storage(place, 78, &["export", &whole, "--data-dir", &data]).await?;
    ensure!(err.contains("is there already"), "{err}");
    storage(place, 0, &["export", &path("plain.archive"), "--data-dir", &data]).await?;
    ensure!(
        !fs::read_to_string(path("plain.archive"))?.contains("HostCreds"),
        "secrets without being asked for"
    );

    // Into an etcd, after an interruption that left a part there.
    let etcd = Server::etcd(&[]).await?;
    let conf = path("etcd.conf");
    let handlers = json!({"storage_handlers": {"type": "etcd", "server_url": etcd.uri()}});
    fs::write(&conf, handlers.to_string())?;
    let there = path("there");
    let to = ["-c", &conf, "--data-dir", &there];
    let import = |more: &[&str]| {
        [&["import", whole.as_str()], &to[..], more]
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let run = async |code: i32, arguments: Vec<String>| {
        storage(place, code, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    let (said, _) = run(0, import(&[])).await?;
    ensure!(said.contains(&format!("{} records written, 0 were there", HOSTS + 1)), "{said}");
    let (said, _) = run(0, import(&["--key", &path("backup.key")])).await?;
    ensure!(said.contains(&format!("{SECRETS} records written, {} were there", HOSTS + 1)), "{said}");
    let (said, _) = run(
        0,
        [&["verify", whole.as_str()], &to[..], &["--key", &path("backup.key")]]
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect(),
    )
    .await?;
    ensure!(said.contains(&format!("{count} records, 0 of them wrong")), "{said}");

    // What was changed there is left, or replaced where that is wanted; and told.
    let mut client = etcd_client::Client::connect([etcd.uri()], None).await.map_err(crate::etcd::failed)?;
    client
        .put("/commissaire/hosts/10.0.0.0", r#"{"status": "other"}"#, None)
        .await
        .map_err(crate::etcd::failed)?;
    client.put("/commissaire/hosts/10.9.9.9", "{}", None).await.map_err(crate::etcd::failed)?;
    client.delete("/commissaire/hosts/10.0.0.1", None).await.map_err(crate::etcd::failed)?;
    let (said, _) =
        run(1, [&["verify", whole.as_str()], &to[..]].concat().iter().map(ToString::to_string).collect())
            .await?;
    for told in [
        "\"10.0.0.0\" is another",
        "\"10.9.9.9\" is stored only",
        "\"10.0.0.1\" is in the archive only",
        "3 of them wrong",
    ] {
        ensure!(said.contains(told), "{told:?} is not in {said}");
    }
    let (said, err) = run(1, import(&[])).await?;
    ensure!(
        said.contains("1 records written") && err.contains("\"10.0.0.0\" is there otherwise"),
        "{said} {err}"
    );
    let (said, _) = run(0, import(&["--replace"])).await?;
    ensure!(said.contains("1 records written"), "{said}");
    client.delete("/commissaire/hosts/10.9.9.9", None).await.map_err(crate::etcd::failed)?;
    // What is no record is told, and nothing is brought away as if it were not there.
    client.put("/commissaire/hosts/10.8.8.8", "junk", None).await.map_err(crate::etcd::failed)?;
    let (said, _) = storage(place, 1, &[&["verify"], &to[..]].concat()).await?;
    ensure!(said.contains("Host \"10.8.8.8\" in \"etcd\"") && said.contains("1 of them wrong"), "{said}");
    let partial = path("partial.archive");
    let order = place.cli(&[&["storage", "export", partial.as_str()], &to[..]].concat())?;
    let ended = order.run().await?;
    ensure!(ended.code != Some(0) && ended.err.contains("10.8.8.8"), "{ended:?}");
    ensure!(!PathBuf::from(&partial).exists(), "there is an archive that is not whole");
    client.delete("/commissaire/hosts/10.8.8.8", None).await.map_err(crate::etcd::failed)?;

    // And back into an embedded store of another machine.
    let back = path("back");
    fs::write(path("back.conf"), "{}")?;
    let migrate =
        ["migrate", "-c", &conf, "--data-dir", &there, "--to", &path("back.conf"), "--to-data-dir", &back];
    let (said, _) = storage(place, 0, &[&migrate[..], &["--with-secrets"]].concat()).await?;
    ensure!(said.contains(&format!("{count} records written")), "{said}");
    let (said, _) =
        storage(place, 0, &["verify", &whole, "--data-dir", &back, "--key", &path("backup.key")]).await?;
    ensure!(said.contains("0 of them wrong"), "{said}");
    let site = Site::on(Kind::Redis).await?;
    let service = site.service("storage", &["--data-dir", &back]).await?;
    let bus = site.join().await?;
    let client = StorageClient::new(Client::new(bus.clone()).with_timeout(Duration::from_secs(5)));
    let creds = client.get::<HostCreds>("10.0.0.3").await?;
    ensure!(*creds.ssh_priv_key == format!("{SECRET}-10.0.0.3"), "a secret has changed on its way");
    bus.close().await?;
    service.terminate().await?.expect(0).map(drop)
}

#[tokio::test]
async fn an_archive_that_is_not_whole_or_not_sound_changes_nothing() -> Outcome {
    let site = Site::on(Kind::Redis).await?;
    let data = fleet(&site).await?.display().to_string();
    let place = &site.place;
    let path = |name: &str| place.path().join(name).display().to_string();
    let whole = path("whole.archive");
    let (public, _) = storage(place, 0, &["key", &path("backup.key")]).await?;
    storage(place, 0, &["key", &path("other.key")]).await?;
    storage(place, 0, &["export", &whole, "--data-dir", &data, "--seal-to", public.trim()]).await?;
    let text = fs::read_to_string(&whole)?;
    let lines: Vec<&str> = text.lines().collect();
    let target = path("target");
    let refused = async |text: String, more: &[&str]| {
        let bad = path("bad.archive");
        fs::write(&bad, text)?;
        let arguments = [&["import", &bad, "--data-dir", &target], more].concat();
        Outcome::Ok(storage(place, 78, &arguments).await?.1)
    };
    let changed = |at: usize, line: String| {
        let mut lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        lines[at] = line;
        lines.join("\n") + "\n"
    };
    let mut host: Value = serde_json::from_str(lines[1]).map_err(std::io::Error::from)?;
    host["record"]["cpus"] = json!("many");
    for (text, told) in [
        (lines[..lines.len() / 2].join("\n") + "\n", "is not whole"),
        (lines[1..].join("\n") + "\n", "bad.archive:1: this is no archive"),
        (changed(0, lines[0].replace(":1,", ":2,")), "format 2"),
        (changed(1, host.to_string()), "bad.archive:2: Host"),
        (changed(2, "{}".to_owned()), "bad.archive:3: is no line of an archive"),
        (changed(lines.len() - 1, r#"{"end": 5}"#.to_owned()), "it says 5"),
    ] {
        let err = refused(text, &[]).await?;
        ensure!(err.contains(told), "{told:?} is not in {err}");
    }
    let err = refused(text.clone(), &["--key", &path("other.key")]).await?;
    ensure!(err.contains("HostCreds") && err.contains("another key"), "{err}");
    ensure!(!PathBuf::from(&target).exists(), "something was made");
    let (_, err) = storage(place, 78, &["export", &path("x"), "--data-dir", &path("nowhere")]).await?;
    ensure!(err.contains("there is no store in"), "{err}");
    let service = site.service("storage", &["--data-dir", &data]).await?;
    let (_, err) = storage(place, 78, &["export", &path("x"), "--data-dir", &data]).await?;
    ensure!(err.contains("open in another process"), "{err}");
    service.terminate().await?.expect(0).map(drop)
}

#[tokio::test]
async fn the_master_key_is_replaced_whenever_that_is_killed() -> Outcome {
    let site = Site::on(Kind::Redis).await?;
    let data = fleet(&site).await?;
    let (place, dir) = (&site.place, data.display().to_string());
    let data = data.join("storage");
    let first = fs::read(data.join("master.key"))?;
    let started = std::time::Instant::now();
    storage(place, 0, &["rotate-key", "--data-dir", &dir]).await?;
    let whole = started.elapsed();
    for round in 1..=20 {
        let order = place.cli(&["storage", "rotate-key", "--data-dir", &dir])?.start()?;
        tokio::time::sleep(whole * round / 20).await;
        order.kill().await?;
        let (said, _) = storage(place, 0, &["verify", "--data-dir", &dir]).await?;
        ensure!(said.contains(&format!("{} records, 0 of them wrong", HOSTS + SECRETS + 1)), "{said}");
    }
    let (said, _) = storage(place, 0, &["rotate-key", "--data-dir", &dir]).await?;
    ensure!(said.contains("master.key is new"), "{said}");
    ensure!(!data.join("master.key.next").exists(), "a rotation was not finished");
    let last = fs::read(data.join("master.key"))?;
    let (said, err) = storage(place, 0, &["verify", "--data-dir", &dir]).await?;
    ensure!(said.contains("0 of them wrong") && !err.contains("not finished"), "{said}{err}");
    fs::write(data.join("master.key"), &first)?;
    let (_, err) = storage(place, 78, &["verify", "--data-dir", &dir]).await?;
    ensure!(err.contains("is not the one"), "{err}");
    ensure!(first != last, "the key is the first");
    Ok(())
}
