//! What is removed, and when.

use std::collections::HashMap;
use std::time::Duration;

use sluicegate::inbox::{Keep, KeepTimes, Next, Resolution, sweep::sweep};
use sluicegate::model::{NewEvent, OverlapMode};

use super::{World, at, done, event, event_of, everything, keep, retry, room_for};

pub async fn a_sweep_leaves_what_is_owed_and_what_is_young(world: World) {
    for n in 0..450 {
        world.accept(&event(&n.to_string(), n)).await;
    }
    let mut claimed = Vec::new();
    while claimed.len() < 440 {
        claimed.extend(world.claim(1000).await);
    }
    for claimed in claimed
        .iter()
        .filter(|claimed| claimed.received_at.millis() % 10 != 0)
    {
        world.settle(claimed, 1000, done()).await;
    }
    let replayed = claimed
        .iter()
        .find(|claimed| claimed.received_at == at(11))
        .unwrap();
    let to = event("11", 11).deliveries;
    world.replay(replayed.id.event, 1, to, 1000).await;
    assert_eq!(
        world.inbox().sweep(&keep(600), at(1000), 7).await.unwrap(),
        7,
        "no more than asked for"
    );
    let gone = sweep(world.inbox(), &keep(600), at(1000)).await.unwrap();
    assert_eq!(gone + 7, 400 - 40 - 1);
    let left = world.inbox().events(&everything()).await.unwrap().items;
    assert_eq!(left.len(), 450 - 359);
    assert!(left.iter().any(|event| event.id == replayed.id.event));
    assert_eq!(sweep(world.inbox(), &keep(600), at(1000)).await.unwrap(), 0);
}

pub async fn each_source_and_state_is_kept_for_its_time(world: World) {
    let mut events = Vec::new();
    for (source, threads) in [
        ("triage", ["done", "dead", "unknown", "off", "both", "owed"]),
        ("slow", ["done"; 6]),
    ] {
        for (n, thread) in
            threads
                .into_iter()
                .enumerate()
                .take(if source == "slow" { 1 } else { 6 })
        {
            let mut event = event_of(source, &format!("{thread}{n}{source}"), 1000);
            if thread == "both" {
                let mut second = event.deliveries[0].clone();
                second.lane = uuid::Uuid::new_v4();
                event.deliveries.push(second);
            }
            world.accept(&event).await;
            events.push((thread, source, event.id));
        }
    }
    let filtered = NewEvent {
        filtered: Some("events".into()),
        deliveries: vec![],
        ..event("f", 1000)
    };
    world.accept(&filtered).await;
    events.push(("filtered", "triage", filtered.id));
    for one in world.claim(1000).await {
        let next = match one.thread.as_deref().unwrap() {
            thread if thread.starts_with("done") => done(),
            thread if thread.starts_with("dead") => Next::Dead(None),
            thread if thread.starts_with("unknown") => Next::Unknown,
            thread if thread.starts_with("both") && one.id.number == 0 => done(),
            thread if thread.starts_with("both") => Next::Dead(None),
            _ => retry(1000),
        };
        world.settle(&one, 1000, next).await;
        if one.thread.as_deref().unwrap().starts_with("off") {
            assert!(world.inbox().cancel(one.id, at(1000)).await.unwrap());
        }
    }
    let times = |delivered, dead, filtered| KeepTimes {
        delivered: Duration::from_millis(delivered),
        dead: Duration::from_millis(dead),
        filtered: Duration::from_millis(filtered),
    };
    let sources = HashMap::from([("slow".to_owned(), times(400, 50, 50))]);
    let keep = Keep {
        usual: times(100, 300, 50),
        sources,
    };
    let left = async |now: i64| {
        sweep(world.inbox(), &keep, at(now)).await.unwrap();
        let there = world.inbox().events(&everything()).await.unwrap().items;
        let known = events
            .iter()
            .filter(|(.., id)| there.iter().any(|event| event.id == *id));
        known
            .map(|(thread, source, _)| format!("{thread} {source}"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let all = "done triage, dead triage, unknown triage, off triage, both triage, owed triage, done slow, filtered triage";
    assert_eq!(left(1050).await, all, "not before its time");
    assert_eq!(
        left(1051).await,
        "done triage, dead triage, unknown triage, both triage, owed triage, done slow"
    );
    assert_eq!(
        left(1101).await,
        "dead triage, unknown triage, both triage, owed triage, done slow"
    );
    assert_eq!(left(1301).await, "owed triage, done slow");
    assert_eq!(left(1401).await, "owed triage");
    assert_eq!(left(1_000_000).await, "owed triage", "however long");
}

/// F1
pub async fn what_a_retry_would_bring_again_is_not_swept(world: World) {
    for n in 1..=3 {
        world.accept(&event("a", n)).await;
    }
    let terms = room_for(10).overlap(OverlapMode::Collect, None, None);
    let turn = world.claim_one_on(&terms, 5).await;
    let times = KeepTimes {
        dead: Duration::from_secs(3600),
        ..keep(1).usual
    };
    let keep = Keep {
        usual: times,
        sources: HashMap::new(),
    };
    let sweep_at = async |now: i64| sweep(world.inbox(), &keep, at(now)).await.unwrap();
    let sweep = async || sweep_at(1000).await;
    assert_eq!(sweep().await, 0, "it is in flight");
    world.settle(&turn, 6, retry(1000)).await;
    assert_eq!(sweep().await, 0, "it is owed");
    let turn = world.claim_one_on(&terms, 1000).await;
    assert_eq!(turn.merged.len(), 2);
    world.settle(&turn, 1000, Next::Unknown).await;
    assert_eq!(sweep().await, 0, "it may be sent again by hand");
    assert!(
        world
            .inbox()
            .resolve(turn.id, Resolution::Again, "", at(1000))
            .await
            .unwrap()
    );
    let turn = world.claim_one_on(&terms, 1000).await;
    assert_eq!(turn.merged.len(), 2);
    world.settle(&turn, 1000, done()).await;
    // What was to be kept longer may be looked at again only the next day.
    assert_eq!(sweep().await + sweep_at(26 * 3600 * 1000).await, 3);
}
