//! Servers, declarations and users that are refused, and what is never shown.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

const CANARY: &str = "c4nary-s3cret";

#[tokio::test]
async fn a_queue_that_was_declared_otherwise_is_named() -> Outcome {
    let (server, exchange) = (shared().await?, exchange());
    let bus = connect(&server.uri(), &exchange).await?;
    let name = format!("{exchange}.1.q.jobs.test");
    let declare = format!(
        "rabbit_amqqueue:declare(rabbit_misc:r(<<\"/\">>, queue, <<\"{name}\">>), true, false, \
         [{{<<\"x-queue-type\">>, longstr, <<\"quorum\">>}}], none, <<\"test\">>), ok."
    );
    server.rabbitmqctl(&["eval", &declare]).await?;
    let error = bus.subscribe(jobs(), 1).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Topology, "{error}");
    let text = error.to_string();
    for wanted in [name.as_str(), "x-max-length", "1000000", "none"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    bus.close().await?;
    Ok(())
}

#[tokio::test]
async fn no_error_shows_the_password_and_each_says_what_is_wrong() -> Outcome {
    let server = shared().await?;
    let port = server.port();
    let name = exchange();
    for (uri, kind, why) in [
        (format!("amqp://guest:{CANARY}@127.0.0.1:{port}"), ErrorKind::Forbidden, "refused the user"),
        (format!("amqp://{CANARY}:x@127.0.0.1:{port}"), ErrorKind::Forbidden, "refused the user"),
        (format!("amqp://guest:{CANARY}@127.0.0.1:1"), ErrorKind::Unavailable, "nothing listens"),
        (format!("amqp://guest:{CANARY}@no.such.host.invalid"), ErrorKind::Unavailable, "could not be made"),
        (
            format!("amqp://guest:guest@127.0.0.1:{port}/nowhere"),
            ErrorKind::Config,
            "no virtual host \"nowhere\"",
        ),
        (format!("amqp://guest:{CANARY}@127.0.0.1:{port}/a/b"), ErrorKind::Config, "%2F"),
        (format!("amqp://guest:{CANARY}@127.0.0.1:{port}?durability=sure"), ErrorKind::Config, "strict"),
        (format!("amqp://guest:{CANARY}@127.0.0.1:{port}?nonsense=1"), ErrorKind::Config, "nonsense"),
        (format!("amqp://guest:{CANARY}@127.0.0.1:{port}?nodes=x:y:z"), ErrorKind::Config, "nodes"),
        (format!("amqp://guest:{CANARY}@127.0.0.1:{port}?ca_file=x"), ErrorKind::Config, "ca_file"),
        (format!("amqp://guest:{CANARY}@127.0.0.1:{port}?password_file=x"), ErrorKind::Config, "give one"),
        (format!("amqps://guest:{CANARY}@127.0.0.1:{port}"), ErrorKind::Unavailable, "TLS"),
        (
            format!("amqps://guest:{CANARY}@127.0.0.1:{port}?ca_file=/nonexistent"),
            ErrorKind::Config,
            "ca_file",
        ),
    ] {
        let error = match connect(&uri, &name).await {
            Ok(bus) => panic!("{bus:?} was connected by {uri}"),
            Err(error) => error,
        };
        let shown = format!("{error} {error:?} {}", error.chain());
        assert!(!shown.contains(CANARY), "{shown}");
        assert_eq!(*error.kind(), kind, "{uri}: {error}");
        assert!(shown.contains(why), "{uri}: {shown}");
        assert!(!error.may_have_executed());
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_too_old_or_something_else_is_refused_by_name() -> Outcome {
    for (product, version, why) in [
        ("RabbitMQ", "3.9.13", "RabbitMQ 3.9.13"),
        ("Qpid", "9.0", "Qpid 9.0"),
        ("", "", "does not speak AMQP"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let answering = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut header = [0; 8];
            stream.read_exact(&mut header).await.unwrap();
            let answer =
                if product.is_empty() { b"AMQP\0\x01\0\0".to_vec() } else { start(product, version) };
            stream.write_all(&answer).await.unwrap();
            let _ = stream.read(&mut header).await;
        });
        let error = connect(&format!("amqp://127.0.0.1:{port}"), &exchange()).await.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        answering.await?;
    }
    Ok(())
}

/// The frame Connection.Start of such a server.
fn start(product: &str, version: &str) -> Vec<u8> {
    let mut table = Vec::new();
    for (name, value) in [("product", product), ("version", version)] {
        table.push(name.len() as u8);
        table.extend(name.as_bytes());
        table.push(b'S');
        table.extend((value.len() as u32).to_be_bytes());
        table.extend(value.as_bytes());
    }
    let mut payload = vec![0, 10, 0, 10, 0, 9];
    payload.extend((table.len() as u32).to_be_bytes());
    payload.extend(table);
    payload.extend(b"\0\0\0\x05PLAIN\0\0\0\x05en_US");
    let mut frame = vec![1, 0, 0];
    frame.extend((payload.len() as u32).to_be_bytes());
    frame.extend(payload);
    frame.push(0xce);
    frame
}
