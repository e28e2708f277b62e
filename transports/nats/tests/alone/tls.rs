//! TLS: authority, name and certificates of clients are verified.

use super::*;

#[tokio::test]
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
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=ca -days 2"));
    openssl(&format!("req -x509 {key} -keyout no.key -out no.pem -subj /CN=no -days 2"));
    openssl(&format!("req {key} -keyout s.key -out s.csr -subj /CN=s"));
    openssl("x509 -req -in s.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out s.pem -days 2 -extfile ext");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let settings = format!(
        "{{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", verify: true }}",
        file("s.pem"),
        file("s.key"),
        file("ca.pem")
    );
    let server = Server::nats(&[("tls", &settings)]).await?;
    let port = server.port();
    let own = format!("cert_file={}&key_file={}", file("s.pem"), file("s.key"));
    let ca = format!("ca_file={}", file("ca.pem"));
    let bus = connect(&format!("tls://127.0.0.1:{port}?{ca}&{own}")).await?;
    bus.publish(job("over TLS")).await?;
    bus.close().await?;
    for (uri, why) in [
        (format!("tls://127.0.0.1:{port}?ca_file={}&{own}", file("no.pem")), "unknown authority"),
        (format!("tls://localhost:{port}?{ca}&{own}"), "another name"),
        (format!("tls://127.0.0.1:{port}?{ca}"), "certificate of ours"),
    ] {
        let error = connect(&uri).await.unwrap_err();
        assert!(error.to_string().contains(why), "{why}: {error}");
    }
    // What asks for TLS never goes without.
    let plain = Server::nats(&[]).await?;
    assert!(connect(&format!("tls://127.0.0.1:{}?{ca}", plain.port())).await.is_err());
    for wrong in [
        format!("nats://127.0.0.1:{port}?{ca}"),
        format!("tls://127.0.0.1:{port}?cert_file={}", file("s.pem")),
    ] {
        assert_eq!(*connect(&wrong).await.unwrap_err().kind(), ErrorKind::Config);
    }
    Ok(())
}
