//! What becomes of turns that waited, once the first of them can go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use sluicegate::inbox::{Claimed, Merged, Next, Resolution};
use sluicegate::model::{DeliveryId, DeliveryState, NewEvent, OverlapMode};

use super::{Plain, World, at, done, event, event_of, retry, room_for};

fn collect() -> Plain {
    room_for(100).overlap(OverlapMode::Collect, None, None)
}

fn latest() -> Plain {
    room_for(100).overlap(OverlapMode::Latest, None, None)
}

fn merged(claimed: &Claimed) -> Vec<DeliveryId> {
    claimed.merged.iter().map(|merged| merged.id).collect()
}

async fn states(world: &World, ids: &[DeliveryId]) -> Vec<DeliveryState> {
    let mut states = Vec::new();
    for id in ids {
        states.push(world.state(*id).await);
    }
    states
}

pub async fn what_waited_goes_together_and_a_retry_brings_the_same_again(mut world: World) {
    let events: Vec<NewEvent> = (1..=4).map(|n| event("a", n)).collect();
    let mut ids = Vec::new();
    for event in &events {
        ids.push(world.accept(event).await);
    }
    let turn = world.claim_one_on(&collect(), 5).await;
    assert_eq!((turn.id, turn.attempt, turn.dropped), (ids[0], 1, 0));
    assert_eq!(merged(&turn), ids[1..], "in order of arrival");
    for (
        Merged {
            event_type,
            received_at,
            params,
            headers,
            body,
            ..
        },
        event,
    ) in turn.merged.iter().zip(&events[1..])
    {
        assert_eq!(
            (event_type, *received_at),
            (&event.event_type, event.received_at)
        );
        assert_eq!(
            (params, headers, body),
            (&event.params, &event.headers, &event.body)
        );
    }
    assert_eq!(
        states(&world, &ids).await,
        [
            DeliveryState::Leased,
            DeliveryState::Merged,
            DeliveryState::Merged,
            DeliveryState::Merged
        ]
    );

    let late = world.accept(&event("a", 6)).await;
    world.settle(&turn, 6, Next::Released { doubt: None }).await;
    let turn = world.claim_one_on(&collect(), 7).await;
    assert_eq!(
        (turn.id, turn.attempt, merged(&turn)),
        (ids[0], 1, ids[1..].to_vec()),
        "though it was not sent"
    );
    world.settle(&turn, 7, retry(8)).await;
    let turn = world.claim_one_on(&collect(), 8).await;
    assert_eq!(
        (turn.id, turn.attempt, merged(&turn)),
        (ids[0], 2, ids[1..].to_vec())
    );
    world.crash().await;
    let turn = world.claim_one_on(&room_for(1), 9).await;
    assert_eq!(
        (turn.id, turn.attempt, merged(&turn)),
        (ids[0], 3, ids[1..].to_vec()),
        "whatever is said by now"
    );
    assert_eq!(world.state(late).await, DeliveryState::Pending);
    world.settle(&turn, 10, done()).await;
    let next = world.claim_one_on(&collect(), 10).await;
    assert_eq!((next.id, next.merged.len()), (late, 0));
    let want = [("delivered", 1), ("leased", 1), ("merged", 3)];
    assert_eq!(
        world.counts().await,
        BTreeMap::from(want.map(|(state, count)| (("triage".to_owned(), state), count)))
    );
}

pub async fn what_stands_between_is_not_overtaken(world: World) {
    for terms in [collect(), latest()] {
        let mut sealed = event("a", 2);
        sealed.deliveries[0].sealed = Some("closed".into());
        for between in [event_of("other", "a", 2), sealed] {
            let mut ids = Vec::new();
            for event in [event("a", 1), between, event("a", 3)] {
                ids.push(world.accept(&event).await);
            }
            for id in ids {
                let turn = world.claim_one_on(&terms, 5).await;
                assert_eq!((turn.id, turn.merged.len(), turn.dropped), (id, 0, 0));
                world.settle(&turn, 5, done()).await;
            }
        }
    }
    // One that was tried is no turn that only waits.
    let tried = world.accept(&event("a", 1)).await;
    world
        .settle(&world.claim_one(1).await, 1, Next::Unknown)
        .await;
    let first = world.accept(&event("a", 2)).await;
    let second = world.accept(&event("a", 3)).await;
    assert!(
        world
            .inbox()
            .resolve(tried, Resolution::Again, "", at(4))
            .await
            .unwrap()
    );
    let turn = world.claim_one_on(&collect(), 5).await;
    assert_eq!((turn.id, turn.merged.len()), (tried, 0));
    world.settle(&turn, 5, done()).await;
    let turn = world.claim_one_on(&collect(), 5).await;
    assert_eq!((turn.id, merged(&turn)), (first, vec![second]));
}

