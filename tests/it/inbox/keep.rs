//! What is kept, once, and what is turned away.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use sluicegate::inbox::{EventFilter, InboxError};
use sluicegate::model::{
    Accepted, DeliveryId, DeliveryState, EventId, Name, NewEvent, Origin, Param, Params,
    UpstreamIds,
};

use super::{Options, USUAL, World, agent, at, done, event, everything, keep, retry, room_for};
use crate::cluster::within;

pub async fn an_event_reads_back_as_it_was_given(world: World) {
    let event = NewEvent {
        dedup: Some("d1".into()),
        ..event("t", 5)
    };
    world.accept(&event).await;
    let detail = world.inbox().event(event.id).await.unwrap().unwrap();
    assert_eq!(detail.summary.id, event.id);
    assert_eq!(detail.summary.source, event.source);
    assert_eq!(detail.summary.dedup, event.dedup);
    assert_eq!(detail.summary.event_type, event.event_type);
    assert_eq!(detail.summary.thread, event.thread);
    assert_eq!(detail.summary.received_at, event.received_at);
    assert_eq!(detail.summary.states, [DeliveryState::Pending]);
    assert_eq!(
        (detail.strength.as_str(), detail.secret),
        ("signed", event.secret)
    );
    assert_eq!(
        (detail.params, detail.headers),
        (event.params.clone(), event.headers.clone())
    );
    assert_eq!(
        (detail.request_line, detail.body),
        (event.request_line, event.body.clone())
    );
    assert_eq!(detail.deliveries[0].due, Some(at(5)));
    assert!(world.inbox().event(EventId::new()).await.unwrap().is_none());

    let claimed = world.claim_one(5).await;
    assert_eq!(
        claimed.id,
        DeliveryId {
            event: event.id,
            number: 0
        }
    );
    assert_eq!(
        (claimed.destination, claimed.upstream_id),
        (agent(), event.deliveries[0].upstream_id.clone())
    );
    assert_eq!(
        (claimed.attempt, claimed.doubt, claimed.source.as_str()),
        (1, None, "triage")
    );
    assert_eq!(
        (claimed.params, claimed.headers, claimed.body),
        (event.params, event.headers, event.body)
    );
}

