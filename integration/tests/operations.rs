//! Operations over the hosts of a cluster: what each does to which host, how many at a time, and what goes on after a fault.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use commissaire_integration::{Command, Ended, Fleet, Outcome, Place, Process, ensure, until};
use serde_json::{Value, json};

use crate::hosts::{Control, start_up};

const PATIENCE: Duration = Duration::from_secs(120);

/// Hosts of one cluster, which are good.
async fn cluster(personas: &[&str], config: Value) -> Outcome<Control> {
    let control = Control::over(personas, config).await?;
    let key = control.fleet.key_file().display().to_string();
    let addresses = control.addresses();
    let mut arguments = vec!["add", "--key", &key, "--facts-only", "--cluster", "web"];
    arguments.extend(addresses.iter().map(String::as_str));
    control.host(0, &arguments).await?;
    Ok(control)
}

/// What a call answers, which ends with `code`.
async fn call(place: &Place, code: i32, method: &str, params: Value) -> Outcome<Value> {
    let order = place.cli(&["call", method, &params.to_string()])?;
    let ended = order.env("COMMISSAIRE_BUS_URI", place.socket_uri()).run().await?.expect(code)?;
    if code == 0 { ended.json() } else { ended.error() }
}

/// `commissaire cluster` with these arguments, that ends with `code`.
async fn command(place: &Place, code: i32, arguments: &[&str]) -> Outcome<Ended> {
    let order = place.cli(&["cluster"])?.args(arguments);
    order.env("COMMISSAIRE_BUS_URI", place.socket_uri()).run().await?.expect(code)
}

/// The operation at its end.
async fn over(place: &Place) -> Outcome<Value> {
    let mut told = Value::Null;
    until("the operation is over", PATIENCE, async || {
        told =
            call(place, 0, "clusterexec.operation", json!({"cluster_name": "web"})).await.unwrap_or_default();
        ["finished", "failed", "cancelled"]
            .contains(&told["operation"]["status"].as_str().unwrap_or_default())
    })
    .await?;
    Ok(told)
}

/// The boots that a machine was in so far, as its commands tell, and how often it was told to reboot.
fn reboots(commands: &[Command]) -> usize {
    commands.iter().filter(|command| command.line == "systemctl reboot" || command.line == "reboot").count()
}

fn ran(commands: &[Command], begin: &str) -> usize {
    commands.iter().filter(|command| command.line.starts_with(begin)).count()
}

#[tokio::test]
async fn each_host_is_rebooted_once_and_never_two_at_once() -> Outcome {
    let personas = ["fedora", "centos", "debian", "opensuse", "flatcar", "coreos"];
    let control = cluster(&personas, json!({})).await?;
    let place = &control.place;
    let mut before = Vec::new();
    for machine in 0..personas.len() {
        before.push(control.fleet.boot_id(machine).await?);
    }
    let began = Instant::now();
    let answer = call(place, 0, "jobs.clusterexec.restart", json!({"cluster_name": "web"})).await?;
    ensure!(answer["status"] == "in_process" && answer["name"] == "web", "{answer}");
    let refused = call(place, 1, "jobs.clusterexec.upgrade", json!(["web"])).await?;
    ensure!(refused["code"] == 409 && refused["data"]["kind"] == "restart", "{refused}");
    let told = over(place).await?;
    ensure!(told["operation"]["status"] == "finished", "{told:#}");
    eprintln!("restart of {} took {:?}", personas.len(), began.elapsed());
    let restarted = call(place, 0, "storage.get", json!(["ClusterRestart", {"name": "web"}])).await?;
    ensure!(restarted["status"] == "finished" && restarted["in_process"] == json!([]), "{restarted}");
    ensure!(
        restarted["restarted"].as_array().is_some_and(|done| done.len() == personas.len()),
        "{restarted}"
    );
    for (machine, persona) in personas.iter().enumerate() {
        ensure!(control.fleet.boot_id(machine).await? != before[machine], "{persona} was not rebooted");
        let commands = control.fleet.commands(machine).await?;
        ensure!(reboots(&commands) == 1, "{persona}: {commands:#?}");
    }
    // One after the other: none begins before the one before it is done.
    let mut spans: Vec<(u64, u64)> = Vec::new();
    for host in told["hosts"].as_array().into_iter().flatten() {
        let history = host["progress"]["history"].as_array().cloned().unwrap_or_default();
        let at = |event: Option<&Value>| event.and_then(|event| event["seq"].as_u64()).unwrap_or_default();
        spans.push((at(history.first()), at(history.last())));
    }
    spans.sort_unstable();
    ensure!(spans.windows(2).all(|two| two[0].1 < two[1].0), "two at once: {spans:?}");
    let events = call(place, 0, "clusterexec.events", json!(["web", 3])).await?;
    let numbers: Vec<u64> =
        events["events"].as_array().into_iter().flatten().filter_map(|event| event["seq"].as_u64()).collect();
    ensure!(numbers.first() == Some(&4) && numbers.windows(2).all(|two| two[1] == two[0] + 1), "{numbers:?}");
    Ok(())
}

