//! Who is trusted over TLS.

use tokio::net::TcpStream;

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_verifies_both_sides_and_a_certificate_can_log_in() -> Outcome {
    let secure = Secure {
        driver: commissaire_amqp::DRIVER,
        schemes: ("amqp", "amqps"),
        login: "guest:guest@",
        plain: shared().await?.port(),
    };
    secure.check(start).await
}

async fn start(files: &Certificates, name: &str, demands: bool) -> Outcome<(Server, u16)> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let server = Server::rabbitmq(&[
        ("plugins", "rabbitmq_auth_mechanism_ssl"),
        ("auth_mechanisms.1", "PLAIN"),
        ("auth_mechanisms.2", "EXTERNAL"),
        ("ssl_cert_login_from", "common_name"),
        ("listeners.ssl.1", &format!("127.0.0.1:{port}")),
        ("ssl_options.cacertfile", &files.of("ca")),
        ("ssl_options.certfile", &files.of(name)),
        ("ssl_options.keyfile", &files.key(name)),
        ("ssl_options.verify", if demands { "verify_peer" } else { "verify_none" }),
        ("ssl_options.fail_if_no_peer_cert", if demands { "true" } else { "false" }),
    ])
    .await?;
    // It listens there a moment after it does without TLS.
    until("it listens for TLS", LIMIT, async || TcpStream::connect(("127.0.0.1", port)).await.is_ok())
        .await?;
    if demands {
        a_certificate_logs_in(&server, port, files).await?;
    }
    Ok((server, port))
}

async fn a_certificate_logs_in(server: &Server, port: u16, files: &Certificates) -> Outcome {
    let uri = format!("amqps://127.0.0.1:{port}?ca_file={}&{}", files.of("ca"), files.as_options("client"));
    // Its name is nobody's.
    let error = connect(&uri, &exchange()).await.unwrap_err();
    assert!(
        *error.kind() == ErrorKind::Forbidden && error.to_string().contains("the certificate"),
        "{error}"
    );
    server.rabbitmqctl(&["add_user", "client", "unused"]).await?;
    server.rabbitmqctl(&["set_permissions", "-p", "/", "client", ".*", ".*", ".*"]).await?;
    Ok(connect(&uri, &exchange()).await?.close().await?)
}
