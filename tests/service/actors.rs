//! Who asks: let in, or refused, and why.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use commissaire::{
    Access, Actor, Address, Bus, BusOptions, Client, Context, Error, Identity, Inbox, Key, Message,
    MessageId, Metrics, Origin, RpcError, Running, SecretKey, Service, Source, Token, actor::introduce,
    header,
};
use serde_json::{Value, json};

use super::{Act, Add, Named, Raw, Sum, Work, double::take, key, memory};

struct Stage {
    raw: Arc<dyn Bus>,
    anna: Arc<SecretKey>,
    bert: Arc<SecretKey>,
    access: Arc<Access>,
}

fn token(name: &str) -> Token {
    Token::new(name).unwrap()
}

/// Anna may do everything but `calc.act`, which is Bert's; nobody has `calc.closed`.
async fn stage() -> Stage {
    let (anna, bert) = (SecretKey::generate().unwrap(), SecretKey::generate().unwrap());
    let actors = [(token("anna"), vec![anna.public()]), (token("bert"), vec![bert.public()])].into();
    let rules: BTreeMap<String, Vec<String>> = serde_json::from_value(json!({
        "calc.*": ["anna", "bert"], "calc.act": ["bert"], "calc.add": ["*"], "calc.closed": [], "jobs.work": ["anna"],
    }))
    .unwrap();
    let access = Arc::new(Access::new(actors, Some(&rules)).unwrap());
    Stage { raw: memory().await, anna: Arc::new(anna), bert: Arc::new(bert), access }
}

impl Stage {
    fn bus(&self, name: &str, key: Option<&Arc<SecretKey>>, exchange: &str) -> Arc<dyn Bus> {
        let identity = Identity { name: Some(token(name)), key: key.cloned() };
        let exchange = token(exchange);
        introduce(self.raw.clone(), &BusOptions { exchange, identity, ..BusOptions::default() })
    }

    fn client(&self, name: &str, key: Option<&Arc<SecretKey>>) -> Client {
        Client::new(self.bus(name, key, "commissaire")).with_timeout(Duration::from_secs(5))
    }

    /// The bus of a service that has the rules.
    fn guarded(&self) -> Arc<dyn Bus> {
        let options = BusOptions { access: Some(self.access.clone()), ..BusOptions::default() };
        introduce(self.raw.clone(), &options)
    }

    async fn serve(&self, runs: &Arc<AtomicU32>, metrics: &Metrics) -> Running {
        Service::new("calc", runs.clone())
            .method(Add, async |runs: Arc<AtomicU32>, sum: Sum, _: Context| {
                runs.fetch_add(1, Ordering::Relaxed);
                Ok(sum.x + sum.y)
            })
            .method(Act, async |runs: Arc<AtomicU32>, _: Named, context: Context| {
                runs.fetch_add(1, Ordering::Relaxed);
                Ok(format!("{} {}", context.actor, context.actor.is_verified()))
            })
            .metrics(metrics.clone())
            .start(self.guarded())
            .await
            .unwrap()
    }

    /// What Anna's call of `calc.add` looks like on the bus.
    async fn captured(&self) -> Message {
        let mut wire = self.raw.subscribe(Source::Service(key("calc")), 1).await.unwrap();
        let client = self.client("anna", Some(&self.anna));
        let call = tokio::spawn(async move { client.call(Add, &Sum { x: 1, y: 2 }).await });
        // The call waits on: a cancellation would end what is sent in its name.
        drop(call);
        wire.next_delivery().await.unwrap().message().clone()
    }
}

fn count(metrics: &Metrics, reason: &str) -> u32 {
    let start = format!("commissaire_refused_total{{reason=\"{reason}\"}} ");
    let text = metrics.render();
    text.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok()).unwrap_or(0)
}

fn forbidden(outcome: Result<impl std::fmt::Debug, Error>) -> String {
    let error = outcome.unwrap_err();
    assert_eq!(error.remote().map(|remote| remote.code), Some(RpcError::FORBIDDEN), "{error}");
    error.to_string()
}

const SUM: Sum = Sum { x: 1, y: 2 };

#[tokio::test]
async fn who_may_is_let_in_and_the_handler_knows_who() {
    let (stage, runs, metrics) = (stage().await, Arc::default(), Metrics::default());
    let _running = stage.serve(&runs, &metrics).await;
    assert_eq!(stage.client("anna", Some(&stage.anna)).call(Add, &SUM).await.unwrap(), 3);
    let named = Named { name: "x".into() };
    assert_eq!(stage.client("bert", Some(&stage.bert)).call(Act, &named).await.unwrap(), "bert true");
    assert!(!metrics.render().contains("refused_total"), "{}", metrics.render());
}

