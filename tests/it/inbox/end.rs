//! How leases and deliveries end, and who is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluicegate::inbox::{Answer, Next, SealedCall, Settled};
use sluicegate::model::{Account, DeliveryId, DeliveryState, EventId, NewDelivery};

use super::{World, agent, at, done, event, retry, settlement};

/// F21
pub async fn a_late_settlement_changes_nothing(world: World) {
    world.accept(&event("a", 1)).await;
    let late = world.claim_one(1).await;
    world.settle(&late, 1, Next::Released { doubt: None }).await;
    let current = world.claim_one(2).await;
    assert_eq!(current.key, late.key);
    assert_eq!(world.settle(&late, 3, done()).await, Settled::Stale);
    assert_eq!(world.state(late.id).await, DeliveryState::Leased);
    assert_eq!(world.settle(&current, 3, done()).await, Settled::Done);
    assert_eq!(
        world.settle(&current, 4, retry(4)).await,
        Settled::Stale,
        "not twice either"
    );
    assert_eq!(
        world.counts().await,
        BTreeMap::from([(("triage".into(), "delivered"), 1)])
    );
}

pub async fn a_settlement_of_an_earlier_life_of_the_lane_changes_nothing(world: World) {
    world.accept(&event("a", 1)).await;
    let earlier = world.claim_one(1).await;
    world.settle(&earlier, 1, done()).await;
    world.accept(&event("a", 2)).await;
    let later = world.claim_one(2).await;
    assert_eq!(later.lane, earlier.lane);
    assert_eq!(world.settle(&earlier, 3, retry(3)).await, Settled::Stale);
    assert_eq!(world.state(later.id).await, DeliveryState::Leased);
    assert_eq!(world.state(earlier.id).await, DeliveryState::Delivered);
}

pub async fn s2_an_event_of_a_stranger_goes_with_the_refusal_of_its_key(world: World) {
    let foreign = Account::Foreign;
    let (ours, key) = (Account::Operator, Account::Key("ci".to_owned()));
    for (account, status, stays) in [
        (&foreign, 401, false),
        (&foreign, 403, false),
        (&foreign, 404, true),
        (&ours, 401, true),
        (&key, 403, true),
    ] {
        let mut event = event("a", 1);
        event.deliveries[0].account = account.clone();
        event.deliveries[0].lane = uuid::Uuid::new_v4();
        let id = world.accept(&event).await;
        let mut end = settlement(&world.claim_one(1).await, 2, Next::Dead(None));
        end.attempt.status = Some(status);
        assert_eq!(world.inbox().settle(end).await.unwrap(), Settled::Done);
        assert_eq!(
            world.inbox().event(id.event).await.unwrap().is_some(),
            stays,
            "{account} {status}"
        );
        assert_eq!(
            world.inbox().ended(id).await.unwrap().is_some(),
            stays,
            "{account} {status}"
        );
    }
    // The lane goes on.
    for number in 0..2 {
        let mut event = event("b", number);
        event.deliveries[0].account = Account::Foreign;
        world.accept(&event).await;
    }
    let first = world.claim_one(3).await;
    let mut end = settlement(&first, 4, Next::Dead(None));
    end.attempt.status = Some(403);
    world.inbox().settle(end).await.unwrap();
    let second = world.claim_one(5).await;
    assert!(second.lane == first.lane && second.key > first.key);
}

pub async fn whoever_waits_for_an_end_is_told_at_once(world: World) {
    let inbox = world.inbox.clone().unwrap();
    let wait = |id: DeliveryId| {
        let inbox = Arc::clone(&inbox);
        tokio::spawn(async move {
            inbox
                .ended(id)
                .await
                .unwrap()
                .map(|delivery| delivery.state)
        })
    };
    let nobody = DeliveryId {
        event: EventId::new(),
        number: 0,
    };
    assert_eq!(wait(nobody).await.unwrap(), None);
    for next in [done(), Next::Dead(None), Next::Unknown] {
        let event = event("a", 1);
        world.accept(&event).await;
        let id = DeliveryId {
            event: event.id,
            number: 0,
        };
        let (first, second) = (wait(id), wait(id));
        let claimed = world.claim_one(1).await;
        world.settle(&claimed, 1, retry(1)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!first.is_finished(), "a retry is no end");
        let begun = Instant::now();
        world.settle(&world.claim_one(1).await, 2, next).await;
        let ends = (first.await.unwrap(), second.await.unwrap());
        assert!(
            begun.elapsed() < Duration::from_millis(500),
            "told, and not found by looking"
        );
        let state = world.state(id).await;
        assert_eq!(ends, (Some(state), Some(state)));
        assert_eq!(wait(id).await.unwrap(), Some(state), "afterwards too");
    }
    let called_off = event("b", 1);
    world.accept(&called_off).await;
    let id = DeliveryId {
        event: called_off.id,
        number: 0,
    };
    let waiting = wait(id);
    world.inbox().cancel(id, at(2)).await.unwrap();
    assert_eq!(waiting.await.unwrap(), Some(DeliveryState::Cancelled));
}

