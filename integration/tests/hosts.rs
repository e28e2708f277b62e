//! Hosts are added, looked over and brought in order, on machines of each kind, with faults.

use std::{collections::HashMap, fs, path::Path, time::Duration};

use commissaire_integration::{Command, Ended, Fleet, Outcome, Place, Process, ensure, until};
use serde_json::{Value, json};

const INSTALLING: [&str; 9] =
    ["fedora", "centos", "rhel", "rhel7", "debian", "ubuntu", "opensuse", "arch", "alpine"];
const IMAGES: [&str; 4] = ["coreos", "atomic", "bootc", "flatcar"];
const PATIENCE: Duration = Duration::from_secs(60);

/// All services with a fleet in reach.
pub(crate) struct Control {
    pub(crate) fleet: Fleet,
    pub(crate) place: Place,
    pub(crate) up: Process,
}

impl Control {
    pub(crate) async fn over(personas: &[&str], config: Value) -> Outcome<Self> {
        let fleet = Fleet::start(personas).await?;
        let place = Place::new()?;
        let up = start_up(&fleet, &place, config, &[]).await?;
        Ok(Self { fleet, place, up })
    }

    /// `commissaire host` with these arguments, that ends with `code`.
    pub(crate) async fn host(&self, code: i32, arguments: &[&str]) -> Outcome<Ended> {
        host(&self.place, code, arguments).await
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        (0..self.fleet.len()).map(|at| self.fleet.address(at)).collect()
    }

    /// Adds machines; with what is known of each then.
    async fn add(&self, code: i32, machines: &[usize], more: &[&str]) -> Outcome<HashMap<String, Value>> {
        let addresses: Vec<String> = machines.iter().map(|at| self.fleet.address(*at)).collect();
        let key = self.fleet.key_file().display().to_string();
        let mut arguments = vec!["add", "--key", &key, "--json"];
        arguments.extend(addresses.iter().map(String::as_str));
        arguments.extend(more);
        known(&self.host(code, &arguments).await?)
    }

    pub(crate) async fn show(&self, machine: usize) -> Outcome<Value> {
        self.host(0, &["show", "--json", &self.fleet.address(machine)]).await?.json()
    }

    /// The commands of a machine that change it.
    async fn changes(&self, machine: usize) -> Outcome<Vec<String>> {
        let all = self.fleet.commands(machine).await?;
        Ok(all.iter().filter(|command| changes(command)).map(|command| command.line.clone()).collect())
    }
}

/// `commissaire up` within the fleet's network.
pub(crate) async fn start_up(fleet: &Fleet, place: &Place, config: Value, more: &[&str]) -> Outcome<Process> {
    let file = place.path().join("up.conf");
    fs::write(&file, config.to_string())?;
    let order = place.cli(&["up", "--data-dir"])?.arg(place.data()).arg("-c").arg(&file).args(more);
    let mut up = fleet.within(order).start()?;
    up.says("ready", |line| line == "ready").await?;
    Ok(up)
}

pub(crate) async fn host(place: &Place, code: i32, arguments: &[&str]) -> Outcome<Ended> {
    let order = place.cli(&["host"])?.args(arguments).env("COMMISSAIRE_BUS_URI", place.socket_uri());
    order.run().await?.expect(code)
}

/// What a command printed of each host, by address.
fn known(ended: &Ended) -> Outcome<HashMap<String, Value>> {
    let mut all = HashMap::new();
    for line in ended.out.lines() {
        let value: Value = serde_json::from_str(line).map_err(std::io::Error::from)?;
        all.insert(value["address"].as_str().unwrap_or_default().to_owned(), value);
    }
    Ok(all)
}

fn changes(command: &Command) -> bool {
    let asks = [
        "rpm -q",
        "is-active",
        "is-enabled",
        "info -e",
        "pacman -Q",
        " status",
        "list-enabled",
        "is-system-running",
        "getenforce",
        "systemctl --failed",
    ];
    !asks.iter().any(|ask| command.line.contains(ask)) && !command.line.starts_with("dpkg-query")
}

/// What each kind of machine is told when it is new.
fn steps(persona: &str) -> Vec<&'static str> {
    let systemd =
        ["systemctl enable docker.service", "systemctl daemon-reload", "systemctl restart docker.service"];
    let install: &[&str] = match persona {
        "fedora" => &["dnf -y install moby-engine"],
        "centos" | "rhel" => &["dnf -y install docker-ce"],
        "rhel7" => {
            &["subscription-manager repos --enable=rhel-7-server-extras-rpms", "yum -y install docker"]
        }
        "debian" | "ubuntu" => &[
            "apt-get -q -o DPkg::Lock::Timeout=300 update",
            "apt-get -qy -o DPkg::Lock::Timeout=300 -o Dpkg::Options::=--force-confold install docker.io",
        ],
        "opensuse" => &["zypper --non-interactive install docker"],
        "arch" => &["pacman -S --noconfirm --needed docker"],
        "alpine" => {
            return vec!["apk add docker", "rc-update add docker default", "rc-service docker restart"];
        }
        _ => &[],
    };
    [install, &systemd].concat()
}

