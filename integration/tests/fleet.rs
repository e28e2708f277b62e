//! The machines that other tests log in to are what they say.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use commissaire_integration::{Ended, Failure, Fleet, Outcome, PATIENCE, Signal, beside, ensure, until};
use futures_util::future::try_join_all;

const INSTALLING: [&str; 9] =
    ["fedora", "centos", "rhel", "rhel7", "debian", "ubuntu", "opensuse", "arch", "alpine"];
const IMAGES: [&str; 5] = ["coreos", "atomic", "bootc", "flatcar", "microos"];

async fn ssh(fleet: &Fleet, user: &str, machine: usize, command: &str) -> Outcome<Ended> {
    fleet.ssh(user, machine, command)?.run().await
}

/// What a command prints that ends well.
async fn said(fleet: &Fleet, user: &str, machine: usize, command: &str) -> Outcome<String> {
    Ok(ssh(fleet, user, machine, command).await?.expect(0)?.out.trim().to_owned())
}

/// How a command ends that root runs on a machine, and what it says.
async fn ends(fleet: &Fleet, machine: usize, command: &str) -> Outcome<(i32, String)> {
    let said = fleet.run(machine, &format!("( {command} ) 2>&1; echo $?")).await?;
    let (said, code) = said.trim_end().rsplit_once('\n').unwrap_or(("", said.trim_end()));
    let code = code.parse().map_err(|_| Failure::new(format!("{command}: {said}{code}")))?;
    Ok((code, said.to_owned()))
}

#[tokio::test]
async fn machines_of_all_personas_let_all_users_in() -> Outcome {
    let personas = [&INSTALLING[..], &IMAGES].concat();
    let fleet = Fleet::start(&personas).await?;
    ensure!(fleet.len() == personas.len(), "{} machines", fleet.len());
    let mut seen = [const { BTreeSet::<String>::new() }; 3];
    for (machine, persona) in personas.iter().enumerate() {
        let facts = ". /etc/os-release; echo $ID $VARIANT_ID; id -un; hostname; cut -d. -f1 /proc/uptime
            cat /proc/sys/kernel/random/boot_id /etc/machine-id";
        let facts = said(&fleet, "fleet", machine, facts).await?;
        let facts: Vec<&str> = facts.lines().map(str::trim).collect();
        let [release, user, host, uptime, boot, id_of_machine] = facts[..] else {
            return Err(Failure::new(format!("{facts:?}")));
        };
        let id = release.split(' ').next().unwrap_or_default();
        let is = match *persona {
            "rhel7" => id == "rhel",
            "coreos" => release == "fedora coreos",
            "atomic" => release == "rhel atomic.host",
            "bootc" => release == "centos bootc",
            persona => {
                id == persona || id.strip_prefix("opensuse-").is_some_and(|of| "leap microos".contains(of))
            }
        };
        ensure!(is, "{persona} says that it is {release}");
        ensure!(boot == fleet.boot_id(machine).await?, "{facts:?}");
        ensure!(user == "fleet" && host == format!("h{machine}") && uptime.len() < 3, "{facts:?}");
        let key = fleet.host_key(machine)?;
        for (seen, new) in seen.iter_mut().zip([boot, id_of_machine, &key]) {
            ensure!(seen.insert(new.to_owned()), "{persona}: {new} is another machine's");
        }
    }
    // Of the machine below nothing is seen that would be taken for theirs.
    let below = "command -v python3; ls ~root ~fleet /opt /var/log; test -e /dev/vda && echo disk; true";
    let below = said(&fleet, "root", 0, below).await?;
    ensure!(
        !below.contains("python") && !below.contains("disk") && below.contains("fleet-cmd.log"),
        "{below}"
    );
    Ok(())
}

