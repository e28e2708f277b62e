//! Where programs of one user find each other: the state directory and the socket of a running `up`.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use crate::{
    driver::BusUri,
    error::{Error, Result},
};

/// The name of the bus socket within a data directory.
pub const BUS_SOCKET: &str = "bus.sock";
/// The file in the state directory that names the sockets of running `up`s.
const POINTER: &str = "bus";

/// The user's state directory for Commissaire: `$XDG_STATE_HOME/commissaire`, else `~/.local/state/commissaire`.
pub fn state_dir() -> Result<PathBuf> {
    let named = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    named("XDG_STATE_HOME")
        .or_else(|| named("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("commissaire"))
        .ok_or_else(|| {
            Error::config("there is no HOME and no XDG_STATE_HOME: say --data-dir DIR or --bus-uri URI")
        })
}

/// The bus of a running `up` of this user: of several that of the last one.
pub fn find_bus() -> Result<BusUri> {
    let state = state_dir()?;
    let socket = announced(&state).into_iter().rev().find(|path| path.exists());
    let socket = socket.unwrap_or_else(|| state.join(BUS_SOCKET));
    if !socket.exists() {
        return Err(Error::unavailable(
            "no bus: start one with `commissaire up`, or say which with --bus-uri URI or COMMISSAIRE_BUS_URI",
        ));
    }
    socket_uri(&socket)
}

/// Lets [`find_bus`] find `socket`.
pub fn announce_bus(socket: &Path) -> io::Result<()> {
    let state = state_dir().map_err(io::Error::other)?;
    fs::create_dir_all(&state)?;
    // Those of programs that were killed go.
    let mut sockets = announced(&state);
    sockets.retain(|known| known != socket && known.exists());
    sockets.push(socket.to_owned());
    write(&state, &sockets)
}

/// Takes the announcement of `socket` back.
pub fn withdraw_bus(socket: &Path) {
    let Ok(state) = state_dir() else { return };
    let mut sockets = announced(&state);
    sockets.retain(|known| known != socket);
    // What stays behind names a socket that is gone, and is passed over.
    let _ = write(&state, &sockets);
}

/// The sockets that were announced, the last one last.
fn announced(state: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(state.join(POINTER)).unwrap_or_default();
    text.lines().map(PathBuf::from).collect()
}

/// Replaces the announcements in one step.
fn write(state: &Path, sockets: &[PathBuf]) -> io::Result<()> {
    let text: String = sockets.iter().map(|socket| format!("{}\n", socket.display())).collect();
    let fresh = state.join(format!(".{POINTER}-{}", std::process::id()));
    fs::write(&fresh, text)?;
    fs::rename(fresh, state.join(POINTER))
}

fn socket_uri(socket: &Path) -> Result<BusUri> {
    let mut url =
        url::Url::parse("unix:///").map_err(|e| Error::config("cannot name the socket").because(e))?;
    // The library takes a `%` for the begin of an escape.
    url.set_path(&socket.display().to_string().replace('%', "%25"));
    url.as_str().parse()
}
