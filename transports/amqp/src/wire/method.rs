//! What is asked of the broker on a channel.

use lapin::{
    Channel, Consumer, ExchangeKind, Result,
    options::{
        BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, ConfirmSelectOptions,
        ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
    },
    types::FieldTable,
};

use super::value::{Table, fields};

/// A question.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    Exchange { name: String, kind: String, durable: bool, passive: bool, arguments: FieldTable },
    Declare { name: String, auto_delete: bool, passive: bool, arguments: FieldTable },
    Bind { queue: String, exchange: String, key: String },
    Unbind { queue: String, exchange: String, key: String },
    Delete(String),
    Qos(u16),
    Consume { queue: String, tag: String, unsettled: bool, arguments: FieldTable },
    Cancel(String),
    Confirm { probe: String },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is done.
    Done,
    /// The queue is there.
    Queue { messages: u32, consumers: u32 },
    /// The queue is gone with so many messages.
    Deleted { messages: u32 },
}

pub(crate) fn exchange_declare(name: &str, kind: &str, durable: bool, arguments: &Table) -> Ask {
    let arguments = fields(arguments);
    Ask::Exchange { name: name.into(), kind: kind.into(), durable, passive: false, arguments }
}

/// Asks for an exchange without making it, which every user may.
pub(crate) fn exchange_look(name: &str, kind: &str) -> Ask {
    let arguments = FieldTable::default();
    Ask::Exchange { name: name.into(), kind: kind.into(), durable: false, passive: true, arguments }
}

/// `auto_delete`: it goes with its last consumer.
pub(crate) fn queue_declare(name: &str, auto_delete: bool, arguments: &Table) -> Ask {
    Ask::Declare { name: name.into(), auto_delete, passive: false, arguments: fields(arguments) }
}

/// Asks for a queue without making it.
pub(crate) fn queue_look(name: &str) -> Ask {
    Ask::Declare { name: name.into(), auto_delete: false, passive: true, arguments: FieldTable::default() }
}

pub(crate) fn queue_bind(queue: &str, exchange: &str, key: &str) -> Ask {
    Ask::Bind { queue: queue.into(), exchange: exchange.into(), key: key.into() }
}

pub(crate) fn queue_unbind(queue: &str, exchange: &str, key: &str) -> Ask {
    Ask::Unbind { queue: queue.into(), exchange: exchange.into(), key: key.into() }
}

pub(crate) fn queue_delete(name: &str) -> Ask {
    Ask::Delete(name.into())
}

pub(crate) fn qos(prefetch: u16) -> Ask {
    Ask::Qos(prefetch)
}

/// `tag` names the consumer on its channel; with `unsettled` the broker forgets what it hands out.
pub(crate) fn consume(queue: &str, tag: &str, unsettled: bool, arguments: &Table) -> Ask {
    Ask::Consume { queue: queue.into(), tag: tag.into(), unsettled, arguments: fields(arguments) }
}

pub(crate) fn cancel(tag: &str) -> Ask {
    Ask::Cancel(tag.into())
}

/// From then on what is published is confirmed. `probe`: an exchange where nothing is bound to the empty key.
pub(crate) fn confirm_select(probe: &str) -> Ask {
    Ask::Confirm { probe: probe.into() }
}

impl Ask {
    /// Asks on `channel`. With what consumes, if that was asked for.
    pub(super) async fn of(self, channel: Channel) -> Result<(Answer, Option<Consumer>)> {
        let none = FieldTable::default;
        let answer = match self {
            Self::Exchange { name, kind, durable, passive, arguments } => {
                let options = ExchangeDeclareOptions { durable, passive, ..Default::default() };
                let kind = ExchangeKind::Custom(kind);
                channel.exchange_declare(name.into(), kind, options, arguments).await?;
                Answer::Done
            }
            Self::Declare { name, auto_delete, passive, arguments } => {
                let options =
                    QueueDeclareOptions { durable: !passive, auto_delete, passive, ..Default::default() };
                let queue = channel.queue_declare(name.into(), options, arguments).await?;
                Answer::Queue { messages: queue.message_count(), consumers: queue.consumer_count() }
            }
            Self::Bind { queue, exchange, key } => {
                let options = QueueBindOptions::default();
                channel.queue_bind(queue.into(), exchange.into(), key.into(), options, none()).await?;
                Answer::Done
            }
            Self::Unbind { queue, exchange, key } => {
                channel.queue_unbind(queue.into(), exchange.into(), key.into(), none()).await?;
                Answer::Done
            }
            Self::Delete(name) => Answer::Deleted {
                messages: channel.queue_delete(name.into(), QueueDeleteOptions::default()).await?,
            },
            Self::Qos(prefetch) => {
                channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
                Answer::Done
            }
            Self::Consume { queue, tag, unsettled, arguments } => {
                let options = BasicConsumeOptions { no_ack: unsettled, ..Default::default() };
                let consumer = channel.basic_consume(queue.into(), tag.into(), options, arguments).await?;
                return Ok((Answer::Done, Some(consumer)));
            }
            Self::Cancel(tag) => {
                channel.basic_cancel(tag.into(), BasicCancelOptions::default()).await?;
                Answer::Done
            }
            Self::Confirm { .. } => {
                channel.confirm_select(ConfirmSelectOptions::default()).await?;
                Answer::Done
            }
        };
        Ok((answer, None))
    }
}
