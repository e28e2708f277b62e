//! Hosts are brought in order: what that changes, and what goes on after a fault.

use std::{
    fs,
    time::{Duration, Instant},
};

use commissaire_integration::{Fleet, Outcome, Place, ensure, until};
use serde_json::{Value, json};

use crate::hosts::{Control, host, start_up};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_dry_run_tells_what_it_would_do_and_does_nothing() -> Outcome {
    let templates = Place::new()?;
    fs::write(
        templates.path().join("daemon.json.j2"),
        r#"{"log-driver": "journald", "labels": [{{ os }}]}"#,
    )?;
    let config = json!({"investigator": {"templates_path": templates.path()}});
    let control = Control::over(&["fedora"], config).await?;
    let address = control.fleet.address(0);
    control.add(0, &[0], &["--facts-only"]).await?;
    let told = control.host(0, &["investigate", "--dry-run", &address]).await?.out;
    for step in ["install-docker", "docker-config", "docker-service"] {
        ensure!(told.contains(&format!("{address}: {step}")), "{step} is not in {told}");
    }
    ensure!(control.changes(0).await?.is_empty(), "something was done");
    ensure!(control.show(0).await?["status"] == "", "its status was changed");
    control.host(0, &["investigate", &address]).await?;
    let config = control.fleet.run(0, "cat /etc/docker/daemon.json").await?;
    ensure!(
        serde_json::from_str::<Value>(&config).is_ok_and(|config| config["labels"][0] == "fedora"),
        "{config}"
    );
    let told = control.host(0, &["investigate", "--dry-run", &address]).await?.out;
    ensure!(told.contains("nothing is to be done"), "{told}");
    // A file that somebody has changed is put right, and what rests on it is started anew.
    control.fleet.run(0, "echo '{}' >/etc/docker/daemon.json").await?;
    let before = control.changes(0).await?.len();
    control.host(0, &["investigate", &address]).await?;
    let told = control.changes(0).await?.split_off(before);
    ensure!(told == ["systemctl daemon-reload", "systemctl restart docker.service"], "{told:?}");
    // What the configuration says anew holds for the next run.
    control.reconfigure(&json!({"investigator": {"container_runtime": "podman"}}))?;
    until("podman is wanted", PATIENCE, async || {
        let told = control.host(0, &["investigate", "--dry-run", &address]).await;
        told.is_ok_and(|told| told.out.contains("install-podman") && !told.out.contains("docker"))
    })
    .await
}

