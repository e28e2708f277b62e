//! The process that shares its memory bus.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use commissaire::{Error, Result, Token};
use tokio::net::UnixListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{hub::Hub, unix::session};

/// What fits into the address of a Unix socket on Linux.
const LONGEST_PATH: usize = 107;

/// Accepts other processes until it is closed or dropped, then removes its socket.
#[derive(Debug)]
pub(crate) struct Server {
    path: PathBuf,
    inode: u64,
    closing: CancellationToken,
    tasks: TaskTracker,
    _lock: fs::File,
}

/// The hubs behind one socket, one an exchange.
#[derive(Debug)]
pub(crate) struct Hubs(Mutex<HashMap<Token, Arc<Hub>>>);

impl Hubs {
    pub(crate) fn get(&self, exchange: Token) -> Arc<Hub> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(exchange).or_default().clone()
    }
}

impl Server {
    /// Shares `hub`, which is that of `exchange`, on a socket at `path`. A socket that nobody serves is replaced; one
    /// that somebody serves is an error.
    pub(crate) fn listen(path: PathBuf, exchange: Token, hub: Arc<Hub>) -> Result<Self> {
        let taken = || {
            Error::config(format!(
                "cannot share the memory bus on {}: another process shares one there; join it with bus_uri unix://{}",
                path.display(),
                path.display()
            ))
        };
        // Held as long as the bus is shared: of two that start at the same moment one goes on.
        let lock = lock(&path).map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => taken(),
            _ => Error::config(format!("cannot share the memory bus on {}: {e}", path.display())).because(e),
        })?;
        if std::os::unix::net::UnixStream::connect(&path).is_ok() {
            return Err(taken());
        }
        let (listener, inode) = bind(&path).map_err(|e| {
            Error::config(format!("cannot share the memory bus on {}: {e}", path.display())).because(e)
        })?;
        let closing = CancellationToken::new();
        let tasks = TaskTracker::new();
        let hubs = Arc::new(Hubs(Mutex::new(HashMap::from([(exchange, hub)]))));
        tasks.spawn(accept(listener, hubs, closing.clone(), tasks.clone()));
        Ok(Self { path, inode, closing, tasks, _lock: lock })
    }

    /// Takes no more processes and leaves those that are here.
    pub(crate) async fn close(self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.closing.cancel();
        // Only our own socket: another process may have put its own in its place.
        if fs::symlink_metadata(&self.path).is_ok_and(|meta| meta.ino() == self.inode) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Takes the lock beside the socket. The file stays when the lock is given back: removing it would let two have one.
fn lock(path: &Path) -> io::Result<fs::File> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(name)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    Ok(file)
}

/// Makes the socket where nobody else can reach it, gives it mode 0600, and only then puts it in its place.
fn bind(path: &Path) -> io::Result<(UnixListener, u64)> {
    if path.as_os_str().len() > LONGEST_PATH {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("the path of a socket has at most {LONGEST_PATH} bytes: choose a shorter one"),
        ));
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let private = parent.join(format!(".bus-{}", std::process::id()));
    let _ = fs::remove_dir_all(&private);
    fs::DirBuilder::new().mode(0o700).create(&private)?;
    let fresh = private.join("s");
    let bound = (|| {
        let listener = UnixListener::bind(&fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
        let inode = fs::symlink_metadata(&fresh)?.ino();
        fs::rename(&fresh, path)?;
        Ok((listener, inode))
    })();
    let _ = fs::remove_dir_all(&private);
    bound
}

async fn accept(listener: UnixListener, hubs: Arc<Hubs>, closing: CancellationToken, tasks: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                tasks.spawn(session::serve(stream, hubs.clone(), closing.clone()));
            }
            Err(error) => {
                // Out of descriptors, most likely: those who are here go on, and some will leave.
                tracing::warn!(%error, "cannot accept a process on the bus socket");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}
