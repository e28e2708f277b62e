//! Configurations: every value knows where it was set, and all that is wrong is told at once.

use std::{fs, path::PathBuf};

use commissaire::config::{ConfigFile, Layers, NoMembers, OwnMembers, Setting};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Painting {
    colours: Vec<String>,
    brushes: u32,
    fast: bool,
    store: Store,
    api_token: String,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Store {
    server_url: String,
    depth: u8,
}

impl Default for Painting {
    fn default() -> Self {
        let store = Store::default();
        Self { colours: vec!["red".into()], brushes: 3, fast: false, store, api_token: String::new() }
    }
}

const MEMBERS: OwnMembers = OwnMembers::of::<Painting>();

fn file(dir: &tempfile::TempDir, text: &str) -> (ConfigFile, PathBuf) {
    let path = dir.path().join("painter.conf");
    fs::write(&path, text).unwrap();
    (ConfigFile::Named(path.clone()), path)
}

fn refused(text: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let (file, path) = file(&dir, text);
    let outcome = Layers::new().own(MEMBERS).file(&file).and_then(Layers::load);
    let error = outcome.expect_err(text).to_string();
    error.replace(path.to_str().unwrap(), "F")
}

fn found<'s>(settings: &'s [Setting], member: &str) -> &'s Setting {
    settings.iter().find(|setting| setting.member.join(".") == member).unwrap()
}

fn told(setting: &Setting) -> String {
    let former = setting.overrode.iter().map(|former| format!(" over {} from {}", former.value, former.from));
    format!("{} from {}{}", setting.value, setting.from, former.collect::<String>())
}

