//! What pending deliveries wait for, how sources fare, ids by their beginning.

use sluicegate::inbox::{EventFilter, Next};
use sluicegate::model::{DeliveryId, DeliveryState, EventId};

use super::{World, at, done, event, event_of, retry};

pub async fn what_waits_says_for_what(world: World) {
    let (first, second, other) = (event("t", 1), event("t", 2), event("u", 3));
    for event in [&first, &second, &other] {
        world.accept(event).await;
    }
    let ids = vec![first.id, second.id, other.id, EventId::new()];
    let named = |event: &sluicegate::model::NewEvent| DeliveryId {
        event: event.id,
        number: 0,
    };
    let waiting = world.inbox().waiting(ids.clone()).await.unwrap();
    let seen: Vec<_> = waiting.iter().map(|one| (one.id, one.behind)).collect();
    assert_eq!(
        seen,
        [
            (named(&first), None),
            (named(&second), Some(named(&first))),
            (named(&other), None)
        ]
    );
    assert_eq!(waiting[0].route, first.deliveries[0].route("triage"));
    assert!(waiting.iter().all(|one| one.last.is_none()));

    let claimed = world.claim(10).await;
    assert_eq!(claimed.len(), 2);
    let waiting = world.inbox().waiting(ids.clone()).await.unwrap();
    let seen: Vec<_> = waiting
        .iter()
        .map(|one| (one.id, one.behind, one.due))
        .collect();
    assert_eq!(
        seen,
        [(named(&second), Some(named(&first)), None)],
        "what is under lease goes before it"
    );
    for one in &claimed {
        world
            .settle(
                one,
                20,
                if one.id == named(&first) {
                    retry(100)
                } else {
                    done()
                },
            )
            .await;
    }
    let waiting = world.inbox().waiting(ids).await.unwrap();
    let seen: Vec<_> = waiting
        .iter()
        .map(|one| (one.id, one.behind, one.due))
        .collect();
    assert_eq!(
        seen,
        [
            (named(&first), None, Some(at(100))),
            (named(&second), Some(named(&first)), None)
        ]
    );
    assert_eq!(
        waiting[0]
            .last
            .as_ref()
            .map(|last| (last.number, last.detail.as_str())),
        Some((1, "try again"))
    );
}

pub async fn a_source_fares_by_the_last_delivery_of_each_event(world: World) {
    let events = [
        event_of("a", "1", 1_000),
        event_of("a", "2", 2_000),
        event_of("b", "3", 3_000),
        event_of("b", "4", 4_000),
    ];
    for event in &events {
        world.accept(event).await;
    }
    for claimed in world.claim(5_000).await {
        let next = match claimed.received_at.millis() {
            1_000 => Next::Dead(None),
            2_000 => Next::Unknown,
            3_000 => retry(100_000),
            _ => done(),
        };
        world.settle(&claimed, 6_000, next).await;
    }
    let fares = async || {
        let fares = world.inbox().source_fares().await.unwrap();
        fares
            .into_iter()
            .map(|fare| {
                (
                    fare.source,
                    fare.last_event,
                    fare.oldest_pending,
                    fare.dead,
                    fare.unknown,
                )
            })
            .collect::<Vec<_>>()
    };
    let quiet = |dead, unknown| ("a".to_owned(), Some(at(2_000)), None, dead, unknown);
    let busy = ("b".to_owned(), Some(at(4_000)), Some(at(3_000)), 0, 0);
    assert_eq!(fares().await, [quiet(1, 1), busy.clone()]);
    let open = |open| EventFilter {
        open: Some(open),
        limit: 3,
        ..EventFilter::default()
    };
    let found = async |filter: EventFilter| {
        let page = world.inbox().events(&filter).await.unwrap();
        page.items
            .iter()
            .map(|event| event.received_at.millis())
            .collect::<Vec<_>>()
    };
    assert_eq!(found(open(true)).await, [2_000, 1_000]);
    assert_eq!(
        found(EventFilter {
            oldest_first: true,
            limit: 1,
            ..open(true)
        })
        .await,
        [1_000]
    );
    assert_eq!(
        found(EventFilter {
            source: Some("b".into()),
            ..open(true)
        })
        .await,
        [] as [i64; 0]
    );
    assert_eq!(found(open(false)).await, [4_000, 3_000]);
    assert_eq!(world.inbox().count(&open(true), 10).await.unwrap(), 2);

    // One that was replayed is as its replay is.
    world
        .replay(events[0].id, 1, event_of("a", "1", 7_000).deliveries, 7_000)
        .await;
    let state = |state| EventFilter {
        state: Some(state),
        limit: 10,
        ..EventFilter::default()
    };
    assert_eq!(found(state(DeliveryState::Dead)).await, [] as [i64; 0]);
    assert_eq!(found(state(DeliveryState::Pending)).await, [3_000, 1_000]);
    assert_eq!(found(open(true)).await, [2_000]);
    let waits = ("a".to_owned(), Some(at(2_000)), Some(at(1_000)), 0, 1);
    assert_eq!(fares().await, [waits, busy]);
    assert_eq!(
        world.inbox().destinations().await.unwrap(),
        [super::agent()]
    );
}

pub async fn ids_are_found_between_two(world: World) {
    let mut ids: Vec<EventId> = Vec::new();
    for n in 0..5 {
        let event = event(&n.to_string(), n);
        world.accept(&event).await;
        ids.push(event.id);
    }
    ids.sort_unstable();
    let between = async |from, to, most| world.inbox().between(from, to, most).await.unwrap();
    assert_eq!(between(ids[1], ids[3], 10).await, ids[1..=3]);
    assert_eq!(between(ids[1], ids[3], 2).await, ids[1..3]);
    assert!(between(ids[3], ids[1], 10).await.is_empty());
    let whole = ids[2].to_string();
    let (from, to) = EventId::beginning(&whole).expect("an id is its own beginning");
    assert_eq!(between(from, to, 10).await, [ids[2]]);
}
