//! Declaring exchanges, queues and bindings.

use std::sync::Arc;

use futures_util::future::join_all;

use crate::{
    names::{Exchange, Names, Queue},
    wire::{
        Answer, Channel, Connection, Fault, Silent, method,
        value::{Table, Value},
    },
};

/// What binds a queue: an exchange and a key.
pub(crate) type Binding = (String, String);

/// Declares the exchanges that everything goes through; finds them there where the user may not declare.
pub(crate) async fn exchanges(connection: &Connection, names: &Names) -> Result<(), Fault> {
    let declared = declare_exchanges(connection, names).await;
    let Err(Fault::Refused { code: 403, text }) = declared else { return declared };
    let channel = connection.channel(Arc::new(Silent)).await?;
    let look = |exchange: Exchange| channel.call(&method::exchange_look(&exchange.name, exchange.kind));
    match all(names.exchanges().into_iter().map(look).collect()).await {
        Err(fault) if fault.is_missing() => {
            Err(Fault::Refused { code: 403, text: format!("{text}, and no service has declared it yet") })
        }
        found => found,
    }
}

async fn declare_exchanges(connection: &Connection, names: &Names) -> Result<(), Fault> {
    let channel = connection.channel(Arc::new(Silent)).await?;
    let asked: Vec<_> = names
        .exchanges()
        .into_iter()
        .map(|exchange| {
            let otherwise =
                exchange.otherwise.map(|name| ("alternate-exchange".to_owned(), Value::Text(name)));
            let arguments: Table = otherwise.into_iter().collect();
            let declare =
                method::exchange_declare(&exchange.name, exchange.kind, exchange.durable, &arguments);
            channel.call(&declare)
        })
        .collect();
    all(asked).await
}

/// Declares a queue and binds it, on a channel of its own.
pub(crate) async fn declare(
    connection: &Connection,
    names: &Names,
    queue: &Queue,
    bindings: &[Binding],
) -> Result<(), Fault> {
    make_sure(connection, names, queue).await?;
    let channel = connection.channel(Arc::new(Silent)).await?;
    declare_on(&channel, queue, bindings).await
}

/// Declares a quorum queue so that the broker still knows it after a crash, before anything is bound to it.
///
/// Before [4.0](Connection::writes_queues_late) RabbitMQ keeps in memory, for a second and more, under which id it has made
/// a quorum queue (rabbitmq/ra#443). If it is killed meanwhile it makes another one on its return, which has no leader and
/// never gets one, and what the first had confirmed is lost. What it keeps so is written as soon as it asks its table for a
/// name that it does not know: it does when another queue is made.
pub(crate) async fn make_sure(connection: &Connection, names: &Names, queue: &Queue) -> Result<(), Fault> {
    if !queue.is_quorum() || !connection.writes_queues_late() {
        return Ok(());
    }
    let channel = connection.channel(Arc::new(Silent)).await?;
    let other = names.scratch(rand::random());
    let asked = [queue, &other]
        .map(|queue| channel.call(&method::queue_declare(&queue.name, queue.auto_delete, &queue.arguments)));
    all(asked.into()).await?;
    // It is on its way; nobody needs the answer.
    drop(channel.call(&method::queue_delete(&other.name)));
    Ok(())
}

/// Declares a queue and binds it.
async fn declare_on(channel: &Channel, queue: &Queue, bindings: &[Binding]) -> Result<(), Fault> {
    let declare = method::queue_declare(&queue.name, queue.auto_delete, &queue.arguments);
    let mut asked = vec![channel.call(&declare)];
    asked.extend(
        bindings.iter().map(|(exchange, key)| channel.call(&method::queue_bind(&queue.name, exchange, key))),
    );
    all(asked).await
}

/// Binds a queue, which changes nothing where it is bound so already.
pub(crate) async fn bind(connection: &Connection, queue: &str, bindings: &[Binding]) -> Result<(), Fault> {
    let channel = connection.channel(Arc::new(Silent)).await?;
    let bind = |(exchange, key): &Binding| channel.call(&method::queue_bind(queue, exchange, key));
    all(bindings.iter().map(bind).collect()).await
}

/// Takes bindings away, as far as they are there.
pub(crate) async fn unbind(connection: &Connection, queue: &str, bindings: &[Binding]) -> Result<(), Fault> {
    let channel = connection.channel(Arc::new(Silent)).await?;
    let unbind = |(exchange, key): &Binding| channel.call(&method::queue_unbind(queue, exchange, key));
    all(bindings.iter().map(unbind).collect()).await
}

/// Declares an exchange that hands everything to one queue of the same name, and that queue.
pub(crate) async fn declare_with_exchange(
    connection: &Connection,
    names: &Names,
    queue: &Queue,
) -> Result<(), Fault> {
    make_sure(connection, names, queue).await?;
    let channel = connection.channel(Arc::new(Silent)).await?;
    let exchange = channel.call(&method::exchange_declare(&queue.name, "fanout", true, &Table::new()));
    let bindings = [(queue.name.clone(), String::new())];
    let (exchange, queue) = futures_util::join!(exchange, declare_on(&channel, queue, &bindings));
    exchange.map(drop).and(queue)
}

/// Asks for a queue: how many messages and consumers it has. `None` when it is not there.
pub(crate) async fn look(connection: &Connection, name: &str) -> Result<Option<(u32, u32)>, Fault> {
    let channel = connection.channel(Arc::new(Silent)).await?;
    match channel.call(&method::queue_look(name)).await {
        Ok(Answer::Queue { messages, consumers }) => Ok(Some((messages, consumers))),
        Ok(_) => Err(Fault::Lost),
        Err(fault) if fault.is_missing() => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// All answers, or the first fault.
async fn all(asked: Vec<impl Future<Output = Result<Answer, Fault>>>) -> Result<(), Fault> {
    join_all(asked).await.into_iter().try_for_each(|answer| answer.map(drop))
}
