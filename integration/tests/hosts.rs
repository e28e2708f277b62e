//! Hosts are added and looked over, on machines of each kind, with faults.

use std::{collections::HashMap, fs, path::Path};

use base64ct::{Base64, Encoding as _};
use commissaire_integration::{Command, Ended, Fleet, Outcome, Place, Process, Signal, ensure};
use serde_json::{Value, json};

const INSTALLING: [&str; 9] =
    ["fedora", "centos", "rhel", "rhel7", "debian", "ubuntu", "opensuse", "arch", "alpine"];
const IMAGES: [&str; 4] = ["coreos", "atomic", "bootc", "flatcar"];

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

    /// Has the configuration say something else, and be read again.
    pub(crate) fn reconfigure(&self, config: &Value) -> Outcome {
        fs::write(self.place.path().join("up.conf"), config.to_string())?;
        self.up.signal(Signal::HUP)
    }

    /// Adds machines; with what is known of each then.
    pub(crate) async fn add(
        &self,
        code: i32,
        machines: &[usize],
        more: &[&str],
    ) -> Outcome<HashMap<String, Value>> {
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
    pub(crate) async fn changes(&self, machine: usize) -> Outcome<Vec<String>> {
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
    // As the record has it: its file, in base64.
    let encoded = Base64::encode_string(key.as_bytes());
    let encoded = encoded.get(80..160).unwrap_or_default().to_owned();
    ensure!(secret.len() > 30 && encoded.len() == 80, "no part of the key is looked for");
    let ended = control.up.terminate().await?.expect(0)?;
    let needles = [secret.as_str(), encoded.as_str()];
    ensure!(
        !needles.iter().any(|part| ended.out.contains(part) || ended.err.contains(part)),
        "the key is in the log"
    );
    let files = files_with(control.place.path(), &needles)?;
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
    let config = json!({"investigator": {"ssh": {"connect_seconds": 3}}});
    let control = Control::over(&["fedora"; 8], config).await?;
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
    control.add(1, &[7], &["--user", "plain"]).await?;
    for (machine, kind, step, told) in [
        (0, "authentication", "connect", "does not take this key"),
        (1, "host_key", "connect", "has changed"),
        (2, "no_banner", "connect", "says nothing"),
        (3, "timed_out", "connect", "did not answer"),
        (4, "command", "install-docker", ""),
        (5, "command", "install-docker", "no space in the repository"),
        (7, "permission", "facts", "cannot become root"),
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
async fn copies_of_one_machine_are_told_on_both() -> Outcome {
    let control = Control::over(&["fedora"; 3], json!({})).await?;
    let id = control.fleet.run(0, "cat /etc/machine-id").await?.trim().to_owned();
    control.fleet.control("machine-id", 2, &[&id]).await?;
    control.fleet.wait_up(2).await?;
    let twins = async |machine: usize| -> Outcome<Vec<String>> {
        let shown = control.show(machine).await?;
        let warnings = shown["state"]["warnings"].as_array().into_iter().flatten();
        let told = warnings.filter_map(Value::as_str).filter(|warning| warning.contains("machine-id"));
        Ok(told.map(str::to_owned).collect())
    };
    control.add(0, &[0, 1, 2], &["--facts-only"]).await?;
    for (machine, other) in [(0, 2), (2, 0)] {
        let told = twins(machine).await?;
        let names =
            |warning: &String| warning.contains(&format!("that of {}:", control.fleet.address(other)));
        ensure!(told.len() == 1 && told.iter().all(names), "{machine}: {told:?}");
    }
    ensure!(twins(1).await?.is_empty(), "{:?}", twins(1).await?);
    // When it is over it is said no longer.
    control.fleet.control("machine-id", 2, &["0123456789abcdef0123456789abcdef"]).await?;
    control.fleet.wait_up(2).await?;
    for machine in [2, 0] {
        control.host(0, &["investigate", "--facts-only", &control.fleet.address(machine)]).await?;
        ensure!(twins(machine).await?.is_empty(), "{machine}: {:?}", twins(machine).await?);
    }
    Ok(())
}
