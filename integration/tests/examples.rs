//! The files in etc/ work as they stand, and what does not work is refused with its place.

use std::{fs, path::Path};

use commissaire_integration::{Order, Outcome, Place, ensure};

/// The names of the services with an example, by the files in etc/commissaire.
fn examples() -> Outcome<Vec<(String, String)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../etc/commissaire");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        found.push((name, path.display().to_string()));
    }
    ensure!(found.len() >= 2, "there are only {found:?}");
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
        for name in ["simple", "storage"] {
            let path = file.display().to_string();
            let ended = checked(&place, name, &path)?.run().await?.expect(78)?;
            ensure!(ended.err.contains(says) && ended.err.contains("x.conf"), "{content}: {ended:?}");
        }
    }
    Ok(())
}
