//! Brokers that are reached over TLS.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Command,
};

use commissaire::testkit::{Failure, Outcome, Server};

use crate::broker::{Broker, Kind};

const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

/// A server with a certificate for 127.0.0.1, made in `dir`, and the `bus_uri` that trusts it.
pub(crate) async fn server(kind: Kind, dir: &Path) -> Outcome<(Server, String)> {
    certify(dir)?;
    let file = |name: &str| dir.join(name).display().to_string();
    let (ca, cert, key) = (file("ca.pem"), file("s.pem"), file("s.key"));
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let at = |scheme: &str, port: u16, more: &str| format!("{scheme}127.0.0.1:{port}?ca_file={ca}{more}");
    Ok(match kind {
        Kind::Memory => return Err(Failure::new("the memory bus has no server")),
        Kind::Redis => {
            let mut settings = Broker::STRICT.to_vec();
            let port_text = port.to_string();
            settings.extend([
                ("tls-port", port_text.as_str()),
                ("tls-cert-file", &cert),
                ("tls-key-file", &key),
                ("tls-ca-cert-file", &ca),
                ("tls-auth-clients", "no"),
            ]);
            (Server::redis(&settings).await?, at("rediss://", port, "&durability=strict"))
        }
        Kind::Nats => {
            let settings = format!("{{ cert_file: \"{cert}\", key_file: \"{key}\" }}");
            let server = Server::nats(&[("tls", &settings)]).await?;
            let uri = at("tls://", server.port(), "&durability=strict");
            (server, uri)
        }
        Kind::Amqp => {
            let listener = format!("127.0.0.1:{port}");
            let settings = [
                ("listeners.ssl.1", listener.as_str()),
                ("ssl_options.cacertfile", &ca),
                ("ssl_options.certfile", &cert),
                ("ssl_options.keyfile", &key),
                ("ssl_options.verify", "verify_none"),
            ];
            (Server::rabbitmq(&settings).await?, at("amqps://guest:guest@", port, ""))
        }
    })
}

/// Makes an authority, and a certificate of it for 127.0.0.1.
fn certify(dir: &Path) -> Outcome {
    fs::write(dir.join("ext"), "subjectAltName=IP:127.0.0.1\n")?;
    for arguments in [
        format!("req -x509 {KEY} -keyout ca.key -out ca.pem -subj /CN=ca -days 2"),
        format!("req {KEY} -keyout s.key -out s.csr -subj /CN=s"),
        "x509 -req -in s.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out s.pem -days 2 -extfile ext".into(),
    ] {
        let made = Command::new("openssl").args(arguments.split(' ')).current_dir(dir).output()?;
        if !made.status.success() {
            return Err(Failure::new(format!("openssl: {}", String::from_utf8_lossy(&made.stderr))));
        }
    }
    Ok(())
}
