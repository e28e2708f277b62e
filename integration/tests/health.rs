//! `/healthz`, `/readyz`, `/metrics`: what supervisors and Prometheus are told.

use std::{
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::PermissionsExt,
    time::{Duration, Instant},
};

use commissaire_integration::{
    Kind, Lateness, Measures, Outcome, PATIENCE, Place, Site, each_server, ensure, get, until,
};

each_server!(a_service_is_ready_only_while_its_broker_hands_it_messages);

/// How long until a dead server is noticed.
pub(crate) const NOTICED: Duration = Duration::from_secs(15);

#[tokio::test]
async fn health_and_metrics_are_served_on_an_address_and_on_a_socket() -> Outcome {
    let place = Place::new()?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let socket = place.path().join("admin.sock");
    for admin in [format!("127.0.0.1:{port}"), socket.display().to_string()] {
        let up = place.up(&["--admin", &admin]).await?;
        for (path, status, part) in [
            ("/healthz", 200, "alive"),
            (
                "/readyz",
                200,
                "bus connected\nstorage consuming\ninvestigator consuming\nwatcher consuming\ncontainermgr consuming\nclusterexec consuming\nsimple consuming",
            ),
            ("/metrics", 200, "# EOF"),
            ("/secrets", 404, "/metrics"),
        ] {
            let answer = get(&admin, path).await?;
            ensure!(answer.status == status && answer.body.contains(part), "{path}: {answer:?}");
        }
        let head = get(&admin, "/metrics").await?.head.to_lowercase();
        ensure!(head.contains("content-type: application/openmetrics-text"), "{head}");
        if admin.contains('/') {
            let mode = std::fs::metadata(&socket)?.permissions().mode() & 0o777;
            ensure!(mode == 0o600, "the admin socket has mode {mode:o}");
        }
        up.terminate().await?.expect(0)?;
    }
    ensure!(!socket.exists(), "the admin socket is still there");
    Ok(())
}

#[tokio::test]
async fn an_admin_address_that_is_taken_is_refused() -> Outcome {
    let place = Place::new()?;
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = taken.local_addr()?.to_string();
    let order = place.cli(&["up", "--admin", &address, "--data-dir"])?.arg(place.data());
    order.run().await?.expect(78)?.tells(&["--admin", &address])
}

#[tokio::test]
async fn the_metrics_are_consistent_with_each_other_and_with_what_was_done() -> Outcome {
    let place = Place::new()?;
    let admin = place.path().join("admin.sock").display().to_string();
    let _up = place.up(&["--admin", &admin]).await?;
    for (code, method, params) in [
        (0, "simple.add", "[2, 3]"),
        (0, "simple.wordy_add", "[2, 3]"),
        (1, "simple.add", r#"[2, "three"]"#),
        (1, "simple.divide", "[2, 3]"),
        (0, "storage.store", "{}"),
    ] {
        place.cli(&["call", method, params])?.run().await?.expect(code)?;
    }
    let measures = Measures::of(&admin).await?;
    for (method, outcome, times) in [
        ("simple.add", "ok", 2.0),
        ("simple.add", "remote", 1.0),
        ("simple.wordy_add", "ok", 1.0),
        ("storage.store", "ok", 1.0),
        // A name that a caller made up is no label: there would be no end of them.
        ("simple.divide", "remote", 0.0),
    ] {
        let found = measures.sum("calls_total", &[("method", method), ("outcome", outcome)]);
        ensure!(found == times, "{method} {outcome} was counted {found} times");
    }
    for method in ["simple.add", "simple.wordy_add", "storage.store"] {
        let calls = measures.sum("calls_total", &[("method", method)]);
        let timed = measures.sum("call_seconds_count", &[("method", method)]);
        let buckets = measures.sum("call_seconds_bucket", &[("method", method), ("le", "+Inf")]);
        ensure!(
            calls == timed && calls == buckets,
            "{method}: {calls} calls, {timed} times, {buckets} in buckets"
        );
    }
    for source in ["service simple", "service storage", "service storage.lease", "control simple"] {
        let consuming = measures.sum("consuming", &[("source", source)]);
        ensure!(consuming == 1.0, "{source} consumes: {consuming}");
    }
    Ok(())
}

async fn a_service_is_ready_only_while_its_broker_hands_it_messages(kind: Kind) -> Outcome {
    let mut site = Site::alone(kind).await?;
    let back = kind.back();
    let admin = site.place.path().join("admin.sock").display().to_string();
    let _simple = site.service("simple", &["--admin", &admin]).await?;
    let lateness = Lateness::watch();
    ready(&admin, true, back, &lateness).await?;

    site.broker.server()?.stop()?;
    ready(&admin, false, NOTICED, &lateness).await?;
    let alive = get(&admin, "/healthz").await?;
    ensure!(alive.status == 200, "without its broker it is not alive: {alive:?}");
    // It is not ready as soon as either is said.
    gauge(&admin, "consuming", &[("source", "service simple")], 0.0).await?;
    gauge(&admin, "bus_connected", &[], 0.0).await?;
    site.broker.server()?.cont()?;
    ready(&admin, true, back, &lateness).await?;

    gauge(&admin, "bus_connected", &[], 1.0).await?;

    site.broker.server()?.kill();
    ready(&admin, false, NOTICED, &lateness).await?;
    site.broker.server()?.restart().await?;
    ready(&admin, true, back, &lateness).await?;
    site.cli(&["call", "simple.add", "[2, 3]"])?.run().await?.expect(0).map(drop)
}

/// Waits until a gauge says so.
async fn gauge(admin: &str, name: &str, labels: &[(&str, &str)], wanted: f64) -> Outcome {
    until(format_args!("{name} is {wanted}"), NOTICED, async || {
        Measures::of(admin).await.is_ok_and(|found| found.sum(name, labels) == wanted)
    })
    .await
}

/// Waits until `/readyz` says so; fails when it takes longer than `limit` by a good timer.
pub(crate) async fn ready(admin: &str, wanted: bool, limit: Duration, lateness: &Lateness) -> Outcome {
    let begun = Instant::now();
    let status = if wanted { 200 } else { 503 };
    until(format_args!("/readyz is {status}"), limit + PATIENCE, async || {
        get(admin, "/readyz").await.is_ok_and(|answer| answer.status == status)
    })
    .await?;
    let took = begun.elapsed();
    println!("/readyz was {status} after {took:?}");
    ensure!(took <= limit + lateness.worst(), "/readyz was {status} only after {took:?}");
    Ok(())
}