#[test]
fn every_value_tells_where_it_was_set_and_what_it_overrode() {
    let dir = tempfile::tempdir().unwrap();
    let text = "{\n  \"bus-uri\": \"redis://me:c4n4ry@host\",\n  \"store\": {\"depth\": 7},\n  \"api-token\": \"c4n4ry\"\n}";
    let (file, path) = file(&dir, text);
    let layers = Layers::new().own(MEMBERS).file(&file).unwrap();
    let config = layers.set("bus_uri", Some("memory://")).set("bus_exchange", Some("b")).load().unwrap();
    let settings = config.settings();
    let told = |member| told(found(&settings, member)).replace(path.to_str().unwrap(), "F");
    assert_eq!(told("bus_uri"), r#""memory://" from --bus-uri over "redis://me:***@host" from F:2:3"#);
    assert_eq!(told("bus_exchange"), r#""b" from --bus-exchange over "commissaire" from default"#);
    assert_eq!(told("store.depth"), "7 from F:3:13 over 0 from default");
    assert_eq!(told("store.server_url"), r#""" from default"#);
    assert_eq!(told("colours"), r#"["red"] from default"#);
    assert_eq!(told("api_token"), r#""***" from F:4:3 over "***" from default"#);
    assert!(!format!("{settings:?} {config:?}").contains("c4n4ry"));
    let own: Painting = config.own().unwrap();
    assert_eq!((own.store.depth, own.brushes, &*own.api_token), (7, 3, "c4n4ry"));
}

#[test]
fn all_faults_are_told_at_once_each_with_its_place() {
    let text = "{\n \"bus_uri\": 5,\n \"brush\": 1,\n \"colours\": [\"red\", 5],\n \"store\": {\"server-ur\": \"x\", \"depth\": 300},\n\
                \"grace_seconds\": \"long\", \"fast\": \"c4n4ry\"}";
    let error = refused(text);
    for says in [
        "F:2:2: member \"bus_uri\" must be ",
        "F:3:2: member \"brush\" is not known here: did you mean \"brushes\"?",
        "F:4:21: member \"colours.1\" must be a text",
        "F:5:12: member \"store.server_ur\" is not known here: did you mean \"server_url\"?",
        "F:5:30: member \"store.depth\" must be a whole number from 0 to 255",
        "F:6:1: member \"grace_seconds\" must be a whole number, not below 0",
        "F:6:26: member \"fast\" must be true or false",
        "for 7 faults",
    ] {
        assert!(error.contains(says), "{says} is not in {error}");
    }
    assert!(!error.contains("c4n4ry") && !error.contains("long"), "{error}");
}

#[test]
fn broken_files_are_refused_with_their_place() {
    for (text, says) in [
        ("", "line 1 column 0"),
        ("{\n  \"a\": 1,,\n}", "line 2 column 10"),
        ("[]", "must be one JSON object"),
        ("5", "must be one JSON object"),
        ("null", "must be one JSON object"),
        ("{\"brushes\": 1, \"brushes\": 2}", "twice"),
        ("{\"api-token\": \"x\",\n\"api_token\": \"y\"}", "F:2:1: member \"api_token\" is set twice"),
        ("{\"brushes\": -1}", "F:1:2: member \"brushes\" must be a whole number, not below 0"),
        ("{\"brushes\": 1.5}", "F:1:2: member \"brushes\" must be a whole number, not below 0"),
        ("{\"brushes\": null}", "F:1:2: member \"brushes\" must be a whole number, not below 0"),
        ("{\"store\": 5}", "F:1:2: member \"store\" "),
        ("{\"require\": [\"durabel\"]}", "F:1:2: member \"require"),
        ("{\"require\": 5}", "F:1:2: member \"require\" "),
        ("{\"bus_uri\": \"\"}", "F:1:2: member \"bus_uri\" "),
        ("{\"bus_uri\": \"redis//host\"}", "F:1:2: member \"bus_uri\" "),
        ("{\"bus_exchange\": \"a b\"}", "F:1:2: member \"bus_exchange\" "),
        ("{\"subscription_expiry_seconds\": 0}", "F:1:2: member \"subscription_expiry_seconds\" must be"),
        (
            "{\"identity\": {\"nam\": \"x\"}}",
            "F:1:15: member \"identity.nam\" is not known here: did you mean \"name\"?",
        ),
        ("{\"xyzzy\": 1}", "is not known here: known are bus_uri, "),
        ("{\"bus_url\": 1}", "did you mean \"bus_uri\"?"),
        ("{\"debug\": 1}", "F:1:2: member \"debug\" must be true or false"),
        ("{\"bus_uri\": \"memory://\"", "line 1 column "),
        ("{'bus_uri': 1}", "line 1 column 2"),
        ("{\"bus_uri\": tru}", "line 1 column "),
        ("{\"a\": \"\u{1}\"}", "line 1 column "),
        ("{} {}", "line 1 column 4"),
    ] {
        let error = refused(text);
        assert!(error.contains(says), "{text}: {says} is not in {error}");
    }
}

#[test]
fn a_log_that_cannot_be_had_is_refused_with_its_place() {
    for (section, says) in [
        (r#"5"#, r#"F:1:2: member "logging" must be an object"#),
        (r#"{"version": 2}"#, r#"F:1:14: member "logging.version" must be 1"#),
        (
            r#"{"handler": {}}"#,
            r#"F:1:14: member "logging.handler" is not known here: did you mean "handlers"?"#,
        ),
        (r#"{"incremental": true}"#, r#"F:1:14: member "logging.incremental" must be false"#),
        (r#"{"filters": {"a": {"()": "x.y"}}}"#, r#"F:1:14: member "logging.filters" must be empty"#),
        (r#"{"root": {"level": "LOUD"}}"#, r#"F:1:23: member "logging.root.level" must be CRITICAL, ERROR"#),
        (r#"{"root": {"level": 51}}"#, r#"F:1:23: member "logging.root.level" must be CRITICAL, ERROR"#),
        (r#"{"root": {"handlers": "a"}}"#, r#"F:1:23: member "logging.root.handlers" must be a list"#),
        (
            r#"{"root": {"handlers": ["a"]}}"#,
            r#"F:1:36: member "logging.root.handlers.0" names "a", but there are no"#,
        ),
        (
            r#"{"handlers": {"file": {"class": "logging.NullHandler"}}, "root": {"handlers": ["fil"]}}"#,
            r#"F:1:92: member "logging.root.handlers.0" names "fil", which is not among handlers: did you mean "file"?"#,
        ),
        (r#"{"handlers": {"a": {}}}"#, r#"F:1:27: member "logging.handlers.a" lacks "class""#),
        (
            r#"{"handlers": {"a": {"class": "logging.SMTPHandler"}}}"#,
            r#"F:1:33: member "logging.handlers.a.class" is "logging.SMTPHandler", which is not supported: there are logging.StreamHandler, "#,
        ),
        (
            r#"{"handlers": {"a": {"class": "logging.StreamHandler", "filename": "x"}}}"#,
            r#"F:1:67: member "logging.handlers.a.filename" is not taken by logging.StreamHandler"#,
        ),
        (
            r#"{"handlers": {"a": {"class": "logging.StreamHandler", "stream": "ext://sys.stdin"}}}"#,
            r#"F:1:67: member "logging.handlers.a.stream" must be ext://sys.stderr or ext://sys.stdout"#,
        ),
        (
            r#"{"handlers": {"a": {"class": "logging.FileHandler"}}}"#,
            r#"member "logging.handlers.a.filename" is not set: logging.FileHandler needs one"#,
        ),
        (
            r#"{"handlers": {"a": {"class": "logging.FileHandler", "filename": "x", "mode": "r"}}}"#,
            r#"F:1:82: member "logging.handlers.a.mode" must be "a" or "w""#,
        ),
        (
            r#"{"handlers": {"a": {"class": "logging.FileHandler", "filename": "x", "encoding": "latin-1"}}}"#,
            r#"F:1:82: member "logging.handlers.a.encoding" must be utf-8"#,
        ),
        (
            r#"{"handlers": {"a": {"class": "logging.handlers.RotatingFileHandler", "filename": "x", "maxBytes": -1}}}"#,
            r#"F:1:99: member "logging.handlers.a.maxBytes" must be a whole number, not below 0"#,
        ),
        (
            r#"{"handlers": {"a": {"class": "logging.handlers.TimedRotatingFileHandler", "filename": "x", "when": "Y"}}}"#,
            r#"F:1:104: member "logging.handlers.a.when" must be S, M, H, D, midnight"#,
        ),
        (
            r#"{"handlers": {"a": {"class": "logging.handlers.TimedRotatingFileHandler", "filename": "x", "interval": 0}}}"#,
            r#"F:1:104: member "logging.handlers.a.interval" must be from 1"#,
        ),
        (
            r#"{"handlers": {"a": {"class": "logging.handlers.SysLogHandler", "address": 5}}}"#,
            r#"F:1:76: member "logging.handlers.a.address" must be [HOST, PORT] or the path of a socket"#,
        ),
        (
            r#"{"handlers": {"a": {"class": "logging.handlers.SysLogHandler", "facility": "locale0"}}}"#,
            r#"F:1:76: member "logging.handlers.a.facility" must be one of kern, "#,
        ),
        (
            r#"{"handlers": {"a": {"class": "logging.handlers.SysLogHandler", "socktype": 1}}}"#,
            r#"F:1:76: member "logging.handlers.a.socktype" must be a text"#,
        ),
        (
            r#"{"handlers": {"a": {"class": "logging.NullHandler", "formatter": "b"}}}"#,
            r#"F:1:65: member "logging.handlers.a.formatter" names "b", but there are no formatters"#,
        ),
        (
            r#"{"formatters": {"a": {"format": "%(asctim)s"}}}"#,
            r#"F:1:35: member "logging.formatters.a.format" has %(asctim), which is not known"#,
        ),
        (
            r#"{"formatters": {"a": {"format": "50% %(message)s"}}}"#,
            r#"F:1:35: member "logging.formatters.a.format" has "% %(message)", which is no %(name)s"#,
        ),
        (
            r#"{"formatters": {"a": {"format": "%(message)d"}}}"#,
            r#"F:1:35: member "logging.formatters.a.format" has %(message) as a number, which it is not"#,
        ),
        (
            r#"{"formatters": {"a": {"format": "%(message)"}}}"#,
            r#"F:1:35: member "logging.formatters.a.format" has %(message) without one of s, d and f"#,
        ),
        (
            r#"{"formatters": {"a": {"style": "{", "format": "{message}"}}}"#,
            r#"F:1:35: member "logging.formatters.a.style" must be "%""#,
        ),
        (
            r#"{"formatters": {"a": {"datefmt": "%Q!%"}}}"#,
            r#"F:1:35: member "logging.formatters.a.datefmt" cannot be used for a time"#,
        ),
        (
            r#"{"formatters": {"a": {"()": "my.Formatter"}}}"#,
            r#"F:1:35: member "logging.formatters.a.()" is "my.Formatter", which is not supported"#,
        ),
        (
            r#"{"loggers": {"my-logger": {"handlers": ["a"]}}}"#,
            r#"F:1:53: member "logging.loggers.my-logger.handlers.0" names "a", but there are no handlers"#,
        ),
    ] {
        let error = refused(&format!(r#"{{"logging": {section}}}"#));
        assert!(error.contains(says), "{section}: {says} is not in {error}");
    }
}

#[test]
fn several_services_have_a_section_each() {
    let dir = tempfile::tempdir().unwrap();
    let all = || Layers::new().section("painter", MEMBERS).section("simple", OwnMembers::of::<NoMembers>());
    let (good, _) = file(&dir, r#"{"bus_exchange": "x", "painter": {"brushes": 9}}"#);
    let config = all().file(&good).unwrap().load().unwrap();
    assert_eq!(config.of("painter").own::<Painting>().unwrap().brushes, 9);
    config.of("simple").own::<NoMembers>().unwrap();
    let (bad, _) = file(&dir, r#"{"brushes": 9, "painter": {"brush": 9}, "simple": {"brushes": 1}}"#);
    let error = all().file(&bad).unwrap().load().unwrap_err().to_string();
    for says in
        ["member \"brushes\" is not", "member \"painter.brush\" is not", "member \"simple.brushes\" is not"]
    {
        assert!(error.contains(says), "{says} is not in {error}");
    }
}