#[tokio::test]
async fn upgrades_and_deployments_run_what_each_kind_needs_once() -> Outcome {
    let personas = ["fedora", "centos", "rhel7", "debian", "opensuse", "coreos", "bootc", "arch"];
    let control = cluster(&personas, json!({})).await?;
    let place = &control.place;
    let plan = call(place, 0, "clusterexec.plan", json!({"cluster_name": "web", "kind": "upgrade"})).await?;
    ensure!(plan["hosts"].as_array().is_some_and(|hosts| hosts.len() == personas.len()), "{plan}");
    let options = json!({"max_concurrent": 4});
    call(place, 0, "jobs.clusterexec.upgrade", json!({"cluster_name": "web", "options": options})).await?;
    let told = over(place).await?;
    ensure!(told["operation"]["status"] == "finished", "{told:#}");
    for (machine, (persona, command)) in personas
        .iter()
        .zip([
            "dnf -y upgrade",
            "dnf -y upgrade",
            "yum -y update",
            "apt-get -qy",
            "zypper --non-interactive",
            "rpm-ostree upgrade",
            "bootc upgrade",
            "pacman -Syu",
        ])
        .enumerate()
    {
        let commands = control.fleet.commands(machine).await?;
        ensure!(ran(&commands, command) == 1, "{persona}: {commands:#?}");
        let needed = ["coreos", "bootc"].contains(persona);
        let rebooted = reboots(&commands);
        ensure!(rebooted <= 1 && (!needed || rebooted == 1), "{persona}: {commands:#?}");
    }
    let refused = call(place, 1, "jobs.clusterexec.deploy", json!(["web", " "])).await?;
    ensure!(refused["code"] == -32602, "{refused}");
    let options = json!({"max_concurrent": 8, "max_failed": "100%"});
    call(place, 0, "jobs.clusterexec.deploy", json!(["web", "41.2", options])).await?;
    let told = over(place).await?;
    let stages: HashMap<&str, &str> = told["hosts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|host| Some((host["address"].as_str()?, host["stage"].as_str()?)))
        .collect();
    let coreos = control.fleet.address(5);
    ensure!(
        stages[coreos.as_str()] == "done" && stages[control.fleet.address(3).as_str()] == "failed",
        "{stages:?}"
    );
    ensure!(
        ran(&control.fleet.commands(5).await?, "rpm-ostree deploy 41.2") == 1,
        "it was not deployed once"
    );
    ensure!(control.fleet.run(5, "rpm-ostree status").await?.contains("Version: 41.2"), "it is not booted");
    Ok(())
}

#[tokio::test]
async fn it_stops_at_the_failure_that_is_too_many() -> Outcome {
    let control = cluster(&["fedora"; 15], json!({})).await?;
    let place = &control.place;
    for machine in [1, 2, 3] {
        control.fleet.control("behave", machine, &["dnf upgrade", "exit=1 out=no space"]).await?;
        control.fleet.control("behave", machine, &["dnf", "exit=1 out=no space"]).await?;
    }
    let plan = command(place, 0, &["upgrade", "web", "--dry-run"]).await?;
    ensure!(plan.out.lines().count() == 15 && plan.out.contains("dnf -y upgrade"), "{}", plan.out);
    ensure!(ran(&control.fleet.commands(0).await?, "dnf -y upgrade") == 0, "a dry run did something");
    let ended = command(place, 1, &["upgrade", "web", "--max-concurrent", "5", "--max-failed", "2"]).await?;
    ended.tells(&["failed: run failed (exit 1): dnf: simulated failure: no space"])?;
    ensure!(ended.out.contains("upgrade of cluster web: failed: 3 hosts failed, and 2 may"), "{}", ended.out);
    let told = over(place).await?;
    ensure!(told["operation"]["status"] == "failed", "{told:#}");
    let hosts = told["hosts"].as_array().cloned().unwrap_or_default();
    let of = |stage: &str| hosts.iter().filter(|host| host["stage"] == stage).collect::<Vec<_>>();
    ensure!(of("failed").len() == 3 && of("done").len() + of("skipped").len() == 12, "{told:#}");
    ensure!(of("skipped").len() >= 5, "more were begun than could be: {told:#}");
    for host in of("failed") {
        let failure = &host["progress"]["failure"];
        ensure!(failure["exit"] == "exit 1" && failure["kind"] == "command", "{failure}");
        ensure!(failure["tail"].as_str().is_some_and(|tail| tail.contains("no space")), "{failure}");
    }
    for host in of("skipped") {
        let machine = (0..15).find(|at| host["address"] == control.fleet.address(*at).as_str()).unwrap_or(99);
        ensure!(ran(&control.fleet.commands(machine).await?, "dnf -y upgrade") == 0, "{host} was touched");
    }
    // Only what was not done is done again.
    for machine in [1, 2, 3] {
        control.fleet.control("behave", machine, &["dnf upgrade"]).await?;
        control.fleet.control("behave", machine, &["dnf"]).await?;
    }
    let ended = command(place, 0, &["upgrade", "web", "--max-concurrent", "5", "--failed-only"]).await?;
    ensure!(ended.out.contains("upgrade of cluster web: finished"), "{}", ended.out);
    for machine in 0..15 {
        let times = ran(&control.fleet.commands(machine).await?, "dnf -y upgrade");
        ensure!(times == if [1, 2, 3].contains(&machine) { 2 } else { 1 }, "{machine}: {times}");
    }
    Ok(())
}

#[tokio::test]
async fn hosts_that_do_not_come_back_are_told_apart() -> Outcome {
    let control = cluster(&["fedora"; 5], json!({})).await?;
    let (place, fleet) = (&control.place, &control.fleet);
    // One never, one slowly; one was off before.
    fleet.control("delay", 0, &["3600"]).await?;
    fleet.control("delay", 1, &["8"]).await?;
    fleet.control("off", 3, &[]).await?;
    let options = json!({"max_concurrent": 5, "on_failure": "continue", "reboot_seconds": 20});
    call(place, 0, "jobs.clusterexec.restart", json!({"cluster_name": "web", "options": options})).await?;
    let told = over(place).await?;
    let hosts = told["hosts"].as_array().cloned().unwrap_or_default();
    let of = |machine: usize| {
        let address = fleet.address(machine);
        hosts.iter().find(|host| host["address"] == address.as_str()).cloned().unwrap_or_default()
    };
    ensure!(of(0)["stage"] == "failed" && of(0)["progress"]["failure"]["kind"] == "not_back", "{}", of(0));
    ensure!(of(0)["progress"]["away"] == true, "{}", of(0));
    ensure!([1, 2, 4].iter().all(|at| of(*at)["stage"] == "done"), "{told:#}");
    ensure!(of(3)["stage"] == "unreachable", "{}", of(3));
    Ok(())
}

#[tokio::test]
async fn what_is_killed_at_any_moment_is_gone_on_with() -> Outcome {
    let fleet = Fleet::start(&["fedora"; 8]).await?;
    let place = Place::new()?;
    let up = start_up(&fleet, &place, json!({}), &["--only", "storage,investigator"]).await?;
    let control = Control { fleet, place, up };
    let key = control.fleet.key_file().display().to_string();
    let addresses = control.addresses();
    let mut arguments = vec!["add", "--key", &key, "--facts-only", "--cluster", "web"];
    arguments.extend(addresses.iter().map(String::as_str));
    control.host(0, &arguments).await?;
    let place = &control.place;
    let service = || -> Outcome<Process> {
        let order = place.order("commissaire-clusterexec-service")?;
        control.fleet.within(order.env("COMMISSAIRE_BUS_URI", place.socket_uri())).start()
    };
    let mut instances = vec![service()?, service()?];
    for instance in &mut instances {
        instance.logs("ready", |line| line.contains("ready")).await?;
    }
    let options = json!({"max_concurrent": 3});
    call(place, 0, "jobs.clusterexec.restart", json!({"cluster_name": "web", "options": options})).await?;
    for kill in 0..3_u64 {
        tokio::time::sleep(Duration::from_millis(700 + 1900 * kill)).await;
        let told = call(place, 0, "clusterexec.operation", json!(["web"])).await?;
        if told["operation"]["status"] == "finished" {
            break;
        }
        // Whoever is at it.
        let holder = told["operation"]["holder"].as_str().unwrap_or_default().to_owned();
        ensure!(!holder.is_empty(), "nobody is at it: {told}");
        instances.remove(0).kill().await?;
        let mut next = service()?;
        next.logs("ready", |line| line.contains("ready")).await?;
        instances.push(next);
    }
    let told = over(place).await?;
    ensure!(told["operation"]["status"] == "finished", "{told:#}");
    for machine in 0..8 {
        let commands = control.fleet.commands(machine).await?;
        ensure!(reboots(&commands) == 1, "machine {machine}: {commands:#?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_operation_is_paused_resumed_and_cancelled() -> Outcome {
    let control = cluster(&["fedora"; 4], json!({})).await?;
    let (place, fleet) = (&control.place, &control.fleet);
    fleet.control("behave", 0, &["dnf", "sleep=3"]).await?;
    command(place, 0, &["upgrade", "web", "--no-wait"]).await?;
    until("the first host is at it", PATIENCE, async || {
        fleet.commands(0).await.is_ok_and(|commands| ran(&commands, "dnf -y upgrade") == 1)
    })
    .await?;
    command(place, 0, &["pause", "web"]).await?;
    until("it is paused with the first host done", PATIENCE, async || {
        let upgrade = call(place, 0, "storage.get", json!(["ClusterUpgrade", {"name": "web"}])).await;
        upgrade.is_ok_and(|upgrade| {
            upgrade["status"] == "paused"
                && upgrade["upgraded"] == json!([fleet.address(0)])
                && upgrade["in_process"] == json!([])
        })
    })
    .await?;
    fleet.control("behave", 1, &["dnf", "sleep=3"]).await?;
    command(place, 0, &["resume", "web"]).await?;
    until("the second host is at it", PATIENCE, async || {
        fleet.commands(1).await.is_ok_and(|commands| ran(&commands, "dnf -y upgrade") == 1)
    })
    .await?;
    command(place, 0, &["cancel", "web"]).await?;
    let told = over(place).await?;
    ensure!(told["operation"]["status"] == "cancelled", "{told:#}");
    let stages: Vec<_> =
        told["hosts"].as_array().into_iter().flatten().map(|host| host["stage"].clone()).collect();
    ensure!(stages[..2] == ["done", "done"] || stages[..2] == ["done", "failed"], "{stages:?}");
    ensure!(stages[2..] == ["skipped", "skipped"], "{stages:?}");
    ensure!(ran(&fleet.commands(2).await?, "dnf -y upgrade") == 0, "a host was begun after the end");
    command(place, 1, &["resume", "web"]).await?.tells(&["is over"])?;
    // Clusters are made and removed.
    command(place, 0, &["create", "db", "--network", "default"]).await?;
    command(place, 0, &["add-host", "db", &fleet.address(3)]).await?;
    let shown = command(place, 0, &["show", "db"]).await?;
    ensure!(shown.out.contains("db: 1 hosts") && shown.out.contains(&fleet.address(3)), "{}", shown.out);
    command(place, 0, &["rm", "db", "--yes"]).await?;
    ensure!(!command(place, 0, &["list"]).await?.out.contains("db"), "it is still there");
    Ok(())
}

#[tokio::test]
async fn nodes_are_cordoned_and_drained_and_the_cordon_of_a_person_stays() -> Outcome {
    let control = Control::over(&["fedora"; 3], json!({})).await?;
    let (place, fleet) = (&control.place, &control.fleet);
    let manager = json!({"name": "box", "type": "trivial"});
    call(place, 0, "storage.save", json!(["ContainerManagerConfig", manager])).await?;
    command(place, 0, &["create", "web", "--container-manager", "box"]).await?;
    let key = fleet.key_file().display().to_string();
    let addresses = control.addresses();
    let mut arguments = vec!["add", "--key", &key, "--facts-only", "--cluster", "web"];
    arguments.extend(addresses.iter().map(String::as_str));
    control.host(0, &arguments).await?;
    for address in &addresses {
        call(place, 0, "container.register_node", json!(["box", address])).await?;
    }
    call(place, 0, "container.cordon", json!(["box", addresses[1], "repair"])).await?;
    command(place, 0, &["restart", "web", "--options", r#"{"gates": {"min_healthy_seconds": 1}}"#]).await?;
    let nodes = call(place, 0, "container.nodes", json!(["box"])).await?;
    for (machine, address) in addresses.iter().enumerate() {
        let node = nodes.as_array().into_iter().flatten().find(|node| node["name"] == address.as_str());
        let node = node.cloned().unwrap_or_default();
        let wanted = if machine == 1 { (true, json!("repair")) } else { (false, Value::Null) };
        ensure!((node["cordoned"] == wanted.0) && node["cordoned_by"] == wanted.1, "{machine}: {node}");
        ensure!(reboots(&fleet.commands(machine).await?) == 1, "{machine} was not rebooted once");
    }
    let events = call(place, 0, "clusterexec.events", json!(["web"])).await?;
    let of_first: Vec<&str> = events["events"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|event| event["address"] == addresses[0].as_str())
        .filter_map(|event| event["state"].as_str())
        .collect();
    ensure!(
        of_first == ["cordoned", "draining", "running", "rebooting", "verifying", "done"],
        "{of_first:?}"
    );
    Ok(())
}
