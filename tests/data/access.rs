//! Keys of actors, and the rules about them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use commissaire::{
    Access, ErrorKind, Key, PublicKey, SecretKey, Token,
    config::{Config, ConfigFile, Layers},
};
use serde_json::{Value, json};

/// A directory that is gone at the end.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("commissaire-{:032x}", rand()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

fn rand() -> u128 {
    commissaire::MessageId::new().0.as_u128()
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_key_is_kept_for_its_owner_only_and_never_overwritten() {
    let (dir, key) = (Dir::new(), SecretKey::generate().unwrap());
    let path = dir.join("anna.key");
    key.save(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(SecretKey::load(&path).unwrap().public(), key.public());
    let kept = fs::read_to_string(&path).unwrap();
    let error = SecretKey::generate().unwrap().save(&path).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Config);
    assert_eq!(fs::read_to_string(&path).unwrap(), kept);
    for mode in [0o644, 0o640, 0o604, 0o620, 0o602, 0o610, 0o777] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = SecretKey::load(&path).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Config);
        assert!(error.to_string().contains("chmod 600"), "{mode:o}: {error}");
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert!(SecretKey::load(&path).is_ok(), "{mode:o}");
    }
    assert_eq!(SecretKey::load(&dir.0).unwrap_err().kind(), &ErrorKind::Config);
    assert_eq!(SecretKey::load(&dir.join("none")).unwrap_err().kind(), &ErrorKind::Config);
}

#[test]
fn what_is_no_key_is_refused_and_never_shown() {
    let (dir, key) = (Dir::new(), SecretKey::generate().unwrap());
    key.save(&dir.join("good")).unwrap();
    let good = fs::read_to_string(dir.join("good")).unwrap();
    let secret = good.trim_end().rsplit(' ').next().unwrap();
    assert!(!format!("{key:?} {:?}", key.public()).contains(secret));
    let half = &good[..good.len() - 10];
    for text in ["", "\n", secret, half, &good[1..], &good.replace('=', ""), &"x".repeat(10_000)] {
        let path = dir.join("bad");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = SecretKey::load(&path).unwrap_err();
        assert!(!error.chain().contains(&secret[..20]), "{error}");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn a_public_key_reads_back_and_a_weak_one_is_none() {
    let key = SecretKey::generate().unwrap().public();
    assert_eq!(key.to_string().parse::<PublicKey>().unwrap(), key);
    assert_eq!(format!("  {key}\n").parse::<PublicKey>().unwrap(), key);
    // The neutral point: anybody can sign for it.
    let weak = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    for text in ["", weak, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", &key.to_string()[1..], "key"] {
        assert!(text.parse::<PublicKey>().is_err(), "{text:?}");
    }
}

fn access(rules: Value) -> commissaire::Result<Access> {
    let key = || vec![SecretKey::generate().unwrap().public()];
    let actors = [(Token::new("anna").unwrap(), key()), (Token::new("bert").unwrap(), key())].into();
    let rules: Option<BTreeMap<String, Vec<String>>> = serde_json::from_value(rules).unwrap();
    Access::new(actors, rules.as_ref())
}

#[test]
fn the_most_specific_rule_decides_alone() {
    let access = access(json!({
        "#": ["*"], "storage.#": ["anna"], "storage.*": ["bert"], "storage.delete": [], "storage.get": ["*"],
        "*.save": ["anna"], "jobs.*": ["anna", "bert"], "jobs.investigate": ["bert"], "deep.#": [], "deep.er.#": ["anna"],
    }))
    .unwrap();
    for (key, anna, bert) in [
        ("other.thing", true, true),
        ("one", true, true),
        ("storage", true, false),
        ("storage.lease.acquire", true, false),
        ("storage.list", false, true),
        ("storage.delete", false, false),
        ("storage.get", true, true),
        ("storage.save", false, true),
        ("other.save", true, false),
        ("jobs.clusterexec", true, true),
        ("jobs.investigate", false, true),
        ("jobs.investigate.more", true, true),
        ("deep", false, false),
        ("deep.est", false, false),
        ("deep.er", true, false),
        ("deep.er.still", true, false),
    ] {
        let allowed = |name| access.allows(&Key::new(key).unwrap(), &Token::new(name).unwrap());
        assert_eq!((allowed("anna"), allowed("bert"), allowed("carl")), (anna, bert, false), "{key}");
    }
}

#[test]
fn what_no_rule_covers_is_closed_and_no_rules_open_all_to_those_who_are_known() {
    let allows = |access: &Access, name| access.allows(&Key::new("a.b").unwrap(), &Token::new(name).unwrap());
    let closed = access(json!({"storage.*": ["*"]})).unwrap();
    assert!(!allows(&closed, "anna"));
    let open = access(Value::Null).unwrap();
    assert!(allows(&open, "anna") && !allows(&open, "carl"));
}

#[test]
fn rules_that_cannot_be_meant_are_refused_by_name() {
    for (rules, word) in [
        (json!({"storage.get": ["annna"]}), "annna"),
        (json!({"storage.get": ["anna "]}), "anna "),
        (json!({"storage.#.get": ["anna"]}), "storage.#.get"),
        (json!({"storage..get": ["anna"]}), "storage..get"),
        (json!({"storage.g*": ["anna"]}), "storage.g*"),
        (json!({"": ["anna"]}), "access.allow"),
    ] {
        let error = access(rules).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Config);
        assert!(error.to_string().contains(word), "{error}");
    }
}

fn configured(dir: &Dir, text: &Value) -> commissaire::Result<Config> {
    let path = dir.join("a.conf");
    fs::write(&path, text.to_string()).unwrap();
    Layers::new().file(&ConfigFile::Named(path))?.load()
}

fn refused(dir: &Dir, text: &Value) -> String {
    let error = configured(dir, text).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Config);
    error.to_string()
}