pub async fn a_sealed_call_lasts_as_long_as_its_delivery(world: World) {
    let sealed = |thread: &str| {
        let mut event = event(thread, 1);
        event.deliveries[0].sealed = Some("closed".into());
        event
    };
    let kept = async |id: EventId| {
        let detail = world.inbox().event(id).await.unwrap().unwrap();
        detail
            .deliveries
            .iter()
            .map(|delivery| delivery.sealed)
            .collect::<Vec<_>>()
    };
    let plain = event("p", 1);
    world.accept(&plain).await;
    assert_eq!(kept(plain.id).await, [SealedCall::None]);
    world.settle(&world.claim_one(1).await, 1, done()).await;
    for (next, wanted) in [
        (done(), SealedCall::Erased),
        (Next::Dead(None), SealedCall::Erased),
        (Next::Unknown, SealedCall::Kept),
    ] {
        let event = sealed("a");
        world.accept(&event).await;
        let claimed = world.claim_one(1).await;
        assert_eq!(claimed.sealed.as_deref(), Some(&b"closed"[..]));
        world.settle(&claimed, 1, retry(1)).await;
        assert_eq!(kept(event.id).await, [SealedCall::Kept]);
        world.settle(&world.claim_one(1).await, 1, next).await;
        assert_eq!(kept(event.id).await, [wanted]);
        if wanted == SealedCall::Kept {
            let to = vec![NewDelivery {
                sealed: None,
                ..event.deliveries[0].clone()
            }];
            world.replay(event.id, 1, to, 2).await;
            assert_eq!(
                kept(event.id).await,
                [SealedCall::Erased, SealedCall::Kept],
                "it goes along"
            );
            assert_eq!(
                world.claim_one(2).await.sealed.as_deref(),
                Some(&b"closed"[..])
            );
        }
    }
    let called_off = sealed("c");
    world.accept(&called_off).await;
    world
        .inbox()
        .cancel(
            DeliveryId {
                event: called_off.id,
                number: 0,
            },
            at(2),
        )
        .await
        .unwrap();
    assert_eq!(kept(called_off.id).await, [SealedCall::Erased]);
}

pub async fn a_task_object_is_kept_whole_or_not_at_all(world: World) {
    for (size, whole) in [(1 << 20, true), ((1 << 20) + 1, false)] {
        let event = event("a", 1);
        world.accept(&event).await;
        let task = bytes::Bytes::from(vec![b'7'; size]);
        let answer = Answer {
            status: "completed".into(),
            result: None,
            finished_at: None,
            task: Some(task.clone()),
        };
        world
            .settle(&world.claim_one(1).await, 1, Next::Delivered(answer))
            .await;
        let ended = world
            .inbox()
            .ended(DeliveryId {
                event: event.id,
                number: 0,
            })
            .await
            .unwrap()
            .unwrap();
        assert_eq!(ended.answer.unwrap().task, whole.then_some(task));
    }
}

pub async fn tries_are_bounded_and_answers_are_kept(world: World) {
    let event = event("a", 1);
    world.accept(&event).await;
    for now in 1..=60 {
        world
            .settle(&world.claim_one(now).await, now, retry(now))
            .await;
    }
    let answer = Answer {
        status: "failed".into(),
        result: Some("é".repeat(200_000)),
        finished_at: Some("x".into()),
        task: None,
    };
    world
        .settle(&world.claim_one(61).await, 61, Next::Dead(Some(answer)))
        .await;
    let detail = world.inbox().event(event.id).await.unwrap().unwrap();
    let delivery = &detail.deliveries[0];
    assert_eq!(
        (delivery.state, delivery.attempts, delivery.due),
        (DeliveryState::Dead, 61, None)
    );
    assert_eq!(delivery.tries.len(), 50);
    assert_eq!(
        delivery.tries.iter().map(|t| t.number).collect::<Vec<_>>(),
        (12..=61).collect::<Vec<_>>()
    );
    let answer = delivery.answer.as_ref().unwrap();
    assert_eq!(
        (answer.status.as_str(), answer.finished_at.as_deref()),
        ("failed", Some("x"))
    );
    let result = answer.result.as_ref().unwrap();
    assert!(
        result.len() <= 256 << 10 && result.chars().all(|c| c == 'é'),
        "cut between characters"
    );
}

pub async fn the_turn_before_is_found_with_its_answer(world: World) {
    let first = event("a", 1);
    world.accept(&first).await;
    let claimed = world.claim_one(1).await;
    assert_eq!(world.inbox().earlier_turn(&claimed).await.unwrap(), None);
    world.settle(&claimed, 1, done()).await;

    let called_off = event("a", 2);
    world.accept(&called_off).await;
    world
        .inbox()
        .cancel(
            DeliveryId {
                event: called_off.id,
                number: 0,
            },
            at(2),
        )
        .await
        .unwrap();
    world.accept(&event("a", 3)).await;
    let turn = world
        .inbox()
        .earlier_turn(&world.claim_one(3).await)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (turn.params, turn.headers, turn.body),
        (first.params, first.headers, first.body)
    );
    assert_eq!(turn.answer.unwrap().result.as_deref(), Some("ok"));

    let mut alone = event("b", 4);
    let id = DeliveryId {
        event: alone.id,
        number: 0,
    }
    .as_uuid()
    .to_string();
    alone.deliveries[0] = NewDelivery {
        lane: agent().lane(&Account::Operator, &id),
        upstream_id: id,
        ..alone.deliveries[0].clone()
    };
    world.accept(&alone).await;
    assert_eq!(
        world
            .inbox()
            .earlier_turn(&world.claim_one(4).await)
            .await
            .unwrap(),
        None
    );
}
