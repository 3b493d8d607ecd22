//! How claims are shared by accounts, classes and sources, and how much may wait of a source.

use std::time::Duration;

use sluicegate::model::{
    Accepted, Account, Backlog, Class, DeliveryId, Destination, EventId, NewEvent,
};

use super::{World, at, done, event, event_of};

/// An event in a lane of its own.
fn of(account: Account, class: Class, source: &str, now: i64) -> NewEvent {
    let mut event = event_of(source, &EventId::new().to_string(), now);
    let delivery = &mut event.deliveries[0];
    delivery.lane = delivery.destination.lane(&account, &delivery.upstream_id);
    (delivery.account, delivery.class) = (account, class);
    event
}

/// The accounts and classes of what is claimed one by one, and settled at once.
async fn turns(world: &World, count: usize, now: i64) -> Vec<(Account, Class)> {
    let mut turns = Vec::new();
    for _ in 0..count {
        for claimed in world.claim_some(1, now).await {
            turns.push((claimed.account.clone(), claimed.class));
            world.settle(&claimed, now, done()).await;
        }
    }
    turns
}

pub async fn s3_whatever_waits_the_operator_and_the_urgent_have_their_turn(world: World) {
    for _ in 0..60 {
        world
            .accept(&of(Account::Foreign, Class::Interactive, "dropin", 1))
            .await;
        world
            .accept(&of(Account::Operator, Class::Bulk, "pushes", 1))
            .await;
    }
    let before = turns(&world, 8, 2).await;
    let foreign = |turns: &[(Account, Class)]| {
        turns
            .iter()
            .filter(|(account, _)| account.is_foreign())
            .count()
    };
    assert_eq!((before.len(), foreign(&before)), (8, 2), "{before:?}");
    world
        .accept(&of(Account::Operator, Class::Interactive, "chat", 3))
        .await;
    world
        .accept(&of(Account::Key("ci".into()), Class::Normal, "dropin", 3))
        .await;
    let after = turns(&world, 40, 4).await;
    let place = |class| {
        after
            .iter()
            .position(|(account, of)| !account.is_foreign() && *of == class)
            .unwrap()
    };
    assert!(place(Class::Interactive) < 2, "{after:?}");
    assert!(place(Class::Normal) < 4, "{after:?}");
    assert!((9..=11).contains(&foreign(&after)), "{after:?}");
    let rest = turns(&world, 80, 5).await;
    assert_eq!(rest.len(), 122 - 48, "nothing is left behind");
}

pub async fn a_lane_keeps_its_order_whatever_the_classes_in_it(world: World) {
    let classes = [
        Class::Bulk,
        Class::Interactive,
        Class::Normal,
        Class::Interactive,
    ];
    let mut ids: Vec<DeliveryId> = Vec::new();
    for (now, class) in (1..).zip(classes) {
        let mut event = event("a", now);
        event.deliveries[0].class = class;
        ids.push(world.accept(&event).await);
    }
    for (now, id) in (5..).zip(ids) {
        let claimed = world.claim_one(now).await;
        assert_eq!(claimed.id, id);
        world.settle(&claimed, now, done()).await;
    }
}

pub async fn s4_a_stranger_in_a_conversation_holds_nobody_up(world: World) {
    let ours = event("a", 2);
    let mut theirs = event_of("dropin", "a", 1);
    let delivery = &mut theirs.deliveries[0];
    assert_eq!(
        delivery.upstream_id, ours.deliveries[0].upstream_id,
        "the same conversation, worked out"
    );
    delivery.account = Account::Foreign;
    delivery.lane = delivery
        .destination
        .lane(&delivery.account, &delivery.upstream_id);
    world.accept(&theirs).await;
    assert_eq!(world.claim_one(1).await.account, Account::Foreign);
    let ours = NewEvent {
        most_ahead: Some(0),
        ..ours
    };
    let id = world.accept(&ours).await;
    assert_eq!(world.claim_one(2).await.id, id);
}

pub async fn s3_routes_that_strangers_make_hide_no_other(world: World) {
    for number in 0..300 {
        let mut event = of(Account::Foreign, Class::Interactive, "dropin", 1);
        let to: Destination = format!("agent/x{number}").parse().unwrap();
        let delivery = &mut event.deliveries[0];
        delivery.lane = to.lane(&Account::Foreign, &delivery.upstream_id);
        delivery.destination = to;
        world.accept(&event).await;
    }
    world
        .accept(&of(Account::Operator, Class::Bulk, "ours", 2))
        .await;
    let claimed = world.claim_some(4, 3).await;
    assert_eq!(
        claimed
            .iter()
            .filter(|claimed| claimed.account == Account::Operator)
            .count(),
        1
    );
    // None of the many is forgotten either.
    let mut all = claimed.len();
    for now in 4..20 {
        all += world.claim_some(1000, now).await.len();
    }
    assert_eq!(all, 301);
}

pub async fn more_than_may_wait_of_a_source_is_turned_away(world: World) {
    let bounded = |now, most: Option<u64>, age: Option<u64>| {
        let backlog = Backlog {
            most,
            age: age.map(Duration::from_millis),
            turns_away: true,
        };
        let dedup = Some(format!("d{now}"));
        NewEvent {
            backlog: Some(backlog),
            dedup,
            ..of(Account::Operator, Class::Normal, "s", now)
        }
    };
    let first = bounded(1, Some(2), None);
    world.accept(&first).await;
    world.accept(&bounded(2, Some(2), None)).await;
    let accept = async |event: NewEvent| world.inbox().accept(event).await.unwrap();
    assert_eq!(accept(bounded(3, Some(2), None)).await, Accepted::Behind);
    let again = NewEvent {
        id: EventId::new(),
        ..first.clone()
    };
    assert_eq!(
        accept(again).await,
        Accepted::Duplicate(first.id),
        "a double is a double first"
    );
    assert_eq!(
        accept(bounded(100, None, Some(98))).await,
        Accepted::Behind,
        "the first has waited for 99"
    );
    assert_eq!(accept(bounded(101, None, Some(100))).await, Accepted::New);
    for claimed in world.claim(102).await {
        world.settle(&claimed, 102, done()).await;
    }
    assert_eq!(
        accept(bounded(3, Some(2), Some(1))).await,
        Accepted::New,
        "nothing waits any more"
    );
    assert_eq!(
        world
            .inbox()
            .event(first.id)
            .await
            .unwrap()
            .unwrap()
            .summary
            .received_at,
        at(1)
    );
}
