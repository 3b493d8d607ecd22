//! What operators do: replay, call off, settle by hand, hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use sluicegate::inbox::{Anew, EventFilter, Next, Pause, Replayed, Resolution, Spend};
use sluicegate::model::{
    Accepted, DeliveryId, DeliveryState, EventId, NewEvent, Params, Timestamp,
};

use super::{World, agent, at, done, event, everything, keep, retry};

pub async fn a_replay_is_a_new_delivery_behind_what_waits(world: World) {
    let (first, second) = (event("a", 1), event("a", 2));
    world.accept(&first).await;
    world
        .settle(&world.claim_one(1).await, 1, Next::Dead(None))
        .await;
    world.accept(&second).await;
    let ids = world.replay(first.id, 1, first.deliveries.clone(), 3).await;
    assert_eq!(
        ids,
        [DeliveryId {
            event: first.id,
            number: 1
        }]
    );
    let claimed = world.claim_one(9).await;
    assert_eq!(claimed.id.event, second.id);
    world.settle(&claimed, 9, done()).await;
    let again = world.claim_one(9).await;
    assert_eq!((again.id, again.attempt), (ids[0], 1));
    let detail = world.inbox().event(first.id).await.unwrap().unwrap();
    assert_eq!(
        detail.summary.states,
        [DeliveryState::Dead, DeliveryState::Leased],
        "the old one stays as it was"
    );
    assert_eq!(
        world
            .inbox()
            .replay(EventId::new(), 0, vec![], at(3))
            .await
            .unwrap(),
        Replayed::NoEvent
    );
}

pub async fn a_cancelled_head_lets_the_next_go_at_once(world: World) {
    let (first, second) = (event("a", 1), event("a", 2));
    world.accept(&first).await;
    world.accept(&second).await;
    let claimed = world.claim_one(2).await;
    assert!(
        !world.inbox().cancel(claimed.id, at(2)).await.unwrap(),
        "it is in flight"
    );
    world.settle(&claimed, 2, retry(1_000_000)).await;
    assert!(world.inbox().cancel(claimed.id, at(3)).await.unwrap());
    assert!(
        !world.inbox().cancel(claimed.id, at(3)).await.unwrap(),
        "only once"
    );
    let next = world.claim_one(3).await;
    assert_eq!(next.id.event, second.id);
    world.settle(&next, 3, retry(4)).await;
    assert!(world.inbox().cancel(next.id, at(4)).await.unwrap());
    assert_eq!(world.next_due().await, None, "a lane without work is gone");
    let unknown = DeliveryId {
        event: EventId::new(),
        number: 0,
    };
    assert!(!world.inbox().cancel(unknown, at(4)).await.unwrap());
}

pub async fn a_replay_of_a_number_is_made_once(world: World) {
    let event = event("a", 1);
    world.accept(&event).await;
    assert_eq!(
        world
            .inbox()
            .replay(event.id, 0, event.deliveries.clone(), at(2))
            .await
            .unwrap(),
        Replayed::Moved
    );
    assert_eq!(
        world
            .inbox()
            .replay(event.id, 2, event.deliveries.clone(), at(2))
            .await
            .unwrap(),
        Replayed::Moved
    );
    let inbox = world.inbox.clone().unwrap();
    let all = join_all((0..8).map(|_| {
        let (inbox, event) = (Arc::clone(&inbox), event.clone());
        tokio::spawn(async move {
            inbox
                .replay(event.id, 1, event.deliveries, at(2))
                .await
                .unwrap()
        })
    }));
    let made = all
        .await
        .into_iter()
        .filter(|made| matches!(made.as_ref().unwrap(), Replayed::Made(_)))
        .count();
    assert_eq!(made, 1);
    assert_eq!(
        world.counts().await,
        BTreeMap::from([(("triage".into(), "pending"), 2)])
    );
}

pub async fn what_nobody_could_tell_is_settled_by_hand_in_three_ways(world: World) {
    let ways = [
        (Resolution::Delivered, DeliveryState::Delivered),
        (Resolution::Dead, DeliveryState::Dead),
        (Resolution::Again, DeliveryState::Pending),
    ];
    for (way, state) in ways {
        let id = world.accept(&event("a", 1)).await;
        assert!(
            !world.inbox().resolve(id, way, "", at(2)).await.unwrap(),
            "somebody can tell"
        );
        let claimed = world.claim_one(2).await;
        assert!(
            !world.inbox().resolve(id, way, "", at(2)).await.unwrap(),
            "it is in flight"
        );
        world.settle(&claimed, 3, Next::Unknown).await;
        assert!(
            world
                .inbox()
                .resolve(id, way, "seen in the log", at(4))
                .await
                .unwrap()
        );
        assert!(
            !world.inbox().resolve(id, way, "", at(4)).await.unwrap(),
            "only once"
        );
        let detail = world
            .inbox()
            .event(id.event)
            .await
            .unwrap()
            .unwrap()
            .deliveries
            .remove(0);
        assert_eq!((detail.state, detail.doubt), (state, None));
        let last = detail.tries.last().unwrap();
        assert_eq!(
            (last.result.as_str(), last.detail.as_str(), last.ended_at),
            ("by_hand", "seen in the log", at(4))
        );
        if way == Resolution::Again {
            let again = world.claim_one(4).await;
            assert_eq!(
                (again.id, again.attempt, again.strikes, again.doubt),
                (id, 2, 1, None)
            );
        }
    }
    let nobody = DeliveryId {
        event: EventId::new(),
        number: 0,
    };
    assert!(
        !world
            .inbox()
            .resolve(nobody, Resolution::Dead, "", at(4))
            .await
            .unwrap()
    );
    let want = [("dead", 1), ("delivered", 1), ("leased", 1)];
    assert_eq!(
        world.counts().await,
        BTreeMap::from(want.map(|(state, count)| (("triage".to_owned(), state), count)))
    );
}

