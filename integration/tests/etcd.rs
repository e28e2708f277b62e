//! Configurations in a real etcd: a layer like the others, which may be away.

use std::{
    net::{Ipv4Addr, TcpListener},
    time::{Duration, Instant},
};

use commissaire::testkit::{Certificates, Failure};
use commissaire_integration::{Lateness, Order, Outcome, Place, Server, ensure};
use etcd_client::{Certificate, Client, ConnectOptions, Identity, Permission, TlsOptions};

use crate::examples::told;

/// The key of the service `name`.
pub(crate) fn key(name: &str) -> String {
    format!("/commissaire/config/{name}")
}

#[allow(clippy::needless_pass_by_value)] // for map_err
pub(crate) fn failed(error: etcd_client::Error) -> Failure {
    Failure::new(format!("etcd: {error}"))
}

/// A client of the etcd at `url`.
pub(crate) async fn client(url: &str) -> Outcome<Client> {
    Client::connect([url], None).await.map_err(failed)
}

/// Writes the configuration of the service `name`; returns the revision.
pub(crate) async fn put(client: &mut Client, name: &str, text: &str) -> Outcome<i64> {
    let put = client.put(key(name), text, None).await.map_err(failed)?;
    Ok(put.header().map_or(0, etcd_client::ResponseHeader::revision))
}

/// A port on which nobody answers.
fn closed() -> Outcome<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// What was begun then is over within 5 s, but for how late this machine is.
fn within_five_seconds(begin: Instant, lateness: &Lateness) -> Outcome {
    let (took, late) = (begin.elapsed(), lateness.worst());
    ensure!(took < Duration::from_secs(5) + 10 * late, "it took {took:?}, and a timer was late by {late:?}");
    Ok(())
}

fn shows(place: &Place, machines: &str) -> Outcome<Order> {
    let order = place.order("commissaire-storage-service")?;
    Ok(order.args(["--show-config", "--json"]).env("ETCD_MACHINES", machines))
}

