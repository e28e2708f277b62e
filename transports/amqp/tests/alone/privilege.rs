//! The users of `etc/brokers`: what each needs it may, and nothing else.

use commissaire::testkit::{Failure, Target};
use lapin::{
    BasicProperties, Channel, ExchangeKind,
    options::{
        BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
        ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
    },
    types::FieldTable,
};

use super::*;

/// The users of one exchange.
const USERS: &str = include_str!("../../../../etc/brokers/rabbitmq.json");

/// What the shared server begins with: the users, for the exchange of whichever test, and who may do everything.
pub(crate) fn definitions() -> String {
    // Two backslashes, as JSON has it, are behind it in the file.
    let own = USERS.replace("^commissaire", "^[at][0-9a-f]{16}(_q)?").replace("PASSWORD", "p@ss/w:rd%");
    let guest = r#"[{"name": "guest", "password": "guest", "tags": "administrator"},"#;
    let everything = r#"[{"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"},"#;
    let own = own.replace("\"users\": [", &format!("\"users\": {guest}"));
    own.replace("\"permissions\": [", &format!("\"permissions\": {everything}"))
}

fn uri_of(user: &str, server: &Server) -> String {
    format!("amqp://{user}:p%40ss%2Fw%3Ard%25@127.0.0.1:{}/%2F?durability=strict-power", server.port())
}

/// For the suite: every bus is one of the user for services.
pub(crate) async fn services() -> Result<Target, Failure> {
    Ok(Target::driver(commissaire_amqp::DRIVER, uri_of("services", shared().await?)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_call_enqueue_announce_and_listen_and_do_nothing_else() -> Outcome {
    let (server, exchange) = (shared().await?, exchange());
    // It finds what services declare.
    let error = connect(&uri_of("clients", server), &exchange).await.unwrap_err();
    assert!(*error.kind() == ErrorKind::Forbidden && error.to_string().contains("no service"), "{error}");
    let services = connect(&uri_of("services", server), &exchange).await?;
    let clients = connect(&uri_of("clients", server), &exchange).await?;
    let inbox = Inbox::random();
    let durable = || Source::Durable(Token::new("d").unwrap(), patterns(&["t.#"]));
    let mut heard = [
        clients.subscribe(Source::Topic(patterns(&["t.#"])), 4).await?,
        services.subscribe(durable(), 4).await?,
    ];
    let mut replies = clients.subscribe(Source::Inbox(inbox), 4).await?;
    let error = clients.publish(job("to a queue that is not there")).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Forbidden, "{error}");
    for (source, message) in [
        (Source::Service(key("svc")), call("body")),
        (Source::Control(key("svc")), Message::new(Address::Control(key("svc")), "body")?),
        (jobs(), job("body")),
    ] {
        let mut subscription = services.subscribe(source, 4).await?;
        clients.publish(message).await?;
        next(&mut subscription).await.ack().await?;
    }
    clients.publish(event("body")).await?;
    for subscription in &mut heard {
        assert_eq!(body(&next(subscription).await), "body");
    }
    services.publish(Message::new(Address::Inbox(inbox), "answer")?).await?;
    assert_eq!(body(&next(&mut replies).await), "answer");
    for source in [Source::Service(key("svc")), jobs(), durable(), Source::Control(key("svc"))] {
        let error = clients.subscribe(source, 1).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Forbidden, "{error}");
    }
    for bus in [clients, services] {
        bus.close().await?;
    }
    // And elsewhere nobody may do anything.
    for user in ["services", "clients"] {
        let error = connect(&uri_of(user, server), &Token::new("elsewhere")?).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Forbidden, "{error}");
    }
    Ok(())
}

