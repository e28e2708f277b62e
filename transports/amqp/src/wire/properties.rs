//! What stands beside the body of a message.

use lapin::BasicProperties;

use super::value::number;

/// The properties of a message that the bus sets or looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Properties {
    /// Survives a restart of the broker.
    pub(crate) persistent: bool,
    /// Joins a returned message to its publishing.
    pub(crate) correlation: String,
    /// After how many ms in a queue it is dropped.
    pub(crate) expiration: String,
    /// Its own id, for operators.
    pub(crate) id: String,
    /// When it was sent, by the sender's reckoning.
    pub(crate) stamp: String,
    /// How often it was handed out and came back.
    pub(crate) deliveries: u32,
    /// Its place in a stream.
    pub(crate) offset: Option<i64>,
}

impl Properties {
    pub(super) fn to_lapin(&self) -> BasicProperties {
        let mut out = BasicProperties::default().with_delivery_mode(1 + u8::from(self.persistent));
        if !self.correlation.is_empty() {
            out = out.with_correlation_id(self.correlation.as_str().into());
        }
        if !self.expiration.is_empty() {
            out = out.with_expiration(self.expiration.as_str().into());
        }
        if !self.id.is_empty() {
            out = out.with_message_id(self.id.as_str().into());
        }
        if !self.stamp.is_empty() {
            out = out.with_app_id(self.stamp.as_str().into());
        }
        out
    }

    pub(super) fn of(properties: &BasicProperties) -> Self {
        let text = |text: &Option<lapin::types::ShortString>| {
            text.as_ref().map(|text| text.as_str().to_owned()).unwrap_or_default()
        };
        let header = |name: &str| {
            properties.headers().as_ref().and_then(|headers| headers.inner().get(name)).and_then(number)
        };
        Self {
            persistent: *properties.delivery_mode() == Some(2),
            correlation: text(properties.correlation_id()),
            expiration: text(properties.expiration()),
            id: text(properties.message_id()),
            stamp: text(properties.app_id()),
            deliveries: header("x-delivery-count").and_then(|count| u32::try_from(count).ok()).unwrap_or(0),
            offset: header("x-stream-offset"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_come_back_as_they_were() {
        let sent = Properties {
            persistent: true,
            correlation: "7".into(),
            expiration: "1500".into(),
            id: "some id".into(),
            stamp: "ab.12.13".into(),
            deliveries: 0,
            offset: None,
        };
        assert_eq!(Properties::of(&sent.to_lapin()), sent);
        assert_eq!(Properties::of(&BasicProperties::default()), Properties::default());
    }
}
