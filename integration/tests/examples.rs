//! The files in etc/ work as they stand, and what does not work is refused with its place.

use std::{fs, path::Path};

use commissaire_integration::{Failure, Order, Outcome, Place, ensure};
use serde_json::Value;

/// The names of the services with an example, by the files in etc/commissaire.
fn examples() -> Outcome<Vec<(String, String)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/commissaire");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        found.push((name, path.display().to_string()));
    }
    ensure!(found.len() >= 6, "there are only {found:?}");
    Ok(found)
}

/// The program of the service `name`, told to check the file at `path`.
fn checked(place: &Place, name: &str, path: &str) -> Outcome<Order> {
    Ok(place.order(&format!("commissaire-{name}-service"))?.args(["--check-config", "-c", path]))
}

#[tokio::test]
async fn every_example_is_a_configuration_that_its_service_takes() -> Outcome {
    let place = Place::new()?;
    for (name, path) in examples()? {
        let ended = checked(&place, &name, &path)?.run().await?.expect(0)?;
        ensure!(ended.out.is_empty() && ended.err.is_empty(), "{name}: {ended:?}");
    }
    Ok(())
}

/// What the first Commissaire brought, or its users wrote after its documentation.
#[tokio::test]
async fn files_of_the_first_commissaire_are_taken_as_they_are() -> Outcome {
    let place = Place::new()?;
    let file = place.path().join("old.conf");
    let server = r#""server_url": "http://127.0.0.1:2379", "models": ["*"]"#;
    let manager = r#""name": "OpenshiftA1", "server_url": "http://192.168.152.102:8080/""#;
    for (name, content) in [
        ("storage", format!(r#"{{"storage_handlers": [{{"name": "etcd", {server}}}], "debug": false}}"#)),
        ("storage", format!(r#"{{"storage-handlers": [{{"name": "commissaire.storage.etcd", {server}}}]}}"#)),
        ("storage", format!(r#"{{"storage_handlers": {{"type": "commissaire.storage.etcd", {server}}}}}"#)),
        ("containermgr", format!(r#"{{"container_handlers": [{{"handler": "kubernetes", {manager}}}]}}"#)),
        (
            "containermgr",
            format!(
                r#"{{"container-handlers": [{{"handler": "commissaire.containermgr.kubernetes", {manager}}}]}}"#
            ),
        ),
        ("investigator", r#"{"debug": false, "bus_uri": "redis://127.0.0.1:6379"}"#.to_owned()),
        ("watcher", r#"{"bus-uri": "redis://127.0.0.1:6379", "bus-exchange": "commissaire"}"#.to_owned()),
        ("clusterexec", r#"{"bus-uri": "redis://127.0.0.1:6379", "debug": true}"#.to_owned()),
    ] {
        fs::write(&file, &content)?;
        let ended = checked(&place, name, &file.display().to_string())?.run().await?.expect(0)?;
        ensure!(ended.err.is_empty(), "{name}: {content}: {}", ended.err);
    }
    Ok(())
}

#[tokio::test]
async fn what_no_service_knows_is_refused_with_its_place() -> Outcome {
    let place = Place::new()?;
    let file = place.path().join("x.conf");
    for (content, says) in [
        (r#"{"bogus-member": 1}"#, "bogus_member"),
        (r#"{"bus_uri": 5}"#, "bus_uri"),
        (r#"{"bus-exchange": "not one token"}"#, "bus_exchange"),
        (r#"{"grace_seconds": "long"}"#, "grace_seconds"),
        ("{\n  \"bus_uri\": \"memory://\",,\n}", "line 2 column 26"),
        ("[]", "object"),
        (r#"{"a": 1, "a": 2}"#, "twice"),
    ] {
        fs::write(&file, content)?;
        for (name, _) in examples()? {
            let path = file.display().to_string();
            let ended = checked(&place, &name, &path)?.run().await?.expect(78)?;
            ensure!(ended.err.contains(says) && ended.err.contains("x.conf"), "{content}: {ended:?}");
        }
    }
    Ok(())
}

/// What a program printed of one member, as `VALUE from PLACE over VALUE from PLACE`, the folder of `place` cut out.
pub(crate) fn told(place: &Place, out: &str, member: &str) -> Outcome<String> {
    for line in out.lines() {
        let setting: Value = serde_json::from_str(line).map_err(std::io::Error::from)?;
        let names: Vec<&str> =
            setting["member"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if names.join(".") != member {
            continue;
        }
        let overrode = setting["overrode"].as_array().into_iter().flatten();
        let all: Vec<String> = [&setting].into_iter().chain(overrode).map(shown).collect();
        return Ok(all.join(" over ").replace(&format!("{}/", place.path().display()), ""));
    }
    Err(Failure::new(format!("{member} is not in {out}")))
}

fn shown(setting: &Value) -> String {
    let from = &setting["from"];
    let words = ["file", "key", "revision", "line", "variable", "option"].map(|name| match &from[name] {
        Value::String(text) => format!(" {text}"),
        Value::Null => String::new(),
        other => format!(" {other}"),
    });
    format!("{} from {}{}", setting["value"], from["layer"].as_str().unwrap_or_default(), words.concat())
}

#[tokio::test]
async fn each_layer_overrides_the_one_before_and_says_so() -> Outcome {
    let place = Place::new()?;
    let file = place.path().join("storage.conf");
    fs::write(&file, "{\n  \"bus-uri\": \"redis://:c4n4ry@file\",\n  \"change_log\": 5\n}")?;
    let path = file.display().to_string();
    let program = |arguments: &[&str]| -> Outcome<Order> {
        Ok(place
            .order("commissaire-storage-service")?
            .args(["-c", &path, "--show-config", "--json"])
            .args(arguments)
            .env("COMMISSAIRE_BUS_URI", "redis://:c4n4ry@variable")
            .env("COMMISSAIRE_CHANGE_LOG", "6")
            .env("COMMISSAIRE_IDENTITY__NAME", "12"))
    };
    let ended = program(&["--bus-uri", "memory://"])?.run().await?.expect(0)?;
    ensure!(!format!("{ended:?}").contains("c4n4ry"), "{ended:?}");
    let uri = told(&place, &ended.out, "bus_uri")?;
    let wanted = "\"memory://\" from command_line --bus-uri over \"redis://:***@variable\" from environment \
                  COMMISSAIRE_BUS_URI over \"redis://:***@file\" from file storage.conf 2";
    ensure!(uri == wanted, "{uri}");
    let log = told(&place, &ended.out, "change_log")?;
    let wanted =
        "6 from environment COMMISSAIRE_CHANGE_LOG over 5 from file storage.conf 3 over 100000 from default";
    ensure!(log == wanted, "{log}");
    let name = told(&place, &ended.out, "identity.name")?;
    ensure!(name == "\"12\" from environment COMMISSAIRE_IDENTITY__NAME", "{name}");

    // The same, as the commands tell it.
    let explain = |service: &str, key: &str| -> Outcome<Order> {
        Ok(place
            .cli(&["config", "explain", service, key, "--json", "-c", &path])?
            .env("COMMISSAIRE_CHANGE_LOG", "6"))
    };
    let ended = explain("storage", "change_log")?.run().await?.expect(0)?;
    ensure!(told(&place, &ended.out, "change_log")? == log && ended.out.lines().count() == 1, "{ended:?}");
    explain("storage", "nothing")?.run().await?.expect(5)?;
    explain("nobody", "bus_uri")?.run().await?.expect(64)?;
    // For `up` the members of a service stand below its name.
    let ended = explain("up", "bus_uri")?.run().await?.expect(78)?;
    ensure!(ended.err.contains("storage.conf:3:3: member \"change_log\" is not known here"), "{ended:?}");
    fs::write(&file, r#"{"storage": {"change-log": 7}}"#)?;
    let ended =
        explain("up", "storage")?.env("COMMISSAIRE_STORAGE__CHANGE_LOG", "8").run().await?.expect(0)?;
    let log = told(&place, &ended.out, "storage.change_log")?;
    let wanted = "8 from environment COMMISSAIRE_STORAGE__CHANGE_LOG over 7 from file storage.conf 1 over 100000 from default";
    ensure!(log == wanted, "{log}");
    Ok(())
}

#[tokio::test]
async fn all_that_is_wrong_is_told_at_once() -> Outcome {
    let place = Place::new()?;
    let file = place.path().join("x.conf");
    fs::write(&file, "{\"change-logs\": 1,\n \"bus_uri\": 5}")?;
    let order = checked(&place, "storage", &file.display().to_string())?;
    let ended = order.env("COMMISSAIRE_GRACE_SECONDS", "long").run().await?.expect(78)?;
    for says in [
        "x.conf:1:2: member \"change_logs\" is not known here: did you mean \"change_log\"?",
        "x.conf:2:2: member \"bus_uri\" must be",
        "COMMISSAIRE_GRACE_SECONDS: member \"grace_seconds\" must be",
    ] {
        ensure!(ended.err.contains(says), "{says:?} is not in {}", ended.err);
    }
    // What sets nothing is said where something was probably meant, and is no fault.
    fs::write(&file, "{}")?;
    let order = checked(&place, "storage", &file.display().to_string())?;
    let ended = order.env("COMMISSAIRE_BUS_URL", "redis://host").run().await?.expect(0)?;
    ensure!(ended.err.contains("did you mean COMMISSAIRE_BUS_URI?"), "{ended:?}");
    Ok(())
}
