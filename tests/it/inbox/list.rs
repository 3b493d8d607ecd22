//! Lists: pages, filters, words, counts.

use std::collections::BTreeMap;
use std::time::Duration;

use sluicegate::inbox::{EventFilter, Next};
use sluicegate::model::{Account, DeliveryState, Destination, EventId, NewEvent};

use super::{Options, USUAL, World, at, done, event, everything, keep, retry};
use crate::cluster::within;

pub async fn pages_walk_every_event_once_newest_first(world: World) {
    let mut all = Vec::new();
    for n in 0..25 {
        let source = if n % 5 == 0 { "rare" } else { "triage" };
        let event = NewEvent {
            source: source.into(),
            ..event(&n.to_string(), n * 1000)
        };
        world.accept(&event).await;
        all.push(event.id);
    }
    for claimed in world.claim(100_000).await {
        let next = match claimed.received_at.millis() {
            1000 => Next::Unknown,
            0 | 2000 => done(),
            _ => Next::Released { doubt: None },
        };
        world.settle(&claimed, 1, next).await;
    }
    let walk = async |filter: EventFilter| {
        let (mut seen, mut filter) = (Vec::new(), filter);
        loop {
            let page = world.inbox().events(&filter).await.unwrap();
            assert!(page.items.len() <= filter.limit);
            seen.extend(page.items.iter().map(|event| event.received_at.seconds()));
            filter.cursor = page.next;
            if page.next.is_none() {
                return seen;
            }
        }
    };
    let page = EventFilter {
        limit: 4,
        ..EventFilter::default()
    };
    assert_eq!(walk(page.clone()).await, (0..25).rev().collect::<Vec<_>>());
    assert_eq!(
        walk(EventFilter {
            source: Some("rare".into()),
            ..page.clone()
        })
        .await,
        [20, 15, 10, 5, 0]
    );
    assert_eq!(
        walk(EventFilter {
            state: Some(DeliveryState::Delivered),
            ..page.clone()
        })
        .await,
        [2, 0]
    );
    assert_eq!(
        walk(EventFilter {
            state: Some(DeliveryState::Unknown),
            ..page.clone()
        })
        .await,
        [1]
    );
    let pending = EventFilter {
        state: Some(DeliveryState::Pending),
        source: Some("rare".into()),
        ..page.clone()
    };
    assert_eq!(walk(pending).await, [20, 15, 10, 5]);
    world.replay(all[1], 1, event("1", 1).deliveries, 1).await;
    world.replay(all[1], 2, event("1", 1).deliveries, 1).await;
    let twice = EventFilter {
        state: Some(DeliveryState::Pending),
        until: Some(at(2000)),
        limit: 1,
        ..page.clone()
    };
    assert_eq!(walk(twice).await, [1], "once, though it is owed twice");
    let between = EventFilter {
        since: Some(at(7000)),
        until: Some(at(9000)),
        ..page.clone()
    };
    assert_eq!(walk(between).await, [8, 7]);
    for odd in [i64::MIN, -1, 0] {
        assert!(
            walk(EventFilter {
                cursor: Some(odd),
                ..page.clone()
            })
            .await
            .is_empty()
        );
    }
    let edges = EventFilter {
        since: Some(at(i64::MIN)),
        until: Some(at(i64::MAX)),
        limit: 0,
        ..page
    };
    assert_eq!(world.inbox().events(&edges).await.unwrap().items.len(), 1);
}

pub async fn counts_add_up(world: World) {
    for n in 0..6 {
        world.accept(&event(&n.to_string(), n)).await;
    }
    let ends = [
        done(),
        Next::Dead(None),
        Next::Unknown,
        retry(100),
        Next::Released { doubt: None },
    ];
    let claimed = world.claim_some(5, 9).await;
    for (claimed, next) in claimed.iter().zip(ends) {
        world.settle(claimed, 200, next).await;
    }
    world.inbox().cancel(claimed[4].id, at(200)).await.unwrap();
    world.claim_some(1, 150).await;
    let want = [
        ("cancelled", 1),
        ("dead", 1),
        ("delivered", 1),
        ("leased", 1),
        ("pending", 1),
        ("unknown", 1),
    ];
    let want = want.map(|(state, count)| (("triage".to_owned(), state), count));
    assert_eq!(world.counts().await, BTreeMap::from(want));
}

