//! Files are written whole, or not at all.

use std::{fs, os::unix::fs::PermissionsExt};

use commissaire_ssh::FailureKind;

use crate::sshd::Sshd;

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn a_file_is_written_once_and_what_was_there_is_kept() {
    let sshd = Sshd::start().await;
    let session = sshd.session().await;
    let file = sshd.path("it's a new folder/file");
    let path = file.to_str().unwrap();
    let big: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    assert!(session.write_file(path, b"one\n", None).await.unwrap());
    assert_eq!((fs::read(&file).unwrap().as_slice(), mode(&file)), (&b"one\n"[..], 0o644));
    assert!(!session.write_file(path, b"one\n", None).await.unwrap(), "nothing is to change");
    assert!(session.write_file(path, b"one\n", Some(0o600)).await.unwrap(), "the mode is");
    assert_eq!(mode(&file), 0o600);
    assert!(session.write_file(path, &big, None).await.unwrap());
    assert_eq!((fs::read(&file).unwrap() == big, mode(&file)), (true, 0o600));
    assert!(session.write_file(path, b"", None).await.unwrap());
    assert_eq!(fs::read(file.with_file_name("file.before-commissaire")).unwrap(), b"one\n");
    let names = fs::read_dir(file.parent().unwrap()).unwrap().count();
    assert_eq!(names, 2, "something is left behind");
}

#[tokio::test]
async fn a_link_stays_a_link() {
    let sshd = Sshd::start().await;
    let session = sshd.session().await;
    fs::write(sshd.path("real"), "old").unwrap();
    std::os::unix::fs::symlink(sshd.path("real"), sshd.path("link")).unwrap();
    assert!(session.write_file(sshd.path("link").to_str().unwrap(), b"new", None).await.unwrap());
    assert_eq!(fs::read(sshd.path("real")).unwrap(), b"new");
    assert!(sshd.path("link").is_symlink());
}

#[tokio::test]
async fn what_cannot_be_written_is_told_and_leaves_what_was() {
    let sshd = Sshd::start().await;
    let session = sshd.session().await;
    let failure = session.write_file("/proc/no/such", b"x", None).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Command);
    assert!(failure.text.contains("/proc/no/such") && failure.text.contains("exit"), "{failure}");
    let failure = session.write_file("/dev/full/x", b"x", None).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Command);
}
