//! The methods of AMQP 0-9-1 that the bus says and hears.

use bytes::{BufMut, Bytes};

use super::value::{
    Malformed, Table, put_long, put_short, put_table, take_long, take_short, take_table, take_u8, take_u16,
    take_u32, take_u64,
};

/// What the broker says.
#[derive(Debug)]
pub(crate) enum Heard {
    Start {
        properties: Table,
        mechanisms: String,
    },
    Secure,
    Tune {
        channels: u16,
        frame: u32,
        heartbeat: u16,
    },
    OpenOk,
    Close {
        code: u16,
        text: String,
    },
    CloseOk,
    Blocked {
        why: String,
    },
    Unblocked,
    ChannelClose {
        code: u16,
        text: String,
    },
    ChannelCloseOk,
    Flow {
        active: bool,
    },
    /// The answer to what was asked for.
    Answer(Answer),
    /// The broker ended a consumer.
    Cancelled,
    Deliver {
        tag: u64,
        redelivered: bool,
    },
    Return,
    Confirm {
        tag: u64,
        multiple: bool,
        stored: bool,
    },
}

/// An answer to a method that is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is done.
    Done,
    /// The queue is there.
    Queue { messages: u32, consumers: u32 },
}

/// Reads the payload of a method frame.
pub(crate) fn read(mut from: Bytes) -> Result<Heard, Malformed> {
    let from = &mut from;
    let done = Heard::Answer(Answer::Done);
    Ok(match (take_u16(from)?, take_u16(from)?) {
        (10, 10) => {
            take_u16(from)?;
            let properties = take_table(from)?;
            let mechanisms = String::from_utf8_lossy(&take_long(from)?).into_owned();
            Heard::Start { properties, mechanisms }
        }
        (10, 20) => Heard::Secure,
        (10, 30) => {
            Heard::Tune { channels: take_u16(from)?, frame: take_u32(from)?, heartbeat: take_u16(from)? }
        }
        (10, 41) => Heard::OpenOk,
        (10, 50) => Heard::Close { code: take_u16(from)?, text: take_short(from)? },
        (10, 51) => Heard::CloseOk,
        (10, 60) => Heard::Blocked { why: take_short(from)? },
        (10, 61) => Heard::Unblocked,
        (20, 20) => Heard::Flow { active: take_u8(from)? & 1 != 0 },
        (20, 40) => Heard::ChannelClose { code: take_u16(from)?, text: take_short(from)? },
        (20, 41) => Heard::ChannelCloseOk,
        (50, 11) => {
            take_short(from)?;
            Heard::Answer(Answer::Queue { messages: take_u32(from)?, consumers: take_u32(from)? })
        }
        (20, 11) | (40, 11) | (50, 21 | 41 | 51) | (60, 11 | 21 | 31) | (85, 11) => done,
        (60, 30) => Heard::Cancelled,
        (60, 50) => Heard::Return,
        (60, 60) => {
            take_short(from)?;
            Heard::Deliver { tag: take_u64(from)?, redelivered: take_u8(from)? & 1 != 0 }
        }
        (60, 80) => Heard::Confirm { tag: take_u64(from)?, multiple: take_u8(from)? & 1 != 0, stored: true },
        (60, 120) => {
            Heard::Confirm { tag: take_u64(from)?, multiple: take_u8(from)? & 1 != 0, stored: false }
        }
        _ => return Err(Malformed),
    })
}

fn method(class: u16, method: u16) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    out.put_u16(class);
    out.put_u16(method);
    out
}

pub(crate) fn start_ok(properties: &Table, mechanism: &str, response: &[u8]) -> Vec<u8> {
    let mut out = method(10, 11);
    put_table(&mut out, properties);
    put_short(&mut out, mechanism);
    put_long(&mut out, response);
    put_short(&mut out, "en_US");
    out
}

pub(crate) fn tune_ok(channels: u16, frame: u32, heartbeat: u16) -> Vec<u8> {
    let mut out = method(10, 31);
    out.put_u16(channels);
    out.put_u32(frame);
    out.put_u16(heartbeat);
    out
}

pub(crate) fn open(vhost: &str) -> Vec<u8> {
    let mut out = method(10, 40);
    put_short(&mut out, vhost);
    put_short(&mut out, "");
    out.put_u8(0);
    out
}

pub(crate) fn close() -> Vec<u8> {
    good_bye(method(10, 50))
}

pub(crate) fn close_ok() -> Vec<u8> {
    method(10, 51)
}

pub(crate) fn channel_open() -> Vec<u8> {
    let mut out = method(20, 10);
    put_short(&mut out, "");
    out
}

