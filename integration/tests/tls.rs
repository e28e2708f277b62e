//! A program that trusts the wrong broker, or is not trusted, ends as its page says.

use commissaire_integration::{Broker, Outcome, Place, Server, ensure};

use commissaire::testkit::Certificates;

#[tokio::test]
async fn who_is_not_trusted_over_tls_is_told_so_by_words_and_exit_code() -> Outcome {
    let (place, files) = (Place::new()?, Certificates::new()?);
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string();
    let (cert, key, ca) = (files.of("server"), files.key("server"), files.of("ca"));
    let tls =
        [("tls-port", &*port), ("tls-cert-file", &cert), ("tls-key-file", &key), ("tls-ca-cert-file", &ca)];
    let _server = Server::redis(&[&Broker::STRICT[..], &tls].concat()).await?;
    let own = files.as_options("client");
    for (code, says, uri) in [
        (0, "", format!("rediss://127.0.0.1:{port}?ca_file={ca}&{own}")),
        (78, "ca_file", format!("rediss://127.0.0.1:{port}?ca_file={}&{own}", files.of("other"))),
        (78, "another name", format!("rediss://localhost:{port}?ca_file={ca}&{own}")),
        (78, "cert_file", format!("rediss://127.0.0.1:{port}?ca_file={ca}")),
        (78, "cert_file", format!("rediss://127.0.0.1:{port}?ca_file={ca}&{}", files.as_options("stranger"))),
        (3, "rediss://", format!("redis://127.0.0.1:{port}")),
    ] {
        let order = place.cli(&["enqueue", "jobs.x", "[1]"])?.env("COMMISSAIRE_BUS_URI", &uri);
        let ended = order.run().await?.expect(code)?;
        ensure!(ended.err.contains(says), "{uri}: it does not say {says:?}: {ended:?}");
    }
    Ok(())
}
