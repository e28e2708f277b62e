//! A `bus_uri` never shows what may be a secret.

use commissaire::{BusOptions, BusUri, Durability, ErrorKind, connect};

const CANARY: &str = "c4n4ry";
/// The canary percent-encoded, as a careless printer would show it, and in upper case, as a host would be folded.
const ENCODED: &str = "%634n4%72y";

/// URIs that can be read, with the canary where a secret may stand.
const SECRETS: &[&str] = &[
    "redis://user:CANARY@127.0.0.1:1/0",
    "redis://:CANARY@127.0.0.1:1",
    "redis://CANARY@127.0.0.1:1",
    "rediss://user:pass%20CANARY@127.0.0.1:1",
    "redis://127.0.0.1:1?password=CANARY",
    "redis://127.0.0.1:1?a=b&token=x%26CANARY&c=d",
    "redis:CANARY@127.0.0.1",
    "redis:user:CANARY@127.0.0.1",
    "redis:/user:CANARY@127.0.0.1",
    "redis:///user:CANARY@127.0.0.1",
    "redis:/user:?CANARY&x@127.0.0.1",
    "memory:CANARY",
    "memory://?listen=CANARY",
    "memory://?password=CANARY",
    "unix:CANARY",
    "unix://user:CANARY@host/run/none/bus.sock",
    "unix:///run/none/bus.sock?token=CANARY",
    "amqp://user:CANARY@host/vhost",
    "nats://CANARY@host:4222",
    "kafka://user:CANARY@host",
    "user:CANARY@host",
];

/// Texts that cannot be read as URIs.
const BROKEN: &[&str] = &[
    "redis://127.0.0.1:1/0#CANARY",
    "redis://user:a/CANARY@host",
    "redis://user:a?CANARY@host",
    "redis://user:a#CANARY@host",
    "redis://user:1/CANARY@host",
    "redis://user:1?x=CANARY@host",
    "redis://user:CANARY@host:99999",
    "redis://user:CANARY@[::1",
    "redis://user:CANARY@ho st",
    "//user:CANARY@host",
    ":CANARY",
    "CANARY",
    "",
];

fn assert_hidden(what: &str, shown: &str) {
    let shown = shown.to_lowercase();
    assert!(!shown.contains(CANARY) && !shown.contains(ENCODED), "{what} shows the secret: {shown}");
}

#[tokio::test]
async fn no_secret_is_shown_by_a_uri_or_by_a_failure_to_connect() {
    for spelling in [CANARY, ENCODED] {
        for uri in SECRETS {
            let uri = uri.replace("CANARY", spelling);
            let parsed: BusUri = uri.parse().unwrap_or_else(|e| panic!("{uri} cannot be read: {e}"));
            assert_hidden("Display", &parsed.to_string());
            assert_hidden("Debug", &format!("{parsed:?} {parsed:#?}"));
            assert_hidden("Debug within", &format!("{:?}", Some((&parsed, 1))));
            let options = parsed.options(&["durability"]);
            if let Err(error) = &options {
                assert_hidden("an error about options", &format!("{error} {error:?} {}", error.chain()));
            }
            if uri.starts_with("memory://?listen") {
                continue; // connects, to a socket of this name
            }
            let connecting = connect(&parsed, &BusOptions::default(), commissaire_transports::ALL).await;
            let error = connecting.map(|_| ()).expect_err(&uri);
            assert_hidden("a failure to connect", &format!("{error} {error:?} {}", error.chain()));
        }
        for text in BROKEN {
            let error = text.replace("CANARY", spelling).parse::<BusUri>().map(|_| ()).expect_err(text);
            assert_hidden("a failure to read", &format!("{error} {error:?} {}", error.chain()));
        }
    }
}

#[test]
fn what_is_no_secret_is_shown() {
    let shown = |uri: &str| uri.parse::<BusUri>().unwrap().to_string();
    assert_eq!(shown("redis://user:secret@host:6380/2?a=b&c"), "redis://user:***@host:6380/2?a=***&c=***");
    assert_eq!(shown("unix:///run/bus.sock"), "unix:///run/bus.sock");
    assert_eq!(shown("memory://"), "memory://");
}

#[test]
fn an_option_is_known_and_stands_once() {
    let options = |uri: &str| uri.parse::<BusUri>().unwrap().options(&["one", "two"]);
    assert_eq!(options("x://h?one=1&two=%26").unwrap()["two"], "&");
    for (uri, says) in [("x://h?three=3", "one, two"), ("x://h?one=1&one=2", "twice")] {
        let error = options(uri).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[tokio::test]
async fn an_unknown_scheme_is_told_the_known_ones() {
    let uri = "kafka://host".parse().unwrap();
    let error =
        connect(&uri, &BusOptions::default(), commissaire_transports::ALL).await.unwrap_err().to_string();
    for scheme in commissaire_transports::ALL.iter().flat_map(|driver| driver.schemes) {
        assert!(error.contains(scheme), "{error} does not name {scheme}");
    }
}

#[test]
fn a_configuration_does_not_show_its_bus_uri() {
    let layers = commissaire::config::Layers::new().set("bus_uri", Some("redis://user:c4n4ry@host"));
    assert_hidden("the layers", &format!("{layers:?}"));
    assert_hidden("the configuration", &format!("{:?}", layers.load().unwrap()));
    let flag: commissaire::config::Hidden = "redis://user:c4n4ry@host".parse().unwrap();
    assert_hidden("the option", &format!("{flag:?}"));
}

#[test]
fn the_durability_that_is_asked_for_is_one_of_three() {
    let demanded = |uri: &str| uri.parse::<BusUri>().unwrap().demanded();
    for (uri, wanted) in [
        ("x://h", Durability::None),
        ("x://h?durability=relaxed", Durability::None),
        ("x://h?a=b&durability=strict", Durability::Kill),
        ("x://h?durability=strict%2Dpower", Durability::Power),
    ] {
        assert_eq!(demanded(uri).unwrap(), wanted, "{uri}");
    }
    for wrong in ["", "Strict", "kill"] {
        let error = demanded(&format!("x://h?durability={wrong}")).unwrap_err();
        assert!(*error.kind() == ErrorKind::Config && error.to_string().contains("strict-power"), "{error}");
    }
}

#[test]
fn a_part_is_decoded_or_named() {
    assert_eq!(BusUri::decoded("p%40ss%2Fw%C3%A9", "password").unwrap(), "p@ss/w\u{e9}");
    let error = BusUri::decoded("c4n4ry%FF", "password").unwrap_err().to_string();
    assert!(error.contains("password") && !error.contains(CANARY), "{error}");
}
