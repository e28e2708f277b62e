//! The users of `etc/brokers`: what each needs it may, and nothing else.

use commissaire::testkit::{Failure, Target};
use redis::aio::MultiplexedConnection;

use super::*;
use crate::STRICT;

/// The users of one exchange.
const USERS: &str = include_str!("../../../../etc/brokers/redis.acl");

/// For the suite: every bus is one of a user for services, who may touch its own exchange only.
pub(crate) async fn services() -> Result<Target, Failure> {
    let exchange = Token::new(format!("t{:016x}", rand::random::<u64>()))?;
    let server = server(&[exchange.as_str(), &format!("{exchange}_q")]).await?;
    let port = server.port();
    let target = Target::new(move |options| {
        let login = format!("services-{}:pw", options.exchange);
        let uri: Result<BusUri> = format!("redis://{login}@127.0.0.1:{port}?durability=strict-power").parse();
        Box::pin(async move { (commissaire_redis::DRIVER.connect)(uri?, options).await })
    });
    Ok(target.exchange(exchange).on(server).lease(Duration::from_secs(30)))
}

/// A server with the users of these exchanges, `services-EXCHANGE` and `clients-EXCHANGE`, and an administrator.
async fn server(exchanges: &[&str]) -> Outcome<Server> {
    let mut users = "user admin on >pw ~* &* +@all\n".to_owned();
    for (at, exchange) in exchanges.iter().enumerate() {
        let own = USERS.replace("commissaire", exchange).replace(">PASSWORD", ">pw");
        let own = own.replace("user services", &format!("user services-{exchange}"));
        let own = own.replace("user clients", &format!("user clients-{exchange}"));
        let lines = own.lines().filter(|line| at == 0 || !line.starts_with("user default"));
        users.extend(lines.map(|line| format!("{line}\n")));
    }
    Server::redis(&[STRICT, &[("users", users.as_str())]].concat()).await
}

fn uri_of(user: &str, server: &Server) -> String {
    format!("redis://{user}:pw@127.0.0.1:{}", server.port())
}

