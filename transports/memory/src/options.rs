//! The two schemes and what can be said in their URIs.

use std::{path::PathBuf, sync::Arc};

use commissaire::{Bus, BusOptions, BusUri, Driver, Error, Result};

use crate::{
    bus::{JOINED, MemoryBus, PROMISES},
    hub::Hub,
    unix,
};

/// `memory://`: a bus of its own for each connection.
pub const DRIVER: Driver = Driver {
    name: "memory",
    schemes: &["memory"],
    example: "memory://",
    promises: PROMISES,
    connect: |uri, options| Box::pin(connect_memory(uri, options)),
};

/// `unix://`: joins a memory bus that another process shares.
pub const UNIX_DRIVER: Driver = Driver {
    name: "unix",
    schemes: &["unix"],
    example: "unix:///run/user/1000/bus.sock",
    promises: JOINED,
    connect: |uri, options| Box::pin(connect_unix(uri, options)),
};

async fn connect_memory(uri: BusUri, options: BusOptions) -> Result<Arc<dyn Bus>> {
    let url = uri.expose();
    let named = url.host_str().is_some_and(|host| !host.is_empty()) || !url.username().is_empty();
    if named || !matches!(url.path(), "" | "/") {
        return Err(Error::config(
            "bus_uri memory:// takes neither host nor path: to share the bus, memory://?listen=/path/bus.sock",
        ));
    }
    let hub = Arc::new(Hub::default());
    let listen = uri.options(&["listen"])?.remove("listen").map(PathBuf::from);
    let server = match listen {
        Some(path) => Some(unix::Server::listen(path, options.exchange, hub.clone())?),
        None => None,
    };
    Ok(Arc::new(MemoryBus::new(hub, server, options.idle_expiry)))
}

async fn connect_unix(uri: BusUri, options: BusOptions) -> Result<Arc<dyn Bus>> {
    uri.options(&[])?;
    let url = uri.expose();
    let named = url.host_str().is_some_and(|host| !host.is_empty()) || !url.username().is_empty();
    if named || !url.path().starts_with('/') || url.path() == "/" {
        return Err(Error::config(
            "bus_uri unix:// takes the absolute path of a socket: unix:///path/bus.sock",
        ));
    }
    unix::join(PathBuf::from(BusUri::decoded(url.path(), "path")?), &options).await
}
