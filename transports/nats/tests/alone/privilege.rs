//! The users of `etc/brokers`: what each needs it may, and nothing else.

use commissaire::testkit::{Failure, Target};

use super::*;

/// An account with the users of one exchange.
const ACCOUNTS: &str = include_str!("../../../../etc/brokers/nats.conf");

/// For the suite: every bus is one of a user for services, who may touch its own exchange only.
pub(crate) async fn services() -> Result<Target, Failure> {
    let exchange = token(&format!("t{:016x}", rand::random::<u64>()));
    let server = server(&[exchange.as_str(), &format!("{exchange}_q")]).await?;
    let port = server.port();
    let target = Target::new(move |options| {
        let user = format!("services-{}", options.exchange);
        let uri: Result<BusUri> =
            format!("nats://{user}:pw@127.0.0.1:{port}?durability=strict&inbox_prefix=_INBOX_{user}").parse();
        Box::pin(async move { (commissaire_nats::DRIVER.connect)(uri?, options).await })
    });
    Ok(target.exchange(exchange).on(server).lease(Duration::from_secs(30)))
}

/// A server with the users of these exchanges, `services-EXCHANGE` and `clients-EXCHANGE`, all in one account, and a
/// stream `foreign` in another one, whose user is `stranger`.
async fn server(exchanges: &[&str]) -> Outcome<Server> {
    let (before, rest) = ACCOUNTS.split_once("users = [").unwrap();
    let (_, before) = before.split_once("accounts {").unwrap();
    let (users, behind) = rest.rsplit_once(']').unwrap();
    let mut text = format!("{{ {before} users = [");
    for exchange in exchanges {
        let own = users.replace("commissaire", exchange).replace("PASSWORD", "pw");
        for user in ["services", "clients"] {
            assert!(own.contains(user));
        }
        text += &own
            .replace("services", &format!("services-{exchange}"))
            .replace("clients", &format!("clients-{exchange}"));
    }
    text += &format!("]{}", behind.trim_end().strip_suffix('}').unwrap());
    text += "STRANGERS { jetstream: enabled, users: [ { user: stranger, password: pw } ] } }";
    let server = Server::nats(&[("accounts", &text)]).await?;
    let stranger = log_in("stranger", &server).await;
    let foreign = json!({"name": "foreign", "subjects": ["foreign.>"]}).to_string();
    let made = stranger.request("$JS.API.STREAM.CREATE.foreign", foreign.into()).await.unwrap();
    assert!(!String::from_utf8_lossy(&made.payload).contains("error"), "{made:?}");
    Ok(server)
}

fn uri_of(user: &str, server: &Server) -> String {
    format!("nats://{user}:pw@127.0.0.1:{}?inbox_prefix=_INBOX_{user}", server.port())
}

/// A plain client of `user`, without the bus.
async fn log_in(user: &str, server: &Server) -> async_nats::Client {
    let options = async_nats::ConnectOptions::with_user_and_password(user.into(), "pw".into());
    let options = options.custom_inbox_prefix(format!("_INBOX_{user}"));
    options.connect(format!("127.0.0.1:{}", server.port())).await.unwrap()
}