#[tokio::test]
async fn who_may_not_is_told_so_and_nothing_runs() {
    let (stage, runs, metrics) = (stage().await, Arc::default(), Metrics::default());
    let _running = stage.serve(&runs, &metrics).await;
    let other = Arc::new(SecretKey::generate().unwrap());
    let public = other.public().to_string();
    for (name, key, reason) in [
        ("anna", None, "unsigned"),
        ("carl", None, "unsigned"),
        ("carl", Some(&other), "unknown"),
        ("anna", Some(&other), "forged"),
        ("anna", Some(&stage.bert), "forged"),
    ] {
        let before = count(&metrics, reason);
        let text = forbidden(stage.client(name, key).call(Add, &SUM).await);
        assert!(text.contains("calc.add") && text.contains(name), "{text}");
        assert!(!text.contains(&public), "{text}");
        assert_eq!(count(&metrics, reason), before + 1, "{name}: {reason}");
    }
    let named = Named { name: "x".into() };
    let anna = stage.client("anna", Some(&stage.anna));
    let text = forbidden(anna.call(Act, &named).await);
    assert!(text.contains("calc.act for anna"), "{text}");
    forbidden(anna.call_raw(key("calc.closed"), None).await);
    assert_eq!(count(&metrics, "denied"), 2);
    // A name that a key was not made for cannot be worn with it.
    let mask = stage.client("bert", Some(&stage.anna));
    forbidden(mask.call(Act, &named).await);
    assert_eq!(runs.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_signature_of_another_bus_is_none_here() {
    let (stage, runs, metrics) = (stage().await, Arc::default(), Metrics::default());
    let _running = stage.serve(&runs, &metrics).await;
    let there = Client::new(stage.bus("anna", Some(&stage.anna), "elsewhere"));
    forbidden(there.call(Add, &SUM).await);
    assert_eq!((count(&metrics, "forged"), runs.load(Ordering::Relaxed)), (1, 0));
}

/// `message` with another id, address or body.
fn remade(message: &Message, id: MessageId, address: Address, body: Vec<u8>) -> Message {
    let made = Message::with_id(id, address, body).unwrap();
    message
        .headers()
        .iter()
        .filter(|(name, _)| *name != header::ID)
        .fold(made, |made, (name, value)| made.with(name.to_owned(), value).unwrap())
}

fn without(message: &Message, name: &str) -> Message {
    let made =
        Message::with_id(message.id().unwrap(), message.address().clone(), message.body().clone()).unwrap();
    let kept = message.headers().iter().filter(|(other, _)| *other != name);
    kept.fold(made, |made, (name, value)| made.with(name.to_owned(), value).unwrap())
}

#[tokio::test]
async fn whatever_is_changed_on_the_way_is_noticed() {
    let (stage, runs, metrics) = (stage().await, Arc::default(), Metrics::default());
    let good = stage.captured().await;
    let _running = stage.serve(&runs, &metrics).await;
    let (id, address, body) = (good.id().unwrap(), good.address().clone(), good.body().to_vec());
    let with = |name: &'static str, value: &str| good.clone().with(name, value).unwrap();
    let signature = good.headers().get(header::SIGNATURE).unwrap().to_owned();
    let parts: Vec<&str> = signature.split(' ').collect();
    let (time, ttl): (u64, u64) = (parts[1].parse().unwrap(), parts[2].parse().unwrap());
    let signed = |time: u64, ttl: &str| format!("1 {time} {ttl} {}", parts[3]);
    let changed = [
        ("id", remade(&good, MessageId::new(), address.clone(), body.clone())),
        ("address", remade(&good, id, Address::Service(key("calc.act")), body.clone())),
        ("batch", remade(&good, id, Address::Service(key("calc.batch")), body.clone())),
        (
            "body",
            remade(&good, id, address.clone(), String::from_utf8(body).unwrap().replace('1', "9").into()),
        ),
        ("actor", with(header::ACTOR, "bert")),
        ("reply", with(header::REPLY, &Inbox::random().to_string())),
        ("no reply", without(&good, header::REPLY)),
        ("correlation", with(header::CORRELATION, "0000000000000000000000000000002a")),
        ("no correlation", without(&good, header::CORRELATION)),
        ("longer life", with(header::TTL, &(ttl + 1).to_string())),
        ("longer life, said twice", {
            let longer = (ttl + 1_000).to_string();
            with(header::TTL, &longer).with(header::SIGNATURE, signed(time, &longer)).unwrap()
        }),
        ("endless life", without(&good, header::TTL)),
        ("another time", with(header::SIGNATURE, &signed(time + 1, parts[2]))),
        ("no end", with(header::SIGNATURE, &signed(time, "-"))),
        ("another version", with(header::SIGNATURE, &signature.replacen('1', "2", 1))),
        ("half a signature", with(header::SIGNATURE, &signature[..60])),
        ("empty", with(header::SIGNATURE, "")),
        ("a line more", with(header::SIGNATURE, &format!("{signature} "))),
    ];
    for (number, (what, message)) in changed.into_iter().enumerate() {
        stage.raw.publish(message).await.unwrap();
        commissaire::testkit::until(what, Duration::from_secs(5), async || {
            count(&metrics, "forged") == number as u32 + 1
        })
        .await
        .unwrap_or_else(|failure| panic!("{failure}: {}", metrics.render()));
    }
    assert_eq!(runs.load(Ordering::Relaxed), 0);
    // As it was it is good, with the shorter life that a transport leaves it, and once.
    stage.raw.publish(good.clone().with(header::TTL, "4000").unwrap()).await.unwrap();
    for _ in 0..3 {
        stage.raw.publish(good.clone()).await.unwrap();
    }
    commissaire::testkit::until("replays", Duration::from_secs(5), async || count(&metrics, "replayed") == 3)
        .await
        .unwrap();
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_retry_of_the_same_call_is_another_call() {
    let (stage, runs, metrics) = (stage().await, Arc::default(), Metrics::default());
    let _running = stage.serve(&runs, &metrics).await;
    let client = stage.client("anna", Some(&stage.anna)).with_layer(&commissaire::layer::Retry::default());
    for _ in 0..3 {
        client.call(Add, &SUM).await.unwrap();
    }
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}

#[tokio::test]
async fn each_member_of_a_batch_is_asked_for_by_itself() {
    let (stage, runs, metrics) = (stage().await, Arc::default(), Metrics::default());
    let _running = stage.serve(&runs, &metrics).await;
    let mut raw = Raw::new(&stage.bus("anna", Some(&stage.anna), "commissaire")).await;
    let body = r#"[{"jsonrpc":"2.0","id":1,"method":"add","params":[1,2]},
        {"jsonrpc":"2.0","id":2,"method":"act","params":["x"]},{"jsonrpc":"2.0","id":3,"method":"closed"},
        {"jsonrpc":"2.0","id":4,"method":"a.b"}]"#;
    let answers: Vec<Value> = serde_json::from_str(&raw.ask("calc.batch", body).await).unwrap();
    assert_eq!(answers[0]["result"], 3, "{answers:?}");
    for (answer, code) in answers[1..].iter().zip([-32004, -32004, -32601]) {
        assert_eq!(answer["error"]["code"], code, "{answer}");
    }
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_refusal_has_the_id_of_its_request_and_a_notification_gets_none() {
    let (stage, runs, metrics) = (stage().await, Arc::default(), Metrics::default());
    let _running = stage.serve(&runs, &metrics).await;
    let mut raw = Raw::new(&stage.raw).await;
    raw.send("calc.add", r#"{"jsonrpc":"2.0","method":"add","params":[1,2]}"#).await;
    let answer = raw.ask("calc.add", r#"{"jsonrpc":"2.0","id":"q","method":"add","params":[1,2]}"#).await;
    assert!(answer.contains(r#""id":"q""#) && answer.contains("-32004"), "{answer}");
    assert_eq!(count(&metrics, "unsigned"), 2);
}

#[tokio::test]
async fn a_job_is_done_for_who_may_and_buried_for_others() {
    let stage = stage().await;
    let (send, mut done) = tokio::sync::mpsc::channel::<Actor>(8);
    let _running = Service::new("worker", send)
        .job(Work, async |send: Arc<tokio::sync::mpsc::Sender<Actor>>, _: Named, context: Context| {
            send.send(context.actor).await.map_err(|_| RpcError::internal())
        })
        .start(stage.guarded())
        .await
        .unwrap();
    let named = Named { name: "x".into() };
    let graves = || take(&stage.raw, Source::DeadLetters(Origin::Queue(key("jobs.work"))));
    for (name, key) in [("anna", None), ("bert", Some(&stage.bert)), ("anna", Some(&stage.bert))] {
        let id = stage.client(name, key).enqueue(Work, &named).await.unwrap();
        let dead = graves().await;
        assert_eq!(dead.message().id(), Some(id));
        assert_eq!(dead.message().headers().get(header::DEAD), Some("rejected"));
        let why = dead.message().headers().get(header::LAST_FAILURE).unwrap();
        assert!(why.contains("forbidden: jobs.work"), "{why}");
        dead.ack().await.unwrap();
    }
    // A job that is there twice is a job twice, and so is one that was signed long ago.
    let mut wire = stage.raw.subscribe(Source::Queue(key("jobs.spare")), 1).await.unwrap();
    let anna = stage.client("anna", Some(&stage.anna));
    anna.enqueue_raw(key("jobs.spare"), None).await.unwrap();
    let moved = wire.next_delivery().await.unwrap().message().clone();
    anna.enqueue(Work, &named).await.unwrap();
    let actor = done.recv().await.unwrap();
    assert_eq!((actor.name(), actor.is_verified()), (Some(&token("anna")), true));
    // What was signed for another queue is no job here, whatever its body.
    let body = r#"{"jsonrpc":"2.0","method":"work","params":{"name":"x"}}"#;
    let moved = remade(&moved, moved.id().unwrap(), Address::Queue(key("jobs.work")), body.into());
    stage.raw.publish(moved).await.unwrap();
    assert_eq!(graves().await.message().headers().get(header::DEAD), Some("rejected"));
    assert!(done.try_recv().is_err());
}

#[tokio::test]
async fn without_rules_all_are_answered_and_the_name_is_a_claim() {
    let stage = stage().await;
    let _running = Service::new("calc", ())
        .method(Act, async |_, _: Named, context: Context| {
            Ok(format!("{} {}", context.actor, context.actor.is_verified()))
        })
        .start(stage.raw.clone())
        .await
        .unwrap();
    let named = Named { name: "x".into() };
    for (client, answer) in [
        (stage.client("anna", Some(&stage.anna)), "anna false"),
        (stage.client("anna", None), "anna false"),
        (Client::new(stage.raw.clone()), "commissaire false"),
    ] {
        assert_eq!(client.call(Act, &named).await.unwrap(), answer);
    }
}

#[tokio::test]
async fn the_name_of_a_program_is_that_of_its_client() {
    let raw = memory().await;
    let options = BusOptions { client_name: "commissaire-storage".into(), ..BusOptions::default() };
    let bus = introduce(raw.clone(), &options);
    let mut heard = raw.subscribe(Source::Topic(vec![key("a.b").into()]), 1).await.unwrap();
    Client::new(bus).announce_raw(key("a.b"), b"{}".to_vec()).await.unwrap();
    let event = heard.next_delivery().await.unwrap();
    assert_eq!(event.message().headers().get(header::ACTOR), Some("storage"));
    assert_eq!(event.message().headers().get(header::SIGNATURE), None);
}

#[tokio::test]
async fn an_event_is_heard_from_everybody_and_says_who_proved_it() {
    #[derive(Debug, serde::Serialize, serde::Deserialize)]
    struct Seen {}
    impl commissaire::Event for Seen {
        const PATTERN: &'static str = "notify.seen";
        fn key(&self) -> commissaire::Result<Key> {
            Key::new("notify.seen")
        }
    }
    let stage = stage().await;
    let (send, mut heard) = tokio::sync::mpsc::channel::<String>(8);
    let _running = Service::new("ear", send)
        .event(
            async |send: Arc<tokio::sync::mpsc::Sender<String>>,
                   _: commissaire::Notice<Seen>,
                   told: Context| {
                let who = format!("{} {}", told.actor, told.actor.is_verified());
                send.send(who).await.map_err(|_| RpcError::internal())
            },
        )
        .start(stage.guarded())
        .await
        .unwrap();
    for (name, key, who) in [
        ("anna", Some(&stage.anna), "anna true"),
        ("anna", None, "anna false"),
        ("anna", Some(&stage.bert), "anna false"),
    ] {
        stage.client(name, key).announce(&Seen {}).await.unwrap();
        assert_eq!(heard.recv().await.as_deref(), Some(who));
    }
}