pub async fn every_filter_finds_its_own_both_ways(world: World) {
    let other: Destination = "workflow/w1".parse().unwrap();
    let mut all: Vec<(NewEvent, DeliveryState)> = Vec::new();
    for n in 0..24_i64 {
        let mut event = event(&format!("t{}", n % 5), n * 1000);
        event.source = if n % 3 == 0 { "rare" } else { "triage" }.into();
        event.event_type = (n % 4 != 0).then(|| format!("type{}", n % 4));
        event.dedup = Some(format!("d{}", if n % 3 == 0 { n / 3 } else { n - n / 3 }));
        if n % 2 == 0 {
            let delivery = &mut event.deliveries[0];
            delivery.lane = other.lane(&Account::Operator, &delivery.upstream_id);
            delivery.destination = other.clone();
        }
        if n % 7 == 6 {
            (event.filtered, event.deliveries) = (Some("events".into()), vec![]);
        } else if n % 6 == 1 {
            event.deliveries.extend(event.deliveries.clone());
        }
        world.accept(&event).await;
        all.push((event, DeliveryState::Pending));
    }
    loop {
        let claimed = world.claim(100_000).await;
        if claimed.is_empty() {
            break;
        }
        for one in claimed {
            let n = one.received_at.seconds();
            let (next, state) = match n % 4 {
                0 => (done(), DeliveryState::Delivered),
                1 => (Next::Dead(None), DeliveryState::Dead),
                2 => (Next::Unknown, DeliveryState::Unknown),
                _ => (retry(1_000_000), DeliveryState::Pending),
            };
            world.settle(&one, 100_000, next).await;
            all[usize::try_from(n).unwrap()].1 = state;
        }
    }
    let page = EventFilter {
        limit: 2,
        ..EventFilter::default()
    };
    let filters = [
        page.clone(),
        EventFilter {
            source: Some("rare".into()),
            ..page.clone()
        },
        EventFilter {
            event_type: Some("type2".into()),
            ..page.clone()
        },
        EventFilter {
            thread: Some("t3".into()),
            ..page.clone()
        },
        EventFilter {
            dedup: Some("d2".into()),
            ..page.clone()
        },
        EventFilter {
            dedup: Some("d2".into()),
            source: Some("rare".into()),
            ..page.clone()
        },
        EventFilter {
            destination: Some(other.clone()),
            ..page.clone()
        },
        EventFilter {
            filtered: Some(true),
            ..page.clone()
        },
        EventFilter {
            filtered: Some(false),
            source: Some("rare".into()),
            ..page.clone()
        },
        EventFilter {
            state: Some(DeliveryState::Dead),
            ..page.clone()
        },
        EventFilter {
            state: Some(DeliveryState::Delivered),
            thread: Some("t4".into()),
            ..page.clone()
        },
        EventFilter {
            state: Some(DeliveryState::Unknown),
            destination: Some(other.clone()),
            ..page.clone()
        },
        EventFilter {
            since: Some(at(5000)),
            until: Some(at(17_000)),
            ..page.clone()
        },
        EventFilter {
            since: Some(at(5000)),
            thread: Some("t1".into()),
            event_type: Some("type1".into()),
            ..page
        },
    ];
    for filter in filters {
        let fits = |(event, state): &(NewEvent, DeliveryState)| {
            let owed = &event.deliveries;
            filter
                .source
                .as_ref()
                .is_none_or(|source| *source == event.source)
                && filter
                    .event_type
                    .as_ref()
                    .is_none_or(|kind| Some(kind) == event.event_type.as_ref())
                && filter
                    .thread
                    .as_ref()
                    .is_none_or(|thread| Some(thread) == event.thread.as_ref())
                && filter
                    .dedup
                    .as_ref()
                    .is_none_or(|dedup| Some(dedup) == event.dedup.as_ref())
                && filter
                    .destination
                    .as_ref()
                    .is_none_or(|to| owed.iter().any(|owed| owed.destination == *to))
                && filter
                    .filtered
                    .is_none_or(|filtered| filtered == event.filtered.is_some())
                && filter
                    .state
                    .is_none_or(|wanted| wanted == *state && !owed.is_empty())
                && filter.since.is_none_or(|since| event.received_at >= since)
                && filter.until.is_none_or(|until| event.received_at < until)
        };
        let mut wanted: Vec<EventId> = all
            .iter()
            .filter(|one| fits(one))
            .map(|(event, _)| event.id)
            .collect();
        assert!(!wanted.is_empty(), "{filter:?}");
        let count = wanted.len() as u64;
        assert_eq!(
            world.inbox().count(&filter, 1000).await.unwrap(),
            count,
            "{filter:?}"
        );
        assert_eq!(
            world.inbox().count(&filter, count - 1).await.unwrap(),
            count - 1,
            "no further than asked for"
        );
        for oldest_first in [true, false] {
            let mut filter = EventFilter {
                oldest_first,
                ..filter.clone()
            };
            let mut found = Vec::new();
            loop {
                let page = world.inbox().events(&filter).await.unwrap();
                found.extend(page.items.iter().map(|event| event.id));
                filter.cursor = page.next;
                if page.next.is_none() {
                    break;
                }
            }
            assert_eq!(found, wanted, "{filter:?}");
            wanted.reverse();
        }
    }
}

