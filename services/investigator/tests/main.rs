//! Tests of the investigator, without hosts: those are in `integration`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use commissaire_investigator::facts::Facts;
use commissaire_ssh::os::{Booted, OsTable};

const SAID: &str = "Welcome to this machine!
commissaire facts 1
== clock
1700000000.500000000
== os
NAME=\"Fedora Linux\"
ID=fedora
VERSION_ID=42
VARIANT_ID=coreos
PRETTY_NAME=\"Fedora CoreOS 42\"
== booted
ostree
== kernel
6.18.0
== arch
x86_64
== cpus
8
== memory
MemTotal:       16310520 kB
== space
/dev/sda4          40000000 30000000  10000000      75% /sysroot
/dev/sdb1         100000000 95000000   5000000      95% /var/lib/big
== inodes
/dev/sda4           1000000   100000    900000      10% /sysroot
== machine-id
0123456789abcdef0123456789abcdef
== boot-id
11111111-2222-3333-4444-555555555555
== virtualization
== selinux
Enforcing
== runtimes
docker
podman
== end
";

#[test]
fn what_a_host_says_is_understood() {
    let facts = Facts::read(SAID, 1_700_000_000.0, 1_700_000_001.0).unwrap();
    assert_eq!((facts.os.as_str(), facts.os_name.as_str(), facts.cpus), ("fedora", "Fedora CoreOS 42", 8));
    assert_eq!((facts.memory, facts.space), (15928, 140_000_000 * 1024));
    assert_eq!((facts.fullest, facts.inodes, facts.clock_ahead), (95, 10, 0.0));
    assert_eq!((facts.virtualization.as_str(), facts.runtimes.len()), ("", 2));
    assert_eq!(facts.release().booted, Some(Booted::Ostree));
    let table = OsTable::read(None).unwrap();
    assert_eq!(table.find(&facts.release()).unwrap().name, "rpm-ostree");
    assert_eq!(facts.warnings(), ["a file system is 95 % full"]);
}

#[test]
fn a_clock_that_is_off_is_told_with_its_way() {
    for (began, ended, told) in [
        (1_700_000_010.0, 1_700_000_011.0, Some("its clock is 8 s behind")),
        (1_699_999_900.0, 1_699_999_990.0, Some("its clock is 10 s ahead")),
        (1_700_000_003.0, 1_700_000_004.0, None),
        (1_699_999_990.0, 1_700_000_090.0, None),
    ] {
        let mut warnings = Facts::read(SAID, began, ended).unwrap().warnings();
        warnings.retain(|warning| warning.contains("clock"));
        assert_eq!(warnings.first().map(String::as_str), told, "{began} {ended}");
    }
}

#[test]
fn what_is_cut_short_or_nonsense_is_no_host() {
    for text in ["", "commissaire facts 1\n== end\n", &SAID[..400], &SAID.replace("== end", "")] {
        assert_eq!(Facts::read(text, 0.0, 0.0), None, "{text}");
    }
    assert!(
        Facts::read(&SAID.replace(".500000000", ".%N"), 0.0, 2e9).is_some(),
        "a clock without parts of seconds"
    );
    assert!(Facts::read(&SAID.replace("MemTotal:", "Mem"), 0.0, 0.0).is_some());
    assert_eq!(Facts::read(&SAID.replace("16310520", "much"), 0.0, 0.0), None);
}