pub(crate) fn flow_ok(active: bool) -> Vec<u8> {
    let mut out = method(20, 21);
    out.put_u8(u8::from(active));
    out
}

pub(crate) fn channel_close() -> Vec<u8> {
    good_bye(method(20, 40))
}

pub(crate) fn channel_close_ok() -> Vec<u8> {
    method(20, 41)
}

fn good_bye(mut out: Vec<u8>) -> Vec<u8> {
    out.put_u16(200);
    put_short(&mut out, "OK");
    out.put_u32(0);
    out
}

pub(crate) fn exchange_declare(name: &str, kind: &str, durable: bool, arguments: &Table) -> Vec<u8> {
    let mut out = method(40, 10);
    out.put_u16(0);
    put_short(&mut out, name);
    put_short(&mut out, kind);
    out.put_u8(u8::from(durable) << 1);
    put_table(&mut out, arguments);
    out
}

/// `auto_delete`: it goes with its last consumer.
pub(crate) fn queue_declare(name: &str, auto_delete: bool, arguments: &Table) -> Vec<u8> {
    let mut out = method(50, 10);
    out.put_u16(0);
    put_short(&mut out, name);
    out.put_u8(0b10 | u8::from(auto_delete) << 3);
    put_table(&mut out, arguments);
    out
}

/// Asks for a queue without making it.
pub(crate) fn queue_look(name: &str) -> Vec<u8> {
    let mut out = method(50, 10);
    out.put_u16(0);
    put_short(&mut out, name);
    out.put_u8(1);
    put_table(&mut out, &Table::new());
    out
}

pub(crate) fn queue_bind(queue: &str, exchange: &str, key: &str) -> Vec<u8> {
    let mut out = method(50, 20);
    out.put_u16(0);
    for text in [queue, exchange, key] {
        put_short(&mut out, text);
    }
    out.put_u8(0);
    put_table(&mut out, &Table::new());
    out
}

pub(crate) fn queue_unbind(queue: &str, exchange: &str, key: &str) -> Vec<u8> {
    let mut out = method(50, 50);
    out.put_u16(0);
    for text in [queue, exchange, key] {
        put_short(&mut out, text);
    }
    put_table(&mut out, &Table::new());
    out
}

/// Without conditions: RabbitMQ closes the connection that sets one for a quorum queue.
pub(crate) fn queue_delete(name: &str) -> Vec<u8> {
    let mut out = method(50, 40);
    out.put_u16(0);
    put_short(&mut out, name);
    out.put_u8(0);
    out
}

pub(crate) fn qos(prefetch: u16) -> Vec<u8> {
    let mut out = method(60, 10);
    out.put_u32(0);
    out.put_u16(prefetch);
    out.put_u8(0);
    out
}

/// `tag` names the consumer on its channel; with `unsettled` the broker forgets what it hands out.
pub(crate) fn consume(queue: &str, tag: &str, unsettled: bool, arguments: &Table) -> Vec<u8> {
    let mut out = method(60, 20);
    out.put_u16(0);
    put_short(&mut out, queue);
    put_short(&mut out, tag);
    out.put_u8(u8::from(unsettled) << 1);
    put_table(&mut out, arguments);
    out
}

pub(crate) fn cancel(tag: &str) -> Vec<u8> {
    let mut out = method(60, 30);
    put_short(&mut out, tag);
    out.put_u8(0);
    out
}

pub(crate) fn publish(exchange: &str, key: &str, mandatory: bool) -> Vec<u8> {
    let mut out = method(60, 40);
    out.put_u16(0);
    put_short(&mut out, exchange);
    put_short(&mut out, key);
    out.put_u8(u8::from(mandatory));
    out
}

pub(crate) fn ack(tag: u64, multiple: bool) -> Vec<u8> {
    let mut out = method(60, 80);
    out.put_u64(tag);
    out.put_u8(u8::from(multiple));
    out
}

/// Gives one message back to its queue.
pub(crate) fn requeue(tag: u64) -> Vec<u8> {
    let mut out = method(60, 120);
    out.put_u64(tag);
    out.put_u8(0b10);
    out
}

pub(crate) fn confirm_select() -> Vec<u8> {
    let mut out = method(85, 10);
    out.put_u8(0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_method_makes_it_panic() {
        for class in [10_u16, 20, 40, 50, 60, 85, 99] {
            for number in 0..130_u16 {
                for length in [0, 1, 2, 7, 40] {
                    let mut bytes = method(class, number);
                    bytes.extend(vec![255; length]);
                    let _ = read(bytes.into());
                }
            }
        }
    }
}