fn saved(path: &Path) -> PublicKey {
    let key = SecretKey::generate().unwrap();
    key.save(path).unwrap();
    key.public()
}

#[test]
fn the_sections_of_a_file_become_identity_and_access() {
    let dir = Dir::new();
    let (key, other) = (saved(&dir.join("me.key")), SecretKey::generate().unwrap().public());
    fs::create_dir(dir.join("actors")).unwrap();
    fs::write(dir.join("actors/from-file.pub"), format!("{other}\n\n{key}\n")).unwrap();
    fs::write(dir.join("actors/README"), "not a key").unwrap();
    let config = configured(
        &dir,
        &json!({
            "identity": {"name": "cluster-exec", "key-file": dir.join("me.key")},
            "access": {
                "actors-dir": dir.join("actors"),
                "actors": {"cluster-exec": key.to_string(), "two_keys": [key.to_string(), other.to_string()]},
                "allow": {"jobs.cluster-exec": ["cluster-exec", "from-file"]},
            },
        }),
    )
    .unwrap();
    let options = config.bus_options("commissaire-storage");
    assert_eq!(options.identity.name, Some(Token::new("cluster-exec").unwrap()));
    assert_eq!(options.identity.key.unwrap().public(), key);
    let access = options.access.unwrap();
    let allows = |to, name| access.allows(&Key::new(to).unwrap(), &Token::new(name).unwrap());
    assert!(allows("jobs.cluster-exec", "cluster-exec") && allows("jobs.cluster-exec", "from-file"));
    // Within `access` a hyphen is no underscore: these are other names.
    assert!(!allows("jobs.cluster_exec", "cluster-exec") && !allows("jobs.cluster-exec", "cluster_exec"));
    assert!(!allows("jobs.cluster-exec", "two_keys"));
    // They are members of every program, not of the service.
    config.own::<commissaire::config::NoMembers>().unwrap();
}

#[test]
fn without_sections_there_are_no_rules_and_no_key() {
    let options = configured(&Dir::new(), &json!({})).unwrap().bus_options("commissaire-storage");
    assert!(options.identity.key.is_none() && options.identity.name.is_none() && options.access.is_none());
}

#[test]
fn sections_that_cannot_be_used_say_where_and_why() {
    let dir = Dir::new();
    let key = saved(&dir.join("open.key"));
    fs::set_permissions(dir.join("open.key"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::create_dir(dir.join("actors")).unwrap();
    fs::write(dir.join("actors/anna.pub"), "\n").unwrap();
    for (text, words) in [
        (json!({"identity": {"key_file": dir.join("open.key")}}), ["open.key", "0644"]),
        (json!({"identity": {"key_file": dir.join("none.key")}}), ["none.key", "No such file"]),
        (json!({"identity": {"name": "an na"}}), ["identity.name", "' '"]),
        (json!({"identity": {"keyfile": "x"}}), ["keyfile", "key_file"]),
        (json!({"access": {"actor": {}}}), ["actor", "actors"]),
        (json!({"access": {"actors": {"anna": "short"}}}), ["access.actors \"anna\"", "44 characters"]),
        (json!({"access": {"actors": {"anna": []}}}), ["access.actors \"anna\"", "no key"]),
        (json!({"access": {"actors": {"an na": key.to_string()}}}), ["an na", "' '"]),
        (json!({"access": {"actors_dir": dir.join("none")}}), ["actors_dir", "No such file"]),
        (json!({"access": {"actors_dir": dir.join("actors")}}), ["anna.pub", "no key"]),
        (json!({"access": {"allow": {"a.b": ["anna"]}}}), ["a.b", "\"anna\""]),
    ] {
        let error = refused(&dir, &text);
        assert!(words.iter().all(|word| error.contains(word)), "{words:?} are not in {error}");
    }
}

#[test]
fn the_signed_example_works_as_it_stands_where_its_keys_are() {
    let (dir, root) = (Dir::new(), Path::new(env!("CARGO_MANIFEST_DIR")));
    let text = fs::read_to_string(root.join("etc/signed/storage.conf")).unwrap();
    fs::create_dir(dir.join("keys")).unwrap();
    fs::create_dir(dir.join("actors")).unwrap();
    saved(&dir.join("keys/storage.key"));
    let page = fs::read_to_string(root.join("etc/signed/README.md")).unwrap();
    for name in ["storage", "admin", "investigator", "watcher", "clusterexec", "containermgr"] {
        assert!(page.contains(name));
        let key = SecretKey::generate().unwrap().public();
        fs::write(dir.join(&format!("actors/{name}.pub")), format!("{key}\n")).unwrap();
    }
    let here = text.replace("/etc/commissaire", dir.0.to_str().unwrap());
    let config = configured(&dir, &serde_json::from_str(&here).unwrap()).unwrap();
    config.own::<Value>().unwrap();
    let access = config.bus_options("commissaire-storage").access.unwrap();
    let allows = |key, name| access.allows(&Key::new(key).unwrap(), &Token::new(name).unwrap());
    assert!(allows("storage.delete", "admin") && !allows("storage.delete", "watcher"));
    assert!(allows("storage.store", "storage") && !allows("storage.save", "storage"));
    assert!(allows("storage.lease.renew", "watcher") && !allows("storage.lease.renew", "admin"));
}
