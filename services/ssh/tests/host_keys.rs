//! Whether it is the host that is meant.

use std::fs;

use commissaire_ssh::{FailureKind, HostKeys, Script, Ssh, SshOptions, Target};

use crate::sshd::{Sshd, keygen, quick, run};

fn public(sshd: &Sshd, name: &str) -> String {
    let line = fs::read_to_string(sshd.path(&format!("{name}.pub"))).unwrap();
    line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn the_first_key_is_pinned_and_another_is_refused() {
    let mut sshd = Sshd::start().await;
    let ssh = Ssh::new(&quick()).unwrap();
    let session = ssh.connect(&sshd.target()).await.unwrap();
    let pinned = session.new_host_key().unwrap().to_owned();
    assert_eq!(pinned, public(&sshd, "host"));
    let pinned = || Target { pinned: vec![pinned.clone()], ..sshd.target() };
    let known = pinned();
    assert_eq!(ssh.connect(&known).await.unwrap().new_host_key(), None);
    fs::remove_file(sshd.path("host")).unwrap();
    keygen(&sshd.path("host"), "ed25519");
    sshd.restart().await;
    let refused = ssh.connect(&known).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::HostKey);
    assert!(refused.text.contains("has changed") && refused.text.contains("SHA256:"), "{refused}");
}

#[tokio::test]
async fn a_host_that_gets_a_key_of_another_kind_as_well_is_the_same() {
    let mut sshd = Sshd::start().await;
    for kind in ["rsa", "ecdsa"] {
        fs::remove_file(sshd.path("host")).unwrap();
        keygen(&sshd.path("host"), kind);
        sshd.restart().await;
        let ssh = Ssh::new(&quick()).unwrap();
        let session = ssh.connect(&sshd.target()).await.unwrap();
        let pinned = vec![session.new_host_key().unwrap().to_owned()];
        let mut more = Sshd::with(&format!("HostKey {}", sshd.path("host").display())).await;
        more.restart().await;
        let known = Target { pinned, ..more.target() };
        assert_eq!(ssh.connect(&known).await.unwrap().new_host_key(), None, "{kind}");
    }
}

#[tokio::test]
async fn known_hosts_in_each_form_are_believed() {
    let sshd = Sshd::start().await;
    let port = sshd.port;
    let file = sshd.path("known_hosts");
    keygen(&sshd.path("other"), "ed25519");
    let (key, other) = (public(&sshd, "host"), public(&sshd, "other"));
    let connect = async |lines: String, host_keys: HostKeys| {
        fs::write(&file, lines).unwrap();
        if file.with_extension("hash").exists() {
            run(&["ssh-keygen", "-q", "-H", "-f", file.to_str().unwrap()]);
        }
        let options = SshOptions { known_hosts: Some(file.clone()), host_keys, ..quick() };
        let session = Ssh::new(&options).unwrap().connect(&sshd.target()).await?;
        Ok::<_, commissaire_ssh::Failure>(session.new_host_key().map(str::to_owned))
    };
    for line in [
        format!("[127.0.0.1]:{port} {key}"),
        format!("example.org,[127.0.0.1]:{port} {key} a comment"),
        format!("# a comment\n\n[127.*]:* {key}"),
        format!("[127.0.0.1]:{port} {other}\n[127.0.0.1]:{port} {key}"),
    ] {
        assert_eq!(connect(line.clone(), HostKeys::Strict).await.unwrap(), None, "{line}");
    }
    for (line, policy, told) in [
        (format!("[127.0.0.1]:{port} {other}"), HostKeys::Pin, "has changed"),
        (format!("[127.0.0.2]:{port} {key}"), HostKeys::Strict, "is not known"),
        (format!("127.0.0.1 {key}"), HostKeys::Strict, "is not known"),
        (format!("[127.*]:*,![127.0.0.1]:{port} {key}"), HostKeys::Strict, "is not known"),
        (format!("@revoked [127.0.0.1]:{port} {key}"), HostKeys::Pin, "revoked"),
        (format!("[127.0.0.1]:{port} {key}\n@revoked * {key}"), HostKeys::Pin, "revoked"),
        (String::new(), HostKeys::Ca, "without a certificate"),
    ] {
        let refused = connect(line.clone(), policy).await.unwrap_err();
        assert_eq!(refused.kind, FailureKind::HostKey, "{line}");
        assert!(refused.text.contains(told), "{line}: {refused}");
    }
    // With hashed names.
    fs::write(file.with_extension("hash"), "").unwrap();
    let line = format!("[127.0.0.1]:{port} {key}");
    assert_eq!(connect(line, HostKeys::Strict).await.unwrap(), None);
    assert!(fs::read_to_string(&file).unwrap().starts_with("|1|"));
    let refused = connect(format!("[127.0.0.1]:{port} {other}"), HostKeys::Strict).await.unwrap_err();
    assert!(refused.text.contains("has changed"), "{refused}");
}