#[tokio::test]
async fn sudo_gives_each_user_the_rights_that_he_has() -> Outcome {
    let fleet = Fleet::start(&["fedora"]).await?;
    for user in ["root", "fleet", "guarded", "plain"] {
        ensure!(said(&fleet, user, 0, "id -un").await? == user, "{user} is somebody else");
    }
    let with_password = format!("echo {} | sudo -S -p '' id -u", Fleet::PASSWORD);
    ensure!(said(&fleet, "fleet", 0, "sudo -n id -u").await? == "0", "fleet has no rights");
    let refused = ssh(&fleet, "guarded", 0, "sudo -n id -u").await?.expect(1)?;
    refused.tells(&["a password is required"])?;
    ensure!(said(&fleet, "guarded", 0, &with_password).await? == "0", "the password is not taken");
    let wrong = ssh(&fleet, "guarded", 0, "echo wrong | sudo -S -p '' id -u").await?.expect(1)?;
    wrong.tells(&["try again"])?;
    let refused = ssh(&fleet, "plain", 0, &with_password).await?.expect(1)?;
    refused.tells(&["not in the sudoers file"])?;
    let refused = ssh(&fleet, "plain", 0, "dnf -y install podman").await?.expect(1)?;
    refused.tells(&["superuser"])?;
    Ok(())
}

