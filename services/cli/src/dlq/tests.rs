//! A walk sees each letter once and leaves what it does not end; filters and origins mean what they say.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use commissaire::{
    Address, Bus, BusOptions, DeadLetter, Declared, Key, Message, Origin, Source, Token, What, connect,
};

use super::{
    filter::Filter,
    origin::{Place, Places},
    walk::{End, Walk},
};

fn queue() -> Key {
    Key::new("jobs.paint").unwrap()
}

fn place(letters: Option<u64>) -> Place {
    Place { origin: Origin::Queue(queue()), letters, oldest: None }
}

/// A bus with `count` dead letters, whose bodies are their numbers.
async fn bus_with(count: u32) -> Arc<dyn Bus> {
    let bus = connect(&"memory://".parse().unwrap(), &BusOptions::default(), commissaire_transports::ALL)
        .await
        .unwrap();
    let mut jobs = bus.subscribe(Source::Queue(queue()), 1).await.unwrap();
    for number in 0..count {
        bus.publish(Message::new(Address::Queue(queue()), number.to_string()).unwrap()).await.unwrap();
        jobs.next_delivery().await.unwrap().term("attempts", "the paint has run out").await.unwrap();
    }
    bus
}

async fn numbers(bus: &Arc<dyn Bus>, letters: Option<u64>) -> (Vec<String>, Option<End>) {
    let mut walk = Walk::begin(bus.clone(), &place(letters)).await.unwrap();
    let mut seen = Vec::new();
    while let Some((delivery, letter)) = walk.next().await.unwrap() {
        seen.push(serde_json::to_string(&letter.body).unwrap());
        walk.keep(delivery);
    }
    (seen, walk.finish())
}

fn all(count: u32) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_walk_sees_every_letter_once_in_order_and_gives_them_back() {
    let bus = bus_with(1_000).await;
    for letters in [Some(1_000), None, Some(1_000)] {
        assert_eq!(numbers(&bus, letters).await, (all(1_000), Some(End::All)), "of {letters:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_walk_ends_with_the_letters_that_there_were_when_it_began() {
    let bus = bus_with(5).await;
    assert_eq!(numbers(&bus, Some(3)).await, (all(3), Some(End::All)));
    assert_eq!(numbers(&bus, Some(0)).await, (vec![], Some(End::All)));
}

#[tokio::test(start_paused = true)]
async fn letters_that_somebody_else_has_in_hand_are_missed_and_said_to_be() {
    let bus = bus_with(5).await;
    let mut other = bus.subscribe(Source::DeadLetters(Origin::Queue(queue())), 2).await.unwrap();
    let held = [other.next_delivery().await.unwrap(), other.next_delivery().await.unwrap()];
    let (seen, end) = numbers(&bus, Some(5)).await;
    assert_eq!((seen.len(), end), (3, Some(End::Missing(2))));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_walk_holds_no_more_than_it_may() {
    let bus = bus_with(10_100).await;
    let (seen, end) = numbers(&bus, Some(10_100)).await;
    assert_eq!((seen.len(), end), (10_000, Some(End::Full)));
    assert_eq!(numbers(&bus, Some(1)).await.0, all(1));
}

#[tokio::test(start_paused = true)]
async fn a_letter_that_dies_again_meanwhile_is_not_seen_twice() {
    let bus = bus_with(2).await;
    let mut jobs = bus.subscribe(Source::Queue(queue()), 1).await.unwrap();
    let mut walk = Walk::begin(bus.clone(), &place(None)).await.unwrap();
    let (delivery, _) = walk.next().await.unwrap().unwrap();
    bus.publish(delivery.message().clone()).await.unwrap();
    delivery.ack().await.unwrap();
    jobs.next_delivery().await.unwrap().term("attempts", "again").await.unwrap();
    let mut seen = 1;
    while let Some((delivery, _)) = walk.next().await.unwrap() {
        walk.keep(delivery);
        seen += 1;
    }
    assert_eq!((seen, walk.finish()), (2, Some(End::All)));
}

#[tokio::test]
async fn a_filter_takes_causes_ids_keys_and_parts_of_the_last_failure() {
    let bus = bus_with(1).await;
    let mut dead = bus.subscribe(Source::DeadLetters(Origin::Queue(queue())), 1).await.unwrap();
    let letter = DeadLetter::of(dead.next_delivery().await.unwrap().message());
    let id = letter.id.clone().unwrap();
    for (filter, takes) in [
        ("cause=attempts", true),
        ("cause=attempt", false),
        ("attempts", false),
        (&id, true),
        (&id[1..], false),
        ("jobs.paint", true),
        ("jobs", false),
        ("has run", true),
        ("has walked", false),
    ] {
        assert_eq!(filter.parse::<Filter>().unwrap().takes(&letter), takes, "{filter}");
    }
}

#[test]
fn an_origin_has_a_long_form_and_a_short_one_where_only_one_is_meant() {
    let (audit, paint) = (Origin::Durable(Token::new("audit").unwrap()), Origin::Queue(queue()));
    let both = [Origin::Queue(Key::new("both").unwrap()), Origin::Durable(Token::new("both").unwrap())];
    let of = |origin: &Origin| Place { origin: origin.clone(), letters: Some(1), oldest: None };
    let mut places = Places { known: [&audit, &paint, &both[0], &both[1]].map(of).to_vec(), complete: true };
    let find = |places: &Places, words: &str| {
        let one = places.find(&[words.to_owned()]);
        let words: Vec<String> = words.split(' ').map(str::to_owned).collect();
        let split = places.find(&words);
        assert_eq!(one.as_ref().ok().map(|p| &p.origin), split.as_ref().ok().map(|p| &p.origin));
        split.map(|place| (place.origin, place.letters))
    };
    assert_eq!(find(&places, "audit").unwrap(), (audit, Some(1)));
    assert_eq!(find(&places, "jobs.paint").unwrap(), (paint.clone(), Some(1)));
    assert_eq!(find(&places, "queue jobs.paint").unwrap(), (paint, Some(1)));
    assert_eq!(find(&places, "durable both").unwrap().0, both[1]);
    assert_eq!(find(&places, "queue nothing").unwrap().1, Some(0));
    assert_eq!(find(&places, "nothing").unwrap().1, Some(0));
    for wrong in ["both", "queue *", "topic jobs.paint", "queue jobs.paint now"] {
        find(&places, wrong).unwrap_err();
    }
    places.complete = false;
    assert_eq!(find(&places, "queue nothing").unwrap().1, None);
    assert_eq!(find(&places, "nothing").unwrap().1, Some(0));
}

#[test]
fn what_the_doctor_prints_of_dead_letters_can_be_typed() {
    let what = What::DeadQueue(queue());
    let origin = Declared::new(what).what.origin().unwrap();
    let places = Places { known: Vec::new(), complete: true };
    assert_eq!(places.find(&[origin.to_string()]).unwrap().origin, origin);
}
