//! Who is trusted over TLS.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_verifies_authority_and_name() -> Outcome {
    let dir = tempfile::tempdir()?;
    let openssl = |arguments: &str| {
        let ended = std::process::Command::new("openssl")
            .args(arguments.split(' '))
            .current_dir(dir.path())
            .output()
            .expect("openssl is installed");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    };
    std::fs::write(dir.path().join("ext"), "subjectAltName=IP:127.0.0.1\n")?;
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 2",
    );
    openssl("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout s.key -out s.csr -subj /CN=s");
    openssl("x509 -req -in s.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out s.pem -days 2 -extfile ext");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let server = Server::rabbitmq(&[
        ("plugins", "rabbitmq_auth_mechanism_ssl"),
        ("auth_mechanisms.1", "PLAIN"),
        ("auth_mechanisms.2", "EXTERNAL"),
        ("ssl_cert_login_from", "common_name"),
        ("listeners.ssl.1", &format!("127.0.0.1:{port}")),
        ("ssl_options.cacertfile", &file("ca.pem")),
        ("ssl_options.certfile", &file("s.pem")),
        ("ssl_options.keyfile", &file("s.key")),
        ("ssl_options.verify", "verify_peer"),
        ("ssl_options.fail_if_no_peer_cert", "true"),
    ])
    .await?;
    let exchange = exchange();
    let own = format!("cert_file={}&key_file={}", file("s.pem"), file("s.key"));
    let ca = format!("ca_file={}", file("ca.pem"));
    let login = "guest:guest@";
    let bus = connect(&format!("amqps://{login}127.0.0.1:{port}?{ca}&{own}"), &exchange).await?;
    let largest = "x".repeat(1_000_000);
    bus.publish(job(largest.clone())).await?;
    let mut queue = bus.subscribe(jobs(), 1).await?;
    assert!(body(&next(&mut queue).await) == largest);
    bus.close().await?;
    for (uri, why) in [
        (format!("amqps://{login}127.0.0.1:{port}?{own}"), "unknown authority"),
        (format!("amqps://{login}localhost:{port}?{ca}&{own}"), "another name"),
        (format!("amqps://{login}127.0.0.1:{port}?{ca}"), "certificate of ours"),
        // A certificate whose name is nobody's.
        (format!("amqps://127.0.0.1:{port}?{ca}&{own}"), "the certificate"),
    ] {
        let error = connect(&uri, &exchange).await.unwrap_err();
        assert!(*error.kind() == ErrorKind::Forbidden && error.to_string().contains(why), "{why}: {error}");
    }
    // A certificate and no user: it logs in by itself.
    server.rabbitmqctl(&["add_user", "s", "unused"]).await?;
    server.rabbitmqctl(&["set_permissions", "-p", "/", "s", ".*", ".*", ".*"]).await?;
    connect(&format!("amqps://127.0.0.1:{port}?{ca}&{own}"), &exchange).await?.close().await?;
    Ok(())
}
