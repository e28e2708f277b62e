//! Events, ephemeral and durable.

use std::sync::Arc;

use commissaire::{
    Address, Client, Context, Event, Key, Message, Notice, Result, RpcError, Service, Settlement,
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{double::Double, key, memory};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Seen {
    kind: String,
    number: u32,
}

impl Event for Seen {
    const PATTERN: &'static str = "notify.seen.*";
    fn key(&self) -> Result<Key> {
        Key::new(format!("notify.seen.{}", self.kind))
    }
}

async fn hear(
    heard: Arc<mpsc::Sender<Seen>>,
    notice: Notice<Seen>,
    context: Context,
) -> Result<(), RpcError> {
    let Notice::Event(seen) = notice else { return Ok(()) };
    if seen.number == 3 && context.attempt == 1 {
        return Err(RpcError::new(RpcError::UNAVAILABLE, "again, please"));
    }
    heard.send(seen).await.map_err(|_| RpcError::internal())
}

fn seen(number: u32) -> Seen {
    Seen { kind: "host".into(), number }
}

#[tokio::test]
async fn each_instance_hears_every_event_in_order() {
    let bus = memory().await;
    let (send_one, mut one) = mpsc::channel(16);
    let (send_two, mut two) = mpsc::channel(16);
    let _one = Service::new("one", send_one).event(hear).start(bus.clone()).await.unwrap();
    let _two = Service::new("two", send_two).event(hear).start(bus.clone()).await.unwrap();
    let client = Client::new(bus);
    for number in [0, 1, 2] {
        client.announce(&seen(number)).await.unwrap();
    }
    client.announce_raw(key("notify.seen.host"), b"not an event".to_vec()).await.unwrap();
    client.announce(&seen(4)).await.unwrap();
    for ear in [&mut one, &mut two] {
        for number in [0, 1, 2, 4] {
            assert_eq!(ear.recv().await, Some(seen(number)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_durable_event_is_kept_and_tried_again() {
    let bus = memory().await;
    let (send, mut ear) = mpsc::channel(16);
    let service = || Service::new("ear", send.clone()).durable_event("ear", hear);
    let running = service().start(bus.clone()).await.unwrap();
    running.drain(std::time::Duration::from_secs(1)).await;
    let client = Client::new(bus.clone());
    for number in [1, 2, 3] {
        client.announce(&seen(number)).await.unwrap();
    }
    let _running = service().start(bus).await.unwrap();
    for number in [1, 2, 3] {
        assert_eq!(ear.recv().await, Some(seen(number)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_long_run_is_given_back_where_the_broker_takes_it_back() {
    async fn slow(
        slow: Arc<std::time::Duration>,
        notice: Notice<Seen>,
        _: Context,
    ) -> std::result::Result<(), RpcError> {
        if let Notice::Event(_) = notice {
            tokio::time::sleep(*slow).await;
        }
        Ok(())
    }
    let minutes = |minutes: u64| std::time::Duration::from_secs(60 * minutes);
    // Five minutes are left beside the longest run: 64 that wait may take less than 5 s each.
    for (takes, given_back) in [(4, false), (5, true)] {
        let bus = Double { by_hand: true, longest_run: Some(minutes(25)), ..Double::new().await };
        let bus = Arc::new(bus);
        let state = std::time::Duration::from_secs(takes);
        let _running =
            Service::new("ear", state).durable_event("ear", slow).start(bus.clone()).await.unwrap();
        let event = |number| {
            let body = serde_json::to_vec(&seen(number)).unwrap();
            Message::new(Address::Topic(key("notify.seen.host")), body).unwrap()
        };
        let mut first = bus.deliver(event(1), 0).await;
        let mut second = bus.deliver(event(2), 0).await;
        assert!(matches!(first.recv().await, Some(Some(Settlement::Ack))));
        let second = second.recv().await.unwrap();
        assert_eq!(second.is_none(), given_back, "after {takes} s: {second:?}");
    }
}
