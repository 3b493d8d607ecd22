//! Leases: one a lane, in order, on the terms of whoever claims.

use std::collections::BTreeMap;
use std::task::Poll;
use std::time::{Duration, Instant};

use sluicegate::inbox::{Next, Settled};

use super::{World, at, done, event, event_of, retry, room_for};

pub async fn one_delivery_of_a_lane_is_in_flight(world: World) {
    for n in 0..3 {
        world.accept(&event("a", n)).await;
        world.accept(&event("b", n)).await;
    }
    assert_eq!(world.claim(9).await.len(), 2, "one a lane");
    assert!(world.claim(9).await.is_empty(), "both lanes are taken");
    assert_eq!(world.next_due().await, None);
}

pub async fn a_lane_keeps_its_order_across_retries(world: World) {
    let events: Vec<_> = (0..4).map(|n| event("a", n)).collect();
    for event in &events {
        world.accept(event).await;
    }
    for (n, event) in events.iter().enumerate() {
        for attempt in 1..=2 {
            let claimed = world.claim_one(100).await;
            assert_eq!(claimed.id.event, event.id, "turn {n}");
            assert_eq!(claimed.attempt, attempt);
            let next = if attempt == 1 { retry(50) } else { done() };
            assert_eq!(world.settle(&claimed, 100, next).await, Settled::Done);
        }
    }
    assert!(world.claim(1000).await.is_empty());
}

pub async fn a_retry_holds_its_whole_lane_until_its_time(world: World) {
    let first = event("a", 1);
    world.accept(&first).await;
    world.settle(&world.claim_one(1).await, 2, retry(500)).await;
    world.accept(&event("a", 3)).await;
    assert!(world.claim(499).await.is_empty());
    assert_eq!(world.next_due().await, Some(at(500)));
    assert_eq!(world.claim_one(500).await.id.event, first.id);
}

pub async fn a_released_delivery_gets_its_try_back(world: World) {
    world.accept(&event("a", 1)).await;
    let claimed = world.claim_one(1).await;
    world
        .settle(
            &claimed,
            1,
            Next::Released {
                doubt: claimed.doubt,
            },
        )
        .await;
    let again = world.claim_one(1).await;
    assert_eq!((again.attempt, again.doubt), (1, None));
    world
        .settle(
            &again,
            2,
            Next::Retry {
                at: at(3),
                doubt: Some(at(1)),
                counted: true,
            },
        )
        .await;
    assert_eq!(world.claim_one(3).await.doubt, Some(at(1)));
}

pub async fn leases_that_nobody_took_come_back_by_themselves(world: World) {
    for n in 0..20 {
        world.accept(&event(&n.to_string(), n)).await;
    }
    let inbox = world.inbox.clone().unwrap();
    for round in 0..60_u32 {
        // Given up at another moment each time: before, during and after the commit, and while reading.
        let mut claim = inbox.claim(Box::new(room_for(100)), at(50));
        let mut all = Vec::new();
        for _ in 0..=round % 3 {
            let polled =
                std::future::poll_fn(|context| Poll::Ready(claim.as_mut().poll(context))).await;
            if let Poll::Ready(claimed) = polled {
                all.extend(claimed.unwrap().claimed);
                break;
            }
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_micros(u64::from(round) * 30) {
                tokio::task::yield_now().await;
            }
        }
        drop(claim);
        for _ in 0..400 {
            all.extend(world.claim(50).await);
            if all.len() == 20 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(all.len(), 20, "all come back in round {round}");
        for claimed in all {
            assert_eq!(
                (claimed.attempt, claimed.doubt),
                (1, None),
                "as if it had not been claimed"
            );
            world
                .settle(&claimed, 50, Next::Released { doubt: None })
                .await;
        }
    }
}

/// F1
pub async fn what_was_accepted_outlives_a_crash_and_leases_come_back_with_doubt(mut world: World) {
    let (sent, waits) = (event("a", 1), event("b", 2));
    world.accept(&sent).await;
    let before = world.claim_one(1).await;
    world.accept(&waits).await;
    world.accept(&event("a", 3)).await;
    world.crash().await;

    let claimed = world.claim(9).await;
    assert_eq!(
        claimed.iter().map(|c| c.id.event).collect::<Vec<_>>(),
        [sent.id, waits.id]
    );
    assert_eq!(
        (claimed[0].doubt, claimed[0].attempt),
        (Some(at(1)), 2),
        "it may have run"
    );
    assert_eq!((claimed[1].doubt, claimed[1].attempt), (None, 1));
    assert_eq!(world.settle(&before, 9, done()).await, Settled::Stale);
    let counts = [
        (("triage".into(), "leased"), 2),
        (("triage".into(), "pending"), 1),
    ];
    assert_eq!(world.counts().await, BTreeMap::from(counts));
}

pub async fn news_and_the_next_due_time_follow_what_happens(world: World) {
    let soon = async || {
        tokio::time::timeout(Duration::from_secs(2), world.inbox().work_due())
            .await
            .is_ok()
    };
    world.accept(&event("a", 7)).await;
    assert!(soon().await, "told although nobody was waiting");
    assert_eq!(world.next_due().await, Some(at(7)));
    assert!(world.claim(6).await.is_empty(), "not before its time");
    let claimed = world.claim_one(7).await;
    world.settle(&claimed, 8, retry(20)).await;
    assert!(soon().await);
    assert_eq!(world.next_due().await, Some(at(20)));
    world.inbox().ready().await.unwrap();
}

pub async fn a_route_that_is_closed_stays_as_it_is(world: World) {
    for n in 0..5 {
        world.accept(&event(&n.to_string(), n)).await;
    }
    world.accept(&event_of("other", "later", 100)).await;
    let closed = world.claims(&room_for(100).cap("triage", 0), 10).await;
    assert!(closed.claimed.is_empty());
    assert_eq!(closed.next_due, Some(at(100)), "only of what is open");
    let none = world.claims(&room_for(0), 200).await;
    assert!(none.claimed.is_empty() && none.dropped.is_empty());

    let some = world
        .claims(&room_for(100).cap("triage", 2), 10)
        .await
        .claimed;
    assert_eq!(
        some.iter().map(|one| one.received_at).collect::<Vec<_>>(),
        [at(0), at(1)],
        "due longest first"
    );
    let rest = world.claim(10).await;
    assert_eq!(rest.len(), 3);
    assert!(
        rest.iter().all(|one| (one.attempt, one.doubt) == (1, None)),
        "as if nobody had asked"
    );
}

pub async fn a_route_that_floods_keeps_no_other_waiting(world: World) {
    for n in 0..200 {
        world.accept(&event(&n.to_string(), n)).await;
    }
    for n in 0..6 {
        world
            .accept(&event_of("calm", &format!("c{n}"), 1000))
            .await;
    }
    let calm = async |room| {
        let claimed = world.claim_some(room, 2000).await;
        assert!(claimed.len() <= room);
        claimed.iter().filter(|one| one.source == "calm").count()
    };
    let first = calm(6).await;
    assert!((2..=4).contains(&first), "a share for each: {first}");
    let mut rest = 0;
    for _ in 0..4 {
        rest += calm(1).await;
    }
    assert_eq!(rest, 2, "in turn");
    // Nobody is kept from the room that the others leave.
    let mut all = 0;
    for _ in 0..40 {
        all += world.claim_some(50, 2000).await.len();
    }
    assert_eq!(all, 206 - 6 - 4);
}