pub async fn one_that_is_sent_again_by_hand_goes_before_what_waits(world: World) {
    let again = async |id| {
        world
            .inbox()
            .resolve(id, Resolution::Again, "", at(5))
            .await
            .unwrap()
    };
    let first = world.accept(&event("a", 1)).await;
    let second = world.accept(&event("a", 2)).await;
    world
        .settle(&world.claim_one(2).await, 2, Next::Unknown)
        .await;
    let claimed = world.claim_one(3).await;
    assert_eq!(claimed.id, second, "nobody waits for an operator");
    assert!(again(first).await);
    assert!(
        world.claim(5).await.is_empty(),
        "one of a lane is in flight"
    );
    world.settle(&claimed, 5, retry(6)).await;
    let claimed = world.claim_one(6).await;
    assert_eq!(claimed.id, first, "in order of arrival");
    world.settle(&claimed, 6, Next::Unknown).await;
    let claimed = world.claim_one(6).await;
    assert_eq!(claimed.id, second);
    world.settle(&claimed, 6, retry(1000)).await;
    assert!(again(first).await);
    assert_eq!(
        world.claim_one(6).await.id,
        first,
        "it does not wait for the other's time"
    );
}

pub async fn a_run_is_counted_against_all_its_budgets_or_none(mut world: World) {
    let spend = |budget: &str, most| Spend {
        budget: budget.to_owned(),
        most,
    };
    let both = vec![spend("source/s", 10), spend("all", 30)];
    let inbox = world.inbox.clone().unwrap();
    let all = join_all((0..40).map(|_| {
        let (inbox, both) = (Arc::clone(&inbox), both.clone());
        tokio::spawn(async move { inbox.spend(20_000, both).await.unwrap() })
    }));
    let refused: Vec<_> = all.await.into_iter().filter_map(Result::unwrap).collect();
    assert_eq!(refused, vec!["source/s"; 30]);
    drop(inbox);
    world.crash().await;
    let known = |all, source| [("all".to_owned(), all), ("source/s".to_owned(), source)];
    assert_eq!(
        world.inbox().spent(20_000).await.unwrap(),
        known(10, 10),
        "what was refused counts nowhere"
    );
    world
        .inbox()
        .give_back(
            20_000,
            vec!["source/s".into(), "all".into(), "nothing".into()],
        )
        .await
        .unwrap();
    assert_eq!(world.inbox().spent(20_000).await.unwrap(), known(9, 9));
    assert_eq!(
        world
            .inbox()
            .spend(20_000, vec![spend("all", 30)])
            .await
            .unwrap(),
        None
    );
    assert_eq!(world.inbox().spent(20_000).await.unwrap(), known(10, 9));
    assert_eq!(
        world.inbox().spend(20_000, both.clone()).await.unwrap(),
        None
    );
    assert_eq!(
        world
            .inbox()
            .spend(20_000, both.clone())
            .await
            .unwrap()
            .as_deref(),
        Some("source/s")
    );
    assert_eq!(
        world.inbox().spend(20_001, both).await.unwrap(),
        None,
        "another day"
    );
    world
        .inbox()
        .sweep(&keep(1), Timestamp::from_seconds(20_009 * 24 * 3600), 10)
        .await
        .unwrap();
    assert!(world.inbox().spent(20_000).await.unwrap().is_empty());
    assert_eq!(world.inbox().spent(20_001).await.unwrap().len(), 2);
}