/// Gives the order in `line` on a channel of its own.
async fn give(connection: &lapin::Connection, line: &str) -> lapin::Result<()> {
    let channel: Channel = connection.create_channel().await?;
    let words: Vec<&str> = line.split(' ').collect();
    let (name, other) = (words[1].into(), words.get(2).copied().unwrap_or_default().into());
    let none = FieldTable::default;
    match words[0] {
        "declare" => drop(channel.queue_declare(name, QueueDeclareOptions::default(), none()).await?),
        "delete" => drop(channel.queue_delete(name, QueueDeleteOptions::default()).await?),
        "purge" => drop(channel.queue_purge(name, QueuePurgeOptions::default()).await?),
        "get" => drop(channel.basic_get(name, BasicGetOptions::default()).await?),
        "bind" => {
            channel.queue_bind(name, other, "#".into(), QueueBindOptions::default(), none()).await?;
        }
        "make" => {
            let (kind, options) = (ExchangeKind::Fanout, ExchangeDeclareOptions::default());
            channel.exchange_declare(name, kind, options, none()).await?;
        }
        "drop" => channel.exchange_delete(name, ExchangeDeleteOptions::default()).await?,
        "publish" => {
            channel.confirm_select(ConfirmSelectOptions::default()).await?;
            let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
            channel.basic_publish(name, other, options, b"x", properties).await?.await?;
        }
        verb => panic!("{verb}"),
    }
    Ok(())
}

/// What nobody may. OWN is the exchange.
const FORBIDDEN: &str = "\
declare foreign
declare OWNx.1.q.jobs.test
delete foreign.1.q.jobs.test
purge foreign.1.q.jobs.test
get foreign.1.q.jobs.test
bind foreign.1.q.jobs.test OWN.1.evt
bind OWN.1.eph.1 foreign.1.evt
make foreign
drop foreign.1.evt
publish foreign.1.evt t.x
publish foreign.1.work foreign.1.q.jobs.test
publish amq.topic t.x
publish  foreign.1.q.jobs.test
bind OWN.1.eph.1 amq.rabbitmq.trace";

/// What services may, and clients may not.
const OF_SERVICES: &str = "\
declare OWN.1.q.jobs.new
delete OWN.1.q.jobs.test
purge OWN.1.q.jobs.test
get OWN.1.q.jobs.test
get OWN.1.registry
bind OWN.1.q.jobs.test OWN.1.evt
bind OWN.1.eph.1 OWN.1.rpc
bind OWN.1.eph.1 OWN.1.work
bind OWN.1.eph.1 OWN.1.ctl
make OWN.1.delay.1
drop OWN.1.evt
publish OWN.1.reply 1
publish OWN.1.due OWN.1.q.jobs.test
publish OWN.1.dead OWN.1.dead.queue.jobs.test";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_theirs_is_refused_by_the_server() -> Outcome {
    let (server, own) = (shared().await?, exchange());
    let (guest, foreign) = (server.uri(), Token::new("foreign")?);
    let other = connect(&guest, &foreign).await?;
    other.publish(job("kept")).await?;
    let bus = connect(&uri_of("services", server), &own).await?;
    bus.publish(job("kept")).await?;
    let mut ears = bus.subscribe(Source::Topic(patterns(&["t.#"])), 1).await?;
    for (user, lines) in [("services", vec![FORBIDDEN]), ("clients", vec![FORBIDDEN, OF_SERVICES])] {
        let uri = uri_of(user, server).replace("?durability=strict-power", "");
        let connection = lapin::Connection::connect(&uri, Default::default()).await.unwrap();
        give(&connection, &format!("declare {own}.1.eph.1")).await.unwrap();
        for line in lines.join("\n").lines() {
            let error = give(&connection, &line.replace("OWN", own.as_str())).await.expect_err(line);
            assert!(error.to_string().contains("ACCESS_REFUSED"), "{user}: {line}: {error}");
        }
        give(&connection, &format!("delete {own}.1.eph.1")).await.unwrap();
    }
    for bus in [other, bus] {
        bus.publish(event("seen")).await?;
        assert_eq!(body(&next(&mut bus.subscribe(jobs(), 1).await?).await), "kept");
        bus.close().await?;
    }
    assert_eq!(body(&next(&mut ears).await), "seen");
    Ok(())
}