async fn log_in(user: &str, server: &Server) -> MultiplexedConnection {
    redis::Client::open(uri_of(user, server)).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// Gives the order in `line`; what comes back.
async fn give(connection: &mut MultiplexedConnection, line: &str) -> redis::RedisResult<Value> {
    let mut words = line.split(' ');
    let mut command = redis::cmd(words.next().unwrap_or_default());
    for word in words {
        command.arg(word);
    }
    command.query_async(connection).await
}

/// What the server has refused to its users, a line each.
async fn refused(server: &Server) -> Vec<String> {
    let log = give(&mut log_in("admin", server).await, "ACL LOG").await.unwrap();
    let Value::Array(log) = log else { panic!("no log") };
    log.iter().map(|entry| format!("{entry:?}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_ask_for_nothing_that_they_may_not() -> Outcome {
    let server = server(&["commissaire"]).await?;
    let uri = format!("{}?durability=strict-power", uri_of("services-commissaire", &server));
    let (here, there) = (connect(&uri).await?, connect(&uri).await?);
    let inbox = Inbox::random();
    let pattern = || vec![Pattern::new("t.#").unwrap()];
    for (source, address) in [
        (Source::Service(key("svc")), Address::Service(key("svc.m"))),
        (jobs(), Address::Queue(key("jobs.test"))),
        (Source::Topic(pattern()), Address::Topic(key("t.x"))),
        (durable(), Address::Topic(key("t.x"))),
        (Source::Control(key("svc")), Address::Control(key("svc"))),
        (Source::Inbox(inbox), Address::Inbox(inbox)),
    ] {
        let mut subscription = here.subscribe(source, 4).await?;
        there.publish(Message::new(address, "body")?).await?;
        next(&mut subscription).await.nack(Duration::from_millis(10), "once more").await?;
        subscription.close();
    }
    there.publish(Message::new(Address::Inbox(Inbox::random()), "to nobody")?).await?;
    let mut queue = there.subscribe(jobs(), 4).await?;
    next(&mut queue).await.term("rejected", "no").await?;
    let mut dead = there.subscribe(Source::DeadLetters(Origin::Queue(key("jobs.test"))), 4).await?;
    drop(next(&mut dead).await);
    next(&mut dead).await.redrive().await?;
    next(&mut queue).await.ack().await?;
    // Leaving goes on after the close: until its last sign of life is old, a service may be told of.
    until("only what is stored is told of", LIMIT, async || {
        let survey = there.survey().await.unwrap();
        survey.unknown.is_empty() && survey.declared.len() == 3
    })
    .await?;
    let (ledger, place) = (there.ledger().unwrap(), Origin::Queue(key("jobs.test")));
    let id = MessageId::new();
    assert_eq!(ledger.begin(&place, id, 1, LIMIT).await?, Begun::Fresh);
    ledger.end(&place, id, 1, Some(LIMIT)).await?;
    ledger.end(&place, id, 1, None).await?;
    // Long enough for what is done every few seconds.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert!(!here.remove_durable(&Token::new("d")?, Some(LIMIT)).await?);
    assert!(here.remove_durable(&Token::new("d")?, None).await?);
    here.close().await?;
    there.close().await?;
    let odd = |entry: &String| !entry.contains("_kombu") && !entry.contains("cmd=psubscribe");
    assert_eq!(refused(&server).await.into_iter().find(odd), None);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_call_enqueue_announce_and_listen_and_do_nothing_else() -> Outcome {
    let server = server(&["commissaire"]).await?;
    let services = connect(&uri_of("services-commissaire", &server)).await?;
    let clients = connect(&uri_of("clients-commissaire", &server)).await?;
    let inbox = Inbox::random();
    let topic = Source::Topic(vec![Pattern::new("t.#")?]);
    let mut heard = [clients.subscribe(topic, 4).await?, services.subscribe(durable(), 4).await?];
    let mut replies = clients.subscribe(Source::Inbox(inbox), 4).await?;
    for (source, address) in [
        (Source::Service(key("svc")), Address::Service(key("svc.m"))),
        (Source::Control(key("svc")), Address::Control(key("svc"))),
        (jobs(), Address::Queue(key("jobs.test"))),
    ] {
        let mut subscription = services.subscribe(source, 4).await?;
        clients.publish(Message::new(address, "body")?).await?;
        next(&mut subscription).await.ack().await?;
    }
    clients.publish(event("body")).await?;
    for subscription in &mut heard {
        assert_eq!(body(&next(subscription).await), "body");
    }
    services.publish(Message::new(Address::Inbox(inbox), "answer")?).await?;
    assert_eq!(body(&next(&mut replies).await), "answer");
    let odd = |entry: &String| {
        !["_kombu", "cmd=psubscribe", "config|get"].iter().any(|known| entry.contains(known))
    };
    assert_eq!(refused(&server).await.into_iter().find(odd), None);
    for source in [Source::Service(key("svc")), jobs(), durable(), Source::Control(key("svc"))] {
        let error = clients.subscribe(source, 1).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Forbidden, "{error}");
    }
    for bus in [services, clients] {
        bus.close().await?;
    }
    Ok(())
}

/// What nobody may.
const FORBIDDEN: &str = "\
FLUSHALL
FLUSHDB
KEYS *
RANDOMKEY
CONFIG SET appendonly no
CONFIG REWRITE
ACL LIST
ACL SETUSER clients-commissaire +@all
CLIENT LIST
CLIENT KILL TYPE normal
DBSIZE
EVAL return 0
MODULE LIST
MONITOR
REPLICAOF no one
SAVE
SCRIPT FLUSH
SHUTDOWN NOSAVE
SWAPDB 0 1
GET other
SET other 1
DEL other
EXISTS other
GET bus:{other}:1:bind:v
HGETALL bus:{other}:1:bind
XADD bus:{other}:1:q:jobs.test * m x
XREADGROUP GROUP g x STREAMS bus:{other}:1:q:jobs.test >
LPUSH bus:{other}:1:rpc:svc x
RENAME bus:{commissaire}:1:q:jobs.test other
PUBLISH bus:{other}:1:evt:t.x 1
SUBSCRIBE bus:{other}:1:rep:1
PSUBSCRIBE *";

/// What services may, and clients may not.
const OF_SERVICES: &str = "\
CONFIG GET appendonly
SCAN 0
DEL bus:{commissaire}:1:q:jobs.test
XRANGE bus:{commissaire}:1:q:jobs.test - +
XREADGROUP GROUP g x STREAMS bus:{commissaire}:1:q:jobs.test >
XACK bus:{commissaire}:1:q:jobs.test g 1-1
XDEL bus:{commissaire}:1:q:jobs.test 1-1
LPOP bus:{commissaire}:1:rpc:svc
HSET bus:{commissaire}:1:bind d #
SET bus:{commissaire}:1:live:svc 1
GET bus:{commissaire}:1:once:q:jobs.test:1
PUBLISH bus:{commissaire}:1:rep:1 forged
SUBSCRIBE bus:{commissaire}:1:ctl:svc
SUBSCRIBE bus:{commissaire}:1:here:svc
PSUBSCRIBE bus:{commissaire}:1:*";

#[tokio::test]
async fn what_is_not_theirs_is_refused_by_the_server() -> Outcome {
    let server = server(&["commissaire", "other"]).await?;
    let options = BusOptions { exchange: Token::new("other")?, ..BusOptions::default() };
    let uri = uri_of("services-other", &server).parse()?;
    let other = (commissaire_redis::DRIVER.connect)(uri, options).await?;
    other.publish(job("kept")).await?;
    let error = connect(&format!("redis://127.0.0.1:{}", server.port())).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Forbidden, "{error}");
    for (user, lines) in
        [("services-commissaire", vec![FORBIDDEN]), ("clients-commissaire", vec![FORBIDDEN, OF_SERVICES])]
    {
        let mut connection = log_in(user, &server).await;
        for line in lines.join("\n").lines() {
            let error = give(&mut connection, line).await.expect_err(line);
            assert_eq!(error.code(), Some("NOPERM"), "{user}: {line}: {error}");
        }
        // Nor by a script, which every user may load.
        for line in ["FLUSHALL", "GET bus:{other}:1:bind:v", "DEL other"] {
            let words: Vec<String> = line.split(' ').map(|word| format!("'{word}'")).collect();
            let text = format!("return redis.call({})", words.join(","));
            let load = redis::cmd("SCRIPT").arg("LOAD").arg(text).query_async(&mut connection).await;
            let digest: String = load.unwrap();
            let error = give(&mut connection, &format!("EVALSHA {digest} 0")).await.expect_err(line);
            assert!(
                error.to_string().contains("can't run this command")
                    || error.to_string().contains("can't access")
                    || error.code() == Some("NOPERM"),
                "{user}: {line}: {error}"
            );
        }
    }
    let mut queue = other.subscribe(jobs(), 1).await?;
    assert_eq!(body(&next(&mut queue).await), "kept");
    Ok(())
}
