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
/// The file in the state directory that names the socket of the `up` that was started last.
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

/// The bus of a running `up` of this user.
pub fn find_bus() -> Result<BusUri> {
    let state = state_dir()?;
    let told = fs::read_to_string(state.join(POINTER)).ok().map(|path| PathBuf::from(path.trim_end()));
    let socket = told.filter(|path| path.exists()).unwrap_or_else(|| state.join(BUS_SOCKET));
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
    fs::write(state.join(POINTER), format!("{}\n", socket.display()))
}

/// Takes the announcement of `socket` back, unless another has taken its place.
pub fn withdraw_bus(socket: &Path) {
    let Ok(pointer) = state_dir().map(|state| state.join(POINTER)) else { return };
    if fs::read_to_string(&pointer).is_ok_and(|told| Path::new(told.trim_end()) == socket) {
        let _ = fs::remove_file(pointer);
    }
}

fn socket_uri(socket: &Path) -> Result<BusUri> {
    let mut url =
        url::Url::parse("unix:///").map_err(|e| Error::config("cannot name the socket").because(e))?;
    url.set_path(&socket.display().to_string());
    url.as_str().parse()
}
