//! TLS: what every transport over it takes, and what it refuses, with which words.

use std::time::Duration;

use super::{
    certificates::Certificates,
    server::Server,
    target::{body, job, key},
    wait::{Failure, Outcome, ensure, within},
};
use crate::{
    driver::{BusOptions, Driver},
    error::ErrorKind,
    subscription::Source,
};

/// Stands as the password wherever nobody should come to ask for one.
const CANARY: &str = "c4n4ry";
/// The most that a refusal may take.
const BOUND: Duration = Duration::from_secs(12);

/// A transport whose servers speak TLS.
#[derive(Debug, Clone, Copy)]
pub struct Secure<'a> {
    /// The transport.
    pub driver: Driver,
    /// Its schemes, without TLS and with.
    pub schemes: (&'a str, &'a str),
    /// Who may log in: `USER:PASSWORD@`, or nothing.
    pub login: &'a str,
    /// The port of a server that speaks no TLS there.
    pub plain: u16,
}

impl Secure<'_> {
    /// Tries all that can be right or wrong about certificates. `start` starts a server that shows the certificate of
    /// this name, and demands one of `ca` from its clients where it is told to; it gives the server and its port for TLS.
    pub async fn check(
        &self,
        start: impl AsyncFn(&Certificates, &str, bool) -> Outcome<(Server, u16)>,
    ) -> Outcome {
        use ErrorKind::{Config, Forbidden, Unavailable};
        let (plain, tls) = self.schemes;
        let files = Certificates::new()?;
        let (ca, other) = (format!("ca_file={}", files.of("ca")), format!("ca_file={}", files.of("other")));
        let own = |name: &str| format!("{ca}&{}", files.as_options(name));

        let (server, port) = start(&files, "server", false).await?;
        self.takes("the authority", port, &ca).await?;
        self.takes("a certificate that nobody asked for", port, &own("client")).await?;
        let to = |scheme: &str, host: &str, port: u16, options: &str| {
            format!("{scheme}://someone:{CANARY}@{host}:{port}?{options}")
        };
        for (what, uri, kind, says) in [
            (
                "the system's authorities",
                to(tls, "127.0.0.1", port, ""),
                Forbidden,
                ["unknown authority", "ca_file"],
            ),
            (
                "another authority",
                to(tls, "127.0.0.1", port, &other),
                Forbidden,
                ["unknown authority", "ca_file"],
            ),
            ("another host", to(tls, "localhost", port, &ca), Forbidden, ["another name", "bus_uri"]),
            ("TLS where there is none", to(tls, "127.0.0.1", self.plain, &ca), Unavailable, ["TLS", "port"]),
            ("no TLS where it is wanted", to(plain, "127.0.0.1", port, ""), Unavailable, ["TLS", tls]),
            (
                "a key alone",
                to(tls, "127.0.0.1", port, &format!("key_file={}", files.key("client"))),
                Config,
                ["cert_file", "key_file"],
            ),
            (
                "a key for a certificate",
                to(tls, "127.0.0.1", port, &format!("ca_file={}", files.key("ca"))),
                Config,
                ["ca_file", "PEM"],
            ),
        ] {
            self.refuses(what, &uri, &kind, &says).await?;
        }
        drop(server);

        let (server, port) = start(&files, "expired", false).await?;
        let uri = to(tls, "127.0.0.1", port, &ca);
        self.refuses("a certificate that has ended", &uri, &Forbidden, &["expired", "renew"]).await?;
        drop(server);

        let (_server, port) = start(&files, "server", true).await?;
        self.takes("our certificate", port, &own("client")).await?;
        for (what, options) in [("no certificate of ours", &ca), ("one of a stranger", &own("stranger"))] {
            let uri = to(tls, "127.0.0.1", port, options);
            self.refuses(what, &uri, &Forbidden, &["certificate of ours", "cert_file"]).await?;
        }
        Ok(())
    }

    /// With these options the bus can be used, for messages of many records of TLS too.
    async fn takes(&self, what: &str, port: u16, options: &str) -> Outcome {
        let uri = format!("{}://{}127.0.0.1:{port}?{options}", self.schemes.1, self.login);
        let used = async {
            let bus = (self.driver.connect)(uri.parse()?, BusOptions::default()).await?;
            let largest = "x".repeat(1_000_000);
            bus.publish(job("jobs.test", largest.clone())).await?;
            let mut jobs = bus.subscribe(Source::Queue(key("jobs.test")), 1).await?;
            let delivery = jobs.next_delivery().await.ok_or_else(|| Failure::new("no delivery"))?;
            ensure!(body(delivery.message()) == largest, "it came as another");
            delivery.ack().await?;
            Ok(bus.close().await?)
        };
        within(what, BOUND, used).await?.map_err(|failure| failure.in_step(what))
    }

    /// At `uri` there is no bus: the error is of this kind, says these words, in time, and tells no password.
    async fn refuses(&self, what: &str, uri: &str, kind: &ErrorKind, says: &[&str]) -> Outcome {
        let error =
            match within(what, BOUND, (self.driver.connect)(uri.parse()?, BusOptions::default())).await? {
                Ok(bus) => return Err(Failure::new(format!("{what}: {bus:?} was connected"))),
                Err(error) => error,
            };
        let shown = format!("{error} {error:?} {}", error.chain());
        ensure!(error.kind() == kind, "{what}: the error is not {kind:?} but {error:?}");
        ensure!(says.iter().all(|word| shown.contains(word)), "{what}: it does not say {says:?}: {shown}");
        ensure!(!shown.contains(CANARY), "{what}: it tells the password: {shown}");
        Ok(())
    }
}