#[tokio::test]
async fn machines_of_each_kind_are_brought_in_order_once() -> Outcome {
    let personas = [&INSTALLING[..], &IMAGES].concat();
    let control = Control::over(&personas, json!({})).await?;
    let machines: Vec<usize> = (0..personas.len()).collect();
    let added = control.add(0, &machines, &["--cluster", "web"]).await?;
    for (machine, persona) in personas.iter().enumerate() {
        let one = &added[&control.fleet.address(machine)];
        ensure!(one["status"] == "disassociated" && one["cluster"] == "web", "{persona}: {one}");
        let facts = &one["state"]["facts"];
        let is = control.fleet.run(machine, "getconf _NPROCESSORS_ONLN; awk '/^MemTotal/ {print int($2/1024)}' /proc/meminfo; cat /etc/machine-id").await?;
        let is: Vec<&str> = is.lines().collect();
        ensure!(
            one["cpus"].as_u64() == is[0].parse().ok() && one["memory"].as_u64() == is[1].parse().ok(),
            "{persona}: {is:?} {one}"
        );
        ensure!(facts["machine_id"] == is[2] && one["space"].as_u64() > Some(1 << 20), "{persona}: {facts}");
        ensure!(facts["boot_id"] == control.fleet.boot_id(machine).await?, "{persona}: {facts}");
        ensure!(one["state"]["host_keys"] == json!([control.fleet.host_key(machine)?]), "{persona}: {one}");
        ensure!(one["state"]["warnings"] == json!([]), "{persona}: {one}");
        let told = control.changes(machine).await?;
        let wanted = steps(persona);
        ensure!(told == wanted, "{persona} was told {told:#?}, not {wanted:#?}");
    }
    // Again, and nothing is changed.
    let arguments = [&["investigate", "--all", "--json"][..]].concat();
    let again = known(&control.host(0, &arguments).await?)?;
    for (machine, persona) in personas.iter().enumerate() {
        let one = &again[&control.fleet.address(machine)];
        ensure!(one["investigation"]["progress"]["changed"] == false, "{persona}: {one}");
        let told = control.changes(machine).await?;
        ensure!(told == steps(persona), "{persona} was told more: {told:#?}");
    }
    // What was there is there after a reboot.
    let before = control.fleet.boot_id(0).await?;
    control.fleet.control("reboot", 0, &[]).await?;
    control.fleet.rebooted(0, &before).await?;
    control.fleet.run(0, "systemctl is-active docker.service").await?;

    // The key is nowhere but in the keeping of storage.
    let key = fs::read_to_string(control.fleet.key_file())?;
    let secret = key.lines().nth(2).unwrap_or_default().to_owned();
    ensure!(secret.len() > 30, "no part of the key is looked for");
    let ended = control.up.terminate().await?.expect(0)?;
    ensure!(!ended.out.contains(&secret) && !ended.err.contains(&secret), "the key is in the log");
    let files = files_with(control.place.path(), &[&secret])?;
    ensure!(files.is_empty(), "the key is in {files:?}");
    Ok(())
}