pub async fn what_is_held_is_still_held_after_a_crash(mut world: World) {
    let (source, to) = (Pause::Source("triage".into()), Pause::Destination(agent()));
    assert!(
        world
            .inbox()
            .set_paused(&source, true, at(1))
            .await
            .unwrap()
    );
    assert!(
        !world
            .inbox()
            .set_paused(&source, true, at(2))
            .await
            .unwrap(),
        "it is"
    );
    assert!(world.inbox().set_paused(&to, true, at(3)).await.unwrap());
    world.crash().await;
    let mut holds = world.inbox().pauses().await.unwrap();
    holds.sort();
    assert_eq!(holds, [(source.clone(), at(1)), (to.clone(), at(3))]);
    world.accept(&event("a", 1)).await;
    assert!(
        world
            .inbox()
            .set_paused(&source, false, at(4))
            .await
            .unwrap()
    );
    assert!(
        !world
            .inbox()
            .set_paused(&source, false, at(4))
            .await
            .unwrap(),
        "it is not"
    );
    assert_eq!(world.inbox().pauses().await.unwrap(), [(to, at(3))]);
}

/// A12
pub async fn what_cannot_be_mapped_waits_for_an_operator_and_is_written_anew(world: World) {
    let why = "prompt: undefined value";
    let unmapped = |thread: &str| NewEvent {
        unmappable: Some(why.into()),
        thread: None,
        dedup: Some(thread.into()),
        params: Params::default(),
        ..event(thread, 1)
    };
    let (first, second, third) = (unmapped("1"), unmapped("2"), unmapped("3"));
    for event in [&first, &second, &third] {
        world.accept(event).await;
    }
    let again = NewEvent {
        id: EventId::new(),
        ..first.clone()
    };
    assert_eq!(
        world.inbox().accept(again).await.unwrap(),
        Accepted::Duplicate(first.id)
    );
    assert!(world.claim(9).await.is_empty(), "nothing takes it up");
    let count = |count| BTreeMap::from([(("triage".to_owned(), "unmappable"), count)]);
    assert_eq!(world.counts().await, count(3));
    let filter = EventFilter {
        state: Some(DeliveryState::Unmappable),
        ..everything()
    };
    assert_eq!(world.inbox().events(&filter).await.unwrap().items.len(), 3);
    let fares = world.inbox().source_fares().await.unwrap();
    assert_eq!(
        (fares[0].unmappable, fares[0].dead, fares[0].oldest_pending),
        (3, 0, None)
    );
    let detail = world.inbox().event(first.id).await.unwrap().unwrap();
    assert!(detail.is_unmapped());
    assert_eq!(
        (detail.body, &detail.deliveries[0].destination),
        (first.body.clone(), &agent())
    );
    let tries = &detail.deliveries[0].tries;
    assert_eq!(
        (
            tries[0].result.as_str(),
            tries[0].detail.as_str(),
            tries.len()
        ),
        ("unmappable", why, 1)
    );

    // Mapped anew, it is owed like any other.
    let mapped = event("1", 1);
    let anew = Anew {
        event_type: Some("mended".into()),
        thread: Some("1".into()),
        filtered: None,
        request_line: detail.request_line,
        params: mapped.params.clone(),
        headers: detail.headers,
    };
    let inbox = world.inbox();
    let stale = inbox
        .replay_anew(first.id, 0, mapped.deliveries.clone(), anew.clone(), at(2))
        .await
        .unwrap();
    assert_eq!(stale, Replayed::Moved);
    let made = inbox
        .replay_anew(first.id, 1, mapped.deliveries, anew.clone(), at(2))
        .await
        .unwrap();
    assert_eq!(
        made,
        Replayed::Made(vec![DeliveryId {
            event: first.id,
            number: 1
        }])
    );
    let claimed = world.claim_one(3).await;
    assert_eq!(
        (&claimed.params, &claimed.body),
        (&mapped.params, &first.body)
    );
    assert_eq!(
        (claimed.event_type.as_deref(), claimed.thread.as_deref()),
        (Some("mended"), Some("1"))
    );
    let detail = world.inbox().event(first.id).await.unwrap().unwrap();
    assert_eq!(
        (detail.headers, detail.request_line),
        (first.headers, first.request_line)
    );
    assert_eq!(
        detail.summary.states,
        [DeliveryState::Unmappable, DeliveryState::Leased]
    );
    world.settle(&claimed, 4, done()).await;

    // Filtered by now, and called off.
    let filtered = Anew {
        filtered: Some("events".into()),
        ..anew
    };
    let made = world
        .inbox()
        .replay_anew(second.id, 1, vec![], filtered, at(5))
        .await
        .unwrap();
    assert_eq!(made, Replayed::Made(vec![]));
    let off = DeliveryId {
        event: third.id,
        number: 0,
    };
    assert!(
        world.inbox().cancel(off, at(6)).await.unwrap()
            && !world.inbox().cancel(off, at(6)).await.unwrap()
    );
    for id in [second.id, third.id] {
        assert_eq!(
            world
                .inbox()
                .event(id)
                .await
                .unwrap()
                .unwrap()
                .summary
                .states,
            [DeliveryState::Cancelled]
        );
    }
    assert_eq!(world.counts().await[&("triage".to_owned(), "cancelled")], 2);
    assert!(
        world
            .inbox()
            .events(&filter)
            .await
            .unwrap()
            .items
            .is_empty()
    );
}
