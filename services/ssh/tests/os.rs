//! Each host is told what its kind is told.

use std::fs;

use commissaire_ssh::os::{Booted, OsRelease, OsTable};

fn kind(table: &OsTable, text: &str, booted: Option<Booted>) -> String {
    let release = OsRelease { booted, ..OsRelease::read(text) };
    table.find(&release).map_or_else(|| "none".to_owned(), |os| os.name.clone())
}

#[test]
fn a_host_is_known_by_what_it_says_of_itself() {
    let table = OsTable::read(None).unwrap();
    for (text, booted, name) in [
        ("ID=fedora\nVERSION_ID=42", None, "fedora"),
        ("ID=fedora\nVERSION_ID=42\nVARIANT_ID=coreos", Some(Booted::Ostree), "rpm-ostree"),
        ("ID=\"rhel\"\nVERSION_ID=\"9.4\"\nID_LIKE=\"fedora\"", None, "enterprise"),
        ("ID=\"rhel\"\nVERSION_ID=\"7.9\"\nID_LIKE=\"fedora\"", None, "enterprise-7"),
        ("ID=\"rhel\"\nVERSION_ID=\"7.9\"", Some(Booted::Ostree), "rpm-ostree"),
        ("ID=\"centos\"\nVERSION_ID=\"10\"\nID_LIKE=\"rhel fedora\"", Some(Booted::Bootc), "bootc"),
        ("ID=\"rocky\"\nVERSION_ID=\"9.1\"", None, "enterprise"),
        ("ID=amzn\nVERSION_ID=2\nID_LIKE=\"centos rhel fedora\"", None, "enterprise-7"),
        ("ID=amzn\nVERSION_ID=2023\nID_LIKE=fedora", None, "amazon"),
        ("ID=debian\nVERSION_ID=12", None, "debian"),
        ("ID=ubuntu\nID_LIKE=debian", None, "debian"),
        ("ID=pop\nID_LIKE='ubuntu debian'", None, "debian"),
        ("ID=nobara\nID_LIKE=fedora", None, "none"),
        ("ID=eurolinux\nID_LIKE=\"rhel fedora centos\"\nVERSION_ID=9.2", None, "enterprise"),
        ("ID=flatcar\nID_LIKE=coreos", None, "flatcar"),
        ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"", None, "suse"),
        ("ID=opensuse-microos\nID_LIKE=\"suse opensuse\"", None, "transactional-update"),
        ("ID=sles\nID_LIKE=suse", None, "suse"),
        ("ID=arch", None, "arch"),
        ("ID=alpine", None, "alpine"),
        ("ID=plan9", None, "none"),
        ("", None, "none"),
    ] {
        assert_eq!(kind(&table, text, booted), name, "{text}");
    }
}

#[test]
fn a_file_of_ones_own_goes_over_rows_and_before_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("os.toml");
    fs::write(
        &file,
        "[[os]]\nname = \"debian\"\nupgrade = \"my-upgrade\"\n\
         [[os]]\nname = \"nobara\"\nmatch = [{ ids = [\"nobara\"] }]\ninstall = \"dnf -y install $PACKAGES\"\n",
    )
    .unwrap();
    let table = OsTable::read(Some(&file)).unwrap();
    let debian = table.all().iter().find(|os| os.name == "debian").unwrap();
    assert_eq!(debian.upgrade.as_deref(), Some("my-upgrade"));
    assert!(debian.install.as_ref().unwrap().contains("apt-get"));
    assert_eq!(kind(&table, "ID=nobara\nID_LIKE=fedora", None), "nobara");
    assert_eq!(table.all()[0].reboot, "systemctl reboot");
    for (text, told) in [
        ("[[os]]\nmatch = []", "has no name"),
        ("[[os]]\nname = \"x\"", "missing field `match`"),
        ("[[os]]\nname = \"debian\"\nupgrad = \"x\"", "unknown field `upgrad`"),
        ("[[os]]\nname = \"debian\"\nmatch = [{ id = [] }]", "unknown field `id`"),
        ("[os]\nname = \"x\"", "is a list"),
        ("[other]\n", "\"other\" is not known"),
        ("name =", "line 1"),
    ] {
        fs::write(&file, text).unwrap();
        let error = OsTable::read(Some(&file)).unwrap_err().to_string();
        assert!(error.contains("os.toml") && error.contains(told), "{text}: {error}");
    }
}

#[test]
fn every_script_of_the_table_is_one() {
    for os in OsTable::read(None).unwrap().all() {
        let scripts = [&os.upgrade, &os.deploy, &os.rollback, &os.needs_reboot, &os.repositories];
        let more = [&os.enable_repositories, &os.install, &os.installed];
        let always = [&os.reboot, &os.enabled, &os.enable, &os.active, &os.restart, &os.reload];
        let all = scripts.into_iter().chain(more).flatten().chain(always);
        for script in all {
            let checked = std::process::Command::new("sh").args(["-n", "-c", script]).output().unwrap();
            assert!(checked.status.success(), "{}: {script}: {checked:?}", os.name);
        }
        assert_eq!(os.install.is_some(), os.installed.is_some(), "{}", os.name);
    }
}