#[tokio::test]
async fn a_restart_that_is_due_is_made_up_for() -> Outcome {
    let templates = Place::new()?;
    fs::write(templates.path().join("daemon.json.j2"), r#"{"log-driver": "journald"}"#)?;
    let config = json!({"investigator": {"templates_path": templates.path()}});
    let control = Control::over(&["fedora"], config).await?;
    control.add(0, &[0], &[]).await?;
    let address = control.fleet.address(0);
    // The file is changed, and then something goes wrong.
    control.fleet.run(0, "echo '{}' >/etc/docker/daemon.json").await?;
    control.fleet.control("behave", 0, &["systemctl daemon-reload", "exit=1"]).await?;
    control.host(1, &["investigate", &address]).await?;
    control.fleet.control("behave", 0, &["systemctl daemon-reload"]).await?;
    for wanted in [&["systemctl daemon-reload", "systemctl restart docker.service"][..], &[]] {
        // A dry run makes up for nothing.
        let before = control.changes(0).await?.len();
        let told = control.host(0, &["investigate", "--dry-run", &address]).await?.out;
        ensure!(told.contains("docker-service") != wanted.is_empty(), "{told}");
        control.host(0, &["investigate", &address]).await?;
        let told = control.changes(0).await?.split_off(before);
        ensure!(told == wanted, "{told:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_installed_for_the_next_boot_is_said_and_not_installed_twice() -> Outcome {
    let control = Control::over(&["microos"], json!({})).await?;
    let address = control.fleet.address(0);
    let added = control.add(1, &[0], &[]).await?;
    let failure = &added[&address]["state"]["failure"];
    ensure!(failure["step"] == "install-docker", "{failure}");
    ensure!(failure["text"].as_str().is_some_and(|text| text.contains("from the next boot on")), "{failure}");
    control.host(1, &["investigate", &address]).await?;
    let installs = async || -> Outcome<usize> {
        Ok(control.changes(0).await?.iter().filter(|line| line.starts_with("transactional-update")).count())
    };
    ensure!(installs().await? == 1, "{:?}", control.changes(0).await?);
    let before = control.fleet.boot_id(0).await?;
    control.fleet.control("reboot", 0, &[]).await?;
    control.fleet.rebooted(0, &before).await?;
    control.host(0, &["investigate", &address]).await?;
    ensure!(installs().await? == 1, "{:?}", control.changes(0).await?);
    ensure!(control.show(0).await?["status"] == "disassociated", "it is not in order");
    Ok(())
}

#[tokio::test]
async fn flannel_is_set_up_with_what_it_needs() -> Outcome {
    let place = Place::new()?;
    let file = |name: &str| place.path().join(name);
    for name in ["ca", "cert", "key"] {
        fs::write(file(name), format!("-- {name} --\n"))?;
    }
    let etcd = json!({
        "server_url": "https://10.77.0.1:2379", "certificate_ca_path": file("ca"),
        "certificate_path": file("cert"), "certificate_key_path": file("key"),
    });
    let control = Control::over(&["fedora", "opensuse"], json!({"investigator": {"etcd": etcd}})).await?;
    control.add(0, &[0], &[]).await?;
    let told = control.fleet.run(0, "cat /etc/sysconfig/flanneld; stat -c %a /etc/commissaire/etcd/*; cat /etc/commissaire/etcd/client-key.pem").await?;
    for part in [
        "FLANNEL_ETCD_ENDPOINTS=\"https://10.77.0.1:2379\"",
        "--etcd-keyfile=/etc/commissaire/etcd/client-key.pem",
        "644\n600\n644",
        "-- key --",
    ] {
        ensure!(told.contains(part), "{part:?} is not in {told}");
    }
    control
        .fleet
        .run(0, "systemctl is-active flanneld.service && systemctl is-active docker.service")
        .await?;
    let again = control.host(0, &["investigate", "--json", &control.fleet.address(0)]).await?.json()?;
    ensure!(again["investigation"]["progress"]["changed"] == false, "{again}");
    // A network of the other type, of the host's cluster.
    let network = json!({"model_type_name": "Network", "model_json_data": {"name": "flat", "type": "flannel_server", "options": {"address": "10.77.0.1:8472"}}});
    let cluster =
        json!({"model_type_name": "Cluster", "model_json_data": {"name": "other", "network": "flat"}});
    for record in [network, cluster] {
        let order = control.place.cli(&["call", "storage.save", &record.to_string()])?;
        order.env("COMMISSAIRE_BUS_URI", control.place.socket_uri()).run().await?.expect(0)?;
    }
    control.add(0, &[1], &["--cluster", "other"]).await?;
    let told = control.fleet.run(1, "cat /etc/sysconfig/flanneld").await?;
    ensure!(told.contains("FLANNEL_OPTIONS=\"--remote=10.77.0.1:8472\""), "{told}");
    Ok(())
}

#[tokio::test]
async fn what_an_instance_had_begun_another_goes_on_with() -> Outcome {
    let fleet = Fleet::start(&["rhel7"]).await?;
    let place = Place::new()?;
    let up = start_up(&fleet, &place, json!({}), &["--only", "storage"]).await?;
    let service = || {
        let order = place.order("commissaire-investigator-service")?;
        fleet.within(order.env("COMMISSAIRE_BUS_URI", place.socket_uri())).start()
    };
    let mut first = service()?;
    first.logs("ready", |line| line.contains("ready")).await?;
    // It takes long enough that it can be killed within.
    fleet.control("behave", 0, &["yum", "sleep=4"]).await?;
    let address = fleet.address(0);
    host(&place, 0, &["add", &address, "--key", &fleet.key_file().display().to_string(), "--no-wait"])
        .await?;
    until("the package is being installed", PATIENCE, async || {
        let told = fleet.commands(0).await.unwrap_or_default();
        told.iter().any(|command| command.line.starts_with("yum -y install"))
    })
    .await?;
    let mut second = service()?;
    second.logs("ready", |line| line.contains("ready")).await?;
    first.kill().await?;
    let killed = Instant::now();
    let shown = async || host(&place, 0, &["show", "--json", &address]).await.and_then(|ended| ended.json());
    until("another goes on with it", PATIENCE, async || {
        shown().await.is_ok_and(|shown| shown["investigation"]["progress"]["attempts"] == 2)
    })
    .await?;
    let took = killed.elapsed();
    ensure!(took <= Duration::from_secs(23), "it took {took:?} until another went on with it");
    until("it is in order", PATIENCE, async || {
        shown().await.is_ok_and(|shown| shown["status"] == "disassociated")
    })
    .await?;
    let told: Vec<String> = fleet.commands(0).await?.iter().map(|command| command.line.clone()).collect();
    let enabled = told.iter().filter(|line| line.contains("--enable=")).count();
    let asked = told.iter().filter(|line| line.contains("--list-enabled")).count();
    let installed = told.iter().filter(|line| line.starts_with("yum -y install")).count();
    ensure!((enabled, asked, installed) == (1, 1, 1), "a step was run again: {told:#?}");
    second.terminate().await?.expect(0)?;
    up.terminate().await?.expect(0).map(drop)
}
