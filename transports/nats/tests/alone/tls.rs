//! Who is trusted over TLS.

use super::*;

#[tokio::test]
async fn tls_verifies_both_sides() -> Outcome {
    let plain = Server::nats(&[]).await?;
    let secure =
        Secure { driver: commissaire_nats::DRIVER, schemes: ("nats", "tls"), login: "", plain: plain.port() };
    let start = async |files: &Certificates, name: &str, demands: bool| {
        let (cert, key, ca) = (files.of(name), files.key(name), files.of("ca"));
        let settings =
            format!("{{ cert_file: \"{cert}\", key_file: \"{key}\", ca_file: \"{ca}\", verify: {demands} }}");
        let server = Server::nats(&[("tls", &settings)]).await?;
        let port = server.port();
        Ok((server, port))
    };
    secure.check(start).await
}

#[tokio::test]
async fn options_for_tls_stand_where_it_is_kept_only() -> Outcome {
    let files = Certificates::new()?;
    let error = connect(&format!("nats://127.0.0.1:1?ca_file={}", files.of("ca"))).await.unwrap_err();
    assert!(*error.kind() == ErrorKind::Config && error.to_string().contains("write tls://"), "{error}");
    Ok(())
}
