//! `commissaire storage`: archives of all records, and records from one place to another. Needs no running service.

use std::{
    fs::{self, File, OpenOptions},
    io::{BufReader, BufWriter, IsTerminal},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::{Args, Subcommand};
use commissaire::{
    Error, SecretKey,
    app::Exit,
    config::{ConfigFile, EtcdKey, Layers},
};
use commissaire_api::sealed::{PublicSealKey, SealKey};
use commissaire_storage::{
    PROGRAM, StorageConfig,
    archive::{Copied, check, compare, copy, export, import, read},
    config::Kind,
    routes::Routes,
};

use crate::{Failed, output};

/// Archive all records, and bring them from one place to another; no service is needed for that
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  commissaire storage export fleet.archive
  commissaire storage import fleet.archive -c /etc/commissaire/storage.conf
  commissaire storage migrate --to etcd.conf          # from the embedded store to an etcd, say
  commissaire storage verify fleet.archive

With secrets: `commissaire storage key backup.key` prints the public half of a new key; `export --seal-to PUBLIC` seals
them to it, and `import --key backup.key` opens them.

The configuration is that of the storage service. An embedded store has one owner: end the service that has it before. An
etcd may be in use: what changes meanwhile is followed.

Exit codes: 0 well, 1 something is wrong with what is stored, or was left as it is, 78 wrong configuration or archive.")]
pub(crate) struct Storage {
    #[command(subcommand)]
    command: Command,
}

/// Which storage.
#[derive(Debug, Args)]
struct Which {
    /// Read this JSON file instead of /etc/commissaire/storage.conf; - is standard input
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The directory below which services keep their data
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write all records into FILE, which must not be there yet; - is standard output
    Export {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        which: Which,
        /// Secrets as well, sealed to this key: the public half that `storage key` prints
        #[arg(long, value_name = "PUBLIC")]
        seal_to: Option<String>,
    },
    /// Put the records of FILE into the storage. What is there just so is left; run it again after an interruption
    Import {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        which: Which,
        /// Replace what is there otherwise
        #[arg(long)]
        replace: bool,
        /// Secrets as well, opened with the key in this file
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
    },
    /// Look whether all that is stored is sound; with FILE, whether it is what that archive holds
    Verify {
        /// An archive
        file: Option<PathBuf>,
        #[command(flatten)]
        which: Which,
        /// Compare secrets as well, opened with the key in this file
        #[arg(long, value_name = "FILE", requires = "file")]
        key: Option<PathBuf>,
    },
    /// Put all records into the places of another configuration. What is there just so is left
    Migrate {
        #[command(flatten)]
        which: Which,
        /// The configuration of the storage that they go to
        #[arg(long, value_name = "FILE")]
        to: PathBuf,
        /// The directory below which services keep their data there
        #[arg(long, value_name = "DIR")]
        to_data_dir: Option<PathBuf>,
        /// Secrets as well
        #[arg(long)]
        with_secrets: bool,
        /// Replace what is there otherwise
        #[arg(long)]
        replace: bool,
    },
    /// Replace the master key. At once for all secrets: they stay as they are, the key that they are sealed with is
    /// wrapped anew. Say it again after an interruption
    RotateKey {
        #[command(flatten)]
        which: Which,
    },
    /// Print the public half of the key in FILE, which is made if it is not there (mode 0600)
    Key {
        /// The file
        file: PathBuf,
    },
}

impl Storage {
    pub(crate) async fn run(self) -> Result<(), Failed> {
        match self.command {
            Command::Export { file, which, seal_to } => {
                let seal_to = seal_to.map(PublicSealKey::try_from).transpose();
                let seal_to = seal_to.map_err(|e| Error::invalid(format!("--seal-to: {e}")))?;
                let routes = open(&which, true).await?;
                to_file(&file, &routes, seal_to.as_ref()).await
            }
            Command::Import { file, which, replace, key } => {
                let key = key.as_deref().map(load).transpose()?;
                let records = archive(&file, key.as_ref())?;
                let routes = open(&which, false).await?;
                let all = records.len();
                let mut told = Told::of("imported", Some(all));
                report(&import(records, &routes, replace, &mut |count| told.tell(count)).await?)
            }
            Command::Verify { file, which, key } => {
                let key = key.as_deref().map(load).transpose()?;
                let records = file.as_deref().map(|file| archive(file, key.as_ref())).transpose()?;
                let routes = open(&which, true).await?;
                verify(&routes, records, key.is_some()).await
            }
            Command::Migrate { which, to, to_data_dir, with_secrets, replace } => {
                let from = open(&which, true).await?;
                let to = open(&Which { config: Some(to), data_dir: to_data_dir }, false).await?;
                let mut told = Told::of("copied", None);
                report(&copy(&from, &to, with_secrets, replace, &mut |count| told.tell(count)).await?)
            }
            Command::RotateKey { which } => {
                let routes = open(&which, true).await?;
                for key in routes.rotate_keys().await? {
                    output::print(&format!(
                        "{} is new: copy it to where its copies are kept",
                        key.display()
                    ))?;
                }
                Ok(())
            }
            Command::Key { file } => {
                if !file.exists() {
                    SecretKey::generate()?.save(&file)?;
                }
                output::print(&load(&file)?.public().to_string())
            }
        }
    }
}

/// The places of a storage; with `must_exist` no embedded store is made.
async fn open(which: &Which, must_exist: bool) -> Result<Routes, Failed> {
    let layers = Layers::new().own(PROGRAM.members);
    let layers = layers.file(&ConfigFile::of(PROGRAM.name, which.config.clone()))?;
    let layers = layers.etcd(EtcdKey::from_env(PROGRAM.name, false)?.as_ref()).await?.environment();
    let config = layers.set("data_dir", which.data_dir.as_ref()).load()?;
    let config = StorageConfig::read(&config)?;
    for place in config.members.storage_handlers.all() {
        if let Kind::Embedded(dir) = &place.kind
            && must_exist
        {
            let dir = dir.as_ref().unwrap_or(&config.data_dir);
            if !dir.join("storage.redb").exists() {
                let why = format!("there is no store in {}: see data_dir, or --data-dir", dir.display());
                return Err(Error::config(why).into());
            }
        }
    }
    Ok(Routes::open(&config).await?)
}

fn archive(file: &Path, key: Option<&SealKey>) -> Result<commissaire_storage::archive::Records, Failed> {
    let name = file.display().to_string();
    let opened = File::open(file).map_err(|e| Error::config(format!("{name}: cannot be read: {e}")))?;
    Ok(read(&name, BufReader::new(opened), key)?)
}

/// Writes an archive, which has its name once it is whole.
async fn to_file(file: &Path, routes: &Routes, seal_to: Option<&PublicSealKey>) -> Result<(), Failed> {
    let mut told = Told::of("exported", None);
    let mut progress = |count| told.tell(count);
    if file == Path::new("-") {
        export(routes, std::io::stdout().lock(), seal_to, &mut progress).await?;
        return Ok(());
    }
    let cannot = |e: std::io::Error| Error::config(format!("{} cannot be written: {e}", file.display()));
    if file.exists() {
        return Err(Error::config(format!("{} is there already", file.display())).into());
    }
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut options = OpenOptions::new();
    let written = options.write(true).create(true).truncate(true).mode(0o600).open(&part).map_err(cannot)?;
    let mut out = BufWriter::new(written);
    let count = export(routes, &mut out, seal_to, &mut progress).await;
    let whole = match count {
        Ok(count) => out
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .and_then(|out| out.sync_all())
            .map(|()| count),
        Err(error) => {
            let _ = fs::remove_file(&part);
            return Err(error.into());
        }
    };
    let count = whole.map_err(cannot)?;
    // Never in the place of another.
    fs::hard_link(&part, file).and_then(|()| fs::remove_file(&part)).map_err(cannot)?;
    output::print(&format!("{count} records are in {}", file.display()))
}

fn report(copied: &Copied) -> Result<(), Failed> {
    let Copied { written, same, deleted, left } = copied;
    output::print(&format!("{written} records written, {same} were there just so, {deleted} deleted"))?;
    for (model, key) in left.iter().take(20) {
        output::complain(&format!("left as it is: {model} {key:?} is there otherwise"));
    }
    if left.is_empty() {
        return Ok(());
    }
    output::complain(&format!("commissaire: {} records were left as they are: see --replace", left.len()));
    Err(Failed::Said(Exit::Failed))
}

async fn verify(
    routes: &Routes,
    records: Option<commissaire_storage::archive::Records>,
    secrets: bool,
) -> Result<(), Failed> {
    let mut told = Told::of("looked at", None);
    let (count, faults) = check(routes, &mut |count| told.tell(count)).await?;
    for fault in &faults {
        output::print(&format!("{} {:?} in {:?}: {}", fault.model, fault.key, fault.place, fault.what))?;
    }
    let mut wrong = faults.len();
    if let Some(records) = records {
        let differences = compare(routes, records, secrets, &mut |count| told.tell(count)).await?;
        wrong += differences.len();
        for (model, key, difference) in differences {
            output::print(&format!("{model} {key:?} {difference}"))?;
        }
    }
    output::print(&format!("{count} records, {wrong} of them wrong"))?;
    if wrong == 0 { Ok(()) } else { Err(Failed::Said(Exit::Failed)) }
}

/// What opens the secrets of archives, by the key in `file`.
fn load(file: &Path) -> Result<SealKey, Failed> {
    Ok(SealKey::of(&*SecretKey::load(file)?.derive("archive")))
}

/// What is told of long work on a terminal, each second.
struct Told {
    what: &'static str,
    all: Option<usize>,
    last: Instant,
}

impl Told {
    fn of(what: &'static str, all: Option<usize>) -> Self {
        Self { what, all, last: Instant::now() }
    }

    fn tell(&mut self, count: u64) {
        if !std::io::stderr().is_terminal() || self.last.elapsed() < Duration::from_secs(1) {
            return;
        }
        self.last = Instant::now();
        let of = self.all.map_or_else(String::new, |all| format!(" of {all}"));
        output::complain(&format!("{count}{of} records {}", self.what));
    }
}