#[tokio::test]
async fn a_file_that_cannot_be_understood_is_told_with_its_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("known_hosts");
    fs::write(&file, "# fine\nhost ssh-ed25519 no-key\n").unwrap();
    let error = Ssh::new(&SshOptions { known_hosts: Some(file.clone()), ..quick() }).unwrap_err();
    assert!(error.to_string().contains("known_hosts:2:"), "{error}");
    fs::remove_file(&file).unwrap();
    let error = Ssh::new(&SshOptions { known_hosts: Some(file), ..quick() }).unwrap_err();
    assert!(error.to_string().contains("cannot be read"), "{error}");
}

#[tokio::test]
async fn a_host_certificate_is_taken_from_a_known_authority_only() {
    let mut sshd = Sshd::with("HostCertificate DIR/host-cert.pub").await;
    keygen(&sshd.path("authority"), "ed25519");
    keygen(&sshd.path("other"), "ed25519");
    let folder = sshd.dir.path().to_owned();
    let path = |name: &str| folder.join(name).display().to_string();
    let sign = |more: &[&str]| {
        let (authority, host) = (path("authority"), path("host.pub"));
        let words = ["ssh-keygen", "-q", "-s", &authority, "-I", "test", "-h"];
        run(&[&words[..], more, &[host.as_str()]].concat());
    };
    let authority = format!("@cert-authority [127.*]:* {}", public(&sshd, "authority"));
    let other = format!("@cert-authority * {}", public(&sshd, "other"));
    let revoked = format!("{authority}\n@revoked * {}", public(&sshd, "authority"));
    let cases: [(&[&str], &str, Option<&str>); 7] = [
        (&["-n", "127.0.0.1"], &authority, None),
        (&["-n", "127.0.*"], &authority, None),
        (&["-n", "10.0.0.1"], &authority, Some("it is for 10.0.0.1")),
        (&[], &authority, Some("it is for")),
        (&["-n", "127.0.0.1"], &other, Some("no @cert-authority line")),
        (&["-n", "127.0.0.1"], &revoked, Some("is revoked")),
        (&["-n", "127.0.0.1", "-V", "20200101:20210101"], &authority, Some("not valid at this time")),
    ];
    for (signed, known, told) in cases {
        sign(signed);
        sshd.restart().await;
        fs::write(sshd.path("known"), known).unwrap();
        let options =
            SshOptions { known_hosts: Some(sshd.path("known")), host_keys: HostKeys::Ca, ..quick() };
        let connected = Ssh::new(&options).unwrap().connect(&sshd.target()).await;
        match told {
            None => {
                let session = connected.unwrap();
                assert_eq!(session.new_host_key(), None);
                assert!(session.run(&Script::new("true")).await.unwrap().is_well());
            }
            Some(told) => {
                let refused = connected.unwrap_err();
                assert_eq!(refused.kind, FailureKind::HostKey);
                assert!(refused.text.contains(told), "{signed:?}: {refused}");
            }
        }
    }
}