pub async fn a_turn_has_its_bounds(world: World) {
    for n in 0..130 {
        world.accept(&event("many", n)).await;
    }
    for n in 0..3 {
        world
            .accept(&NewEvent {
                body: vec![b'x'; 1_500_000].into(),
                ..event("large", n)
            })
            .await;
    }
    world
        .accept(&NewEvent {
            body: vec![b'x'; 5_000_000].into(),
            ..event("larger", 1)
        })
        .await;
    for wanted in [
        BTreeMap::from([("many", 100), ("large", 2), ("larger", 1)]),
        BTreeMap::from([("many", 30), ("large", 1)]),
    ] {
        let turns = world.claims(&collect(), 1000).await.claimed;
        let sizes = turns
            .iter()
            .map(|turn| (turn.thread.as_deref().unwrap(), 1 + turn.merged.len()));
        assert_eq!(sizes.collect::<BTreeMap<_, _>>(), wanted);
        for turn in &turns {
            world.settle(turn, 1000, done()).await;
        }
    }
    assert!(world.claim(1000).await.is_empty());
}

pub async fn what_is_old_or_too_much_is_dropped_in_favour_of_the_rest(world: World) {
    let terms = room_for(100).overlap(OverlapMode::Collect, Some(2), Some(100));
    let mut ids = Vec::new();
    for received in [1, 50, 60, 70] {
        ids.push(world.accept(&event("a", received)).await);
    }
    let claims = world.claims(&terms, 110).await;
    assert_eq!(claims.dropped, [("triage".to_owned(), 2)]);
    let turn = &claims.claimed[0];
    assert_eq!(
        (turn.id, merged(turn), turn.dropped),
        (ids[2], vec![ids[3]], 2)
    );
    assert_eq!(
        states(&world, &ids).await,
        [
            DeliveryState::Dropped,
            DeliveryState::Dropped,
            DeliveryState::Leased,
            DeliveryState::Merged
        ]
    );
    world.settle(turn, 111, retry(500)).await;
    let again = world.claims(&terms, 500).await;
    assert_eq!(
        (again.claimed[0].dropped, merged(&again.claimed[0])),
        (2, vec![ids[3]]),
        "tried, it is never too old"
    );
    assert!(again.dropped.is_empty(), "said once");
    world.settle(&again.claimed[0], 500, done()).await;

    // All of them too old: nothing goes out, and the lane is free.
    let old = [
        world.accept(&event("b", 1)).await,
        world.accept(&event("b", 2)).await,
    ];
    let claims = world.claims(&terms, 600).await;
    assert!(claims.claimed.is_empty());
    assert_eq!(claims.dropped, [("triage".to_owned(), 2)]);
    assert_eq!(
        states(&world, &old).await,
        [DeliveryState::Dropped, DeliveryState::Dropped]
    );
    let young = world
        .accept(&NewEvent {
            most_ahead: Some(0),
            ..event("b", 600)
        })
        .await;
    assert_eq!(world.claim_one_on(&terms, 600).await.id, young);
    let want = [
        ("delivered", 1),
        ("dropped", 4),
        ("leased", 1),
        ("merged", 1),
    ];
    assert_eq!(
        world.counts().await,
        BTreeMap::from(want.map(|(state, count)| (("triage".to_owned(), state), count)))
    );
}

pub async fn only_the_latest_goes_out(world: World) {
    let mut ids = Vec::new();
    for n in 1..=3 {
        ids.push(world.accept(&event("a", n)).await);
    }
    let claims = world.claims(&latest(), 5).await;
    assert_eq!(claims.dropped, [("triage".to_owned(), 2)]);
    let turn = &claims.claimed[0];
    assert_eq!(
        (turn.id, turn.merged.len(), turn.dropped, turn.attempt),
        (ids[2], 0, 2, 1)
    );
    assert_eq!(turn.body, event("a", 3).body);
    for n in 6..=7 {
        ids.push(world.accept(&event("a", n)).await);
    }
    world.settle(turn, 8, retry(9)).await;
    let turn = world.claim_one_on(&latest(), 9).await;
    assert_eq!(
        (turn.id, turn.dropped),
        (ids[2], 2),
        "what was tried is finished first"
    );
    world.settle(&turn, 9, done()).await;
    let turn = world.claim_one_on(&latest(), 9).await;
    assert_eq!((turn.id, turn.dropped), (ids[4], 1));
    // It was not sent, so the next may still take its place.
    ids.push(world.accept(&event("a", 10)).await);
    world
        .settle(&turn, 10, Next::Released { doubt: None })
        .await;
    let turn = world.claim_one_on(&latest(), 10).await;
    assert_eq!(
        (turn.id, turn.dropped),
        (ids[5], 2),
        "it speaks for those before it too"
    );
    let [gone, went] = [DeliveryState::Dropped, DeliveryState::Delivered];
    assert_eq!(
        states(&world, &ids).await,
        [gone, gone, went, gone, gone, DeliveryState::Leased]
    );
}