/// The files below a folder that hold any of these.
fn files_with(folder: &Path, needles: &[&str]) -> Outcome<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_with(&path, needles)?);
        } else if let Ok(bytes) = fs::read(&path)
            && needles
                .iter()
                .any(|needle| bytes.windows(needle.len()).any(|window| window == needle.as_bytes()))
        {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

#[tokio::test]
async fn each_fault_has_its_own_reason_on_the_record() -> Outcome {
    let personas = ["fedora", "fedora", "fedora", "fedora", "fedora", "fedora", "fedora", "debian", "plain"];
    let personas = personas.map(|persona| if persona == "plain" { "fedora" } else { persona });
    let config = json!({"investigator": {"ssh": {"connect_seconds": 3}}});
    let control = Control::over(&personas, config).await?;
    let (fleet, address) = (&control.fleet, |at: usize| control.fleet.address(at));
    // One is known already, and gets another key.
    control.add(0, &[1], &[]).await?;
    fleet.control("rehost-key", 1, &[]).await?;
    fleet.wait_up(1).await?;
    fleet.control("freeze", 2, &[]).await?;
    fleet.control("blackhole", 3, &[]).await?;
    fleet.control("fill", 4, &[]).await?;
    fleet.control("behave", 5, &["dnf", "exit=1 out=no space in the repository"]).await?;
    fleet.control("off", 6, &[]).await?;
    let wrong = control.place.path().join("wrong");
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(&wrong)
        .status()?;
    ensure!(made.success(), "ssh-keygen failed");
    control.host(1, &["add", &address(0), "--key", &wrong.display().to_string()]).await?;
    control.host(1, &["investigate", &address(1)]).await?;
    control.add(1, &[2, 3, 4, 5, 6], &["--user", "root"]).await?;
    control.add(1, &[8], &["--user", "plain"]).await?;
    for (machine, kind, step, told) in [
        (0, "authentication", "connect", "does not take this key"),
        (1, "host_key", "connect", "has changed"),
        (2, "no_banner", "connect", "says nothing"),
        (3, "timed_out", "connect", "did not answer"),
        (4, "command", "install-docker", ""),
        (5, "command", "install-docker", "no space in the repository"),
        (8, "permission", "facts", "cannot become root"),
    ] {
        let shown = control.show(machine).await?;
        let failure = &shown["state"]["failure"];
        ensure!(shown["status"] == "failed", "{machine}: {shown}");
        ensure!(failure["kind"] == kind && failure["step"] == step, "{machine}: {failure}");
        ensure!(failure["text"].as_str().is_some_and(|text| text.contains(told)), "{machine}: {failure}");
    }
    let off = control.show(6).await?;
    let kind = off["state"]["failure"]["kind"].as_str().unwrap_or_default().to_owned();
    ensure!(["unreachable", "timed_out"].contains(&kind.as_str()), "a host that is off is {kind}");
    let failure = control.show(5).await?["state"]["failure"].clone();
    ensure!(failure["exit"] == "exit 1" && failure["command"] == "dnf -y install moby-engine", "{failure}");
    ensure!(failure["tail"].as_str().is_some_and(|tail| tail.contains("dnf: ")), "{failure}");
    // Each is well again when its fault is gone.
    for (what, machine) in [("thaw", 2), ("unblackhole", 3), ("free", 4), ("on", 6)] {
        fleet.control(what, machine, &[]).await?;
    }
    fleet.control("behave", 5, &["dnf"]).await?;
    fleet.wait_up(6).await?;
    control.host(0, &["trust", &address(1)]).await?;
    control.add(0, &[0], &[]).await?;
    let well: Vec<String> = (1..=6).map(address).collect();
    control
        .host(0, &[&["investigate"][..], &well.iter().map(String::as_str).collect::<Vec<_>>()].concat())
        .await?;
    for machine in 0..=6 {
        let shown = control.show(machine).await?;
        ensure!(
            shown["status"] == "disassociated" && shown["state"]["failure"] == json!({}),
            "{machine}: {shown}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn users_become_root_by_sudo_with_and_without_a_password() -> Outcome {
    let fleet = Fleet::start(&["debian", "fedora"]).await?;
    let place = Place::new()?;
    let password = place.path().join("sudo");
    fs::write(&password, Fleet::PASSWORD)?;
    fs::set_permissions(&password, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let config = json!({"investigator": {"ssh": {"sudo_password_path": password}}});
    let up = start_up(&fleet, &place, config, &[]).await?;
    let control = Control { fleet, place, up };
    control.add(0, &[0], &["--user", "fleet"]).await?;
    let added = control.add(0, &[1], &["--user", "guarded"]).await?;
    ensure!(added[&control.fleet.address(1)]["status"] == "disassociated", "{added:?}");
    // As root, all of it.
    for machine in [0, 1] {
        let told = control.fleet.commands(machine).await?;
        ensure!(told.iter().filter(|command| changes(command)).all(|command| command.uid == 0), "{told:?}");
    }
    let ended = control.up.terminate().await?.expect(0)?;
    ensure!(!ended.err.contains(Fleet::PASSWORD), "the password is in the log");
    Ok(())
}

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
    first.kill().await?;
    let mut second = service()?;
    second.logs("ready", |line| line.contains("ready")).await?;
    until("another goes on with it", PATIENCE, async || {
        let shown = host(&place, 0, &["show", "--json", &address]).await.and_then(|ended| ended.json());
        shown.is_ok_and(|shown| shown["status"] == "disassociated")
    })
    .await?;
    let shown = host(&place, 0, &["show", "--json", &address]).await?.json()?;
    ensure!(shown["investigation"]["progress"]["attempts"] == 2, "{shown}");
    let told: Vec<String> = fleet.commands(0).await?.iter().map(|command| command.line.clone()).collect();
    let enabled = told.iter().filter(|line| line.contains("--enable=")).count();
    let asked = told.iter().filter(|line| line.contains("--list-enabled")).count();
    ensure!((enabled, asked) == (1, 1), "a finished step was run again: {told:#?}");
    second.terminate().await?.expect(0)?;
    up.terminate().await?.expect(0).map(drop)
}
