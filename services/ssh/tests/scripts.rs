//! What is run, and what is told of it.

use std::time::{Duration, Instant};

use commissaire::testkit::until;
use commissaire_ssh::{FailureKind, Script};

use crate::sshd::Sshd;

#[tokio::test]
async fn a_script_says_what_it_says_and_ends_as_it_ends() {
    let sshd = Sshd::start().await;
    let session = sshd.session().await;
    let output = session.run(&Script::new("echo one; echo two >&2; echo three")).await.unwrap();
    assert_eq!((output.out.as_str(), output.status), ("one\nthree\n", Some(0)));
    for part in ["one", "two", "three"] {
        assert!(output.tail.contains(part), "{output:?}");
    }
    let output = session.run(&Script::new("exit 7")).await.unwrap();
    assert_eq!(output.ending(), "exit 7");
    let output = session.run(&Script::new("false")).await.unwrap();
    assert_eq!(output.ending(), "exit 1");
    let output = session.run(&Script::new("kill -KILL $$")).await.unwrap();
    assert_eq!((output.ending().as_str(), output.is_well()), ("signal KILL", false));
    session.close().await;
}

#[tokio::test]
async fn values_arrive_as_they_are_and_stand_on_no_command_line() {
    let sshd = Sshd::start().await;
    let session = sshd.session().await;
    for value in
        ["", "a b", "it's", "\"$(id)\" `id` \\ $HOME", "line\nline", "-n", "ünïcödé 🦀", "'; exit 3; '"]
    {
        let script = Script::new(r#"printf %s "$VALUE""#).with("VALUE", value);
        let output = session.run(&script).await.unwrap();
        assert_eq!(output.out, value, "{output:?}");
    }
    let script = Script::new("cat /proc/*/cmdline | tr '\\0' ' '").with("SECRET", "c4n4ry-value");
    let output = session.run(&script).await.unwrap();
    assert!(output.out.contains("sshd") && !output.out.contains("c4n4ry"), "{}", output.out);
    assert!(!format!("{script:?}").contains("c4n4ry"));
}

#[tokio::test]
async fn a_script_reads_nothing_and_finds_the_usual_tools() {
    let sshd = Sshd::start().await;
    let session = sshd.session().await;
    let output = session.run(&Script::new("cat; echo end; echo $LC_ALL; command -v sshd")).await.unwrap();
    assert_eq!(output.out, "end\nC\n/usr/sbin/sshd\n");
}

#[tokio::test]
async fn of_very_much_the_beginning_and_the_end_are_kept() {
    let sshd = Sshd::start().await;
    let session = sshd.session().await;
    let output = session.run(&Script::new("seq 1 2000000")).await.unwrap();
    assert!(output.is_well() && output.out.starts_with("1\n2\n") && output.out.ends_with("\n2000000\n"));
    assert!(output.out.contains("bytes left out") && output.out.len() < 300_000);
    assert!(output.tail.ends_with("2000000\n") && output.tail.len() < 9_000);
}

#[tokio::test]
async fn what_takes_too_long_is_told_to_end() {
    let sshd = Sshd::start().await;
    let session = sshd.session().await;
    let began = Instant::now();
    let long = 4_000 + std::process::id();
    let script = Script::new(format!("echo begun; exec sleep {long}")).within(Duration::from_millis(700));
    let failure = session.run(&script).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Command);
    assert!(failure.text.contains("700ms") && failure.text.contains("begun"), "{failure}");
    assert!(began.elapsed() < Duration::from_secs(4));
    let gone =
        "for i in $(seq 40); do pgrep -x -f \"sleep $LONG\" >/dev/null || exit 0; sleep 0.2; done; exit 1";
    let script = Script::new(gone).with("LONG", long.to_string());
    assert!(session.run(&script).await.unwrap().is_well(), "it goes on");
}

#[tokio::test]
async fn what_is_left_behind_holds_up_nobody() {
    let sshd = Sshd::start().await;
    let session = sshd.session().await;
    let began = Instant::now();
    let output = session.run(&Script::new("sleep 7 & echo done")).await.unwrap();
    assert_eq!((output.out.as_str(), output.status), ("done\n", Some(0)));
    assert!(began.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_connection_that_breaks_is_told_from_a_command_that_fails() {
    let sshd = Sshd::start().await;
    let session = sshd.session().await;
    let script = Script::new("kill -KILL $(ps -o ppid= -p $PPID); sleep 5");
    let failure = session.run(&script).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Lost, "{failure}");
    assert!(failure.text.contains("may have been carried out or not"), "{failure}");
    let failure = session.run(&Script::new("true")).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Lost, "{failure}");
}

#[tokio::test]
async fn many_scripts_run_on_one_session_at_once() {
    let sshd = Sshd::with("MaxSessions 50").await;
    let session = sshd.session().await;
    let runs = (0..40).map(|at| {
        let session = &session;
        async move {
            let script = Script::new("sleep 0.2; echo $AT").with("AT", at.to_string());
            assert_eq!(session.run(&script).await.unwrap().out, format!("{at}\n"));
        }
    });
    futures_util::future::join_all(runs).await;
}

#[tokio::test]
async fn what_runs_alone_outlives_its_connection_and_is_waited_for() {
    let sshd = Sshd::start().await;
    let (first, second) = (sshd.session().await, sshd.session().await);
    let file = sshd.path("done");
    let begun = sshd.path("begun");
    // It goes on saying something: without a reader each word would be its last.
    let text = "touch \"$BEGUN\"; for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.2; done; echo all >\"$FILE\"";
    let long =
        Script::new(text).alone().with("FILE", file.to_str().unwrap()).with("BEGUN", begun.to_str().unwrap());
    let running = tokio::spawn(async move { first.run(&long).await });
    until("it has begun", Duration::from_secs(10), async || begun.exists()).await.unwrap();
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    let next = Script::new("cat \"$FILE\"; sleep 60 & echo more >&2; exit 3").alone();
    let output = second.run(&next.with("FILE", file.to_str().unwrap())).await.unwrap();
    assert_eq!((output.out.as_str(), output.status), ("all\n", Some(3)), "{output:?}");
    assert!(output.tail.contains("waiting for what commissaire has begun"), "{output:?}");
    assert!(output.tail.contains("more"), "{output:?}");
    // Nor is what it has left behind in the way.
    let began = Instant::now();
    let output = second.run(&Script::new("echo well").alone()).await.unwrap();
    assert_eq!((output.out.as_str(), began.elapsed() < Duration::from_secs(30)), ("well\n", true));
    // What takes too long is in the way no longer, and what it had said is told.
    let script = Script::new("echo begun; sleep 60; echo never").alone().within(Duration::from_secs(2));
    let failure = second.run(&script).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Command);
    assert!(failure.text.contains("begun") && !failure.text.contains("never"), "{failure}");
    assert!(second.run(&Script::new("true").alone()).await.unwrap().is_well());
}
