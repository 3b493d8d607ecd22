//! Deliveries that a settlement owes: they answer the one which is settled, and are deliveries like any other.

use sluicegate::inbox::{
    AnsweredDelivery, Claimed, Next, OwedDelivery, Pause, Settled, Settlement,
};
use sluicegate::model::{
    Account, Class, DeliveryId, DeliveryState, Destination, NewDelivery, OverlapMode,
};

use super::{World, agent, at, done, event, keep, retry, room_for, settlement};

fn channel() -> Destination {
    "channel/desk".parse().unwrap()
}

fn owed(thread: &str, payload: &str) -> OwedDelivery {
    let upstream_id = format!("reply to {thread}");
    OwedDelivery {
        delivery: NewDelivery {
            lane: channel().lane(&Account::Operator, &upstream_id),
            destination: channel(),
            upstream_id,
            account: Account::Operator,
            class: Class::Normal,
            sealed: None,
        },
        payload: payload.to_owned().into(),
    }
}

fn owing(claimed: &Claimed, now: i64, owes: Vec<OwedDelivery>) -> Settlement {
    Settlement {
        owes,
        ..settlement(claimed, now, done())
    }
}

async fn settle(world: &World, claimed: &Claimed, now: i64, owes: Vec<OwedDelivery>) -> Settled {
    world
        .inbox()
        .settle(owing(claimed, now, owes))
        .await
        .unwrap()
}

fn answer(id: DeliveryId, payload: &str) -> Option<AnsweredDelivery> {
    Some(AnsweredDelivery {
        id,
        payload: payload.to_owned().into(),
    })
}

pub async fn a_settlement_owes_deliveries_that_say_what_they_answer(world: World) {
    let first = world.accept(&event("a", 1)).await;
    let run = world.claim_one(2).await;
    assert_eq!((run.id, &run.answers), (first, &None));
    let owes = vec![owed("a", "one"), owed("b", "two")];
    assert_eq!(settle(&world, &run, 3, owes).await, Settled::Done);

    let mut claimed = world.claim(3).await;
    // Both lanes are due since the same time, so either may come first.
    claimed.sort_by_key(|one| one.id.number);
    let ids = [1, 2].map(|number| DeliveryId { number, ..first });
    for (one, (id, payload)) in claimed.iter().zip(ids.into_iter().zip(["one", "two"])) {
        assert_eq!((one.id, one.attempt), (id, 1));
        assert_eq!(one.destination, channel());
        assert_eq!(one.answers, answer(first, payload));
        assert_eq!(one.params, run.params, "its event goes along");
    }
    let detail = world.inbox().event(first.event).await.unwrap().unwrap();
    let shown: Vec<_> = detail
        .deliveries
        .iter()
        .map(|one| (one.id, one.destination.clone(), one.answers, one.state))
        .collect();
    assert_eq!(
        shown,
        [
            (first, agent(), None, DeliveryState::Delivered),
            (ids[0], channel(), Some(first), DeliveryState::Leased),
            (ids[1], channel(), Some(first), DeliveryState::Leased),
        ]
    );
    world.settle(&claimed[0], 4, done()).await;
    world.settle(&claimed[1], 4, Next::Dead(None)).await;
    let counts = world.counts().await;
    let want = [("delivered", 2), ("dead", 1)];
    assert_eq!(
        counts,
        want.map(|(state, count)| (("triage".to_owned(), state), count))
            .into()
    );
}

pub async fn what_is_owed_is_owed_once_however_often_it_is_settled(world: World) {
    let id = world.accept(&event("a", 1)).await;
    let run = world.claim_one(2).await;
    let again = run.clone();
    let first = settle(&world, &run, 3, vec![owed("a", "one")]).await;
    let second = settle(&world, &again, 4, vec![owed("a", "two")]).await;
    assert_eq!((first, second), (Settled::Done, Settled::Stale));
    let reply = world.claim_one(5).await;
    assert_eq!(reply.answers, answer(id, "one"));
    let detail = world.inbox().event(id.event).await.unwrap().unwrap();
    assert_eq!(detail.deliveries.len(), 2);
}

