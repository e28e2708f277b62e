//! Each way in which a host cannot be reached has its own name.

use std::time::{Duration, Instant};

use commissaire_ssh::{Failure, FailureKind, Ssh, Target};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::sshd::{Sshd, quick};

async fn refused(sshd: &Sshd, address: &str) -> Failure {
    let ssh = Ssh::new(&quick()).unwrap();
    let failure = ssh.connect(&Target { address: address.to_owned(), ..sshd.target() }).await.unwrap_err();
    let knocked = ssh.knock(address).await.unwrap_err();
    assert_eq!(failure.kind, knocked.kind);
    failure
}

/// A server that takes connections and does this with them.
async fn server(says: &'static [u8], closes: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(says).await;
            if !closes {
                held.push(stream);
            }
        }
    });
    address
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_is_told_by_its_kind() {
    let mut sshd = Sshd::start().await;
    let closed = sshd.address();
    sshd.kill();
    for (address, kind, told) in [
        (closed, FailureKind::Refused, "is sshd running?"),
        ("no-such-host.invalid".to_owned(), FailureKind::Name, "no-such-host.invalid"),
        // TEST-NET-1 of RFC 5737, for which a loopback of one's own has no route; else nothing answers there.
        (server(b"", false).await, FailureKind::NoBanner, "says nothing"),
        (server(b"", true).await, FailureKind::NoBanner, "closes them at once"),
        (server(b"220 mail.example.org ESMTP\r\n", true).await, FailureKind::NoBanner, "does not speak SSH"),
        (server(&[b'x'; 20_000], false).await, FailureKind::NoBanner, "does not speak SSH"),
    ] {
        let began = Instant::now();
        let failure = refused(&sshd, &address).await;
        assert_eq!(failure.kind, kind, "{address}: {failure}");
        assert!(failure.text.contains(told), "{address}: {failure}");
        assert!(began.elapsed() < Duration::from_secs(12));
        assert!(failure.is_of_the_way());
    }
}

#[tokio::test]
async fn a_server_that_stops_after_its_banner_is_not_waited_for() {
    let sshd = Sshd::start().await;
    let address = server(b"SSH-2.0-stuck\r\n", false).await;
    let ssh = Ssh::new(&quick()).unwrap();
    assert!(ssh.knock(&address).await.is_ok(), "it speaks");
    let failure = ssh.connect(&Target { address, ..sshd.target() }).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::TimedOut);
    assert!(failure.text.contains("did not agree on keys within 3s"), "{failure}");
    let address =
        server(b"SSH-2.0-broken\r\ngarbage that is no packet of SSH at all.............", true).await;
    let failure = ssh.connect(&Target { address, ..sshd.target() }).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Lost, "{failure}");
}

#[tokio::test]
async fn a_frozen_sshd_says_nothing() {
    let sshd = Sshd::start().await;
    sshd.process().stop().unwrap();
    let failure = refused(&sshd, &sshd.address()).await;
    assert_eq!(failure.kind, FailureKind::NoBanner);
    sshd.process().cont().unwrap();
    Ssh::new(&quick()).unwrap().connect(&sshd.target()).await.unwrap();
}

#[tokio::test]
async fn no_more_connections_than_allowed_are_made_at_once() {
    let sshd = Sshd::start().await;
    let options = commissaire_ssh::SshOptions { connections: 3, ..quick() };
    let ssh = Ssh::new(&options).unwrap();
    let target = sshd.target();
    let held: Vec<_> = futures_util::future::join_all((0..3).map(|_| ssh.connect(&target))).await;
    assert!(held.iter().all(Result::is_ok));
    let mut fourth = Box::pin(ssh.connect(&target));
    let early = tokio::time::timeout(Duration::from_millis(500), &mut fourth).await;
    assert!(early.is_err(), "a fourth was made");
    drop(held);
    assert!(fourth.await.is_ok());
}
