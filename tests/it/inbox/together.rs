//! The events of one request are kept together, or not at all.

use std::sync::Arc;

use futures_util::future::join_all;
use sluicegate::model::{Accepted, Backlog, EventId, NewEvent, ProofMark, UsedProof};

use super::{World, done, event, everything};

/// An item at a place of a request: its key, and the marks that it has from the request.
fn item(thread: &str, key: Option<&str>, mark: u8, place: usize, now: i64) -> NewEvent {
    let marks = vec![ProofMark([mark; 32]).of_item(place)];
    NewEvent {
        dedup: key.map(str::to_owned),
        proof: Some(UsedProof { marks, until: None }),
        ..event(thread, now)
    }
}

fn list(thread: &str, keys: &[&str], mark: u8, now: i64) -> Vec<NewEvent> {
    keys.iter()
        .enumerate()
        .map(|(place, key)| item(thread, Some(key), mark, place, now))
        .collect()
}

async fn tell(world: &World, events: &[NewEvent]) -> Vec<Accepted> {
    world.inbox().accept_all(events.to_vec()).await.unwrap()
}

async fn kept(world: &World) -> Vec<Option<String>> {
    let mut items = world.inbox().events(&everything()).await.unwrap().items;
    items.reverse();
    items.into_iter().map(|event| event.dedup).collect()
}

pub async fn a1_events_of_one_request_are_kept_in_their_order(world: World) {
    let events = list("t", &["c", "a", "b"], 1, 1);
    assert_eq!(tell(&world, &events).await, [Accepted::New; 3]);
    assert_eq!(
        kept(&world).await,
        ["c", "a", "b"].map(|key| Some(key.to_owned()))
    );
    for (event, now) in events.iter().zip(2..) {
        let claimed = world.claim_one(now).await;
        assert_eq!(
            (claimed.id.event, &claimed.body),
            (event.id, &event.body),
            "one lane, in the order of the list"
        );
        world.settle(&claimed, now, done()).await;
    }
    assert_eq!(tell(&world, &[]).await, []);
}

pub async fn a1_a_list_of_old_and_new_keeps_the_new(world: World) {
    let first = list("t", &["m1"], 1, 1);
    assert_eq!(tell(&world, &first).await, [Accepted::New]);
    let second = list("t", &["m1", "m2", "m2", "m3"], 2, 2);
    let told = tell(&world, &second).await;
    let (m1, m2) = (
        Accepted::Duplicate(first[0].id),
        Accepted::Duplicate(second[1].id),
    );
    assert_eq!(told, [m1, Accepted::New, m2, Accepted::New]);
    // A sender that tries again puts its lists together anew.
    let third = list("t", &["m3", "m2", "m4", "m1"], 3, 3);
    let told = tell(&world, &third).await;
    assert_eq!(
        told,
        [Accepted::Duplicate(second[3].id), m2, Accepted::New, m1]
    );
    assert_eq!(
        kept(&world).await,
        ["m1", "m2", "m3", "m4"].map(|key| Some(key.to_owned()))
    );
}

pub async fn a1_a_list_that_is_played_again_brings_nothing_new(world: World) {
    let nameless = |now| vec![item("t", None, 1, 0, now), item("t", None, 1, 1, now)];
    let first = nameless(1);
    assert_eq!(tell(&world, &first).await, [Accepted::New; 2]);
    // Without ids the proof of the request and the place in it are all there is.
    let told = tell(&world, &nameless(2)).await;
    assert!(
        matches!(told[..], [Accepted::Replayed(_), Accepted::Replayed(_)]),
        "{told:?}"
    );
    assert_eq!(told[0], Accepted::Replayed(first[0].id));
    // Where a signature leaves the body out, whoever has captured a request could put items of their own into it.
    let mut longer = nameless(3);
    longer.push(item("t", Some("smuggled"), 1, 2, 3));
    assert_eq!(
        tell(&world, &longer).await[2],
        Accepted::Replayed(first[0].id)
    );
    let named = vec![
        item("t", Some("fresh"), 1, 0, 4),
        item("t", Some("fresher"), 1, 1, 4),
    ];
    assert!(
        tell(&world, &named)
            .await
            .iter()
            .all(|told| matches!(told, Accepted::Replayed(_)))
    );
    assert_eq!(kept(&world).await.len(), 2);
}

pub async fn a1_all_of_a_request_are_kept_or_none(world: World) {
    let hasty = |thread: &str, key: &str, mark, place, now| NewEvent {
        most_ahead: Some(0),
        ..item(thread, Some(key), mark, place, now)
    };
    world.accept(&event("busy", 1)).await;
    let request = vec![hasty("free", "a", 1, 0, 2), hasty("busy", "b", 1, 1, 2)];
    assert_eq!(tell(&world, &request).await, [Accepted::Busy; 2]);
    assert_eq!(kept(&world).await, [None], "not the first of them either");
    let claimed = world.claim_one(2).await;
    assert_eq!(
        tell(&world, &request).await,
        [Accepted::Busy; 2],
        "one is in flight"
    );
    world.settle(&claimed, 3, done()).await;
    assert_eq!(
        tell(&world, &request).await,
        [Accepted::New; 2],
        "its sender tries again, with the same proof"
    );
    // Items of one request do not stand in each other's way, or none of them would ever be taken.
    let both = vec![hasty("pair", "c", 2, 0, 4), hasty("pair", "d", 2, 1, 4)];
    assert_eq!(tell(&world, &both).await, [Accepted::New; 2]);
    assert!(matches!(
        tell(&world, &both).await[..],
        [Accepted::Duplicate(_), Accepted::Duplicate(_)]
    ));

    let full = Some(Backlog {
        most: Some(5),
        age: None,
        turns_away: true,
    });
    let bounded = |key: &str, place| NewEvent {
        backlog: full,
        ..item("more", Some(key), 3, place, 5)
    };
    assert_eq!(
        tell(&world, &[bounded("e", 0), bounded("f", 1)]).await,
        [Accepted::New; 2],
        "four waited"
    );
    let more = [
        bounded("g", 0),
        NewEvent {
            id: EventId::new(),
            ..both[0].clone()
        },
    ];
    let more = more.into_iter().enumerate().map(|(place, event)| NewEvent {
        proof: Some(UsedProof {
            marks: vec![ProofMark([4; 32]).of_item(place)],
            until: None,
        }),
        ..event
    });
    let more: Vec<_> = more.collect();
    assert_eq!(
        tell(&world, &more).await,
        [Accepted::Behind; 2],
        "a double among them too: all of them come again"
    );
}

pub async fn a1_copies_at_once_of_a_list_are_kept_once(world: World) {
    let inbox = world.inbox.clone().unwrap();
    let copies = (0..32).map(|n| {
        let events: Vec<_> = ["a", "b", "c"]
            .iter()
            .enumerate()
            .map(|(place, key)| item("t", (n % 2 == 0).then_some(*key), 9, place, n))
            .collect();
        let inbox = Arc::clone(&inbox);
        tokio::spawn(async move { inbox.accept_all(events).await.unwrap() })
    });
    let told = join_all(copies.collect::<Vec<_>>())
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect::<Vec<_>>();
    let new = told
        .iter()
        .filter(|told| told.contains(&Accepted::New))
        .collect::<Vec<_>>();
    assert_eq!(
        new,
        [&vec![Accepted::New; 3]],
        "one of them, and that whole"
    );
    assert_eq!(kept(&world).await.len(), 3);
}