pub async fn what_is_owed_outlives_a_crash_and_is_tried_paused_and_called_off_like_any(
    mut world: World,
) {
    let id = world.accept(&event("a", 1)).await;
    let run = world.claim_one(2).await;
    settle(&world, &run, 3, vec![owed("a", "one"), owed("a", "two")]).await;
    world.crash().await;
    let to = Pause::Destination(channel());
    assert!(world.inbox().set_paused(&to, true, at(4)).await.unwrap());
    let [first, second] = [1, 2].map(|number| DeliveryId { number, ..id });

    let reply = world.claim_one(5).await;
    assert_eq!(
        (reply.id, reply.doubt, &reply.answers),
        (first, None, &answer(id, "one")),
        "one at a time in its lane"
    );
    world.settle(&reply, 6, retry(100)).await;
    assert!(world.claim(50).await.is_empty(), "its lane waits with it");
    let reply = world.claim_one(100).await;
    assert_eq!((reply.id, reply.attempt), (first, 2));
    assert_eq!(
        reply.answers,
        answer(id, "one"),
        "every try has its payload"
    );
    world.crash().await;
    let reply = world.claim_one(101).await;
    assert!(reply.doubt.is_some() && reply.answers == answer(id, "one"));
    world.settle(&reply, 102, Next::Dead(None)).await;
    assert!(world.inbox().cancel(second, at(103)).await.unwrap());
    assert_eq!(world.state(first).await, DeliveryState::Dead);
    assert_eq!(world.state(second).await, DeliveryState::Cancelled);
    assert!(world.claim(1000).await.is_empty());
    // With its event everything goes.
    let gone = world.inbox().sweep(&keep(1), at(5000), 10).await.unwrap();
    assert_eq!(gone, 1);
}

pub async fn a_settlement_says_how_far_what_is_owed_has_come(mut world: World) {
    let id = world.accept(&event("a", 1)).await;
    let run = world.claim_one(2).await;
    settle(&world, &run, 3, vec![owed("a", "part 1")]).await;
    let reply = world.claim_one(4).await;
    let further = Settlement {
        progress: Some("part 2".into()),
        ..settlement(&reply, 5, retry(5))
    };
    let settled = world.inbox().settle(further.clone()).await.unwrap();
    assert_eq!(settled, Settled::Done);
    world.crash().await;
    let reply = world.claim_one(6).await;
    assert_eq!(reply.answers, answer(id, "part 2"));
    // A lease that has passed on changes nothing.
    let late = Settlement {
        progress: Some("part 1".into()),
        ..further
    };
    assert_eq!(world.inbox().settle(late).await.unwrap(), Settled::Stale);
    world.settle(&reply, 7, retry(7)).await;
    let reply = world.claim_one(8).await;
    assert_eq!(
        reply.answers,
        answer(id, "part 2"),
        "without a word it stays"
    );
    world.settle(&reply, 9, done()).await;
}

pub async fn what_is_owed_is_neither_put_together_nor_dropped(world: World) {
    let mut runs = Vec::new();
    for thread in ["a", "b", "c"] {
        world.accept(&event(thread, 1)).await;
        runs.push(world.claim_one(2).await);
    }
    for (run, payload) in runs.iter().zip(["one", "two", "three"]) {
        settle(&world, run, 3, vec![owed("all", payload)]).await;
    }
    for (mode, (run, payload)) in [
        OverlapMode::Latest,
        OverlapMode::Collect,
        OverlapMode::Latest,
    ]
    .into_iter()
    .zip(runs.iter().zip(["one", "two", "three"]))
    {
        let terms = room_for(100).overlap(mode, Some(1), Some(1));
        let reply = world.claim_one_on(&terms, 1000).await;
        assert_eq!(reply.answers, answer(run.id, payload));
        assert_eq!((reply.merged.len(), reply.dropped), (0, 0));
        world.settle(&reply, 1000, done()).await;
    }
}

pub async fn a_replay_comes_behind_what_is_owed_and_owes_anew(world: World) {
    let id = world.accept(&event("a", 1)).await;
    let run = world.claim_one(2).await;
    settle(&world, &run, 3, vec![owed("a", "one")]).await;
    let reply = world.claim_one(4).await;
    world.settle(&reply, 5, done()).await;
    let made = world.replay(id.event, 2, event("a", 1).deliveries, 6).await;
    let again = world.claim_one(7).await;
    assert_eq!((made, &again.answers), (vec![again.id], &None));
    settle(&world, &again, 8, vec![owed("a", "two")]).await;
    let reply = world.claim_one(9).await;
    assert_eq!(reply.answers, answer(again.id, "two"));
}
