//! `commissaire call`: results, errors, exit codes.

use std::time::{Duration, Instant};

use commissaire_integration::{Kind, Outcome, Place, Signal, Site, each_bus, ensure};
use serde_json::{Value, json};

each_bus!(
    a_result_is_one_line_of_json_and_exit_code_0,
    an_error_of_the_service_is_one_line_of_json_and_exit_code_1,
    a_record_that_breaks_rules_is_refused_with_every_fault,
    a_service_that_is_gone_is_exit_code_2_at_once,
    parameters_come_from_standard_input_as_well,
);

/// How long it may take to learn that nobody answers.
const NOBODY: Duration = Duration::from_millis(250);

async fn a_result_is_one_line_of_json_and_exit_code_0(kind: Kind) -> Outcome {
    let site = Site::on(kind).await?;
    let _simple = site.service("simple", &[]).await?;
    for (method, params, result) in [
        ("simple.add", r#"{"x": 2, "y": 3}"#, json!(5)),
        ("simple.add", "[2, -3]", json!(-1)),
        ("simple.wordy_add", "[2, 3]", json!("2 + 3 = 5")),
    ] {
        let ended = site.cli(&["call", method, params])?.run().await?.expect(0)?;
        ensure!(ended.out.lines().count() == 1 && ended.err.is_empty(), "it said {ended:?}");
        ensure!(ended.json()? == result, "{method} {params} gave {}", ended.out);
    }
    Ok(())
}

async fn an_error_of_the_service_is_one_line_of_json_and_exit_code_1(kind: Kind) -> Outcome {
    let site = Site::on(kind).await?;
    let _simple = site.service("simple", &[]).await?;
    let data = site.place.data();
    let _storage = site.service("storage", &["--data-dir", &data.display().to_string()]).await?;
    let host = r#"{"model_type_name": "Host", "model_json_data": {"address": "10.0.0.7"}}"#;
    for (method, params, code, part) in [
        ("simple.divide", "[2, 3]", -32601, "divide"),
        ("simple.add", r#"{"x": 2, "y": "three"}"#, -32602, "y: "),
        ("simple.add", r#"{"x": 2}"#, -32602, "y: "),
        ("simple.add", r#"{"x": 2, "y": 3, "z": 4}"#, -32602, "z"),
        ("simple.add", "[9223372036854775807, 1]", -32602, "y: "),
        ("simple.add", "{nonsense", -32700, "line 1 column 2"),
        ("storage.get", host, -20000, "10.0.0.7"),
        ("storage.list", r#"{"model_type_name": "Hots"}"#, -32602, "Host"),
    ] {
        let ended = site.cli(&["call", method, params])?.run().await?.expect(1)?;
        ensure!(ended.out.is_empty() && ended.err.lines().count() == 1, "it said {ended:?}");
        let error = ended.error()?;
        ensure!(error["code"] == code, "{method} {params} gave {error}");
        ensure!(error["message"].as_str().is_some_and(|text| text.contains(part)), "{part:?}: {error}");
    }
    Ok(())
}

async fn a_record_that_breaks_rules_is_refused_with_every_fault(kind: Kind) -> Outcome {
    let site = Site::on(kind).await?;
    let data = site.place.data();
    let _storage = site.service("storage", &["--data-dir", &data.display().to_string()]).await?;
    let record = json!({"address": "a/b", "cpus": -1, "memory": "much", "colour": "blue"});
    let params = json!({"model_type_name": "Host", "model_json_data": record}).to_string();
    let error = site.cli(&["call", "storage.save", &params])?.run().await?.expect(1)?.error()?;
    ensure!(error["code"] == -32602, "{error}");
    for field in ["address", "cpus", "memory", "colour"] {
        let faults = error["data"]["faults"].as_array().map(Vec::as_slice).unwrap_or_default();
        ensure!(faults.iter().any(|fault| fault["field"] == field), "no fault of {field}: {error}");
        ensure!(error["message"].as_str().is_some_and(|text| text.contains(field)), "{field}: {error}");
    }
    let listed = site.cli(&["call", "storage.list", r#"["Hosts"]"#])?.run().await?.expect(0)?.json()?;
    ensure!(listed == Value::Array(Vec::new()), "it was saved all the same: {listed}");
    Ok(())
}

async fn a_service_that_is_gone_is_exit_code_2_at_once(kind: Kind) -> Outcome {
    let site = Site::on(kind).await?;
    let simple = site.service("simple", &[]).await?;
    site.cli(&["call", "simple.add", "[2, 3]"])?.run().await?.expect(0)?;
    simple.kill().await?;
    let died = Instant::now();
    let mut best = Duration::MAX;
    // What a whole program takes that does the same with a bus but does not ask for an answer: the control.
    let mut control = Duration::MAX;
    while died.elapsed() < 4 * NOBODY || best == Duration::MAX {
        let order = site.cli(&["publish", "notify.control.timer", "1"])?;
        let begun = Instant::now();
        order.run().await?.expect(0)?;
        control = control.min(begun.elapsed());

        let order = site.cli(&["call", "simple.add", "[2, 3]"])?;
        let begun = Instant::now();
        let ended = order.run().await?;
        let took = begun.elapsed();
        if begun - died > NOBODY {
            ended.expect(2)?.tells(&["simple", "no running service"])?;
            best = best.min(took);
        }
    }
    println!("nobody answers: known after {best:?}; a program that only publishes takes {control:?}");
    ensure!(best <= control + NOBODY, "known only after {best:?}, control {control:?}");
    Ok(())
}

async fn parameters_come_from_standard_input_as_well(kind: Kind) -> Outcome {
    let site = Site::on(kind).await?;
    let _simple = site.service("simple", &[]).await?;
    let ended = site.cli(&["call", "simple.add", "-"])?.input("[2,\n 3]\n").run().await?.expect(0)?;
    ensure!(ended.json()? == 5, "it said {ended:?}");
    Ok(())
}

#[tokio::test]
async fn a_bus_that_cannot_be_reached_is_exit_code_3() -> Outcome {
    let place = Place::new()?;
    for uri in ["unix:///nowhere/bus.sock", "redis://127.0.0.1:1"] {
        let order = place.cli(&["call", "simple.add", "[2, 3]"])?.env("COMMISSAIRE_BUS_URI", uri);
        let ended = order.run().await?.expect(3)?;
        ensure!(ended.err.lines().count() == 1, "it said {ended:?}");
    }
    let none = place.cli(&["call", "simple.add", "[2, 3]"])?.run().await?.expect(3)?;
    none.tells(&["no bus", "commissaire up"])
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_exit_code_4_at_the_time_that_was_said() -> Outcome {
    let site = Site::on(Kind::Memory).await?;
    let simple = site.service("simple", &[]).await?;
    simple.signal(Signal::STOP)?;
    let limit = Duration::from_millis(700);
    let begun = Instant::now();
    let ended = site.cli(&["call", "simple.add", "[2, 3]", "--timeout", "700ms"])?.run().await?.expect(4)?;
    ensure!(begun.elapsed() >= limit, "it gave up after {:?}", begun.elapsed());
    ended.tells(&["simple.add", "maybe executed"])?;
    simple.signal(Signal::CONT)?;
    site.cli(&["call", "simple.add", "[2, 3]"])?.run().await?.expect(0).map(drop)
}

#[tokio::test]
async fn wrong_usage_is_exit_code_64_and_help_is_0() -> Outcome {
    let place = Place::new()?;
    for arguments in [
        &["frobnicate"][..],
        &["call"],
        &["call", "simple.add", "[2, 3]", "--timeout", "soon"],
        &["call", "simple"],
        &["call", "simple.add", "5"],
        &["listen", "a b"],
        &["up", "--frobnicate"],
    ] {
        let ended = place.cli(arguments)?.run().await?.expect(64)?;
        ensure!(ended.out.is_empty() && !ended.err.is_empty(), "{arguments:?}: it said {ended:?}");
    }
    for arguments in [&["--help"][..], &["up", "--help"], &["--version"]] {
        let ended = place.cli(arguments)?.run().await?.expect(0)?;
        ensure!(!ended.out.is_empty() && ended.err.is_empty(), "{arguments:?}: it said {ended:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_configuration_that_cannot_be_used_is_exit_code_78() -> Outcome {
    let place = Place::new()?;
    for (uri, parts) in [
        ("carrier-pigeon://loft", &["carrier-pigeon", "memory", "unix", "redis", "rediss"][..]),
        ("not a uri", &["bus_uri"]),
        ("redis://127.0.0.1:1/?durabilty=strict", &["durabilty", "durability"]),
        ("memory://host", &["memory://"]),
    ] {
        let by_option = place.cli(&["call", "simple.add", "[2, 3]", "--bus-uri", uri])?;
        by_option.run().await?.expect(78)?.tells(parts)?;
        let by_environment = place.cli(&["call", "simple.add", "[2, 3]"])?.env("COMMISSAIRE_BUS_URI", uri);
        by_environment.run().await?.expect(78)?.tells(parts)?;
        let service = place.order("commissaire-simple-service")?.args(["--bus-uri", uri]);
        service.run().await?.expect(78)?.tells(parts)?;
    }
    Ok(())
}
