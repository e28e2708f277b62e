//! Hosts that are reached through others.

use std::{fs, process::Command};

use commissaire_ssh::{FailureKind, Jump, Script, Ssh, SshOptions, Target};

use crate::sshd::{Sshd, quick, user};

fn through(jumps: &[&Sshd]) -> SshOptions {
    let jump = |sshd: &&Sshd| Jump {
        address: sshd.address(),
        user: user(),
        key_path: Some(sshd.path("user")),
        host_key: Some(fs::read_to_string(sshd.path("host.pub")).unwrap()),
    };
    SshOptions { jump: jumps.iter().map(jump).collect(), ..quick() }
}

#[tokio::test]
async fn a_host_is_reached_through_two_others_on_one_connection_to_each() {
    let (first, second, host) = (Sshd::start().await, Sshd::start().await, Sshd::start().await);
    let ssh = Ssh::new(&through(&[&first, &second])).unwrap();
    for _ in 0..5 {
        let session = ssh.connect(&host.target()).await.unwrap();
        let output = session.run(&Script::new("echo $SSH_CONNECTION")).await.unwrap();
        assert!(output.out.trim().ends_with(&host.port.to_string()), "{output:?}");
        assert!(session.new_host_key().is_some());
        session.close().await;
        assert!(ssh.knock(&host.address()).await.is_ok());
    }
    for sshd in [&first, &second] {
        let log = fs::read_to_string(sshd.path("log")).unwrap();
        assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
    }
}

#[tokio::test]
async fn a_way_that_broke_is_made_anew() {
    let (mut jump, host) = (Sshd::start().await, Sshd::start().await);
    let ssh = Ssh::new(&through(&[&jump])).unwrap();
    ssh.connect(&host.target()).await.unwrap().close().await;
    // The connections are processes of their own, which outlive the one that listens.
    let listener = jump.process().pid().to_string();
    assert!(Command::new("pkill").args(["-KILL", "-P", &listener]).status().unwrap().success());
    jump.restart().await;
    let session = ssh.connect(&host.target()).await.unwrap();
    assert!(session.run(&Script::new("true")).await.unwrap().is_well());
}

#[tokio::test]
async fn what_is_wrong_on_the_way_is_told_as_such() {
    let (mut jump, mut host) = (Sshd::start().await, Sshd::start().await);
    let ssh = Ssh::new(&through(&[&jump])).unwrap();
    host.kill();
    let failure = ssh.connect(&host.target()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unreachable);
    assert!(failure.text.contains(&format!("through {}", jump.address())), "{failure}");
    host.restart().await;
    let mut options = through(&[&jump]);
    options.jump[0].host_key = None;
    let failure = Ssh::new(&options).unwrap().connect(&host.target()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::HostKey);
    assert!(failure.text.contains("at jump host") && failure.text.contains("is not known"), "{failure}");
    let options = through(&[&jump]);
    jump.kill();
    let failure = Ssh::new(&options).unwrap().connect(&host.target()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Refused);
    assert!(failure.text.contains("at jump host"), "{failure}");
    let failure = ssh.connect(&Target { address: "x.invalid".into(), ..host.target() }).await.unwrap_err();
    assert!(failure.is_of_the_way(), "{failure}");
}
