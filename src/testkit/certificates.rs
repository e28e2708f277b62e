//! Certificates for tests, made with the `openssl` command.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::{
    process::on_path,
    wait::{Failure, Outcome},
};

/// Two authorities, `ca` and `other`, and what they have signed: files in a folder that goes when this is dropped. Every
/// certificate is for the address 127.0.0.1 and for no name.
#[derive(Debug)]
pub struct Certificates(TempDir);

/// How `openssl ca` is to sign. It alone can be told when a certificate begins and ends.
const SETTINGS: &str = "\
[ca]
default_ca = own
[own]
database = signed
new_certs_dir = .
rand_serial = yes
default_md = sha256
default_days = 2
policy = any
unique_subject = no
x509_extensions = signed
[any]
commonName = supplied
[signed]
subjectAltName = IP:127.0.0.1
[req]
distinguished_name = asked
[asked]
[authority]
basicConstraints = critical, CA:TRUE
";

/// Name, authority, and further words for what is signed.
const SIGNED: &[(&str, &str, &str)] = &[
    ("server", "ca", ""),
    ("expired", "ca", "-startdate 20200101000000Z -enddate 20200102000000Z"),
    ("client", "ca", ""),
    ("stranger", "other", ""),
];

impl Certificates {
    /// Makes them all: `server`, `expired` (a server's that has ended), `client` and, signed by `other`, `stranger`.
    pub fn new() -> Outcome<Self> {
        const KEY: &str = "-config settings -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        let all = Self(tempfile::tempdir()?);
        let dir = all.0.path();
        fs::write(dir.join("settings"), SETTINGS)?;
        fs::write(dir.join("signed"), "")?;
        for name in ["ca", "other"] {
            let out = format!("-subj /CN={name} -keyout {name}.key -out {name}.pem");
            openssl(dir, &format!("req -x509 {KEY} -extensions authority -days 2 {out}"))?;
        }
        for (name, authority, more) in SIGNED {
            openssl(dir, &format!("req {KEY} -subj /CN={name} -keyout {name}.key -out {name}.csr"))?;
            let by = format!("-cert {authority}.pem -keyfile {authority}.key");
            let sign =
                format!("ca -config settings -batch -notext {by} -in {name}.csr -out {name}.pem {more}");
            openssl(dir, &sign)?;
        }
        Ok(all)
    }

    /// The file with the certificate of `name`, or of the authority of that name.
    pub fn of(&self, name: &str) -> String {
        self.0.path().join(format!("{name}.pem")).display().to_string()
    }

    /// The file with its key.
    pub fn key(&self, name: &str) -> String {
        self.0.path().join(format!("{name}.key")).display().to_string()
    }

    /// The two as options of a `bus_uri`.
    pub fn as_options(&self, name: &str) -> String {
        format!("cert_file={}&key_file={}", self.of(name), self.key(name))
    }
}

fn openssl(dir: &Path, arguments: &str) -> Outcome {
    if !on_path("openssl") {
        return Err(Failure::new(
            "openssl is not installed: integration/run.sh installs what the tests start",
        ));
    }
    let mut command = Command::new("openssl");
    let ended = command.args(arguments.split_whitespace()).current_dir(dir).stdin(Stdio::null()).output()?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr);
        return Err(Failure::new(format!("openssl {arguments}: {said}")));
    }
    Ok(())
}