/// T50
pub async fn sixty_four_copies_at_once_are_one_event(world: World) {
    let inbox = world.inbox.clone().unwrap();
    let copies = (0..64).map(|n| {
        let event = NewEvent {
            dedup: Some("same".into()),
            ..event("t", n)
        };
        let inbox = Arc::clone(&inbox);
        tokio::spawn(async move { (event.id, inbox.accept(event).await.unwrap()) })
    });
    let mut first = BTreeSet::new();
    let mut duplicates = BTreeSet::new();
    for copy in copies.collect::<Vec<_>>() {
        match copy.await.unwrap() {
            (id, Accepted::New) => first.insert(id),
            (_, Accepted::Duplicate(id)) => duplicates.insert(id),
            (_, Accepted::Busy | Accepted::Behind | Accepted::Replayed(_)) => {
                panic!("nobody asked for that")
            }
        };
    }
    assert_eq!(first.len(), 1);
    assert_eq!(first, duplicates, "a duplicate is told the first one's id");
    assert_eq!(
        world
            .inbox()
            .events(&everything())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    assert_eq!(world.counts().await.into_values().sum::<u64>(), 1);
}

pub async fn copies_from_different_sources_or_without_a_key_are_different_events(world: World) {
    let keyed = NewEvent {
        dedup: Some("k".into()),
        ..event("t", 1)
    };
    world.accept(&keyed).await;
    world
        .accept(&NewEvent {
            source: "other".into(),
            dedup: Some("k".into()),
            ..event("t", 1)
        })
        .await;
    world.accept(&event("t", 1)).await;
    world.accept(&event("t", 1)).await;
    let again = world.inbox().accept(keyed.clone()).await.unwrap();
    assert_eq!(
        again,
        Accepted::Duplicate(keyed.id),
        "the same event, its first answer lost"
    );
}

pub async fn an_event_that_will_not_wait_is_turned_away_while_its_lane_is_busy(world: World) {
    let hasty = |now| NewEvent {
        most_ahead: Some(0),
        dedup: Some(format!("d{now}")),
        ..event("a", now)
    };
    let first = hasty(1);
    world.accept(&first).await;
    assert_eq!(
        world.inbox().accept(hasty(2)).await.unwrap(),
        Accepted::Busy,
        "one waits"
    );
    let claimed = world.claim_one(2).await;
    assert_eq!(
        world.inbox().accept(hasty(3)).await.unwrap(),
        Accepted::Busy,
        "one is in flight"
    );
    let again = NewEvent {
        id: EventId::new(),
        ..first.clone()
    };
    assert_eq!(
        world.inbox().accept(again).await.unwrap(),
        Accepted::Duplicate(first.id),
        "a double first of all"
    );
    assert_eq!(
        world
            .inbox()
            .accept(NewEvent {
                most_ahead: Some(0),
                ..event("b", 3)
            })
            .await
            .unwrap(),
        Accepted::New
    );
    world.settle(&claimed, 4, done()).await;
    assert_eq!(
        world.inbox().accept(hasty(3)).await.unwrap(),
        Accepted::New,
        "what was turned away was not kept"
    );
    assert_eq!(
        world
            .inbox()
            .events(&everything())
            .await
            .unwrap()
            .items
            .len(),
        3
    );
}

pub async fn a_filtered_event_is_kept_and_owes_nothing(world: World) {
    let event = NewEvent {
        filtered: Some("events".into()),
        deliveries: vec![],
        ..event("t", 1)
    };
    world.accept(&event).await;
    assert!(world.claim(9).await.is_empty());
    let only = EventFilter {
        filtered: Some(true),
        ..everything()
    };
    assert_eq!(
        world.inbox().events(&only).await.unwrap().items[0]
            .filtered
            .as_deref(),
        Some("events")
    );
    let passed = EventFilter {
        filtered: Some(false),
        ..everything()
    };
    assert!(
        world
            .inbox()
            .events(&passed)
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

/// T62, T63
pub async fn odd_text_reads_back_unchanged(world: World) {
    let odd = [
        "\0",
        "a\0b",
        "\u{feff}\u{202e}",
        "e\u{301}",
        "é",
        "👩‍👩‍👧",
        "'; DROP TABLE event; --",
        "\\u0000",
        "",
    ];
    for text in odd {
        let mut event = event(text, 1);
        event.dedup = Some(text.into());
        event.event_type = Some(text.into());
        event.headers = vec![(text.into(), text.into())];
        event.body = bytes::Bytes::from_static(&[0, 255, 254, 0]);
        event.params = Params::new(vec![Param {
            name: Name::Prompt,
            value: text.into(),
            origin: Origin::Query,
            over: vec![],
        }]);
        world.accept(&event).await;
        let detail = world.inbox().event(event.id).await.unwrap().unwrap();
        assert_eq!(
            (detail.summary.dedup, detail.summary.thread),
            (Some(text.into()), Some(text.into()))
        );
        assert_eq!(
            (detail.params, detail.headers, detail.body),
            (event.params, event.headers, event.body)
        );
    }
}

/// T42
pub async fn a_full_queue_refuses_with_a_time_to_come_back(mut world: World) {
    world
        .reopen(Options {
            batch: 1,
            queue: 1,
            ..USUAL
        })
        .await;
    let inbox = world.inbox.clone().unwrap();
    let mut tasks = Vec::new();
    for n in 0..200 {
        let inbox = Arc::clone(&inbox);
        tasks.push(tokio::spawn(
            async move { inbox.accept(event("a", n)).await },
        ));
    }
    let (mut kept, mut refused) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(_) => kept += 1,
            Err(InboxError::Full(wait)) => {
                assert!(wait >= Duration::from_secs(1) && wait < Duration::from_secs(3));
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(kept > 0 && refused > 0, "{kept} kept, {refused} refused");
    let there = inbox.events(&everything()).await.unwrap().items.len();
    assert_eq!(there, kept, "what was refused is not there");
}

pub async fn after_closing_everything_answers_closed(world: World) {
    let inbox = world.inbox.clone().unwrap();
    let before = tokio::spawn({
        let inbox = Arc::clone(&inbox);
        async move { inbox.accept(event("a", 1)).await }
    });
    before.await.unwrap().unwrap();
    inbox.close().await;
    inbox.close().await;
    assert!(matches!(
        inbox.accept(event("a", 1)).await,
        Err(InboxError::Closed)
    ));
    assert!(matches!(
        inbox.claim(Box::new(room_for(1)), at(1)).await,
        Err(InboxError::Closed)
    ));
    assert!(matches!(inbox.counts().await, Err(InboxError::Closed)));
    assert!(matches!(inbox.ready().await, Err(InboxError::Closed)));
    let failed = tokio::time::timeout(Duration::from_millis(20), inbox.failed()).await;
    assert!(failed.is_err(), "closing is no failure");
}

pub async fn no_more_wait_in_a_lane_than_may_however_many_come_at_once(world: World) {
    let some = |now| NewEvent {
        most_ahead: Some(3),
        ..event("a", now)
    };
    let inbox = world.inbox.clone().unwrap();
    let come = async |from: i64| {
        let all = join_all((from..from + 16).map(|now| {
            let inbox = Arc::clone(&inbox);
            tokio::spawn(async move { inbox.accept(some(now)).await.unwrap() })
        }));
        all.await
            .into_iter()
            .filter(|accepted| *accepted.as_ref().unwrap() == Accepted::New)
            .count()
    };
    assert_eq!(come(1).await, 4);
    let claimed = world.claim_one(20).await;
    assert_eq!(come(20).await, 0, "one in flight is still ahead");
    world.settle(&claimed, 21, retry(22)).await;
    assert_eq!(come(22).await, 0, "so is one that is tried again");
    world.settle(&world.claim_one(22).await, 23, done()).await;
    assert_eq!(come(23).await, 1);
    world.accept(&event("a", 30)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_opener_of_a_file_is_refused_until_the_first_has_closed() {
    let world = World::sqlite().await;
    let error = world.engine.open(USUAL).await.err().unwrap();
    assert!(error.to_string().contains("another process"), "{error}");
    world.accept(&event("a", 1)).await;
    world.inbox().close().await;
    let next = world.engine.open(USUAL).await.unwrap();
    assert_eq!(next.events(&everything()).await.unwrap().items.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_at_its_ceiling_takes_nothing_more_until_something_was_removed() {
    let mut world = World::sqlite().await;
    let ceiling = 4 << 20;
    world
        .reopen(Options {
            ceiling: Some(ceiling),
            ..USUAL
        })
        .await;
    let large = |now: i64| NewEvent {
        body: vec![b'x'; 64 << 10].into(),
        ..event(&now.to_string(), now)
    };
    let mut kept = 0;
    let refused = loop {
        match world.inbox().accept(large(kept)).await {
            Ok(_) => kept += 1,
            Err(refused) => break refused,
        }
        assert!(kept < 1000, "it is refused some time");
    };
    assert!(matches!(refused, InboxError::NoSpace), "{refused}");
    let usage = world.inbox().usage().await.unwrap();
    assert_eq!(usage.ceiling, Some(ceiling));
    assert!(usage.bytes - usage.reusable >= ceiling, "{usage:?}");
    assert!(kept > 10, "the file and its log: {kept}");

    let mut ended = 0;
    while ended < kept {
        for claimed in world.claim(1000).await {
            world.settle(&claimed, 1000, done()).await;
            ended += 1;
        }
    }
    assert_eq!(ended, kept, "what is owed goes on");
    assert!(
        matches!(
            world.inbox().accept(large(0)).await,
            Err(InboxError::NoSpace)
        ),
        "and nothing else"
    );
    let kept = usize::try_from(kept).unwrap();
    assert_eq!(
        world.inbox().sweep(&keep(1), at(5000), kept).await.unwrap(),
        kept
    );
    within(Duration::from_secs(10), async || {
        world.inbox().accept(large(0)).await.ok()
    })
    .await;
}

/// Names that others could work out would let them into conversations (S20 of docs/threats.md).
pub async fn conversations_have_the_same_names_after_a_crash(mut world: World) {
    let (one, two) = tokio::join!(world.inbox().upstream_ids(), world.inbox().upstream_ids());
    let name = |ids: &UpstreamIds| ids.of_thread("triage", &agent(), "t");
    let (one, two) = (name(&one.unwrap()), name(&two.unwrap()));
    assert_eq!((one, one.get_version_num()), (two, 8));
    world.crash().await;
    assert_eq!(name(&world.inbox().upstream_ids().await.unwrap()), one);
}