pub async fn words_in_bodies_are_found_with_and_without_an_index(mut world: World) {
    let say = |body: &'static str, now| NewEvent {
        body: body.into(),
        ..event("a", now)
    };
    let ada = say("{\"who\": \"Ada\", \"says\": \"The Gate is OPEN\"}", 1);
    let bob = say(
        "{\"who\": \"Bob\", \"says\": \"The gate was 100% shut; that's all\"}",
        2,
    );
    for event in [
        &ada,
        &bob,
        &NewEvent {
            body: vec![0xff, 0, b'g', b'a', b't', b'e'].into(),
            ..event("a", 3)
        },
    ] {
        world.accept(event).await;
    }
    let filter = |text: &str| EventFilter {
        text: Some(text.into()),
        ..everything()
    };
    for search in [false, true] {
        // What came before there was an index is found too.
        world.reopen(Options { search, ..USUAL }).await;
        let find = async |text: &str| {
            let found = world.inbox().events(&filter(text)).await.unwrap().items;
            found.iter().map(|event| event.id).collect::<Vec<_>>()
        };
        within(Duration::from_secs(10), async || {
            (!find("ada gate open").await.is_empty()).then_some(())
        })
        .await;
        within(Duration::from_secs(10), async || {
            (!find("bob").await.is_empty()).then_some(())
        })
        .await;
        assert_eq!(find("open ADA").await, [ada.id], "in any order and case");
        assert!(find("ada shut").await.is_empty(), "all of them");
        assert_eq!(find("100% that's").await, [bob.id], "signs have no meaning");
        for odd in ["\" OR \"", "NEAR(", "*", "%_"] {
            assert!(find(odd).await.len() < 3, "{odd} is no command");
        }
        assert!(world.inbox().count(&filter("gate"), 10).await.unwrap() >= 2);
        let of_another = EventFilter {
            source: Some("other".into()),
            ..filter("gate")
        };
        assert_eq!(world.inbox().count(&of_another, 10).await.unwrap(), 0);
    }
    let claimed = world.claim(5).await;
    world.settle(&claimed[0], 5, done()).await;
    assert_eq!(
        world.inbox().sweep(&keep(1), at(1000), 10).await.unwrap(),
        1
    );
    assert_eq!(
        world.inbox().count(&filter("ada"), 10).await.unwrap(),
        0,
        "its words go with it"
    );
}
