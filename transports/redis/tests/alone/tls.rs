//! Who is trusted over TLS.

use super::*;

#[tokio::test]
async fn tls_verifies_both_sides() -> Outcome {
    let plain = Server::redis(&[]).await?;
    let secure = Secure {
        driver: commissaire_redis::DRIVER,
        schemes: ("redis", "rediss"),
        login: "",
        plain: plain.port(),
    };
    let start = async |files: &Certificates, name: &str, demands: bool| {
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let server = Server::redis(&[
            ("tls-port", &port.to_string()),
            ("tls-cert-file", &files.of(name)),
            ("tls-key-file", &files.key(name)),
            ("tls-ca-cert-file", &files.of("ca")),
            ("tls-auth-clients", if demands { "yes" } else { "no" }),
        ])
        .await?;
        Ok((server, port))
    };
    secure.check(start).await
}