/// What the server has refused to its users, a line each.
fn refused(server: &Server) -> Vec<String> {
    let log = std::fs::read_to_string(server.dir().join("log")).unwrap();
    log.lines().filter(|line| line.contains("Violation")).map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_ask_for_nothing_that_they_may_not() -> Outcome {
    let server = server(&["commissaire"]).await?;
    let uri = uri_of("services-commissaire", &server);
    let (here, there) = (connect(&uri).await?, connect(&uri).await?);
    let inbox = Inbox::random();
    for (source, address) in [
        (Source::Service(key("svc")), Address::Service(key("svc.m"))),
        (jobs(), Address::Queue(key("jobs.test"))),
        (Source::Topic(patterns("t.#")), Address::Topic(key("t.x"))),
        (durable("d", "t.#"), Address::Topic(key("t.x"))),
        (Source::Control(key("svc")), Address::Control(key("svc"))),
        (Source::Inbox(inbox), Address::Inbox(inbox)),
    ] {
        let mut subscription = here.subscribe(source, 4).await?;
        there.publish(message(address, "body")).await?;
        next(&mut subscription).await.nack(Duration::from_millis(10), "once more").await?;
        subscription.close();
    }
    let mut queue = there.subscribe(jobs(), 4).await?;
    next(&mut queue).await.term("rejected", "no").await?;
    let mut dead = there.subscribe(Source::DeadLetters(Origin::Queue(key("jobs.test"))), 4).await?;
    drop(next(&mut dead).await);
    next(&mut dead).await.redrive().await?;
    assert_eq!(take(&mut queue).await, "body");
    here.survey().await?;
    here.remove_durable(&token("d"), None).await?;
    here.close().await?;
    there.close().await?;
    assert_eq!(refused(&server), Vec::<String>::new());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_call_enqueue_announce_and_listen_and_do_nothing_else() -> Outcome {
    let server = server(&["commissaire"]).await?;
    let services = connect(&uri_of("services-commissaire", &server)).await?;
    let clients = connect(&uri_of("clients-commissaire", &server)).await?;
    let inbox = Inbox::random();
    let mut heard = [
        clients.subscribe(Source::Topic(patterns("t.#")), 4).await?,
        services.subscribe(durable("d", "t.#"), 4).await?,
    ];
    let mut replies = clients.subscribe(Source::Inbox(inbox), 4).await?;
    let mut calls = services.subscribe(Source::Service(key("svc")), 4).await?;
    let mut control = services.subscribe(Source::Control(key("svc")), 4).await?;
    // A reply finds its way although its caller's inboxes stand elsewhere.
    let asked = call("asks")
        .with(header::REPLY, inbox.to_string())?
        .with(header::CORRELATION, format!("{:032x}", 7))?;
    clients.publish(asked).await?;
    assert_eq!(take(&mut calls).await, "asks");
    services.publish(message(Address::Inbox(inbox), "answer")).await?;
    assert_eq!(take(&mut replies).await, "answer");
    clients.publish(message(Address::Control(key("svc")), "cancel")).await?;
    assert_eq!(take(&mut control).await, "cancel");
    let mut queue = services.subscribe(jobs(), 4).await?;
    clients.publish(job("first")).await?;
    assert_eq!(take(&mut queue).await, "first");
    clients.publish(event("t.x", "body")).await?;
    for subscription in &mut heard {
        assert_eq!(take(subscription).await, "body");
    }
    assert_eq!(refused(&server), Vec::<String>::new());
    let start = Instant::now();
    let error =
        clients.publish(message(Address::Queue(key("jobs.nobodys")), "no queue is there")).await.unwrap_err();
    assert!(*error.kind() == ErrorKind::Forbidden && start.elapsed() < Duration::from_secs(5), "{error}");
    for source in [Source::Service(key("svc")), jobs(), durable("e", "t.#"), Source::Control(key("svc"))] {
        let start = Instant::now();
        let error = clients.subscribe(source, 1).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Forbidden, "{error}");
        assert!(start.elapsed() < Duration::from_secs(5), "{error}: after {:?}", start.elapsed());
    }
    clients.close().await?;
    Ok(services.close().await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_theirs_is_refused_by_the_server() -> Outcome {
    let server = server(&["commissaire", "other"]).await?;
    let services = connect(&uri_of("services-commissaire", &server)).await?;
    services.publish(job("kept")).await?;
    let nobody = async_nats::connect(server.uri()).await;
    assert!(nobody.is_err(), "nobody was let in");
    // Of the system, of another exchange, of others' inboxes, and what changes streams under everybody.
    let listened = [
        ">",
        "$JS.API.>",
        "$JS.ACK.>",
        "$SYS.>",
        "_INBOX.>",
        "other.1.e.>",
        "_INBOX_clients-commissaire.>",
        "_INBOX_services-other.>",
    ];
    let sent = [
        "other.1.s.svc",
        "other.1.q.jobs.test",
        "_INBOX_services-other.other.1.r.1",
        "$JS.API.STREAM.PURGE.commissaire=1=e",
        "$JS.API.STREAM.UPDATE.commissaire=1=e",
        "$JS.API.STREAM.SNAPSHOT.commissaire=1=e",
        "$JS.API.CONSUMER.CREATE.commissaire=1=e",
        "$JS.API.CONSUMER.LIST.commissaire=1=e",
        "$SYS.REQ.SERVER.PING",
    ];
    // What services may, and clients may not.
    let listened_by_services =
        ["commissaire.1.s.svc", "commissaire.1.c.svc", "commissaire.1.b.x", "commissaire.1.q.>"];
    let sent_by_services = [
        "$JS.API.STREAM.CREATE.mirror",
        "$JS.API.STREAM.DELETE.commissaire=1=q=jobs+test",
        "$JS.API.STREAM.LIST",
        "$JS.API.STREAM.MSG.GET.commissaire=1=q=jobs+test",
        "$JS.API.STREAM.MSG.DELETE.commissaire=1=g",
        "$JS.API.STREAM.MSG.DELETE.commissaire=1=q=jobs+test",
        "$JS.API.CONSUMER.DURABLE.CREATE.commissaire=1=e.d",
        "$JS.API.CONSUMER.INFO.commissaire=1=q=jobs+test.w",
        "$JS.API.CONSUMER.DELETE.commissaire=1=q=jobs+test.w",
        "$JS.API.CONSUMER.MSG.NEXT.commissaire=1=q=jobs+test.w",
        "$JS.ACK.commissaire=1=q=jobs+test.w.1.1.1.1.0",
        "commissaire.1.g.d",
        "commissaire.1.d.q.jobs.test",
        "commissaire.1.z.q.jobs.test",
        "_INBOX_services-commissaire.commissaire.1.r.1",
    ];
    for (user, listened, sent) in [
        ("services-commissaire", listened.to_vec(), sent.to_vec()),
        (
            "clients-commissaire",
            [&listened[..6], &listened_by_services].concat(),
            [&sent[..], &sent_by_services].concat(),
        ),
    ] {
        let client = log_in(user, &server).await;
        let mut subscriptions = Vec::new();
        for subject in &listened {
            subscriptions.push(client.subscribe(*subject).await.unwrap());
        }
        for subject in &sent {
            client.publish(*subject, "{}".into()).await.unwrap();
        }
        client.flush().await.unwrap();
        for subject in listened.iter().chain(&sent) {
            let told = format!("Subject \"{subject}\"");
            until(format_args!("{user} is refused {subject}"), LIMIT, async || {
                refused(&server).iter().any(|line| line.contains(user) && line.contains(&told))
            })
            .await?;
        }
    }
    // Streams of another account are not there at all.
    let client = log_in("services-commissaire", &server).await;
    for (asked, body) in [
        ("STREAM.DELETE.foreign", ""),
        ("STREAM.INFO.foreign", ""),
        ("STREAM.MSG.GET.foreign", "{\"seq\":1}"),
    ] {
        let answer = client.request(format!("$JS.API.{asked}"), body.into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["error"]["err_code"], 10059, "{asked}: {answer}");
    }
    let listed = client.request("$JS.API.STREAM.LIST", "".into()).await.unwrap();
    assert!(!String::from_utf8_lossy(&listed.payload).contains("foreign"), "{listed:?}");
    assert_eq!(take(&mut services.subscribe(jobs(), 1).await?).await, "kept");
    // An exchange that one may not use is refused at once, by name.
    let options = BusOptions { exchange: token("other"), ..BusOptions::default() };
    let (start, uri) = (Instant::now(), uri_of("services-commissaire", &server));
    let error = (commissaire_nats::DRIVER.connect)(uri.parse()?, options).await.unwrap_err();
    assert!(*error.kind() == ErrorKind::Forbidden && start.elapsed() < Duration::from_secs(5), "{error:?}");
    Ok(())
}
