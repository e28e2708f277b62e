//! What a broker says of itself before anybody logs in: whether the bus can live there.

use amq_protocol::{
    frame::{AMQPFrame, parsing::parse_frame},
    protocol::{AMQPClass, connection::AMQPMethod},
    types::AMQPValue,
};
use commissaire::{Error, ErrorKind, Result};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::dial::{Dialer, Login, failed_to};

const OLDEST: (u32, u32) = (3, 10);
/// More than a first frame has.
const MOST: usize = 64 * 1024;

/// What a broker says of itself.
pub(super) struct Offer {
    pub(super) product: String,
    pub(super) version: String,
    mechanisms: String,
}

/// What listens there is no broker.
pub(super) struct Strange;

/// Asks who is at the other end of `stream`; product and version, if the bus can live there and the login is offered.
pub(super) async fn ask(
    dialer: &Dialer,
    place: &str,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<String> {
    let strange = || {
        Error::unavailable(format!(
            "connecting to {place}: what listens there does not speak AMQP 0-9-1: check host and port of bus_uri"
        ))
    };
    stream.write_all(b"AMQP\0\0\x09\x01").await.map_err(|e| failed_to(place, &e))?;
    stream.flush().await.map_err(|e| failed_to(place, &e))?;
    let mut from = Vec::with_capacity(1024);
    loop {
        // An alert of TLS, to who did not begin with it.
        if from.first() == Some(&0x15) {
            return Err(Error::unavailable(format!(
                "connecting to {place}: it speaks TLS there: write amqps://, or another port"
            )));
        }
        let offer = match read(&from) {
            Some(offer) => offer.map_err(|Strange| strange())?,
            None => {
                let more = stream.read_buf(&mut from).await.map_err(|e| failed_to(place, &e))?;
                if more == 0 {
                    return Err(failed_to(place, &std::io::ErrorKind::UnexpectedEof.into()));
                }
                continue;
            }
        };
        let mechanism = match dialer.login {
            Login::External => "EXTERNAL",
            Login::Plain { .. } => "PLAIN",
        };
        if !offer.mechanisms.split(' ').any(|offered| offered == mechanism) {
            let what = format!(
                "connecting to {place}: it does not offer to log in by {mechanism}: see its auth_mechanisms"
            );
            return Err(Error::new(ErrorKind::Forbidden, what));
        }
        return fit(place, &offer.product, &offer.version);
    }
}

/// Reads the first frame of a broker; `None` as long as more of it must come.
pub(super) fn read(from: &[u8]) -> Option<std::result::Result<Offer, Strange>> {
    if from.starts_with(b"AMQP") || from.len() > MOST || from.first().is_some_and(|kind| *kind != 1) {
        return Some(Err(Strange));
    }
    // Of a method frame the size stands behind its type and channel.
    let whole = u32::from_be_bytes(from.get(3..7)?.try_into().ok()?);
    if from.len() < whole as usize + 8 {
        return None;
    }
    let frame = parse_frame(from).map(|(_, frame)| frame);
    let Ok(AMQPFrame::Method(0, AMQPClass::Connection(AMQPMethod::Start(start)))) = frame else {
        return Some(Err(Strange));
    };
    let text = |name: &str| match start.server_properties.inner().get(name) {
        Some(AMQPValue::LongString(text)) => {
            String::from_utf8_lossy(text.as_bytes()).chars().filter(|c| !c.is_control()).take(64).collect()
        }
        _ => "unknown".to_owned(),
    };
    let mechanisms = String::from_utf8_lossy(start.mechanisms.as_bytes()).into_owned();
    Some(Ok(Offer { product: text("product"), version: text("version"), mechanisms }))
}

/// Product and version, if they will do.
pub(super) fn fit(place: &str, product: &str, version: &str) -> Result<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_old_or_something_else_is_named() {
        assert_eq!(fit("x", "RabbitMQ", "3.10.8").unwrap(), "RabbitMQ 3.10.8");
        assert!(fit("x", "RabbitMQ", "4.1.0-rc.1").is_ok());
        for (product, version) in [("RabbitMQ", "3.9.27"), ("RabbitMQ", "new"), ("LavinMQ", "4.0.0")] {
            let error = fit("x", product, version).unwrap_err();
            assert!(error.to_string().contains(version) && *error.kind() == ErrorKind::Topology);
        }
    }
}
