//! What must hold for any frames.

use amq_protocol::frame::{AMQPFrame, parsing::parse_frame};

use super::{
    properties::Properties,
    start::{fit, read},
};

/// A frame is read, or nothing is made of it. Properties that are read are written and read as the same.
pub(crate) fn frame(data: &[u8]) {
    if let Some(Ok(offer)) = read(data) {
        let shown = format!("{} {}", offer.product, offer.version);
        assert!(!shown.contains(char::is_control) && shown.chars().count() <= 129, "{shown:?}");
    }
    let Ok((_, AMQPFrame::Header(_, header))) = parse_frame(data) else { return };
    let read = Properties::of(&header.properties);
    // Headers are the broker's.
    let sent = Properties { deliveries: 0, offset: None, ..read };
    assert_eq!(Properties::of(&sent.to_lapin()), sent);
}

/// A version that will do begins with two numbers.
pub(crate) fn version(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match fit("x", "RabbitMQ", text) {
        Ok(known) => assert_eq!(known, format!("RabbitMQ {text}")),
        Err(error) => assert!(error.to_string().contains("3.10")),
    }
}
