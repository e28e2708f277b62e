//! The first words on a connection: who we are, what we want, and whether the broker is fit.

use std::io;

use bytes::BytesMut;
use commissaire::{Error, ErrorKind, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    connection::{Connection, frame, next_frame},
    dial::{Dialer, Login, Reading, Writing},
    method::{self, Heard},
    value::{Table, Value, find},
};

/// In seconds; twice that without a word and the other is taken for dead.
const HEARTBEAT: u16 = 6;
/// What we send and take in one frame, unless the broker wants less.
const FRAME: u32 = 128 * 1024;
const OLDEST: (u32, u32) = (3, 10);

/// What both sides have agreed on.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    /// The most bytes of a frame.
    pub(super) frame: usize,
    /// The highest number of a channel.
    pub(super) channels: u16,
    /// Product and version of the broker.
    pub(super) broker: String,
}

struct Talk<'a> {
    dialer: &'a Dialer,
    place: &'a str,
    reading: Reading,
    writing: Writing,
    from: BytesMut,
}

/// Makes a connection over `reading` and `writing`.
pub(super) async fn shake(
    dialer: &Dialer,
    place: &str,
    reading: Reading,
    writing: Writing,
) -> Result<Connection> {
    let mut talk = Talk { dialer, place, reading, writing, from: BytesMut::with_capacity(4096) };
    talk.writing.write_all(b"AMQP\0\0\x09\x01").await.map_err(|e| talk.broke(&e))?;
    let Heard::Start { properties, mechanisms } = talk.hear().await? else { return Err(talk.strange()) };
    let broker = fit(place, &properties)?;
    let (mechanism, response) = match &dialer.login {
        Login::External => ("EXTERNAL", Vec::new()),
        Login::Plain { user, password } => ("PLAIN", format!("\0{user}\0{password}").into_bytes()),
    };
    if !mechanisms.split(' ').any(|offered| offered == mechanism) {
        return Err(Error::new(
            ErrorKind::Forbidden,
            format!(
                "connecting to {place}: it does not offer to log in by {mechanism}: see its auth_mechanisms"
            ),
        ));
    }
    talk.say(&method::start_ok(&about(&dialer.name), mechanism, &response)).await?;
    let (channels, most, heartbeat) = match talk.hear().await? {
        Heard::Tune { channels, frame, heartbeat } => (channels, frame, heartbeat),
        Heard::Close { code, text } => return Err(talk.refused(code, &text)),
        _ => return Err(talk.strange()),
    };
    let channels = if channels == 0 { u16::MAX } else { channels };
    let most = if most == 0 { FRAME } else { most.clamp(4096, FRAME) };
    let heartbeat = if heartbeat == 0 { HEARTBEAT } else { heartbeat.min(HEARTBEAT) };
    talk.say(&method::tune_ok(channels, most, heartbeat)).await?;
    talk.say(&method::open(&dialer.vhost)).await?;
    match talk.hear().await? {
        Heard::OpenOk => {}
        Heard::Close { code, text } => return Err(talk.refused(code, &text)),
        _ => return Err(talk.strange()),
    }
    let terms = Terms { frame: most as usize, channels, broker };
    Ok(Connection::start(talk.reading, talk.writing, talk.from, terms))
}

/// Product and version of the broker, if the bus can live there.
fn fit(place: &str, properties: &Table) -> Result<String> {
    let text = |name| match find(properties, name) {
        Some(Value::Text(text)) => text.chars().filter(|c| !c.is_control()).take(64).collect(),
        _ => "unknown".to_owned(),
    };
    let (product, version) = (text("product"), text("version"));
    let mut numbers = version.split('.').map_while(|number| number.parse::<u32>().ok());
    let found = numbers.next().zip(numbers.next());
    if product != "RabbitMQ" || found.is_none_or(|found| found < OLDEST) {
        return Err(Error::new(
            ErrorKind::Topology,
            format!(
                "{place} is {product} {version}: the bus needs RabbitMQ {}.{} or later, for its quorum queues and streams",
                OLDEST.0, OLDEST.1
            ),
        ));
    }
    Ok(format!("{product} {version}"))
}

/// What the broker is told about us.
fn about(name: &str) -> Table {
    let able = [
        "publisher_confirms",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "authentication_failure_close",
    ];
    let able = able.into_iter().map(|name| (name.to_owned(), Value::Bool(true))).collect();
    let text = |name: &str, text: &str| (name.to_owned(), Value::Text(text.to_owned()));
    vec![
        text("product", "commissaire"),
        text("version", env!("CARGO_PKG_VERSION")),
        text("connection_name", name),
        ("capabilities".to_owned(), Value::Table(able)),
    ]
}

impl Talk<'_> {
    async fn say(&mut self, method: &[u8]) -> Result<()> {
        let mut bytes = Vec::with_capacity(method.len() + 8);
        frame(&mut bytes, 1, 0, method);
        let said = async {
            self.writing.write_all(&bytes).await?;
            self.writing.flush().await
        };
        said.await.map_err(|e| self.broke(&e))
    }

    async fn hear(&mut self) -> Result<Heard> {
        loop {
            if self.from.starts_with(b"AMQP") {
                return Err(self.strange());
            }
            match next_frame(&mut self.from, FRAME as usize) {
                // It may beat already.
                Ok(Some(frame)) if frame.kind == 8 => {}
                Ok(Some(frame)) if frame.kind == 1 && frame.channel == 0 => {
                    return method::read(frame.payload).map_err(|_| self.strange());
                }
                Ok(Some(_)) | Err(_) => return Err(self.strange()),
                Ok(None) => match self.reading.read_buf(&mut self.from).await {
                    Ok(0) => return Err(self.broke(&io::ErrorKind::UnexpectedEof.into())),
                    Ok(_) => {}
                    Err(error) => return Err(self.broke(&error)),
                },
            }
        }
    }

    fn strange(&self) -> Error {
        Error::unavailable(format!(
            "connecting to {}: what listens there does not speak AMQP 0-9-1: check host and port of bus_uri",
            self.place
        ))
    }

    fn broke(&self, error: &io::Error) -> Error {
        self.dialer.failed(self.place, error)
    }

    /// The broker's texts name user and virtual host, never the password.
    fn refused(&self, code: u16, text: &str) -> Error {
        let place = self.place;
        match code {
            403 => Error::new(
                ErrorKind::Forbidden,
                format!(
                    "connecting to {place}: it refused the user, the password or the certificate of bus_uri"
                ),
            ),
            530 if text.contains("not found") => Error::config(format!(
                "connecting to {place}: it has no virtual host {:?}: check the path of bus_uri",
                self.dialer.vhost
            )),
            530 => Error::new(
                ErrorKind::Forbidden,
                format!(
                    "connecting to {place}: it refuses this user on virtual host {:?}: give the user permissions there",
                    self.dialer.vhost
                ),
            ),
            _ => Error::unavailable(format!(
                "connecting to {place}: it closed the connection with code {code}"
            )),
        }
    }
}