pub async fn a_queue_drops_what_waited_too_long(world: World) {
    let terms = room_for(100).overlap(OverlapMode::Queue, None, Some(100));
    let mut ids = Vec::new();
    for received in [1, 2, 50, 60] {
        ids.push(world.accept(&event("a", received)).await);
    }
    let claims = world.claims(&terms, 120).await;
    assert_eq!(claims.dropped, [("triage".to_owned(), 2)]);
    assert_eq!(
        (claims.claimed[0].id, claims.claimed[0].dropped),
        (ids[2], 2)
    );
    world.settle(&claims.claimed[0], 130, retry(1000)).await;
    let tried = world.claim_one_on(&terms, 1000).await;
    assert_eq!(tried.id, ids[2], "tried, it is never too old");
    world.settle(&tried, 1000, done()).await;
    assert!(world.claims(&terms, 1000).await.claimed.is_empty());
    let gone = DeliveryState::Dropped;
    assert_eq!(
        states(&world, &ids).await,
        [gone, gone, DeliveryState::Delivered, gone]
    );
}

pub async fn the_last_of_very_many_is_found(world: World) {
    let inbox = world.inbox.clone().unwrap();
    for chunk in 0..6 {
        let all = (0..200).map(|n| {
            let inbox = Arc::clone(&inbox);
            tokio::spawn(async move { inbox.accept(event("a", chunk * 200 + n)).await.unwrap() })
        });
        for accepted in join_all(all).await {
            accepted.unwrap();
        }
    }
    let last = world.accept(&event("a", 1200)).await;
    let (mut claimed, mut dropped) = (Vec::new(), 0);
    for _ in 0..4 {
        let claims = world.claims(&latest(), 2000).await;
        dropped += claims.dropped.iter().map(|(_, count)| count).sum::<u64>();
        claimed.extend(claims.claimed);
    }
    assert_eq!(
        (claimed.len(), claimed[0].id, claimed[0].dropped, dropped),
        (1, last, 1200, 1200)
    );
}

pub async fn one_that_was_merged_ends_with_the_one_it_went_with(world: World) {
    let inbox = world.inbox.clone().unwrap();
    let wait = |id: DeliveryId| {
        let inbox = Arc::clone(&inbox);
        tokio::spawn(async move { inbox.ended(id).await.unwrap().unwrap() })
    };
    for state in [
        DeliveryState::Delivered,
        DeliveryState::Dead,
        DeliveryState::Unknown,
        DeliveryState::Cancelled,
    ] {
        let first = world.accept(&event("a", 1)).await;
        let second = world.accept(&event("a", 2)).await;
        let waits = wait(second);
        let turn = world.claim_one_on(&collect(), 3).await;
        world.settle(&turn, 3, retry(4)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!waits.is_finished(), "the other goes on");
        let begun = Instant::now();
        match state {
            DeliveryState::Cancelled => assert!(world.inbox().cancel(first, at(4)).await.unwrap()),
            _ => {
                let next = match state {
                    DeliveryState::Delivered => done(),
                    DeliveryState::Dead => Next::Dead(None),
                    _ => Next::Unknown,
                };
                world
                    .settle(&world.claim_one_on(&collect(), 4).await, 4, next)
                    .await;
            }
        }
        let ended = waits.await.unwrap();
        assert!(
            begun.elapsed() < Duration::from_millis(500),
            "told, and not found by looking: {state:?}"
        );
        assert_eq!((ended.id, ended.state), (first, state), "as the other did");
        assert_eq!(world.state(second).await, DeliveryState::Merged);
        assert_eq!(wait(second).await.unwrap().id, first, "afterwards too");
    }
}
