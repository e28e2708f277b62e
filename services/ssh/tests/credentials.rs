//! With what one logs in.

use std::{fs, time::Duration};

use base64ct::{Base64, Encoding};
use commissaire::testkit::{Process, until};
use commissaire_ssh::{Credentials, FailureKind, Script, Ssh, SshOptions, Target};

use crate::sshd::{Sshd, keygen, packed, quick, run, user};

#[tokio::test]
async fn keys_of_each_kind_and_form_let_in() {
    let sshd = Sshd::start().await;
    let ssh = Ssh::new(&quick()).unwrap();
    let mut keys = fs::read_to_string(sshd.path("authorized_keys")).unwrap();
    for (name, kind) in [("rsa", "rsa"), ("ecdsa", "ecdsa"), ("pem", "rsa"), ("pkcs8", "ecdsa")] {
        keygen(&sshd.path(name), kind);
        keys += &fs::read_to_string(sshd.path(&format!("{name}.pub"))).unwrap();
    }
    fs::write(sshd.path("authorized_keys"), keys).unwrap();
    for (name, form) in [("pem", "PEM"), ("pkcs8", "PKCS8")] {
        run(&["ssh-keygen", "-q", "-p", "-N", "", "-m", form, "-f", sshd.path(name).to_str().unwrap()]);
    }
    for name in ["user", "rsa", "ecdsa", "pem", "pkcs8"] {
        let credentials = Credentials::of_record("h", &packed(&sshd.path(name))).unwrap();
        let session = ssh.connect(&Target { credentials, ..sshd.target() }).await;
        let output = session.unwrap_or_else(|e| panic!("{name}: {e}")).run(&Script::new("echo in")).await;
        assert_eq!(output.unwrap().out, "in\n", "{name}");
    }
}

#[tokio::test]
async fn a_certificate_behind_the_key_lets_in() {
    let sshd = Sshd::with("TrustedUserCAKeys DIR/authority.pub").await;
    keygen(&sshd.path("authority"), "ed25519");
    keygen(&sshd.path("signed"), "ed25519");
    let path = |name: &str| sshd.path(name).display().to_string();
    let ssh = Ssh::new(&quick()).unwrap();
    let target = || {
        let credentials = Credentials::of_record("h", &packed(&sshd.path("signed"))).unwrap();
        Target { credentials, ..sshd.target() }
    };
    let refused = ssh.connect(&target()).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Authentication);
    run(&["ssh-keygen", "-q", "-s", &path("authority"), "-I", "test", "-n", &user(), &path("signed.pub")]);
    let session = ssh.connect(&target()).await.unwrap();
    assert_eq!(session.run(&Script::new("echo in")).await.unwrap().out, "in\n");
    // A certificate over another key is seen before anything is asked.
    fs::copy(sshd.path("signed-cert.pub"), sshd.path("user-cert.pub")).unwrap();
    let unsound = Credentials::of_record("h", &packed(&sshd.path("user"))).unwrap_err();
    assert!(unsound.text.contains("over another key"), "{unsound}");
}

#[tokio::test]
async fn an_agent_lets_in_whoever_has_no_key() {
    let sshd = Sshd::start().await;
    let socket = sshd.path("agent");
    let mut command = Process::command("ssh-agent");
    command.args(["-D", "-a"]).arg(&socket).stdout(std::process::Stdio::null());
    let _agent = Process::spawn("ssh-agent", command).unwrap();
    until("the agent answers", Duration::from_secs(5), async || socket.exists()).await.unwrap();
    let credentials = || Credentials::of_record("h", "").unwrap();
    let target = || Target { credentials: credentials(), ..sshd.target() };
    let ssh = Ssh::new(&SshOptions { agent: Some(socket.clone()), ..quick() }).unwrap();
    let refused = ssh.connect(&target()).await.unwrap_err();
    assert!(refused.text.contains("none of the 0 keys"), "{refused}");
    keygen(&sshd.path("other"), "ed25519");
    for key in ["other", "user"] {
        let mut add = std::process::Command::new("ssh-add");
        let output = add.env("SSH_AUTH_SOCK", &socket).arg(sshd.path(key)).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let session = ssh.connect(&target()).await.unwrap();
    assert_eq!(session.run(&Script::new("echo in")).await.unwrap().out, "in\n");
    let refused = Ssh::new(&quick()).unwrap().connect(&target()).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Authentication);
    assert!(refused.text.contains("--key FILE") && refused.text.contains("ssh.agent"), "{refused}");
}

#[test]
fn what_is_no_key_is_told_without_being_shown() {
    let dir = tempfile::tempdir().unwrap();
    let locked = dir.path().join("locked");
    run(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "passphrase", "-f", locked.to_str().unwrap()]);
    let cases = [
        ("c4n4ry not base64".to_owned(), "is not base64"),
        (Base64::encode_string(b"c4n4ry"), "no END line"),
        (
            Base64::encode_string(
                b"-----BEGIN OPENSSH PRIVATE KEY-----\nc4n4ry\n-----END OPENSSH PRIVATE KEY-----\n",
            ),
            "none that is understood",
        ),
        (packed(&locked), "has a passphrase"),
    ];
    for (text, told) in cases {
        let failure = Credentials::of_record("10.0.0.7", &text).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Authentication);
        assert!(failure.text.contains(told) && failure.text.contains("10.0.0.7"), "{told}: {failure}");
        assert!(!failure.text.contains("c4n4ry"), "{failure}");
    }
}

#[tokio::test]
async fn a_wrong_key_or_user_is_told_as_such() {
    let sshd = Sshd::start().await;
    let ssh = Ssh::new(&quick()).unwrap();
    keygen(&sshd.path("wrong"), "ed25519");
    let credentials = Credentials::of_file(&sshd.path("wrong")).unwrap();
    let refused = ssh.connect(&Target { credentials, ..sshd.target() }).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Authentication);
    assert!(
        refused.text.contains("does not take this key") && refused.text.contains("publickey"),
        "{refused}"
    );
    let user = "nobody-of-that-name".to_owned();
    let refused = ssh.connect(&Target { user, ..sshd.target() }).await.unwrap_err();
    assert_eq!(refused.kind, FailureKind::Authentication);
    assert!(refused.text.contains("nobody-of-that-name"), "{refused}");
}