#[tokio::test]
async fn the_key_of_a_service_is_a_layer_between_its_file_and_the_environment() -> Outcome {
    let server = Server::etcd(&[]).await?;
    let mut client = client(&server.uri()).await?;
    let text = "{\"bus-uri\": \"redis://:c4n4ry@etcd\",\n \"change-log\": 4,\n \"grace_seconds\": 5}";
    put(&mut client, "other", "{}").await?;
    let revision = put(&mut client, "storage", text).await?;
    let place = Place::new()?;
    let file = place.path().join("storage.conf");
    std::fs::write(&file, r#"{"change_log": 3, "grace_seconds": 4, "bus_exchange": "file"}"#)?;
    let order = shows(&place, &server.uri())?.arg("-c").arg(&file);
    let order = order.env("COMMISSAIRE_GRACE_SECONDS", "6").args(["--bus-uri", "memory://"]);
    let ended = order.run().await?.expect(0)?;
    ensure!(!format!("{ended:?}").contains("c4n4ry") && ended.err.is_empty(), "{ended:?}");
    let etcd = format!("from etcd /commissaire/config/storage {revision}");
    for (member, wanted) in [
        ("bus_uri", format!("\"memory://\" from command_line --bus-uri over \"redis://:***@etcd\" {etcd} 1")),
        ("change_log", format!("4 {etcd} 2 over 3 from file storage.conf 1 over 100000 from default")),
        (
            "grace_seconds",
            format!(
                "6 from environment COMMISSAIRE_GRACE_SECONDS over 5 {etcd} 3 over 4 from file storage.conf 1 over 10 from default"
            ),
        ),
        ("bus_exchange", "\"file\" from file storage.conf 1 over \"commissaire\" from default".to_owned()),
    ] {
        let is = told(&place, &ended.out, member)?;
        ensure!(is == wanted, "{member}: {is}\nbut it was to be: {wanted}");
    }
    // The same, as the command tells it, for people.
    let explain =
        place.cli(&["config", "explain", "storage", "change_log"])?.env("ETCD_MACHINES", server.uri());
    let ended = explain.run().await?.expect(0)?;
    let wanted = format!(
        "change_log = 4\n    from etcd:/commissaire/config/storage@{revision}:2:2\n    over 100000 from default\n"
    );
    ensure!(ended.out == wanted, "{ended:?}");
    // What is wrong in etcd is told with its place.
    let revision = put(&mut client, "storage", "{\n  \"change-logs\": 4}").await?;
    let ended = shows(&place, &server.uri())?.run().await?.expect(78)?;
    let says =
        format!("etcd:/commissaire/config/storage@{revision}:2:3: member \"change_logs\" is not known here");
    ensure!(ended.err.contains(&says), "{ended:?}");
    Ok(())
}

#[tokio::test]
async fn the_first_machine_that_answers_is_used() -> Outcome {
    let server = Server::etcd(&[]).await?;
    let mut client = client(&server.uri()).await?;
    put(&mut client, "storage", r#"{"change_log": 4}"#).await?;
    let place = Place::new()?;
    // One refuses, one takes connections and never says anything.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let silent = format!("http://{}", silent.local_addr()?);
    let refusing = format!("http://127.0.0.1:{}", closed()?);
    let lateness = Lateness::watch();
    for machines in [
        format!("{refusing},{}", server.uri()),
        format!(" {silent} , {} ", server.uri()),
        format!("{silent},{refusing},{silent},{refusing},{silent},{}/", server.uri()),
        format!("{},{silent}", server.uri()),
    ] {
        let begin = Instant::now();
        let ended = shows(&place, &machines)?.arg("--require-etcd").run().await?.expect(0)?;
        ensure!(told(&place, &ended.out, "change_log")?.starts_with("4 from etcd"), "{machines}: {ended:?}");
        within_five_seconds(begin, &lateness)?;
    }
    Ok(())
}

#[tokio::test]
async fn without_etcd_the_other_layers_are_used_unless_it_is_required() -> Outcome {
    let server = Server::etcd(&[]).await?;
    let place = Place::new()?;
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let silent = format!("http://{}", silent.local_addr()?);
    let refusing = format!("http://127.0.0.1:{}", closed()?);
    let mut client = client(&server.uri()).await?;
    let lateness = Lateness::watch();
    for (machines, text, says) in [
        (refusing.clone(), None, refusing.as_str()),
        (format!("{refusing},{silent}"), None, "no answer within 4 s"),
        (server.uri(), None, "has no key /commissaire/config/storage"),
        (server.uri(), Some("[1]"), "must be one JSON object"),
        (server.uri(), Some("{\"change_log\": 4"), "line 1 column"),
    ] {
        if let Some(text) = text {
            put(&mut client, "storage", text).await?;
        }
        let begin = Instant::now();
        let ended = shows(&place, &machines)?.env("COMMISSAIRE_CHANGE_LOG", "6").run().await?.expect(0)?;
        within_five_seconds(begin, &lateness)?;
        ensure!(told(&place, &ended.out, "change_log")?.starts_with("6 from environment"), "{ended:?}");
        ensure!(ended.err.contains(says) && ended.err.contains("WARNING"), "{says:?} is not in {ended:?}");
        let ended = shows(&place, &machines)?.arg("--require-etcd").run().await?.expect(78)?;
        ensure!(
            ended.err.contains(says) && ended.err.contains("--require-etcd"),
            "{says:?} is not in {ended:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn tls_with_a_client_certificate_and_a_password_is_spoken() -> Outcome {
    let certificates = Certificates::new()?;
    let (ca, cert, key_file) = (certificates.of("ca"), certificates.of("server"), certificates.key("server"));
    let settings = [
        ("cert-file", &*cert),
        ("key-file", &*key_file),
        ("trusted-ca-file", &*ca),
        ("client-cert-auth", "true"),
    ];
    let server = Server::etcd(&settings).await?;
    let url = format!("https://127.0.0.1:{}", server.port());
    let read = |path: String| std::fs::read(path);
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(read(ca.clone())?))
        .identity(Identity::from_pem(read(certificates.of("client"))?, read(certificates.key("client"))?));
    let options = ConnectOptions::new().with_tls(tls);
    let mut client = Client::connect([&url], Some(options)).await.map_err(failed)?;
    put(&mut client, "storage", r#"{"change_log": 4}"#).await?;
    for (user, role) in [("root", "root"), ("storage", "reader")] {
        client.role_add(role).await.map_err(failed)?;
        client.user_add(user, "c4n4ry", None).await.map_err(failed)?;
        client.user_grant_role(user, role).await.map_err(failed)?;
    }
    client.role_grant_permission("reader", Permission::read(key("storage"))).await.map_err(failed)?;
    client.auth_enable().await.map_err(failed)?;

    let place = Place::new()?;
    let (mine, my_key) = (certificates.of("client"), certificates.key("client"));
    let all = [
        ("ETCD_CACERT", ca.as_str()),
        ("ETCD_TLSPEM", &mine),
        ("ETCD_TLSKEY", &my_key),
        ("ETCD_USERNAME", "storage"),
        ("ETCD_PASSWORD", "c4n4ry"),
    ];
    let with = |change: &[(&str, &str)]| -> Outcome<Order> {
        let order = shows(&place, &url)?.arg("--require-etcd");
        let order = all.iter().fold(order, |order, (name, value)| order.env(name, value));
        Ok(change.iter().fold(order, |order, (name, value)| order.env(name, value)))
    };
    let ended = with(&[])?.run().await?.expect(0)?;
    ensure!(told(&place, &ended.out, "change_log")?.starts_with("4 from etcd"), "{ended:?}");
    // Whatever is not as it must be is told, and no secret with it.
    let (stranger, its_key, other) =
        (certificates.of("stranger"), certificates.key("stranger"), certificates.of("other"));
    for (change, says) in [
        (&[("ETCD_CACERT", other.as_str())][..], "certificate"),
        (&[("ETCD_TLSPEM", &stranger), ("ETCD_TLSKEY", &its_key)], &url),
        (&[("ETCD_TLSKEY", "")], "ETCD_TLSPEM is set, but ETCD_TLSKEY is not"),
        (&[("ETCD_TLSPEM", "")], "ETCD_TLSKEY is set, but ETCD_TLSPEM is not"),
        (&[("ETCD_TLSPEM", ""), ("ETCD_TLSKEY", "")], &url),
        (&[("ETCD_PASSWORD", "wr0ng")], "authentication failed"),
        (&[("ETCD_PASSWORD", "")], "ETCD_USERNAME is set, but ETCD_PASSWORD is not"),
        (&[("ETCD_USERNAME", ""), ("ETCD_PASSWORD", "")], &url),
        (&[("ETCD_CACERT", "/nowhere/ca.pem")], "ETCD_CACERT: cannot read /nowhere/ca.pem"),
        (&[("ETCD_CACERT", &my_key)], "holds no certificate in PEM"),
        (
            &[("ETCD_MACHINES", "http://127.0.0.1:1")],
            "ETCD_TLSPEM is set, but no URL of ETCD_MACHINES is https",
        ),
        (&[("ETCD_MACHINES", "127.0.0.1:1")], "must be URLs such as"),
        (&[("ETCD_MACHINES", "https://me:c4n4ry@127.0.0.1:1")], "ETCD_USERNAME and ETCD_PASSWORD"),
    ] {
        let ended = with(change)?.run().await?.expect(78)?;
        ensure!(ended.err.contains(says), "{change:?}: {says:?} is not in {ended:?}");
        ensure!(!format!("{ended:?}").contains("c4n4ry"), "{change:?}: {ended:?}");
    }
    Ok(())
}