#[tokio::test]
async fn a_machine_that_starts_again_is_in_another_boot_and_keeps_its_disk() -> Outcome {
    let fleet = Fleet::start(&["fedora", "coreos"]).await?;
    fleet.control("delay", 0, &["0.2"]).await?;
    let mut boots = vec![fleet.boot_id(0).await?];
    said(&fleet, "fleet", 0, "sudo dnf -y install docker && sudo systemctl enable docker").await?;
    // Whoever asks for it, at once or by and by; from within and from without.
    for how in ["systemctl reboot", "systemd-run --on-active=1 systemctl reboot", "reboot", "crash", "off"] {
        let before = boots.last().cloned().unwrap_or_default();
        match how {
            "reboot" | "crash" => fleet.control(how, 0, &[]).await?,
            "off" => {
                fleet.control("off", 0, &[]).await?;
                tokio::time::sleep(Duration::from_millis(1500)).await;
                ensure!(fleet.boot_id(0).await? == before, "it does not stay off");
                fleet.control("on", 0, &[]).await?;
            }
            command => {
                said(&fleet, "fleet", 0, &format!("sudo {command}")).await?;
            }
        }
        let now = fleet.rebooted(0, &before).await?;
        ensure!(!boots.contains(&now), "{how}: {now} was before");
        let facts =
            "cat /proc/sys/kernel/random/boot_id; rpm -q docker; systemctl is-active docker; uptime -s";
        let facts = said(&fleet, "root", 0, facts).await?;
        ensure!(facts.starts_with(&format!("{now}\ndocker-1.0-1.x86_64\nactive\n")), "{how}: {facts}");
        boots.push(now);
    }
    let commands = fleet.commands(0).await?;
    let reboot = commands.iter().find(|command| command.line == "systemctl reboot");
    ensure!(reboot.is_some_and(|command| command.boot_id == boots[0] && command.uid == 0), "{commands:?}");

    // What is staged is what comes next, and can be gone back from.
    let version = ". /etc/os-release; echo $OSTREE_VERSION; rpm-ostree status --json";
    for (change, booted) in [("upgrade", "41.1"), ("deploy 39.5", "39.5"), ("rollback", "41.1")] {
        let staged = fleet.run(1, &format!("rpm-ostree {change} && {version}")).await?;
        ensure!(staged.contains("\"staged\":true"), "{change}: {staged}");
        let before = fleet.boot_id(1).await?;
        fleet.run(1, "systemctl reboot").await?;
        fleet.rebooted(1, &before).await?;
        let now = fleet.run(1, version).await?;
        ensure!(now.starts_with(booted) && !now.contains("\"staged\":true"), "{change}: {now}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_installed_is_known_and_nothing_is_installed_twice() -> Outcome {
    let fleet = Fleet::start(&INSTALLING).await?;
    for (machine, persona) in INSTALLING.iter().enumerate() {
        let (install, query, docker) = match *persona {
            "fedora" => ("dnf -y install", "rpm -q", "moby-engine"),
            "centos" | "rhel" => ("dnf install -y", "rpm -q", "docker-ce"),
            "rhel7" => ("yum -y install", "rpm -q", "docker"),
            "debian" => ("apt-get -qy -o DPkg::Lock::Timeout=300 install", "dpkg-query -W", "docker.io"),
            "ubuntu" => ("apt-get install --yes", "dpkg -s", "docker.io"),
            "opensuse" => ("zypper --non-interactive install", "rpm -q", "docker"),
            "arch" => ("pacman -S --noconfirm --needed", "pacman -Q", "docker"),
            _ => ("apk add", "apk info -e", "docker"),
        };
        let service = if *persona == "alpine" { "rc-service docker start" } else { "systemctl start docker" };
        let there = format!("{query} {docker} && command -v dockerd && {service}");
        ensure!(ends(&fleet, machine, &there).await?.0 != 0, "{persona} has it from the beginning");
        let started = ends(&fleet, machine, service).await?;
        ensure!(started.0 == if *persona == "alpine" { 1 } else { 5 }, "{persona}: {started:?}");
        let install = |packages: &str| format!("{install} {packages}");
        if *persona == "rhel7" {
            let missing = ends(&fleet, machine, &install(docker)).await?;
            ensure!(missing.0 == 1, "{missing:?}");
            fleet.run(machine, "subscription-manager repos --enable=rhel-7-server-extras-rpms").await?;
        }
        let unknown = ends(&fleet, machine, &install("no-such-thing")).await?;
        ensure!(unknown.0 != 0, "{persona}: {unknown:?}");
        let both = install(&format!("{docker} podman"));
        let first = ends(&fleet, machine, &both).await?;
        ensure!(first.0 == 0 && first.1.contains(docker), "{persona}: {first:?}");
        let again = ends(&fleet, machine, &both).await?;
        let nothing = ["Nothing to do", "nothing to do", "0 newly installed", "OK: 10 MiB"];
        let is_told = nothing.iter().any(|words| again.1.contains(words));
        ensure!(again.0 == 0 && is_told, "{persona}: {again:?}");
        let there = ends(&fleet, machine, &there).await?;
        ensure!(there.0 == 0, "{persona}: {there:?}");
        let queries = fleet.commands(machine).await?;
        ensure!(queries.iter().any(|command| command.line == format!("{query} {docker}")), "{queries:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_upgrade_changes_something_once_and_wants_a_reboot() -> Outcome {
    let personas = ["fedora", "rhel7", "debian", "opensuse", "arch", "alpine", "flatcar", "microos", "bootc"];
    let fleet = Fleet::start(&personas).await?;
    for (machine, persona) in personas.iter().enumerate() {
        let (upgrade, needed) = match *persona {
            "fedora" => ("dnf -y upgrade --refresh", "! dnf needs-restarting -r"),
            "rhel7" => ("yum -y update", "! needs-restarting -r"),
            "debian" => ("apt-get update && apt-get -qy dist-upgrade", "[ -e /var/run/reboot-required ]"),
            "opensuse" => ("zypper -n patch; [ $? = 102 ]", "zypper needs-rebooting; [ $? = 102 ]"),
            "arch" => ("pacman -Syu --noconfirm", "[ ! -d /usr/lib/modules/$(uname -r) ]"),
            "alpine" => ("apk upgrade --update-cache", "[ ! -d /lib/modules/$(uname -r) ]"),
            "flatcar" => {
                ("update_engine_client -update", "update_engine_client -status | grep -q NEED_REBOOT")
            }
            "microos" => ("transactional-update -n up", "[ -e /run/reboot-needed ]"),
            _ => ("bootc upgrade", "bootc status --json | grep -q '\"staged\":{'"),
        };
        let before = fleet.boot_id(machine).await?;
        for (command, well) in [(needed, false), (upgrade, true), (needed, true)] {
            let ended = ends(&fleet, machine, command).await?;
            ensure!((ended.0 == 0) == well, "{persona}: {command}: {ended:?}");
        }
        fleet.control("delay", machine, &["0"]).await?;
        fleet.control("reboot", machine, &[]).await?;
        fleet.rebooted(machine, &before).await?;
        ensure!(ends(&fleet, machine, needed).await?.0 != 0, "{persona} has been upgraded");
        ends(&fleet, machine, upgrade).await?;
        ensure!(ends(&fleet, machine, needed).await?.0 != 0, "{persona} upgrades twice");
    }
    Ok(())
}

/// What comes of a new connection, within seconds.
async fn new_connection(fleet: &Fleet, machine: usize) -> Outcome<String> {
    let ended = ssh(fleet, "root", machine, "true").await?;
    Ok(if ended.code == Some(0) { "lets in".to_owned() } else { ended.err })
}

/// A way of being out of reach: how it begins and ends, how a client puts it, and whether a session that was open goes on.
type Way = (&'static str, &'static str, &'static str, bool);

const WAYS: [Way; 4] = [
    ("partition", "heal", "timed out|No route to host", true),
    ("blackhole", "unblackhole", "timed out", true),
    ("freeze", "thaw", "timed out", true),
    ("off", "on", "timed out|No route to host", false),
];

async fn is_out_of_reach(fleet: &Fleet, machine: usize, (bad, good, words, keeps): Way) -> Outcome {
    let mut open = fleet.ssh("root", machine, "while sleep 0.1; do echo beat; done")?.start()?;
    open.says("a beat", |line| line == "beat").await?;
    let before = fleet.boot_id(machine).await?;
    fleet.control(bad, machine, &[]).await?;
    let met = new_connection(fleet, machine).await?;
    let beats = open.out().len();
    tokio::time::sleep(Duration::from_millis(300)).await;
    ensure!(words.split('|').any(|words| met.contains(words)), "{bad}: {met}");
    ensure!(open.out().len() == beats && !open.has_ended(), "{bad}: a session hears of it");
    fleet.control(good, machine, &[]).await?;
    if keeps {
        until("the session goes on", PATIENCE, async || open.out().len() > beats).await?;
    } else {
        fleet.rebooted(machine, &before).await?;
    }
    until(format_args!("{good} gives it back"), PATIENCE, async || {
        matches!(new_connection(fleet, machine).await.as_deref(), Ok("lets in"))
    })
    .await?;
    open.kill().await.map(drop)
}

#[tokio::test]
async fn a_machine_is_out_of_reach_in_the_way_that_was_asked_for() -> Outcome {
    let _machine = beside().await;
    let fleet = Fleet::start(&["debian"; WAYS.len() + 1]).await?;
    let others = async {
        for _ in 0..20 {
            let other = new_connection(&fleet, WAYS.len()).await?;
            ensure!(other == "lets in", "a machine that was left alone: {other}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    };
    let hit = WAYS.into_iter().enumerate().map(|(machine, way)| is_out_of_reach(&fleet, machine, way));
    tokio::try_join!(try_join_all(hit), others).map(drop)
}

#[tokio::test]
async fn a_machine_behaves_as_it_was_told_to() -> Outcome {
    let _machine = beside().await;
    let fleet = Fleet::start(&["fedora"]).await?;
    fleet.control("behave", 0, &["dnf", "exit=7 sleep=1 times=1 out=it's broken"]).await?;
    let started = Instant::now();
    let failed = ssh(&fleet, "root", 0, "dnf -y install podman").await?.expect(7)?;
    ensure!(failed.err.contains("it's broken") && started.elapsed() >= Duration::from_secs(1), "{failed:?}");
    said(&fleet, "root", 0, "dnf -y install podman docker").await?;
    fleet.control("behave", 0, &["systemctl is-system-running", "exit=1 out=degraded"]).await?;
    ssh(&fleet, "root", 0, "systemctl is-system-running").await?.expect(1)?;
    said(&fleet, "root", 0, "systemctl start docker && systemctl is-active docker").await?;
    fleet.control("behave", 0, &["systemctl is-system-running"]).await?;
    ensure!(said(&fleet, "root", 0, "systemctl is-system-running").await? == "running", "it does not run");
    fleet.control("behave", 0, &["dockerd", "exit=1"]).await?;
    ssh(&fleet, "root", 0, "systemctl restart docker").await?.expect(1)?;
    ssh(&fleet, "root", 0, "systemctl is-active --quiet docker").await?.expect(3)?;

    fleet.control("behave", 0, &["date", "offset=3600"]).await?;
    let ahead = fleet.run(0, "date +%s").await?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    ensure!(ahead.trim().parse::<u64>().unwrap().abs_diff(now + 3600) < 60, "{ahead} and {now}");
    fleet.control("machine-id", 0, &["00000000000000000000000000000001"]).await?;
    ensure!(said(&fleet, "root", 0, "cat /etc/machine-id").await?.ends_with("0001"), "not its id");

    fleet.control("fill", 0, &[]).await?;
    let full = ssh(&fleet, "root", 0, "yes | head -c 8192 >/etc/big").await?;
    ensure!(full.code != Some(0) && full.err.contains("No space left"), "{full:?}");
    let used = said(&fleet, "root", 0, "df -P / | awk 'NR == 2 { print $5 }'").await?;
    ensure!(used == "100%", "{used} are used");
    fleet.control("free", 0, &[]).await?;
    said(&fleet, "root", 0, "yes | head -c 8192 >/etc/big").await?;

    let (key, boot) = (fleet.host_key(0)?, fleet.boot_id(0).await?);
    let trusting = fleet.ssh("root", 0, "true")?;
    fleet.control("rehost-key", 0, &[]).await?;
    fleet.rebooted(0, &boot).await?;
    ensure!(fleet.host_key(0)? != key, "it is the same key");
    trusting.run().await?.expect(255)?.tells(&["verification failed"])?;
    ensure!(new_connection(&fleet, 0).await? == "lets in", "the new key is not its key");
    Ok(())
}

#[tokio::test]
async fn two_fleets_at_once_do_not_disturb_each_other() -> Outcome {
    let (one, other) = (Fleet::start(&["fedora"]).await?, Fleet::start(&["debian"]).await?);
    ensure!(one.address(0) == other.address(0), "they need not be told apart by their addresses");
    one.control("partition", 0, &[]).await?;
    ensure!(new_connection(&other, 0).await? == "lets in", "the other is partitioned");
    one.control("heal", 0, &[]).await?;
    said(&one, "root", 0, "echo one >/etc/mark").await?;
    ssh(&other, "root", 0, "cat /etc/mark").await?.expect(1)?;
    drop(one);
    ensure!(
        said(&other, "root", 0, "apt-get -qy install podman && id -u").await?.ends_with('0'),
        "the other is gone"
    );
    Ok(())
}

#[tokio::test]
async fn a_fleet_that_cannot_be_says_why() -> Outcome {
    let Err(failure) = Fleet::start(&["debian", "windows"]).await else {
        return Err(Failure::new("there is a persona windows"));
    };
    ensure!(failure.to_string().contains("there is no persona windows"), "{failure}");
    Ok(())
}

/// The network namespace of each process, and what the kernel says of it.
fn namespaces() -> Outcome<Vec<(String, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?.path();
        let (Ok(net), Ok(stat)) =
            (fs::read_link(entry.join("ns/net")), fs::read_to_string(entry.join("stat")))
        else {
            continue;
        };
        found.push((net.display().to_string(), stat));
    }
    Ok(found)
}

#[tokio::test]
async fn nothing_of_a_fleet_is_left_however_it_ends() -> Outcome {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    for how in ["dropped", "killed"] {
        let fleet = Fleet::start(&["fedora", "arch"]).await?;
        // In the network of the fleet, and the process that was started: nothing stands between.
        let mut open = fleet.ssh("root", 0, "echo on; sleep 600")?.start()?;
        open.says("on", |line| line == "on").await?;
        let process = format!("/proc/{}", open.pid());
        let program = fs::read_link(format!("{process}/exe"))?;
        ensure!(program.ends_with("ssh"), "{}", program.display());
        let net = fs::read_link(format!("{process}/ns/net"))?.display().to_string();
        ensure!(fs::read_link("/proc/self/ns/net")?.display().to_string() != net, "it is in no fleet");
        let holder = namespaces()?.into_iter().find(|(of, stat)| *of == net && stat.contains("(unshare)"));
        let holder: i32 = holder.and_then(|(_, stat)| stat.split(' ').next()?.parse().ok()).unwrap();
        let mut machines: BTreeSet<String> = BTreeSet::new();
        for (of, stat) in namespaces()? {
            if stat.contains("(sshd)") {
                machines.insert(of);
            }
        }
        ensure!(machines.len() >= 2, "{machines:?}");
        let left = || -> Outcome<usize> {
            let of_fleet = |(of, _): &(String, String)| *of == net;
            Ok(namespaces()?.iter().filter(|found| of_fleet(found)).count())
        };
        if how == "dropped" {
            open.signal(Signal::TERM)?;
            open.ended().await?;
            drop(fleet);
            ensure!(left()? == 0, "a dropped fleet leaves processes");
        } else {
            let pid = rustix::process::Pid::from_raw(holder).unwrap();
            rustix::process::kill_process(pid, Signal::KILL).map_err(std::io::Error::from)?;
            open.kill().await?;
            until("all of a killed fleet is gone", PATIENCE, async || matches!(left(), Ok(0 | 1))).await?;
            drop(fleet);
            until("its holder is gone", PATIENCE, async || matches!(left(), Ok(0))).await?;
        }
    }
    ensure!(fs::read_to_string("/proc/self/mounts")? == mounts, "a mount is left");
    Ok(())
}
